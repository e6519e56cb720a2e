"""Clients and workers step by step in one thread, in an order that a seed decides.

A worker passes a point before and after each of its writes. There it may be killed, may be stopped until another
worker has taken its job over and gone through with it, may meet an error, or a client may come in between. So every
moment that matters is hit, and a run that went wrong can be repeated exactly.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, and_, or_, select, update

from rag_service.blobs import LocalBlobs
from rag_service.db import Connection, Database, chunks, collections, dead_letters, documents
from rag_service.db.dead_letters import LetterFilter
from rag_service.db.tables import jobs as job_table
from rag_service.errors import RagError, RetryableError
from rag_service.types import DocumentStatus, utc_now
from rag_service.vectors.edge import EdgeVectorStore
from tests.chaos.history import GONE, History, leaked, lost, resurrected, went_back
from tests.chaos.report import Report
from tests.conftest import Service, Started, Team, settings_for

READERS = ("ann", "bob")
_WRITES = {EdgeVectorStore: ("upsert", "update", "delete"), LocalBlobs: ("put", "delete")}
_VERSION = re.compile(r"version(\d+)q")
# How often something happens at a point that a worker passes.
_TROUBLE = 0.15
_DEEPEST = 2
_OF_ONE_TEAM = 20


class KilledError(BaseException):
    """The worker is no more: nothing of it runs any further, as after SIGKILL."""


@dataclass
class Simulation:
    """Clients of one team, and workers on its jobs."""

    service: Service
    team: Team
    dice: random.Random
    history: History = field(default_factory=History)
    counted: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    _versions: dict[str, int] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)
    _holding: list[str] = field(default_factory=list)
    _name: str = ""
    _armed: bool = False
    _robbed: bool = False

    def __post_init__(self) -> None:
        self._asking = self.team.client("query", "impersonate")
        self._thread = threading.get_ident()

    def example(self, number: int) -> None:
        """One document through a few operations, with workers in between; then everybody may finish."""
        self._name = f"doc-{number}"
        self._armed = True
        self._client(first=True)
        for _ in range(self.dice.randint(1, 3)):
            self._work_once()
            for _ in range(self.dice.randint(1, 3)):
                self._client()
        self._work_once()
        self._armed = False
        self._finish()
        self._compare()

    # --- clients ------------------------------------------------------------------------------

    def _client(self, *, first: bool = False) -> None:
        acts = {self._upsert: 4, self._delete: 3, self._restrict: 3, self._repeat: 2}
        act = self._upsert if first else self.dice.choices(list(acts), list(acts.values()))[0]
        act()
        self._read()

    def _upsert(self) -> None:
        version = self._versions[self._name] = self._versions.get(self._name, 0) + 1
        readers = self._some_readers()
        with self.history.doing("upsert", self._name, version, readers=readers):
            part = f"version{version}q {self._name} " + "and more " * 60
            sections = [f"## Part {n}\n\n{part}" for n in range(4 - version % 3)]
            made = self.team.put("\n\n".join(sections), external_id=self._name, acl={"users": list(readers)})
        self._ids[self._name] = made["id"]

    def _delete(self) -> None:
        if (document_id := self._document_id()) is not None:
            with self.history.doing("delete", self._name):
                assert self.team.manager.delete(f"/v1/documents/{document_id}").status_code == 202

    def _restrict(self) -> None:
        if (document_id := self._document_id()) is not None:
            readers = self._some_readers()
            with self.history.doing("acl", self._name, readers=readers):
                acl = {"users": list(readers)}
                assert self.team.manager.patch(f"/v1/documents/{document_id}/acl", json=acl).status_code == 202

    def _repeat(self) -> None:
        """A message is delivered once more, after its job is over."""
        with self.service.runtime.database.transaction() as transaction:
            ids = self._list(transaction.connection, job_table.c.state == "succeeded")
            if ids:
                again = job_table.c.id == self.dice.choice(ids[-4:])
                transaction.connection.execute(
                    update(job_table).where(again).values(state="queued", run_after=utc_now())
                )

    def _list(self, connection: Connection, which: ColumnElement[bool]) -> list[str]:
        mine = and_(job_table.c.team_id == self.team.id, which)
        return list(connection.execute(select(job_table.c.id).where(mine).order_by(job_table.c.created_at)).scalars())

    def _read(self) -> None:
        for reader in READERS:
            with self.history.doing("read", self._name, reader=reader) as saw:
                body = {"query": self._name, "as_user": {"user": reader}, "top_k": 20}
                answer = self._asking.post("/v1/retrieve", json={**body, "filter": {"external_id": self._name}})
                assert answer.status_code == 200, answer.text
                versions = {int(_VERSION.findall(hit["text"])[0]) for hit in answer.json()["results"]}
                if len(versions) > 1:
                    self.wrong.append(f"{self._name}: versions {sorted(versions)} in one answer")
                saw(max(versions) if versions else GONE)

    def _document_id(self) -> str | None:
        page = self.team.manager.get("/v1/documents", params={"external_id": self._name}).json()["data"]
        return page[0]["id"] if page else None

    def _some_readers(self) -> tuple[str, ...]:
        return tuple(reader for reader in READERS if self.dice.random() < 0.6)

    # --- workers ------------------------------------------------------------------------------

    def _work_once(self) -> None:
        """Let a worker take each job that is due, in any order, whatever becomes of it."""
        with self.service.runtime.database.read() as connection:
            claimable = or_(job_table.c.state == "queued", job_table.c.lease_until <= utc_now())
            # Not by id: those of one millisecond are in no order, and the same seed must do the same again.
            due = self._list(connection, claimable)
        self._hasten()
        self.dice.shuffle(due)
        for job_id in due:
            self._take(job_id)

    def _hasten(self) -> None:
        """Waits are over at once."""
        with self.service.runtime.database.transaction() as transaction:
            waiting = job_table.c.state == "queued"
            transaction.connection.execute(update(job_table).where(waiting).values(run_after=utc_now()))

    def _take(self, job_id: str) -> None:
        self._holding.append(job_id)
        try:
            self.service.runtime.runner.run(job_id)
        except KilledError:
            self._count("kills")
            self._expire(job_id)
        finally:
            self._holding.pop()

    def point(self, *, inside: bool = False) -> None:
        """A worker is about to write, or has just written; `inside` of its job's own work."""
        if not self._armed or not self._holding or threading.get_ident() != self._thread:
            return
        if self.dice.random() >= _TROUBLE:
            return
        self._robbed = False
        self._armed = False  # what happens here is not troubled itself, but for a second worker
        try:
            act = self.dice.choice((self._kill, self._intrude, self._intrude, self._stall, self._err))
            act()
            if self._robbed and inside and self.dice.random() < 0.5:
                self._count("confusions")
                raise RagError("The world has changed while this worker slept.", code="confused")
        finally:
            self._armed = True

    def _kill(self) -> None:
        raise KilledError

    def _err(self) -> None:
        self._count("errors")
        raise RetryableError("The store does not answer.")

    def _intrude(self) -> None:
        self._count("intrusions")
        holding, self._holding = self._holding, []
        self._client()
        self._holding = holding

    def _stall(self) -> None:
        """Stopped beyond its lease; another worker does the job, clients come; then it goes on as if nothing was."""
        if len(self._holding) > _DEEPEST:
            return
        self._count("zombies")
        job_id = self._holding[-1]
        fence = self._fence(job_id)
        self._expire(job_id)
        self._armed = True
        self._take(job_id)
        self._armed = False
        self._robbed = self._fence(job_id) > fence
        if self.dice.random() < 0.5:
            self._intrude()

    def _fence(self, job_id: str) -> int:
        with self.service.runtime.database.read() as connection:
            return int(connection.execute(select(job_table.c.fence).where(job_table.c.id == job_id)).scalar_one())

    def _expire(self, job_id: str) -> None:
        armed, self._armed = self._armed, False
        with self.service.runtime.database.transaction() as transaction:
            running = (job_table.c.id == job_id) & (job_table.c.state == "running")
            transaction.connection.execute(update(job_table).where(running).values(lease_until=utc_now()))
        self._armed = armed

    def _count(self, what: str) -> None:
        self.counted[what] = self.counted.get(what, 0) + 1

    # --- the end ------------------------------------------------------------------------------

    def _finish(self) -> None:
        """No more trouble: work through all that is left, waits and all."""
        while True:
            with self.service.runtime.database.transaction() as transaction:
                left = job_table.c.state.in_(("queued", "running"))
                now = {"run_after": utc_now(), "lease_until": utc_now(), "rung_at": None}
                transaction.connection.execute(update(job_table).where(left).values(now))
                due = self._list(transaction.connection, left)
            if not due:
                return
            for job_id in due:
                self._take(job_id)

    def _compare(self) -> None:
        """Catalogue, index and answers say the same of the document."""
        self._read()
        with self.service.runtime.database.read() as connection:
            row = documents.load(connection, self._ids[self._name])
            assert row is not None
            made = {chunk.id for chunk in chunks.page(connection, row.id, limit=1000, after=None).data}
            index = collections.active_index(connection, row.collection_id)
            letters = dead_letters.page(connection, LetterFilter(team_id=self.team.id), limit=9, after=None).data
        held = {point.chunk_id for point in self.service.runtime.vectors.stored(index.id, row.id)}
        ended = DocumentStatus.DELETED if row.is_deleted else DocumentStatus.READY
        if row.status != ended or made != held or bool(made) == row.is_deleted:
            self.wrong.append(f"{self._name} is {row.status}, {len(held)} points for {len(made)} chunks")
        self.wrong += [f"{self._name}: a job gave up: {letter.error}" for letter in letters]
        self.wrong += self._unseen()

    def _unseen(self) -> list[str]:
        """Whoever is admitted sees the newest version."""
        seen = {event.reader: event.value for event in self.history.events[-len(READERS) :]}
        writes = [event for event in self.history.of("upsert", "delete") if event.id == self._name]
        newest = max(writes, key=lambda event: event.invoked).value
        grants = [event for event in self.history.of("upsert", "acl") if event.id == self._name]
        admitted = max(grants, key=lambda event: event.invoked).readers or frozenset()
        expected = {reader: newest if reader in admitted else GONE for reader in READERS}
        return [] if seen == expected else [f"{self._name}: seen {seen}, expected {expected}"]

    def final(self) -> dict[str, object]:
        """The newest version of each document that the catalogue holds, whoever may see it."""
        held = {}
        for name in self._versions:
            page = self.team.manager.get("/v1/documents", params={"external_id": name}).json()["data"]
            for row in page:
                answer = self.team.manager.get(f"/v1/documents/{row['id']}/text").json()
                found = _VERSION.findall(answer.get("text", ""))
                held[name] = int(found[0]) if found else answer.get("code")
        return held


