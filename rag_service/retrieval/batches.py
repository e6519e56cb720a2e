"""Rows that are written beside the requests that cause them: in batches, by one thread, none lost at a stop."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from rag_service.db import Database, Transaction
from rag_service.errors import RetryableError

T = TypeVar("T")

logger = logging.getLogger("rag_service.retrieval")

_BATCH_S = 0.5
_AT_ONCE = 500


class BatchWriter(Generic[T]):
    """Hands what was added to `write`, up to 500 at a time, each in one transaction, twice a second.

    While the database does not answer, at most `waiting` are kept in memory; the oldest go first, with a word in the
    log. `name` says what they are.
    """

    def __init__(
        self, database: Database, write: Callable[[Transaction, Sequence[T]], object], *, name: str, waiting: int
    ) -> None:
        self._database = database
        self._write = write
        self._name = name
        self._waiting: deque[T] = deque(maxlen=waiting)
        self._lost = 0
        self._writing = threading.Lock()
        self._starting = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, item: T) -> None:
        """Costs an append. Of no effect after `close`."""
        if self._closing.is_set():
            return
        if len(self._waiting) == self._waiting.maxlen:
            self._lost += 1
        self._waiting.append(item)
        if not self._wake.is_set():
            self._wake.set()
            self._start()

    def flush(self) -> None:
        """Everything added before is in the database when this returns. Raises RetryableError."""
        with self._writing:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(_AT_ONCE, len(self._waiting)))]
                try:
                    with self._database.transaction() as transaction:
                        self._write(transaction, batch)
                except RetryableError:
                    self._waiting.extendleft(reversed(batch))
                    raise

    def close(self) -> None:
        """Write what waits, then end the thread."""
        self._closing.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self._flush_or_wait()

    def _start(self) -> None:
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            self._closing.wait(_BATCH_S)
            self._wake.clear()
            self._flush_or_wait()

    def _flush_or_wait(self) -> None:
        if self._lost:
            logger.error("%d %s were lost: the database was away for too long", self._lost, self._name)
            self._lost = 0
        try:
            self.flush()
        except RetryableError as error:
            logger.warning("%s wait: %s", self._name, error)
            if not self._closing.is_set():
                self._wake.set()
