"""Wires what tells webhooks of events."""

from __future__ import annotations

import threading

from rag_service.ingest.credentials import Credentials
from rag_service.ingest.doorbell import Doorbell
from rag_service.settings import Settings
from rag_service.webhooks.courier import Courier
from rag_service.webhooks.post import Post
from rag_service.webhooks.secrets import WebhookSecrets


def make_courier(
    settings: Settings, credentials: Credentials, doorbell: Doorbell, stopping: threading.Event
) -> Courier:
    """From here on a transaction that leaves webhooks something to be told wakes the courier when it is committed."""
    post = Post(settings.webhook_timeout_s, private=settings.webhook_private_addresses)
    secrets = WebhookSecrets(credentials.database, credentials.vault)
    courier = Courier(doorbell.database, doorbell, secrets, post, stopping, settings.webhook_retention_s)
    doorbell.database.on_told = courier.wake
    return courier
