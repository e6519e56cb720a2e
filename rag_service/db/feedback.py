"""Feedback: what was said of an answer, with what it takes of the answer's trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Text,
    and_,
    case,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from rag_service.db.outside import feedback
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import collections
from rag_service.errors import NotFound
from rag_service.types import utc_now

# What does not apply: null would escape the unique rule.
NONE = ""
_AT_ONCE = 500


class Rating(StrEnum):
    LIKE = "like"
    DISLIKE = "dislike"


class Reason(StrEnum):
    NOT_RELEVANT = "not_relevant"
    OUTDATED = "outdated"
    INCORRECT = "incorrect"
    BAD_CITATION = "bad_citation"
    MISSING = "missing"
    NO_ACCESS = "no_access"


class Signal(StrEnum):
    """What somebody did with an answer, without being asked."""

    COPIED = "copied"
    CLICKED = "clicked"
    RETRIED = "retried"
    EDITED_ANSWER = "edited_answer"


@dataclass(frozen=True, slots=True)
class Feedback:
    """`document_id` "": of the answer as a whole. `key_id` "": of an admin key. `source_id` "": an upload.

    `query` None: the trace did not keep the question. `rank`, `score`, `version` and `index_version` are those of the
    hit that it is about.
    """

    id: str
    team_id: str
    query_id: str
    document_id: str
    chunk_id: str
    key_id: str
    rating: Rating | None
    reasons: Sequence[Reason]
    signals: Sequence[Signal]
    comment: str | None
    expected_document_id: str | None
    collection_id: str | None
    source_id: str | None
    query: str | None
    as_user: Mapping[str, Any] | None
    asked_at: datetime
    rank: int | None
    score: float | None
    version: int | None
    index_version: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class FeedbackFilter:
    """None means any. `since` counts in, `until` does not."""

    rating: Rating | None = None
    reason: Reason | None = None
    signal: Signal | None = None
    query_id: str | None = None
    document_id: str | None = None
    collection_id: str | None = None
    source_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Counted:
    """What was said of the documents of one source of one collection; `collection` None: it is gone."""

    collection_id: str | None
    collection: str | None
    source_id: str | None
    given: int
    likes: int
    dislikes: int
    reasons: Mapping[Reason, int]
    signals: Mapping[Signal, int]


def give(connection: Connection, said: Feedback) -> Feedback:
    """Insert it. Where this key has spoken of the same hit before, the two become one: signals add up, and what is
    said of the rest now replaces what was said then.
    """
    values = {field.name: getattr(said, field.name) for field in fields(Feedback)}
    try:
        with connection.begin_nested():
            connection.execute(insert(feedback).values(values))
        return said
    except IntegrityError:
        former = _of(connection.execute(select(feedback).where(_same(said)).with_for_update()).one())
    spoken: dict[str, Any] = {"signals": _united(former.signals, said.signals), "at": utc_now()}
    if said.rating is not None:
        spoken |= {"rating": said.rating, "reasons": list(said.reasons)}
    for name in ("comment", "expected_document_id"):
        if getattr(said, name) is not None:
            spoken[name] = getattr(said, name)
    changed = update(feedback).where(feedback.c.id == former.id).values(spoken).returning(*feedback.c)
    return _of(connection.execute(changed).one())


def page(
    connection: Connection, team_id: str, narrowing: FeedbackFilter, *, limit: int, after: str | None
) -> Page[Feedback]:
    """Newest first."""
    query = _narrowed(select(feedback), team_id, narrowing)
    return fetch_page(connection, query, feedback, _of, limit=limit, after=after)


def in_order(connection: Connection, team_id: str, narrowing: FeedbackFilter) -> Iterator[Feedback]:
    """Oldest first: all there is at the time of each of its steps."""
    last = ""
    while True:
        query = _narrowed(select(feedback), team_id, narrowing).where(feedback.c.id > last)
        rows = connection.execute(query.order_by(feedback.c.id).limit(_AT_ONCE)).all()
        yield from map(_of, rows)
        if len(rows) < _AT_ONCE:
            return
        last = str(rows[-1].id)


def summary(connection: Connection, team_id: str, narrowing: FeedbackFilter) -> list[Counted]:
    """Counts by collection and source, the most spoken of first."""
    place = (feedback.c.collection_id, collections.c.name, feedback.c.source_id)
    ratings = [_count(feedback.c.rating == rating) for rating in Rating]
    reasons = [_count(_holds(feedback.c.reasons, reason)) for reason in Reason]
    signals = [_count(_holds(feedback.c.signals, signal)) for signal in Signal]
    named = feedback.outerjoin(collections, collections.c.id == feedback.c.collection_id)
    counts = select(*place, func.count(), *ratings, *reasons, *signals).select_from(named)
    query = _narrowed(counts, team_id, narrowing)
    rows = connection.execute(query.group_by(*place).order_by(func.count().desc(), *place)).all()
    return [_counted(tuple(row)) for row in rows]


def remove(connection: Connection, team_id: str, feedback_id: str) -> None:
    """Raises NotFound, also for another team's."""
    mine = and_(feedback.c.id == feedback_id, feedback.c.team_id == team_id)
    if not connection.execute(delete(feedback).where(mine)).rowcount:
        raise NotFound("There is no such feedback in this team. `GET /v1/feedback` lists it.")


def _narrowed(query: Select[Any], team_id: str, narrowing: FeedbackFilter) -> Select[Any]:
    query = query.where(feedback.c.team_id == team_id)
    for name in ("rating", "query_id", "document_id", "collection_id", "source_id"):
        if (value := getattr(narrowing, name)) is not None:
            query = query.where(feedback.c[name] == value)
    if narrowing.reason is not None:
        query = query.where(_holds(feedback.c.reasons, narrowing.reason))
    if narrowing.signal is not None:
        query = query.where(_holds(feedback.c.signals, narrowing.signal))
    if narrowing.since is not None:
        query = query.where(feedback.c.at >= narrowing.since)
    if narrowing.until is not None:
        query = query.where(feedback.c.at < narrowing.until)
    return query


def _holds(column: ColumnElement[Any], name: str) -> ColumnElement[bool]:
    """Whether a JSON list of our own names holds this one; both databases keep it as it was written."""
    return cast(column, Text).contains(f'"{name}"', autoescape=True)


def _count(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0, type_=Integer)


def _counted(row: Sequence[Any]) -> Counted:
    collection_id, collection, source_id, given, *counts = row
    numbers = iter(map(int, counts))
    likes, dislikes = (next(numbers) for _ in Rating)
    reasons = {reason: next(numbers) for reason in Reason}
    signals = {signal: next(numbers) for signal in Signal}
    return Counted(collection_id, collection, source_id, int(given), likes, dislikes, reasons, signals)


def _same(said: Feedback) -> ColumnElement[bool]:
    names = ("query_id", "document_id", "chunk_id", "key_id")
    return and_(*(feedback.c[name] == getattr(said, name) for name in names))


def _united(before: Sequence[Signal], now: Sequence[Signal]) -> list[Signal]:
    return [signal for signal in Signal if signal in (*before, *now)]


def _of(row: Row[Any]) -> Feedback:
    values = dict(row._mapping)
    return Feedback(
        **{
            **values,
            "rating": None if row.rating is None else Rating(row.rating),
            "reasons": tuple(map(Reason, row.reasons)),
            "signals": tuple(map(Signal, row.signals)),
        }
    )
