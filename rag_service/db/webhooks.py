"""Webhooks: addresses that are told of events, and how they have answered of late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from rag_service.db.outside import deliveries, webhooks
from rag_service.db.pages import Page, fetch_page
from rag_service.errors import NotFound
from rag_service.types import EventType, new_id, utc_now

UNKNOWN = "There is no such webhook in this team. `GET /v1/webhooks` lists them."


@dataclass(frozen=True, slots=True)
class Webhook:
    """`team_id` "": of all teams. `secrets`: envelopes, the newest first, each with the time until which it signs.

    `failing_since`: of the first failure after the last success. `resume_at`: it is left alone until then.
    """

    id: str
    team_id: str
    url: str
    events: tuple[EventType, ...]
    description: str
    secrets: Sequence[Mapping[str, Any]]
    enabled: bool
    disabled_reason: str | None
    failing_since: datetime | None
    resume_at: datetime | None
    created_at: datetime


def add(connection: Connection, team_id: str, *, url: str, events: Sequence[EventType], description: str) -> Webhook:
    """Insert an enabled webhook that has no secret yet."""
    row = {"id": new_id("whk"), "team_id": team_id, "url": url, "events": list(events), "description": description}
    values = {**row, "secrets": [], "enabled": True, "created_at": utc_now()}
    return _webhook(connection.execute(insert(webhooks).values(values).returning(*webhooks.c)).one())


def get(connection: Connection, team_id: str, webhook_id: str) -> Webhook:
    """Raises NotFound, also for another team's."""
    webhook = load(connection, webhook_id)
    if webhook is None or webhook.team_id != team_id:
        raise NotFound(UNKNOWN)
    return webhook


def load(connection: Connection, webhook_id: str) -> Webhook | None:
    """Whoever's it is; for workers."""
    row = connection.execute(select(webhooks).where(webhooks.c.id == webhook_id)).first()
    return None if row is None else _webhook(row)


def page(connection: Connection, team_id: str, *, limit: int, after: str | None) -> Page[Webhook]:
    query = select(webhooks).where(webhooks.c.team_id == team_id)
    return fetch_page(connection, query, webhooks, _webhook, limit=limit, after=after)


def count(connection: Connection, team_id: str) -> int:
    return int(connection.execute(select(func.count()).where(webhooks.c.team_id == team_id)).scalar_one())


def change(connection: Connection, webhook_id: str, **values: Any) -> None:
    connection.execute(update(webhooks).where(webhooks.c.id == webhook_id).values(**values))


def remove(connection: Connection, webhook_id: str) -> None:
    """With all that it was yet to be told."""
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
    connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id))


def everyone(connection: Connection) -> list[Webhook]:
    """Of all teams, in the order of their ids."""
    return [_webhook(row) for row in connection.execute(select(webhooks).order_by(webhooks.c.id))]


def _webhook(row: Row[Any]) -> Webhook:
    values = dict(row._mapping)
    return Webhook(**{**values, "events": tuple(EventType(name) for name in row.events)})
