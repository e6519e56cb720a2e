"""Delivers events: at least once, with the same id each time, over a day if it must be.

One job tells one webhook all that is due. An attempt is claimed before and recorded after it: whoever is killed in
between leaves it to others, who may then tell it a second time. The order of events is not kept.
"""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from rag_service import __version__
from rag_service.db import Connection, Database, Transaction, deliveries, webhooks
from rag_service.db.deliveries import Delivery
from rag_service.db.jobs import Job
from rag_service.db.webhooks import Webhook
from rag_service.errors import ConfigError, RetryableError
from rag_service.ingest.doorbell import Doorbell
from rag_service.observe import metrics
from rag_service.types import JobKind, JobState, new_id, utc_now
from rag_service.webhooks import signing
from rag_service.webhooks.post import DELIVERED, GONE, Answer, Post
from rag_service.webhooks.secrets import WebhookSecrets

log = logging.getLogger(__name__)

# Seconds after each failed attempt: eight attempts over 25 hours, so that a receiver that is down for a day misses
# nothing. As the specification of Standard Webhooks advises, each wait is a little longer at random.
WAITS_S = (5.0, 300.0, 1_800.0, 7_200.0, 18_000.0, 36_000.0, 28_800.0)
_JITTER = 0.1
# A webhook that has accepted nothing for so long is disabled.
_GIVE_UP_AFTER = timedelta(hours=24)
# One that accepts nothing is left alone for a quarter of the time that this has lasted, within these bounds.
_PAUSE_S = (5.0, 1_800.0)
_AT_ONCE = 8
_SIDE_BY_SIDE = 4
_SLICE_S = 20.0
_FORGET_EVERY_S = 60.0


