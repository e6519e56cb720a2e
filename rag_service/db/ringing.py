"""Which jobs are rung for, and when: at most so many of one team's at a time, so that no team stands in another's way.

Messages wait in the broker in the order in which they were sent. A sync of 100,000 documents that rang for each at once
would be ahead of all that comes after it. So a job is rung for when there is room for its team in its queue; otherwise
it waits here, and is rung for as the team's earlier jobs end. What is in the broker is then a mixture of all teams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain, zip_longest
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, func, or_, select, update

from rag_service.db.tables import IS_OUT, IS_WAITING, jobs
from rag_service.types import JobKind, JobState, Queue, utc_now

_SLICE = 500

# Asked for every job: made once.
_MINE = and_(jobs.c.team_id == bindparam("team"), jobs.c.queue == bindparam("queue"))
_OUT = select(func.count()).select_from(jobs).where(_MINE, IS_OUT)
_WAITING = select(jobs.c.id).where(_MINE, IS_WAITING).limit(1)


@dataclass(frozen=True, slots=True)
class Bell:
    """What is sent to a queue: which job to look at, and nothing of what it is about."""

    queue: Queue
    kind: JobKind
    job_id: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How many jobs of one team are rung for at a time in each queue; syncs, which are long, apart."""

    jobs: int
    syncs: int

    def of(self, queue: Queue) -> int:
        return self.syncs if queue == Queue.SYNCS else self.jobs


def room(connection: Connection, team_id: str, queue: Queue, limits: Limits) -> int:
    """How many more jobs of this team may be rung for; two who ask at once may both be told the same."""
    out = connection.execute(_OUT, {"team": team_id, "queue": queue}).scalar_one()
    return max(0, limits.of(queue) - int(out))


def take(connection: Connection, team_id: str, queue: Queue, count: int) -> list[Bell]:
    """Up to `count` waiting jobs that are due, oldest first, noted as rung for. Nobody else is given the same.

    Those that workers died with come last: whichever of them is to blame, its neighbours are done before it.
    """
    now = utc_now()
    due = (
        select(jobs.c.id)
        .where(jobs.c.team_id == team_id, jobs.c.queue == queue, IS_WAITING, jobs.c.run_after <= now)
        .order_by(jobs.c.worker_deaths, jobs.c.run_after, jobs.c.id)
        .limit(count)
        .with_for_update(skip_locked=True)
    )
    rung = connection.execute(
        update(jobs)
        .where(jobs.c.id.in_(due))
        .values(rung_at=now)
        .returning(jobs.c.queue, jobs.c.kind, jobs.c.id, jobs.c.worker_deaths, jobs.c.run_after)
    )
    return [_bell(row) for row in sorted(rung, key=lambda row: (row.worker_deaths, row.run_after, row.id))]


def follow(connection: Connection, team_id: str, queue: Queue, limits: Limits) -> list[Bell]:
    """What is to be rung for now that a job of the team has ended: nothing while most of the room is taken.

    Refilled by quarters, because each refill is a transaction.
    """
    free = room(connection, team_id, queue, limits)
    return take(connection, team_id, queue, free) if free >= max(1, limits.of(queue) // 4) else []


def is_anything_waiting(connection: Connection, team_id: str, queue: Queue) -> bool:
    return connection.execute(_WAITING, {"team": team_id, "queue": queue}).first() is not None


def fill(connection: Connection, limits: Limits) -> list[Bell]:
    """Ring for every team's waiting jobs as far as there is room, the teams by turns."""
    waiting = select(jobs.c.team_id, jobs.c.queue).where(IS_WAITING, jobs.c.run_after <= utc_now()).distinct()
    taken = []
    for row in connection.execute(waiting).all():
        queue = Queue(row.queue)
        taken.append(take(connection, row.team_id, queue, room(connection, row.team_id, queue, limits)))
    return [bell for bell in chain.from_iterable(zip_longest(*taken)) if bell is not None]


def lost(connection: Connection, *, silent_for_s: float, limit: int) -> list[Bell]:
    """Jobs whose message seems lost or whose worker fell silent, oldest first; noted as rung for now."""
    now = utc_now()
    unanswered = and_(jobs.c.state == JobState.QUEUED, jobs.c.rung_at <= now - timedelta(seconds=silent_for_s))
    expired = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < now)
    query: Select[Any] = (
        select(jobs.c.queue, jobs.c.kind, jobs.c.id)
        .where(or_(and_(unanswered, jobs.c.run_after <= now), expired))
        .order_by(jobs.c.worker_deaths, jobs.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    bells = [_bell(row) for row in connection.execute(query)]
    _note_rung(connection, [bell.job_id for bell in bells])
    return bells


def forget_all(connection: Connection) -> None:
    """Every message is lost, as after the end of a process that kept them in memory: all that is queued waits again."""
    connection.execute(update(jobs).where(jobs.c.state == JobState.QUEUED).values(rung_at=None))


def forget(connection: Connection, job_id: str) -> None:
    """The message of this job was not answered."""
    mine = and_(jobs.c.id == job_id, jobs.c.state == JobState.QUEUED)
    connection.execute(update(jobs).where(mine).values(rung_at=None))


def _note_rung(connection: Connection, job_ids: Sequence[str]) -> None:
    for start in range(0, len(job_ids), _SLICE):
        part = job_ids[start : start + _SLICE]
        connection.execute(update(jobs).where(jobs.c.id.in_(part)).values(rung_at=utc_now()))


def _bell(row: Row[Any]) -> Bell:
    return Bell(Queue(row.queue), JobKind(row.kind), str(row.id))
