"""What stands around a passage: its neighbours, or the section it belongs to, as one exact span of the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag_service.access import AccessScope
from rag_service.db import Database, chunks
from rag_service.errors import NotFound
from rag_service.retrieval.options import Expansion
from rag_service.types import Chunk, ConfirmedChunk


@dataclass(frozen=True, slots=True)
class Context:
    """`document.text[start:end] == text`, exactly; it contains the passage."""

    text: str
    start: int
    end: int


class Expander:
    """Reads what stands around passages. `read_text` gives a document's stored text, or raises NotFound."""

    def __init__(self, database: Database, read_text: Callable[[str], bytes]) -> None:
        self._database = database
        self._read_text = read_text

    def contexts(self, found: Sequence[ConfirmedChunk], spec: Expansion, scope: AccessScope) -> dict[str, Context]:
        """By chunk id. Of a document that is no longer readable, or of the next version by now, nothing is shown."""
        if not found:
            return {}
        hits = [one.chunk for one in found]
        with self._database.read() as connection:
            around = chunks.around(connection, [(one.index_version, one.chunk) for one in found], *spec.reach, scope)
        texts = {document_id: self._text(near[0][1]) for document_id, near in around.items()}
        contexts = {}
        for hit in hits:
            text = texts.get(hit.document_id)
            if text is not None:
                start, end = span(hit, [chunk for chunk, _ in around[hit.document_id]], spec)
                contexts[hit.id] = Context(text[start:end], start, end)
        return contexts

    def _text(self, key: str) -> str | None:
        try:
            return self._read_text(key).decode()
        except NotFound:
            return None  # the next version has taken its place since the look at the database


def span(hit: Chunk, around: Sequence[Chunk], spec: Expansion) -> tuple[int, int]:
    """Characters from the first to the last chunk that belongs with `hit`; `around` are chunks of the same version.

    A section ends where a chunk is missing or stands under another heading; a chunk under a deeper one belongs to it.
    """
    known = {chunk.ordinal: chunk for chunk in around if (chunk.document_id, chunk.version) == _version(hit)}
    before, after = spec.reach
    first = _walk(hit, known, -1, before, spec)
    last = _walk(hit, known, 1, after, spec)
    chosen = [known.get(ordinal, hit) for ordinal in range(first, last + 1)]
    return min(chunk.content.start for chunk in chosen), max(chunk.content.end for chunk in chosen)


def _walk(hit: Chunk, known: Mapping[int, Chunk], step: int, most: int, spec: Expansion) -> int:
    place = hit.ordinal
    for _ in range(most):
        chunk = known.get(place + step)
        if chunk is None or (spec.section and not _belongs(hit, chunk)):
            break
        place += step
    return place


def _belongs(hit: Chunk, chunk: Chunk) -> bool:
    path = hit.content.heading_path
    return chunk.content.heading_path[: len(path)] == path


def _version(chunk: Chunk) -> tuple[str, int]:
    return chunk.document_id, chunk.version
