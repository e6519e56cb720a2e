"""reStructuredText as Markdown: sections, code, tables and inline marks; all else as it is.

A reader of lines, not a docutils: an unknown directive or role costs its markup, never its words.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from rag_service.parsing.markdown import plain
from rag_service.parsing.render import fenced, heading, join_blocks, made_by, one_line
from rag_service.parsing.rst_tables import read_table
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_ADORNMENT = re.compile(r"([!-/:-@\[-`{-~])\1+\s*\Z")
_FIELD = re.compile(r":?[A-Z][\w-]*:(?:\s|\Z)|:[\w -]+:(?:\s|\Z)")
_TITLE_FIELD = re.compile(r"^:?Title:[ \t]*(\S.*(?:\n[ \t]+\S.*)*)", re.MULTILINE | re.IGNORECASE)
_DIRECTIVE = re.compile(r"\.\. (?:\|[^|]+\| )?([\w:+.-]+)::(?:\s+(.*))?\Z")
_FOOTNOTE = re.compile(r"\.\. (\[[^\]]+\])\s*(.*)\Z")
_OPTION = re.compile(r":[\w-]+:(\s|\Z)")
_ROLE_OR_LINK = re.compile(r"(?<!`):[\w:.+-]+:`(~?)([^`]*)`|(?<![`\w])`([^`\s][^`]*)`__?(?!\w)")
_TARGET = re.compile(r"\s*<[^>]*>\Z", re.DOTALL)
_LITERAL = re.compile(r"``(.+?)``", re.DOTALL)
_BULLET = re.compile(r"^(\s*)[*+•] ", re.MULTILINE)

_CODE = frozenset({"code", "code-block", "sourcecode", "parsed-literal", "prompt", "doctest", "math", "testcode"})
_SILENT = frozenset([
    "contents", "highlight", "include", "image", "raw", "toctree", "literalinclude", "index", "meta",
    "default-role", "role", "replace", "unicode", "currentmodule", "module", "sectnum",
])  # fmt: skip
_ADMONITIONS = frozenset([
    "attention", "caution", "danger", "error", "hint", "important", "note", "tip", "warning", "seealso", "todo",
])  # fmt: skip
_TITLED = frozenset(
    {"admonition", "rubric", "topic", "sidebar", "table", "versionadded", "versionchanged", "deprecated"}
)
_MAX_DEPTH = 20


class Rst:
    """Title: a `Title` field at the top (as PEPs have), else the first section title."""

    media_types = frozenset({"text/x-rst"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        source = decode(content).expandtabs(8)
        text = join_blocks(_Reader(source.split("\n"), styles=[], depth=0).blocks())
        first = next((line.lstrip("#") for line in text.split("\n") if re.match(r"#{1,6} ", line)), "")
        title = _field_title(source) or plain(first) or None
        return ParsedDocument(text=text, title=title, parser=made_by("rag-service"))


def _field_title(source: str) -> str | None:
    head = source.lstrip("\n").split("\n\n", 1)[0]
    found = _TITLE_FIELD.search(head) if _FIELD.match(head) else None
    return one_line(found.group(1)) if found else None


class _Reader:
    """`styles` are the adornments met so far: the n-th is a heading of level n."""

    def __init__(self, lines: list[str], styles: list[tuple[str, bool]], depth: int) -> None:
        self._lines = [line.rstrip() for line in lines]
        self._styles = styles
        self._depth = depth
        self._at = 0

    def blocks(self) -> Iterator[str]:
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if not line:
                self._at += 1
            elif self._depth == 0 and (section := self._section()):
                yield section
            elif line == ".." or line.startswith(".. "):
                yield from self._explicit(line)
            elif table := self._table():
                yield table
            elif _ADORNMENT.match(line) and len(line) >= 4:
                self._at += 1  # a transition
            else:
                yield from self._paragraph()

    def _section(self) -> str | None:
        here, below, after = (self._line(self._at + step) for step in range(3))
        over = _ADORNMENT.match(here)
        if over and below.strip() and after[:1] == here[:1] and _ADORNMENT.match(after):
            title, style, used = below, (here[0], True), 3
        elif not over and not here.startswith(" ") and _ADORNMENT.match(below) and len(below) >= min(len(here), 4):
            title, style, used = here, (below[0], False), 2
        else:
            return None
        if style not in self._styles:
            self._styles.append(style)
        self._at += used
        return heading(self._styles.index(style) + 1, _inline(title))

    def _explicit(self, line: str) -> Iterator[str]:
        """A directive, a footnote, or a comment or target (both silent), each with its indented body."""
        self._at += 1
        directive, footnote = _DIRECTIVE.match(line), _FOOTNOTE.match(line)
        body = self._indented()
        if footnote:
            yield _inline("\n".join([f"{footnote.group(1)} {footnote.group(2)}", *map(str.strip, body)])).rstrip()
        elif directive:
            yield from self._directive(directive.group(1).lower(), directive.group(2) or "", body)

    def _directive(self, name: str, argument: str, body: list[str]) -> Iterator[str]:
        if name in _SILENT:
            return
        while body and _OPTION.match(body[0]):
            body.pop(0)
        if name in _CODE:
            language = argument if name not in ("math", "parsed-literal") else ""
            yield fenced("\n".join(body).strip("\n"), language) if any(body) else ""
            return
        if name in _ADMONITIONS:
            yield _inline(f"{name.capitalize()}: {argument}".rstrip())
        elif argument and name not in ("figure", "csv-table", "list-table"):
            words = name in _TITLED or ":`" in argument
            yield _inline(argument) if words else f"`{argument}`"
        yield from self._nested(body)

    def _paragraph(self) -> Iterator[str]:
        start = self._at
        while self._line(self._at) and not (self._at > start and self._starts_section()):
            self._at += 1
        text = "\n".join(self._lines[start : self._at])
        if not text.endswith("::"):
            yield _inline(text)
            return
        announced = text[:-1] if len(text) > 2 and not text[-3].isspace() else text[:-2].rstrip()
        yield _inline(announced)
        indent = len(text.split("\n")[-1]) - len(text.split("\n")[-1].lstrip())
        code = self._indented(indent)
        if any(code):
            yield fenced("\n".join(code).strip("\n"))

    def _starts_section(self) -> bool:
        """Text directly above a title's adornment belongs to the title, not to the paragraph before."""
        return self._depth == 0 and bool(_ADORNMENT.match(self._line(self._at))) and self._line(self._at)[0] in "=-~"

    def _table(self) -> str | None:
        found = read_table(self._lines, self._at)
        if found is None:
            return None
        table, self._at = found
        return _inline(table)

    def _indented(self, beyond: int = 0) -> list[str]:
        """The lines from here that are blank or indented by more than `beyond`, dedented."""
        start = self._at
        while self._at < len(self._lines):
            line = self._lines[self._at]
            if line and len(line) - len(line.lstrip()) <= beyond:
                break
            self._at += 1
        body = textwrap.dedent("\n".join(self._lines[start : self._at])).split("\n")
        while body and not body[0]:
            body.pop(0)
        return body

    def _nested(self, body: list[str]) -> Iterator[str]:
        if self._depth >= _MAX_DEPTH:
            yield "\n".join(body)
        else:
            yield from _Reader(body, self._styles, self._depth + 1).blocks()

    def _line(self, index: int) -> str:
        return self._lines[index] if index < len(self._lines) else ""


def _inline(text: str) -> str:
    """Roles and links become their words, literals take single backticks, bullets a hyphen."""
    kept = _LITERAL.split(text)
    words = (_ROLE_OR_LINK.sub(_role_words, part) if at % 2 == 0 else f"`{part}`" for at, part in enumerate(kept))
    return _BULLET.sub(r"\1- ", "".join(words))


def _role_words(match: re.Match[str]) -> str:
    shortened, role_text, link_text = match.groups()
    words = _TARGET.sub("", role_text if role_text is not None else link_text) or (role_text or link_text).strip("<> ")
    return words.rsplit(".", 1)[-1] if shortened else words
