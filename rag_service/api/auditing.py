"""Every request acts in somebody's name, and what was refused to a valid key is put on record."""

from __future__ import annotations

import logging

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.api.auth import Caller
from rag_service.db.authors import Author, authored_by
from rag_service.errors import RetryableError
from rag_service.runtime import Runtime

log = logging.getLogger(__name__)

_FORBIDDEN = 403


class Audited:
    """Says to all that a request does who is behind it. Stands inside the guard, which knows."""

    def __init__(self, app: ASGIApp, *, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope.get("state", {}).get("caller")
        if not isinstance(caller, Caller):
            await self._app(scope, receive, send)
            return
        refused = False

        async def watching(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start":
                refused = message["status"] == _FORBIDDEN
            await send(message)

        with authored_by(self._author(caller, scope)):
            await self._app(scope, receive, watching)
            if refused:
                await run_in_threadpool(self._record_refusal, caller, scope)

    def _author(self, caller: Caller, scope: Scope) -> Author:
        client = scope.get("client") if self._runtime.settings.audit_addresses else None
        return Author(
            kind="admin_key" if caller.administrator else "key",
            key_id=caller.key_id,
            key_name=caller.key_name,
            user=caller.user,
            groups=sorted(caller.groups) if caller.fixed else None,
            address=None if client is None else str(client[0]),
            request_id=scope["state"].get("request_id"),
        )

    def _record_refusal(self, caller: Caller, scope: Scope) -> None:
        # The name of the route, never the address that was sent: it may hold anything.
        route = str(getattr(scope.get("route"), "name", "unknown"))
        try:
            with self._runtime.database.transaction() as transaction:
                transaction.audit("request.refused", route, team=caller.team or None, outcome="refused")
        except RetryableError as error:
            log.error("a refusal of %s is not in the audit log: %s", route, error)
