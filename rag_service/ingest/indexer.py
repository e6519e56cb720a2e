"""From a document's bytes to searchable chunks, safely beside any other worker.

The vector store shares no transaction with SQL. So a worker writes, looks at the row again and repairs: whoever
writes last also looks last, and every interleaving of content, ACL and removal ends right. Repeating a job changes
nothing, because chunk ids follow from document, version and place.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from rag_service.access import AccessTokens
from rag_service.blobs import BlobStore
from rag_service.chunking.base import Chunker, embedded_text, lexical_text
from rag_service.db import Database, chunks, collections, documents, jobs
from rag_service.db.documents import Document
from rag_service.db.jobs import Job
from rag_service.embedding.base import Embedder, LexicalEncoder
from rag_service.errors import UnsupportedDocument
from rag_service.ingest import notices
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.fields import fields_of
from rag_service.ingest.hold import may_purge
from rag_service.ingest.intake import owner
from rag_service.ingest.progress import ProgressBoard
from rag_service.ingest.stages import Stages
from rag_service.types import (
    Chunk,
    ChunkText,
    DocumentStatus,
    IndexVersion,
    ParsedDocument,
    SparseVector,
    Vector,
    utc_now,
)
from rag_service.vectors.base import VectorPoint, VectorStore

# A fixed namespace: the same document, version and place give the same chunk id on every machine, for ever.
_CHUNKS = uuid.UUID("6b1f5a0e-93c4-4d0c-8f6a-5d7b3a1c9e42")

Parse = Callable[[bytes, str, str | None], ParsedDocument]


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk with the text that is embedded for it and the one whose words are counted."""

    chunk: Chunk
    text: str
    words: str


def chunk_id(document_id: str, version: int, ordinal: int) -> str:
    return str(uuid.uuid5(_CHUNKS, f"{document_id}:{version}:{ordinal}"))


@dataclass(frozen=True)
class Indexer:
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    parse: Parse
    chunker: Chunker
    embedder: Embedder
    lexical: Callable[[IndexVersion], LexicalEncoder]
    progress: ProgressBoard
    calibration: Calibration

    def index(self, job: Job, stages: Stages) -> None:
        """Make the job's version of its document the one that answers. Does nothing if it has been overtaken.

        `again` in its payload: also where it is that one already, to write anew what the index or the blobs lost of it.
        Raises UnsupportedDocument, RetryableError; nothing that was searchable before is lost by either.
        """
        document, access = self.look(job.document_id or "")
        if document is None or document.is_deleted:
            return
        if document.version != job.version:
            self._clean_up_after(job, document)
            return
        if document.indexed_version != document.version or job.payload.get("again"):
            index = self._active_index(document)
            if document.indexed_version is not None:
                # A narrowed ACL must not wait for the parser: the version that answers meanwhile gets it now.
                self._update(index, document, access)
            try:
                _Build(self, job, document, index, stages).run()
            finally:
                self.progress.forget(document.id, document.version)
        self._clean_up(job, document)

    def refresh(self, job: Job) -> None:
        """Bring the chunks of a document up to its ACL and fields; embeds nothing."""
        while True:
            document, access = self.look(job.document_id or "")
            if document is None or document.is_deleted or document.indexed_version is None:
                return
            index = self._active_index(document)
            self._update(index, document, access)
            again, _ = self.look(document.id)
            if again is not None and again.revision == document.revision:
                return

    def _update(self, index: IndexVersion, document: Document, access: AccessTokens) -> None:
        fields = fields_of(document)
        self.vectors.update(index.id, document.id, access=access, fields=fields, revision=document.revision)

    def _clean_up(self, job: Job, document: Document) -> None:
        version = job.version or 0
        with self.database.read() as connection:
            now = documents.load(connection, document.id)
        if now is None or now.indexed_version != version:
            return
        if version > 1:
            may_purge(self.database)
            self.vectors.delete(self._active_index(now).id, now.id, older_than=version)
        # A job repeated after its commit no longer knows which version answered before: it looks at all of them.
        before = document.indexed_version
        for old in range(before if before and before != version else 1, version):
            self.blobs.delete(owner(document.id, old))

    def _clean_up_after(self, job: Job, document: Document) -> None:
        """Overtaken between its commit and its clean-up: the one that came after does not know what came before."""
        if job.fence > 1 and job.version is not None and (document.indexed_version or 0) >= job.version > 1:
            may_purge(self.database)
            for old in range(1, job.version):
                self.blobs.delete(owner(document.id, old))

    def _active_index(self, document: Document) -> IndexVersion:
        with self.database.read() as connection:
            return collections.active_index(connection, document.collection_id)

    def look(self, document_id: str) -> tuple[Document | None, AccessTokens]:
        with self.database.read() as connection:
            document = documents.load(connection, document_id)
            if document is None:
                return None, AccessTokens((), ())
            return document, documents.tokens(connection, document)


