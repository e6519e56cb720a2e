"""How fast a build goes, learned from what it did so far, and how long the rest of it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

# Fewer documents say nothing of the others.
_ENOUGH = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Sums over the documents built: how many, their chunks, the seconds that each of them took, and products of these.

    `worked_s` is what went by meanwhile: less than `busy_s` where several are built at a time, more where the build
    gives way to others. From them follows the line `seconds = each + chunks * per_chunk` of least squares.
    """

    documents: int = 0
    chunks: int = 0
    chunks_squared: int = 0
    busy_s: float = 0.0
    chunks_busy: float = 0.0
    worked_s: float = 0.0

    @classmethod
    def of(cls, progress: Mapping[str, Any]) -> Pace:
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in progress.items() if name in known})

    def stored(self) -> dict[str, float]:
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def after(self, chunks: int, seconds: float) -> Pace:
        """One more document of so many chunks."""
        return Pace(
            self.documents + 1,
            self.chunks + chunks,
            self.chunks_squared + chunks * chunks,
            self.busy_s + seconds,
            self.chunks_busy + chunks * seconds,
            self.worked_s,
        )

    def during(self, seconds: float) -> Pace:
        """So long did it take."""
        return Pace(
            self.documents,
            self.chunks,
            self.chunks_squared,
            self.busy_s,
            self.chunks_busy,
            self.worked_s + seconds,
        )

    @property
    def rate(self) -> float | None:
        """Chunks per second, all pauses included; None while nothing was built."""
        return self.chunks / self.worked_s if self.chunks and self.worked_s else None

    def seconds_for(self, documents: int, chunks: int) -> float | None:
        """How long so many more will take at this pace; None while too little is known of it."""
        if not documents:
            return 0.0
        busy = self.busy_for(documents, chunks)
        return None if busy is None else busy * self.worked_s / self.busy_s

    def busy_for(self, documents: int, chunks: int) -> float | None:
        """The same for one after the other, without giving way to anybody."""
        if self.documents < _ENOUGH or not self.busy_s:
            return None
        each, per_chunk = self._line()
        return each * documents + per_chunk * chunks

    def _line(self) -> tuple[float, float]:
        spread = self.documents * self.chunks_squared - self.chunks * self.chunks
        slope = (self.documents * self.chunks_busy - self.chunks * self.busy_s) / spread if spread else 0.0
        each = (self.busy_s - slope * self.chunks) / self.documents
        if slope < 0 or not self.chunks:
            return self.busy_s / self.documents, 0.0
        if each < 0 or not spread:
            return 0.0, self.busy_s / self.chunks
        return each, slope
