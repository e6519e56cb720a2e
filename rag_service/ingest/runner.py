"""Runs a job: claims it, keeps its lease, and writes down how it ended, whatever happens."""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass

from connectors.errors import FatalSourceError, RetryableSourceError, SourceError
from rag_service.db import Database, documents, jobs, ringing, sources
from rag_service.db.authors import Author, authored_by
from rag_service.db.jobs import Job
from rag_service.errors import RagError, RetryableError, UnsupportedDocument
from rag_service.ingest.calibration import Calibration
from rag_service.ingest.doorbell import Doorbell
from rag_service.ingest.hold import PutOffError
from rag_service.ingest.indexer import Indexer
from rag_service.ingest.removal import Removal
from rag_service.ingest.stages import RETRIED, Stages, watched
from rag_service.ingest.sync import Syncer
from rag_service.types import DocumentFailure, JobKind, JobState

log = logging.getLogger(__name__)

# A job that fails for a passing reason is tried again after 2, 4, 8 ... seconds, at most 10 minutes apart.
MAX_ATTEMPTS = 10
MAX_BACKOFF_S = 600.0
# A document that kills its parser does so again: three tries rule out bad luck. A worker that dies says little
# about the job it held, so that is counted apart and forgiven longer.
MAX_PARSER_DEATHS = 3
MAX_WORKER_DEATHS = 10


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
    doorbell: Doorbell
    # Set when this process is going down: work stops at the next safe point and is handed back.
    stopping: threading.Event

    def run(self, job_id: str) -> None:
        """Run one job if it is due and nobody has it. Never raises for the job's own failure: that is recorded."""
        if self.stopping.is_set():
            self._leave_to_others(job_id)
            return
        with self.database.transaction() as transaction:
            job = jobs.claim(transaction.connection, job_id, self.leases.lease_s)
        if job is None:
            return
        stages = Stages(job.kind)
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
            message = f"The worker died {job.worker_deaths} times while it held this job. Look at the worker's log."
            self._fail(job, stages, "worker_died", message, retryable=True)
            return
        try:
            state = self._work(job, stages)
        except (FatalSourceError, UnsupportedDocument) as error:
            self._stop_or_retry_poison(job, stages, error)
        except PutOffError as error:
            self._put_off(job, error.retry_after)
        except (RetryableError, RetryableSourceError) as error:
            if not self.stopping.is_set():
                self._retry(job, stages, error.code, str(error), getattr(error, "retry_after", 2))
        except (RagError, SourceError) as error:
            self._fail(job, stages, error.code, str(error), retryable=False)
        except Exception as error:
            # A defect of ours must not cost its neighbours anything, nor leave the job without a reason.
            log.exception("job %s (%s) failed in stage %s", job.id, job.kind, stages.current)
            message = (
                f"A defect of the service ({type(error).__name__} in stage {stages.current}). See the worker's log."
            )
            self._retry(job, stages, "internal_error", message, 2)
        else:
            if state is not None:
                self._finish(job, state, stages)

    def _work(self, job: Job, stages: Stages) -> JobState | None:
        if job.cancel_requested:
            return JobState.CANCELED
        if job.kind == JobKind.SYNC:
            return self.syncer.run(job)
        if job.kind == JobKind.CALIBRATE:
            return self.calibration.run(job)
        if job.kind == JobKind.INDEX:
            self.indexer.index(job, stages)
        elif job.kind == JobKind.REFRESH:
            self.indexer.refresh(job)
        else:
            self.removal.run(job)
        return JobState.SUCCEEDED

    def _stop_or_retry_poison(self, job: Job, stages: Stages, error: FatalSourceError | UnsupportedDocument) -> None:
        if error.code == "crashed" and job.attempts + 1 < MAX_PARSER_DEATHS:
            self._retry(job, stages, error.code, str(error), 1)
        else:
            self._fail(job, stages, error.code, str(error), retryable=False)

    def _put_off(self, job: Job, after_s: float) -> None:
        with self.database.transaction() as transaction:
            jobs.put_off(transaction.connection, job, after_s)

    def _retry(self, job: Job, stages: Stages, code: str, message: str, after_s: float) -> None:
        if job.attempts + 1 >= MAX_ATTEMPTS:
            self._fail(job, stages, code, f"{message} Tried {MAX_ATTEMPTS} times.", retryable=True)
            return
        backoff = min(after_s * 2**job.attempts, MAX_BACKOFF_S) * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
        error = {"stage": stages.current, "code": code, "message": message, "retryable": True}
        with self.database.transaction() as transaction:
            jobs.retry(transaction.connection, job, error, backoff)
            stages.end(RETRIED, code)
            if job.kind == JobKind.SYNC and job.source_id:
                sources.change(transaction.connection, job.source_id, last_error=error)

    def _fail(self, job: Job, stages: Stages, code: str, message: str, *, retryable: bool) -> None:
        failure = DocumentFailure(stages.current, code, message, retryable)
        error = {"stage": failure.stage, "code": code, "message": message, "retryable": retryable}
        with self.database.transaction() as transaction:
            connection = transaction.connection
            if not jobs.finish(connection, job, JobState.FAILED, error=error, stages_ms=stages.spent_ms()):
                return
            stages.end(JobState.FAILED, code)
            if job.kind == JobKind.INDEX and job.document_id and job.version is not None:
                documents.fail(connection, job.document_id, job.version, failure)
            if job.kind == JobKind.SYNC and job.source_id:
                sources.change(connection, job.source_id, last_error=error)
            if job.parent_id:
                jobs.settle_parent(connection, job.parent_id)

    def _finish(self, job: Job, state: JobState, stages: Stages) -> None:
        with self.database.transaction() as transaction:
            connection = transaction.connection
            spent = stages.spent_ms()
            if jobs.finish(connection, job, state, stages_ms=spent):
                stages.end(state)
                if job.parent_id:
                    jobs.settle_parent(connection, job.parent_id)
