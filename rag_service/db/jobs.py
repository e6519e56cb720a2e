"""Jobs: rows of work. A job belongs to whoever holds its lease; the fence tells an old holder from the present one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, and_, bindparam, case, func, insert, or_, select, update

from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import jobs, sources
from rag_service.errors import Conflict, NotFound
from rag_service.observe.context import carried
from rag_service.types import JobKind, JobState, Queue, new_id, utc_now

_OPEN = (JobState.QUEUED, JobState.RUNNING)
_CANCELABLE = [kind for kind in JobKind if kind.may_be_canceled]
OPEN_LETTER = "open"
# Failures that a job remembers one by one; older ones are counted only.
_REMEMBERED = 20

# Run once or more for every document: made once, for making them anew takes longer than what the database does.
_EXPIRED = and_(jobs.c.state == JobState.RUNNING, jobs.c.lease_until < bindparam("now"))
_DUE = and_(jobs.c.state == JobState.QUEUED, jobs.c.run_after <= bindparam("now"))
_CLAIMED = (
    update(jobs)
    .where(jobs.c.id == bindparam("job"), or_(_DUE, _EXPIRED))
    .values(
        state=JobState.RUNNING,
        fence=jobs.c.fence + 1,
        worker_deaths=jobs.c.worker_deaths + case((_EXPIRED, 1), else_=0),
        lease_until=bindparam("until"),
        former_worker=jobs.c.worker,
        worker=bindparam("by"),
        rung_at=func.coalesce(jobs.c.rung_at, bindparam("now")),
        started_at=func.coalesce(jobs.c.started_at, bindparam("now")),
    )
    .returning(*jobs.c)
)
_PARENT = jobs.alias("parent")
_THROUGH = select(_PARENT.c.id, _PARENT.c.parent_id, _PARENT.c.counters).where(
    _PARENT.c.state == JobState.RUNNING,
    _PARENT.c.listed.is_(True),
    ~select(jobs.c.id).where(jobs.c.parent_id == _PARENT.c.id, jobs.c.state.in_(_OPEN)).exists(),
)
_THROUGH_ONE = _THROUGH.where(_PARENT.c.id == bindparam("of"))
_OWN = select(jobs).where(jobs.c.id == bindparam("job"), jobs.c.team_id == bindparam("team"))
_HELD = and_(jobs.c.id == bindparam("held"), jobs.c.fence == bindparam("held_since"), jobs.c.state == JobState.RUNNING)
_IS_HELD = select(jobs.c.id).where(_HELD)
_AS_HELD = select(jobs).where(_HELD)
_SET = update(jobs).where(_HELD)
# A sync that has listed everything waits for its documents, and is held by nobody.
_SET_AT_WORK = _SET.where(jobs.c.listed.is_(False))
_TURN = select(sources.c.listing).where(sources.c.id == bindparam("source")).with_for_update()


@dataclass(frozen=True, slots=True)
class Job:
    """`listed`: a sync whose listing is done and that waits for its documents. `fence` grows with every claim.

    `failures` counts by error class what `attempts` sums up; both begin anew when a sync gets on. Deaths of workers are
    counted apart. `history` tells the newest of either, with times; `retried` what a former life ended with.
    `origin` names the request and the trace that it follows from.
    """

    id: str
    team_id: str
    kind: JobKind
    queue: Queue
    state: JobState
    parent_id: str | None
    source_id: str | None
    document_id: str | None
    version: int | None
    payload: Mapping[str, Any]
    counters: Mapping[str, int]
    stages_ms: Mapping[str, float]
    total: int | None
    listed: bool
    error: Mapping[str, Any] | None
    fence: int
    attempts: int
    failures: Mapping[str, int]
    worker_deaths: int
    history: Sequence[Mapping[str, Any]]
    retried: Sequence[Mapping[str, Any]]
    letter: str | None
    worker: str | None
    former_worker: str | None
    cancel_requested: bool
    lease_until: datetime | None
    run_after: datetime
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    origin: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class JobFilter:
    state: JobState | None = None
    kind: JobKind | None = None
    source_id: str | None = None
    document_id: str | None = None


def add(
    connection: Connection,
    kind: JobKind,
    team_id: str,
    *,
    queue: Queue = Queue.UPLOADS,
    rung: bool = True,
    source_id: str | None = None,
    document_id: str | None = None,
    version: int | None = None,
    parent_id: str | None = None,
    payload: Mapping[str, Any] | None = None,
) -> str:
    """Queue a job; returns its id. `rung`: it will be rung for after the commit; otherwise it waits for its turn."""
    now = utc_now()
    job_id = new_id("job")
    connection.execute(
        insert(jobs),
        {
            "id": job_id,
            "team_id": team_id,
            "kind": kind,
            "queue": queue,
            "state": JobState.QUEUED,
            "source_id": source_id,
            "document_id": document_id,
            "version": version,
            "parent_id": parent_id,
            "payload": dict(payload or {}),
            "counters": {},
            "stages_ms": {},
            "origin": carried(),
            "run_after": now,
            "rung_at": now if rung else None,
            "created_at": now,
        },
    )
    return job_id


def claim(connection: Connection, job_id: str, lease_s: float, worker: str = "") -> Job | None:
    """Take a job that is due, or whose holder fell silent. None: somebody has it, or it is done, or not due yet."""
    now = utc_now()
    until = now + timedelta(seconds=lease_s)
    row = connection.execute(_CLAIMED, {"job": job_id, "now": now, "until": until, "by": worker}).first()
    if row is None:
        return None
    job = job_of(row)
    return job if job.former_worker is None else _note_death(connection, job)


def _note_death(connection: Connection, job: Job) -> Job:
    """Its former holder never let go of it: put that on record."""
    died = {"error_class": "worker", "code": "worker_died", "worker": job.former_worker}
    noted = replace(job, history=_remembered(job, died))
    _set(connection, job, {"history": noted.history})
    return noted


def renew(connection: Connection, held: Mapping[str, int], lease_s: float) -> None:
    """Prolong the leases of jobs held, given as id -> fence."""
    until = utc_now() + timedelta(seconds=lease_s)
    for job_id, fence in held.items():
        connection.execute(_SET_AT_WORK, {"lease_until": until, **_holder(job_id, fence)})


def is_held(connection: Connection, job: Job) -> bool:
    """Whether the job is still this holder's. A holder that lost it must not write any more."""
    return connection.execute(_IS_HELD, _holder(job.id, job.fence)).first() is not None


