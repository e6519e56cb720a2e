"""Traces of queries: what was asked and answered, by ids, scores and times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, or_, select

from rag_service.db.tables import keys, queries
from rag_service.errors import NotFound
from rag_service.types import Collection, LabelledQuery, Person

# Traces looked through for questions of one collection.
_MOST_LOOKED_AT = 20_000
_MANAGING = frozenset({"manage", "admin"})


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


def recently_asked(connection: Connection, team_id: str, collection: Collection, *, limit: int) -> list[LabelledQuery]:
    """The newest `limit` different questions of this collection whose text was kept, each with the rights of its asker.

    They keep their filter and min_score; their ids are those of their traces. Nobody judged them.
    """
    asked = (
        select(queries.c.id, queries.c.query, queries.c.as_user, queries.c.request, queries.c.key_id)
        .add_columns(keys.c.user, keys.c.groups, keys.c.scopes)
        .outerjoin(keys, keys.c.id == queries.c.key_id)
        .where(queries.c.team_id == team_id, queries.c.query.is_not(None))
        .order_by(queries.c.id.desc())
        .limit(_MOST_LOOKED_AT)
    )
    found: dict[str, LabelledQuery] = {}
    for row in connection.execute(asked):
        if {collection.id, collection.name}.isdisjoint(row.request.get("collections") or ("default",)):
            continue
        question = LabelledQuery(
            id=row.id,
            query=row.query,
            as_user=_asker(row),
            filter=row.request.get("filter"),
            min_score=row.request.get("min_score"),
        )
        found.setdefault(str((question.query, question.as_user, question.filter)), question)
        if len(found) == limit:
            break
    return list(found.values())


def _asker(row: Row[Any]) -> Person | None:
    """With whose rights it was asked; None: with those of a key that manages, which reads the whole team.

    The key of a person that manages too is taken for that person, and one that is gone for nobody: never for more.
    """
    if row.as_user is not None:
        return Person.of(row.as_user)
    return None if row.key_id is None else _of_key(row)


def askers(connection: Connection, team_id: str) -> dict[str, Person | None]:
    """As whom each key of the team asks by itself, by its id; "" is an admin key. None reads the whole team."""
    rows = connection.execute(
        select(keys.c.id, keys.c.user, keys.c.groups, keys.c.scopes).where(keys.c.team_id == team_id)
    )
    return {"": None, **{row.id: _of_key(row) for row in rows}}


def _of_key(row: Any) -> Person | None:
    if row.user is not None or row.groups is not None:
        return Person(row.user, tuple(row.groups or ()))
    return None if _MANAGING.intersection(row.scopes or ()) else Person()


def beyond(connection: Connection, limit: int) -> str | None:
    """The newest id that `limit` newer ones make superfluous; None while there is room."""
    newest_first = select(queries.c.id).order_by(queries.c.id.desc())
    return connection.execute(newest_first.offset(limit).limit(1)).scalar_one_or_none()


def forget(connection: Connection, before: datetime, up_to: str | None) -> None:
    """Delete what was asked before this time, and all up to this id."""
    old = queries.c.at < before
    connection.execute(delete(queries).where(old if up_to is None else or_(old, queries.c.id <= up_to)))
