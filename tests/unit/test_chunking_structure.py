"""Where the structure-aware chunker cuts: at headings, then blocks, items, rows and lines, sentences, words."""

from __future__ import annotations

import time

import pytest

from rag_service.chunking.base import clipped, embedded_text, fitting_title
from rag_service.chunking.outline import outline_of
from rag_service.chunking.sections import section_at
from rag_service.chunking.structure import StructureChunker
from rag_service.embedding.hashing import HashingEmbedder
from rag_service.types import ChunkText, PageStart, ParsedDocument

SPANS = HashingEmbedder().token_spans  # every word and every punctuation mark is a token


def prose(words: int, word: str = "word") -> str:
    """Sentences of ten tokens each."""
    return " ".join(f"{word.capitalize()} {' '.join([word] * 8)}." for _ in range(words // 10))


def chunks(
    text: str, limit: int = 64, *, layout: str = "markdown", pages: tuple[PageStart, ...] = ()
) -> list[ChunkText]:
    document = ParsedDocument(text, layout=layout, pages=pages)  # type: ignore[arg-type]  # literal by the callers
    return StructureChunker(SPANS, limit).chunk(document, "")


def texts(text: str, limit: int = 64, **more: str) -> list[str]:
    return [chunk.text for chunk in chunks(text, limit, **more)]  # type: ignore[arg-type]  # layout only


# --- sections -----------------------------------------------------------------------------


def test_a_document_that_fits_is_one_chunk() -> None:
    text = "# Guide\n\nIntroduction.\n\n## Install\n\nRun it.\n\n## Use\n\nAsk it."
    assert texts(text) == [text]


def test_sections_that_do_not_fit_together_are_cut_at_their_headings() -> None:
    install, use = f"## Install\n\n{prose(40)}", f"## Use\n\n{prose(40)}"
    assert texts(f"{install}\n\n{use}") == [install, use]


def test_the_heading_path_holds_the_headings_above_a_chunk_but_not_the_one_it_opens_with() -> None:
    text = f"# Guide\n\n{prose(50)}\n\n## Install\n\n{prose(50)}\n\n### Linux\n\n{prose(90)}\n\n## Use\n\n{prose(50)}"
    found = [(chunk.text.partition("\n")[0][:12], chunk.heading_path) for chunk in chunks(text, 72)]
    assert found == [
        ("# Guide", ()),
        ("## Install", ("Guide",)),
        ("### Linux", ("Guide", "Install")),
        ("Word word wo", ("Guide", "Install", "Linux")),
        ("## Use", ("Guide",)),
    ]


def test_small_neighbours_under_one_heading_are_joined() -> None:
    parts = [f"## Part {number}\n\n{prose(10)}" for number in range(8)]
    found = texts("\n\n".join(parts))
    assert len(found) < 5
    assert all(text.startswith("## Part") for text in found)


def test_sections_under_different_headings_are_not_joined() -> None:
    text = f"# One\n\n## Deep\n\n{prose(20)}\n\n# Two\n\n## Deep\n\n{prose(20)}"
    assert [text.partition("\n")[0] for text in texts(text)] == ["# One", "# Two"]


def test_the_rest_of_a_long_section_is_not_joined_to_the_next_section() -> None:
    text = f"## Long\n\n{prose(90)}\n\n## Short\n\n{prose(10)}"
    assert texts(text)[-1] == f"## Short\n\n{prose(10)}"


def test_a_heading_alone_opens_the_chunk_below_it() -> None:
    text = f"# Part One\n\n## Chapter One\n\n{prose(90)}"
    found = chunks(text)
    assert found[0].text.startswith("# Part One\n\n## Chapter One\n\nWord")
    assert found[1].heading_path == ("Part One", "Chapter One")


def test_a_chunk_never_ends_with_a_heading() -> None:
    text = "\n\n".join(
        f"{'#' * (2 + number % 3)} Heading {number}\n\n{prose(10 * (number % 9))}" for number in range(40)
    )
    for chunk in chunks(f"# All\n\n{text}")[:-1]:
        assert not chunk.text.rpartition("\n")[2].startswith("#") or "\n" not in chunk.text


def test_underlined_headings_count_too() -> None:
    text = f"Guide\n=====\n\n{prose(50)}\n\nInstall\n-------\n\n{prose(90)}"
    found = chunks(text)
    assert [chunk.text.partition("\n")[0][:7] for chunk in found[:2]] == ["Guide", "Install"]
    assert found[-1].heading_path == ("Guide", "Install")


def test_front_matter_is_no_heading() -> None:
    text = f"---\ntitle: Guide\n---\n\n# Real\n\n{prose(120)}"
    assert chunks(text)[-1].heading_path == ("Real",)


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_a_hash_in_a_code_block_is_no_heading(fence: str) -> None:
    code = "# comment\n```x\n" + "run it\n" * 40
    text = f"# Real\n\n{fence}sh\n{code}{fence}\n\n{prose(90)}"
    assert {path for chunk in chunks(text)[1:] for path in chunk.heading_path} == {"Real"}


def test_a_table_ruler_or_a_lone_rule_is_no_underline() -> None:
    text = f"| a | b |\n---|---\n| 1 | 2 |\n\n{prose(50)}\n\n---\n\n- item\n---\n\n{prose(90)}"
    assert all(chunk.heading_path == () for chunk in chunks(text))


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("## Closed ##", "Closed"),
        ("## C#", "C#"),
        ("## With [a link](https://example.org) and `code`", "With a link and code"),
        ("## **Bold** and _slanted_ snake_case", "Bold and slanted snake_case"),
        ("## Anchored { #anchored }", "Anchored"),
        ("   ### Indented", "Indented"),
        ("#\tTab", "Tab"),
    ],
)
def test_headings_are_shown_as_words(line: str, title: str) -> None:
    assert chunks(f"{line}\n\n{prose(120)}")[-1].heading_path == (title,)


