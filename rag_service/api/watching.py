"""Around every request: one line in the log, its metrics, and the span that everything it causes hangs under."""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.observe import metrics, spans
from rag_service.observe.context import about
from rag_service.observe.logs import fields

log = logging.getLogger("rag_service.requests")

# Asked for every few seconds by machines: lines about them say nothing.
_PROBES = frozenset({"/livez", "/readyz", "/metrics"})
_BROKEN_OFF = 499  # as nginx counts requests whose client went away before an answer


class Watch:
    """The outermost layer. What the inner ones `note` (request id, team, key) is in its line too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), _BROKEN_OFF

        async def noticed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        metrics.request_began()
        with about(), _span(scope) as span:
            try:
                await self._app(scope, receive, noticed)
            finally:
                method, route, seconds = scope["method"], route_of(scope), time.perf_counter() - began
                spans.request_ended(span, method, route, status)
                metrics.request_ended(method, route, status, seconds)
                _log(method, route, status, seconds)


def _span(scope: Scope) -> AbstractContextManager[Any]:
    """Under the caller's own span, where its headers name one."""
    if not spans.is_on() or scope["path"] in _PROBES:
        return spans.OFF
    return spans.span(scope["method"], kind="server", parent=Headers(scope=scope))


def _log(method: str, route: str, status: int, seconds: float) -> None:
    level = logging.DEBUG if route in _PROBES else logging.INFO
    if log.isEnabledFor(level):
        told = fields(method=method, route=route, status=status, ms=round(seconds * 1000, 1))
        log.log(level, "request", extra=told)


def route_of(scope: Scope) -> str:
    """The template of the route that took the request, never its path; NO_ROUTE where none did."""
    return str(getattr(scope.get("route"), "path", metrics.NO_ROUTE))
