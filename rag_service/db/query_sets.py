"""Query sets: named lists of questions with known answers, each about one collection of a team."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from rag_service.db.judged import labelled_queries, query_sets
from rag_service.db.pages import Page, fetch_page, number_of
from rag_service.db.tables import collections, documents
from rag_service.errors import Conflict, InvalidRequest, LimitExceeded, NotFound
from rag_service.types import LabelledQuery, new_id, utc_now

MOST_QUERIES = 10_000
# So many rows per statement: a database takes a limited number of parameters.
_AT_ONCE = 500
_GONE = "There is no such query set in this team. `GET /v1/query-sets` lists them."
_WITH_COLLECTION = select(query_sets, collections.c.name.label("collection")).join(
    collections, collections.c.id == query_sets.c.collection_id
)


@dataclass(frozen=True, slots=True)
class QuerySet:
    """`collection` is the present name of the collection that it is about."""

    id: str
    team_id: str
    collection_id: str
    collection: str
    name: str
    description: str
    query_count: int
    created_at: datetime
    updated_at: datetime


def create(connection: Connection, team_id: str, collection_id: str, name: str, *, description: str = "") -> QuerySet:
    """Raises Conflict when the team has a query set of that name."""
    now = utc_now()
    set_id = new_id("qs")
    row = {
        "id": set_id,
        "team_id": team_id,
        "collection_id": collection_id,
        "name": name,
        "description": description,
        "query_count": 0,
        "created_at": now,
        "updated_at": now,
    }
    try:
        with connection.begin_nested():
            connection.execute(insert(query_sets).values(row))
    except IntegrityError:
        raise _taken(name) from None
    return get(connection, team_id, set_id)


def get(connection: Connection, team_id: str, name_or_id: str) -> QuerySet:
    """By name or by id. Raises NotFound, also for another team's."""
    named = or_(query_sets.c.name == name_or_id, query_sets.c.id == name_or_id)
    row = connection.execute(_WITH_COLLECTION.where(query_sets.c.team_id == team_id, named)).first()
    if row is None:
        raise NotFound(_GONE)
    return _set(row)


def page(
    connection: Connection, team_id: str, *, collection_id: str | None = None, limit: int, after: str | None
) -> Page[QuerySet]:
    query = _WITH_COLLECTION.where(query_sets.c.team_id == team_id)
    if collection_id is not None:
        query = query.where(query_sets.c.collection_id == collection_id)
    return fetch_page(connection, query, query_sets, _set, limit=limit, after=after)


def change(connection: Connection, query_set: QuerySet, **values: object) -> QuerySet:
    """Set columns. Raises Conflict when a new name is taken, NotFound when the set is gone."""
    changed = update(query_sets).where(query_sets.c.id == query_set.id).values(**values, updated_at=utc_now())
    try:
        with connection.begin_nested():
            connection.execute(changed)
    except IntegrityError:
        raise _taken(str(values.get("name"))) from None
    return get(connection, query_set.team_id, query_set.id)


def remove(connection: Connection, query_set: QuerySet) -> None:
    connection.execute(delete(labelled_queries).where(labelled_queries.c.set_id == query_set.id))
    connection.execute(delete(query_sets).where(query_sets.c.id == query_set.id))


def remove_of_collection(connection: Connection, collection_id: str) -> None:
    """Forget the sets of a collection that goes."""
    of_it = select(query_sets.c.id).where(query_sets.c.collection_id == collection_id)
    connection.execute(delete(labelled_queries).where(labelled_queries.c.set_id.in_(of_it)))
    connection.execute(delete(query_sets).where(query_sets.c.collection_id == collection_id))


def add_queries(
    connection: Connection, query_set: QuerySet, queries: Sequence[LabelledQuery], *, replace: bool = False
) -> QuerySet:
    """Append, or put in place of all there are. A query whose id is "" is named for its place: q1, q2 ...

    Raises LimitExceeded beyond 10,000 queries, InvalidRequest for an id that stands twice, NotFound when the set is
    gone. Whoever else writes to the set waits for the end of the transaction.
    """
    current = change(connection, query_set)
    if replace:
        connection.execute(delete(labelled_queries).where(labelled_queries.c.set_id == query_set.id))
    last = 0 if replace else _last_position(connection, query_set)
    count = len(queries) + (0 if replace else current.query_count)
    if count > MOST_QUERIES:
        raise LimitExceeded(f"A query set holds up to {MOST_QUERIES:,} queries. Make another one.")
    rows = [_row(query_set, position, query) for position, query in enumerate(queries, start=last + 1)]
    try:
        with connection.begin_nested():
            for start in range(0, len(rows), _AT_ONCE):
                connection.execute(insert(labelled_queries), rows[start : start + _AT_ONCE])
    except IntegrityError:
        raise InvalidRequest("Two queries of this set have the same id. Give each its own.", code="id_twice") from None
    return change(connection, query_set, query_count=count)


def queries_of(connection: Connection, query_set: QuerySet) -> list[LabelledQuery]:
    """All queries of the set, in their order."""
    rows = connection.execute(_in_order(query_set))
    return [_query(row) for row in rows]


def query_page(connection: Connection, query_set: QuerySet, *, limit: int, after: str | None) -> Page[LabelledQuery]:
    """In their order. Raises InvalidRequest for an `after` that no page gave."""
    query = _in_order(query_set)
    if after is not None:
        query = query.where(labelled_queries.c.position > number_of(after))
    rows = connection.execute(query.limit(limit + 1)).all()
    shown = rows[:limit]
    return Page([_query(row) for row in shown], str(shown[-1].position) if len(rows) > limit else None)


def present(connection: Connection, collection_id: str, document_ids: Collection[str]) -> set[str]:
    """Those of the documents that the collection has, and that were not deleted."""
    here = documents.c.collection_id == collection_id, documents.c.deleted_at.is_(None)
    ids = sorted(document_ids)
    found: set[str] = set()
    for start in range(0, len(ids), _AT_ONCE):
        some = documents.c.id.in_(ids[start : start + _AT_ONCE])
        found |= set(connection.scalars(select(documents.c.id).where(some, *here)))
    return found


def _in_order(query_set: QuerySet) -> Any:
    return (
        select(labelled_queries).where(labelled_queries.c.set_id == query_set.id).order_by(labelled_queries.c.position)
    )


def _last_position(connection: Connection, query_set: QuerySet) -> int:
    highest = select(func.max(labelled_queries.c.position)).where(labelled_queries.c.set_id == query_set.id)
    return connection.execute(highest).scalar() or 0


def _row(query_set: QuerySet, position: int, query: LabelledQuery) -> dict[str, Any]:
    values = asdict(query)
    return {**values, "id": query.id or f"q{position}", "set_id": query_set.id, "position": position}


def _query(row: Row[Any]) -> LabelledQuery:
    return LabelledQuery.of(dict(row._mapping))


def _set(row: Row[Any]) -> QuerySet:
    return QuerySet(**row._mapping)


def _taken(name: str) -> Conflict:
    return Conflict(f"There is a query set {name!r} already. Choose another name.", code="query_set_exists")
