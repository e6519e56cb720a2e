"""One pass over a source, in slices of bounded time, resumable at every checkpoint.

Documents that a complete listing did not see are removed, unless so many are gone that something must be wrong.
A listing that broke off removes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from connectors.base import AclChange, Change, Checkpoint, Connector, Delete, Failure, Item, Upsert
from connectors.errors import SkippableItemError, SourceError
from rag_service.db import Connection, Database, dead_letters, documents, jobs, sources
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.db.sources import ListingOverError, Source
from rag_service.errors import NotFound
from rag_service.ingest import audit_trail, cancellation, notices
from rag_service.ingest.discretion import Discreet
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.intake import Incoming, Intake, Receipt, Target
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.removal import Removal
from rag_service.types import DocumentFailure, JobKind, JobState, utc_now

_BATCH = 50
_COUNTER_OF = {"new": "new", "modified": "modified", "metadata_modified": "metadata_modified", "unchanged": "skipped"}
# Counted again for what a listing that broke off comes across once more: they go on from the checkpoint.
_OF_THE_LISTING = ("scanned", "failed")


@dataclass(frozen=True)
class Syncer:
    database: Database
    intake: Intake
    removal: Removal
    connect: Callable[[Source], Connector | Discreet]
    doorbell: Doorbell
    stopping: threading.Event
    precedence: Precedence
    max_bytes: int
    slice_s: float = 30.0

    def start(self, transaction: Transaction, source: Source, *, confirm_deletions: bool = False) -> str:
        """Queue a sync, or return the one that is on its way already."""
        running = jobs.open_sync(transaction.connection, source.id)
        if running is not None:
            return running
        return self._queue(transaction, source, {"confirm_deletions": confirm_deletions, "after": source.listing})

    def start_anew(self, transaction: Transaction, source: Source, parent_id: str) -> str | None:
        """Queue a sync that reads every item again, whatever its version tag; None while another one is on its way."""
        if jobs.open_sync(transaction.connection, source.id) is not None:
            return None
        return self._queue(transaction, source, {"confirm_deletions": False, "anew": True}, parent_id)

    def _queue(
        self, transaction: Transaction, source: Source, payload: dict[str, Any], parent_id: str | None = None
    ) -> str:
        dead_letters.supersede_syncs(transaction.connection, source.id)
        return self.doorbell.add(
            transaction, JobKind.SYNC, source.team_id, source_id=source.id, parent_id=parent_id, payload=payload
        )

    def run(self, job: Job) -> JobState | None:
        """Run one slice. Returns how the job ended, or None when it goes on (next slice, or waiting for documents)."""
        try:
            return self._run(job)
        except _TakenOverError:
            return None

    def _run(self, job: Job) -> JobState | None:
        with self.database.transaction() as transaction:
            source = self._source(transaction.connection, job)
            if source is None or source.paused:
                return JobState.CANCELED
            if not _is_under_way(job, source):
                if jobs.open_sync(transaction.connection, source.id) != job.id:
                    return JobState.CANCELED
                job, source = _begun(transaction.connection, job, source)
        return _Slice(self, job, source).run()

    def _source(self, connection: Connection, job: Job) -> Source | None:
        try:
            return sources.get(connection, job.team_id, job.source_id or "", held=True)
        except NotFound:
            return None


@dataclass
class _Slice:
    """One slice of one sync: what it has gathered and counted since the last write."""

    parts: Syncer
    job: Job
    source: Source
    pending: dict[str, Item] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        noted = self.job.payload.get("at_checkpoint", self.job.counters)
        self.counters = {**self.job.counters, **{name: noted.get(name, 0) for name in _OF_THE_LISTING}}

    @property
    def target(self) -> Target:
        source = self.source
        listing = int(self.job.payload["listing"])
        anew = bool(self.job.payload.get("anew"))
        into = source.team_id, source.collection_id
        return Target(*into, source_id=source.id, listing=listing, parent_id=self.job.id, anew=anew)

    def run(self) -> JobState | None:
        try:
            return self._list()
        except ListingOverError:
            self.parts.doorbell.hand_back(self.job)  # the next slice sees what has become of the source
            return None

    def _list(self) -> JobState | None:
        try:
            return self._take_all(self.parts.connect(self.source))
        except SourceError:
            with self._writing():  # what is wrong with a source that has been changed since is of no interest
                raise

    def _take_all(self, connector: Connector | Discreet) -> JobState | None:
        for change in connector.changes(self.source.cursor):
            if isinstance(change, Checkpoint):
                outcome = self._checkpoint(change)
                if outcome is not _GO_ON:
                    return outcome.state
            else:
                self._take(change)
                if len(self.pending) >= _BATCH:
                    self._flush()
        self._flush()
        return self._listed().state

    def _take(self, change: Change) -> None:
        if isinstance(change, Upsert):
            self._count("scanned")
            if change.item.external_id in self.pending:
                self._flush()
            self.pending[change.item.external_id] = change.item
        elif isinstance(change, Failure):
            self._count("scanned")
            self._reject(change.external_id, change.code, change.message)
        elif isinstance(change, Delete):
            self._delete(change.external_id)
        elif isinstance(change, AclChange):
            self._flush()
            self._change_acl(change)

    def _flush(self) -> None:
        """Take in what has gathered; an item that cannot be read fails alone."""
        self.parts.precedence.give_way()
        batch, self.pending = self.pending, {}
        while batch:
            incoming = [_incoming(item, self.parts.max_bytes) for item in batch.values()]
            try:
                self.parts.intake.accept(self.target, incoming, also=self._tally)
                return
            except _UnreadableError as unreadable:
                error = unreadable.error
                batch.pop(unreadable.external_id)
                self._reject(unreadable.external_id, error.code, str(error))

    def _tally(self, connection: Connection, receipts: Sequence[Receipt]) -> None:
        for receipt in receipts:
            if receipt.change != "unchanged" or receipt.document.listing != self.target.listing:  # not counted yet
                self._count(_COUNTER_OF[receipt.change])
        # A listing that breaks off at the same item every time accepts what comes before it again: no progress.
        progress = any(receipt.change != "unchanged" for receipt in receipts)
        jobs.proceed(connection, self.job, progress=progress, counters=self.counters)

    def _checkpoint(self, checkpoint: Checkpoint) -> _Outcome:
        self._flush()
        with self._writing() as transaction:
            connection = transaction.connection
            noted = {name: self.counters[name] for name in _OF_THE_LISTING} if checkpoint.cursor else {}
            payload = {**self.job.payload, "at_checkpoint": noted}
            values: dict[str, Any] = {"counters": self.counters, "payload": payload}
            if checkpoint.total is not None:
                values["total"] = checkpoint.total
            progress = checkpoint.complete or dict(checkpoint.cursor) != self.source.cursor
            if not jobs.proceed(connection, self.job, progress=progress, **values):
                return _Outcome(None)  # another worker has taken over
            if self._is_canceled(transaction):
                return _Outcome(JobState.CANCELED)
            sources.change(connection, self.source.id, cursor=dict(checkpoint.cursor))
            if checkpoint.complete:
                self._remove_unseen(transaction)
        if checkpoint.complete:
            return self._listed()
        if time.monotonic() - self.began > self.parts.slice_s or self.parts.stopping.is_set():
            self.parts.doorbell.hand_back(self.job)
            return _Outcome(None)
        return _GO_ON

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        """A transaction in which the source stays as it is. Raises ListingOverError."""
        with self.parts.database.transaction() as transaction:
            self.source = sources.being_listed(transaction.connection, self.source.id, self.target.listing)
            yield transaction

    def _is_canceled(self, transaction: Transaction) -> bool:
        """To be asked once the job's row is written to: whoever cancels it from there on waits for the commit."""
        if not jobs.get(transaction.connection, self.job.team_id, self.job.id).cancel_requested:
            return False
        cancellation.cancel(transaction, self.job.team_id, self.job.id)  # also what was taken in since
        return True

    def _remove_unseen(self, transaction: Transaction) -> None:
        connection, source = transaction.connection, self.source
        listing = self.target.listing
        total, unseen = documents.count_listed(connection, source.id, listing)
        confirmed = bool(self.job.payload.get("confirm_deletions"))
        if unseen and not confirmed and unseen * 100 > source.max_deleted_percent * total:
            sources.change(connection, source.id, held_deletions=unseen)
            if unseen != source.held_deletions:  # not again for what is held already
                notices.held(transaction, source, self.job, unseen, total)
            return
        if unseen:
            gone = documents.mark_deleted(connection, source_id=source.id, not_in_listing=listing)
            audit_trail.removed(transaction, source.team_id, source.id, gone)
            notices.deleted(transaction, source.team_id, gone)
            self.parts.removal.enqueue(transaction, source.team_id, source_id=source.id, parent_id=self.job.id)
        self._count("deleted", unseen)
        sources.change(connection, source.id, held_deletions=0)
        jobs.proceed(connection, self.job, counters=self.counters)

    def _listed(self) -> _Outcome:
        with self.parts.database.transaction() as transaction:
            connection = transaction.connection
            if not jobs.proceed(connection, self.job, counters=self.counters):
                return _Outcome(None)
            if self._is_canceled(transaction):
                return _Outcome(JobState.CANCELED)
            jobs.proceed(connection, self.job, listed=True, lease_until=None)
            sources.change(connection, self.source.id, last_success_at=utc_now(), last_error=None)
            notices.settle(transaction, self.job.id)
        return _Outcome(None)

    def _reject(self, external_id: str, code: str, message: str) -> None:
        self._count("failed")
        failure = DocumentFailure("fetch", code, message, retryable=True)
        self.parts.intake.reject(self.target, external_id, failure)

    def _delete(self, external_id: str) -> None:
        self._flush()
        with self._writing() as transaction:
            connection, source = transaction.connection, self.source
            row = documents.find(connection, source.collection_id, source.id, [external_id]).get(external_id)
            if row is not None and documents.mark_deleted(connection, document_id=row.id):
                self._count("deleted")
                audit_trail.removed(transaction, source.team_id, source.id, [row.id])
                notices.deleted(transaction, source.team_id, [row.id])
                self.parts.removal.enqueue(
                    transaction, source.team_id, document_id=row.id, version=row.version, parent_id=self.job.id
                )

    def _change_acl(self, change: AclChange) -> None:
        with self._writing() as transaction:
            connection, source = transaction.connection, self.source
            row = documents.find(connection, source.collection_id, source.id, [change.external_id]).get(
                change.external_id
            )
            if row is not None and not row.is_deleted and row.acl != change.acl:
                self.parts.intake.change_acl(transaction, row, change.acl, parent_id=self.job.id)
                self._count("metadata_modified")

    def _count(self, counter: str, by: int = 1) -> None:
        self.counters[counter] = self.counters.get(counter, 0) + by


