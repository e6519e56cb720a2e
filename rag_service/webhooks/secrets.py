"""The secrets of webhooks: shown once, kept encrypted, each bound to its webhook."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rag_service.db import Connection, Database, webhooks
from rag_service.db.webhooks import Webhook
from rag_service.errors import ConfigError
from rag_service.types import utc_now
from rag_service.vault import Vault
from rag_service.webhooks.signing import new_secret

# The newest, and those before it that still sign.
_MOST = 3


@dataclass(frozen=True)
class WebhookSecrets:
    database: Database
    vault: Vault

    def renew(self, connection: Connection, webhook: Webhook, overlap: timedelta = timedelta(0)) -> str:
        """Give it a new secret, the only time that it is seen; the former ones sign beside it for `overlap`.

        Raises Conflict when there is no key to keep it under.
        """
        secret = new_secret()
        sealed = {**self.vault.seal(secret, _place(webhook)), "until": None}
        end = utc_now() + overlap
        former = [{**one, "until": min(_until(one) or end, end).isoformat()} for one in webhook.secrets]
        kept = [one for one in former if not _is_over(one)]
        webhooks.change(connection, webhook.id, secrets=[sealed, *kept][:_MOST])
        return secret

    def valid(self, webhook: Webhook) -> list[str]:
        """Those that sign now, the newest first. Raises ConfigError where one cannot be opened."""
        return [self.vault.open(_envelope(one), _place(webhook)) for one in webhook.secrets if not _is_over(one)]

    def rotate(self, *, drop: bool = False) -> tuple[int, list[str]]:
        """Encrypt every secret anew under the newest key; (how many, webhooks of which one could not be opened).

        `drop` forgets those that cannot be opened; else their webhooks stay as they are. A webhook that has lost its
        newest is given one that nobody knows until it is renewed: nothing is ever sent unsigned.
        """
        rotated, failed = 0, []
        with self.database.transaction() as transaction:
            for webhook in webhooks.everyone(transaction.connection):
                anew = self._sealed_anew(webhook)
                if lost := len(webhook.secrets) - len(anew):
                    failed.append(webhook.id)
                if lost and not drop:
                    continue
                rotated += len(anew)
                told: dict[str, Any] = {"key": self.vault.newest, "fields": len(anew), "dropped": lost}
                if lost and all(one["until"] for one in anew):
                    anew.insert(0, {**self.vault.seal(new_secret(), _place(webhook)), "until": None})
                webhooks.change(transaction.connection, webhook.id, secrets=anew)
                transaction.audit("secrets.rotated", webhook.id, team=webhook.team_id or None, **told)
        return rotated, failed

    def _sealed_anew(self, webhook: Webhook) -> list[dict[str, Any]]:
        """Those that can be opened."""
        anew = []
        for one in webhook.secrets:
            with suppress(ConfigError):
                opened = self.vault.open(_envelope(one), _place(webhook))
                anew.append({**self.vault.seal(opened, _place(webhook)), "until": one["until"]})
        return anew


def _place(webhook: Webhook) -> str:
    return f"webhook/{webhook.id}/secret"


def _envelope(one: Mapping[str, Any]) -> dict[str, str]:
    return {"key": one["key"], "ciphertext": one["ciphertext"]}


def _until(one: Mapping[str, Any]) -> datetime | None:
    return None if one["until"] is None else datetime.fromisoformat(one["until"])


def _is_over(one: Mapping[str, Any]) -> bool:
    until = _until(one)
    return until is not None and until <= utc_now()
