"""The doorbell's wire: a message carries a job's id and nothing else. The jobs table is the truth.

So nothing here needs to be safe: a message that is lost is sent again by the sweeper, a second one does no harm.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dramatiq
import redis
from dramatiq import Broker, Message
from dramatiq.brokers.redis import RedisBroker, _RedisConsumer
from dramatiq.brokers.stub import StubBroker
from dramatiq.errors import BrokerError, DecodeError
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from rag_service.errors import ConfigError, RetryableError

log = logging.getLogger(__name__)

# Messages of a process that fell silent for so long are given to others; that must be more than twice the longest
# call that holds the interpreter lock, or a living worker's messages go round for ever.
_SILENT_MS = 30_000
# Looks for such processes with every command: by default with every thousandth, which took up to 15 minutes.
_ALWAYS = 1_000_000
# A Redis that hangs must not hang a request: the write it rings for is safe already.
_CONNECT_S = 2.0
_ANSWER_S = 5.0
# After a failure nothing is sent for so long: the sweeper would have to send it again anyway.
_PAUSE_S = 1.0


def make_broker(redis_url: str | None, queues: Sequence[str]) -> Broker:
    """In-process without a URL. Middleware that would retry or time out is left off: the jobs table does both."""
    broker: Broker = StubBroker(middleware=[])
    if redis_url:
        broker = _Redis(  # type: ignore[no-untyped-call] # dramatiq leaves it bare
            client=_client(redis_url), middleware=[], heartbeat_timeout=_SILENT_MS, maintenance_chance=_ALWAYS
        )
    for queue in queues:
        broker.declare_queue(queue)
    return broker


@dataclass
class Sender:
    """Sends messages; what cannot be sent is left to the sweeper, and never fails the write it was to ring for."""

    broker: Broker
    _silent_until: float = 0.0

    def send(self, queue: str, actor: str, job_id: str) -> bool:
        """Whether it was sent."""
        if time.monotonic() < self._silent_until:
            return False
        message: Message[None] = dramatiq.Message(
            queue_name=queue, actor_name=actor, args=(job_id,), kwargs={}, options={}
        )
        try:
            self.broker.enqueue(message)
        except (redis.RedisError, BrokerError, OSError) as error:
            self._silent_until = time.monotonic() + _PAUSE_S
            log.warning("not rung for now: Redis does not take messages (%s)", type(error).__name__)
            return False
        return True


def depths(broker: Broker) -> dict[str, int]:
    """How many messages wait in each queue. Raises RetryableError when the broker does not answer."""
    queues = sorted(set(broker.get_declared_queues()) - set(broker.get_declared_delay_queues()))
    if not isinstance(broker, RedisBroker):
        return {name: broker.queues[name].qsize() for name in queues}
    try:
        return {name: int(broker.do_qsize(name)) for name in queues}
    except RedisError as error:
        raise RetryableError("The queue does not answer. Try again shortly.", code="queue_unavailable") from error


def check(broker: Broker) -> None:
    """Raises RetryableError when Redis cannot be reached or is full, ConfigError when it would throw messages away."""
    if not isinstance(broker, RedisBroker):
        return
    try:
        memory = broker.client.info("memory")
    except (redis.RedisError, OSError) as error:
        raise RetryableError(f"Redis does not answer ({type(error).__name__}).", code="redis_unavailable") from error
    policy = memory.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigError(
            f"Redis evicts by the policy {policy!r}, which loses messages. Set its maxmemory-policy to noeviction.",
            code="redis_evicts",
        )
    if 0 < memory.get("maxmemory", 0) <= memory.get("used_memory", 0):
        raise RetryableError("Redis is full and takes no messages. Raise its maxmemory.", code="redis_full")


def _client(url: str) -> redis.Redis:
    try:
        return redis.Redis.from_url(
            url,
            socket_connect_timeout=_CONNECT_S,
            socket_timeout=_ANSWER_S,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 1),
        )
    except ValueError:
        raise ConfigError("RAG_REDIS_URL is no Redis URL. It looks like redis://:password@host:6379/0.") from None


class _Consumer(_RedisConsumer):
    """Steps over what is no message of ours; dramatiq's own forgets the good ones fetched together with it."""

    def __next__(self) -> dramatiq.MessageProxy | None:
        try:
            message: dramatiq.MessageProxy | None = super().__next__()  # type: ignore[no-untyped-call] # left bare
        except (DecodeError, TypeError, ValueError) as error:
            log.warning("a message that cannot be read was left out (%s)", type(error).__name__)
            return None
        return message


class _Redis(RedisBroker):
    @property
    def consumer_class(self) -> type[_RedisConsumer]:
        return _Consumer


__all__ = ["Broker", "Sender", "check", "depths", "make_broker"]
