"""Bringing files to the disk; threads that wait for the same one share a flush."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

from rag_service.errors import RetryableError

_SYNC_CONTENT: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)  # macOS has the latter only


def sync(path: Path) -> None:
    """Return once the file or folder, as it is now, is on the disk. Other threads go on meanwhile."""
    _opened(path, os.fsync)


def sync_content(path: Path) -> None:
    """`sync` of what a file holds, without the times of its last change."""
    _opened(path, _SYNC_CONTENT)


def _opened(path: Path, bring: Callable[[int], None]) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        bring(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """`sync` of a folder and of the files in it, which may be renamed meanwhile."""
    while True:
        paths = list(folder.iterdir())  # raises when the folder itself is gone
        try:
            for path in paths:
                sync(path)
        except FileNotFoundError:
            continue
        return sync(folder)


class GroupCommit:
    """Makes what its callers have written durable, with as few calls of `flush` as possible."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._flushing = Lock()
        self._joining = Lock()
        self._next: Future[None] | None = None

    def commit(self) -> None:
        """Return once a flush that began after this call has ended; raise what that flush raised."""
        with self._joining:
            leads = self._next is None
            group = self._next = self._next or Future()
        if leads:
            self._lead(group)
        group.result()

    def _lead(self, group: Future[None]) -> None:
        try:
            with self._flushing:
                self._close(group)
                self._flush()
        except BaseException as error:
            self._close(group)
            # An interrupt of this thread is not an interrupt of those who wait with it.
            group.set_exception(error if isinstance(error, Exception) else RetryableError())
            raise
        group.set_result(None)

    def _close(self, group: Future[None]) -> None:
        with self._joining:
            if self._next is group:
                self._next = None
