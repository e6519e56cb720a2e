"""The shared hand of all parsers: pieces of normalised Markdown, and the text they are joined to.

Normalised means: `\\n` newlines, no NUL, no lone surrogates, blocks apart by one blank line, headings as `#`,
tables as GFM pipe tables with one line per row.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import version

from rag_service.errors import UnsupportedDocument
from rag_service.types import PageStart

_SURROGATE = re.compile("[\ud800-\udfff]")
_LINE_START_MARKUP = re.compile(r"^(#{1,6}\s|```|~~~)", re.MULTILINE)
_NUMBERED = re.compile(r"\w{1,5}[.)]\s")
_MAX_DEPTH = 8


def clean(text: str) -> str:
    """`text` with `\\n` newlines, without byte order mark and NUL, surrogate pairs joined and lone ones replaced."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\0", "")
    if _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def one_line(text: str) -> str:
    return " ".join(text.split())


def heading(level: int, text: str) -> str:
    """A heading of `level` (from 1; deeper than 6 becomes 6)."""
    return f"{'#' * max(1, min(level, 6))} {one_line(text)}"


def paragraph(text: str) -> str:
    """Prose as a block of its own: what merely looks like a heading or a fence is escaped."""
    return _LINE_START_MARKUP.sub(r"\\\1", text.strip())


def list_item(text: str, depth: int = 0) -> str:
    """One item at `depth` (from 0); an item that brings its own number keeps it."""
    marker = "" if _NUMBERED.match(text) else "- "
    return f"{'  ' * min(depth, _MAX_DEPTH)}{marker}{one_line(text)}"


def fenced(code: str, language: str = "") -> str:
    """A code block whose fence is longer than any inside it."""
    longest = max((len(run) for run in re.findall(r"`{3,}", code)), default=2)
    fence = "`" * (longest + 1)
    return f"{fence}{language}\n{code.strip(chr(10))}\n{fence}"


def pipe_table(rows: Iterable[Sequence[str]]) -> str:
    """A GFM table whose head is the first row; empty rows and columns are left out, no cells give ''."""
    grid = [[_cell(text) for text in row] for row in rows]
    grid = [row for row in grid if any(row)]
    width = max((len(row) for row in grid), default=0)
    used = [column for column in range(width) if any(column < len(row) and row[column] for row in grid)]
    if not used:
        return ""
    lines = [_table_line([row[column] if column < len(row) else "" for column in used]) for row in grid]
    return "\n".join([lines[0], _table_line(["---"] * len(used)), *lines[1:]])


def join_blocks(blocks: Iterable[str]) -> str:
    return "\n\n".join(block for block in blocks if block.strip())


def join_pages(pages: Iterable[tuple[int, str]]) -> tuple[str, tuple[PageStart, ...]]:
    """Pages (number from 1, text) joined by a blank line, with where each begins; empty pages are left out."""
    parts: list[str] = []
    starts: list[PageStart] = []
    length = 0
    for number, text in pages:
        if not text.strip():
            continue
        starts.append(PageStart(length, number))
        parts.append(text)
        length += len(text) + 2
    return "\n\n".join(parts), tuple(starts)


@cache
def made_by(distribution: str) -> str:
    """Name and version of an installed package, as the `parser` of a document."""
    return f"{distribution} {version(distribution)}"


def corrupt(what: str) -> UnsupportedDocument:
    """The failure of a broken file; `what` is a sentence that says what was found."""
    return UnsupportedDocument(f"{what} Open it in its own program, save it again and upload that.", code="corrupt")


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")


def _table_line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
