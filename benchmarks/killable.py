"""A service process that a benchmark may kill at any moment and start again on the same data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from benchmarks.service import ADMIN_KEY, free_port, wait_until_ready

TEAM = "bench"
_UNLIMITED = {f"RAG_RATE_{kind}": "0" for kind in ("RETRIEVE", "READ", "WRITE", "ADMIN", "REFUSED")}


@dataclass
class Killable:
    """`rag serve` over `data_dir` on a free port of loopback, and the team `bench` in it."""

    data_dir: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    kills: int = 0
    _process: subprocess.Popen[bytes] | None = None
    _down: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._port = free_port()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}", "X-Rag-Team": TEAM}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self._port}", headers=headers, timeout=60)

    def start(self) -> None:
        environment = {**os.environ, **_UNLIMITED, "RAG_DATA_DIR": str(self.data_dir), "RAG_ADMIN_KEY": ADMIN_KEY}
        command = [sys.executable, "-m", "rag_service", "serve", "--host", "127.0.0.1", "--port", str(self._port)]
        self._process = subprocess.Popen(
            command, env={**environment, **self.settings}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        wait_until_ready(self._process, self.http)

    def make_team(self) -> None:
        team = httpx.post(
            f"{self.http.base_url}/v1/teams",
            json={"id": TEAM, "name": "Benchmark"},
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
        )
        team.raise_for_status()

    def kill_and_start(self) -> float:
        """SIGKILL, and again; returns the seconds until it was ready."""
        if self._process is None:
            raise RuntimeError("nothing runs")
        began = time.monotonic()
        self._down.append((began, float("inf")))
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=30)
        self.kills += 1
        self.start()
        ended = time.monotonic()
        self._down[-1] = (began, ended)
        return ended - began

    def was_down(self, at: float) -> bool:
        """Whether it was killed or starting at any time from `at` until now."""
        return any(ended >= at for _, ended in list(self._down))

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=60)
            self._process = None
        self.http.close()
