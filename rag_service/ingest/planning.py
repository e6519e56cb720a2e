"""What a build would take, measured on some documents of the collection with the model that is to embed them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from rag_service.blobs import BlobStore
from rag_service.chunking.base import Chunker
from rag_service.db import Database, builds, chunks, collections, indexed
from rag_service.db.documents import Document
from rag_service.embedding.base import Embedder
from rag_service.errors import NotFound, RagError
from rag_service.ingest.build import Parse
from rag_service.ingest.build_pace import Pace
from rag_service.ingest.builder import SHARES
from rag_service.ingest.versions import Versions, Wanted
from rag_service.types import EmbedderIdentity, IndexVersion, ParsedDocument
from rag_service.vectors.base import VectorStore

_SAMPLE = 24
_SAMPLE_S = 10.0
_HASHES = 500
# What writing costs beside the model where nothing was built here before: measured on two cores with a local disk.
_WRITE_DOCUMENT_S = 0.015
_WRITE_CHUNK_S = 0.0015
_PAYLOAD_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Planned:
    """`seconds` on the clock, giving way to others as asked; `tokens` for models that are asked over a network."""

    embedder: EmbedderIdentity
    chunker: str
    documents: int
    chunks: int
    seconds: float
    disk_bytes: int
    tokens: int | None


@dataclass(frozen=True, slots=True)
class _Tried:
    """Of the sampled documents: how many, their chunks in the active index version and in the new one."""

    documents: int = 0
    former: int = 0
    chunks: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: _Tried) -> _Tried:
        return _Tried(
            self.documents + other.documents,
            self.former + other.former,
            self.chunks + other.chunks,
            self.tokens + other.tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class Planner:
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    parse: Parse
    versions: Versions

    def plan(self, team_id: str, collection: str, wanted: Wanted) -> Planned:
        """Raises what `Versions.create` raises; builds nothing."""
        with self.database.read() as connection:
            ours = collections.get(connection, team_id, collection)
            active = collections.active_index(connection, ours.id)
            left = builds.left(connection, active)
            sample = builds.sampled(connection, ours.id, _SAMPLE)
            live = collections.live_indexes(connection, ours.id)
            measured = builds.measured(connection)
        probe, embedder = self.versions.check(ours, wanted.pipeline)
        chunker = self.versions.pipelines.chunker(probe)
        alike = [index for index in live if index.embedder == embedder.identity]
        tried = self._try(sample, embedder, chunker, alike, anew=bool(wanted.pipeline.get("parsing")))
        growth = tried.chunks / tried.former if tried.former else 1.0
        chunks = round(left.chunks * growth)
        # What is taken over from an index version of the same model costs less than it did before.
        known = None if alike else measured.get((str(embedder.identity), chunker.identity))
        pace = None if known is None else Pace.of(known)
        remote = wanted.pipeline.get("embedding", {}).get("embedder") == "http"
        return Planned(
            embedder=embedder.identity,
            chunker=chunker.identity,
            documents=left.documents,
            chunks=chunks,
            seconds=round(self._seconds(left.documents, left.chunks, tried, pace, wanted, remote=remote), 1),
            disk_bytes=chunks * self._bytes_per_chunk(active, embedder.identity.dimensions),
            tokens=round(tried.tokens / tried.former * left.chunks) if remote and tried.former else None,
        )

    def _try(
        self,
        sample: list[Document],
        embedder: Embedder,
        chunker: Chunker,
        alike: Sequence[IndexVersion],
        *,
        anew: bool,
    ) -> _Tried:
        until, tried = time.monotonic() + _SAMPLE_S, _Tried()
        for document in sample:
            if time.monotonic() > until:
                break
            began = time.monotonic()
            try:
                parsed = self._parsed(document, anew=anew)
            except RagError:
                continue  # one that cannot be built says nothing of the others
            title = chunker.fitting_title(document.title)
            made = chunker.chunk(parsed, document.title)
            texts = self._new(alike, [chunker.embedded(title, content) for content in made])
            if texts:
                embedder.embed(texts, "document")
            took = time.monotonic() - began
            tried += _Tried(1, document.chunk_count, len(made), sum(content.tokens for content in made), took)
        return tried

    def _new(self, alike: Sequence[IndexVersion], texts: Sequence[str]) -> list[str]:
        """Those that no index version of the same model has embedded."""
        by_hash = {hashlib.sha256(text.encode()).hexdigest(): text for text in texts}
        with self.database.read() as connection:
            held = chunks.holding(connection, [index.id for index in alike], list(by_hash)[:_HASHES])
        return [text for digest, text in by_hash.items() if digest not in held]

    def _parsed(self, document: Document, *, anew: bool) -> ParsedDocument:
        if anew:
            name = document.file_name or document.external_id
            return self.parse(self.blobs.get(document.blob_key), name, document.media_type)
        with self.database.read() as connection:
            kept = indexed.kept_text(connection, document)
        if kept is None:
            raise NotFound
        key, outline = kept
        return ParsedDocument(self.blobs.get(key).decode(), outline.title, outline.pages, outline.layout)

    @staticmethod
    def _seconds(
        documents: int, former: int, tried: _Tried, known: Pace | None, wanted: Wanted, *, remote: bool
    ) -> float:
        """From a build of the same kind if there was one, else from the sample."""
        busy = known.busy_for(documents, former) if known is not None else None
        if busy is None:
            model = tried.seconds / tried.former * former if tried.former else 0.0
            growth = tried.chunks / tried.former if tried.former else 1.0
            busy = model + documents * _WRITE_DOCUMENT_S + former * growth * _WRITE_CHUNK_S
        # A model on this machine uses all of it for one document already.
        at_a_time = wanted.max_concurrency if remote else 1
        return busy / SHARES[wanted.priority] / at_a_time

    def _bytes_per_chunk(self, active: IndexVersion, dimensions: int) -> int:
        try:
            held, count = self.vectors.disk_bytes(active.id), self.vectors.count(active.id)
        except NotFound:
            held, count = None, 0
        beside = _PAYLOAD_BYTES if held is None or not count else max(0, held // count - 4 * active.embedder.dimensions)
        return min(beside, 10 * _PAYLOAD_BYTES) + 4 * dimensions
