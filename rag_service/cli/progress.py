"""How far a longer piece of work has come."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

_LINE_EVERY_S = 5.0


class Progress:
    """A bar with the rate on a terminal, else a line every few seconds; `console` None keeps quiet."""

    def __init__(self, what: str, console: Console | None, unit: str = "documents") -> None:
        self._what = what
        self._console = console
        self._unit = unit
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._began = time.monotonic()
        self._last_line = self._began
        self._done = 0

    def __enter__(self) -> Progress:
        if self._console is not None and self._console.is_terminal:
            self._bar = _bar(self._console, self._unit)
            self._task = self._bar.add_task(self._what, total=None, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, done: int, total: int | None, left_s: float | None = None) -> None:
        """`left_s`: the seconds that are left, where whoever does the work says so."""
        moved, self._done = done != self._done, done
        left = "" if left_s is None else f", {_clock(left_s)} left"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, rate=f"{self.rate:.1f} {self._unit}/s{left}")
        elif self._console is not None and moved and time.monotonic() - self._last_line >= _LINE_EVERY_S:
            self._last_line = time.monotonic()
            of_all = f"/{total}" if total is not None else ""
            self._console.print(
                f"{self._what}: {done}{of_all} {self._unit}, {self.rate:.1f}/s{left}", markup=False, highlight=False
            )

    @property
    def rate(self) -> float:
        """Done per second since the beginning."""
        return self._done / max(time.monotonic() - self._began, 0.001)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bar(console: Console, unit: str) -> Bar:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total} " + unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        console=console,
    )
