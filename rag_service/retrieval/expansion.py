"""What stands around a passage: its neighbours, or the section it belongs to, as one exact span of the document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rag_service.access import AccessScope
from rag_service.chunking.outline import Outline, outline_of
from rag_service.chunking.sections import section_at
from rag_service.db import Database, chunks
from rag_service.db.chunks import Surroundings
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
        with self._database.read() as connection:
            around = chunks.around(connection, [(one.index_version, one.chunk) for one in found], *spec.reach, scope)
        pages = {document_id: self._page(near, spec) for document_id, near in around.items()}
        contexts = {}
        for hit in (one.chunk for one in found):
            page = pages.get(hit.document_id)
            if page is not None:
                start, end = page.around(hit, around[hit.document_id].chunks, spec)
                contexts[hit.id] = Context(page.text[start:end], start, end)
        return contexts

    def _page(self, near: Surroundings, spec: Expansion) -> _Page | None:
        try:
            text = self._read_text(near.text_key).decode()
        except NotFound:
            return None  # the next version has taken its place since the look at the database
        return _Page(text, outline_of(text, near.layout) if spec.section else None)


@dataclass(frozen=True, slots=True)
class _Page:
    """A document's text, and its headings where sections are asked for."""

    text: str
    outline: Outline | None

    def around(self, hit: Chunk, near: Sequence[Chunk], spec: Expansion) -> tuple[int, int]:
        first, last = span(hit, near, *spec.reach)
        if self.outline is None:
            return first, last
        start, end = section_at(self.text, self.outline, hit.content.start)
        end = start + len(self.text[start:end].rstrip())
        return min(hit.content.start, max(start, first)), max(hit.content.end, min(end, last))


def span(hit: Chunk, near: Sequence[Chunk], before: int, after: int) -> tuple[int, int]:
    """Characters from the first to the last of so many chunks around `hit`, as far as they are among those `near`."""
    known = {chunk.ordinal: chunk for chunk in near if (chunk.document_id, chunk.version) == _version(hit)}
    places = (_walk(hit.ordinal, known, -1, before), _walk(hit.ordinal, known, 1, after))
    chosen = [known.get(ordinal, hit) for ordinal in range(places[0], places[1] + 1)]
    return min(chunk.content.start for chunk in chosen), max(chunk.content.end for chunk in chosen)


def _walk(place: int, known: Mapping[int, Chunk], step: int, most: int) -> int:
    for _ in range(most):
        if place + step not in known:
            break
        place += step
    return place


def _version(chunk: Chunk) -> tuple[str, int]:
    return chunk.document_id, chunk.version
