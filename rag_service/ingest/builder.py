"""Brings an index version up to date with its collection, beside the one that answers.

What is still to be done follows from the database alone: documents whose answering version the index version does not
have. So a build that was killed goes on with the next document, a write that came meanwhile is one more of them, and
an index version that soaks is kept up to date by the same work. One that is over is dropped here too: by whoever would
have gone on building it, so that nobody writes to what is being dropped.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field

from rag_service.blobs import LOST
from rag_service.db import Connection, Database, builds, documents, indexed, jobs
from rag_service.db.builds import UNDER_WAY, Build
from rag_service.db.documents import Document
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.errors import ConfigError, NotFound, RagError, RetryableError
from rag_service.ingest.build_bell import BuildBell
from rag_service.ingest.build_pace import Pace
from rag_service.ingest.hold import may_purge
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.stages import Stages
from rag_service.types import DocumentFailure, IndexState, JobKind, JobState, utc_now
from rag_service.vectors.base import VectorStore

log = logging.getLogger(__name__)

# The share of the time that a build takes for itself: the rest is left to those who serve and to what is written.
SHARES: Mapping[str, float] = {"low": 0.25, "normal": 0.5, "high": 1.0}
EVERY_S = 30.0
_AT_ONCE = 500
_PER_THREAD = 4
_FORGOTTEN_AT_ONCE = 2_000


@dataclass
class Builder:
    """`stopping` is set when this process is going down: work stops at the next document and is handed back."""

    database: Database
    vectors: VectorStore
    indexer: Indexer
    bell: BuildBell
    stopping: threading.Event
    precedence: Precedence
    slice_s: float = 20.0
    every_s: float = EVERY_S
    _next_look: float = field(default=0.0, init=False)

    def look_if_due(self) -> None:
        """Once in `every_s` seconds: wake the builds whose job was lost, or came to its end as a write came in."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + self.every_s
            self.look()

    def look(self) -> None:
        with self.database.read() as connection:
            found = [one for one in builds.to_look_at(connection) if _has_work(connection, one)]
        for build in found:
            with self.database.transaction() as transaction:
                self._retire_if_due(transaction, build)
                self.bell.wake(transaction, build.index.id, build.team_id)

    def run(self, job: Job) -> JobState | None:
        """Build, or drop what is over. None when it goes on in another slice, or somebody else has the job."""
        until = time.monotonic() + self.slice_s
        build = self._load(job)
        while build is not None and build.index.state.is_live:
            if build.paused or build.index.state == IndexState.ACTIVE:
                return JobState.SUCCEEDED
            waiting = self._waiting(build)
            if not waiting:
                self._is_ready(build)
                return JobState.SUCCEEDED
            if not self._build_all(job, build, waiting, until):
                return None
            build = self._load(job)
        if build is not None:
            self._drop(build)
        return JobState.SUCCEEDED

    def catch_up(self, index: str, until: float) -> bool:
        """Build in this thread what `index` lacks, until `time.monotonic()` is `until`; whether nothing is left."""
        while True:
            with self.database.read() as connection:
                build = builds.find(connection, index)
                waiting = [] if build is None else indexed.outdated(connection, build.index, _PER_THREAD)
            if build is None or not waiting:
                return True
            for document in waiting:
                if time.monotonic() > until:
                    return False
                self._build(None, build, document)

    def _retire_if_due(self, transaction: Transaction, build: Build) -> None:
        if build.index.state != IndexState.SOAKING or not builds.now_past(build.retire_at):
            return
        if builds.change(transaction.connection, build.index.id, [IndexState.SOAKING], state=IndexState.RETIRED):
            transaction.audit("index_version.retired", build.index.id, team=build.team_id)

    def _load(self, job: Job) -> Build | None:
        with self.database.read() as connection:
            return builds.find(connection, job.payload["index"])

    def _is_there(self, build: Build, document: Document) -> bool:
        """Whether both are as they were: if not, what was missing has gone rightly, and the next look tells."""
        with self.database.read() as connection:
            index, now = builds.find(connection, build.index.id), documents.load(connection, document.id)
        return index is not None and index.index.state.is_live and now is not None and now.revision == document.revision

    def _waiting(self, build: Build) -> list[Document]:
        with self.database.read() as connection:
            return indexed.outdated(connection, build.index, _AT_ONCE)

    def _build_all(self, job: Job, build: Build, waiting: Sequence[Document], until: float) -> bool:
        """Build these. False when the job was handed back before they were all done, or is not ours any more."""
        whole = len(waiting) < _AT_ONCE
        while waiting:
            size = _PER_THREAD * build.max_concurrency
            part, waiting = waiting[:size], waiting[size:]
            began = time.monotonic()
            times = self._take_turns(job, build, part)
            pace = self._paced(build, part, times).during(time.monotonic() - began)
            if not self._note(job, build, pace, first_pass=whole and not waiting):
                return False
            now = self._load(job)
            if now is None or now.paused or not now.index.state.is_live:
                return True
            build = now
            if self.stopping.is_set() or (waiting and time.monotonic() > until):
                self.bell.doorbell.hand_back(job)
                return False
        return True

    def _take_turns(self, job: Job, build: Build, part: Sequence[Document]) -> list[float | None]:
        if build.max_concurrency == 1:
            return [self._take_turn(job, build, one) for one in part]
        with ThreadPoolExecutor(build.max_concurrency, thread_name_prefix="build") as threads:
            turns = [threads.submit(copy_context().run, self._take_turn, job, build, one) for one in part]
            return [one.result() for one in turns]

    def _take_turn(self, job: Job, build: Build, document: Document) -> float | None:
        """Build one document and leave others their share of the time; the seconds that it took, None for none."""
        if self.stopping.is_set():
            return None
        began = time.monotonic()
        self._build(job, build, document)
        took = time.monotonic() - began
        self.stopping.wait(took * (1 / SHARES[build.priority] - 1))
        return took

    def _build(self, job: Job | None, build: Build, document: Document) -> None:
        """A document that cannot be built is noted, and does not stop the others."""
        stages = Stages(JobKind.BUILD, self.precedence.give_way)
        try:
            self.indexer.build(document.id, build.index, stages)
        except NotFound as error:
            if not self._is_there(build, document):
                return
            if error.code != LOST:
                raise RetryableError() from error
            self._note_failed(
                job, build, document, DocumentFailure(stages.current, error.code, error.message, retryable=False)
            )
        except (RetryableError, ConfigError):
            raise
        except RagError as error:
            self._note_failed(
                job, build, document, DocumentFailure(stages.current, error.code, error.message, retryable=False)
            )
        except Exception as error:
            log.exception("document %s could not be built into %s", document.id, build.index.id)
            message = f"A defect of the service ({type(error).__name__} in stage {stages.current}). See the log."
            self._note_failed(
                job, build, document, DocumentFailure(stages.current, "internal_error", message, retryable=True)
            )
        finally:
            stages.leave()

    def _note_failed(self, job: Job | None, build: Build, document: Document, failure: DocumentFailure) -> None:
        """Unless somebody else has the job by now, or has built the document: what failed here says nothing then."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            if job is not None and not jobs.is_held(connection, job):
                return
            if indexed.version_in(connection, build.index.id, document.id) == document.indexed_version:
                return
            if indexed.unchanged(connection, document):
                indexed.note_failed(connection, build.index, document, failure)

    def _paced(self, build: Build, part: Sequence[Document], times: Sequence[float | None]) -> Pace:
        pace = Pace.of(build.progress)
        for document, took in zip(part, times, strict=True):
            if took is not None:
                pace = pace.after(document.chunk_count, took)
        return pace

    def _note(self, job: Job, build: Build, pace: Pace, *, first_pass: bool) -> bool:
        """What was done so far; False when the job is somebody else's by now."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            if not jobs.proceed(connection, job):
                return False
            states = [state for state in IndexState if state.is_live]
            builds.change(connection, build.index.id, states, progress=pace.stored(), error=None)
            if first_pass:
                builds.change(connection, build.index.id, [IndexState.BUILDING], state=IndexState.CATCHING_UP)
        return True

    def _is_ready(self, build: Build) -> None:
        with self.database.transaction() as transaction:
            builds.change(
                transaction.connection,
                build.index.id,
                UNDER_WAY,
                state=IndexState.READY,
                built_at=utc_now(),
                error=None,
            )

    def _drop(self, build: Build) -> None:
        """Its points, files, chunks and rows. Raises PutOffError while a backup is being taken."""
        if build.retired_at is not None:
            return
        may_purge(self.database)
        self.vectors.drop(build.index.id)
        gone = _FORGOTTEN_AT_ONCE
        while gone == _FORGOTTEN_AT_ONCE:
            with self.database.transaction() as transaction:
                gone = builds.forget_some(transaction.connection, build.index.id, _FORGOTTEN_AT_ONCE)
        with self.database.transaction() as transaction:
            over = (IndexState.RETIRED, IndexState.FAILED)
            builds.change(transaction.connection, build.index.id, over, retired_at=utc_now())


def _has_work(connection: Connection, build: Build) -> bool:
    """Whether there is something to build, to note or to drop, and no job that does it."""
    if builds.is_at_work(connection, build.index.id):
        return False
    settled = build.index.state in (IndexState.READY, IndexState.SOAKING)
    if not settled or builds.now_past(build.retire_at):
        return True
    return bool(indexed.outdated(connection, build.index, 1))
