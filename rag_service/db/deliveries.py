"""Deliveries: one event on its way to one webhook, until it has arrived or is given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, delete, or_, select, update

from rag_service.db.engine import Transaction
from rag_service.db.outbox import ALL_TEAMS, WAITING, queue
from rag_service.db.outside import deliveries, outbox, webhooks
from rag_service.db.pages import Page, fetch_page
from rag_service.db.tables import jobs
from rag_service.db.webhooks import Webhook
from rag_service.types import EventType, JobKind, JobState, utc_now

DELIVERED = "delivered"
FAILED = "failed"
_REMEMBERED = 10
_AT_ONCE = 500

_WITH_EVENT = select(deliveries, outbox.c.type, outbox.c.team_id, outbox.c.data, outbox.c.at).join(
    outbox, outbox.c.id == deliveries.c.event_id
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """`history`: the newest attempts, each with time, status, reason and milliseconds. `next_at`: when it is due."""

    id: str
    webhook_id: str
    event_id: str
    state: str
    attempts: int
    history: Sequence[Mapping[str, Any]]
    next_at: datetime | None
    created_at: datetime
    delivered_at: datetime | None
    type: EventType
    team_id: str
    data: Mapping[str, Any]
    at: datetime


def page(
    connection: Connection, webhook_id: str, state: str | None, *, limit: int, after: str | None
) -> Page[Delivery]:
    query = _WITH_EVENT.where(deliveries.c.webhook_id == webhook_id)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    return fetch_page(connection, query, deliveries, _delivery, limit=limit, after=after)


def due_webhooks(connection: Connection) -> list[str]:
    """Webhooks that have something to be told now."""
    now = utc_now()
    query = select(deliveries.c.webhook_id).join(webhooks, webhooks.c.id == deliveries.c.webhook_id).distinct()
    ready = and_(webhooks.c.enabled, or_(webhooks.c.resume_at.is_(None), webhooks.c.resume_at <= now))
    return list(connection.execute(query.where(_due(now), ready)).scalars())


def being_told(connection: Connection) -> set[str]:
    """Webhooks that an open job delivers to."""
    is_open = jobs.c.state.in_((JobState.QUEUED, JobState.RUNNING))
    query = select(jobs.c.payload).where(is_open, jobs.c.kind == JobKind.DELIVER)
    return {str(payload["webhook"]) for payload in connection.execute(query).scalars()}


def claim(connection: Connection, webhook_id: str, limit: int, lease_s: float) -> list[Delivery]:
    """Take what is due, the oldest first. Whoever takes it and dies leaves it to others after `lease_s` seconds."""
    now = utc_now()
    first: Select[Any] = (
        select(deliveries.c.id)
        .where(deliveries.c.webhook_id == webhook_id, _due(now))
        .order_by(deliveries.c.next_at, deliveries.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(connection.execute(first).scalars())
    if not ids:
        return []
    until = now + timedelta(seconds=lease_s)
    connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(next_at=until))
    return [_delivery(row) for row in connection.execute(_WITH_EVENT.where(deliveries.c.id.in_(ids)))]


def record(
    connection: Connection, delivery: Delivery, state: str, attempt: Mapping[str, Any], next_at: datetime | None
) -> None:
    """How an attempt ended; of no effect on one that has arrived by another's hand meanwhile."""
    mine = and_(deliveries.c.id == delivery.id, deliveries.c.state == WAITING, deliveries.c.next_at == delivery.next_at)
    values = {
        "state": state,
        "attempts": delivery.attempts + 1,
        "history": [*delivery.history, dict(attempt)][-_REMEMBERED:],
        "next_at": next_at,
        "delivered_at": utc_now() if state == DELIVERED else None,
    }
    connection.execute(update(deliveries).where(mine).values(values))


def replay(
    transaction: Transaction, webhook: Webhook, since: datetime, after: str, *, repeat: bool
) -> tuple[int, str | None]:
    """Queue anew some of the events since then; (how many, where to go on or None at the end).

    Those that arrived already are left out, unless they are to be repeated.
    """
    connection = transaction.connection
    query = select(outbox.c.id).where(outbox.c.at >= since, outbox.c.type.in_(webhook.events), outbox.c.id > after)
    if webhook.team_id != ALL_TEAMS:
        query = query.where(outbox.c.team_id == webhook.team_id)
    events = list(connection.execute(query.order_by(outbox.c.id).limit(_AT_ONCE)).scalars())
    mine = and_(deliveries.c.webhook_id == webhook.id, deliveries.c.event_id.in_(events))
    known = set(connection.execute(select(deliveries.c.event_id).where(mine)).scalars())
    again = mine if repeat else and_(mine, deliveries.c.state == FAILED)
    fresh = {"state": WAITING, "attempts": 0, "next_at": utc_now(), "delivered_at": None}
    revived = connection.execute(update(deliveries).where(again).values(fresh)).rowcount
    unknown = [event for event in events if event not in known]
    queue(transaction, [webhook.id], unknown)
    transaction.told.add(webhook.id)
    return revived + len(unknown), events[-1] if len(events) == _AT_ONCE else None


def forget(connection: Connection, before: datetime) -> None:
    """Delete events of before this time, arrived or not, with their deliveries."""
    old = select(outbox.c.id).where(outbox.c.at < before)
    connection.execute(delete(deliveries).where(deliveries.c.event_id.in_(old)))
    connection.execute(delete(outbox).where(outbox.c.at < before))


def _due(now: datetime) -> Any:
    return and_(deliveries.c.state == WAITING, deliveries.c.next_at <= now)


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(**{**dict(row._mapping), "type": EventType(row.type)})