@dataclass
class Courier:
    """`retention_s`: seconds for which events are kept, delivered or not."""

    database: Database
    doorbell: Doorbell
    secrets: WebhookSecrets
    post: Post
    stopping: threading.Event
    retention_s: float
    _forgot_at: float | None = None

    def wake(self, webhook_ids: Collection[str]) -> None:
        """See that a job tells each of these webhooks what is due. Never raises: the next sweep tries again."""
        try:
            with self.database.read() as connection:
                idle = set(webhook_ids) - deliveries.being_told(connection)
            if idle:
                with self.database.transaction() as transaction:
                    self._queue(transaction, idle)
        except RetryableError as error:
            log.warning("webhooks are told later: %s", error)

    def _queue(self, transaction: Transaction, webhook_ids: Collection[str]) -> None:
        for webhook_id in sorted(set(webhook_ids) - deliveries.being_told(transaction.connection)):
            webhook = webhooks.load(transaction.connection, webhook_id)
            if webhook is not None:
                self.doorbell.add(transaction, JobKind.DELIVER, webhook.team_id, payload={"webhook": webhook_id})

    def sweep(self) -> None:
        """Wake what has become due, and forget what is old (that, once a minute)."""
        with self.database.read() as connection:
            due = deliveries.due_webhooks(connection)
        if due:
            self.wake(due)
        now = time.monotonic()
        if self._forgot_at is None or now - self._forgot_at >= _FORGET_EVERY_S:
            self._forgot_at = now
            with self.database.transaction() as transaction:
                deliveries.forget(transaction.connection, utc_now() - timedelta(seconds=self.retention_s))

    def run(self, job: Job) -> JobState | None:
        """Tell the job's webhook what is due, for a while; None when there is more."""
        until = time.monotonic() + _SLICE_S
        while claimed := self._claimed(str(job.payload["webhook"])):
            self._tell(*claimed)
            if self.stopping.is_set() or time.monotonic() > until:
                self.doorbell.hand_back(job)
                return None
        return JobState.SUCCEEDED

    def try_out(self, webhook: Webhook) -> Answer:
        """Send one message of the type `webhook.test`, once; it is kept nowhere. Raises ConfigError."""
        body = _body("webhook.test", webhook.team_id, utc_now(), {"webhook_id": webhook.id})
        return self._send(webhook, self.secrets.valid(webhook), new_id("msg"), body)

    def _claimed(self, webhook_id: str) -> tuple[Webhook, list[Delivery]] | None:
        """What is due to a webhook that may be told; of one that fails a single one, to see whether it still does."""
        with self.database.transaction() as transaction:
            webhook = webhooks.load(transaction.connection, webhook_id)
            if webhook is None or not webhook.enabled or (webhook.resume_at or utc_now()) > utc_now():
                return None
            most = _AT_ONCE if webhook.failing_since is None else 1
            # Longer than two attempts can take, one after the other: eight messages share four threads.
            lease_s = 5 + 3 * self.post.timeout_s
            batch = deliveries.claim(transaction.connection, webhook_id, most, lease_s)
            return (webhook, batch) if batch else None

    def _tell(self, webhook: Webhook, batch: Sequence[Delivery]) -> None:
        try:
            keys = self.secrets.valid(webhook)
        except ConfigError:
            log.warning("webhook %s: its secret cannot be opened", webhook.id)
            answers = [Answer("secret_unreadable")] * len(batch)
        else:
            with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="webhooks") as threads:
                answers = list(threads.map(lambda one: self._send(webhook, keys, one.event_id, body_of(one)), batch))
        with self.database.transaction() as transaction:
            for delivery, answer in zip(batch, answers, strict=True):
                _note(transaction.connection, delivery, answer)
            self._judge(transaction, webhook, answers)

    def _send(self, webhook: Webhook, keys: Sequence[str], message_id: str, body: bytes) -> Answer:
        signed = signing.headers(keys, message_id, int(time.time()), body)
        headers = {"Content-Type": "application/json", "User-Agent": f"rag-service/{__version__}", **signed}
        answer = self.post.send(webhook.url, headers, body)
        metrics.webhook_told(answer.reason)
        return answer

    def _judge(self, transaction: Transaction, webhook: Webhook, answers: Sequence[Answer]) -> None:
        """Note on the webhook how it is doing: one that only fails is left alone for a while, and one day for good."""
        connection, now = transaction.connection, utc_now()
        if any(answer.reason == DELIVERED for answer in answers):
            if webhook.failing_since is not None:
                webhooks.change(connection, webhook.id, failing_since=None, resume_at=None)
            return
        since = webhook.failing_since or now
        pause = min(max((now - since).total_seconds() / 4, _PAUSE_S[0]), _PAUSE_S[1])
        webhooks.change(connection, webhook.id, failing_since=since, resume_at=now + timedelta(seconds=pause))
        gone = any(answer.reason == GONE for answer in answers)
        if gone or now - since >= _GIVE_UP_AFTER:
            reason = "gone" if gone else "failing"
            webhooks.change(connection, webhook.id, enabled=False, disabled_reason=reason)
            transaction.audit("webhook.disabled", webhook.id, team=webhook.team_id or None, reason=reason)


def body_of(delivery: Delivery) -> bytes:
    """What is sent: the same bytes each time."""
    return _body(delivery.type, delivery.team_id, delivery.at, delivery.data)


def _body(event_type: str, team_id: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    told = {"type": event_type, "timestamp": at.isoformat(), "team_id": team_id or None, "data": dict(data)}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def _wait_s(failures: int, draw: Callable[[float, float], float] = random.uniform) -> float:
    return WAITS_S[failures] * draw(1.0, 1.0 + _JITTER)


def _note(connection: Connection, delivery: Delivery, answer: Answer) -> None:
    attempt = {"at": utc_now().isoformat(), "status": answer.status, "reason": answer.reason, "ms": answer.ms}
    if answer.reason == DELIVERED:
        deliveries.record(connection, delivery, deliveries.DELIVERED, attempt, None)
    elif delivery.attempts >= len(WAITS_S):
        deliveries.record(connection, delivery, deliveries.FAILED, attempt, None)
    else:
        later = utc_now() + timedelta(seconds=max(_wait_s(delivery.attempts), answer.retry_after))
        deliveries.record(connection, delivery, "waiting", attempt, later)
