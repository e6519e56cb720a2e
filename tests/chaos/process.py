"""A real service process that a test may kill at any moment and start again on the same data."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

ADMIN_KEY = "chaos-admin-key-0123456789abcdef"
TEAM = "chaos"


@dataclass
class ServiceProcess:
    """`flags` go to `tests.chaos.launch`, `settings` are environment variables beside the usual ones."""

    data_dir: Path
    flags: Sequence[str] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _port: int = field(default=0)

    def start(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        environment = {
            **os.environ,
            "RAG_DATA_DIR": str(self.data_dir),
            "RAG_ADMIN_KEY": ADMIN_KEY,
            "RAG_EMBEDDER": "hashing",
            "RAG_SWEEP_S": "0.5",
            **self.settings,
        }
        command = [sys.executable, "-m", "tests.chaos.launch", "serve", "--port", str(self._port), *self.flags]
        self._process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL: no handler, no flush, no goodbye. Its parser children see the pipe close and end."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "it does not run"
        return self._process.pid

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The answer, whatever it is. Raises httpx.TransportError when there is none."""
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        of_the_service = path.startswith("/v1/admin/") and not path.startswith("/v1/admin/index-versions")
        if path != "/v1/teams" and not of_the_service:
            headers["X-Rag-Team"] = TEAM
        return httpx.request(method, f"http://127.0.0.1:{self._port}{path}", headers=headers, timeout=30, **options)

    def request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        answer = self.ask(method, path, **options)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def make_team(self) -> None:
        self.request("POST", "/v1/teams", json={"id": TEAM, "name": "Chaos"})

    def wait_until_idle(self, timeout: float = 240) -> None:
        """Until no job waits or runs."""
        deadline = time.monotonic() + timeout
        for state in ("queued", "running"):
            while self.request("GET", "/v1/jobs", params={"state": state, "limit": 1})["data"]:
                assert time.monotonic() < deadline, f"jobs are still {state} after {timeout} s"
                time.sleep(0.1)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            assert self._process is not None
            assert self._process.poll() is None, "the service ended while it started"
            try:
                if httpx.get(f"http://127.0.0.1:{self._port}/readyz", timeout=5).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError("the service was not ready within 60 s")


@contextmanager
def service_process(data_dir: Path, *flags: str, **settings: str) -> Iterator[ServiceProcess]:
    service = ServiceProcess(data_dir, flags, settings)
    try:
        yield service
    finally:
        service.kill()
