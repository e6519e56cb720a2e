"""Text formats: decoding, Markdown titles and front matter, JSON, separated values."""

from __future__ import annotations

import pytest

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.json import Json, JsonLines
from rag_service.parsing.markdown import Markdown, first_title, without_front_matter
from rag_service.parsing.render import clean, fenced, heading, join_pages, list_item, paragraph, pipe_table
from rag_service.parsing.table import SeparatedValues
from rag_service.parsing.text import PlainText, SourceCode, decode
from rag_service.types import PageStart

WORDS = "Größe: zwölf €, naïve café, 日本語\n"
FRENCH = "Les élèves ont préféré dîner à côté du théâtre; l'été dernier, ils étaient déjà très fatigués. " * 20


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
def test_unicode_is_read_in_every_form(encoding: str) -> None:
    words = WORDS if encoding not in ("utf-16-le", "utf-16-be") else "Größe: two, naïve café" * 3
    assert decode(words.encode(encoding)) == words


def test_utf16_with_a_big_endian_mark_is_read() -> None:
    assert decode(b"\xfe\xff" + WORDS.encode("utf-16-be")) == WORDS


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1"])
def test_text_of_old_encodings_is_recognised(encoding: str) -> None:
    assert decode(FRENCH.encode(encoding)) == FRENCH


def test_a_declared_encoding_counts_where_utf8_fails() -> None:
    russian = "Привет, мир"
    assert decode(russian.encode("koi8-r"), "koi8-r") == russian
    assert decode(WORDS.encode(), "koi8-r") == WORDS
    assert decode(b"caf\xe9", "no-such-encoding")


@pytest.mark.parametrize(
    "words", ["Die Müller-Straße ist für Fußgänger geöffnet. ", "员工每年有二十天假期。", "It’s five "]
)
def test_a_stray_byte_costs_itself_alone(words: str) -> None:
    stray = "Köln".encode("latin-1")
    assert decode(words.encode() + stray + words.encode()) == f"{words}K\ufffdln{words}"


def test_binary_data_is_not_taken_for_text() -> None:
    with pytest.raises(UnsupportedDocument, match="binary data") as caught:
        decode(bytes(range(32)) * 100)
    assert caught.value.code == "corrupt"


def test_text_keeps_everything_but_newlines_marks_and_what_cannot_be_stored() -> None:
    assert clean("\ufeffa\r\nb\rc\0d\te\f  ") == "a\nb\ncd\te\f  "
    assert clean("\ud83d\ude00 \ud800!") == "😀 \ufffd!"


def test_plain_text_and_code_are_laid_out_as_what_they_are() -> None:
    code = "def f():\n    return 1\n"
    assert PlainText().parse(b"  # not a heading\n", "a.txt").layout == "plain"
    parsed = SourceCode().parse(code.encode(), "a.py")
    assert (parsed.text, parsed.layout, parsed.title) == (code, "code", None)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# Hello\n\ntext", "Hello"),
        ("intro\n\n#  Hello  ##\n", "Hello"),
        ("Hello\n=====\n", "Hello"),
        ("# The `rag` *tool* and [its docs](http://x) { #anchor }\n", "The rag tool and its docs"),
        ("```sh\n# a comment\n```\n\n# Real\n", "Real"),
        ("````\n```\n# still code\n````\n# Real", "Real"),
        ("## Only a second level\n", None),
        ("#hashtag\n", None),
        ("# \n\ntext", None),
        ("# snake_case_name\n", "snake_case_name"),
    ],
)
def test_the_title_of_markdown_is_its_first_heading_of_level_one(text: str, title: str | None) -> None:
    assert first_title(text) == title


@pytest.mark.timeout(20)
@pytest.mark.parametrize("evil", ["[" * 50_000, "*" * 100_000 + "a", "`a" * 50_000, "{#" * 50_000])
def test_no_heading_takes_long_to_read(evil: str) -> None:
    assert first_title(f"# {evil}\n")


def test_front_matter_gives_the_title_and_is_not_indexed() -> None:
    source = b'---\ntitle: "Leave: the rules"\ntags:\n  - hr\n---\n\n# Other\n\ntext\n'
    document = Markdown().parse(source, "a.md")
    assert document.title == "Leave: the rules"
    assert document.text == "# Other\n\ntext\n"


def test_front_matter_without_a_title_leaves_it_to_the_heading() -> None:
    assert Markdown().parse(b"---\ndate: 2024-01-01\n---\n# Other\n", "a.md").title == "Other"


