"""The doorbell: a message carries a job's id and nothing else. The jobs table is the truth."""

from __future__ import annotations

import dramatiq
from dramatiq import Broker, Message
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from redis.exceptions import RedisError

from rag_service.errors import RetryableError

QUEUE = "rag"


def make_broker(redis_url: str | None) -> Broker:
    """In-process without a URL. Middleware that would retry or time out is left off: the jobs table does both."""
    broker: Broker = StubBroker(middleware=[])
    if redis_url:
        broker = RedisBroker(url=redis_url, middleware=[])  # type: ignore[no-untyped-call] # dramatiq leaves it bare
    broker.declare_queue(QUEUE)
    return broker


def send(broker: Broker, kind: str, job_id: str) -> None:
    """Ring for a job. A message that is lost is sent again by the sweeper."""
    message: Message[None] = dramatiq.Message(queue_name=QUEUE, actor_name=kind, args=(job_id,), kwargs={}, options={})
    broker.enqueue(message)


def depths(broker: Broker) -> dict[str, int]:
    """How many messages wait in each queue. Raises RetryableError when the broker does not answer."""
    queues = sorted(set(broker.get_declared_queues()) - set(broker.get_declared_delay_queues()))
    if not isinstance(broker, RedisBroker):
        return {name: broker.queues[name].qsize() for name in queues}
    try:
        return {name: int(broker.do_qsize(name)) for name in queues}
    except RedisError as error:
        raise RetryableError("The queue does not answer. Try again shortly.", code="queue_unavailable") from error


__all__ = ["QUEUE", "Broker", "depths", "make_broker", "send"]
