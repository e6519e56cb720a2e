"""A service of our own for one benchmark: a real process on loopback with a fresh data folder."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import psutil

_START_S = 300  # the first start of a machine compiles the model: half a minute, on a busy one several
_IDLE_S = 2.0
ADMIN_KEY = "benchmark-admin-key-0123456789"


@dataclass(frozen=True)
class Service:
    """A running service and the team `bench` in it."""

    http: httpx.Client
    data_dir: Path
    pid: int
    _own: threading.local = field(default_factory=threading.local)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())

    def timed_post(self, path: str, body: dict[str, Any]) -> tuple[dict[str, Any], float]:
        """The answer, and the milliseconds until all of it was here.

        Each thread has a connection of its own, and a client that computes little: what measures shares the cores with
        what is measured.
        """
        connection = self._connection()
        headers = {**self.http.headers, "Content-Type": "application/json"}
        sent = json.dumps(body).encode()
        began = time.perf_counter()
        connection.request("POST", path, sent, headers)
        answer = connection.getresponse()
        received = answer.read()
        self._own.used = time.perf_counter()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {received[:500]!r}")
        return json.loads(received), (self._own.used - began) * 1000

    def _connection(self) -> HTTPConnection:
        """Of this thread; a new one where the service may have closed the last."""
        kept: HTTPConnection | None = getattr(self._own, "connection", None)
        if kept is not None and time.perf_counter() - self._own.used < _IDLE_S:
            return kept
        if kept is not None:
            kept.close()
        made = HTTPConnection(self.http.base_url.host, self.http.base_url.port or 80)
        made.connect()
        self._own.connection = made
        return made

    def get(self, path: str, **params: str) -> dict[str, Any]:
        answer = self.http.get(path, params=params)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())

    def upload(self, collection: str, documents: Sequence[dict[str, Any]], batch: int = 200) -> None:
        for start in range(0, len(documents), batch):
            part = [{**document, "collection": collection} for document in documents[start : start + batch]]
            answer = self.post("/v1/documents:batch", {"documents": part})
            refused = [result for result in answer["results"] if result["status"] >= 400]
            if refused:
                raise RuntimeError(f"refused: {refused[:3]}")

    def memory_mb(self) -> float:
        """Resident memory of the service and its children."""
        me = psutil.Process(self.pid)
        return float(sum(process.memory_info().rss for process in (me, *me.children(recursive=True)))) / 1e6

    def passages(self, collection: str) -> list[tuple[str, str]]:
        """(external id, text) of every chunk of a collection, read from the service's own database."""
        query = (
            "SELECT documents.external_id, chunks.text FROM chunks"
            " JOIN documents ON documents.id = chunks.document_id"
            " JOIN collections ON collections.id = documents.collection_id WHERE collections.name = ?"
            " ORDER BY documents.id, chunks.ordinal"
        )
        with closing(sqlite3.connect(self.data_dir / "rag.db")) as database:
            return [(str(name), str(text)) for name, text in database.execute(query, [collection])]

    def wait_until_idle(self) -> None:
        while self.get("/v1/jobs", state="queued", limit="1")["data"] or self.get("/v1/jobs", state="running")["data"]:
            time.sleep(0.2)


@contextmanager
def running_service(keep: Path | None = None, **settings: str) -> Iterator[Service]:
    """Start `rag serve`, make the team, and end the process at the end. Data goes to `keep`, or away."""
    with tempfile.TemporaryDirectory(prefix="rag-bench-") as fresh:
        folder = str(keep or fresh)
        port = free_port()
        given = {f"RAG_{name.upper()}": value for name, value in settings.items()}
        environment = {**os.environ, "RAG_DATA_DIR": folder, "RAG_ADMIN_KEY": ADMIN_KEY, **given}
        environment.setdefault("RAG_MODELS_DIR", str(Path(tempfile.gettempdir()) / "rag-bench-models"))
        command = [sys.executable, "-m", "rag_service", "serve", "--host", "127.0.0.1", "--port", str(port)]
        log = Path(fresh) / "service.log"
        with (
            log.open("wb") as told,
            subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=told) as process,
        ):
            try:
                headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300) as http:
                    try:
                        wait_until_ready(process, http)
                    except RuntimeError as error:
                        raise RuntimeError(f"{error}\n{log.read_text(errors='replace')[-2_000:]}") from None
                    service = Service(http, Path(folder), process.pid)
                    if "bench" not in {team["id"] for team in service.get("/v1/teams")["data"]}:
                        service.post("/v1/teams", {"id": "bench", "name": "Benchmark"})
                    http.headers["X-Rag-Team"] = "bench"
                    yield service
            finally:
                process.terminate()
                process.wait(timeout=60)


def free_port() -> int:
    """Of loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], http: httpx.Client) -> None:
    """Raises RuntimeError when the process ends or takes too long."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError("the service ended while it started")
        try:
            if http.get("/readyz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the service was not ready within {_START_S} s")
