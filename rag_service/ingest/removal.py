"""Deletion: hidden by one commit, then purged from vectors, chunks and blobs; what stays is a tombstone of ids."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from rag_service.blobs import BlobStore
from rag_service.db import Database, chunks, collections, documents, jobs, query_sets, sources
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.db.sources import Source
from rag_service.errors import NotFound
from rag_service.ingest import audit_trail, notices
from rag_service.ingest.blob_names import owner
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.hold import may_purge
from rag_service.types import Collection, JobKind
from rag_service.vectors.base import VectorStore

_SLICE = 200


@dataclass(frozen=True)
class Removal:
    database: Database
    blobs: BlobStore
    vectors: VectorStore
    doorbell: Doorbell

    def document(self, document: Document) -> str:
        """Delete one document; nobody finds it from here on. Returns the id of the job that purges it."""
        with self.database.transaction() as transaction:
            gone = documents.mark_deleted(transaction.connection, document_id=document.id)
            documents.record(transaction.connection, document.id, document.version, "deleted")
            before = audit_trail.acl_of(document.acl)
            transaction.audit("document.deleted", document.id, team=document.team_id, before=before)
            notices.deleted(transaction, document.team_id, gone)
            return self.enqueue(transaction, document.team_id, document_id=document.id, version=document.version)

    def source(self, source: Source, *, keep_documents: bool) -> str | None:
        """Delete a source, and its documents unless they are to be kept (as uploads then, its ACL being theirs)."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            source = sources.get(connection, source.team_id, source.id, held=True)
            if keep_documents:
                self._release(transaction, source)
            _remove(transaction, source)
            before = {**audit_trail.acl_of(source.acl), "name": source.name}
            transaction.audit(
                "source.deleted", source.id, team=source.team_id, before=before, documents_kept=keep_documents
            )
            if keep_documents:
                return None
            gone = documents.mark_deleted(connection, source_id=source.id)
            audit_trail.removed(transaction, source.team_id, source.id, gone)
            notices.deleted(transaction, source.team_id, gone)
            return self.enqueue(transaction, source.team_id, source_id=source.id)

    def _release(self, transaction: Transaction, source: Source) -> None:
        for kept in documents.release(transaction.connection, source.id, source.acl):
            documents.record(transaction.connection, kept.id, kept.version, "fields_changed")
            if kept.indexed_version is not None:
                # Points name the source.
                self.doorbell.add(
                    transaction, JobKind.REFRESH, kept.team_id, bulk=True, document_id=kept.id, version=kept.version
                )

    def collection(self, collection: Collection) -> str:
        """Delete a collection with its sources, documents and indexes."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            for source in sources.of_collection(connection, collection.id):
                _remove(transaction, source)
            gone = documents.mark_deleted(connection, collection_id=collection.id)
            before = {"name": collection.name}
            transaction.audit("collection.deleted", collection.id, team=collection.team_id, before=before)
            audit_trail.removed(transaction, collection.team_id, collection.id, gone)
            query_sets.remove_of_collection(connection, collection.id)
            notices.deleted(transaction, collection.team_id, gone)
            indexes = collections.remove(connection, collection.id)
            return self.enqueue(transaction, collection.team_id, collection_id=collection.id, indexes=indexes)

    def enqueue(
        self,
        transaction: Transaction,
        team_id: str,
        *,
        document_id: str | None = None,
        version: int | None = None,
        source_id: str | None = None,
        collection_id: str | None = None,
        indexes: list[str] | None = None,
        parent_id: str | None = None,
    ) -> str:
        return self.doorbell.add(
            transaction,
            JobKind.REMOVE,
            team_id,
            document_id=document_id,
            version=version,
            source_id=source_id,
            parent_id=parent_id,
            payload={"collection_id": collection_id, "indexes": indexes or []},
        )

    def run(self, job: Job) -> None:
        """Purge what the job names, of a document up to the version that was deleted. May be repeated.

        A document that has come back keeps its new version, also where that one cannot be indexed. Raises PutOffError.
        """
        may_purge(self.database)
        for index in job.payload["indexes"]:
            self.vectors.drop(index)
        if job.document_id is not None:
            while not self._purge_one(job, job.document_id):
                pass  # it has been changed meanwhile: it is still deleted, or has come back
            return
        while gone := self._next(job):
            for document in gone:
                self._purge(document, document.version)

    def _purge_one(self, job: Job, document_id: str) -> bool:
        with self.database.read() as connection:
            document = documents.load(connection, document_id)
        if document is None or not (document.is_deleted or job.version is not None):
            return True
        return self._purge(document, document.version if document.is_deleted else job.version or 0)

    def _next(self, job: Job) -> list[Document]:
        with self.database.read() as connection:
            return documents.unpurged(connection, job.source_id, job.payload["collection_id"], _SLICE)

    def _purge(self, document: Document, version: int) -> bool:
        """Erase the document's versions up to `version`. False when it was changed meanwhile: look again."""
        may_purge(self.database)
        with self.database.read() as connection:
            indexes = collections.all_indexes(connection, document.collection_id)
        for index in indexes:
            # One that is dropped meanwhile, or not made yet, holds nothing of it.
            with contextlib.suppress(NotFound):
                self.vectors.delete(index, document.id, older_than=version + 1)
        for old in range(1, version + 1):
            self.blobs.delete(owner(document.id, old))
        with self.database.transaction() as transaction:
            chunks.forget(transaction.connection, document.id, up_to=version)
            return not document.is_deleted or documents.mark_purged(transaction.connection, document)


def _remove(transaction: Transaction, source: Source) -> None:
    """A sync that waits is over with it; one that runs stops before it writes again."""
    for job in jobs.cancel_waiting_syncs(transaction.connection, source.id):
        notices.sync_finished(transaction, job, job.state)
    sources.remove(transaction.connection, source.id)
