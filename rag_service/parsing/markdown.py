"""Markdown: the text as it is, without its front matter."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rag_service.parsing.render import made_by, one_line
from rag_service.parsing.text import decode
from rag_service.types import ParsedDocument

_FRONT_MATTER = re.compile(r"\A---[ \t]*\n(.*?\n)?(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL)
_FRONT_TITLE = re.compile(r"^title[ \t]*:[ \t]*(\S.*)$", re.MULTILINE | re.IGNORECASE)
_FRONT_LINE = re.compile(r"[ \t]*+(#.*|- .*|[\w .\"'-]+:.*|[\]}].*)?\Z|[ \t]+\S.*\Z")
_FRONT_FIELD = re.compile(r"[a-z][\w.-]*[ \t]*:(?:[ \t]|\Z)")
_FRONT_VALUE_OR_REMARK = re.compile(r"[ \t#\]}]|- |-?\Z")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ATX_TITLE = re.compile(r" {0,3}#[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*\Z")
_SETEXT_UNDERLINE = re.compile(r" {0,3}=+[ \t]*\Z")
_ATTRIBUTES = re.compile(r"[ \t]*\{[ \t]*[#.:][^}]*\}[ \t]*\Z")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_EMPHASIS = re.compile(r"(\*\*|__|`+|\*)(.+?)\1")
_TITLE_CHARACTERS = 1000


class Markdown:
    """Title: from the YAML front matter, else the first heading of level 1."""

    media_types = frozenset({"text/markdown"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        whole = decode(content)
        text, title = without_front_matter(whole)
        if not text.strip():  # a page of front matter alone, such as a redirect: its title, or else its fields
            text = f"# {title}" if title else whole
        return ParsedDocument(text=text, title=title or first_title(text), parser=made_by("rag-service"))


def without_front_matter(text: str) -> tuple[str, str | None]:
    """The text after a leading YAML block, and that block's `title`."""
    match = _FRONT_MATTER.match(text)
    fields = (match.group(1) or "") if match else ""
    if not match or not _is_front_matter(fields):
        return text, None
    rest = text[match.end() :].lstrip("\n")
    title = _FRONT_TITLE.search(fields)
    return rest, plain(title.group(1).strip().strip("\"'")) or None if title else None


def _is_front_matter(fields: str) -> bool:
    """Fields of YAML, a title among them or all in lower case: other words between two rules are the author's."""
    lines = fields.splitlines()
    if not all(_FRONT_LINE.match(line) for line in lines):
        return False
    if not fields.strip() or _FRONT_TITLE.search(fields):
        return True
    named = [line for line in lines if not _FRONT_VALUE_OR_REMARK.match(line)]
    return bool(named) and all(_FRONT_FIELD.match(line) for line in named)


def first_title(text: str) -> str | None:
    """The words of the first heading of level 1, outside of code."""
    before = ""
    for line in _lines_outside_code(text):
        if match := _ATX_TITLE.match(line):
            return plain(match.group(1)) or None
        if before.strip() and _SETEXT_UNDERLINE.match(line):
            return plain(before) or None
        before = line
    return None


def plain(words: str) -> str:
    """A heading's words without links, emphasis, code marks and attribute lists."""
    words = words[:_TITLE_CHARACTERS]  # no title is longer, and the patterns below are not linear
    words = _LINK.sub(r"\1", _ATTRIBUTES.sub("", words))
    return one_line(_EMPHASIS.sub(r"\2", words))


def _lines_outside_code(text: str) -> Iterator[str]:
    fence = ""
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        if not fence and mark:
            fence = mark.group(1)
        elif fence and mark and mark.group(1).startswith(fence):
            fence = ""
        elif not fence:
            yield line