def if_held(connection: Connection, job: Job) -> Job | None:
    """The job as it is now, if it is still this holder's."""
    row = connection.execute(_AS_HELD, _holder(job.id, job.fence)).first()
    return None if row is None else job_of(row)


def finish(
    connection: Connection,
    job: Job,
    state: JobState,
    *,
    error: Mapping[str, Any] | None = None,
    stages_ms: Mapping[str, float] | None = None,
    counters: Mapping[str, int] | None = None,
) -> bool:
    """End a job, if it is still this holder's."""
    values: dict[str, Any] = {"state": state, "finished_at": utc_now(), "error": error, **_LET_GO}
    if counters:
        values["counters"] = dict(counters)
    if state == JobState.FAILED:
        values |= {"letter": OPEN_LETTER, **_failed(job, error or {})}
    if stages_ms is not None:
        values["stages_ms"] = {stage: round(spent, 2) for stage, spent in stages_ms.items()}
    return _set(connection, job, values)


def retry(connection: Connection, job: Job, error: Mapping[str, Any], after_s: float) -> bool:
    """Put a job back, to be run again after `after_s` seconds."""
    later = utc_now() + timedelta(seconds=after_s)
    values = {"state": JobState.QUEUED, "run_after": later, "rung_at": None, "error": error}
    return _set(connection, job, {**values, **_LET_GO, **_failed(job, error, again_at=later)})


def proceed(connection: Connection, job: Job, *, progress: bool = True, **values: Any) -> bool:
    """Note counters, total, payload or listed of a running job.

    With `progress` it got further than ever before: what it failed and its workers died of is behind it.
    """
    forgiven = {"worker_deaths": 0, "attempts": 0, "failures": {}} if progress else {}
    return _set(connection, job, {**forgiven, **values})


def hand_back(connection: Connection, job: Job) -> bool:
    """Queue a job again at once, its next slice for whoever comes; not a failure. Its message is on the way."""
    now = utc_now()
    values = {"state": JobState.QUEUED, "run_after": now, "rung_at": now}
    return _set(connection, job, {**values, **_LET_GO})


