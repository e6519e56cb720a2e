"""What becomes of jobs that gave up: they are tried again as if they were new, or put away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rag_service.db import Connection, Database, builds, dead_letters, documents, jobs, sources
from rag_service.db.dead_letters import SUPERSEDED, LetterFilter
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.errors import NotFound
from rag_service.ingest.reopening import fresh
from rag_service.types import DocumentStatus, JobKind, utc_now

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Handled:
    """How many letters were retried or discarded; `superseded`: newer work had made them pointless."""

    handled: int
    superseded: int = 0


@dataclass(frozen=True)
class DeadLetters:
    database: Database

    def retry(self, which: LetterFilter) -> Handled:
        """Queue these jobs again, their counts of failures at zero. Their diagnosis stays with them."""
        outcomes = list(self._each(which, self._retry))
        return Handled(outcomes.count(True), outcomes.count(False))

    def discard(self, which: LetterFilter) -> Handled:
        """Put these letters away for good; their jobs and documents stay failed."""

        def put_away(transaction: Transaction, job: Job) -> bool:
            put = dead_letters.close(transaction.connection, job, dead_letters.DISCARDED)
            return put and _on_record(transaction, "dead_letter.discarded", job)

        return Handled(list(self._each(which, put_away)).count(True))

    def _each(self, which: LetterFilter, handle: Callable[[Transaction, Job], bool]) -> Iterator[bool]:
        """What was a letter when this began, some at a time: what fails again meanwhile is not handled twice."""
        began = utc_now()
        while True:
            with self.database.transaction() as transaction:
                some = dead_letters.some(transaction.connection, which, before=began, limit=_AT_ONCE)
                outcomes = [handle(transaction, job) for job in some]
            yield from outcomes
            if len(some) < _AT_ONCE:
                return

    def _retry(self, transaction: Transaction, job: Job) -> bool:
        connection = transaction.connection
        if not _prepared(transaction, job):
            dead_letters.close(connection, job, SUPERSEDED)
            return False
        # A sync begins its listing anew: what came since the former one is in it.
        payload = {name: value for name, value in job.payload.items() if name != "listing"}
        revived = dead_letters.revive(connection, job, payload)
        return revived and _on_record(transaction, "dead_letter.retried", job)


def _on_record(transaction: Transaction, action: str, job: Job) -> bool:
    code = (job.error or {}).get("code")
    transaction.audit(action, job.id, team=job.team_id, kind=job.kind.value, code=code, document=job.document_id)
    return True


def _prepared(transaction: Transaction, job: Job) -> bool:
    """False when there is nothing to be done for this job any more."""
    connection = transaction.connection
    if job.kind == JobKind.INDEX:
        return _reopened(connection, job)
    if job.kind == JobKind.SYNC:
        try:
            source = sources.get(connection, job.team_id, job.source_id or "")
        except NotFound:
            return False
        return jobs.open_sync(connection, source.id) is None
    if job.kind == JobKind.BUILD:
        return _resumed(transaction, job)
    return True


def _resumed(transaction: Transaction, job: Job) -> bool:
    index = job.payload["index"]
    if builds.is_at_work(transaction.connection, index) or not builds.resume(transaction.connection, index):
        return False
    transaction.audit("index_version.resumed", index, team=job.team_id)
    return True


def _reopened(connection: Connection, job: Job) -> bool:
    document = documents.load(connection, job.document_id or "")
    if document is None or document.version != job.version or document.status != DocumentStatus.FAILED:
        return False
    values = fresh(document, again=bool(job.payload.get("again")))
    if documents.change(connection, document, {**values, "updated_at": document.updated_at}) is None:
        return False
    documents.record(connection, document.id, document.version, "retried")
    return True
