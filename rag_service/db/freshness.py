"""When the newest content of a collection, or of one source, came in."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select

from rag_service.db.tables import document_events, documents

# The kind of event that a new version of a document leaves; indexing it anew leaves another.
_ACCEPTED = "accepted"


def newest(connection: Connection, collection_id: str, source_id: str | None = None) -> datetime | None:
    """When the newest version was accepted of any document that can be found; None while there is none."""
    answering = documents.c.indexed_version.is_not(None) & documents.c.deleted_at.is_(None)
    query = (
        select(document_events.c.at)
        .join(documents, documents.c.id == document_events.c.document_id)
        .where(
            documents.c.collection_id == collection_id,
            answering,
            document_events.c.kind == _ACCEPTED,
            document_events.c.version <= documents.c.indexed_version,
        )
        # Ids sort by time, and are indexed: the newest is found from their end.
        .order_by(document_events.c.id.desc())
        .limit(1)
    )
    if source_id is not None:
        query = query.where(documents.c.source_id == source_id)
    found: datetime | None = connection.execute(query).scalar()
    return found
