"""Connections that nobody can hold for ever: a client that dribbles its request, or does not read its answer, loses it.

uvicorn waits without end for the head of a request, for what is left of a body after the answer, and for a client to
read. Here each wait has an end: a head must be there within a time, and bytes must move at `SLOWEST` on average.
Bodies that a route is reading are timed by `limits.BodyLimit`.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import TimerHandle
from http import HTTPStatus
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rag_service.api.limits import SLOWEST
from rag_service.api.problems import MEDIA_TYPE, problem

# More than `limits.RequestShape` lets pass: what the parser may gather before anybody can look at it.
MOST_HEAD_BYTES = 64 * 1024
# Time for a client to read the refusal before its connection is cut.
_LAST_WORDS_S = 2.0
_GRACE_S = 5


def server_config(app: ASGIApp, timeout_s: float) -> uvicorn.Config:
    """How HTTP is spoken. `timeout_s`: seconds for a request's head, and for bytes that do not move.

    No lifespan: what lives as long as the service is opened and closed by its caller. The grace is the time for
    requests under way when the service is told to stop.
    """
    return uvicorn.Config(
        app,
        http=protocol_with(timeout_s),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
        lifespan="off",
    )


def protocol_with(timeout_s: float) -> type[asyncio.Protocol]:
    """The protocol class that uvicorn makes an instance of for each connection."""
    return type("TimedProtocol", (TimedProtocol,), {"timeout_s": timeout_s})


class TimedProtocol(HttpToolsProtocol):
    """One connection."""

    timeout_s = 30.0

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._in_head = False
        self._head_bytes = 0
        self._waiting: TimerHandle | None = None
        self._writing: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        super().connection_made(transport)
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        was_in_head = self._in_head
        super().data_received(data)
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MOST_HEAD_BYTES:
                self._refuse(431, "head_too_large", "The head of the request is too large. Send fewer header bytes.")
                return
        self._wait_for_client()

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_waiting()
        if not self.flow.write_paused:
            # The client has read the answer before this request.
            self._stop_watching()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch_reading()
        self._wait_for_client()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reading()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed never reaches the application, but is answered in the same form."""
        self._refuse(400, "bad_request", "This is not HTTP as the standard has it. Check the client or the proxy.")

    def _wait_for_client(self) -> None:
        """Nothing is being worked on, so it is the client's turn: its request must come within the time."""
        at_work = self.cycle is not None and not self.cycle.response_complete
        if self._waiting is None and not at_work and not self.transport.is_closing():
            self._waiting = self.loop.call_later(self.timeout_s, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        if self._in_head:
            self._refuse(408, "too_slow", "The request did not arrive in time. Send it again over a faster connection.")
        else:
            self._close()

    def _watch_reading(self) -> None:
        """From time to time, see whether the client takes what was written for it."""
        if self._writing is None and (left := self.transport.get_write_buffer_size()):
            self._writing = self.loop.call_later(self.timeout_s, self._check_reading, left)

    def _stop_watching(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None

    def _check_reading(self, before: int) -> None:
        self._writing = None
        if self.transport.get_write_buffer_size() > max(0, before - SLOWEST * self.timeout_s):
            self.transport.abort()
        else:
            self._watch_reading()

    def _refuse(self, status: int, code: str, detail: str) -> None:
        body = json.dumps({**problem(status, code, detail), "instance": "", "request_id": ""}).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
            f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\ncache-control: no-store\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self._close()

    def _close(self) -> None:
        """Politely, then without waiting for what the client does not read."""
        self.transport.close()
        self.loop.call_later(_LAST_WORDS_S, self.transport.abort)
