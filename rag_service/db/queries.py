"""Traces of queries: what was asked and answered, by ids, scores and times."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, or_, select

from rag_service.db.collections import DEFAULT
from rag_service.db.tables import queries
from rag_service.errors import NotFound

_MOST_READ = 20_000


@dataclass(frozen=True, slots=True)
class Trace:
    """`as_user` None: asked as the key's own identity. `query` None: the question was not kept.

    `request` is the body of the question without these two; `hits` hold ids, ranks and scores, never texts.
    """

    id: str
    team_id: str
    key_id: str | None
    key_name: str
    as_user: Mapping[str, Any] | None
    query: str | None
    request: Mapping[str, Any]
    plan: Mapping[str, Any]
    hits: Sequence[Mapping[str, Any]]
    usage: Mapping[str, float]
    degraded: Sequence[str]
    at: datetime


def add_all(connection: Connection, traces: Sequence[Trace]) -> None:
    if traces:
        # Not `asdict`, which copies every hit of every trace: this runs beside the questions of others.
        columns = [field.name for field in fields(Trace)]
        connection.execute(insert(queries), [{name: getattr(trace, name) for name in columns} for trace in traces])


def get(connection: Connection, team_id: str, query_id: str, *, asked_by: str | None = None) -> Trace:
    """With `asked_by`, only what this key asked. Raises NotFound, also for the trace of another team or key."""
    query = select(queries).where(queries.c.id == query_id, queries.c.team_id == team_id)
    if asked_by is not None:
        query = query.where(queries.c.key_id == asked_by)
    row = connection.execute(query).first()
    if row is None:
        raise NotFound("There is no trace of such a query. Traces are kept for a while, or in part, or not at all.")
    return Trace(**row._mapping)


def beyond(connection: Connection, limit: int) -> str | None:
    """The newest id that `limit` newer ones make superfluous; None while there is room."""
    newest_first = select(queries.c.id).order_by(queries.c.id.desc())
    return connection.execute(newest_first.offset(limit).limit(1)).scalar_one_or_none()


def forget(connection: Connection, before: datetime, up_to: str | None) -> None:
    """Delete what was asked before this time, and all up to this id."""
    old = queries.c.at < before
    connection.execute(delete(queries).where(old if up_to is None else or_(old, queries.c.id <= up_to)))


def kept(connection: Connection, team_id: str, collection: Collection[str], limit: int) -> list[Trace]:
    """The newest questions whose text was kept and that were asked of this collection alone, by name or id."""
    newest = select(queries).where(queries.c.team_id == team_id, queries.c.query.is_not(None))
    found = []
    for row in connection.execute(newest.order_by(queries.c.id.desc()).limit(_MOST_READ)):
        if set(row.request.get("collections") or [DEFAULT]) <= set(collection):
            found.append(Trace(**row._mapping))
        if len(found) == limit:
            break
    return found
