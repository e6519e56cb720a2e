"""Around every question: those who work on documents let it by."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from rag_service.api.rates import kind_of
from rag_service.ingest.precedence import Precedence


class QuestionsFirst:
    """Stands behind the Guard and the limits: only a question that will be answered holds anybody up."""

    def __init__(self, app: ASGIApp, *, precedence: Precedence) -> None:
        self._app = app
        self._precedence = precedence

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or kind_of(scope["method"], scope["path"]) != "retrieve":
            await self._app(scope, receive, send)
            return
        with self._precedence.asking():
            await self._app(scope, receive, send)
