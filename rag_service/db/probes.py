"""Probes: questions asked by the clock, what their answers must be, and what they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import collections, jobs
from rag_service.db.watched import probe_runs, probes
from rag_service.errors import Conflict, LimitExceeded, NotFound
from rag_service.types import JobState, ProbeState, new_id, utc_now

MOST = 500  # of one team
_AT_ONCE = 200
_OPEN = (JobState.QUEUED, JobState.RUNNING)
_UNKNOWN = "There is no such probe in this team. `GET /v1/probes` lists them."
_TAKEN = "There is a probe of that name already. Choose another."


@dataclass(frozen=True, slots=True)
class Run:
    """One result. `hits` and `failures` as `retrieval.probing.checks` makes them; `recall` of what was expected.

    `newest_at`: when the newest document came in, where that is watched.
    """

    id: str
    probe_id: str
    passed: bool
    recall: float | None
    hits: Sequence[Mapping[str, Any]]
    failures: Sequence[Mapping[str, Any]]
    took_ms: float
    newest_at: datetime | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Probe:
    """`question` and `expect` as the API has them. `since`: of the state. `last`: its newest result."""

    id: str
    team_id: str
    collection_id: str
    collection: str
    name: str
    question: Mapping[str, Any]
    expect: Mapping[str, Any]
    every_s: int
    paused: bool
    state: ProbeState
    since: datetime
    job_id: str | None
    last: Run | None
    next_run_at: datetime
    created_at: datetime


def create(
    connection: Connection,
    *,
    team_id: str,
    collection_id: str,
    name: str,
    question: Mapping[str, Any],
    expect: Mapping[str, Any],
    every_s: int,
) -> Probe:
    """Due at once. Raises Conflict for a name that is taken, LimitExceeded where a team has 500 already."""
    if connection.execute(select(func.count()).where(probes.c.team_id == team_id)).scalar_one() >= MOST:
        raise LimitExceeded(f"A team may have {MOST} probes. Delete one first.", code="too_many_probes")
    now = utc_now()
    row = {
        "id": new_id("prb"),
        "team_id": team_id,
        "collection_id": collection_id,
        "name": name,
        "question": dict(question),
        "expect": dict(expect),
        "every_s": every_s,
        "state": ProbeState.UNKNOWN,
        "since": now,
        "next_run_at": now,
        "created_at": now,
    }
    try:
        connection.execute(insert(probes).values(row))
    except IntegrityError:
        raise Conflict(_TAKEN, code="probe_exists") from None
    return get(connection, team_id, str(row["id"]))


def get(connection: Connection, team_id: str, probe_id: str) -> Probe:
    """Raises NotFound, also for another team's."""
    row = connection.execute(_probes().where(probes.c.id == probe_id, probes.c.team_id == team_id)).first()
    if row is None:
        raise NotFound(_UNKNOWN)
    return _probe(row)


def load(connection: Connection, probe_id: str) -> Probe | None:
    """The probe as it is now, whoever's it is; for workers. None when it, or its collection, is gone."""
    row = connection.execute(_probes().where(probes.c.id == probe_id)).first()
    return None if row is None else _probe(row)


def page(
    connection: Connection,
    team_id: str,
    *,
    collection_id: str | None = None,
    state: ProbeState | None = None,
    limit: int,
    after: str | None,
) -> Page[Probe]:
    query = _probes().where(probes.c.team_id == team_id)
    if collection_id is not None:
        query = query.where(probes.c.collection_id == collection_id)
    if state is not None:
        query = query.where(probes.c.state == state)
    return fetch_page(connection, query, probes, _probe, limit=limit, after=after)


def of_collection(connection: Connection, collection_id: str) -> list[Probe]:
    query = _probes().where(probes.c.collection_id == collection_id).order_by(probes.c.name)
    return [_probe(row) for row in connection.execute(query)]


def change(connection: Connection, probe_id: str, **values: Any) -> None:
    """Set columns of a probe. Raises Conflict when a new name is taken."""
    try:
        connection.execute(update(probes).where(probes.c.id == probe_id).values(**values))
    except IntegrityError:
        raise Conflict(_TAKEN, code="probe_exists") from None


def remove(connection: Connection, probe_id: str) -> None:
    connection.execute(delete(probe_runs).where(probe_runs.c.probe_id == probe_id))
    connection.execute(delete(probes).where(probes.c.id == probe_id))


def remove_all(connection: Connection, collection_id: str) -> None:
    """Those of a collection that is being deleted, with their results."""
    theirs = select(probes.c.id).where(probes.c.collection_id == collection_id)
    connection.execute(delete(probe_runs).where(probe_runs.c.probe_id.in_(theirs)))
    connection.execute(delete(probes).where(probes.c.collection_id == collection_id))


