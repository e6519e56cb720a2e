"""Traces of queries, written in batches by one thread, so that no question waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeAlias

from rag_service.db import Database, Transaction, queries
from rag_service.db.queries import Trace
from rag_service.retrieval.batches import BatchWriter
from rag_service.types import utc_now

Make: TypeAlias = Callable[[], Trace]

_WAITING = 10_000  # traces in memory while the database does not answer
_FORGET_EVERY_S = 60.0


class Traces:
    """Keeps the share `sample` (0 to 1) of queries for `retention_s` seconds, and the newest `limit` at most.

    Which queries are kept follows from their ids, which are random: no query is kept for what it asks.
    """

    def __init__(self, database: Database, *, sample: float, retention_s: float, limit: int) -> None:
        self._database = database
        self._sample = sample
        self._retention = timedelta(seconds=retention_s)
        self._limit = limit
        self._writer = BatchWriter(database, _write, name="traces", waiting=_WAITING)
        self._forgot_at: float | None = None

    def takes(self, query_id: str) -> bool:
        """Whether the query of this id is one that is kept."""
        return int(query_id[-8:], 16) < self._sample * 2**32

    def record(self, query_id: str, make: Make) -> None:
        """Keep what `make` gives, if the query is one of the sample; `make` runs later, in the writing thread."""
        if self.takes(query_id):
            self._writer.add(make)

    def get(self, team_id: str, query_id: str, *, asked_by: str | None = None) -> Trace:
        """The trace, also one recorded a moment ago by this process. Raises NotFound, see `queries.get`."""
        self.flush()
        with self._database.read() as connection:
            return queries.get(connection, team_id, query_id, asked_by=asked_by)

    def flush(self) -> None:
        """Write what waits. Raises RetryableError."""
        self._writer.flush()

    def forget_old(self) -> None:
        """Delete what is over its time or beyond the limit; does so once a minute however often it is called."""
        now = time.monotonic()
        if self._forgot_at is not None and now - self._forgot_at < _FORGET_EVERY_S:
            return
        self._forgot_at = now
        with self._database.read() as connection:
            up_to = queries.beyond(connection, self._limit)
        with self._database.transaction() as transaction:
            queries.forget(transaction.connection, utc_now() - self._retention, up_to)

    def close(self) -> None:
        """Write what waits, then end the thread."""
        self._writer.close()


def _write(transaction: Transaction, makers: Sequence[Make]) -> None:
    queries.add_all(transaction.connection, [make() for make in makers])
