"""Traces of queries, written in batches by one thread, so that no question waits for them."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import TypeAlias

from rag_service.db import Database, queries
from rag_service.db.queries import Trace
from rag_service.errors import RetryableError
from rag_service.types import utc_now

logger = logging.getLogger("rag_service.retrieval")

Make: TypeAlias = Callable[[], Trace]

_BATCH_S = 0.5
_WAITING = 10_000  # traces in memory while the database does not answer; the oldest go first
_AT_ONCE = 500
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
        self._waiting: deque[Make] = deque(maxlen=_WAITING)
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._forgot_at: float | None = None

    def takes(self, query_id: str) -> bool:
        """Whether the query of this id is one that is kept."""
        return int(query_id[-8:], 16) < self._sample * 2**32

    def record(self, query_id: str, make: Make) -> None:
        """Keep what `make` gives, if the query is one of the sample; `make` runs later, in the writing thread."""
        if self.takes(query_id) and not self._closing.is_set():
            self._waiting.append(make)
            if not self._wake.is_set():
                self._wake.set()
                self._start()

    def get(self, team_id: str, query_id: str, *, asked_by: str | None = None) -> Trace:
        """The trace, also one recorded a moment ago by this process. Raises NotFound, see `queries.get`."""
        self._write()
        with self._database.read() as connection:
            return queries.get(connection, team_id, query_id, asked_by=asked_by)

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
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._write_or_wait()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_S)
            self._wake.clear()
            self._write_or_wait()

    def _write_or_wait(self) -> None:
        try:
            self._write()
        except RetryableError as error:
            logger.warning("traces wait: %s", error)
            if not self._closing.is_set():
                self._wake.set()

    def _write(self) -> None:
        """Everything recorded before is in the database when this returns. Raises RetryableError."""
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                try:
                    with self._database.transaction() as transaction:
                        queries.add_all(transaction.connection, [make() for make in batch])
                except RetryableError:
                    self._waiting.extendleft(reversed(batch))
                    raise
