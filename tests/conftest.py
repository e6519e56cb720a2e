"""One embedded service for the whole run, with the hashing embedder; every test works in a team of its own."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from rag_service.api.app import create_app
from rag_service.db import Database, jobs, ringing
from rag_service.runtime import Runtime, build
from rag_service.settings import Settings
from workers.inside import InsideWorker

ADMIN_KEY = "rag_admin_for_tests"
# All tests share an address and an admin key; those of the limits set their own.
UNLIMITED = {"rate_retrieve": 0, "rate_read": 0, "rate_write": 0, "rate_admin": 0, "rate_refused": 0}


@dataclass(frozen=True)
class Service:
    """A service that is running: its runtime, and HTTP clients of it."""

    runtime: Runtime
    anonymous: TestClient

    def client(self, secret: str, **headers: str) -> TestClient:
        """Speaks with this key. Shares the anonymous client's application and event loop."""
        client = TestClient(
            self.anonymous.app,
            headers={"Authorization": f"Bearer {secret}", **headers},
            raise_server_exceptions=False,
        )
        client.portal = self.anonymous.portal
        return client

    @property
    def admin(self) -> TestClient:
        return self.client(ADMIN_KEY)

    def new_team(self) -> Team:
        name = f"team-{uuid.uuid4().hex[:12]}"
        made = self.admin.post("/v1/teams", json={"id": name, "name": name})
        assert made.status_code == 201, made.text
        return Team(self, name)

    def drain(self, patience: float = 60.0) -> None:
        """Wait until no job is queued or running, and no longer than `patience` seconds for their number to change."""
        before, deadline, pause = None, 0.0, 0.01
        while True:
            with self.runtime.database.read() as connection:
                waiting = jobs.count_open(connection)
            if not waiting:
                return
            if waiting != before:
                before, deadline = waiting, time.monotonic() + patience
            assert time.monotonic() < deadline, f"none of {waiting} open jobs ended within {patience} s"
            time.sleep(pause)
            pause = min(pause * 1.2, 0.25)

    def work(self) -> None:
        """Run what is queued in this thread, for services whose worker was not started."""
        while True:
            with self.runtime.database.transaction() as transaction:
                ringing.forget_all(transaction.connection)
                due = ringing.fill(transaction.connection, ringing.Limits(jobs=1000, syncs=1000))
                jobs.settle_parent(transaction.connection)
            if not due:
                return
            for bell in due:
                self.runtime.runner.run(bell.job_id)


@dataclass(frozen=True)
class Team:
    """A team of one test. `manager` is a client with a `manage` key; `admin` one with the admin key, naming it."""

    service: Service
    id: str
    _clients: dict[str, TestClient] = field(default_factory=dict)

    @property
    def admin(self) -> TestClient:
        return self.service.client(ADMIN_KEY, **{"X-Rag-Team": self.id})

    @property
    def manager(self) -> TestClient:
        if "manager" not in self._clients:
            self._clients["manager"] = self.client("manage")
        return self._clients["manager"]

    def key(self, *scopes: str, user: str | None = None, groups: Sequence[str] | None = None, **more: Any) -> str:
        """A new key of this team; returns its secret."""
        wanted = {"name": "a test's key", "scopes": list(scopes), "user": user, "groups": groups, **more}
        made = self.service.admin.post(f"/v1/teams/{self.id}/keys", json=wanted)
        assert made.status_code == 201, made.text
        secret: str = made.json()["key"]
        return secret

    def client(self, *scopes: str, user: str | None = None, groups: Sequence[str] | None = None) -> TestClient:
        """A client with a new key of these scopes."""
        return self.service.client(self.key(*scopes, user=user, groups=groups))

    def put(self, text: str, **fields: Any) -> dict[str, Any]:
        """Upload a text, public unless an `acl` is given; returns what the route answered."""
        answer = self.manager.post("/v1/documents", json={"text": text, "acl": {"public": True}, **fields})
        assert answer.status_code == 202, answer.text
        accepted: dict[str, Any] = answer.json()
        return accepted

    def document(self, document_id: str) -> dict[str, Any]:
        answer = self.manager.get(f"/v1/documents/{document_id}")
        assert answer.status_code == 200, answer.text
        record: dict[str, Any] = answer.json()
        return record

    def retrieve(self, query: str, client: TestClient | None = None, **more: Any) -> list[dict[str, Any]]:
        """The results of a query, asked by the manager unless a client is given."""
        answer = (client or self.manager).post("/v1/retrieve", json={"query": query, **more})
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def drain(self, patience: float = 60.0) -> None:
        self.service.drain(patience)


def settings_for(data_dir: Path, **more: Any) -> Settings:
    """The embedded mode over `data_dir`, with the hashing embedder and the tests' admin key."""
    values: dict[str, Any] = {
        "data_dir": data_dir,
        "admin_key": ADMIN_KEY,
        "embedder": "hashing",
        "worker_threads": 2,
        "parser_processes": 1,
        "sweep_s": 0.5,
        "database_url": database_for(data_dir),
        **UNLIMITED,
        **more,
    }
    return Settings(**values)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """A database of its own, for tests that need no service."""
    database = Database(f"sqlite:///{tmp_path / 'rag.db'}")
    database.migrate()
    yield database
    database.close()


def database_for(data_dir: Path) -> str | None:
    """Of the server that RAG_TEST_DATABASE_URL names, a database that belongs to `data_dir`; SQLite without one."""
    server = os.environ.get("RAG_TEST_DATABASE_URL")
    if server is None:
        return None
    name = f"rag_test_{hashlib.sha256(str(data_dir).encode()).hexdigest()[:16]}"
    with psycopg.connect(server, autocommit=True) as connection, contextlib.suppress(psycopg.errors.DuplicateDatabase):
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return server.rpartition("/")[0] + "/" + name


@dataclass
class Started:
    """A service of one's own, for tests that change settings, stop it or start it again."""

    settings: Settings
    worker: bool = True

    def __enter__(self) -> Service:
        self._runtime = build(self.settings)
        self._runtime.open()
        self._inside = InsideWorker(self._runtime)
        if self.worker:
            self._inside.start()
        self._client = TestClient(create_app(self._runtime), raise_server_exceptions=False)
        return Service(self._runtime, self._client.__enter__())  # an event loop for all requests, as under a server

    def __exit__(self, *_: object) -> None:
        self._client.__exit__()
        self._inside.stop()
        self._runtime.close()


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """The shared service, its worker running."""
    with Started(settings_for(tmp_path_factory.mktemp("service"))) as started:
        yield started


@pytest.fixture(scope="session")
def runtime(service: Service) -> Runtime:
    return service.runtime


@pytest.fixture
def team(service: Service) -> Team:
    """A team that nobody else uses."""
    return service.new_team()


@pytest.fixture
def other_team(service: Service) -> Team:
    return service.new_team()


@pytest.fixture
def client(team: Team) -> TestClient:
    """Speaks with a `manage` key of `team`."""
    return team.manager
