"""Runs a job: claims it, keeps its lease, and writes down how it ended, whatever happens."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from connectors.errors import RetryableSourceError, SourceError
from rag_service.db import Database, Transaction, builds, documents, jobs, ringing, sources
from rag_service.db.authors import Author, authored_by
from rag_service.db.jobs import Job
from rag_service.errors import ErrorClass, RagError, RetryableError
from rag_service.ingest import cancellation, notices
from rag_service.ingest.backoff import MAX_WORKER_DEATHS, POLICIES, wait_s
from rag_service.ingest.builder import Builder
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.hold import PutOffError
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.precedence import Precedence
from rag_service.ingest.reindex import Reindex
from rag_service.ingest.removal import Removal
from rag_service.ingest.stages import RETRIED, Stages, watched
from rag_service.ingest.sync import Syncer
from rag_service.types import DocumentFailure, JobKind, JobState

_THROUGH = "children_through"

log = logging.getLogger(__name__)


class Leases:
    """Prolongs the leases of the jobs that this process holds, from one thread."""

    def __init__(self, database: Database, lease_s: float) -> None:
        self._database = database
        self.lease_s = lease_s
        self._held: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def hold(self, job: Job) -> None:
        with self._lock:
            self._held[job.id] = job.fence
            if self._thread is None:
                self._thread = threading.Thread(target=self._renew, name="leases", daemon=True)
                self._thread.start()

    def release(self, job: Job) -> None:
        with self._lock:
            self._held.pop(job.id, None)

    def hand_back(self) -> None:
        """Give up what is held still, so that others need not wait for the lease to run out."""
        with self._lock:
            held, self._held = self._held, {}
        if held:
            with self._database.transaction() as transaction:
                jobs.hand_back_all(transaction.connection, held)

    def close(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _renew(self) -> None:
        while not self._stop.wait(self.lease_s / 3):
            with self._lock:
                held = dict(self._held)
            if not held:
                continue
            try:
                with self._database.transaction() as transaction:
                    jobs.renew(transaction.connection, held, self.lease_s)
            except RetryableError:
                log.warning("leases not renewed: the database does not answer; trying again")


@dataclass(frozen=True)
class Runner:
    database: Database
    leases: Leases
    indexer: Indexer
    syncer: Syncer
    removal: Removal
    calibration: Calibration
    builder: Builder
    reindex: Reindex
    doorbell: Doorbell
    deliver: Callable[[Job], JobState | None]
    probe: Callable[[Job], object]
    # Set when this process is going down: work stops at the next safe point and is handed back.
    stopping: threading.Event
    # Who holds the jobs that run here, as their history names it.
    worker: str
    precedence: Precedence

    def run(self, job_id: str) -> None:
        """Run one job if it is due and nobody has it. Never raises for the job's own failure: that is recorded.

        While the database does not answer nothing can be recorded: the job's lease runs out then, and it is rung again.
        """
        if self.stopping.is_set():
            self._leave_to_others(job_id)
            return
        self.precedence.give_way()
        try:
            with self.database.transaction() as transaction:
                job = jobs.claim(transaction.connection, job_id, self.leases.lease_s, self.worker)
            if job is not None:
                self._hold(job)
        except RetryableError as error:
            log.warning("job %s put off: %s", job_id, error)

    def _hold(self, job: Job) -> None:
        stages = Stages(job.kind, self.precedence.give_way)
        self.leases.hold(job)
        try:
            with watched(job, stages), authored_by(Author("worker", request_id=job.id)):
                self._run(job, stages)
        finally:
            self.leases.release(job)
        self.doorbell.follow(job)

    def _leave_to_others(self, job_id: str) -> None:
        """Its message is spent: the sweeper must not wait for an answer to it."""
        with self.database.transaction() as transaction:
            ringing.forget(transaction.connection, job_id)

    def _run(self, job: Job, stages: Stages) -> None:
        if job.worker_deaths > MAX_WORKER_DEATHS:
            job = self._absolved(job)
        if job.worker_deaths > MAX_WORKER_DEATHS:
            message = f"The worker died {job.worker_deaths} times while it held this job. Look at the worker's log."
            failure = replace(_failure(stages, ErrorClass.POISON, "worker_died", message), retryable=True)
            with self.database.transaction() as transaction:
                self._give_up(transaction, job, stages, failure)
            return
        try:
            state = self._work(job, stages)
        except PutOffError as error:
            self._put_off(job, error.retry_after)
        except (RagError, SourceError) as error:
            if self.stopping.is_set() and isinstance(error, RetryableError | RetryableSourceError):
                self._put_off(job, 0)
            else:
                failure = _failure(stages, ErrorClass(error.error_class), error.code, str(error))
                self._fail(job, stages, failure, float(getattr(error, "retry_after", 0)))
        except Exception as error:
            # A defect of ours must not cost its neighbours anything, nor leave the job without a reason.
            log.exception("job %s (%s) failed in stage %s", job.id, job.kind, stages.current)
            message = (
                f"A defect of the service ({type(error).__name__} in stage {stages.current}). See the worker's log."
            )
            self._fail(job, stages, _failure(stages, ErrorClass.DEFECT, "internal_error", message))
        else:
            if state is not None:
                self._finish(job, state, stages)

    def _absolved(self, job: Job) -> Job:
        """The job without its workers' deaths, where children of it have come through since it was last suspected.

        Then workers are killed faster than it comes to its next step, and none of them died of it.
        """
        with self.database.transaction() as transaction:
            counts = jobs.children(transaction.connection, job.id)
            through = sum(count for state, count in counts.items() if state.is_final)
            payload = {**job.payload, _THROUGH: through}
            gets_on = through > int(job.payload.get(_THROUGH, 0))
            if gets_on and jobs.proceed(transaction.connection, job, payload=payload):
                return replace(job, payload=payload, worker_deaths=0)
        return job

    def _work(self, job: Job, stages: Stages) -> JobState | None:
        if job.cancel_requested:
            return JobState.CANCELED
        in_slices: dict[JobKind, Callable[[Job], JobState | None]] = {
            JobKind.SYNC: self.syncer.run,
            JobKind.CALIBRATE: self.calibration.run,
            JobKind.REINDEX: self.reindex.run,
            JobKind.BUILD: self.builder.run,
            JobKind.DELIVER: self.deliver,
        }
        if job.kind in in_slices:
            return in_slices[job.kind](job)
        if job.kind == JobKind.INDEX:
            self.indexer.index(job, stages)
        elif job.kind == JobKind.REFRESH:
            self.indexer.refresh(job)
        elif job.kind == JobKind.PROBE:
            self.probe(job)
        else:
            self.removal.run(job)
        return JobState.SUCCEEDED

    def _put_off(self, job: Job, after_s: float) -> None:
        """Not the job's failure: its time has not come, or this process is going down."""
        with self.database.transaction() as transaction:
            jobs.put_off(transaction.connection, job, after_s)

    def _fail(self, job: Job, stages: Stages, failure: DocumentFailure, after_s: float = 0) -> None:
        """Put the job back to wait, as its class of error says, or give it up."""
        with self.database.transaction() as transaction:
            connection = transaction.connection
            now = jobs.if_held(connection, job)
            if now is None:
                return  # another worker has taken over
            failures = now.failures.get(failure.error_class, 0) + 1
            wait = wait_s(ErrorClass(failure.error_class), failures, after_s)
            if wait is None:
                tried = f" Tried {failures} times." if failures > 1 else ""
                self._give_up(transaction, now, stages, replace(failure, message=failure.message + tried))
                return
            jobs.retry(connection, now, asdict(failure), wait)
            stages.end(RETRIED, failure.code)
            if job.kind == JobKind.SYNC and job.source_id:
                sources.change(connection, job.source_id, last_error=asdict(failure))
                if failure.error_class == ErrorClass.AUTH:
                    notices.degraded(transaction, job, failure, gave_up=False)

    def _give_up(self, transaction: Transaction, job: Job, stages: Stages, failure: DocumentFailure) -> None:
        """The job becomes a dead letter, its document and source say why."""
        connection, error = transaction.connection, asdict(failure)
        if not jobs.finish(connection, job, JobState.FAILED, error=error, stages_ms=stages.spent_ms()):
            return
        stages.end(JobState.FAILED, failure.code)
        if job.kind == JobKind.INDEX:
            self._give_document_up(transaction, job, failure)
        if job.kind == JobKind.SYNC and job.source_id:
            sources.change(connection, job.source_id, last_error=error)
            notices.degraded(transaction, job, failure, gave_up=True)
            notices.sync_finished(transaction, job, JobState.FAILED)
        if job.kind == JobKind.BUILD:
            builds.give_up(connection, job.payload["index"], error)
        if job.parent_id:
            notices.settle(transaction, job.parent_id)

    def _give_document_up(self, transaction: Transaction, job: Job, failure: DocumentFailure) -> None:
        document_id = job.document_id or ""
        if documents.fail(transaction.connection, document_id, job.version or 0, failure):
            notices.failed(transaction, job.team_id, [document_id], failure)

    def _finish(self, job: Job, state: JobState, stages: Stages) -> None:
        with self.database.transaction() as transaction:
            connection = transaction.connection
            spent = stages.spent_ms()
            if jobs.finish(connection, job, state, stages_ms=spent, counters=stages.sizes):
                stages.end(state)
                if job.kind == JobKind.SYNC:
                    notices.sync_finished(transaction, job, state)
                if state == JobState.CANCELED and job.document_id is not None:
                    cancellation.abandon(transaction, job.team_id, [job.document_id])
                if job.parent_id:
                    notices.settle(transaction, job.parent_id)


def _failure(stages: Stages, error_class: ErrorClass, code: str, message: str) -> DocumentFailure:
    return DocumentFailure(stages.current, code, message, POLICIES[error_class].may_pass, error_class)
