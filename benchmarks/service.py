"""A service of our own for one benchmark: a real process on loopback with a fresh data folder."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

_START_S = 300  # the first start of a machine compiles the model: half a minute, on a busy one several
ADMIN_KEY = "benchmark-admin-key-0123456789"


@dataclass(frozen=True)
class Service:
    """A running service and the team `bench` in it."""

    http: httpx.Client
    data_dir: Path
    pid: int

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.http.post(path, json=body)
        if answer.is_error:
            raise RuntimeError(f"{path}: {answer.status_code} {answer.text[:500]}")
        return dict(answer.json())

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
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
                with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=300) as http:
                    wait_until_ready(process, http)
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
            raise RuntimeError("the service ended while it started; see what it printed")
        try:
            if http.get("/readyz", timeout=2).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"the service was not ready within {_START_S} s")