@dataclass(frozen=True)
class _Build:
    """One version of one document on its way into one index."""

    parts: Indexer
    job: Job
    document: Document
    index: IndexVersion
    stages: Stages

    def run(self) -> None:
        encoded = self._chunk()
        dense = self._embed(encoded)
        self._advance(DocumentStatus.INDEXING, "index")
        self._write_and_commit(encoded, dense)

    @cached_property
    def _parsed(self) -> ParsedDocument:
        self._advance(DocumentStatus.PARSING, "parse")
        content = self.parts.blobs.get(self.document.blob_key)
        name = self.document.file_name or self.document.external_id
        return self.parts.parse(content, name, self.document.media_type)

    @cached_property
    def _title(self) -> str:
        return self._title_of(self.document)

    def _title_of(self, document: Document) -> str:
        return document.given_title or self._parsed.title or document.file_name or document.external_id

    @property
    def _version(self) -> int:
        return self.document.version

    def _chunk(self) -> list[Encoded]:
        parsed = self._parsed
        self._advance(DocumentStatus.CHUNKING, "chunk")
        texts = self.parts.chunker.chunk(parsed, self._title)
        if not texts:
            raise UnsupportedDocument("The document holds no text. Check the file and upload it again.", code="empty")
        title = self.parts.chunker.fitting_title(self._title)
        return [self._encode(title, place, content) for place, content in enumerate(texts)]

    def _encode(self, title: str, ordinal: int, content: ChunkText) -> Encoded:
        text = embedded_text(title, content.heading_path, content.text)
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = chunk_id(self.document.id, self._version, ordinal)
        chunk = Chunk(name, self.document.id, self._version, ordinal, content, digest)
        return Encoded(chunk, text, lexical_text(title, content.heading_path, content.text))

    def _embed(self, encoded: Sequence[Encoded]) -> list[Vector]:
        """Vectors in order; those of texts that the version before had too are taken over, not computed."""
        self._advance(DocumentStatus.EMBEDDING, "embed")
        known: dict[str, Vector] = {}
        if self.document.indexed_version is not None:
            held = self.parts.vectors.stored(self.index.id, self.document.id, vectors=True)
            known = {point.text_hash: point.dense for point in held if point.dense is not None}
        new = {item.chunk.text_hash: item.text for item in encoded if item.chunk.text_hash not in known}
        if new:
            made = self.parts.embedder.embed(list(new.values()), "document")
            known.update(zip(new, made, strict=True))
        return [np.asarray(known[item.chunk.text_hash], dtype=np.float32) for item in encoded]

    def _write_and_commit(self, encoded: Sequence[Encoded], dense: Sequence[Vector]) -> None:
        text_key = self.parts.blobs.put(owner(self.document.id, self._version), self._parsed.text.encode())
        made, words = [item.chunk for item in encoded], [item.words for item in encoded]
        written: IndexVersion | None = None
        while True:
            now, access = self.parts.look(self.document.id)
            if now is None or now.is_deleted or now.version != self._version:
                if written:
                    self.parts.vectors.delete(self.index.id, self.document.id, only=self._version)
                return
            fields = fields_of(replace(now, title=self._title_of(now)))
            index = self._index_now()
            encoder = self.parts.lexical(index)
            if written == index:
                self.parts.vectors.update(index.id, now.id, access=access, fields=fields, revision=now.revision)
            else:
                embedded, sparse = list(zip(encoded, dense, strict=True)), encoder.encode(words, "document")
                self.parts.vectors.upsert(index.id, self._points(now, embedded, sparse, access, fields))
                written = index
            terms = sum(encoder.lengths(words))
            if self._commit(now, index, made, {"text_key": text_key, "term_count": terms}):
                return

    def _index_now(self) -> IndexVersion:
        """The same index version, with the calibration that it has at this moment."""
        with self.parts.database.read() as connection:
            return collections.index_version(connection, self.index.id)

    def _points(
        self,
        now: Document,
        encoded: Sequence[tuple[Encoded, Vector]],
        sparse: Sequence[SparseVector],
        access: AccessTokens,
        fields: Mapping[str, Any],
    ) -> list[VectorPoint]:
        return [
            VectorPoint(
                chunk_id=item.chunk.id,
                team=now.team_id,
                document_id=now.id,
                version=self._version,
                text_hash=item.chunk.text_hash,
                dense=vector,
                lexical=terms,
                access=access,
                fields=fields,
                revision=now.revision,
            )
            for (item, vector), terms in zip(encoded, sparse, strict=True)
        ]

    def _commit(self, now: Document, index: IndexVersion, made: Sequence[Chunk], more: Mapping[str, Any]) -> bool:
        """False when the row or the calibration changed since `now` and `index` were read: look again."""
        values = {
            **more,
            "title": self._title_of(now),
            "status": DocumentStatus.READY,
            "error": None,
            "indexed_version": self._version,
            "indexed_hash": now.content_hash,
            "index_version": index.id,
            "calibration": index.calibration,
            "parser": self._parsed.parser,
            "chunk_count": len(made),
            "searchable_at": utc_now(),
        }
        with self.parts.database.transaction() as transaction:
            connection = transaction.connection
            # Before the lease: a holder that lost it may have written over points of a newer calibration.
            if not self.parts.calibration.note_written(transaction, index, len(made)):
                return False
            if not jobs.is_held(connection, self.job):
                return True  # another worker has taken over and writes the same points
            if chunks.replace(connection, now, values, made) is None:
                return False
            documents.record(connection, now.id, self._version, "indexed", chunks=len(made))
            notices.ready(transaction, now, self._version, len(made))
        return True

    def _advance(self, status: DocumentStatus, stage: str) -> None:
        self.stages.enter(stage)
        self.parts.progress.show(self.document.id, self._version, status)
