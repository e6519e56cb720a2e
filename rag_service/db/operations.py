"""Operations: backups and reconciling, on record beside the data so that every process knows of them.

A backup that runs holds back all purging: what its snapshot names must not go before it is copied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, insert, select, update

from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import operations
from rag_service.errors import Conflict
from rag_service.types import new_id, utc_now

_KEPT = 200


class OperationKind(StrEnum):
    BACKUP = "backup"
    RECONCILE = "reconcile"


class OperationState(StrEnum):
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Operation:
    id: str
    kind: OperationKind
    state: OperationState
    progress: Mapping[str, Any]
    report: Mapping[str, Any] | None
    error: Mapping[str, Any] | None
    created_at: datetime
    finished_at: datetime | None


INTERRUPTED = {"code": "interrupted", "message": "The process that ran it ended. Start it again."}


def begin(connection: Connection, kind: OperationKind, lease_s: float) -> Operation:
    """Raises Conflict while another of this kind runs."""
    if is_running(connection, kind):
        raise Conflict(f"A {kind} is running already. Wait for its end.", code="operation_running")
    _forget_old(connection)
    now = utc_now()
    row = {
        "id": new_id("op"),
        "kind": kind,
        "state": OperationState.RUNNING,
        "progress": {},
        "until": now + timedelta(seconds=lease_s),
        "created_at": now,
    }
    return _operation(connection.execute(insert(operations).values(row).returning(*operations.c)).one())


def keep(connection: Connection, operation_id: str, lease_s: float, progress: Mapping[str, Any]) -> bool:
    """Prolong its lease and show how far it is. False when the lease had run out: what it held back went on."""
    now = utc_now()
    values = {"until": now + timedelta(seconds=lease_s), "progress": dict(progress)}
    query = update(operations).where(operations.c.id == operation_id, _alive(now)).values(**values)
    return bool(connection.execute(query).rowcount)


def finish(
    connection: Connection,
    operation_id: str,
    *,
    report: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> Operation:
    """End it: with an error as failed, else as succeeded."""
    state = OperationState.FAILED if error else OperationState.SUCCEEDED
    values = {"state": state, "report": report, "error": error, "finished_at": utc_now()}
    query = update(operations).where(operations.c.id == operation_id).values(**values).returning(*operations.c)
    return _operation(connection.execute(query).one())


def is_running(connection: Connection, kind: OperationKind) -> bool:
    query = select(operations.c.id).where(operations.c.kind == kind, _alive(utc_now()))
    return connection.execute(query.limit(1)).first() is not None


def page(connection: Connection, *, limit: int, after: str | None) -> Page[Operation]:
    return fetch_page(connection, select(operations), operations, _operation, limit=limit, after=after)


def forget_running(connection: Connection) -> None:
    """In a snapshot: what ran when it was taken does not run in a service restored from it."""
    connection.execute(delete(operations).where(operations.c.state == OperationState.RUNNING))


def _forget_old(connection: Connection) -> None:
    newest = select(operations.c.id).order_by(operations.c.id.desc()).limit(1).offset(_KEPT).scalar_subquery()
    ended = operations.c.state != OperationState.RUNNING
    connection.execute(delete(operations).where(operations.c.id <= newest, ended))


def _alive(now: datetime) -> ColumnElement[bool]:
    return and_(operations.c.state == OperationState.RUNNING, operations.c.until > now)


def _operation(row: Row[Any]) -> Operation:
    died = row.state == OperationState.RUNNING and row.until <= utc_now()
    return Operation(
        id=row.id,
        kind=OperationKind(row.kind),
        state=OperationState.FAILED if died else OperationState(row.state),
        progress=row.progress,
        report=row.report,
        error=INTERRUPTED if died else row.error,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
