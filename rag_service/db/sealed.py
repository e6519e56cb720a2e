"""What is stored encrypted, and under which keys."""

from __future__ import annotations

from sqlalchemy import Connection

from rag_service.db import sources, webhooks


def key_ids(connection: Connection) -> dict[str, set[str]]:
    """Ids of the keys that it is encrypted under, by what it is."""
    of_sources = {envelope["key"] for one in sources.all_secrets(connection) for envelope in one.values()}
    of_webhooks = {str(one["key"]) for webhook in webhooks.everyone(connection) for one in webhook.secrets}
    return {"credentials of sources": of_sources, "secrets of webhooks": of_webhooks}
