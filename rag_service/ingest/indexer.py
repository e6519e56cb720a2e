"""From a document's bytes to searchable chunks, safely beside any other worker.

The vector store shares no transaction with SQL. So a worker writes, looks at the row again and repairs: whoever
writes last also looks last, and every interleaving of content, ACL and removal ends right. Repeating a job changes
nothing, because chunk ids follow from document, version and place.

A collection may have several live index versions. A document is indexed into the active one, which is what answers;
into the others it is built by whoever brings them up to date. Access, fields and deletions reach all of them at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from rag_service.access import AccessTokens
from rag_service.blobs import BlobStore
from rag_service.db import Database, collections, documents
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.db.fields import fields_of
from rag_service.db.jobs import Job
from rag_service.errors import NotFound
from rag_service.ingest.blob_names import owner
from rag_service.ingest.build import Build, Parse
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.hold import may_purge
from rag_service.ingest.progress import ProgressBoard
from rag_service.ingest.stages import Stages
from rag_service.pipelines import Pipelines
from rag_service.types import FromStage, IndexVersion
from rag_service.vectors.base import VectorStore


def _nobody(_transaction: Transaction, _index: IndexVersion) -> None:
    """Nobody wants to know."""


@dataclass(frozen=True)
class Indexer:
    """`written` is told of every commit to an active index version, within its transaction."""

    database: Database
    blobs: BlobStore
    vectors: VectorStore
    parse: Parse
    pipelines: Pipelines
    progress: ProgressBoard
    calibration: Calibration
    written: Callable[[Transaction, IndexVersion], object] = _nobody

    def index(self, job: Job, stages: Stages) -> None:
        """Make the job's version of its document the one that answers. Does nothing if it has been overtaken.

        `again` in its payload: also where it is that one already, to write anew what the index or the blobs lost of
        it, or what would be made otherwise today; `from` names the stage to start at (parse, chunk or embed).
        Raises UnsupportedDocument, RetryableError; nothing that was searchable before is lost by either.
        """
        document, access = self.look(job.document_id or "")
        if document is None or document.is_deleted:
            if job.fence > 1:
                self._discard(job, document)
            return
        if document.version != job.version:
            self._clean_up_after(job, document)
            return
        again = bool(job.payload.get("again"))
        if document.indexed_version != document.version or again:
            if document.indexed_version is not None:
                # A narrowed ACL must not wait for the parser: the version that answers meanwhile gets it now.
                self._update(document, access)
            start = FromStage(job.payload.get("from", FromStage.PARSE)) if again else FromStage.PARSE
            try:
                self._build(job, document, stages, start)
            finally:
                self.progress.forget(document.id, document.version)
        self._clean_up(job, document)

    def build(self, document_id: str, index: IndexVersion, stages: Stages) -> None:
        """Bring another index version than the active one up to the version of a document that answers.

        Does nothing for a document that is gone or changes meanwhile. Raises UnsupportedDocument, RetryableError,
        NotFound when the index version is gone.
        """
        document, _ = self.look(document_id)
        if document is None or document.is_deleted or document.indexed_version is None:
            return
        Build(self, None, document, index, stages, self._start(index)).run()

    def refresh(self, job: Job) -> None:
        """Bring the chunks of a document up to its ACL and fields; embeds nothing."""
        while True:
            document, access = self.look(job.document_id or "")
            if document is None or document.is_deleted or document.indexed_version is None:
                return
            self._update(document, access)
            again, _ = self.look(document.id)
            if again is not None and again.revision == document.revision:
                return

    def look(self, document_id: str) -> tuple[Document | None, AccessTokens]:
        with self.database.read() as connection:
            document = documents.load(connection, document_id)
            if document is None:
                return None, AccessTokens((), ())
            return document, documents.tokens(connection, document)

    def _build(self, job: Job, document: Document, stages: Stages, start: FromStage) -> None:
        while True:
            index = self._active_index(document)
            if Build(self, job, document, index, stages, start).run():
                return
            # Another index version has become the active one meanwhile: what was kept is of the former.
            start = FromStage.PARSE

    @staticmethod
    def _start(index: IndexVersion) -> FromStage:
        return FromStage.PARSE if index.pipeline.get("parsing", {}).get("anew") else FromStage.CHUNK

    def _update(self, document: Document, access: AccessTokens) -> None:
        fields = fields_of(document)
        with self.database.read() as connection:
            live = collections.live_indexes(connection, document.collection_id)
        for index in live:
            try:
                self.vectors.update(index.id, document.id, access=access, fields=fields, revision=document.revision)
            except NotFound:
                if self._active_index(document).id == index.id:
                    raise
                # Dropped a moment ago, or not made yet: whoever builds it reads the document as it is then.

    def _clean_up(self, job: Job, document: Document) -> None:
        version = job.version or 0
        with self.database.read() as connection:
            now = documents.load(connection, document.id)
        if now is None or now.is_deleted or version not in (now.version, now.indexed_version):
            self._discard(job, now)
        if now is None or now.indexed_version != version:
            return
        if version > 1:
            may_purge(self.database)
            self.vectors.delete(self._active_index(now).id, now.id, older_than=version)
        # A job repeated after its commit no longer knows which version answered before: it looks at all of them.
        before = document.indexed_version
        for old in range(before if before and before != version else 1, version):
            self.blobs.delete(owner(document.id, old))

    def _discard(self, job: Job, now: Document | None) -> None:
        """Remove what this job, now or before it was killed, wrote of a version that was deleted or replaced meanwhile:
        whoever purged it may have been done before.
        """
        may_purge(self.database)
        document_id, version = job.document_id or "", job.version or 0
        if now is not None:
            with self.database.read() as connection:
                indexes = collections.all_indexes(connection, now.collection_id)
            for index in indexes:
                with contextlib.suppress(NotFound):
                    self.vectors.delete(index, document_id, only=version)
        self.blobs.delete(owner(document_id, version))

    def _clean_up_after(self, job: Job, document: Document) -> None:
        """Overtaken between its commit and its clean-up: the one that came after does not know what came before."""
        if job.fence > 1 and job.version != document.indexed_version:
            self._discard(job, document)
        if job.fence > 1 and job.version is not None and (document.indexed_version or 0) >= job.version > 1:
            may_purge(self.database)
            for old in range(1, job.version):
                self.blobs.delete(owner(document.id, old))

    def _active_index(self, document: Document) -> IndexVersion:
        with self.database.read() as connection:
            return collections.active_index(connection, document.collection_id)
