"""How long work took lately, and how large it was: what estimates of work to come are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from rag_service.db.tables import jobs
from rag_service.types import JobKind, JobState, Queue


@dataclass(frozen=True, slots=True)
class Ran:
    """A job that succeeded at its first attempt: milliseconds by stage, sizes by name, and when it was held."""

    queue: Queue
    from_stage: str | None
    stages_ms: Mapping[str, float]
    sizes: Mapping[str, int]
    began: datetime
    ended: datetime


def lately(connection: Connection, kind: JobKind, limit: int) -> list[Ran]:
    """The newest jobs of a kind, of all teams."""
    query = (
        select(jobs.c.queue, jobs.c.payload, jobs.c.stages_ms, jobs.c.counters, jobs.c.started_at, jobs.c.finished_at)
        .where(jobs.c.state == JobState.SUCCEEDED, jobs.c.kind == kind)
        .where(jobs.c.attempts == 0, jobs.c.worker_deaths == 0, jobs.c.started_at.is_not(None))
        .order_by(jobs.c.created_at.desc())
        .limit(limit)
    )
    return [
        Ran(Queue(row.queue), row.payload.get("from"), row.stages_ms, row.counters, row.started_at, row.finished_at)
        for row in connection.execute(query)
    ]
