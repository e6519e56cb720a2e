"""One actor per kind of job. A message is an id; what to do, and how it ended, is in the jobs table."""

from __future__ import annotations

from collections.abc import Callable

import dramatiq
from dramatiq import Broker

from rag_service.types import JobKind


def declare_actors(broker: Broker, run: Callable[[str], None]) -> None:
    """Messages name their queue themselves, so an actor serves every queue that its broker consumes."""
    queue = min(broker.get_declared_queues())
    for kind in JobKind:
        dramatiq.actor(actor_name=kind.value, queue_name=queue, broker=broker)(run)
