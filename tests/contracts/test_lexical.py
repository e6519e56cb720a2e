"""What every language keeps: BM25 weights, counted query terms, and one form for equal words."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import get_args

import numpy as np
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Plus

from rag_service.embedding.base import LexicalEncoder
from rag_service.embedding.languages import FUNCTION_WORDS, SNOWBALL, Language
from rag_service.embedding.lexical import Bm25Encoder, checked_language
from rag_service.errors import ConfigError
from rag_service.types import SparseVector

CRANFIELD_LIKE = ["wing flutter at high speed", "heat transfer in a boundary layer", "boundary layer of a heated wing"]
PLAIN_WORDS = ["zebra", "quartz", "violin", "mango", "orbit", "kelp"]
LANGUAGES: tuple[Language, ...] = get_args(Language)


@pytest.fixture(params=["auto", "english", "german", "russian", "multilingual", "cjk", "code"])
def language(request: pytest.FixtureRequest) -> Language:
    chosen: Language = request.param
    return chosen


def weights(vector: SparseVector) -> dict[int, float]:
    assert len(set(vector.indices)) == len(vector.indices) == len(vector.values)
    return dict(zip(vector.indices, vector.values, strict=True))


def document(encoder: LexicalEncoder, text: str) -> dict[int, float]:
    return weights(encoder.encode([text], "document")[0])


def query(encoder: LexicalEncoder, text: str) -> dict[int, float]:
    return weights(encoder.encode([text], "query")[0])


def sure(encoder: LexicalEncoder, text: str) -> set[int]:
    """The terms of a question, without those that are only its words' forms in other languages."""
    return {term for term, weight in query(encoder, text).items() if weight >= 1}


def meets(language: Language, asked: str, text: str) -> bool:
    """Whether every term of the question is in the text."""
    encoder = Bm25Encoder(language=language)
    terms = sure(encoder, asked)
    return bool(terms) and terms <= document(encoder, text).keys()


def shares(language: Language, asked: str, text: str) -> bool:
    """Whether some term of the question is in the text."""
    encoder = Bm25Encoder(language=language)
    return bool(query(encoder, asked).keys() & document(encoder, text).keys())


@given(st.lists(st.sampled_from(PLAIN_WORDS[:4]), min_size=1, max_size=40), st.floats(1, 500))
def test_document_weights_are_the_formula_of_bm25(words: list[str], average: float) -> None:
    encoder = Bm25Encoder(average, "english")
    found = document(encoder, " ".join(words))
    for word, count in Counter(words).items():
        (term,) = query(encoder, word)
        expected = count * 2.2 / (count + 1.2 * (1 - 0.7 + 0.7 * len(words) / average))
        assert math.isclose(found[term], expected, rel_tol=1e-9)


@given(
    st.lists(st.lists(st.sampled_from(PLAIN_WORDS), min_size=1, max_size=30), min_size=2, max_size=12),
    st.lists(st.sampled_from(PLAIN_WORDS), min_size=1, max_size=8),
)
def test_the_ranking_agrees_with_rank_bm25(corpus: list[list[str]], asked: list[str]) -> None:
    lengths = [len(words) for words in corpus]
    encoder = Bm25Encoder(sum(lengths) / len(lengths), "multilingual")
    texts = [" ".join(words) for words in corpus]
    assert encoder.lengths(texts) == lengths

    # With delta 0 it is BM25 with the usual k1 and b; its IDF is ln((N + 1) / n), and the same one is applied here.
    oracle = BM25Plus(corpus, k1=1.2, b=0.7, delta=0)
    ids = {word: next(iter(query(encoder, word))) for word in PLAIN_WORDS}
    idf = {ids[word]: value for word, value in oracle.idf.items()}
    wanted = query(encoder, " ".join(asked))
    ours = [
        sum(weight * held.get(term, 0.0) * idf.get(term, 0.0) for term, weight in wanted.items())
        for held in (document(encoder, text) for text in texts)
    ]
    assert np.allclose(ours, oracle.get_scores(asked))


@given(st.lists(st.sampled_from(PLAIN_WORDS), min_size=1, max_size=40))
def test_query_weights_are_the_counts_of_their_terms(words: list[str]) -> None:
    for language in ("english", "multilingual"):
        found = query(Bm25Encoder(3, language), " ".join(words))
        assert sorted(found.values()) == sorted(map(float, Counter(words).values()))


