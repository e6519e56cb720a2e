"""Highlights: which sentences of a chunk are marked, and that their spans are exact."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_service.retrieval.highlight import highlights, sentences

LEAVE = (
    "Annual leave is 25 days a year. The office opens at nine. "
    "Leave requests go to the HR team. Parking is free! Days off cannot be sold."
)


def marked(query: str, text: str, limit: int = 3) -> list[str]:
    return [text[start:end] for start, end in highlights(query, text, limit)]


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


def test_the_best_sentences_are_marked_in_reading_order() -> None:
    assert marked("How many days of annual leave are there?", LEAVE, limit=1) == ["Annual leave is 25 days a year."]
    assert marked("How many days of annual leave are there?", LEAVE) == [
        "Annual leave is 25 days a year.",
        "Leave requests go to the HR team.",
        "Days off cannot be sold.",
    ]


def test_only_sentences_that_share_a_term_are_marked() -> None:
    assert marked("parking", LEAVE) == ["Parking is free!"]
    assert marked("quantum chromodynamics", LEAVE) == []


@pytest.mark.parametrize(("query", "text"), [("", LEAVE), ("leave", ""), ("leave", "  \n "), ("?!", LEAVE), ("", "")])
def test_nothing_to_match_marks_nothing(query: str, text: str) -> None:
    assert highlights(query, text) == []


@pytest.mark.parametrize(
    "text",
    ["Leave is long.", "Leave is long. Leave is short.", "Leave is long. Parking is free."],
    ids=["one sentence", "a term in all of two", "a term in half of two"],
)
def test_tiny_chunks_are_marked_although_their_terms_are_common(text: str) -> None:
    assert "Leave is long." in marked("leave", text)


def test_a_sentence_that_matches_faintly_is_not_marked_beside_one_that_matches_well() -> None:
    filler = " ".join(f"Leave number {n} ends." for n in range(20))
    assert marked("unpaid leave", f"{filler} Unpaid leave is rare.") == ["Unpaid leave is rare."]


def test_grammar_does_not_mark_a_sentence() -> None:
    assert marked("What is the tax?", "What is this? It is the office.") == []
    assert marked("to be or not to be", "To be is to do. Do be do.") != [], "but counts where there is nothing else"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("permissions", "One permission is enough."),
        ("policy", "Policies change."),
        ("CAFÉ", "The cafe is closed."),
        ("uber", "Über allen Gipfeln."),
        ("STRASSE", "Die Straße ist lang."),
        ("ｆｕｌｌ", "A full width letter."),
        ("retry after", "Set `retry_after` to 5."),
        ("файл", "Файл не найден."),
        ("كتاب", "هذا كِتاب."),
        ("दुनिया", "नमस्ते दुनिया।"),
        ("犬は何をする", "犬は走る。"),
        ("年休", "员工享有年休假。"),
        ("猫", "三毛猫です。"),
        ("휴가", "연차휴가는 25일입니다."),
        ("สวัสดี", "คำว่าสวัสดีครับ"),
    ],
)
def test_light_folding_meets_in_many_scripts(query: str, sentence: str) -> None:
    text = f"Nothing of that kind.\n\n{sentence}\n\n另外一件事！ Something else."
    assert marked(query, text) == [sentence]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three? Four…", ["One.", "Two!", "Three?", "Four…"]),
        ('He said "Stop." Then he left.', ['He said "Stop."', "Then he left."]),
        ("It costs 3.14 (approx. 4 USD). Fine.", ["It costs 3.14 (approx. 4 USD).", "Fine."]),
        ("Dr. Smith met J. Doe. They spoke.", ["Dr. Smith met J. Doe.", "They spoke."]),
        ("Open at 9. Close at 5.", ["Open at 9.", "Close at 5."]),
        ("Wait... what? Yes.", ["Wait... what?", "Yes."]),
        ("Wrapped\nin lines. And\nmore.", ["Wrapped\nin lines.", "And\nmore."]),
        ("# Head\nText one.\n\nText two", ["# Head", "Text one.", "Text two"]),
        ("- one\n- two\n1. three", ["- one", "- two", "1. three"]),
        ("| a | b |\n|---|---|\n| 1 | 2 |\nAfter", ["| a | b |", "|---|---|", "| 1 | 2 |", "After"]),
        ("猫は寝る。犬は走る！「はい。」終", ["猫は寝る。", "犬は走る！", "「はい。」", "終"]),
        ("第一句。第二句？", ["第一句。", "第二句？"]),
        ("नमस्ते। दूसरा।", ["नमस्ते।", "दूसरा।"]),
        ("هل هذا؟ نعم.", ["هل هذا؟", "نعم."]),
        ("", []),
        (" \n\n ", []),
    ],
)
def test_sentences(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_text_without_sentences_is_cut_at_its_lines() -> None:
    code = "\n".join(f"    total_{n} = compute({n}, rate)" for n in range(40))
    assert len(sentences(code)) == 40
    assert marked("total_7", code) == ["total_7 = compute(7, rate)"]


WORDS = st.sampled_from(
    ["leave", "Days", "the", "25", ".", "! ", "\n", "\n\n", "# ", "- ", "| ", "。", "年休", " ", "é", "\u0301", "ß"]
)


@given(st.lists(WORDS, max_size=40).map("".join) | st.text(max_size=200))
def test_sentences_are_stripped_disjoint_and_lose_no_letter(text: str) -> None:
    spans = sentences(text)
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(before[1] <= after[0] for before, after in pairwise(spans))
    assert "".join("".join(split(text)).split()) == "".join(text.split())


@given(
    query=st.text(max_size=20) | st.just("leave days"),
    text=st.lists(WORDS, max_size=40).map("".join),
    limit=st.integers(1, 4),
)
def test_highlights_are_some_of_the_sentences_in_order(query: str, text: str, limit: int) -> None:
    found = highlights(query, text, limit)
    assert len(found) <= limit
    assert found == [span for span in sentences(text) if span in found]


@pytest.mark.parametrize(
    "text",
    [
        "." * 50_000,
        ". " * 20_000,
        "\n" * 50_000,
        "\n " * 20_000,
        "|\n" * 20_000,
        "#" * 50_000,
        "\n# " * 10_000,
        '."' * 20_000,
        *[" " * 50_000, "\u0301" * 50_000, (". " + " " * 100) * 500, "```\n" * 10_000, "a" * 50_000, "1)" * 20_000],
    ],
)
def test_hostile_text_takes_no_longer_than_its_length(text: str) -> None:
    began = time.process_time()
    highlights("a 1 # | .", text)
    assert time.process_time() - began < 1.5
