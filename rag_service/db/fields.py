"""What of a document a caller's filter may name, as stored beside each of its chunks."""

from __future__ import annotations

from typing import Any

from rag_service.db.documents import Document


def fields_of(document: Document) -> dict[str, Any]:
    return {
        "source": document.source_id or None,
        "title": document.title,
        "media_type": document.media_type,
        "external_id": document.external_id,
        "uri": document.uri,
        "created_at": document.created_at.isoformat(),
        "updated_at": document.updated_at.isoformat(),
        "metadata": dict(document.metadata),
    }
