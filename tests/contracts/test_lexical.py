"""What every analyser keeps: BM25 weights, counted query terms, and one form for equal words."""

from __future__ import annotations

import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.embedding.lexical import Bm25Encoder
from rag_service.types import SparseVector

CRANFIELD_LIKE = ["wing flutter at high speed", "heat transfer in a boundary layer", "boundary layer of a heated wing"]


@pytest.fixture(params=["english", "multilingual"])
def analyser(request: pytest.FixtureRequest) -> Literal["english", "multilingual"]:
    chosen: Literal["english", "multilingual"] = request.param
    return chosen


def weights(vector: SparseVector) -> dict[int, float]:
    assert len(set(vector.indices)) == len(vector.indices) == len(vector.values)
    return dict(zip(vector.indices, vector.values, strict=True))


def document(encoder: Bm25Encoder, text: str) -> dict[int, float]:
    return weights(encoder.encode([text], "document")[0])


def query(encoder: Bm25Encoder, text: str) -> dict[int, float]:
    return weights(encoder.encode([text], "query")[0])


@given(st.lists(st.sampled_from(["zebra", "quartz", "violin", "mango"]), min_size=1, max_size=40), st.floats(1, 500))
def test_document_weights_are_the_formula_of_bm25(words: list[str], average: float) -> None:
    encoder = Bm25Encoder(average)
    found = document(encoder, " ".join(words))
    for word, count in Counter(words).items():
        (term,) = query(encoder, word)
        expected = count * 2.2 / (count + 1.2 * (1 - 0.75 + 0.75 * len(words) / average))
        assert math.isclose(found[term], expected, rel_tol=1e-4)


@given(st.lists(st.sampled_from(["zebra", "quartz", "violin", "mango"]), min_size=1, max_size=40))
def test_query_weights_are_the_counts_of_their_terms(words: list[str]) -> None:
    for analyser in ("english", "multilingual"):
        found = query(Bm25Encoder(3, analyser), " ".join(words))
        assert sorted(found.values()) == sorted(map(float, Counter(words).values()))


def test_a_repeated_query_term_decides(analyser: Literal["english", "multilingual"]) -> None:
    encoder = Bm25Encoder(5, analyser)
    documents = [document(encoder, text) for text in CRANFIELD_LIKE]

    def ranking(text: str) -> list[int]:
        asked = query(encoder, text)
        scores = [sum(weight * held.get(term, 0) for term, weight in asked.items()) for held in documents]
        return [int(place) for place in np.argsort(scores)[::-1]]

    assert ranking("flutter flutter flutter of a layer")[0] == 0
    assert ranking("flutter layer layer layer boundary")[0] != 0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Café", "cafe"),
        ("CAFE\u0301", "café"),
        ("ﬁnance", "finance"),
        ("ＦＵＬＬ", "full"),
        ("ọ̀pọ̀", "opo"),
        ("ÅNGSTRÖM", "angstrom"),
        ("한국어", "한국어"),
    ],
)
def test_equal_words_written_differently_are_one_term(
    analyser: Literal["english", "multilingual"], one: str, other: str
) -> None:
    encoder = Bm25Encoder(analyser=analyser)
    assert document(encoder, one) == document(encoder, other) != {}
    assert query(encoder, one) == query(encoder, other) != {}


def test_english_stems_and_drops_stop_words_and_multilingual_does_not() -> None:
    assert query(Bm25Encoder(), "the runners are running") == query(Bm25Encoder(), "runners run")
    assert len(query(Bm25Encoder(analyser="multilingual"), "the runners are running")) == 4


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
    analyser: Literal["english", "multilingual"], asked: str, holding: str, other: str
) -> None:
    encoder = Bm25Encoder(analyser=analyser)
    terms = query(encoder, asked).keys()
    assert terms <= document(encoder, holding).keys()
    assert not terms <= document(encoder, other).keys()


@pytest.mark.parametrize("text", ["", "   \n", "!?", "\x00", "\ud800", "x" * 100_000, "word " * 50_000])
def test_any_text_is_encoded(analyser: Literal["english", "multilingual"], text: str) -> None:
    found = document(Bm25Encoder(analyser=analyser), text)
    assert all(0 < weight < 2.2 for weight in found.values())


def test_a_text_without_words_has_no_terms(analyser: Literal["english", "multilingual"]) -> None:
    encoder = Bm25Encoder(analyser=analyser)
    assert document(encoder, " ?! ") == query(encoder, " ?! ") == {}


def test_identity_holds_all_that_changes_a_weight() -> None:
    identities = {
        Bm25Encoder(average, analyser).identity for average in (10.0, 10.5) for analyser in ("english", "multilingual")
    }
    assert len(identities) == 4
    assert Bm25Encoder(10.0).identity == "bm25-1(english, k1=1.2, b=0.75, average=10)"


def test_threads_may_share_an_encoder(analyser: Literal["english", "multilingual"]) -> None:
    encoder = Bm25Encoder(analyser=analyser)
    texts = [f"{word} passage number {number}" for number in range(100) for word in CRANFIELD_LIKE]
    expected = [document(Bm25Encoder(analyser=analyser), text) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda text: document(encoder, text), texts)) == expected


def test_terms_are_the_same_in_every_process() -> None:
    assert query(Bm25Encoder(), "zebra") == {1054603790: 1.0}
