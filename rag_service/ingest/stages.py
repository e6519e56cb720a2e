"""Where a job is and how long each stage took: what an error record and a job's `stages_ms` are made of."""

from __future__ import annotations

import time


class Stages:
    def __init__(self, first: str) -> None:
        self.current = first
        self._since = time.perf_counter()
        self._spent: dict[str, float] = {}

    def enter(self, stage: str) -> None:
        self._spent = self.spent_ms()
        self.current = stage
        self._since = time.perf_counter()

    def spent_ms(self) -> dict[str, float]:
        """Milliseconds per stage so far, the present one included."""
        now = (time.perf_counter() - self._since) * 1000
        return {**self._spent, self.current: self._spent.get(self.current, 0.0) + now}