def test_a_repeated_query_term_decides(language: Language) -> None:
    encoder = Bm25Encoder(5, language)
    documents = [document(encoder, text) for text in CRANFIELD_LIKE]

    def best(asked: str) -> int:
        wanted = query(encoder, asked)
        return int(np.argmax([sum(wanted[term] * held.get(term, 0) for term in wanted) for held in documents]))

    assert best("flutter flutter flutter heat transfer") == 0
    assert best("flutter heat heat transfer transfer") == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Flutter", "FLUTTER"),
        ("café", "cafe\u0301"),
        ("naïve", "naive"),
        ("Straße", "STRASSE"),
        ("ﬁle", "file"),
        ("cœur", "coeur"),
        ("ŒUVRE", "oeuvre"),
        ("læge", "laege"),
        ("ışık hızı", "IŞIK HIZI"),
        ("izin", "İZİN"),
        ("Ar\u00adbeits\u00adzeit\u00adre\u00adge\u00adlung", "Arbeitszeitregelung"),
        ("max_\u200bupload_\u200bbytes", "max_upload_bytes"),
        ("ＡＢＣ１２３", "abc123"),
        ("ọ̀pọ̀", "opo"),
        ("ÅNGSTRÖM", "angstrom"),
        ("한국어", "한국어"),
        ("كِتَاب", "كتاب"),
        ("أحمد", "احمد"),
        ("ёлка", "елка"),
        ("בית־סֵפֶר", "בית ספר"),
        ("Ὀδυσσεύς", "οδυσσευσ"),
    ],
)
def test_equal_words_written_differently_are_one_term(language: Language, one: str, other: str) -> None:
    encoder = Bm25Encoder(language=language)
    assert document(encoder, one) == document(encoder, other) != {}
    assert query(encoder, one) == query(encoder, other) != {}


@pytest.mark.parametrize("word", ["kızlar", "yıllarında", "kadınların", "sınırları", "internet", "izinler"])
def test_a_turkish_word_in_capitals_is_reduced_as_in_small_letters(word: str) -> None:
    capitals = word.replace("i", "İ").upper()
    assert meets("turkish", word, capitals)
    assert shares("turkish", capitals, word)


@pytest.mark.parametrize("word", ["API", "INVOICE", "Iphone"])
def test_a_foreign_word_in_turkish_text_is_found_in_small_letters(word: str) -> None:
    assert meets("turkish", word.lower(), f"{word} belgeleri")
    assert shares("turkish", word, f"{word.lower()} belgeleri")


def test_turkish_words_keep_their_vowels_until_they_are_reduced() -> None:
    assert meets("turkish", "kız", "kızlar")
    assert meets("turkish", "yıl", "yıllarında")


def test_a_letter_that_only_looks_accented_stays_itself() -> None:
    assert not shares("russian", "йод", "иод")


@pytest.mark.parametrize(("asked", "other"), [("दिन", "दान"), ("දින", "දාන")])
def test_vowel_signs_are_part_of_their_word(language: Language, asked: str, other: str) -> None:
    assert meets(language, asked, f"30 {asked}")
    assert not shares(language, asked, f"30 {other}")


@pytest.mark.parametrize(
    ("asked", "holding", "other"),
    [
        ("東京", "私は東京に住んでいます。", "京都は東にあります。"),
        ("中国人", "很多中国人喜欢喝茶", "很多人在中央公园喝茶"),
        ("도서관", "도서관에서 책을 읽었다", "관악산에서 책을 읽었다"),
        ("ภาษาไทย", "ฉันพูดภาษาไทยได้", "ฉันชอบกินข้าว"),
    ],
)
def test_words_are_found_inside_scripts_without_blanks(
    language: Language, asked: str, holding: str, other: str
) -> None:
    assert meets(language, asked, holding)
    assert not meets(language, asked, other)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("E-4031", ["4031"]),
        ("CVE-2024-1234", ["cve", "2024", "1234"]),
        ("v1.2.3", ["v1"]),
        ("max_upload_bytes", ["upload"]),
        ("os.path.join", ["path"]),
        ("getUserName", ["user"]),
        ("HTTPServer", ["http", "server"]),
        ("3.14", ["14"]),
    ],
)
def test_identifiers_numbers_and_codes_are_found_whole_and_in_parts(
    language: Language, name: str, parts: list[str]
) -> None:
    encoder = Bm25Encoder(language=language)
    text = document(encoder, f"see {name}, please")
    assert sure(encoder, name) <= text.keys()
    assert all(query(encoder, part).keys() & text.keys() for part in parts)
    # The whole is a term of its own: the parts alone do not add up to it.
    assert not sure(encoder, name) <= document(encoder, " / ".join(parts)).keys()


