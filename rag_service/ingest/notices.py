"""What webhooks are told of documents and sources: ids, names, versions, counters and codes; no texts, no metadata.

Each is called in the transaction that makes it true. What is told is only looked up where somebody wants to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rag_service.db import Connection, Transaction, jobs, outbox, sources
from rag_service.db.documents import Document
from rag_service.db.jobs import Job
from rag_service.db.outbox import emit_all
from rag_service.db.sources import Source
from rag_service.errors import NotFound
from rag_service.types import DocumentFailure, EventType, JobKind, JobState


def ready(transaction: Transaction, document: Document, version: int, chunks: int) -> None:
    """This version of the document answers from here on."""

    def told() -> Sequence[Mapping[str, Any]]:
        return [{**_named(document), "version": version, "chunks": chunks}]

    emit_all(transaction, EventType.DOCUMENT_READY, document.team_id, told)


def failed(transaction: Transaction, team_id: str, document_ids: Sequence[str], failure: DocumentFailure) -> None:
    """These documents gave up, or could not be fetched."""

    def told() -> Sequence[Mapping[str, Any]]:
        found = outbox.documents_told(transaction.connection, document_ids)
        return [{**one, "error": _why(failure)} for one in found]

    emit_all(transaction, EventType.DOCUMENT_FAILED, team_id, told)


def deleted(transaction: Transaction, team_id: str, document_ids: Sequence[str]) -> None:
    """Nobody finds these documents from here on."""
    connection = transaction.connection
    emit_all(transaction, EventType.DOCUMENT_DELETED, team_id, lambda: outbox.documents_told(connection, document_ids))


def settle(transaction: Transaction, parent_id: str | None = None) -> None:
    """End jobs whose children are all through, see `jobs.settle_parent`, and tell of the syncs among them."""
    for job in jobs.settle_parent(transaction.connection, parent_id):
        if job.kind == JobKind.SYNC:
            sync_finished(transaction, job, job.state)


def sync_finished(transaction: Transaction, job: Job, state: JobState) -> None:
    """This sync is over, one way or another."""

    def told() -> Sequence[Mapping[str, Any]]:
        return [{**_of_source(transaction.connection, job), "state": state, "counters": dict(job.counters)}]

    emit_all(transaction, EventType.SYNC_FINISHED, job.team_id, told)


def degraded(transaction: Transaction, job: Job, failure: DocumentFailure, *, gave_up: bool) -> None:
    """A source refuses our credentials, or a sync of it gave up."""

    def told() -> Sequence[Mapping[str, Any]]:
        return [{**_of_source(transaction.connection, job), "error": _why(failure), "gave_up": gave_up}]

    emit_all(transaction, EventType.SOURCE_DEGRADED, job.team_id, told)


def held(transaction: Transaction, source: Source, job: Job, unseen: int, total: int) -> None:
    """So many documents are gone from the source that nothing is deleted until somebody confirms it."""

    def told() -> Sequence[Mapping[str, Any]]:
        counted = {"held": unseen, "documents": total, "max_percent": source.max_deleted_percent}
        return [{"source_id": source.id, "source": source.name, "job_id": job.id, **counted}]

    emit_all(transaction, EventType.DELETION_HELD, source.team_id, told)


def _named(document: Document) -> dict[str, Any]:
    return {
        "document_id": document.id,
        "external_id": document.external_id,
        "collection_id": document.collection_id,
        "source_id": document.source_id or None,
    }


def _of_source(connection: Connection, job: Job) -> dict[str, Any]:
    try:
        name = sources.get(connection, job.team_id, job.source_id or "").name
    except NotFound:
        name = None  # deleted meanwhile
    return {"source_id": job.source_id, "source": name, "job_id": job.id}


def _why(failure: DocumentFailure) -> dict[str, Any]:
    """Without its message, which may quote a name or a text."""
    return {
        "stage": failure.stage,
        "code": failure.code,
        "error_class": failure.error_class,
        "retryable": failure.retryable,
    }
