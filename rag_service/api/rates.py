"""How often a key, a team or an address may ask.

Each key has a number of requests per minute for each kind of request, its team four times as many (or as configured)
for all its keys together. Requests without a valid key are counted by address. Counters slide: the minute before
counts for the share of it that is less than a minute ago.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address
from math import ceil
from typing import Literal, TypeAlias

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rag_service.api import problems
from rag_service.api.auth import Caller
from rag_service.api.meter import WINDOW_S, Meter, Quota, Standing
from rag_service.errors import RateLimited

Kind: TypeAlias = Literal["retrieve", "read", "write", "admin"]

_ADMIN = ("/v1/teams", "/v1/admin", "/v1/audit")
_RETRIEVAL = ("/v1/retrieve",)
_REPLAY = "/replay"


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per minute of one key, by kind; 0 for no limit. `refused` is for one address without a valid key.

    A team has `team_factor` times as many for all its keys together, and a team named in `teams` that many times
    more of everything.
    """

    by_kind: Mapping[Kind, int]
    refused: int = 0
    team_factor: float = 4.0
    teams: Mapping[str, float] = field(default_factory=dict)

    def quotas(self, caller: Caller, kind: Kind) -> list[Quota]:
        """What one request of this kind is counted against. An admin key of the service acts for no team."""
        rate = self.by_kind[kind]
        if not rate:
            return []
        if caller.administrator:
            return [Quota("key", rate, (kind, "admin", caller.key_id or "settings"))]
        own = rate * self.teams.get(caller.team, 1.0)
        of_key = Quota("key", max(1, round(own)), (kind, "key", caller.key_id or ""))
        return [of_key, Quota("team", max(1, round(own * self.team_factor)), (kind, "team", caller.team))]


def kind_of(method: str, path: str) -> Kind:
    """What a request counts as."""
    if path.startswith(_RETRIEVAL) or path.endswith(_REPLAY):
        return "retrieve"
    if path.startswith(_ADMIN):
        return "admin"
    return "read" if method in ("GET", "HEAD", "OPTIONS") else "write"


class RateLimit:
    """Counts the requests of valid keys, says in headers how many are left, and refuses with 429 beyond."""

    def __init__(self, app: ASGIApp, *, meter: Meter, rates: Rates) -> None:
        self._app = app
        self._meter = meter
        self._rates = rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = scope["state"].get("caller") if scope["type"] == "http" else None
        quotas = self._rates.quotas(caller, kind_of(scope["method"], scope["path"])) if caller else []
        if not quotas:
            await self._app(scope, receive, send)
            return
        standing = await self._meter.take(quotas)

        async def send_with_rates(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_told(quotas, standing))
            await send(message)

        app = problems.respond_to(scope, _too_many(standing)) if standing.refused else self._app
        await app(scope, receive, send_with_rates)


class RefusalLimit:
    """Counts what the Guard refuses by the address it came from; beyond the rate it is 429 instead of 401.

    A valid key from the same address still gets in: behind a proxy many clients share one, and keys are too long to
    be guessed at any rate.
    """

    def __init__(self, app: ASGIApp, *, meter: Meter, rates: Rates) -> None:
        self._app = app
        self._meter = meter
        self._rate = rates.refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._rate:
            await self._app(scope, receive, send)
            return
        replaced = False

        async def send_or_refuse(message: Message) -> None:
            nonlocal replaced
            if message["type"] == "http.response.start" and message["status"] == 401:
                standing = await self._meter.take([Quota("address", self._rate, ("refused", _address(scope)))])
                if standing.refused:
                    replaced = True
                    await problems.respond_to(scope, _too_many(standing))(scope, receive, send)
            if not replaced:
                await send(message)

        await self._app(scope, receive, send_or_refuse)


def _too_many(standing: Standing) -> RateLimited:
    return RateLimited(retry_after=max(1, ceil(standing.reset_s)))


def _told(quotas: list[Quota], standing: Standing) -> dict[str, str]:
    """The fields of draft-ietf-httpapi-ratelimit-headers-10: every policy, and the one with the least left."""
    policies = ", ".join(f'"{quota.name}";q={quota.per_minute};w={WINDOW_S}' for quota in quotas)
    state = f'"{standing.quota.name}";r={standing.remaining};t={max(1, ceil(standing.reset_s))}'
    return {"RateLimit-Policy": policies, "RateLimit": state}


def _address(scope: Scope) -> str:
    """An IPv6 client holds a whole /64 and counts as one."""
    host = str((scope.get("client") or ("", 0))[0])
    try:
        address = ip_address(host)
    except ValueError:
        return host
    return address.exploded[:19] if isinstance(address, IPv6Address) and not address.ipv4_mapped else host
