"""Shows how far documents are, for all that are under way at once.

A status of its own transaction per stage would cost a document as much as its commit. So the newest one of each is
written a few times a second, in one transaction; how a document ended is never left to this.
"""

from __future__ import annotations

import logging
import threading

from rag_service.db import Database, documents
from rag_service.errors import RetryableError
from rag_service.types import DocumentStatus

log = logging.getLogger(__name__)

_EVERY_S = 0.25


class ProgressBoard:
    """Statuses of document versions, written by one thread that starts with the first of them."""

    def __init__(self, database: Database, every_s: float = _EVERY_S) -> None:
        self._database = database
        self._every_s = every_s
        self._newest: dict[tuple[str, int], DocumentStatus] = {}
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def show(self, document_id: str, version: int, status: DocumentStatus) -> None:
        """Write this status soon, unless another one follows at once."""
        with self._lock:
            self._newest[document_id, version] = status
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="progress", daemon=True)
                self._thread.start()
        self._changed.set()

    def forget(self, document_id: str, version: int) -> None:
        """The version has ended: what was to be shown of it is out of date."""
        with self._lock:
            self._newest.pop((document_id, version), None)

    def close(self) -> None:
        self._stop.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def _write(self) -> None:
        while not self._stop.wait(self._every_s):
            self._changed.wait()
            self._changed.clear()
            with self._lock:
                newest, self._newest = self._newest, {}
            if not newest:
                continue
            try:
                with self._database.transaction() as transaction:
                    for (document_id, version), status in newest.items():
                        documents.show_progress(transaction.connection, document_id, version, status)
            except RetryableError:
                log.warning("progress not written: the database does not answer")
