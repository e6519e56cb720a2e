"""What `dramatiq workers.main -p 1` imports: a worker process of its own, beside API processes that serve only.

dramatiq's own threads take uploads. Pools of the other queues stand beside them, and start and stop with them.
"""

from __future__ import annotations

import sys

import dramatiq
from dramatiq import Broker, Middleware, Worker

from rag_service.errors import RagError
from rag_service.queue import make_broker
from rag_service.runtime import Runtime, build
from rag_service.settings import Settings
from rag_service.types import Queue
from workers.actors import declare_actors
from workers.pools import Pools

# Within what a container is usually given before it is killed.
_PATIENCE_S = 20.0


class Beside(Middleware):
    """Starts and stops what runs beside dramatiq's own worker in its process."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._pools = Pools(runtime, [queue for queue in Queue if queue != Queue.UPLOADS])

    def after_worker_boot(self, _broker: Broker, _worker: Worker) -> None:
        self._pools.start()

    def before_worker_shutdown(self, _broker: Broker, _worker: Worker) -> None:
        self._pools.stop(_PATIENCE_S)

    def after_worker_shutdown(self, _broker: Broker, _worker: Worker) -> None:
        self._runtime.leases.hand_back()
        self._runtime.close()


def start() -> Broker:
    """Open the service; returns the broker that dramatiq consumes. Ends the process with a sentence if it cannot."""
    try:
        runtime = build(Settings(), role="worker")
        runtime.open()
    except RagError as error:
        sys.exit(error.message)
    broker = make_broker(runtime.settings.redis_url, [Queue.UPLOADS])
    broker.add_middleware(Beside(runtime))
    declare_actors(broker, runtime.runner.run)
    return broker


dramatiq.set_broker(start())