def hand_back_all(connection: Connection, held: Mapping[str, int]) -> None:
    """Queue jobs again, given as id -> fence, without a word to anybody: their holder is going down."""
    values = {"state": JobState.QUEUED, "run_after": utc_now(), "rung_at": None, **_LET_GO}
    for job_id, fence in held.items():
        connection.execute(_SET_AT_WORK, {**values, **_holder(job_id, fence)})


def put_off(connection: Connection, job: Job, after_s: float) -> bool:
    """Queue a job again for later; not a failure."""
    later = utc_now() + timedelta(seconds=after_s)
    return _set(connection, job, {"state": JobState.QUEUED, "run_after": later, "rung_at": None, **_LET_GO})


def requeue_running(connection: Connection) -> None:
    """In a snapshot: nobody runs the jobs that ran when it was taken, and nobody died with them."""
    running = (jobs.c.state == JobState.RUNNING) & jobs.c.lease_until.is_not(None)
    again = {"state": JobState.QUEUED, "run_after": utc_now(), "rung_at": None, **_LET_GO}
    connection.execute(update(jobs).where(running).values(**again))


def release_all(connection: Connection) -> None:
    """At the start of the only worker process there is: whatever ran has died with the one before."""
    connection.execute(
        update(jobs)
        .where(jobs.c.state == JobState.RUNNING, jobs.c.lease_until.is_not(None))
        .values(state=JobState.QUEUED, lease_until=None, worker_deaths=jobs.c.worker_deaths + 1, run_after=utc_now())
    )


def settle_parent(connection: Connection, parent_id: str | None = None) -> list[Job]:
    """End jobs whose listing is done and whose children are all through: one, or all there are. Returns them."""
    ended = []
    through = connection.execute(_THROUGH) if parent_id is None else connection.execute(_THROUGH_ONE, {"of": parent_id})
    for row in through.all():
        failed = int(row.counters.get("failed", 0)) + _failures(children(connection, row.id))
        state = JobState.COMPLETED_WITH_ERRORS if failed else JobState.SUCCEEDED
        settled = connection.execute(
            update(jobs)
            .where(jobs.c.id == row.id, jobs.c.state == JobState.RUNNING)
            .values(state=state, finished_at=utc_now(), counters={**row.counters, "failed": failed})
            .returning(*jobs.c)
        )
        ended += [job_of(one) for one in settled]
        if row.parent_id is not None:
            ended += settle_parent(connection, row.parent_id)
    return ended


def _failures(of_children: Mapping[JobState, int]) -> int:
    """Children that failed, in whole or in part."""
    return sum(of_children.get(state, 0) for state in (JobState.FAILED, JobState.COMPLETED_WITH_ERRORS))


def children(connection: Connection, parent_id: str) -> dict[JobState, int]:
    """How many of a job's children are in which state."""
    query = select(jobs.c.state, func.count()).where(jobs.c.parent_id == parent_id).group_by(jobs.c.state)
    return {JobState(state): int(count) for state, count in connection.execute(query)}


def stages_of_children(connection: Connection, parent_id: str) -> dict[str, float]:
    """Milliseconds per stage, summed over a job's children."""
    total: dict[str, float] = {}
    for row in connection.execute(select(jobs.c.stages_ms).where(jobs.c.parent_id == parent_id)):
        for stage, spent in row.stages_ms.items():
            total[stage] = round(total.get(stage, 0.0) + spent, 2)
    return total


def cancel(connection: Connection, team_id: str, job_id: str) -> list[str]:
    """Cancel a queued job at once, ask a running one to stop at its next step; its children likewise.

    Jobs that carry out a commit go on. Returns the documents that were to be indexed. Raises NotFound, Conflict.
    """
    job = get(connection, team_id, job_id)
    if not job.kind.may_be_canceled:
        raise Conflict(
            f"A {job.kind} job carries out what holds already, so it is never canceled. Wait until it ends.",
            code="not_cancelable",
        )
    if job.state.is_final:
        return []
    # Of three generations at most: what re-reads sources, its syncs, their documents.
    syncs = select(jobs.c.id).where(jobs.c.parent_id == job_id, jobs.c.kind == JobKind.SYNC)
    tree = or_(jobs.c.id == job_id, jobs.c.parent_id == job_id, jobs.c.parent_id.in_(syncs))
    mine = and_(tree, jobs.c.kind.in_(_CANCELABLE))
    waiting = or_(jobs.c.state == JobState.QUEUED, and_(jobs.c.state == JobState.RUNNING, jobs.c.listed.is_(True)))
    values = {"state": JobState.CANCELED, "finished_at": utc_now(), **_LET_GO}
    ended = connection.execute(update(jobs).where(mine, waiting).values(**values).returning(jobs.c.document_id)).all()
    connection.execute(update(jobs).where(mine, jobs.c.state == JobState.RUNNING).values(cancel_requested=True))
    return [row.document_id for row in ended if row.document_id is not None]


