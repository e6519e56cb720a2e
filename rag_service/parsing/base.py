"""The parser port: raw bytes in, normalised Markdown text with a page map out."""

from __future__ import annotations

from typing import Protocol

from rag_service.types import ParsedDocument


class Parser(Protocol):
    """One family of formats. Runs inside the limited child process of `sandbox.py`; holds no state."""

    @property
    def media_types(self) -> frozenset[str]: ...

    def parse(self, content: bytes, name: str) -> ParsedDocument:
        """Read `content`; `name` is the file's name, for its extension and as a fallback title.

        Raises UnsupportedDocument, its code one of: encrypted, corrupt, empty, unsupported, too_large.
        """
        ...
