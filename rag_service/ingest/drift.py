"""Whether the vector store holds what the database says it does: counted now and then, index by index."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from rag_service.db import Database, census, collections
from rag_service.errors import NotFound
from rag_service.observe import metrics
from rag_service.types import IndexVersion
from rag_service.vectors.base import VectorStore

EVERY_S = 300.0


@dataclass
class Drift:
    """Compares numbers of chunks, which is cheap; which chunks they are is for a reconciliation to find out."""

    database: Database
    vectors: VectorStore
    every_s: float = EVERY_S
    _next: float = field(default=0.0, init=False)

    def look_if_due(self) -> None:
        """Compare once in `every_s` seconds, however often it is called. Raises RetryableError."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + self.every_s
            self.look()

    def look(self) -> int:
        """The chunks that database and store differ by, over all indexes whose team has no work under way.

        While a team's documents are being indexed the two differ rightly: points are written before the commit that
        makes them answer, and former ones deleted after it.
        """
        at_rest, known = self._at_rest()
        apart = {index.id: abs(self._held(index) - known.get(index.id, 0)) for index in at_rest}
        if any(apart.values()):
            # What began after the first look is no difference either.
            still, known_now = self._at_rest()
            unmoved = {index.id for index in still if known_now.get(index.id) == known.get(index.id)}
            apart = {index: chunks for index, chunks in apart.items() if index in unmoved}
        total = sum(apart.values())
        metrics.index_compared(total, len(apart))
        return total

    def _at_rest(self) -> tuple[list[IndexVersion], dict[str, int]]:
        with self.database.read() as connection:
            working = census.teams_at_work(connection)
            idle = [index for index, team in collections.all_active_by_team(connection) if team not in working]
            return idle, census.chunks_by_index(connection)

    def _held(self, index: IndexVersion) -> int:
        try:
            return self.vectors.count(index.id)
        except NotFound:
            return 0
