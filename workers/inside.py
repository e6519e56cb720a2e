"""The worker of the embedded mode: threads inside the process that serves."""

from __future__ import annotations

from dataclasses import dataclass

import dramatiq

from rag_service.runtime import Runtime
from workers.actors import declare_actors
from workers.schedule import Scheduler


@dataclass
class InsideWorker:
    """Runs jobs and the scheduler in threads until `stop`."""

    runtime: Runtime
    _worker: dramatiq.Worker | None = None
    _scheduler: Scheduler | None = None

    def start(self) -> None:
        """Take up what a former process left, then go on with what comes."""
        declare_actors(self.runtime.broker, self.runtime.runner.run)
        self._worker = dramatiq.Worker(self.runtime.broker, worker_threads=self.runtime.settings.worker_threads)
        self._worker.start()
        self.runtime.recover()
        self._scheduler = Scheduler(self.runtime, self.runtime.settings.sweep_s)
        self._scheduler.start()

    def stop(self) -> None:
        """Let the jobs under way reach their next safe point; what is queued stays queued in the database."""
        self.runtime.runner.stopping.set()
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._worker is not None:
            self._worker.stop(timeout=20_000)
