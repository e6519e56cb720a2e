"""Secrets of webhooks at rest: encrypted, bound to their webhook, replaced and re-encrypted without a gap."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest
from sqlalchemy import Connection

from rag_service.db import Database, audit, webhooks
from rag_service.db.webhooks import Webhook
from rag_service.errors import ConfigError, Conflict
from rag_service.runtime.secret_keys import check_keys
from rag_service.types import EventType
from rag_service.vault import Vault
from rag_service.webhooks.secrets import WebhookSecrets

FIRST, SECOND = os.urandom(32), os.urandom(32)


def keeping(database: Database, *keys: bytes) -> WebhookSecrets:
    return WebhookSecrets(database, Vault(lambda: keys))


def hook(database: Database) -> Webhook:
    with database.transaction() as transaction:
        events = [EventType.PROBE_FAILED]
        return webhooks.add(transaction.connection, "a", url="https://hooks.example", events=events, description="")


def now(database: Database, webhook: Webhook) -> Webhook:
    with database.read() as connection:
        return webhooks.get(connection, webhook.team_id, webhook.id)


def renewed(database: Database, webhook: Webhook, overlap_s: float = 0, *keys: bytes) -> str:
    with database.transaction() as transaction:
        overlap = timedelta(seconds=overlap_s)
        return keeping(database, *(keys or (FIRST,))).renew(transaction.connection, now(database, webhook), overlap)


def test_the_newest_secret_comes_first_and_former_ones_sign_as_long_as_said(database: Database) -> None:
    webhook = hook(database)
    secrets = keeping(database, FIRST)
    first = renewed(database, webhook)
    assert secrets.valid(now(database, webhook)) == [first]
    second = renewed(database, webhook, 3600)
    assert secrets.valid(now(database, webhook)) == [second, first]
    third = renewed(database, webhook, 3600)
    assert secrets.valid(now(database, webhook)) == [third, second, first]
    # A later rotation never prolongs what an earlier one has put an end to.
    fourth = renewed(database, webhook, 0)
    assert secrets.valid(now(database, webhook)) == [fourth]
    assert len(now(database, webhook).secrets) == 1


def test_so_many_secrets_sign_and_no_more(database: Database) -> None:
    webhook = hook(database)
    made = [renewed(database, webhook, 3600) for _ in range(6)]
    assert keeping(database, FIRST).valid(now(database, webhook)) == made[:2:-1]


def test_a_secret_that_is_copied_to_another_webhook_does_not_open(database: Database) -> None:
    mine, other = hook(database), hook(database)
    renewed(database, mine)
    with database.transaction() as transaction:
        webhooks.change(transaction.connection, other.id, secrets=list(now(database, mine).secrets))
    with pytest.raises(ConfigError, match="copied here"):
        keeping(database, FIRST).valid(now(database, other))


def test_without_a_key_there_is_no_webhook(database: Database) -> None:
    with pytest.raises(Conflict, match="RAG_SECRET_KEYS"), database.transaction() as transaction:
        keeping(database).renew(transaction.connection, hook_of(transaction.connection), timedelta(0))


def hook_of(connection: Connection) -> Webhook:
    return webhooks.add(connection, "a", url="https://hooks.example", events=[EventType.PROBE_FAILED], description="")


def test_a_service_that_lacks_the_key_says_so_when_it_starts(database: Database) -> None:
    renewed(database, hook(database))
    check_keys(database, Vault(lambda: [SECOND, FIRST]))
    with pytest.raises(ConfigError, match=r"Secrets of webhooks are .* RAG_SECRET_KEYS"):
        check_keys(database, Vault(lambda: [SECOND]))


def test_rotating_the_key_keeps_the_secrets_and_their_ends(database: Database) -> None:
    webhook, stuck = hook(database), hook(database)
    made = [renewed(database, webhook, 3600) for _ in range(2)]
    renewed(database, stuck, 0, os.urandom(32))
    assert keeping(database, SECOND, FIRST).rotate() == (2, [stuck.id])
    after = now(database, webhook)
    assert keeping(database, SECOND).valid(after) == made[::-1]
    assert [one["until"] is None for one in after.secrets] == [True, False]
    with database.read() as connection:
        (entry,) = audit.in_order(connection, audit.AuditFilter(action="secrets.rotated"))
    assert (entry.target, entry.team_id, entry.detail["fields"]) == (webhook.id, "a", 2)


def test_what_cannot_be_opened_is_dropped_on_request_and_nothing_is_sent_unsigned(database: Database) -> None:
    webhook, stuck = hook(database), hook(database)
    former = renewed(database, webhook)
    lost = [renewed(database, webhook, 3600, SECOND, FIRST), renewed(database, stuck, 0, SECOND)]
    secrets = keeping(database, FIRST)
    assert secrets.rotate(drop=True) == (1, [webhook.id, stuck.id])
    assert secrets.rotate() == (3, [])
    unknown, *others = secrets.valid(now(database, webhook))
    assert (unknown in lost, others) == (False, [former])
    (only,) = secrets.valid(now(database, stuck))
    assert only not in lost
