"""Deliberately broken variants of what keeps the service right. A scenario is alive while it catches them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy import and_, bindparam, func, select, true, update

from rag_service.db import Database, Transaction, chunks, documents, engine, jobs, outbox, sources
from rag_service.db.documents import Document
from rag_service.db.jobs import Job
from rag_service.db.tables import jobs as job_table
from rag_service.db.tables import sources as source_table
from rag_service.ingest import build, notices, sync
from rag_service.ingest.removal import Removal
from rag_service.types import JobKind

Break = Callable[[pytest.MonkeyPatch], None]


def random_chunk_ids(patch: pytest.MonkeyPatch) -> None:
    """What a killed worker had written is never written over."""
    patch.setattr(build, "chunk_id", lambda *_place: str(uuid.uuid4()))


def careless_commit(patch: pytest.MonkeyPatch) -> None:
    """The indexer commits whatever has happened to the document since it looked."""
    take = build.Build._take

    def careless(self: build.Build, connection: Any, document: Document, *rest: Any) -> Any:
        now = documents.load(connection, document.id)
        return take(self, connection, document if now is None else now, *rest)

    patch.setattr(build.Build, "_take", careless)


def blind_removal(patch: pytest.MonkeyPatch) -> None:
    """A removal that does not look at the version: it purges what has come back meanwhile."""

    def blind(self: Removal, job: Job) -> None:
        with self.database.read() as connection:
            document = documents.load(connection, job.document_id or "")
        if document is not None:
            self._purge(document, document.version)

    patch.setattr(Removal, "run", blind)


def no_fence(patch: pytest.MonkeyPatch) -> None:
    """Whoever once held a job may still say how it ended."""
    late = and_(job_table.c.id == bindparam("held"), job_table.c.fence >= bindparam("held_since"))
    patch.setattr(jobs, "_IS_HELD", select(job_table.c.id).where(late))
    patch.setattr(jobs, "_AS_HELD", select(job_table).where(late))
    patch.setattr(jobs, "_SET", update(job_table).where(late))


def no_second_look(patch: pytest.MonkeyPatch) -> None:
    """Hits are what the index says: no second check of access and version in the database."""

    def unconfirmed(connection: Any, chunk_ids: Any, _scope: Any) -> Any:
        rows = chunks.confirming(true()).rows(connection, {"chunk_ids": chunk_ids})
        return {row.id: chunks._confirmed(row) for row in rows}

    patch.setattr(chunks, "confirm", unconfirmed)


def told_after_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Events are written by themselves, a moment after what they tell of has been committed."""
    emit_all = outbox.emit_all

    def late(transaction: Transaction, event_type: str, team_id: str, each: Callable[[], Any]) -> None:
        told = [dict(one) for one in each()]

        def write() -> None:
            with DATABASES[0].transaction() as own:
                emit_all(own, event_type, team_id, lambda: told)

        transaction.on_commit(lambda: threading.Timer(5.0, write).start())

    def remembering(self: Database, *arguments: Any) -> None:
        made(self, *arguments)
        DATABASES.append(self)

    made = Database.__init__
    patch.setattr(Database, "__init__", remembering)
    patch.setattr(notices, "emit_all", late)


def stale_sources(patch: pytest.MonkeyPatch) -> None:
    """A sync goes by what its source was when it wrote for it first."""
    known: dict[str, Any] = {}
    look = sources.being_listed

    def remembered(connection: Any, source_id: str, *rest: Any) -> Any:
        if source_id not in known:
            known[source_id] = look(connection, source_id, *rest)
        return known[source_id]

    patch.setattr(sources, "being_listed", remembered)


def shared_listings(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whose listing the newest of a source is: two syncs go on at one cursor."""

    def newest(connection: Any, source_id: str) -> Any:
        of_source = and_(job_table.c.source_id == source_id, job_table.c.kind == JobKind.SYNC)
        is_open = job_table.c.state.in_(jobs._OPEN)
        return connection.execute(select(func.max(job_table.c.id)).where(of_source, is_open)).scalar()

    patch.setattr(jobs, "open_sync", newest)
    patch.setattr(sync, "_is_under_way", lambda job, _source: "listing" in job.payload)
    patch.setattr(sources, "_LISTED", select(source_table).where(source_table.c.id == bindparam("source")))


def no_turns(patch: pytest.MonkeyPatch) -> None:
    """Who starts a sync does not wait for others that start one of the same source."""
    patch.setattr(jobs, "_TURN", select(source_table.c.listing).where(source_table.c.id == bindparam("source")))


def bare_database_errors(patch: pytest.MonkeyPatch) -> None:
    """An error of the database goes on as it is: nobody is told to come back."""
    patch.setattr(engine, "_unavailable", lambda error: RuntimeError(str(error)))


DATABASES: list[Database] = []
MUTANTS: Mapping[str, Break] = {
    made.__name__: made
    for made in (
        random_chunk_ids,
        careless_commit,
        blind_removal,
        no_fence,
        no_second_look,
        told_after_the_commit,
        stale_sources,
        shared_listings,
        no_turns,
        bare_database_errors,
    )
}
