"""The whole service inside this process: HTTP in a thread, the worker beside it, all stopped in order."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed

if TYPE_CHECKING:
    import uvicorn

    from rag_service.runtime import Runtime
    from rag_service.settings import Settings

log = logging.getLogger(__name__)

_LOOK_S = 0.2


class HttpThread(threading.Thread):
    """Serves HTTP on a bound socket until `stop`.

    Whether it goes on is a plain flag: a signal that interrupts a main thread inside `join` or `is_alive` makes
    Python 3.11 and 3.12 take the thread for ended while it runs.
    """

    def __init__(self, server: uvicorn.Server, listener: socket.socket) -> None:
        super().__init__(name="http")
        self._server = server
        self._listener = listener
        self.is_over = False

    @property
    def is_serving(self) -> bool:
        return self._server.started and not self.is_over

    def run(self) -> None:
        try:
            self._server.run([self._listener])
        finally:
            self.is_over = True

    def stop(self) -> None:
        """Let requests under way end, then close every connection."""
        self._server.should_exit = True
        self.join()


@dataclass(frozen=True)
class Serving:
    """A running service. `key_is_new`: the admin key was made just now."""

    runtime: Runtime
    url: str
    key_is_new: bool
    http: HttpThread

    @property
    def key_file(self) -> Path | None:
        """Where the admin key is kept; None when the environment gave it."""
        settings = self.runtime.settings
        return settings.data_dir / "admin.key" if settings.admin_key is None else None

    def wait(self) -> None:
        """For ever. Raises CommandFailed when the HTTP server ends by itself."""
        while not self.http.is_over:
            time.sleep(_LOOK_S)
        raise CommandFailed("The HTTP server stopped by itself.", "The log above says why.")


@contextmanager
def serving(settings: Settings, host: str, port: int, *, worker: bool = True) -> Iterator[Serving]:
    """Start everything; stop it in reverse order. Raises CommandFailed when it cannot start."""
    from rag_service.garbage import seldom_collected
    from rag_service.runtime.observing import metrics_port, tracing

    with ExitStack() as stack:
        stack.enter_context(seldom_collected())
        # The address first: whether it is free is known before anything slow happens.
        listener = stack.enter_context(_bound(host, port))
        _enter(tracing(settings), stack)
        runtime, key_is_new = _opened(settings, stack)
        _enter(metrics_port(settings, runtime.state), stack)
        http = _start_http(runtime, listener, stack)
        if worker:
            _start_worker(runtime, stack)
        _warm_up(runtime, stack)
        yield Serving(runtime, _address(host, listener), key_is_new, http)


@contextmanager
def _bound(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError:
        raise CommandFailed(
            f"There is no address {host!r} on this machine.", "Use --host 127.0.0.1.", exit_code=MISUSED
        ) from None
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise CommandFailed(
                f"Port {port} of {host} cannot be had ({error.strerror}).",
                f"Stop what uses it or take another: make run PORT={port + 1}, or rag serve --port {port + 1}.",
                exit_code=MISUSED,
            ) from None
        yield listener


def _address(host: str, listener: socket.socket) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - shown, not bound
    if ":" in shown and not shown.startswith("["):
        shown = f"[{shown}]"
    return f"http://{shown}:{listener.getsockname()[1]}"


def _opened(settings: Settings, stack: ExitStack) -> tuple[Runtime, bool]:
    from rag_service.errors import RagError
    from rag_service.runtime import build

    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        runtime = build(settings)
        stack.callback(runtime.close)
        runtime.open()
        had_key = settings.admin_key is not None or (settings.data_dir / "admin.key").exists()
        runtime.admin_key()
    except RagError as error:
        raise CommandFailed(error.message, exit_code=MISUSED) from None
    except OSError as error:
        raise CommandFailed(
            f"The data folder {settings.data_dir} cannot be used ({error.strerror}).",
            "Make it writable, or choose another RAG_DATA_DIR.",
            exit_code=MISUSED,
        ) from None
    return runtime, not had_key


def _enter(part: AbstractContextManager[object], stack: ExitStack) -> None:
    from rag_service.errors import RagError

    try:
        stack.enter_context(part)
    except RagError as error:
        raise CommandFailed(error.message, exit_code=MISUSED) from None


def _start_http(runtime: Runtime, listener: socket.socket, stack: ExitStack) -> HttpThread:
    import uvicorn

    from rag_service.api.app import create_app
    from rag_service.api.connections import server_config

    config = server_config(create_app(runtime), runtime.settings.client_timeout_s)
    http = HttpThread(uvicorn.Server(config), listener)
    http.start()
    stack.callback(http.stop)
    while not http.is_serving:
        if http.is_over:
            raise CommandFailed("The HTTP server did not start.", "The log above says why.", exit_code=FAILED)
        time.sleep(0.01)
    return http


def _start_worker(runtime: Runtime, stack: ExitStack) -> None:
    from workers.inside import InsideWorker

    worker = InsideWorker(runtime)
    stack.callback(worker.stop)
    worker.start()


def _warm_up(runtime: Runtime, stack: ExitStack) -> None:
    """Load the model beside the first requests. A thread that still loads it must not outlive the process."""
    from rag_service.errors import RagError

    warm_up: Callable[[], Any] = getattr(runtime.embedder, "warm_up", lambda: None)

    def run() -> None:
        try:
            warm_up()
        except RagError as error:
            log.error("The model cannot be loaded: %s", error.message)
        gc.freeze()

    thread = threading.Thread(target=run, name="warm-up")
    stack.callback(thread.join)
    thread.start()


def tell_key(running: Serving) -> None:
    """Where the admin key is; the key itself only when it was made just now."""
    if running.key_is_new:
        typer.echo(f"Admin key: {running.runtime.admin_key()}")
    where = f"kept in {running.key_file}, readable by you only" if running.key_file else "the one of RAG_ADMIN_KEY"
    typer.echo(f"{'          ' if running.key_is_new else 'Admin key:'} {where}")
