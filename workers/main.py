"""What `dramatiq workers.main -p 1` imports: a worker process of its own, beside API processes that serve only.

dramatiq's own threads take uploads. Pools of the other queues stand beside them, and start and stop with them.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
from contextlib import ExitStack

import dramatiq
from dramatiq import Broker, Middleware, Worker

from rag_service.errors import RagError
from rag_service.garbage import seldom_collected
from rag_service.queue import make_broker
from rag_service.runtime import Runtime, build
from rag_service.runtime.observing import metrics_port, start_log, tracing
from rag_service.settings import Settings
from rag_service.types import Queue
from workers.actors import declare_actors
from workers.pools import Pools

log = logging.getLogger(__name__)

# Within what a container is usually given before it is killed.
_PATIENCE_S = 20.0
_LOADING_S = 600.0


class Beside(Middleware):
    """Starts and stops what runs beside dramatiq's own worker in its process."""

    def __init__(self, runtime: Runtime, observed: ExitStack) -> None:
        self._runtime = runtime
        self._observed = observed
        self._pools = Pools(runtime, [queue for queue in Queue if queue != Queue.UPLOADS])

    def after_worker_boot(self, _broker: Broker, _worker: Worker) -> None:
        self._pools.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        log.info("worker started")

    def _watch(self) -> None:
        while not self._runtime.runner.stopping.wait(self._runtime.settings.sweep_s):
            self._runtime.probing.fingerprints.look_if_due()

    def before_worker_shutdown(self, _broker: Broker, _worker: Worker) -> None:
        self._pools.stop(_PATIENCE_S)

    def after_worker_shutdown(self, _broker: Broker, _worker: Worker) -> None:
        self._runtime.leases.hand_back()
        self._runtime.close()
        self._observed.close()


def start() -> Broker:
    """Open the service; returns the broker that dramatiq consumes. Ends the process with a sentence if it cannot."""
    observed = ExitStack()
    try:
        settings = Settings()
        start_log(settings)
        observed.enter_context(tracing(settings))
        runtime = build(settings, role="worker")
        runtime.open()
        # A worker has no readiness that anybody asks for: with a model that has moved, it does not start.
        runtime.probing.fingerprints.check(_LOADING_S)
        observed.enter_context(metrics_port(settings))
        observed.enter_context(seldom_collected())
        gc.freeze()
    except RagError as error:
        sys.exit(error.message)
    broker = make_broker(settings.redis_url, [Queue.UPLOADS])
    broker.add_middleware(Beside(runtime, observed))
    declare_actors(broker, runtime.runner.run)
    return broker


dramatiq.set_broker(start())