def take_due(connection: Connection) -> list[Probe]:
    """Probes whose time has come; each is given its next time, so that no two callers get it. At most 200 at once."""
    now = utc_now()
    due = connection.execute(
        _probes()
        .where(probes.c.next_run_at <= now, probes.c.paused.is_(False))
        .order_by(probes.c.next_run_at)
        .limit(_AT_ONCE)
    ).all()
    taken = []
    for row in due:
        mine = (probes.c.id == row.id) & (probes.c.next_run_at == row.next_run_at) & probes.c.paused.is_(False)
        later = now + timedelta(seconds=row.every_s)
        if connection.execute(update(probes).where(mine).values(next_run_at=later)).rowcount:
            taken.append(_probe(row))
    return taken


def open_job(connection: Connection, probe: Probe) -> str | None:
    """The run of this probe that is not over yet, if there is one."""
    query = select(jobs.c.id).where(jobs.c.id == probe.job_id, jobs.c.state.in_(_OPEN))
    return connection.execute(query).scalar()


def begin(connection: Connection, probe: Probe, job_id: str) -> None:
    """Its newest run is this job, also for the clock. The row of the one before goes, if all was well with it.

    So a run that somebody asked for and waits for is not followed, and its row taken away, by one that was due anyway.
    """
    connection.execute(delete(jobs).where(jobs.c.id == probe.job_id, jobs.c.state == JobState.SUCCEEDED))
    change(connection, probe.id, job_id=job_id, next_run_at=utc_now() + timedelta(seconds=probe.every_s))


def record(connection: Connection, run: Run, keep: int) -> Probe | None:
    """Add a result, forget all but the newest `keep`, set the state. Returns the probe before; None: it is gone."""
    locked = connection.execute(select(probes.c.id).where(probes.c.id == run.probe_id).with_for_update()).first()
    before = None if locked is None else load(connection, run.probe_id)
    if before is None:
        return None
    row = {name: getattr(run, name) for name in ("id", "probe_id", "passed", "recall", "took_ms", "newest_at", "at")}
    lists = {"hits": [dict(hit) for hit in run.hits], "failures": [dict(failure) for failure in run.failures]}
    connection.execute(insert(probe_runs).values(**row, **lists))
    _forget_old(connection, run.probe_id, keep)
    state = ProbeState.OK if run.passed else ProbeState.FAILING
    since = before.since if before.state == state else run.at
    change(connection, run.probe_id, state=state, last_run=run.id, since=since)
    return before


def runs(connection: Connection, probe_id: str, *, limit: int, after: str | None) -> Page[Run]:
    query = select(probe_runs).where(probe_runs.c.probe_id == probe_id)
    return fetch_page(connection, query, probe_runs, _run, limit=limit, after=after)


def count_by_state(connection: Connection) -> dict[str, int]:
    """All probes by state, paused ones apart."""
    query = select(probes.c.paused, probes.c.state, func.count().label("probes")).group_by(
        probes.c.paused, probes.c.state
    )
    counts = {state.value: 0 for state in ProbeState} | {"paused": 0}
    for row in connection.execute(query):
        counts["paused" if row.paused else row.state] += int(row.probes)
    return counts


def _forget_old(connection: Connection, probe_id: str, keep: int) -> None:
    mine = probe_runs.c.probe_id == probe_id
    oldest = connection.execute(
        select(probe_runs.c.id).where(mine).order_by(probe_runs.c.id.desc()).offset(keep).limit(1)
    ).scalar()
    if oldest is not None:
        connection.execute(delete(probe_runs).where(mine, probe_runs.c.id <= oldest))


def _probes() -> Select[Any]:
    last = [column.label(f"last_{column.name}") for column in probe_runs.c]
    return (
        select(probes, collections.c.name.label("collection"), *last)
        .join(collections, collections.c.id == probes.c.collection_id)
        .outerjoin(probe_runs, probe_runs.c.id == probes.c.last_run)
    )


def _probe(row: Row[Any]) -> Probe:
    values = row._mapping
    last = None
    if values["last_id"] is not None:
        last = Run(**{name: values[f"last_{name}"] for name in Run.__dataclass_fields__})
    own = {name: values[name] for name in Probe.__dataclass_fields__ if name not in ("last", "state")}
    return Probe(**own, state=ProbeState(row.state), last=last)


def _run(row: Row[Any]) -> Run:
    return Run(**row._mapping)
