"""Queues jobs and rings for them after the commit: the one way by which work comes into being."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from rag_service.db import Database, jobs, ringing
from rag_service.db.engine import Transaction
from rag_service.db.jobs import Job
from rag_service.db.ringing import Bell, Limits
from rag_service.types import JobKind, Queue

Send = Callable[[Bell], object]


def queue_of(kind: JobKind, *, bulk: bool) -> Queue:
    """What somebody waits for goes apart from what comes by the thousand."""
    if kind == JobKind.SYNC:
        return Queue.SYNCS
    if kind in (JobKind.INDEX, JobKind.REFRESH):
        return Queue.BULK if bulk else Queue.UPLOADS
    return Queue.MAINTENANCE


@dataclass(frozen=True)
class Doorbell:
    """`send` never raises: a message that is lost is sent again by the sweeper."""

    database: Database
    send: Send
    limits: Limits

    def add(
        self,
        transaction: Transaction,
        kind: JobKind,
        team_id: str,
        *,
        bulk: bool = False,
        source_id: str | None = None,
        document_id: str | None = None,
        version: int | None = None,
        parent_id: str | None = None,
        payload: Mapping[str, Any] | None = None,
    ) -> str:
        """Queue a job; returns its id. Rung for on commit, or as soon as its team has room."""
        queue = queue_of(kind, bulk=bulk or parent_id is not None)
        has_room = ringing.room(transaction.connection, team_id, queue, self.limits) > 0
        job_id = jobs.add(
            transaction.connection,
            kind,
            team_id,
            queue=queue,
            rung=has_room,
            source_id=source_id,
            document_id=document_id,
            version=version,
            parent_id=parent_id,
            payload=payload,
        )
        if has_room:
            transaction.on_commit(lambda: self.send(Bell(queue, kind, job_id)))
        return job_id

    def hand_back(self, job: Job) -> None:
        """Leave a job to whoever comes: its next slice comes after what waits already."""
        with self.database.transaction() as transaction:
            if jobs.hand_back(transaction.connection, job):
                transaction.on_commit(lambda: self.send(bell_of(job)))

    def follow(self, job: Job) -> None:
        """A job is through: ring for what its team has waiting in the same queue."""
        with self.database.read() as connection:
            if not ringing.is_anything_waiting(connection, job.team_id, job.queue):
                return
        with self.database.transaction() as transaction:
            self.send_all(ringing.follow(transaction.connection, job.team_id, job.queue, self.limits), transaction)

    def send_all(self, bells: Iterable[Bell], transaction: Transaction) -> None:
        """On commit, in this order."""
        for bell in bells:
            transaction.on_commit(partial(self.send, bell))


def bell_of(job: Job) -> Bell:
    return Bell(job.queue, job.kind, job.id)
