"""Working on documents anew from what is kept of them: one job lists them, and queues a job for each.

It begins at the stage that was asked for and never earlier: a document that has not what the stage begins with is
skipped. The list goes on from a cursor that is stored together with the jobs queued so far, so that a crash neither
repeats nor skips one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rag_service.db import Connection, Database, builds, collections, dead_letters, jobs, reindexing, sources, teams
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.db.fields import fields_of
from rag_service.db.jobs import Job
from rag_service.db.reindexing import Selection
from rag_service.errors import InvalidRequest, NotFound
from rag_service.ingest import cancellation, notices
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.estimate import Estimate, Into, estimate, lacking
from rag_service.ingest.intake import Intake
from rag_service.ingest.sync import Syncer
from rag_service.pipelines import Pipelines
from rag_service.types import DocumentStatus, Filter, FromStage, IndexVersion, JobKind, JobState
from rag_service.vectors.base import VectorStore
from rag_service.vectors.matching import matches

_AT_ONCE = 100
_LATER_S = 2.0


@dataclass(frozen=True, slots=True)
class Order:
    """Which documents are worked on anew, and from which stage. `team` None: of all teams.

    `collection` is a name or an id; `filter` is written like that of a question.
    """

    from_stage: FromStage
    team: str | None = None
    collection: str | None = None
    source: str | None = None
    filter: Mapping[str, Any] | None = None
    failed_only: bool = False


@dataclass(frozen=True)
class Reindex:
    """`is_paid` says whether the embedder of an index version is asked over HTTP."""

    database: Database
    vectors: VectorStore
    doorbell: Doorbell
    intake: Intake
    syncer: Syncer
    pipelines: Pipelines
    parse_filter: Callable[[object], Filter | None]
    is_paid: Callable[[IndexVersion], bool]
    stopping: threading.Event
    slice_s: float = 20.0

    def plan(self, order: Order) -> Estimate:
        """What it would take. Raises NotFound, InvalidRequest."""
        narrowing = self.parse_filter(order.filter)
        with self.database.read() as connection:
            written: dict[str, list[Into]] = {}

            def into(collection_id: str) -> list[Into]:
                if collection_id not in written:
                    index = collections.active_index(connection, collection_id)
                    written[collection_id] = [self._into(connection, index, order.from_stage)]
                return written[collection_id]

            return estimate(
                connection,
                _selection(_resolved(connection, order)),
                order.from_stage,
                into=into,
                is_meant=lambda document: matches(narrowing, fields_of(document)),
            )

    def start(self, transaction: Transaction, order: Order) -> list[tuple[str, str]]:
        """Queue a job for each team concerned; returns pairs of team and job. Raises NotFound, InvalidRequest."""
        matches(self.parse_filter(order.filter), {})
        wanted = _resolved(transaction.connection, order)
        teams = reindexing.teams(transaction.connection, _selection(wanted)) if order.team is None else [order.team]
        return [(team, self._queue(transaction, team, wanted)) for team in teams]

    def run(self, job: Job) -> JobState | None:
        """Queue the work on some documents. Returns how the job ended, or None when it goes on or waits for them."""
        until = time.monotonic() + self.slice_s
        while True:
            try:
                with self.database.transaction() as transaction:
                    listing = self._list_some(transaction, job)
            except _TakenOverError:
                return None
            if listing.canceled:
                return JobState.CANCELED
            if listing.is_through:
                return None
            if listing.waiting and listing.is_exhausted:
                self._put_off(job)
                return None
            if time.monotonic() > until or self.stopping.is_set():
                self.doorbell.hand_back(job)
                return None

    def _queue(self, transaction: Transaction, team: str, wanted: Mapping[str, Any]) -> str:
        payload = {**wanted, "after": ""}
        del payload["team_id"]
        job_id = self.doorbell.add(transaction, JobKind.REINDEX, team, payload=payload)
        detail = {name: value for name, value in wanted.items() if name not in ("team_id", "filter")}
        transaction.audit("reindex.started", job_id, team=team, **detail, filtered=wanted["filter"] is not None)
        return job_id

    def _list_some(self, transaction: Transaction, job: Job) -> _Listing:
        connection = transaction.connection
        now = jobs.if_held(connection, job)
        if now is None:
            raise _TakenOverError
        listing = _Listing(self, transaction, now)
        if now.cancel_requested:
            # Children that were being queued while it was canceled.
            cancellation.cancel(transaction, job.team_id, job.id)
            listing.canceled = True
            return listing
        listing.proceed()
        if not jobs.proceed(connection, now, **listing.noted()):
            raise _TakenOverError  # and nothing of this was
        if listing.is_through:
            notices.settle(transaction, job.id)
        return listing

    def _put_off(self, job: Job) -> None:
        with self.database.transaction() as transaction:
            jobs.put_off(transaction.connection, job, _LATER_S)

    def _into(self, connection: Connection, index: IndexVersion, from_stage: FromStage) -> Into:
        """What is the same as before has its vector; what the store has lost is computed."""
        known = builds.held(connection, [index.id])[index.id].chunks
        try:
            held = self.vectors.count(index.id)
        except NotFound:
            held = 0
        same = from_stage == FromStage.EMBED or self.pipelines.chunker(index).identity == index.chunker
        lost = 1 - min(1.0, held / known) if known else 1.0
        return Into(index.embedder.dimensions, lost if same else 1.0, self.is_paid(index))


class _TakenOverError(Exception):
    """Another worker holds the job."""


@dataclass
class _Listing:
    """One stretch of the list, in one transaction."""

    parts: Reindex
    transaction: Transaction
    job: Job
    canceled: bool = False
    is_exhausted: bool = False
    counters: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        payload = self.job.payload
        self.counters = dict(self.job.counters)
        self.from_stage = FromStage(payload["from"])
        self.after = str(payload["after"])
        # Sources that are being read or were, and those that wait until a sync that is on its way has ended.
        self.handled = list(payload.get("handled", ()))
        self.waiting = list(payload.get("waiting", ()))
        self.narrowing = self.parts.parse_filter(payload["filter"])

    @property
    def is_through(self) -> bool:
        return self.is_exhausted and not self.waiting

    def proceed(self) -> None:
        connection, job = self.transaction.connection, self.job
        selection = _selection({**job.payload, "team_id": job.team_id, "created_before": job.created_at})
        page = reindexing.some(connection, selection, after=self.after, limit=_AT_ONCE)
        for kept in page:
            if matches(self.narrowing, fields_of(kept.document)):
                self._take(kept.document, lacking(kept, self.from_stage))
        self.after = page[-1].document.id if page else self.after
        self.is_exhausted = len(page) < _AT_ONCE
        if self.is_exhausted:
            self.waiting = [source_id for source_id in self.waiting if not self._read(source_id)]

    def noted(self) -> dict[str, Any]:
        """What the job remembers of it."""
        places = {"after": self.after, "handled": self.handled, "waiting": self.waiting}
        noted: dict[str, Any] = {"payload": {**self.job.payload, **places}, "counters": self.counters}
        return {**noted, "listed": True, "lease_until": None} if self.is_through else noted

    def _take(self, document: Document, lacks: str | None) -> None:
        if self.from_stage == FromStage.FETCH:
            self._fetch(document, lacks)
            return
        self._count("scanned")
        if lacks is not None:
            self._count("skipped")
        elif self.from_stage == FromStage.PERMISSIONS:
            renewed = reindexing.renew_access(self.transaction.connection, document)
            if renewed is not None:  # else somebody is changing it, who sees to it
                self.parts.intake.refresh(self.transaction, renewed, self.job.id)
        elif self.from_stage == FromStage.METADATA:
            self.parts.intake.refresh(self.transaction, document, self.job.id)
        else:
            self._index(document)

    def _index(self, document: Document) -> None:
        if document.status == DocumentStatus.FAILED:
            dead_letters.supersede(self.transaction.connection, document.id)
        self.parts.doorbell.add(
            self.transaction,
            JobKind.INDEX,
            document.team_id,
            source_id=document.source_id or None,
            document_id=document.id,
            version=document.version,
            parent_id=self.job.id,
            payload={"again": True, "from": self.from_stage},
        )

    def _fetch(self, document: Document, lacks: str | None) -> None:
        source_id = document.source_id
        if lacks is not None:
            self._count("skipped")
        elif source_id not in self.handled and source_id not in self.waiting and not self._read(source_id):
            self.waiting.append(source_id)

    def _read(self, source_id: str) -> bool:
        """Have a source read anew; False while a sync of it is on its way."""
        try:
            source = sources.get(self.transaction.connection, self.job.team_id, source_id)
        except NotFound:
            source = None
        if source is None or source.paused:
            self._count("skipped")
        elif self.parts.syncer.start_anew(self.transaction, source, self.job.id) is None:
            return False
        else:
            self._count("scanned")
        self.handled.append(source_id)
        return True

    def _count(self, counter: str) -> None:
        self.counters[counter] = self.counters.get(counter, 0) + 1


def _resolved(connection: Connection, order: Order) -> dict[str, Any]:
    """What a job's payload says of an order. Raises NotFound, also for what another team has."""
    if order.team is None and (order.collection or order.source):
        raise InvalidRequest(
            "A collection or a source is one of a team's. Name the team too, in scope or in X-Rag-Team.",
            code="team_required",
        )
    found: dict[str, Any] = {"team_id": order.team, "collection_id": None, "source_id": None}
    if order.team is not None:
        teams.get(connection, order.team)
        if order.collection:
            found["collection_id"] = collections.get(connection, order.team, order.collection).id
        if order.source:
            found["source_id"] = sources.get(connection, order.team, order.source).id
    return {**found, "from": order.from_stage, "filter": order.filter, "failed_only": order.failed_only}


def _selection(wanted: Mapping[str, Any]) -> Selection:
    names = ("team_id", "collection_id", "source_id", "failed_only", "created_before")
    return Selection(**{name: wanted[name] for name in names if name in wanted})
