"""What is watched beside probes, by subject. Whoever sees a change of state first tells of it, and nobody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from rag_service.db.upserts import upsert
from rag_service.db.watched import alarms
from rag_service.types import ProbeState, utc_now


@dataclass(frozen=True, slots=True)
class Alarm:
    subject: str
    kind: str
    collection_id: str | None
    state: ProbeState
    detail: Mapping[str, Any]
    since: datetime


def settle(
    connection: Connection,
    subject: str,
    state: ProbeState,
    *,
    kind: str,
    detail: Mapping[str, Any],
    collection_id: str | None = None,
) -> bool:
    """Note how the subject is. True for one caller where that is news: that it is well is none at first."""
    now = utc_now()
    was_other = (alarms.c.subject == subject) & (alarms.c.state != state)
    values = {"state": state, "detail": dict(detail)}
    if connection.execute(update(alarms).where(was_other).values(**values, since=now)).rowcount:
        return True
    row = {"subject": subject, "kind": kind, "collection_id": collection_id, **values, "since": now}
    made = upsert(connection, alarms).values(row).on_conflict_do_nothing().returning(alarms.c.subject)
    if connection.execute(made).first() is not None:
        return state == ProbeState.FAILING
    connection.execute(update(alarms).where(alarms.c.subject == subject).values(**values))
    return False


def of_collection(connection: Connection, collection_id: str) -> list[Alarm]:
    query = select(alarms).where(alarms.c.collection_id == collection_id).order_by(alarms.c.subject)
    return [
        Alarm(row.subject, row.kind, row.collection_id, ProbeState(row.state), row.detail, row.since)
        for row in connection.execute(query)
    ]


def states(connection: Connection) -> dict[str, ProbeState]:
    """How every subject was at the newest look."""
    query = select(alarms.c.subject, alarms.c.state)
    return {str(row.subject): ProbeState(row.state) for row in connection.execute(query)}


def forget(connection: Connection, collection_id: str) -> None:
    connection.execute(delete(alarms).where(alarms.c.collection_id == collection_id))


def failing_by_kind(connection: Connection) -> dict[str, int]:
    """How many subjects of each kind are not well; 0 where all of a kind are."""
    failing = func.count().filter(alarms.c.state == ProbeState.FAILING)
    query = select(alarms.c.kind, failing.label("failing")).group_by(alarms.c.kind)
    return {str(row.kind): int(row.failing) for row in connection.execute(query)}
