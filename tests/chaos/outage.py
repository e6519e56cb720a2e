"""The vector store, or the database, does not answer for a while: requests say so, and nothing accepted is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import OperationalError

from rag_service.db import Database
from rag_service.db.engine import _available
from rag_service.db.tables import jobs as job_table
from rag_service.errors import RetryableError
from rag_service.types import utc_now
from rag_service.vectors.edge import EdgeVectorStore
from tests.chaos.history import History, NoAnswerError, RefusedError, lost
from tests.chaos.report import Report
from tests.conftest import Service, Started, Team, settings_for

_CALLS = ("upsert", "update", "delete", "search", "stored")


def vectors_out(folder: Path, seed: int, *, documents: int) -> Report:
    """Down and slow: questions are answered 503 with Retry-After, uploads are accepted and wait."""
    return _outage("vector store out", folder, seed, documents, _no_vectors)


def database_out(folder: Path, seed: int, *, documents: int) -> Report:
    """Every request is answered 503 with Retry-After, every worker puts its job off."""
    return _outage("database out", folder, seed, documents, _no_database)


def _outage(scenario: str, folder: Path, seed: int, documents: int, outage: Any) -> Report:
    dice, history = random.Random(seed), History()
    wrong: list[str] = []
    with Started(settings_for(folder, trace_sample=0, lease_s=2)) as service:
        team = service.new_team()
        for number in range(documents):
            if number == documents // 3:
                with outage(dice):
                    wrong += _asked_meanwhile(team, history, number)
            wrong += _put(team, history, f"doc-{number}")
        _hasten(service)
        team.drain(120)
        hits = {hit["external_id"] for hit in team.retrieve("words of each", top_k=100, max_chunks_per_document=1)}
        page = team.manager.get("/v1/documents", params={"limit": 1000}).json()["data"]
        wrong += lost(history, {row["external_id"]: row["status"] for row in page})
        wrong += [] if len(hits) == min(100, len(page)) else [f"{len(hits)} of {len(page)} documents are found"]
    refused = history.count("fail") + sum(read.outcome == "fail" for read in history.of("read"))
    numbers = {"accepted": history.count("ok"), "refused": refused}
    return Report(scenario, seed, "calls fail at once or after a while", numbers, tuple(wrong))


def _asked_meanwhile(team: Team, history: History, number: int) -> list[str]:
    wrong = []
    for turn in range(5):
        wrong += _put(team, history, f"meanwhile-{number}-{turn}")
        wrong += _expect(history, "read", "any", team.manager.post("/v1/retrieve", json={"query": "words of each"}))
        time.sleep(0.1)
    return wrong


def _put(team: Team, history: History, name: str) -> list[str]:
    body = {"text": f"Words of {name} and of each.", "external_id": name, "acl": {"public": True}}
    return _expect(history, "upsert", name, team.manager.post("/v1/documents", json=body))


def _expect(history: History, op: str, name: str, answer: Any) -> list[str]:
    """Done, or 503 with Retry-After: put on record which. Anything else is wrong."""
    refused = answer.status_code == 503 and int(answer.headers.get("Retry-After", 0)) > 0
    with history.doing(op, name, "ready"):
        if not answer.is_success:
            raise RefusedError if refused else NoAnswerError
    return [] if refused or answer.is_success else [f"{op} was answered with {answer.status_code}"]


def _hasten(service: Service) -> None:
    time.sleep(1)
    with service.runtime.database.transaction() as transaction:
        waiting = job_table.c.state == "queued"
        transaction.connection.execute(update(job_table).where(waiting).values(run_after=utc_now(), rung_at=None))


@contextmanager
def _no_vectors(dice: random.Random) -> Iterator[None]:
    def out(*_: Any, **__: Any) -> Any:
        time.sleep(dice.choice((0, 0.3)))
        raise RetryableError("The vector store does not answer.")

    with pytest.MonkeyPatch.context() as patch:
        for name in _CALLS:
            patch.setattr(EdgeVectorStore, name, out)
        yield


@contextmanager
def _no_database(dice: random.Random) -> Iterator[None]:
    def out(_: Database) -> Any:
        with _available():
            time.sleep(dice.choice((0, 0.3)))
            raise OperationalError("", {}, ConnectionError("server closed the connection"))

    with pytest.MonkeyPatch.context() as patch:
        for name in ("read", "transaction"):
            patch.setattr(Database, name, out)
        yield
