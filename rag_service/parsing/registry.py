"""Which parser reads which media type, and the rules that hold for whatever a parser returns."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import import_module

from rag_service.errors import UnsupportedDocument
from rag_service.parsing.base import Parser
from rag_service.parsing.media_types import DOCX, EPUB, ODT, PPTX, XLSX, media_type_of, supported_extensions
from rag_service.parsing.render import corrupt, one_line
from rag_service.parsing.text import CODE_TYPES
from rag_service.types import ParsedDocument

__all__ = ["PARSERS", "media_type_of", "parse", "parser_of", "supported_extensions"]

PARSERS: Mapping[str, str] = {
    "text/markdown": "rag_service.parsing.markdown:Markdown",
    "text/plain": "rag_service.parsing.text:PlainText",
    "text/x-rst": "rag_service.parsing.rst:Rst",
    "text/html": "rag_service.parsing.html:Html",
    "application/pdf": "rag_service.parsing.pdf:Pdf",
    DOCX: "rag_service.parsing.office:Word",
    PPTX: "rag_service.parsing.office:Slides",
    XLSX: "rag_service.parsing.spreadsheet:Workbook",
    "text/csv": "rag_service.parsing.table:SeparatedValues",
    "text/tab-separated-values": "rag_service.parsing.table:SeparatedValues",
    "message/rfc822": "rag_service.parsing.mail:Mail",
    EPUB: "rag_service.parsing.epub:Epub",
    ODT: "rag_service.parsing.odt:OpenText",
    "application/rtf": "rag_service.parsing.rtf:Rtf",
    "application/json": "rag_service.parsing.json:Json",
    "application/x-ndjson": "rag_service.parsing.json:JsonLines",
    **dict.fromkeys(sorted(CODE_TYPES), "rag_service.parsing.text:SourceCode"),
}

# Neither can be stored: PostgreSQL refuses NUL, UTF-8 a lone surrogate. One character for one: offsets stay true.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def parse(content: bytes, name: str, media_type: str, extra_parsers: Mapping[str, str] | None = None) -> ParsedDocument:
    """The document that the parser of `media_type` makes of `content`; its text is never empty.

    Raises UnsupportedDocument: encrypted, corrupt, empty, unsupported, too_large. MemoryError passes through.
    """
    if not content:
        raise UnsupportedDocument("The file is empty (0 bytes). Upload one with content.", code="empty")
    parser = parser_of(media_type, extra_parsers)
    try:
        document = parser.parse(content, name)
    except (UnsupportedDocument, MemoryError):
        raise
    except Exception as error:
        # Parsers of other houses raise whatever they please at a broken file.
        said = one_line(f"{type(error).__name__}: {error}")[:200]
        raise corrupt(f"The file cannot be read as {media_type} ({said}).") from error
    if not document.text.strip():
        raise UnsupportedDocument(
            "The file was read, but there is no text in it. Upload one that has some.", code="empty"
        )
    title = _UNSTORABLE.sub("\ufffd", document.title) if document.title else None
    return replace(document, text=_UNSTORABLE.sub("\ufffd", document.text), title=title)


def parser_of(media_type: str, extra_parsers: Mapping[str, str] | None = None) -> Parser:
    """The parser of a media type. Raises UnsupportedDocument when there is none."""
    place = (extra_parsers or {}).get(media_type) or PARSERS.get(media_type)
    if place is None:
        raise UnsupportedDocument(
            f"There is no parser for {media_type}. Convert it to PDF, DOCX, HTML, Markdown or plain text.",
            code="unsupported",
        )
    return _load(place)


@cache
def _load(place: str) -> Parser:
    module, _, name = place.partition(":")
    parser: Parser = getattr(import_module(module), name)()
    return parser