@contextmanager
def troubled(simulation: Simulation) -> Iterator[None]:
    """Every write of a worker passes the simulation's point, before and after."""
    with pytest.MonkeyPatch.context() as patch:
        for owner, names in _WRITES.items():
            for name in names:
                patch.setattr(owner, name, _passing(simulation, getattr(owner, name)))
        transaction = Database.transaction

        @contextmanager
        def passing(self: Database) -> Iterator[Any]:
            simulation.point()
            with transaction(self) as opened:
                yield opened
            simulation.point()

        patch.setattr(Database, "transaction", passing)
        yield


def _passing(simulation: Simulation, write: Any) -> Any:
    def passing(*arguments: Any, **more: Any) -> Any:
        simulation.point(inside=True)
        result = write(*arguments, **more)
        simulation.point(inside=True)
        return result

    return passing


def interleave(folder: Path, seed: int, examples: int, *, until_wrong: bool = False) -> Report:
    """Run that many examples, or up to the first that is not right; what is wrong is in the report."""
    counted: dict[str, int] = {"operations": 0, "reads": 0}
    wrong: list[str] = []
    with Started(settings_for(folder, trace_sample=0, lease_s=3600), worker=False) as service:
        for start in range(0, examples, _OF_ONE_TEAM):
            simulation = Simulation(service, service.new_team(), random.Random(f"{seed}-{start}"))
            with troubled(simulation):
                for number in range(start, min(start + _OF_ONE_TEAM, examples)):
                    simulation.example(number)
                    if until_wrong and simulation.wrong:
                        break
            history = simulation.history
            wrong += simulation.wrong + resurrected(history) + leaked(history) + went_back(history)
            wrong += lost(history, simulation.final())
            counted["operations"] += len(history.of("upsert", "delete", "acl"))
            counted["reads"] += len(history.of("read"))
            for what, times in sorted(simulation.counted.items()):
                counted[what] = counted.get(what, 0) + times
            if wrong and until_wrong:
                break
    return Report("interleavings", seed, f"{examples} documents, stepwise", counted, tuple(wrong))