@pytest.mark.parametrize("word", ["mRNA", "iPhone", "well-known", "e.g."])
def test_what_is_no_identifier_is_no_whole(word: str) -> None:
    bare = word.replace("-", " ").replace(".", " ")
    assert query(Bm25Encoder(language="multilingual"), word) == query(Bm25Encoder(language="multilingual"), bare)


def test_code_splits_digits_from_letters_and_reduces_nothing() -> None:
    assert meets("code", "utf 8", "decode_utf8(data)")
    assert not shares("code", "running", "run")
    assert shares("code", "the", "the")


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("the runners are running", "A runner runs every morning."),
        ("Welche Häuser wurden verkauft?", "Das Haus wird von der Stadt nicht verkauft."),
        ("Häuser", "Das Haus wird von der Stadt nicht verkauft."),
        ("¿Cuáles son los animales nocturnos?", "El animal nocturno es muy raro en la isla."),
        ("Où sont les chansons françaises?", "La chanson française est dans le livre avec des images."),
        ("Где находятся университеты?", "В городе есть университет."),
        ("الكتاب", "قرأت كتابا"),
        ("machine 学习", "机器学习 machines"),
    ],
)
def test_auto_reduces_words_as_their_language_does(asked: str, text: str) -> None:
    assert shares("auto", asked, text)


def test_auto_asks_in_other_forms_for_half_where_a_question_shows_no_language() -> None:
    encoder = Bm25Encoder(language="auto")
    assert set(query(encoder, "Häuser").values()) == {1.0, 0.5}
    assert set(query(encoder, "where are the Häuser").values()) == {1.0}


def test_auto_is_english_for_english() -> None:
    for text in CRANFIELD_LIKE:
        assert document(Bm25Encoder(language="auto"), text) == document(Bm25Encoder(language="english"), text)


def test_a_named_language_needs_no_evidence() -> None:
    assert meets("german", "Häuser", "Haus")
    assert not meets("english", "Häuser", "Haus")
    assert query(Bm25Encoder(language="german"), "und oder nicht") == {}


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        ("kuća", "Kuće su velike."),
        ("kucu", "Kuće su velike."),
        ("kuću", "Куће су велике."),
        ("кућу", "Kuće su velike."),
        ("beograd", "у Београду"),
        ("đaci", "ђаци"),
        ("škola", "у школи"),
    ],
)
def test_serbian_is_one_language_in_both_scripts(asked: str, text: str) -> None:
    assert meets("serbian", asked, text)


@pytest.mark.parametrize("named", LANGUAGES)
def test_every_language_encodes(named: Language) -> None:
    found = document(Bm25Encoder(language=named), "2024 zebra ζέβρα зебра حمار ज़ेबरा 斑马")
    assert len(found) >= 6


def test_the_named_languages_are_those_of_snowball() -> None:
    assert set(SNOWBALL) == set(Stemmer.algorithms()) - {"porter", "dutch_porter"}
    assert set(FUNCTION_WORDS) <= set(SNOWBALL)


@pytest.mark.parametrize("text", ["", "   \n", "!?", "\x00", "\ud800", "x" * 100_000, "word " * 50_000, "a." * 50_000])
def test_any_text_is_encoded(language: Language, text: str) -> None:
    encoder = Bm25Encoder(language=language)
    assert all(0 < weight < 2.2 for weight in document(encoder, text).values())
    query(encoder, text)


def test_a_text_without_words_has_no_terms(language: Language) -> None:
    encoder = Bm25Encoder(language=language)
    assert document(encoder, " ?! ") == query(encoder, " ?! ") == {}
    assert encoder.lengths([" ?! "]) == [0]


def test_identity_holds_all_that_changes_a_weight() -> None:
    identities = {Bm25Encoder(average, named).identity for average in (10.0, 10.5) for named in LANGUAGES}
    assert len(identities) == 2 * len(LANGUAGES)
    assert Bm25Encoder(10.0, "english").identity == "bm25(english/3, k1=1.2, b=0.7, average=10)"


def test_an_analyser_of_another_version_is_refused() -> None:
    assert checked_language("cjk/3") == "cjk"
    for unknown in ("english", "english/2", "klingon/3", ""):
        with pytest.raises(ConfigError):
            checked_language(unknown)


def test_threads_may_share_an_encoder(language: Language) -> None:
    encoder = Bm25Encoder(language=language)
    texts = [f"{word} passage number{number} HouseNo{number}" for number in range(100) for word in CRANFIELD_LIKE]
    expected = [document(Bm25Encoder(language=language), text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: document(encoder, text), texts)) == expected


def test_terms_are_the_same_in_every_process() -> None:
    assert query(Bm25Encoder(language="multilingual"), "zebra") == {358047158: 1.0}
