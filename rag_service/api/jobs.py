"""Jobs: what the service is doing, how far it is, and how it ended."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from rag_service.api.auth import Ingester, Manager
from rag_service.api.schemas import After, Failure, Id, Limit, Listing, Service
from rag_service.api.strict import StrictRoute
from rag_service.db import Connection, jobs, sources
from rag_service.db.jobs import Job
from rag_service.ingest import cancellation, notices
from rag_service.types import JobKind, JobState

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=StrictRoute)

_SETTLED = (JobState.SUCCEEDED, JobState.COMPLETED_WITH_ERRORS)


class Counters(BaseModel):
    """Documents of a sync or a re-index, by what became of them."""

    scanned: int = 0
    new: int = 0
    modified: int = 0
    metadata_modified: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0


class Progress(BaseModel):
    """`total` may still grow while a source is being listed."""

    done: int
    total: int
    percent: float


class Retried(BaseModel):
    """A former life of a job: it had given up with `was`, until somebody retried it."""

    at: datetime
    was: Failure | None
    attempts: int
    worker_deaths: int


class JobRecord(BaseModel):
    """`failures` counts the `attempts` by class of error. Workers that died holding the job are counted apart."""

    id: str
    kind: JobKind
    state: JobState
    counters: Counters
    stages_ms: dict[str, float] = Field(
        description="Milliseconds per stage; for a sync or a re-index the sum over its documents, which only "
        "GET /v1/jobs/{id} gives."
    )
    progress: Progress
    error: Failure | None
    attempts: int
    failures: dict[str, int]
    worker_deaths: int
    next_attempt_at: datetime | None = Field(description="When a job that waits for another attempt gets it.")
    retried: list[Retried]
    cancel_requested: bool
    source_id: str | None
    document_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


_Text: TypeAlias = Annotated[str | None, Query(max_length=100)]


@router.get("")
def list_jobs(
    service: Service,
    caller: Ingester,
    *,
    state: JobState | None = None,
    kind: JobKind | None = None,
    source: _Text = None,
    document: _Text = None,
    limit: Limit = 50,
    after: After = None,
) -> Listing[JobRecord]:
    """List the team's jobs, newest first. `source` and `document` are ids."""
    narrowing = jobs.JobFilter(state, kind, source, document)
    with service.database.read() as connection:
        sources.check_known(connection, caller.team, source)
        page = jobs.page(connection, caller.team, narrowing, limit=limit, after=after)
        return Listing[JobRecord].of(page, lambda job: _record(connection, job))


@router.get("/{job_id}")
def get_job(service: Service, caller: Ingester, job_id: Id) -> JobRecord:
    """One job with its counters, progress and milliseconds per stage."""
    with service.database.read() as connection:
        job = jobs.get(connection, caller.team, job_id)
        record = _record(connection, job)
        if job.kind.has_children:
            record.stages_ms = {**record.stages_ms, **jobs.stages_of_children(connection, job.id)}
    return record


@router.post("/{job_id}/cancel", status_code=202)
def cancel_job(service: Service, caller: Manager, job_id: Id) -> JobRecord:
    """Cancel a job: at once if it waits, at its next step if it runs. One that has ended stays as it is.

    So may syncs, re-indexings, builds, probes and the indexing of a document, which is failed then. What carries out
    a write that was acknowledged (remove, refresh, calibrate, deliver) is refused with 409, and goes on.
    """
    with service.database.transaction() as transaction:
        before = jobs.get(transaction.connection, caller.team, job_id)
        job = cancellation.cancel(transaction, caller.team, job_id)
        if job.kind == JobKind.SYNC and job.state == JobState.CANCELED != before.state:
            notices.sync_finished(transaction, job, job.state)
        if job != before:
            transaction.audit("job.canceled", job.id, team=caller.team, kind=job.kind.value)
        return _record(transaction.connection, job)


def _record(connection: Connection, job: Job) -> JobRecord:
    children = jobs.children(connection, job.id) if job.kind.has_children else {}
    return JobRecord(
        id=job.id,
        kind=job.kind,
        state=job.state,
        counters=_counters(job, children),
        stages_ms=dict(job.stages_ms),
        progress=_progress(job, children),
        error=Failure.of(job.error),
        attempts=job.attempts,
        failures=dict(job.failures),
        worker_deaths=job.worker_deaths,
        next_attempt_at=job.run_after if job.state == JobState.QUEUED and job.error else None,
        retried=[Retried.model_validate(dict(life)) for life in job.retried],
        cancel_requested=job.cancel_requested,
        source_id=job.source_id,
        document_id=job.document_id,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
    )


def _counters(job: Job, children: dict[JobState, int]) -> Counters:
    counted = Counters.model_validate({name: job.counters.get(name, 0) for name in Counters.model_fields})
    if job.state not in _SETTLED:
        # A job adds up its children's failures when it is settled.
        counted.failed += children.get(JobState.FAILED, 0)
    return counted


def _progress(job: Job, children: dict[JobState, int]) -> Progress:
    if not job.kind.has_children:
        done = int(job.state.is_final)
        return Progress(done=done, total=1, percent=100.0 * done)
    scanned = int(job.counters.get("scanned", 0))
    total = max(job.total or 0, scanned)
    waiting = sum(count for state, count in children.items() if not state.is_final)
    done = max(0, scanned - waiting)
    finished = job.state in _SETTLED
    percent = 100.0 if finished else round(100.0 * done / total, 1) if total else 0.0
    return Progress(done=total if finished else done, total=total, percent=percent)