@dataclass(frozen=True, slots=True)
class _Outcome:
    """How a slice ends; `state` None leaves the job open."""

    state: JobState | None


_GO_ON = _Outcome(JobState.RUNNING)


class _TakenOverError(Exception):
    """Another worker holds the job."""


class _UnreadableError(Exception):
    def __init__(self, external_id: str, error: SkippableItemError) -> None:
        super().__init__(external_id)
        self.external_id = external_id
        self.error = error


def _is_under_way(job: Job, source: Source) -> bool:
    """Whether the newest listing of the source is this job's: its cursor leads through that one."""
    return bool(job.payload.get("listing") == source.listing)


def _begun(connection: Connection, job: Job, source: Source) -> tuple[Job, Source]:
    """Both with a listing that begins. Raises _TakenOverError, and nothing of this was.

    Deletions were confirmed of the source as it was then: of one that has been changed since they wait again.
    """
    listing = sources.begin_listing(connection, source.id)
    confirmed = bool(job.payload.get("confirm_deletions")) and job.payload.get("after") == source.listing
    payload = {**job.payload, "confirm_deletions": confirmed, "listing": listing, "after": listing, "at_checkpoint": {}}
    if not jobs.proceed(connection, job, progress=False, payload=payload, counters={}):
        raise _TakenOverError
    return jobs.get(connection, job.team_id, job.id), sources.get(connection, source.team_id, source.id)


def _incoming(item: Item, max_bytes: int) -> Incoming:
    def read() -> bytes:
        try:
            return _within(max_bytes, item.read())
        except SkippableItemError as error:
            raise _UnreadableError(item.external_id, error) from error

    return Incoming(
        external_id=item.external_id,
        read=read,
        title=item.title,
        file_name=item.external_id.rpartition("/")[2],
        media_type=item.media_type,
        uri=item.uri,
        metadata=item.metadata,
        acl=item.acl,
        version_tag=item.version_tag,
    )


def _within(max_bytes: int, content: bytes) -> bytes:
    if len(content) > max_bytes:
        raise SkippableItemError(
            f"It has {len(content):,} bytes, and the service takes documents of up to {max_bytes:,}. Split it, or "
            "raise RAG_MAX_UPLOAD_BYTES.",
            code="too_large",
        )
    return content
