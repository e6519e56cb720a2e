"""A whole distributed service as plain processes: two API processes, two workers and a scheduler over real servers.

The commands are those of a deployment. A test starts, stops and kills any of them, and asks any API process.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.distributed.servers import PostgresServer, Process, QdrantStandIn, RedisServer, free_port

RAG = ("rag_service",)  # the module that is `rag`, and flags of its own
ADMIN_KEY = "distributed-admin-key-0123456789abcdef"


class ApiProcess(Process):
    """`rag serve --no-worker`."""

    def __init__(self, log: Path, environment: Mapping[str, str], rag: Sequence[str] = RAG) -> None:
        port = free_port()
        command = [sys.executable, "-m", *rag, "serve", "--no-worker", "--port", str(port)]
        super().__init__(command, log, environment)
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=15).is_success
        except httpx.TransportError:
            return False

    def send_request(self, method: str, path: str, *, team: str | None = None, **options: Any) -> httpx.Response:
        """With the admin key, in the name of `team`; `key` takes another one."""
        key = options.pop("key", ADMIN_KEY)
        headers = {"Authorization": f"Bearer {key}"}
        if team is not None and key == ADMIN_KEY:
            headers["X-Rag-Team"] = team
        return httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **options)

    def request(self, method: str, path: str, *, team: str | None = None, **options: Any) -> dict[str, Any]:
        """As `send_request`; the answer must be a success."""
        answer = self.send_request(method, path, team=team, **options)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        content: dict[str, Any] = answer.json()
        return content


class WorkerProcess(Process):
    """`dramatiq workers.main -p 1`; a kill takes dramatiq's own child with it."""

    def __init__(self, log: Path, environment: Mapping[str, str], threads: int = 4) -> None:
        command = [sys.executable, "-m", "dramatiq", "workers.main", "-p", "1", "-t", str(threads)]
        super().__init__(command, log, environment)

    def is_ready(self) -> bool:
        return "worker started" in self.output


class SchedulerProcess(Process):
    """`rag scheduler`."""

    def __init__(self, log: Path, environment: Mapping[str, str]) -> None:
        super().__init__([sys.executable, "-m", "rag_service", "scheduler"], log, environment)

    def is_ready(self) -> bool:
        return "Scheduling." in self.output


class Cluster:
    """The servers and the processes over them; `environment` is what every process of ours is given."""

    def __init__(
        self,
        folder: Path,
        *,
        apis: int = 2,
        workers: int = 2,
        schedulers: int = 1,
        rag: Sequence[str] = RAG,
        **settings: str,
    ) -> None:
        self.folder = folder
        self.redis = RedisServer(folder / "redis")
        self.postgres = PostgresServer()
        self.qdrant = QdrantStandIn(folder / "qdrant") if "RAG_TEST_QDRANT_URL" not in os.environ else None
        self.environment = {
            "RAG_DATA_DIR": str(folder / "data"),
            "RAG_ADMIN_KEY": ADMIN_KEY,
            "RAG_EMBEDDER": "hashing",
            "RAG_REDIS_URL": self.redis.url,
            "RAG_DATABASE_URL": self.postgres.url(),
            "RAG_QDRANT_URL": self.qdrant.url if self.qdrant else os.environ["RAG_TEST_QDRANT_URL"],
            "RAG_WORKER_THREADS": "4",
            "RAG_PARSER_PROCESSES": "1",
            "RAG_SWEEP_S": "1",
            "PYTHONUNBUFFERED": "1",
            **settings,
        }
        self.apis = [ApiProcess(folder / f"api-{n}.log", self.environment, rag) for n in range(apis)]
        self.workers = [WorkerProcess(folder / f"worker-{n}.log", self.environment) for n in range(workers)]
        self.schedulers = [SchedulerProcess(folder / f"scheduler-{n}.log", self.environment) for n in range(schedulers)]

    @property
    def servers(self) -> list[Process]:
        return [server for server in (self.redis, self.postgres, self.qdrant) if server is not None]

    @property
    def processes(self) -> list[Process]:
        return [*self.apis, *self.workers, *self.schedulers]

    def start(self) -> None:
        """All at once, as a machine that boots does: of the processes, one migrates and the others wait for it."""
        for group in (self.servers, self.processes):
            for process in group:
                process.launch()
            for process in group:
                process.wait_until(process.is_ready, 180)

    def close(self) -> None:
        for process in (*self.processes, *self.servers):
            process.kill()
        self.postgres.remove()

    def request(self, method: str, path: str, *, api: int = 0, **options: Any) -> dict[str, Any]:
        return self.apis[api].request(method, path, **options)

    def wait_for(self, told: str, true: Callable[[], object], patience_s: float = 60.0) -> float:
        """Until `true` says so; returns the seconds that it took."""
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < patience_s, f"not within {patience_s:g} s: {told}\n{self._logs()}"
            time.sleep(0.05)
        return time.monotonic() - began

    def job(self, job_id: str, team: str, patience_s: float = 120.0) -> dict[str, Any]:
        """The job when it is over, as the last running API process tells it."""
        api = next(api for api in reversed(self.apis) if api.running)
        job: dict[str, Any] = {}

        def is_over() -> bool:
            job.update(api.request("GET", f"/v1/jobs/{job_id}", team=team))
            return job["state"] not in ("queued", "running")

        self.wait_for(f"job {job_id} is over", is_over, patience_s)
        return job

    def _logs(self) -> str:
        return "\n".join(f"--- {process.log.name}\n{process.output[-1500:]}" for process in self.processes)


@contextmanager
def cluster(folder: Path, **options: Any) -> Iterator[Cluster]:
    made = Cluster(folder, **options)
    try:
        made.start()
        yield made
    finally:
        made.close()