def get(connection: Connection, team_id: str, job_id: str) -> Job:
    """Raises NotFound, also for another team's."""
    row = connection.execute(_OWN, {"job": job_id, "team": team_id}).first()
    if row is None:
        raise NotFound("There is no such job in this team. `GET /v1/jobs` lists them.")
    return job_of(row)


def page(connection: Connection, team_id: str, narrowing: JobFilter, *, limit: int, after: str | None) -> Page[Job]:
    query = select(jobs).where(jobs.c.team_id == team_id)
    for column in ("state", "kind", "source_id", "document_id"):
        if (value := getattr(narrowing, column)) is not None:
            query = query.where(jobs.c[column] == value)
    return fetch_page(connection, query, jobs, job_of, limit=limit, after=after)


def open_sync(connection: Connection, source_id: str) -> str | None:
    """The sync of this source that is not over yet, if there is one; nobody else starts one before the commit.

    One that has listed all of what the source was before it was changed, and waits for its documents, does not count.
    """
    newest = connection.execute(_TURN, {"source": source_id}).scalar()
    mine = and_(jobs.c.source_id == source_id, jobs.c.kind == JobKind.SYNC, jobs.c.state.in_(_OPEN))
    goes_on = or_(jobs.c.listed.is_(False), jobs.c.payload["listing"].as_integer() == newest)
    query = select(jobs.c.id).where(mine, goes_on).order_by(jobs.c.listed, jobs.c.id)
    return connection.execute(query.limit(1)).scalar()


def cancel_waiting_syncs(connection: Connection, source_id: str) -> list[Job]:
    """Of a source that goes."""
    mine = and_(jobs.c.source_id == source_id, jobs.c.kind == JobKind.SYNC, jobs.c.state == JobState.QUEUED)
    ended = update(jobs).where(mine).values(state=JobState.CANCELED, finished_at=utc_now(), **_LET_GO)
    return [job_of(row) for row in connection.execute(ended.returning(*jobs.c))]


def count_open(connection: Connection, team_id: str | None = None) -> int:
    query = select(func.count()).where(jobs.c.state.in_(_OPEN))
    if team_id is not None:
        query = query.where(jobs.c.team_id == team_id)
    return int(connection.execute(query).scalar_one())


_LET_GO: Mapping[str, None] = {"lease_until": None, "worker": None, "former_worker": None}


def _failed(job: Job, error: Mapping[str, Any], again_at: datetime | None = None) -> dict[str, Any]:
    """What a failed attempt leaves on its job."""
    counted = str(error.get("error_class", "permanent"))
    if error.get("code") == "worker_died":
        return {}  # counted when it was claimed
    entry = {name: error.get(name) for name in ("error_class", "stage", "code", "message")}
    again = {} if again_at is None else {"again_at": again_at.isoformat()}
    return {
        "attempts": job.attempts + 1,
        "failures": {**job.failures, counted: job.failures.get(counted, 0) + 1},
        "history": _remembered(job, {**entry, "worker": job.worker, **again}),
    }


def _remembered(job: Job, entry: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*job.history, {"at": utc_now().isoformat(), **entry}][-_REMEMBERED:]


def _holder(job_id: str, fence: int) -> dict[str, Any]:
    return {"held": job_id, "held_since": fence}


def _set(connection: Connection, job: Job, values: Mapping[str, Any]) -> bool:
    return bool(connection.execute(_SET, {**values, **_holder(job.id, job.fence)}).rowcount)


def job_of(row: Row[Any]) -> Job:
    values = {name: value for name, value in row._mapping.items() if name != "rung_at"}
    return Job(**{**values, "kind": JobKind(row.kind), "queue": Queue(row.queue), "state": JobState(row.state)})
