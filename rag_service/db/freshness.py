"""When the newest content of a collection, or of one source, came in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, FromClause, Select, select

from rag_service.db.tables import document_events, documents

# The kind of event that a new version of a document leaves; indexing it anew leaves another.
_ACCEPTED = "accepted"
_RECENT = 1_000
_EVENTS = select(document_events).where(document_events.c.kind == _ACCEPTED)


def newest(connection: Connection, collection_id: str, source_id: str | None = None) -> datetime | None:
    """When the newest version was accepted of any document that can be found; None while there is none.

    Looks at what came in last of all first: going through all of a collection of 100,000 documents takes half a second.
    """
    recent = _EVENTS.order_by(document_events.c.id.desc()).limit(_RECENT)
    for events in (recent, _EVENTS):
        found: datetime | None = connection.execute(_newest(events.subquery(), collection_id, source_id)).scalar()
        if found is not None:
            return found
    return None


def _newest(events: FromClause, collection_id: str, source_id: str | None) -> Select[Any]:
    """Ids sort by time."""
    query = (
        select(events.c.at)
        .join(documents, documents.c.id == events.c.document_id)
        .where(
            documents.c.collection_id == collection_id,
            documents.c.indexed_version >= events.c.version,
            documents.c.deleted_at.is_(None),
        )
        .order_by(events.c.id.desc())
        .limit(1)
    )
    return query if source_id is None else query.where(documents.c.source_id == source_id)
