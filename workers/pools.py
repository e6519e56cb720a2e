"""Threads for each queue of their own: a sync that runs for half a minute never keeps an upload waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from dataclasses import dataclass, field

import dramatiq

from rag_service.runtime import Runtime
from rag_service.types import Queue
from workers.actors import declare_actors

log = logging.getLogger(__name__)

# How long an idle consumer waits before it asks Redis again, at most.
_POLL_MS = 200


@dataclass
class Pools:
    """Runs the jobs of `queues` until `stop`."""

    runtime: Runtime
    queues: Collection[Queue] = tuple(Queue)
    _workers: list[dramatiq.Worker] = field(default_factory=list)

    def start(self) -> None:
        broker = self.runtime.broker
        declare_actors(broker, self.runtime.runner.run)
        standing = list(broker.middleware)
        for queue in self.queues:
            worker = dramatiq.Worker(
                broker, queues={queue}, worker_timeout=_POLL_MS, worker_threads=self._threads(queue)
            )
            worker.start()
            self._workers.append(worker)
            # What tells the worker of queues has told it of all there will be; a second one would be warned of.
            broker.middleware[:] = standing

    def stop(self, patience_s: float) -> None:
        """Take nothing more; wait for what is under way, then hand the rest back to be run by others."""
        self.runtime.runner.stopping.set()
        patience_ms = int(patience_s * 1000)
        stopping = [threading.Thread(target=worker.stop, args=(patience_ms,)) for worker in self._workers]
        for thread in stopping:
            thread.start()
        for thread in stopping:
            thread.join()
        self._workers.clear()
        self.runtime.leases.hand_back()

    def _threads(self, queue: Queue) -> int:
        """Syncs and maintenance read and tidy; what takes long in them is seldom ours to hasten."""
        full = self.runtime.settings.worker_threads
        return full if queue in (Queue.UPLOADS, Queue.BULK) else max(1, full // 4)