@pytest.mark.parametrize("line", ["#NoBlank", "####### Seven", "    # Indented code", "\\# Escaped"])
def test_what_only_looks_like_a_heading_is_none(line: str) -> None:
    assert chunks(f"{line}\n\n{prose(120)}")[-1].heading_path == ()


def section(text: str, at: str) -> str:
    start, end = section_at(text, outline_of(text, "markdown"), text.index(at))
    return text[start:end]


def test_the_section_of_a_place_goes_from_its_heading_to_the_next_one_that_is_not_deeper() -> None:
    leave, sick, lunch = "## Leave\n\nThirty days.\n\n", "### Sick leave\n\nSix weeks.\n\n", "## Lunch\n\nAt noon.\n"
    text = f"Before.\n\n# Guide\n\nAbout.\n\n{leave}{sick}{lunch}"
    assert section(text, "Before") == "Before.\n\n"
    assert section(text, "About") == text.removeprefix("Before.\n\n")
    assert section(text, "Thirty") == section(text, "## Leave") == leave + sick
    assert section(text, "Six") == sick
    assert section(text, "noon") == lunch
    assert section("No heading.\n\nAt all.", "At") == "No heading.\n\nAt all."


def test_headings_without_a_text_of_their_own_lead_to_the_section_of_the_last() -> None:
    first, second = "## One\n\nText.\n\n", "## Two\n\nMore.\n"
    assert section(f"# Guide\n\n{first}{second}", "# Guide") == first
    assert section(f"Guide\n=====\n\n{first}{second}", "Guide") == first
    whole = f"# Guide\n\nAbout.\n\n{first}{second}"
    assert section(whole, "# Guide") == whole


# --- inside a section ---------------------------------------------------------------------


def test_paragraphs_are_kept_whole_where_they_can_be() -> None:
    paragraphs = [prose(30, word) for word in ("red", "green", "blue", "white")]
    assert texts("\n\n".join(paragraphs)) == [
        "\n\n".join(paragraphs[:2]),
        "\n\n".join(paragraphs[2:]),
    ]


