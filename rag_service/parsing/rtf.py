"""Rich Text Format through striprtf."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import groupby

from striprtf import striprtf

from rag_service.parsing.render import clean, corrupt, join_blocks, made_by, one_line, paragraph, pipe_table
from rag_service.types import ParsedDocument

_TITLE = re.compile(r"\{\\title\s((?:[^{}\\]|\\.)*)\}")
# Neither may stand there, both are met in the wild, and striprtf takes them to end all text.
_MISPLACED = re.compile(r"(?<![{\\\s])\\\*(?=\\)|\\bin(?![a-z\d])")
_BLANK_LINES = re.compile(r"\n\s*\n+")


class Rtf:
    """Paragraphs and tables; the format has no headings to tell by."""

    media_types = frozenset({"application/rtf"})

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        # RTF is ASCII by definition; latin-1 keeps stray bytes where they are.
        source = _MISPLACED.sub("", content.decode("latin-1"))
        try:
            raw = _text(source)
            title = _TITLE.search(source)
            named = one_line(_text(f"{{\\rtf1 {title.group(1)}}}")) if title else ""
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            raise corrupt(f"The RTF cannot be read ({error}).") from error
        return ParsedDocument(text=_blocks(raw), title=named or None, parser=made_by("striprtf"))


def _text(source: str) -> str:
    convert: Callable[..., str] = striprtf.rtf_to_text
    return clean(convert(source, errors="replace"))


def _blocks(raw: str) -> str:
    """striprtf ends table cells with `|`: runs of such lines become tables."""
    blocks: list[str] = []
    for in_table, lines in groupby(raw.split("\n"), key=lambda line: line.rstrip().endswith("|")):
        if in_table:
            blocks.append(pipe_table(line.rstrip().removesuffix("|").split("|") for line in lines))
        else:
            blocks += [paragraph(block) for block in _BLANK_LINES.split("\n".join(lines))]
    return join_blocks(blocks)
