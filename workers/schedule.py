"""What happens by the clock: due syncs are queued, and jobs whose message was lost are rung again."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, field

from rag_service.errors import RagError
from rag_service.runtime import Runtime

log = logging.getLogger(__name__)


@dataclass
class Scheduler:
    """Runs in a thread of its own until `stop`. Several may run: due work is claimed in the database."""

    runtime: Runtime
    every_s: float
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self.run, name="scheduler", daemon=True)
        self._thread.start()

    def run(self) -> None:
        while not self._stop.wait(self.every_s):
            try:
                self.runtime.sweep()
            except RagError as error:
                log.warning("sweep put off: %s", error)
            except Exception:
                # Whatever is wrong with one sweep: without the next, lost messages would stay lost.
                log.exception("a sweep failed")

    def stop(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
