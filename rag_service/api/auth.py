"""Who is calling: a bearer key becomes a caller with a team and scopes, before any body is read.

`admin` implies every scope, `manage` implies `ingest` and `query`. A key of a team speaks for that team only; an
admin key names its team in `X-Rag-Team`. A key made with a user or groups always asks as that person.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, TypeAlias

from anyio import CapacityLimiter, to_thread
from fastapi import Depends, Request
from pydantic import Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from rag_service.access import Principal
from rag_service.api import problems
from rag_service.api.schemas import Model, PersonName
from rag_service.db import teams
from rag_service.errors import InvalidRequest, NotAuthenticated, NotPermitted, RagError
from rag_service.observe.context import note
from rag_service.runtime import Runtime
from rag_service.types import ApiKey, utc_now

KeyScope: TypeAlias = Literal["query", "ingest", "impersonate", "manage", "admin"]

OPEN = frozenset({"/livez", "/readyz", "/docs", "/openapi.json"})
_ALL = frozenset({"query", "ingest", "impersonate", "manage", "admin"})
_IMPLIED = {"manage": frozenset({"query", "ingest"}), "admin": _ALL}
_METRICS = "/metrics"
_LONGEST_SECRET = 512
_THREADS = 8


class AsUser(Model):
    """The person for whom an application asks. Nobody in particular (`{}`) reads public documents only."""

    user: PersonName | None = None
    groups: list[PersonName] = Field(default_factory=list, max_length=10_000)


@dataclass(frozen=True, slots=True)
class Caller:
    """`team` is "" where an admin key names none. `fixed`: the key was made for one user or certain groups.

    `key_id` is None for an admin key.
    """

    team: str
    scopes: frozenset[str]
    user: str | None = None
    groups: frozenset[str] = field(default_factory=frozenset)
    fixed: bool = False
    administrator: bool = False
    watches: bool = False
    key_id: str | None = None
    key_name: str = "admin"

    @property
    def manages(self) -> bool:
        return "manage" in self.scopes

    @property
    def may_ask_for_others(self) -> bool:
        return "impersonate" in self.scopes and not self.fixed

    def team_of(self, named: str | None) -> str | None:
        """The team that an administrator means, None for all. Raises InvalidRequest when the header names another."""
        if named is not None and self.team and named != self.team:
            raise InvalidRequest("X-Rag-Team names another team than the request. Leave one of them out.")
        return (self.team or None) if named is None else named

    def asking_again(self, as_user: Mapping[str, Any] | None) -> AsUser | None:
        """Whom a question was asked for, if this caller may ask for others now; what was stored gives no rights."""
        return AsUser.model_validate(as_user) if as_user is not None and self.may_ask_for_others else None

    def principal(self, as_user: AsUser | None = None) -> Principal:
        """Who reads. Raises NotPermitted when the key may not ask for somebody else."""
        if as_user is None:
            return Principal(self.team, self.user, self.groups, manages=self.manages)
        if not self.may_ask_for_others:
            raise NotPermitted("as_user needs a key with the scope impersonate that is not itself bound to a user.")
        return Principal(self.team, as_user.user, frozenset(as_user.groups))


class Guard:
    """Lets nobody past without a valid key, but to the few open addresses."""

    def __init__(self, app: ASGIApp, *, runtime: Runtime) -> None:
        self._app = app
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN:
            try:
                headers = Headers(scope=scope)
                if scope["path"] == _METRICS and self._is_watcher(headers):
                    caller = Caller(team="", scopes=frozenset(), key_name="metrics", watches=True)
                else:
                    caller = await self._in_thread(headers)
                note(team=caller.team, key=caller.key_id or caller.key_name)
                scope["state"]["caller"] = caller
            except RagError as error:
                await problems.respond_to(scope, error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _in_thread(self, headers: Headers) -> Caller:
        return await to_thread.run_sync(self._authenticate, headers, limiter=self._threads)

    @cached_property
    def _threads(self) -> CapacityLimiter:
        """Threads of its own: who may come in is known at once, however many requests are being worked on."""
        return CapacityLimiter(_THREADS)

    def _authenticate(self, headers: Headers) -> Caller:
        secret, named = _bearer(headers), headers.get("x-rag-team")
        if hmac.compare_digest(_digest(secret), self._admin_digest):
            return self._administrator(named)
        with self._runtime.database.read() as connection:
            key = teams.find_key(connection, secret)
        if key is None or not _is_valid(key):
            raise NotAuthenticated
        if key.team_id is None:
            return self._administrator(named)
        if named is not None and named != key.team_id:
            raise NotPermitted("X-Rag-Team names another team than that of the key. Leave the header out.")
        return Caller(
            team=key.team_id,
            scopes=_expanded(key.scopes),
            user=key.user,
            groups=frozenset(key.groups or ()),
            fixed=key.user is not None or key.groups is not None,
            key_id=key.id,
            key_name=key.name,
        )

    def _is_watcher(self, headers: Headers) -> bool:
        """Whether this is the key that opens the metrics and nothing else."""
        key = self._runtime.settings.metrics_key
        return key is not None and hmac.compare_digest(_digest(_bearer(headers)), _digest(key.get_secret_value()))

    def _administrator(self, named: str | None) -> Caller:
        if named is not None:
            with self._runtime.database.read() as connection:
                teams.get(connection, named)
        return Caller(team=named or "", scopes=_ALL, administrator=True, watches=True)

    @cached_property
    def _admin_digest(self) -> bytes:
        return _digest(self._runtime.admin_key())


def require(*any_of: KeyScope) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    """A dependency: the caller, who acts within a team and has one of these scopes (or any at all, if none is said)."""

    async def caller(request: Request) -> Caller:
        who = _caller(request)
        if not who.team:
            raise InvalidRequest("An admin key names its team: send the header X-Rag-Team.", code="team_required")
        if any_of and who.scopes.isdisjoint(any_of):
            raise NotPermitted(f"This needs a key with the scope {' or '.join(any_of)}.")
        return who

    return caller


async def any_key(request: Request) -> Caller:
    """A dependency: whoever has a valid key, with or without a team."""
    return _caller(request)


async def administrator(request: Request) -> Caller:
    """A dependency: the holder of an admin key of the whole service."""
    who = _caller(request)
    if not who.administrator:
        raise NotPermitted("This needs an admin key of the service.")
    return who


async def watcher(request: Request) -> Caller:
    """A dependency: who may see how the service is doing."""
    who = _caller(request)
    if not who.watches:
        raise NotPermitted("This needs an admin key of the service, or the key that RAG_METRICS_KEY sets.")
    return who


AnyKey = Annotated[Caller, Depends(any_key)]
Administrator = Annotated[Caller, Depends(administrator)]
Watcher = Annotated[Caller, Depends(watcher)]
Member = Annotated[Caller, Depends(require())]
Asker = Annotated[Caller, Depends(require("query"))]
Reader = Annotated[Caller, Depends(require("query", "ingest"))]
Ingester = Annotated[Caller, Depends(require("ingest"))]
Manager = Annotated[Caller, Depends(require("manage"))]


def _caller(request: Request) -> Caller:
    who = request.scope["state"].get("caller")
    if not isinstance(who, Caller):
        raise NotAuthenticated
    return who


def _bearer(headers: Headers) -> str:
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not 0 < len(secret) <= _LONGEST_SECRET:
        raise NotAuthenticated
    return secret


def _is_valid(key: ApiKey) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > utc_now())


def _expanded(scopes: tuple[str, ...]) -> frozenset[str]:
    return frozenset(scopes).union(*(_IMPLIED.get(scope, frozenset()) for scope in scopes))


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
