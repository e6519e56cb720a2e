"""Events for webhooks, written where they become true: told after the commit, or never if there is none."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, or_, select

from rag_service.db.engine import Transaction
from rag_service.db.outside import deliveries, outbox, webhooks
from rag_service.db.tables import documents
from rag_service.types import EventType, new_id, utc_now

ALL_TEAMS = ""
WAITING = "waiting"
# Of one event's data as JSON. Ids, names and numbers take a fraction of it.
_MOST_BYTES = 32 * 1024
_PART = 500

# Asked for every document: made once.
_LISTENERS = select(webhooks.c.id, webhooks.c.events, webhooks.c.enabled).where(
    or_(webhooks.c.team_id == bindparam("team"), webhooks.c.team_id == ALL_TEAMS)
)


def emit(transaction: Transaction, event_type: str, team_id: str, data: Mapping[str, Any]) -> None:
    """Tell those webhooks of the team, and of all teams, that want this type of event.

    `data` holds ids, names, versions, counters and codes, never texts or metadata. Where nobody wants the event this is
    one look at an index. Raises ValueError for a type that there is not.
    """
    emit_all(transaction, event_type, team_id, lambda: [data])


def emit_all(
    transaction: Transaction, event_type: str, team_id: str, each: Callable[[], Sequence[Mapping[str, Any]]]
) -> None:
    """One event for each of what `each` gives; it is called only where somebody wants them."""
    wanted = EventType(event_type)
    found = transaction.connection.execute(_LISTENERS, {"team": team_id})
    listening = [row for row in found if wanted in row.events]
    if not listening:
        return
    now = utc_now()
    events = [
        {"id": new_id("msg"), "team_id": team_id, "type": wanted, "data": _bounded(data), "at": now} for data in each()
    ]
    if events:
        # Also where every listener is disabled at the moment: it can have them replayed.
        transaction.connection.execute(insert(outbox), events)
        queue(transaction, [str(row.id) for row in listening if row.enabled], [str(one["id"]) for one in events])


def queue(transaction: Transaction, webhook_ids: Sequence[str], event_ids: Sequence[str]) -> None:
    """Each of these events is to be told to each of these webhooks, now."""
    now = utc_now()
    rows = [
        {
            "id": new_id("dlv"),
            "webhook_id": webhook_id,
            "event_id": event_id,
            "state": WAITING,
            "attempts": 0,
            "history": [],
            "next_at": now,
            "created_at": now,
        }
        for webhook_id in webhook_ids
        for event_id in event_ids
    ]
    if rows:
        transaction.connection.execute(insert(deliveries), rows)
        transaction.told.update(webhook_ids)


def documents_told(connection: Connection, document_ids: Sequence[str]) -> list[dict[str, Any]]:
    """What events tell of these documents, deleted or not."""
    columns = (documents.c[name] for name in ("external_id", "collection_id", "source_id", "version"))
    query = select(documents.c.id.label("document_id"), *columns)
    parts = (document_ids[start : start + _PART] for start in range(0, len(document_ids), _PART))
    found = [row for part in parts for row in connection.execute(query.where(documents.c.id.in_(part)))]
    return [{**row._mapping, "source_id": row.source_id or None} for row in found]


def _bounded(data: Mapping[str, Any]) -> Mapping[str, Any]:
    return data if len(json.dumps(data)) <= _MOST_BYTES else {"too_large": True}
