"""SQLite's log, brought to the disk by all who wait for it at the same time together."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.engine import URL

from rag_service.errors import RetryableError
from rag_service.flushing import GroupCommit, sync_content

_CHANGES = "changes"


class WriteAheadLog:
    """Makes durable what was committed to a SQLite file.

    SQLite would do so within each commit, with its only write lock held; so the next writer would wait for the disk
    twice. A file without such a log (a file system that cannot have one) is synced by SQLite itself.
    """

    def __init__(self, url: URL) -> None:
        self._path = Path(f"{url.database}-wal")
        self._group = GroupCommit(self._sync)
        self._committed = 0  # commits that changed something
        self._durable = 0  # how many of them are known to be on the disk

    def note(self, connection: Connection) -> None:
        """That `connection` has just committed; its write lock must still keep the others out."""
        # A server counts none: it has synced what it says is committed.
        changes = getattr(connection.connection.driver_connection, "total_changes", 0)
        if connection.info.get(_CHANGES, 0) != changes:
            connection.info[_CHANGES] = changes
            self._committed += 1

    def flush(self) -> None:
        """Return once all that is committed is on the disk, by whomever: who read it may tell of it then.

        Raises RetryableError when the disk fails.
        """
        if self._durable < self._committed:
            try:
                self._group.commit()
            except OSError as error:
                raise RetryableError(
                    "The disk of the metadata database does not answer. Look at it if this repeats.",
                    code="database_unavailable",
                ) from error

    def _sync(self) -> None:
        committed = self._committed
        with suppress(FileNotFoundError):  # the last connection is closed: SQLite has synced everything
            sync_content(self._path)
        self._durable = max(self._durable, committed)
