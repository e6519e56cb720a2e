"""Cancelling work that somebody wished for, and what becomes of the documents that nobody carries then."""

from __future__ import annotations

from collections.abc import Sequence

from rag_service.db import Transaction, jobs, stranded
from rag_service.db.jobs import Job
from rag_service.ingest import notices
from rag_service.types import DocumentFailure, JobKind

CANCELED = "canceled"
_FAILURE = DocumentFailure(
    stage=JobKind.INDEX,
    code=CANCELED,
    message="Its job was canceled before this version was indexed.",
    retryable=True,
)


def cancel(transaction: Transaction, team_id: str, job_id: str) -> Job:
    """Cancel a job as `jobs.cancel` does; the documents that waited for it have ended. Raises NotFound, Conflict."""
    abandon(transaction, team_id, jobs.cancel(transaction.connection, team_id, job_id))
    return jobs.get(transaction.connection, team_id, job_id)


def abandon(transaction: Transaction, team_id: str, document_ids: Sequence[str]) -> None:
    """The jobs of these documents ended without a result: those that no other job carries have ended too."""
    failed = stranded.end(transaction.connection, document_ids, _FAILURE)
    if failed:
        notices.failed(transaction, team_id, failed, _FAILURE)
