"""A receiver of webhooks: a real HTTP server that keeps what it was sent and answers as it is told to."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Message:
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Receiver:
    """`answer` gives a status, or headers too, for each message."""

    port: int = 0
    messages: list[Message] = field(default_factory=list)
    answer: Callable[[Message], int | tuple[int, dict[str, str]]] = lambda _: 204

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    def of(self, event_type: str) -> list[Message]:
        return [message for message in self.messages if message.event["type"] == event_type]

    def wait_for(self, count: int = 1, event_type: str | None = None, timeout: float = 30.0) -> list[Message]:
        """The messages, once there are so many (of this type)."""
        deadline = time.monotonic() + timeout
        while len(found := self.messages if event_type is None else self.of(event_type)) < count:
            assert time.monotonic() < deadline, f"{len(found)} of {count} messages came: {self.messages}"
            time.sleep(0.01)
        return list(found)


@contextmanager
def receiving() -> Iterator[Receiver]:
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = Message(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
            receiver.messages.append(message)
            answered = receiver.answer(message)
            status, headers = answered if isinstance(answered, tuple) else (answered, {})
            self.send_response(status)
            for name, value in {"Content-Length": "0", **headers}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