def test_a_long_paragraph_is_cut_at_sentences_into_even_parts() -> None:
    found = chunks(prose(140))
    assert all(chunk.text.endswith(".") and chunk.text[0].isupper() for chunk in found)
    assert max(chunk.tokens for chunk in found) - min(chunk.tokens for chunk in found) <= 20


def test_a_decimal_point_or_an_abbreviation_ends_no_sentence() -> None:
    sentence = "It costs 3.50 euros, e.g. at noon, with v2.0 of it and more words."
    for text in texts(" ".join([sentence] * 20)):
        assert text.startswith("It costs")


def test_sentences_of_scripts_without_blanks_are_found() -> None:
    found = [
        chunk.text
        for chunk in StructureChunker(lambda text: [(i, i + 1) for i in range(len(text))], 64).chunk(
            ParsedDocument("これは文章です。とても短いです！本当ですか？" * 20), ""
        )
    ]
    assert len(found) > 5
    assert all(text[-1] in "。！？" for text in found)


def test_a_list_is_cut_between_its_items() -> None:
    items = [f"- Item {number} {prose(10)}" for number in range(20)]
    for text in texts("\n".join(items)):
        assert text.startswith("- Item")
        assert text.endswith(".")


def test_a_nested_item_stays_with_its_parent_where_it_can() -> None:
    items = [f"- Parent {number}\n  - child {prose(10)}\n  - child {prose(10)}" for number in range(10)]
    assert all(text.startswith("- Parent") for text in texts("\n".join(items)))


def test_a_table_is_cut_between_its_rows_and_its_header_keeps_a_row() -> None:
    rows = [f"| name {number} | {'value ' * 8}|" for number in range(30)]
    found = texts("\n".join(["| name | value |", "|------|-------|", *rows]), 96)
    assert len(found) > 3
    assert "name 0" in found[0]
    assert all(line.startswith("|") and line.endswith("|") for text in found for line in text.split("\n"))


def test_fenced_code_is_cut_at_blank_lines_or_else_between_lines() -> None:
    functions = [f"def f{number}():\n    return {' + '.join('abcdefgh')}" for number in range(12)]
    found = texts("```python\n" + "\n\n".join(functions) + "\n```", 80)
    assert len(found) > 2
    assert all(text.startswith(("```", "def")) for text in found)
    found = texts("```\n" + "call(a, b)\n" * 60 + "```", 80)
    assert all(line in ("```", "call(a, b)") for text in found for line in text.split("\n"))


def test_source_code_is_cut_at_its_top_level() -> None:
    functions = [f"def f{number}():\n    one = 1\n\n    return {' + '.join('abcdefgh')}" for number in range(12)]
    assert all(text.startswith("def") for text in texts("\n\n".join(functions), 80, layout="code"))
    assert chunks("# no heading\n" + "x = 1\n" * 80, layout="code")[-1].heading_path == ()


def test_plain_text_knows_paragraphs_but_no_markdown() -> None:
    found = chunks(f"# 1 of 3\n\n{prose(40)}\n\n- dash\n\n{prose(40)}", layout="plain")
    assert all(chunk.heading_path == () for chunk in found)
    assert found[1].text.startswith("- dash")


def test_an_announcing_line_stays_with_what_it_announces() -> None:
    text = f"{prose(40)}\n\n{prose(10)} As follows:\n\n- one {prose(10)}\n- two {prose(20)}"
    assert "As follows:\n\n- one" in "\x00".join(texts(text))


def test_text_without_any_place_to_cut_is_cut_between_words_or_else_anywhere() -> None:
    for text in texts("word " * 500):
        assert set(text.split()) == {"word"}
    assert "".join(texts("x" * 5000)) == "x" * 5000
    assert max(map(len, texts("x" * 5000))) <= 64 * 16


# --- pages --------------------------------------------------------------------------------


def test_a_chunk_does_not_run_over_the_end_of_its_page() -> None:
    one, two = prose(40), prose(40)
    pages = (PageStart(0, 1), PageStart(len(one) + 2, 2))
    assert [(chunk.page, chunk.text) for chunk in chunks(f"{one}\n\n{two}", 128, pages=pages)] == [(1, one), (2, two)]


