"""Where a text may be cut, and how well: the lines of Markdown, plain text or code read once, top to bottom."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal

from rag_service.chunking.sentences import sentence_starts

_FRONT_MATTER = re.compile(r"---[ \t]*\n(?:.*\n)*?(?:---|\.\.\.)[ \t]*(?:\n|\Z)")
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_CLOSING_HASHES = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})(.*)$")
_RULE = re.compile(r" {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$")
_ITEM = re.compile(r"([ \t]*)(?:[-*+]|\d{1,9}[.)])(?:[ \t]|$)")
_LINK = re.compile(r"!?\[([^\[\]]*)\]\([^()]*\)")
_ATTRIBUTES = re.compile(r"[ \t]*\{[^{}]*\}[ \t]*$")
_EMPHASIS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")
_LONGEST_HEADING = 1000  # characters read of one heading line
_UNCUT_TABLE_ROWS = 3  # a table's header, its ruler and its first row stay together


class Cut(IntEnum):
    """What begins at a place where the text may be cut; the smaller, the better the place."""

    HEADING = 0
    PAGE = 1
    BLOCK = 2
    ITEM = 3
    LINE = 4
    SENTENCE = 5
    WRAP = 6


@dataclass(frozen=True, slots=True)
class Heading:
    start: int
    level: int
    title: str


@dataclass(slots=True)
class Outline:
    """`cuts` maps a character offset to what begins there; `headings` are in order of their start."""

    headings: list[Heading] = field(default_factory=list)
    cuts: dict[int, Cut] = field(default_factory=dict)

    def cut(self, start: int, kind: Cut) -> None:
        self.cuts[start] = min(kind, self.cuts.get(start, kind))


def outline_of(text: str, layout: Literal["markdown", "plain", "code"]) -> Outline:
    """Read the structure of a whole text in one pass."""
    if layout == "code":
        return _code(text)
    if layout == "plain":
        return _plain(text)
    reader = _MarkdownReader(text)
    reader.read()
    return reader.outline


def _code(text: str) -> Outline:
    outline, start, blank = Outline(), 0, False
    for line in text.split("\n"):
        if line.strip():
            block = Cut.ITEM if line[0].isspace() else Cut.BLOCK
            outline.cut(start, block if blank else Cut.LINE)
        blank = not line.strip()
        start += len(line) + 1
    return outline


def _plain(text: str) -> Outline:
    outline, start, blank = Outline(), 0, False
    for line in text.split("\n"):
        if line.strip():
            outline.cut(start, Cut.BLOCK if blank else Cut.WRAP)
        blank = not line.strip()
        start += len(line) + 1
    for sentence in sentence_starts(text, 0, len(text)):
        outline.cut(sentence, Cut.SENTENCE)
    return outline


class _MarkdownReader:
    """A small state machine over lines. A place right below a heading is no cut: a heading never ends a chunk."""

    def __init__(self, text: str) -> None:
        self.outline = Outline()
        self._text = text
        self._fence = ""
        self._blank = True
        self._before = ""  # kind of the last line that was not blank
        self._colon = False  # that line announces what follows
        self._rows = 0
        self._prose_start: int | None = None
        self._prose_lines = 0
        self._end = 0  # of the last line that was not blank

    def read(self) -> None:
        front = _FRONT_MATTER.match(self._text)
        start = front.end() if front else 0
        for line in self._text[start:].split("\n"):
            if not line.strip():
                self._close_prose()
                self._blank = True
            else:
                kind = self._code_line(line, start) or self._block_line(line, start) or self._prose_line(line, start)
                self._before, self._blank, self._end = kind, False, start + len(line)
                self._colon = line.rstrip().endswith(":")
            start += len(line) + 1
        self._close_prose()

    def _code_line(self, line: str, start: int) -> str:
        fence = _FENCE.match(line)
        if self._fence:
            if fence and fence[1].startswith(self._fence) and not fence[2].strip():
                self._fence = ""
            else:
                self._cut(start, Cut.ITEM if self._blank else Cut.LINE)
            return "code"
        if fence and "`" not in fence[2]:
            self._close_prose()
            self._cut(start, Cut.BLOCK)
            self._fence = fence[1]
            return "code"
        return ""

    def _block_line(self, line: str, start: int) -> str:
        if atx := _ATX.match(line):
            self._heading(start, len(atx[1]), _CLOSING_HASHES.sub("", (atx[2] or "")[:_LONGEST_HEADING]))
            return "heading"
        if (under := _SETEXT.match(line)) and self._before == "text" and self._prose_lines == 1 and not self._blank:
            return self._underlined(1 if under[1][0] == "=" else 2)
        if _RULE.match(line):
            self._close_prose()
            self._cut(start, Cut.BLOCK)
            return "rule"
        in_table = self._before == "table" and not self._blank
        if line.lstrip().startswith("|") or (in_table and "|" in line):
            self._close_prose()
            self._rows = self._rows + 1 if in_table else 1
            if self._rows == 1 or self._rows > _UNCUT_TABLE_ROWS:
                self._cut(start, Cut.LINE if in_table else Cut.BLOCK)
            return "table"
        return ""

    def _prose_line(self, line: str, start: int) -> str:
        item = _ITEM.match(line)
        if item:
            nested = len(item[1]) > 1
            fresh = self._before != "list"
            self._close_prose()
            self._cut(start, Cut.LINE if nested else Cut.BLOCK if fresh else Cut.ITEM)
        elif self._blank or self._before not in ("text", "list"):
            inside = self._before == "list" and line[0].isspace()
            self._cut(start, Cut.LINE if inside else Cut.BLOCK)
        else:
            self._cut(start, Cut.WRAP)
        if self._prose_start is None:
            self._prose_start, self._prose_lines = start, 0
        self._prose_lines += 1
        inside_list = self._before == "list" and (not self._blank or line[0].isspace())
        return "list" if item or inside_list else "text"

    def _underlined(self, level: int) -> str:
        start = self._prose_start or 0
        self.outline.cuts.pop(start, None)
        self._prose_start = None
        after_heading = self.outline.headings and not self._text[self._heading_end() : start].strip()
        self._before = "heading" if after_heading else ""
        self._heading(start, level, self._text[start : min(self._end, start + _LONGEST_HEADING)])
        return "heading"

    def _heading_end(self) -> int:
        last = self.outline.headings[-1].start
        end = self._text.find("\n", last)
        return len(self._text) if end < 0 else end

    def _heading(self, start: int, level: int, title: str) -> None:
        self._close_prose()
        self._cut(start, Cut.HEADING)
        self.outline.headings.append(Heading(start, level, _plain_title(title)))

    def _cut(self, start: int, kind: Cut) -> None:
        if self._before == "heading":
            return
        self.outline.cut(start, Cut.ITEM if kind is Cut.BLOCK and self._colon else kind)

    def _close_prose(self) -> None:
        if self._prose_start is not None:
            for sentence in sentence_starts(self._text, self._prose_start, self._end):
                self.outline.cut(sentence, Cut.SENTENCE)
        self._prose_start, self._prose_lines = None, 0


def _plain_title(title: str) -> str:
    """A heading as words: without links, emphasis and trailing attributes."""
    words = _EMPHASIS.sub("", _LINK.sub(r"\1", _ATTRIBUTES.sub("", title)))
    return " ".join(words.split())
