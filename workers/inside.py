"""The worker of the embedded mode: threads inside the process that serves."""

from __future__ import annotations

from dataclasses import dataclass

from rag_service.runtime import Runtime
from workers.pools import Pools
from workers.schedule import Scheduler

_PATIENCE_S = 20.0


@dataclass
class InsideWorker:
    """Runs jobs and the scheduler in threads until `stop`."""

    runtime: Runtime
    _pools: Pools | None = None
    _scheduler: Scheduler | None = None

    def start(self) -> None:
        """Take up what a former process left, then go on with what comes."""
        self._pools = Pools(self.runtime)
        self._pools.start()
        self.runtime.recover()
        self._scheduler = Scheduler(self.runtime, self.runtime.settings.sweep_s)
        self._scheduler.start()

    def stop(self) -> None:
        """Let the jobs under way reach their next safe point; what is queued stays queued in the database."""
        self.runtime.runner.stopping.set()
        if self._scheduler is not None:
            self._scheduler.stop()
        if self._pools is not None:
            self._pools.stop(_PATIENCE_S)
