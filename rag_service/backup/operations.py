"""Runs a backup or a reconciling, on record and with a lease that is prolonged as long as it runs."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rag_service.backup.take import Progress
from rag_service.db import Database, operations
from rag_service.db.operations import Operation, OperationKind
from rag_service.errors import RagError, RetryableError

log = logging.getLogger(__name__)

LEASE_S = 60.0
_BEAT_S = 1.0

Work: TypeAlias = Callable[[Progress], Mapping[str, Any]]
"""Does it and returns a report; calls what it is given often, which raises when it is to stop."""


class InterruptedOperation(RetryableError):
    """The service was stopped meanwhile. Start it again."""

    default_code = "interrupted"


class LostHold(RetryableError):
    """The operation stood still for too long and others went on. Start it again."""

    default_code = "lost_hold"


@dataclass
class Operations:
    """One of each kind runs at a time, whichever process runs it."""

    database: Database
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def run(self, kind: OperationKind, work: Work) -> Operation:
        """Do it in this thread. Its failure is on the record that is returned. Raises Conflict when one is running."""
        return self._run(self._begin(kind), work)

    def start(self, kind: OperationKind, work: Work) -> Operation:
        """Do it in a thread of its own; returns its record as it begins. Raises Conflict when one is running."""
        begun = self._begin(kind)
        thread = threading.Thread(target=self._run, args=(begun, work), name=kind.value)
        self._threads = [running for running in self._threads if running.is_alive()] + [thread]
        thread.start()
        return begun

    def close(self) -> None:
        """Stop what is running, which leaves nothing half-done behind."""
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _begin(self, kind: OperationKind) -> Operation:
        with self.database.transaction() as transaction:
            begun = operations.begin(transaction.connection, kind, LEASE_S)
            transaction.audit(f"{kind}.started", begun.id, team=None)
            return begun

    def _run(self, operation: Operation, work: Work) -> Operation:
        try:
            with self._beating(operation.id) as beat:
                report = work(beat.progress)
                beat.renew()
        except RagError as error:
            return self._fail(operation, error.code, error.message)
        except (OSError, sqlite3.Error) as error:
            return self._fail(operation, "disk_failed", f"The disk failed ({error}). Look for room and rights.")
        except Exception as error:
            log.exception("%s %s failed", operation.kind, operation.id)
            return self._fail(
                operation, "internal_error", f"A defect of the service ({type(error).__name__}). See its log."
            )
        with self.database.transaction() as transaction:
            return operations.finish(transaction.connection, operation.id, report=report)

    def _fail(self, operation: Operation, code: str, message: str) -> Operation:
        error = {"code": code, "message": message}
        with self.database.transaction() as transaction:
            return operations.finish(transaction.connection, operation.id, error=error)

    @contextmanager
    def _beating(self, operation_id: str) -> Iterator[_Beat]:
        beat = _Beat(self.database, operation_id, self._stopping)
        thread = threading.Thread(target=beat.run, name="operation")
        thread.start()
        try:
            yield beat
        finally:
            beat.over.set()
            thread.join()


@dataclass
class _Beat:
    """Prolongs one operation's lease, and tells its worker when it is lost."""

    database: Database
    operation_id: str
    stopping: threading.Event
    over: threading.Event = field(default_factory=threading.Event)
    lost: bool = False
    shown: Mapping[str, Any] = field(default_factory=dict)

    def progress(self, stage: str, done: int, total: int | None) -> None:
        self.shown = {"stage": stage, "done": done, "total": total}
        if self.stopping.is_set():
            raise InterruptedOperation
        if self.lost:
            raise LostHold

    def run(self) -> None:
        while not self.over.wait(_BEAT_S):
            try:
                self._renew()
            except RetryableError:
                log.warning("the lease of %s not renewed: trying again", self.operation_id)

    def renew(self) -> None:
        """At the end: raises LostHold unless the lease was kept throughout."""
        self._renew()
        if self.lost:
            raise LostHold

    def _renew(self) -> None:
        with self.database.transaction() as transaction:
            kept = operations.keep(transaction.connection, self.operation_id, LEASE_S, self.shown)
        self.lost = self.lost or not kept