def test_a_page_with_hardly_a_word_joins_its_neighbour() -> None:
    pages = (PageStart(0, 1), PageStart(7, 2))
    (chunk,) = chunks(f"Title.\n{prose(40)}", pages=pages)
    assert chunk.page == 1


def test_text_before_the_first_page_has_no_page() -> None:
    assert [chunk.page for chunk in chunks(f"{prose(40)}\n{prose(40)}", 50, pages=(PageStart(202, 7),))] == [None, 7]


# --- title and heading path ---------------------------------------------------------------


def test_the_title_and_the_path_take_their_room_from_the_text() -> None:
    document = ParsedDocument(f"# A heading of six words here\n\n{prose(300)}")
    for chunk in StructureChunker(SPANS, 64).chunk(document, "A title of some words")[1:]:
        whole = embedded_text("A title of some words", chunk.heading_path, chunk.text)
        assert whole.startswith("A title of some words > A heading of six words here\n\nWord")
        assert len(SPANS(whole)) <= 64


def test_of_a_path_that_is_too_long_the_outer_headings_are_left_out() -> None:
    levels = "\n\n".join(f"{'#' * level} Level {level} {'of it ' * 3}" for level in range(1, 7))
    path = chunks(f"{levels}\n\n{prose(200)}")[-1].heading_path
    assert path[-1].startswith("Level 6")
    assert not any(part.startswith("Level 1") for part in path)
    assert len(SPANS(" > ".join(path))) <= 64 // 3


def test_a_single_heading_that_is_too_long_is_cut() -> None:
    (heading,) = chunks(f"# {'very ' * 200}long\n\n{prose(200)}")[-1].heading_path
    assert set(heading.split()) == {"very"}
    assert 10 < len(SPANS(heading)) <= 64 // 3


def test_a_title_that_is_too_long_is_cut_to_a_quarter() -> None:
    assert fitting_title("A short\n  title", SPANS, 64) == "A short title"
    assert fitting_title("many words " * 100, SPANS, 64) == " ".join(["many", "words"] * 8)


def test_clipping_ends_even_when_tokens_share_a_character() -> None:
    def three_tokens_each(text: str) -> list[tuple[int, int]]:
        return [(place, place + 1) for place in range(len(text)) for _ in range(3)]

    assert clipped("abcdef", three_tokens_each, 7) == "ab"
    assert clipped("abcdef", three_tokens_each, 0) == ""


# --- large and odd input ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "one line of words " * 20_000,
        "A" * 400_000,
        "".join(f"{'#' * (number % 6 + 1)} h{number}\n" for number in range(20_000)),
        "| a | b |\n|---|---|\n" + "| some cell | other |\n" * 20_000,
        "a" + " " * 400_000 + "b",
        "#" * 200_000,
        "# " + "[" * 200_000,
        "# " + "*_" * 100_000,
        "- " * 200_000 + "x",
        ". " * 100_000,
        ".)" * 100_000,
        "```\n" + "x = 1\n" * 40_000,
        "---\n" * 60_000,
        "# " + "{" * 200_000,
    ],
    ids=lambda text: text[:12].replace("\n", " "),
)
def test_pathological_text_takes_seconds_at_most(text: str) -> None:
    started = time.process_time()
    found = chunks(text, 254)
    assert time.process_time() - started < 8
    assert sum(len("".join(chunk.text.split())) for chunk in found) == len("".join(text.split()))


def test_a_large_document_is_tokenized_in_slices_and_at_most_twice() -> None:
    seen: list[int] = []

    def spans(text: str) -> list[tuple[int, int]]:
        seen.append(len(text))
        return SPANS(text)  # type: ignore[return-value]  # a list in fact

    text = "some words to read. " * 20_000
    StructureChunker(spans, 254).chunk(ParsedDocument(text), "title")
    assert max(seen) <= 65_536
    assert sum(seen) < 2.1 * len(text)