def test_a_page_of_front_matter_alone_is_its_title_or_its_fields() -> None:
    assert Markdown().parse(b"---\ntitle: Moved\nredirect_to: /x\n---\n", "a.md").text == "# Moved"
    assert Markdown().parse(b"---\nredirect_to: /x\n---\n", "a.md").text == "---\nredirect_to: /x\n---\n"


@pytest.mark.parametrize(
    "between",
    [
        "This is prose, between rules!",
        "Important: never open valve 7.\nReason: it explodes.",
        "- Item one: keep\n- Item two: keep",
        "# A heading",
        "  Indented prose.",
        "seven steps: none may be left out",
    ],
)
def test_words_between_two_rules_are_no_front_matter(between: str) -> None:
    source = f"---\n{between}\n---\nmore\n"
    assert Markdown().parse(source.encode(), "a.md").text == source


def test_json_is_laid_out_by_line_with_its_own_letters() -> None:
    document = Json().parse('{"name": "Größe", "list": [1, 2.5, null]}'.encode(), "a.json")
    assert document.text.split("\n")[1] == '  "name": "Größe",'
    assert (document.title, document.layout) == ("Größe", "code")


@pytest.mark.parametrize("content", [b"{}", b"[]", b'""', b"null", b"  "])
def test_json_that_holds_nothing_has_no_text(content: bytes) -> None:
    assert Json().parse(content, "a.json").text == ""


@pytest.mark.parametrize("content", [b"{", b"{'a': 1}", b"[" * 100_000, b"1" * 10_000])
def test_broken_json_is_corrupt(content: bytes) -> None:
    with pytest.raises(UnsupportedDocument) as caught:
        Json().parse(content, "a.json")
    assert caught.value.code == "corrupt"


def test_a_broken_line_of_json_lines_is_named() -> None:
    assert JsonLines().parse(b'{"a": 1}\n\n{"b": 2}\n', "a.jsonl").text == '{"a": 1}\n{"b": 2}'
    with pytest.raises(UnsupportedDocument, match="Line 3"):
        JsonLines().parse(b'{"a": 1}\n\n{"b": \n', "a.jsonl")


def test_a_lone_surrogate_in_json_is_replaced() -> None:
    assert Json().parse(b'{"title": "\\ud800 x\\u0000"}', "a.json").title == "\ufffd x"


@pytest.mark.timeout(20)
def test_a_line_of_blanks_is_no_front_matter_and_takes_no_time() -> None:
    assert without_front_matter("---\n" + " " * 1_000_000 + "x\n---\n")[1] is None


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_separated_values_is_found(delimiter: str) -> None:
    rows = [["name", "note"], ["ann", "a, b"], ["bob", "c; d"]]
    content = "\n".join(delimiter.join(f'"{cell}"' for cell in row) for row in rows)
    assert SeparatedValues().parse(content.encode(), "a.csv").text.split("\n") == [
        "| name | note |", "| --- | --- |", "| ann | a, b |", "| bob | c; d |",
    ]  # fmt: skip


def test_rows_of_differing_width_are_filled_up() -> None:
    assert SeparatedValues().parse(b"a,b,c\n1\n\n2,3\n", "a.csv").text.split("\n")[2:] == [
        "| 1 |  |  |",
        "| 2 | 3 |  |",
    ]


def test_one_column_is_a_table_too() -> None:
    assert SeparatedValues().parse(b"name\nann\n", "a.csv").text == "| name |\n| --- |\n| ann |"


def test_tables_leave_out_what_is_empty() -> None:
    assert pipe_table([["a", "", "b"], ["", "", ""], ["1", " ", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert pipe_table([["", " "]]) == ""
    assert pipe_table([]) == ""


def test_blocks_do_not_turn_into_what_they_are_not() -> None:
    assert paragraph("# no heading\n#tag\n``` no fence") == "\\# no heading\n#tag\n\\``` no fence"
    assert heading(9, " a\n b ") == "###### a b"
    assert list_item("3. third", 1) == "  3. third"
    assert list_item("plain") == "- plain"
    assert fenced("a\n```\nb").startswith("````\n")


def test_pages_are_joined_with_exact_starts() -> None:
    text, pages = join_pages([(1, "one"), (2, " \n"), (3, "three")])
    assert text == "one\n\nthree"
    assert pages == (PageStart(0, 1), PageStart(5, 3))
