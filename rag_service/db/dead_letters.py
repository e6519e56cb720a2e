"""Dead letters: jobs that gave up, with their diagnosis, until somebody retries or discards them.

A letter is no copy: it is the failed job itself, `letter` being `open`. Discarded letters, and those that newer work
made pointless, stay as failed jobs and are listed no more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, select, update

from rag_service.db.jobs import OPEN_LETTER, Job, job_of
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import jobs
from rag_service.types import JobKind, JobState, utc_now

DISCARDED = "discarded"
SUPERSEDED = "superseded"
# Former lives that a job remembers.
_REMEMBERED = 10

_IS_OPEN = and_(jobs.c.letter == OPEN_LETTER, jobs.c.state == JobState.FAILED)


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which letters; None means any. `ids` are those of the jobs, `source_id` also finds a source's documents."""

    ids: Sequence[str] | None = None
    team_id: str | None = None
    kind: JobKind | None = None
    error_class: str | None = None
    code: str | None = None
    source_id: str | None = None
    document_id: str | None = None


def page(connection: Connection, narrowing: LetterFilter, *, limit: int, after: str | None) -> Page[Job]:
    """Open letters, newest job first."""
    return fetch_page(connection, _open(narrowing), jobs, job_of, limit=limit, after=after)


def some(connection: Connection, narrowing: LetterFilter, *, before: datetime, limit: int) -> list[Job]:
    """Some of the letters that were open at `before`, oldest job first."""
    query = _open(narrowing).where(jobs.c.finished_at <= before).order_by(jobs.c.id).limit(limit)
    return [job_of(row) for row in connection.execute(query)]


def revive(connection: Connection, job: Job, payload: Mapping[str, Any]) -> bool:
    """Queue the job as if it were new; what it had given up with stays in `retried`. False: it is no open letter.

    It is rung for by the next sweep: a thousand retried at once shall not be ahead of all that comes after them.
    """
    now = utc_now()
    former = {"at": now.isoformat(), "was": job.error, "attempts": job.attempts, "worker_deaths": job.worker_deaths}
    again = {
        "state": JobState.QUEUED,
        "payload": dict(payload),
        "counters": {},
        "error": None,
        "letter": None,
        "attempts": 0,
        "failures": {},
        "worker_deaths": 0,
        "listed": False,
        "cancel_requested": False,
        "finished_at": None,
        "run_after": now,
        "rung_at": None,
        "retried": [*job.retried, {**former, "failures": dict(job.failures)}][-_REMEMBERED:],
    }
    changed = connection.execute(update(jobs).where(jobs.c.id == job.id, _IS_OPEN).values(**again))
    return bool(changed.rowcount)


def close(connection: Connection, job: Job, letter: str) -> bool:
    """Mark an open letter as discarded or superseded."""
    changed = connection.execute(update(jobs).where(jobs.c.id == job.id, _IS_OPEN).values(letter=letter))
    return bool(changed.rowcount)


def supersede(connection: Connection, document_id: str) -> None:
    """The document is being indexed anew: that an earlier attempt gave up is of no use to anybody."""
    mine = and_(jobs.c.document_id == document_id, jobs.c.kind == JobKind.INDEX)
    connection.execute(update(jobs).where(mine, _IS_OPEN).values(letter=SUPERSEDED))


def supersede_syncs(connection: Connection, source_id: str) -> None:
    """The source is being read anew, or is gone."""
    mine = and_(jobs.c.source_id == source_id, jobs.c.kind == JobKind.SYNC)
    connection.execute(update(jobs).where(mine, _IS_OPEN).values(letter=SUPERSEDED))


def supersede_builds(connection: Connection, index: str) -> None:
    """Somebody goes on building the index version, or wants it no more."""
    mine = and_(jobs.c.payload["index"].as_string() == index, jobs.c.kind == JobKind.BUILD)
    connection.execute(update(jobs).where(mine, _IS_OPEN).values(letter=SUPERSEDED))


def discard_of_documents(connection: Connection, document_ids: Sequence[str]) -> None:
    """Their documents are deleted. A removal that gave up stays: there is something left to remove."""
    theirs = and_(jobs.c.document_id.in_(document_ids), jobs.c.kind != JobKind.REMOVE)
    connection.execute(update(jobs).where(theirs, _IS_OPEN).values(letter=DISCARDED))


def _open(narrowing: LetterFilter) -> Select[Any]:
    query = select(jobs).where(_IS_OPEN)
    if narrowing.ids is not None:
        query = query.where(jobs.c.id.in_(narrowing.ids))
    for column in ("team_id", "kind", "source_id", "document_id"):
        if (value := getattr(narrowing, column)) is not None:
            query = query.where(jobs.c[column] == value)
    for name in ("error_class", "code"):
        if (value := getattr(narrowing, name)) is not None:
            query = query.where(_says(name) == value)
    return query


def _says(name: str) -> ColumnElement[str]:
    said: ColumnElement[str] = jobs.c.error[name].as_string()
    return said
