"""One version of one document on its way into one index version."""

from __future__ import annotations

import hashlib
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from rag_service.access import AccessTokens
from rag_service.chunking.base import Chunker
from rag_service.db import Connection, chunks, collections, documents, indexed, jobs
from rag_service.db.documents import Document
from rag_service.db.fields import fields_of
from rag_service.db.jobs import Job
from rag_service.errors import NotFound, UnsupportedDocument
from rag_service.ingest import notices
from rag_service.ingest.blob_names import bytes_of, owner
from rag_service.ingest.hold import SwitchingIndexError, may_purge
from rag_service.ingest.stages import Stages
from rag_service.types import (
    Chunk,
    ChunkText,
    DocumentStatus,
    FromStage,
    IndexVersion,
    ParsedDocument,
    SparseVector,
    Vector,
    utc_now,
)
from rag_service.vectors.base import VectorPoint

if TYPE_CHECKING:
    from rag_service.ingest.indexer import Indexer

# A fixed namespace: the same document, version and place give the same chunk id on every machine, for ever.
_CHUNKS = uuid.UUID("6b1f5a0e-93c4-4d0c-8f6a-5d7b3a1c9e42")
_REUSED_AT_ONCE = 500
# An index version that is about to be left lets nothing in; a switch takes far less than this.
_HELD_S = 5.0
_LOOK_AGAIN_S = 0.05

Parse: TypeAlias = Callable[[bytes, str, str | None], ParsedDocument]


class _MovedError(Exception):
    """Another index version is the active one by now."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A chunk with the text that is embedded for it and the one whose words are counted."""

    chunk: Chunk
    text: str
    words: str


def chunk_id(document_id: str, version: int, ordinal: int, number: int = 1) -> str:
    """`number` is the index version's: a collection's first has the ids that there were before it could have more."""
    place = f"{document_id}:{version}:{ordinal}"
    return str(uuid.uuid5(_CHUNKS, place if number == 1 else f"{place}:{number}"))


