"""Writes Markdown from the start and end of HTML elements."""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Any

from rag_service.parsing.render import clean, fenced, heading, one_line, paragraph, pipe_table

_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_LISTS = frozenset({"ul", "ol", "menu", "dir"})
_INLINE_CODE = frozenset({"code", "kbd", "samp", "tt"})
_CELLS = frozenset({"td", "th"})
_BLOCKS = frozenset([
    "address", "article", "aside", "body", "blockquote", "caption", "center", "dd", "details", "dialog", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "html", "legend",
    "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "td", "tfoot", "th",
    "thead", "title", "tr", "ul", "menu", "dir",
]) | set(_HEADINGS)  # fmt: skip
_SPACES = re.compile(r"\s+")
_MAX_INDENTS = 8
_MAX_SPAN = 100


class _List:
    __slots__ = ("marker", "next_number", "ordered")

    def __init__(self, ordered: bool) -> None:
        self.ordered = ordered
        self.next_number = 1
        self.marker = ""  # of the item begun and not yet written

    def begin_item(self) -> None:
        self.marker = f"{self.next_number}. " if self.ordered else "- "
        self.next_number += 1


class MarkdownWriter:
    """Call `start`, `text` and `end` in document order, then `result`. Tables in `layout_tables` are no data."""

    def __init__(self, layout_tables: Set[Any] = frozenset()) -> None:
        self._layout_tables = layout_tables
        self._written: list[str] = []
        self._inline: list[str] = []
        self._lists: list[_List] = []
        self._heading = 0
        self._pre = 0
        self._quotes = 0
        self._grid: list[list[str]] | None = None
        self._rows_held: dict[int, int] = {}  # column of the grid -> rows that a cell above still fills
        self._in_list_before = False

    def result(self) -> str:
        self._flush()
        return clean("".join(self._written)).strip("\n")

    def text(self, text: str | None) -> None:
        if text:
            self._inline.append(text if self._pre else _SPACES.sub(" ", text))

    def start(self, element: Any) -> None:
        tag = element.tag
        if tag in _BLOCKS:
            self._flush()
            self._start_block(tag, element)
        elif tag == "br":
            self._inline.append("\n")
        elif tag in _INLINE_CODE and not self._pre:
            self._inline.append("`")

    def end(self, element: Any) -> None:
        tag = element.tag
        if tag in _BLOCKS:
            self._end_block(tag, element)
        elif tag in _INLINE_CODE and not self._pre:
            if self._inline and self._inline[-1] == "`":
                self._inline.pop()
            else:
                self._inline.append("`")

    def _start_block(self, tag: str, element: Any) -> None:
        if self._grid is not None:
            self._start_in_table(tag)
        elif tag in _HEADINGS:
            self._heading = _HEADINGS[tag]
        elif tag in _LISTS:
            self._lists.append(_List(ordered=tag == "ol"))
        elif tag == "li" and self._lists:
            self._lists[-1].begin_item()
        elif tag == "pre":
            self._pre += 1
        elif tag == "blockquote":
            self._quotes += 1
        elif tag == "table" and element not in self._layout_tables:
            self._grid, self._rows_held = [], {}

    def _end_block(self, tag: str, element: Any) -> None:
        if self._grid is not None:
            self._end_in_table(tag, element)
            return
        self._flush()
        if tag in _HEADINGS:
            self._heading = 0
        elif tag in _LISTS and self._lists:
            self._lists.pop()
        elif tag == "pre":
            self._pre = max(0, self._pre - 1)
        elif tag == "blockquote":
            self._quotes = max(0, self._quotes - 1)

    def _start_in_table(self, tag: str) -> None:
        if tag in ("tr", *_CELLS):
            self._keep_stray_words()
        if tag == "tr" and self._grid is not None:
            self._grid.append([])
            self._rows_held = {column: rows - 1 for column, rows in self._rows_held.items() if rows > 1}

    def _keep_stray_words(self) -> None:
        """Words in a table but in no cell get a row of their own."""
        words = "".join(self._inline).strip()
        self._inline.clear()
        if words and self._grid is not None:
            self._grid.append([words])
            self._grid.append([])

    def _end_in_table(self, tag: str, element: Any) -> None:
        grid = self._grid
        if grid is None:
            return
        if tag in _CELLS:
            self._add_cell(grid, element)
        elif tag == "caption":
            caption, self._inline, self._grid = "".join(self._inline), [], None
            self._emit(paragraph(one_line(caption)))
            self._grid = grid
        elif tag == "table":
            self._keep_stray_words()
            self._grid = None
            self._emit(pipe_table(grid))

    def _add_cell(self, grid: list[list[str]], element: Any) -> None:
        if not grid:
            grid.append([])
        row = grid[-1]
        while len(row) in self._rows_held:
            row.append("")
        width, height = _span(element, "colspan"), _span(element, "rowspan")
        if height > 1:
            self._rows_held |= dict.fromkeys(range(len(row), len(row) + width), height)
        row += ["".join(self._inline), *[""] * (width - 1)]
        self._inline.clear()

    def _flush(self) -> None:
        """End the block begun: what stands in a table cell stays there, all else is written."""
        if self._grid is not None:
            self._inline.append(" ")
            return
        raw = "".join(self._inline)
        self._inline.clear()
        if not raw.strip():
            return
        if self._pre:
            self._emit(fenced(raw))
        elif self._heading:
            self._emit(heading(self._heading, raw))
        else:
            self._emit(paragraph("\n".join(filter(None, (one_line(line) for line in raw.split("\n"))))))

    def _emit(self, block: str) -> None:
        if not block:
            return
        begins_item = bool(self._lists and self._lists[-1].marker)
        separator = "\n" if begins_item and self._in_list_before else "\n\n"
        self._written += [separator, self._indented(block)]
        self._in_list_before = bool(self._lists)

    def _indented(self, block: str) -> str:
        quote = "> " * min(self._quotes, _MAX_INDENTS)
        if not self._lists:
            return quote + block.replace("\n", f"\n{quote}") if quote else block
        outer = "".join("   " if each.ordered else "  " for each in self._lists[-_MAX_INDENTS:-1])
        marker = self._lists[-1].marker
        hanging = " " * (3 if self._lists[-1].ordered else 2)
        self._lists[-1].marker = ""
        following = quote + outer + hanging
        return quote + outer + (marker or hanging) + block.replace("\n", f"\n{following}")


def _span(cell: Any, attribute: str) -> int:
    declared = str(cell.get(attribute, "1")).strip()
    return max(1, min(int(declared), _MAX_SPAN)) if declared.isdecimal() and len(declared) < 6 else 1
