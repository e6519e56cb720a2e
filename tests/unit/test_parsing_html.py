"""HTML to Markdown: structure kept, noise dropped, whatever the markup."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.html import Html, to_markdown


def written(body: str) -> str:
    return to_markdown(f"<html><body>{body}</body></html>")[0]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<h2>A  <b>bold</b>\n move</h2><p>text</p>", "## A bold move\n\ntext"),
        ("<p>one<br>two</p>three<div>four</div>", "one\ntwo\n\nthree\n\nfour"),
        ("<p>See <a href='/x'>the <i>docs</i></a>, or <code>rag --help</code>.</p>", "See the docs, or `rag --help`."),
        ("<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>", "- a\n  - b\n- c"),
        ("<ol><li>a</li><li><p>b</p><p>more</p></li></ol>", "1. a\n2. b\n\n   more"),
        ("<pre><code>if x:\n    # why\n</code></pre>", "```\nif x:\n    # why\n```"),
        ("<blockquote><p>said\n she</p></blockquote>", "> said she"),
        ("<dl><dt>term</dt><dd>meaning</dd></dl>", "term\n\nmeaning"),
        ("<p># not a heading</p>", "\\# not a heading"),
        ("<p>a<!-- hidden -->b<?php x ?>c</p>", "abc"),
        ("<p>5 &lt; 6 &amp; &eacute;&nbsp;x</p>", "5 < 6 & é x"),
        ("<ul><li></li><li> </li></ul>", ""),
        ("loose <li>item</li>", "loose\n\nitem"),
        ("<pre>unclosed", "```\nunclosed\n```"),
    ],
)
def test_blocks(body: str, expected: str) -> None:
    assert written(body) == expected


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("<tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr>", "| a | b |\n| --- | --- |\n| 1 | 2 |"),
        ("<tr><td>a|b<td>c<tr><td>d<td><p>e</p><p>f</p>", "| a\\|b | c |\n| --- | --- |\n| d | e f |"),
        ("<tr><td colspan=2>a<td>b<tr><td>1<td>2<td>3", "| a |  | b |\n| --- | --- | --- |\n| 1 | 2 | 3 |"),
        (
            "<tr><td rowspan=2>a<td>b<tr><td>c<tr><td>d<td>e",
            "| a | b |\n| --- | --- |\n|  | c |\n| d | e |",
        ),
        ("<caption>Costs</caption><tr><td>a<td>b", "Costs\n\n| a | b |\n| --- | --- |"),
        ("<tr><td colspan=999999999>a<td rowspan=x>b", "| a | b |\n| --- | --- |"),
    ],
)
def test_tables(table: str, expected: str) -> None:
    assert written(f"<table>{table}</table>") == expected


def test_a_table_that_only_places_things_is_no_table() -> None:
    layout = "<table><tr><td><h2>Left</h2></td><td><table><tr><td>a<td>b</table></td></tr></table>"
    assert written(layout) == "## Left\n\n| a | b |\n| --- | --- |"


def test_main_content_is_preferred_and_noise_dropped() -> None:
    text = written(
        "<header><a>Logo</a></header><nav>Menu</nav><main><nav>On this page</nav><h1>Title</h1>"
        "<p>What it is about.</p><aside>Advert</aside></main><footer>Imprint</footer>"
    )
    assert text == "# Title\n\nWhat it is about."


@pytest.mark.parametrize(
    "noise",
    [
        "<script>var x = '<p>no</p>'</script>",
        "<style>p {}</style>",
        "<noscript>no</noscript>",
        "<template><p>no</p></template>",
        "<select><option>no</option></select>",
        "<div role='navigation'>no</div>",
        "<div hidden>no</div>",
        "<span aria-hidden='true'>no</span>",
        "<svg><text>no</text></svg>",
    ],
)
def test_what_a_reader_does_not_see_is_not_text(noise: str) -> None:
    assert written(f"<p>before</p>{noise}<p>after</p>") == "before\n\nafter"


def test_a_small_main_does_not_hide_the_page() -> None:
    assert "all the words" in written("<main>x</main><p>" + "all the words " * 20 + "</p>")


def test_a_page_of_nothing_but_navigation_still_gives_its_words() -> None:
    assert written("<nav><ul><li>Home</li></ul></nav>") == "- Home"


@pytest.mark.parametrize(
    ("page", "title"),
    [
        ("<title> A\n page </title><h1>B</h1>", "A page"),
        ("<h1>B <b>c</b></h1>", "B c"),
        ("<title></title><p>x</p>", None),
    ],
)
def test_the_title(page: str, title: str | None) -> None:
    assert to_markdown(page)[1] == title


@pytest.mark.parametrize(
    "content",
    [
        '<meta charset="iso-8859-1"><p>café</p>'.encode("latin-1"),
        '<?xml version="1.0" encoding="iso-8859-1"?><html><body><p>café</p></body></html>'.encode("latin-1"),
        "<p>café</p>".encode(),
        "<p>café</p>".encode("utf-16"),
    ],
)
def test_the_declared_encoding_is_believed(content: bytes) -> None:
    assert Html().parse(content, "a.html").text == "café"


def test_depth_is_no_obstacle() -> None:
    assert written("<div>" * 2000 + "deep" + "</div>" * 2000) == "deep"
    assert written("<ul><li>" * 900 + "deep").endswith("- deep")


def test_what_is_nested_too_deep_to_be_read_is_said_to_be() -> None:
    with pytest.raises(UnsupportedDocument, match="nested deeper") as caught:
        written("<p>seen</p>" + "<div>" * 2100 + "unseen")
    assert caught.value.code == "corrupt"


def test_words_in_a_table_but_in_no_cell_are_kept() -> None:
    assert written("<table>stray<tr><td>a</td></tr></table>") == "| stray |\n| --- |\n| a |"


TAGS = (
    "<p>", "</p>", "<table>", "</table>", "<tr>", "</tr>", "<td>", "<td colspan=3 rowspan=2>", "</td>", "<ul>", "<ol>",
    "<li>", "</ul>", "<pre>", "</pre>", "<h1>", "</h1>", "<blockquote>", "</blockquote>", "<caption>", "<br>", "<code>",
    "</code>", "word", "&amp;", "<b>", "</b>", "<div>", "</div>",
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(TAGS), max_size=40))
def test_no_soup_of_tags_loses_or_doubles_a_word(tags: list[str]) -> None:
    text, _ = to_markdown("".join(tags))
    assert text.count("word") == tags.count("word")
