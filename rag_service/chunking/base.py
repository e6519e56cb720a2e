"""The chunker port, and the one rule of what is embedded for a chunk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from rag_service.types import ChunkText, ParsedDocument

# text -> the character span of each of its tokens, in order, without special tokens
TokenSpans: TypeAlias = Callable[[str], Sequence[tuple[int, int]]]


class Chunker(Protocol):
    @property
    def identity(self) -> str:
        """Name and parameters; stored with the index version. Equal identity, equal chunks."""
        ...

    def chunk(self, document: ParsedDocument, title: str) -> list[ChunkText]:
        """Cut a document into passages with exact spans, in order of their start.

        `embedded_text(title, chunk)` of every chunk fits the embedding model's window.
        """
        ...


def embedded_text(title: str, heading_path: Sequence[str], text: str) -> str:
    """The text that is embedded and lexically indexed for a chunk: where it stands, then what it says."""
    path = [part for part in (title, *heading_path) if part]
    unique = [part for place, part in enumerate(path) if part not in path[:place]]
    return f"{' > '.join(unique)}\n\n{text}" if unique else text