@dataclass(frozen=True)
class Build:
    """With a `job` the document's newest version goes into the active index version and answers from then on.

    Without one the version that answers goes into `index`, another one. `start` is parse, chunk or embed: what comes
    before it is taken as it was kept.
    """

    parts: Indexer
    job: Job | None
    document: Document
    index: IndexVersion
    stages: Stages
    start: FromStage

    def run(self) -> bool:
        """False when `index` has ceased to be the active one: nothing of the document is in it."""
        encoded = self._chunk()
        dense = self._embed(encoded)
        self._advance(DocumentStatus.INDEXING, "index")
        try:
            self._write_and_commit(encoded, dense)
        except _MovedError:
            self._undo()
            with self.parts.database.transaction() as transaction:
                # Points of the version that it holds may have been written over: it is to be built once more.
                indexed.forget_document(transaction.connection, self.index, self.document.id)
            return False
        return True

    @cached_property
    def _chunker(self) -> Chunker:
        return self.parts.pipelines.chunker(self.index)

    @cached_property
    def _kept(self) -> ParsedDocument | None:
        """The text that answers, as it was parsed; None where not all of it was kept."""
        if self.start == FromStage.PARSE or self.document.indexed_version != self._version:
            return None
        with self.parts.database.read() as connection:
            kept = indexed.kept_text(connection, self.document)
        if kept is None:
            return None
        key, outline = kept
        try:
            return replace(outline, text=self.parts.blobs.get(key).decode())
        except NotFound:
            return None

    @cached_property
    def _parsed(self) -> ParsedDocument:
        if self._kept is not None:
            return self._kept
        self._advance(DocumentStatus.PARSING, "parse")
        name = self.document.file_name or self.document.external_id
        content = self.parts.blobs.get(self._blob_key)
        self.stages.measured(bytes=len(content))
        return self.parts.parse(content, name, self.document.media_type)

    @property
    def _content_hash(self) -> str:
        return self.document.content_hash if self.job else self.document.indexed_hash or ""

    @property
    def _blob_key(self) -> str:
        """Of the version that is built: a newer one may be on its way."""
        return bytes_of(self.document, self._version)

    @cached_property
    def _title(self) -> str:
        return self._title_of(self.document)

    def _title_of(self, document: Document) -> str:
        return document.given_title or self._parsed.title or document.file_name or document.external_id

    @property
    def _version(self) -> int:
        return self.document.version if self.job else self.document.indexed_version or 0

    def _chunk(self) -> list[Encoded]:
        texts = self._texts()
        if not texts:
            raise UnsupportedDocument("The document holds no text. Check the file and upload it again.", code="empty")
        title = self._chunker.fitting_title(self._title)
        return [self._encode(title, place, content) for place, content in enumerate(texts)]

    def _texts(self) -> list[ChunkText]:
        if self.start == FromStage.EMBED and self._kept is not None:
            with self.parts.database.read() as connection:
                held = chunks.of_document(connection, self.index.id, self.document.id, self._version)
            if held:
                return [chunk.content for chunk in held]
        parsed = self._parsed
        self._advance(DocumentStatus.CHUNKING, "chunk")
        return self._chunker.chunk(parsed, self._title)

    def _encode(self, title: str, ordinal: int, content: ChunkText) -> Encoded:
        text = self._chunker.embedded(title, content)
        digest = hashlib.sha256(text.encode()).hexdigest()
        name = chunk_id(self.document.id, self._version, ordinal, self.index.number)
        chunk = Chunk(name, self.document.id, self._version, ordinal, content, digest)
        return Encoded(chunk, text, self._chunker.counted(title, content))

    def _embed(self, encoded: Sequence[Encoded]) -> list[Vector]:
        """Vectors in order; those of texts that the collection has embedded with this model are taken over."""
        self._advance(DocumentStatus.EMBEDDING, "embed")
        known = self._known([item.chunk.text_hash for item in encoded])
        new = {item.chunk.text_hash: item.text for item in encoded if item.chunk.text_hash not in known}
        self.stages.measured(chunks=len(encoded), embedded=len(new))
        if new:
            made = self.parts.pipelines.embedder(self.index).embed(list(new.values()), "document")
            known.update(zip(new, made, strict=True))
        return [np.asarray(known[item.chunk.text_hash], dtype=np.float32) for item in encoded]

    def _known(self, hashes: Sequence[str]) -> dict[str, Vector]:
        """By hash of the text: vectors of this model that an index version of the collection holds."""
        known: dict[str, Vector] = {}
        with self.parts.database.read() as connection:
            live = collections.live_indexes(connection, self.document.collection_id)
            same = [index.id for index in live if index.embedder == self.index.embedder]
            places: dict[str, tuple[str, str]] = {}
            for at in range(0, len(hashes), _REUSED_AT_ONCE):
                places |= chunks.holding(connection, same, hashes[at : at + _REUSED_AT_ONCE])
        by_index: dict[str, list[str]] = defaultdict(list)
        for index, chunk in places.values():
            by_index[index].append(chunk)
        for index, ids in by_index.items():
            for at in range(0, len(ids), _REUSED_AT_ONCE):
                among = frozenset(ids[at : at + _REUSED_AT_ONCE])
                for point in self.parts.vectors.stored(index, chunk_ids=among, vectors=True):
                    if point.dense is not None:
                        known[point.text_hash] = point.dense
        return known

    def _write_and_commit(self, encoded: Sequence[Encoded], dense: Sequence[Vector]) -> None:
        text_key = self.parts.blobs.put(owner(self.document.id, self._version), self._parsed.text.encode())
        made, words = [item.chunk for item in encoded], [item.words for item in encoded]
        written: IndexVersion | None = None
        until = time.monotonic() + _HELD_S
        while True:
            now, access = self.parts.look(self.document.id)
            if now is None or self._is_overtaken(now):
                if written:
                    self._undo()
                return
            fields = fields_of(replace(now, title=self._title_of(now)))
            index = self._index_now()
            encoder = self.parts.pipelines.lexical(index)
            if written == index:
                self.parts.vectors.update(index.id, now.id, access=access, fields=fields, revision=now.revision)
            else:
                embedded, sparse = list(zip(encoded, dense, strict=True)), encoder.encode(words, "document")
                self.parts.vectors.upsert(index.id, self._points(now, embedded, sparse, access, fields))
                written = index
            terms = sum(encoder.lengths(words))
            if self.job is None:
                # Before the commit: nobody would come back for them after it. What is behind does not begin to answer.
                may_purge(self.parts.database)
                self.parts.vectors.delete(index.id, now.id, older_than=self._version)
            stale = self._commit(now, index, made, {"text_key": text_key, "term_count": terms})
            if stale is not None:
                self._remove(stale)
                return
            self._wait(until)

    def _is_overtaken(self, now: Document) -> bool:
        return now.is_deleted or (now.version if self.job else now.indexed_version) != self._version

    def _undo(self) -> None:
        """Take back what was written of a version that the index version does not answer with."""
        with self.parts.database.read() as connection:
            held = indexed.version_in(connection, self.index.id, self.document.id)
        if held != self._version:
            self.parts.vectors.delete(self.index.id, self.document.id, only=self._version)

    def _remove(self, stale: frozenset[str]) -> None:
        """Points of chunks that the document had in this index version before."""
        if stale:
            self.parts.vectors.delete(self.index.id, self.document.id, only=self._version, chunk_ids=stale)

    def _wait(self, until: float) -> None:
        """While the index version is held; whoever changed the document meanwhile is not waited for."""
        with self.parts.database.read() as connection:
            held = indexed.is_held(connection, self.index)
        if held:
            if time.monotonic() > until:
                raise SwitchingIndexError
            time.sleep(_LOOK_AGAIN_S)

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

    def _commit(
        self, now: Document, index: IndexVersion, made: Sequence[Chunk], more: Mapping[str, Any]
    ) -> frozenset[str] | None:
        """The chunks of this version that are no more; None when the row or the calibration changed since they were
        read, or the index version is held: look again. Raises _MovedError.
        """
        held = {
            **more,
            "version": self._version,
            "content_hash": self._content_hash,
            "outline": indexed.outline_of(self._parsed),
            "parser": self._parsed.parser,
            "chunk_count": len(made),
            "calibration": index.calibration,
            "searchable_at": utc_now(),
        }
        with self.parts.database.transaction() as transaction:
            connection = transaction.connection
            # Before the lease: a holder that lost it may have written over points of a newer calibration.
            if not self.parts.calibration.note_written(transaction, index, len(made)):
                return None
            if self.job is not None and not jobs.is_held(connection, self.job):
                return frozenset()  # another worker has taken over and writes the same points
            if not self._take(connection, now, index, held):
                return None
            before = chunks.ids_of(connection, index.id, now.id, self._version)
            chunks.replace(connection, index.id, now.id, made)
            indexed.note(connection, index, now.id, held)
            if self.job is not None and now.indexed_version == self._version and now.text_key != held["text_key"]:
                indexed.forget_in_coming(connection, index, now.id)  # built of the text as it was read before
            if self.job is not None:
                documents.record(connection, now.id, self._version, "indexed", chunks=len(made))
                notices.ready(transaction, now, self._version, len(made))
                self.parts.written(transaction, index)
        return before - {chunk.id for chunk in made}

    def _take(self, connection: Connection, now: Document, index: IndexVersion, held: Mapping[str, Any]) -> bool:
        """Whether the document is as it was read; in the active index version its own row then tells what answers."""
        if self.job is None:
            return indexed.unchanged(connection, now)
        if collections.active_index(connection, now.collection_id).id != index.id:
            raise _MovedError
        values = {
            "title": self._title_of(now),
            "status": DocumentStatus.READY,
            "error": None,
            "updated_at": now.updated_at,  # as its points say: to be ready is no change of the document
            **indexed.repeated(index, held),
        }
        return documents.change(connection, now, values) is not None

    def _advance(self, status: DocumentStatus, stage: str) -> None:
        self.stages.enter(stage)
        if self.job is not None:
            self.parts.progress.show(self.document.id, self._version, status)
