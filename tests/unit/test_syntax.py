"""Quoted phrases and excluded words: what a question demands, and which passages fulfil it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.retrieval.syntax import Question, folded, read
from rag_service.types import Chunk, ChunkText, ConfirmedChunk, utc_now


def passage(text: str, title: str = "", headings: tuple[str, ...] = ()) -> ConfirmedChunk:
    chunk = Chunk("c", "d", 1, 0, ChunkText(text, 0, len(text), None, headings), "hash")
    return ConfirmedChunk(chunk, "x", "default", title, None, "text/plain", {}, None, "", "", "", "", "", utc_now())


def admits(query: str, text: str, **more: object) -> bool:
    return read(query).admits(passage(text, **more))  # type: ignore[arg-type]  # only the names of `passage`


def test_what_keeps_a_passage_out_is_named_without_its_folding() -> None:
    question = read('"Annual Leave" "sick pay" leave -party -"too late"')
    assert question.unmet(passage("annual leave, and it is too late")) == (("sick pay",), ("too late",))
    assert question.unmet(passage("annual leave", title="Sick pay")) == ((), ())
    assert read("leave").unmet(passage("x")) == ((), ())


@given(st.sampled_from(['"a b" c -d', "a -b -c", '"a" "b"']), st.text("abcd ", max_size=8))
def test_a_passage_is_admitted_exactly_where_nothing_keeps_it_out(query: str, text: str) -> None:
    assert read(query).admits(passage(text)) == (read(query).unmet(passage(text)) == ((), ()))


@pytest.mark.parametrize(
    ("query", "text", "phrases", "excluded"),
    [
        ("annual leave", "annual leave", (), ()),
        ('what "annual leave" is', "what annual leave is", (" annual leave ",), ()),
        ("“annual leave” rules", "annual leave rules", (" annual leave ",), ()),
        ("„Urlaub im Jahr“ Regeln", "Urlaub im Jahr Regeln", (" urlaub im jahr ",), ()),
        ("leave -sick", "leave", (), (" sick ",)),
        ('leave -"sick pay", paid', "leave , paid", (), (" sick pay ",)),
        ("leave -self-service", "leave", (), (" self service ",)),
        ('年假 "工作"', "年假 工作", (" 工 作 ",), ()),
    ],
)
def test_demands_are_read_out_of_the_question(
    query: str, text: str, phrases: tuple[str, ...], excluded: tuple[str, ...]
) -> None:
    assert read(query) == Question(text, phrases, excluded)


@pytest.mark.parametrize(
    "query",
    ['an 11" screen', "e-mail policy", "3 - 2", "git --amend", "rm -r", "minus -5 degrees", '"++" and more', "-only"],
)
def test_marks_that_mean_something_else_are_plain_text(query: str) -> None:
    assert read(query) == Question(query)


def test_a_long_question_quotes_without_demanding_unless_told_to() -> None:
    query = 'I have read in the handbook of last year that somebody wrote "annual leave" somewhere -and now this'
    assert not read(query).demands
    assert read(query, "on").phrases == (" annual leave ",)
    assert not read('"annual leave"', "off").demands


@pytest.mark.parametrize(
    ("query", "prose"),
    [
        (
            "我想知道公司最近发布的员工手册里面提到的“弹性工作制度”是从什么时候开始实行的，以及哪些部门的员工可以申请这个制度？",
            True,
        ),
        ("哪些部门的员工可以申请“弹性工作制度”？", False),
        ("ฉันอยากทราบว่าพนักงานใหม่ที่เพิ่งเริ่มงานในเดือนนี้จะได้รับ “วันลา” ตั้งแต่เมื่อไร", True),
        ("พนักงานใหม่ได้รับ “วันลา” เมื่อไร", False),
        ('who may - and when - ask for "annual leave" in our self-service', False),
    ],
)
def test_words_are_counted_where_no_blanks_part_them_too(query: str, prose: bool) -> None:
    assert read(query).demands is not prose


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The Annual  Leave\nis long.", True),
        ("annual *leave*", True),
        ("_annual_ leave", True),
        ("__annual leave__", True),
        ("annual_leave", False),
        ("ａｎｎｕａｌ leave", True),
        ("leave annual", False),
        ("annual leaves", False),
        ("biannual leave", False),
        ("annual sick leave", False),
    ],
)
def test_a_phrase_is_found_by_its_words_in_order_however_they_are_written(text: str, expected: bool) -> None:
    assert admits('"annual leave"', text) is expected


def test_a_phrase_may_stand_in_the_title_or_a_heading_but_not_across_them() -> None:
    assert admits('"annual leave"', "It is long.", title="Annual leave")
    assert admits('"annual leave"', "It is long.", headings=("Rules", "Annual leave"))
    assert not admits('"annual leave"', "leave is long", title="Annual")


def test_every_phrase_must_occur_and_no_excluded_word_may() -> None:
    query = '"annual leave" "full pay" -sick'
    assert admits(query, "Annual leave is on full pay.")
    assert not admits(query, "Annual leave is unpaid.")
    assert not admits(query, "Annual leave is on full pay, sick leave too.")
    assert admits("leave -sick", "sickness leave")
    assert not admits("leave -draft", "This is _draft_ leave policy")
    assert admits("leave -draft", "leave is in draft_leave")


def test_scripts_without_blanks_are_compared_by_characters() -> None:
    assert admits('"工作制度"', "本公司的工作制度如下")
    assert not admits('"工作制度"', "工作的制度")
    assert not admits("制度 -加班", "加班制度")


@pytest.mark.parametrize(
    ("quoted", "text"),
    [
        ("كتاب", "قرأت كِتابًا كِتاب"),
        ("كِتاب", "كتـــاب"),
        ("ספר", "סֵפֶר"),
        ("בית ספר", "בית־ספר"),
        ("елка", "ёлка"),
        ("йод", "и\u0306од"),
    ],
)
def test_words_are_equal_however_they_are_pointed(quoted: str, text: str) -> None:
    assert admits(f'"{quoted}"', text)


@pytest.mark.parametrize(("quoted", "text"), [("coeur", "cœur"), ("LÆGE", "laege"), ("ışık hızı", "IŞIK HIZI")])
def test_ligatures_and_the_dotless_i_are_plain_letters(quoted: str, text: str) -> None:
    assert admits(f'"{quoted}"', text)
    assert admits(f'"{text}"', quoted)


def test_soft_hyphens_and_spaces_of_no_width_do_not_count() -> None:
    assert admits('"Arbeitszeit gilt"', "Die Ar\u00adbeits\u00adzeit\u200b gilt\ufeff.")
    assert not admits("Regeln -Ar\u00adbeits\u00adzeit", "Regeln der Arbeitszeit")


def test_vowel_signs_are_part_of_their_word() -> None:
    assert admits('"दिन"', "तीस दिन।")
    assert not admits('"दिन"', "तीस दान।")
    assert admits('दिन -"दान"', "तीस दिन।")
    assert not admits('"දින"', "දාන")


@pytest.mark.parametrize("word", ["अवकाश", "दिन", "วันลา", "résumé", "re\u0301sume\u0301", "كِتاب", "סֵפֶר"])
def test_a_word_is_excluded_in_every_script(word: str) -> None:
    assert read(f"leave -{word}").excluded == (folded(word),)
    assert read(f"leave -{word}").text == "leave"


@pytest.mark.parametrize(
    "query", ["RAG_DATA_DIR", "what is CVE-2025-64712?", "getUserName fails", "error E1042", '"a b" c']
)
def test_exact_names_are_noticed(query: str) -> None:
    assert read(query).names_something


@pytest.mark.parametrize(
    "query", ["how long is leave", "What does IL-6 do in the liver of mice?", "NASA and the USA", "e.g."]
)
def test_prose_names_nothing_exactly(query: str) -> None:
    assert not read(query).names_something


@pytest.mark.timeout(5)
@pytest.mark.parametrize("query", ["-" * 2**20 + "ab", "AB-" * 2**18, "A" * 2**20 + "1a"])
def test_looking_for_names_takes_no_time(query: str) -> None:
    assert not Question(query).names_something


@given(st.text(max_size=60), st.sampled_from(["auto", "on", "off"]))
def test_any_text_can_be_asked_and_never_becomes_empty(query: str, operators: str) -> None:
    question = read(query, operators)  # type: ignore[arg-type]  # sampled from the three names
    assert bool(question.text.strip()) == bool(query.strip())
    assert all(demand == folded(demand) and demand.strip() for demand in question.phrases + question.excluded)


@given(st.text(max_size=80))
def test_folding_a_second_time_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)
