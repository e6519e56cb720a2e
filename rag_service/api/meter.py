"""Counters of requests, in memory or in Redis for several processes.

When Redis does not answer, each process counts by itself until it does: limits hold, but as many times as there are
processes. Asking Redis is tried again after a while, so that its silence costs a request now and then, not each one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from anyio import CapacityLimiter, to_thread
from limits import RateLimitItemPerMinute, WindowStats, aio
from limits.errors import StorageError
from limits.storage import RedisStorage
from limits.strategies import SlidingWindowCounterRateLimiter
from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.retry import Retry

log = logging.getLogger(__name__)

WINDOW_S = 60
_PREFIX = "rag:rates"
_REDIS_TIMEOUT_S = 0.25
_REDIS_AGAIN_S = 5.0
_REDIS_THREADS = 16


@dataclass(frozen=True, slots=True)
class Quota:
    """Requests per minute of whoever `of` says; `name` is how the headers call it."""

    name: str
    per_minute: int
    of: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a request stands: the quota with the least left, and the seconds until there is more."""

    quota: Quota
    remaining: int
    reset_s: float
    refused: bool


class Meter:
    """Counts in memory, or in Redis where `redis_url` is given."""

    def __init__(self, redis_url: str | None = None) -> None:
        self._redis_url = redis_url
        self._silent_until = 0.0

    async def take(self, quotas: Sequence[Quota]) -> Standing:
        """Count one request against all these quotas (at least one). One that is refused counts for none after it."""
        if self._redis_url is None or time.monotonic() < self._silent_until:
            return await self._take_alone(quotas)
        try:
            return await to_thread.run_sync(self._take_together, quotas, limiter=self._threads)
        except StorageError as error:
            self._silent_until = time.monotonic() + _REDIS_AGAIN_S
            log.warning(
                "Redis does not count requests (%s); this process does it alone.", type(error.storage_error).__name__
            )
            return await self._take_alone(quotas)

    async def _take_alone(self, quotas: Sequence[Quota]) -> Standing:
        standings = []
        for quota in quotas:
            item = RateLimitItemPerMinute(quota.per_minute)
            passed = await self._in_memory.hit(item, *quota.of)
            standings.append(_standing(quota, passed, await self._in_memory.get_window_stats(item, *quota.of)))
            if not passed:
                break
        return _least(standings)

    def _take_together(self, quotas: Sequence[Quota]) -> Standing:
        standings = []
        for quota in quotas:
            item = RateLimitItemPerMinute(quota.per_minute)
            passed = self._in_redis.hit(item, *quota.of)
            standings.append(_standing(quota, passed, self._in_redis.get_window_stats(item, *quota.of)))
            if not passed:
                break
        return _least(standings)

    @cached_property
    def _in_memory(self) -> aio.strategies.SlidingWindowCounterRateLimiter:
        # The storage for threads starts one at nearly each request and waits until it runs, which beside three busy
        # threads takes 3 ms (p95 10); this one takes 0.1.
        return aio.strategies.SlidingWindowCounterRateLimiter(aio.storage.MemoryStorage())

    @cached_property
    def _in_redis(self) -> SlidingWindowCounterRateLimiter:
        url = self._redis_url or ""
        # No second try: a request waits for one silence, not for several.
        pool = ConnectionPool.from_url(
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=_REDIS_TIMEOUT_S,
            socket_connect_timeout=_REDIS_TIMEOUT_S,
        )
        return SlidingWindowCounterRateLimiter(RedisStorage(url, pool, key_prefix=_PREFIX, wrap_exceptions=True))

    @cached_property
    def _threads(self) -> CapacityLimiter:
        """Threads of its own: counting must not wait behind the requests that it is to keep out."""
        return CapacityLimiter(_REDIS_THREADS)


def _standing(quota: Quota, passed: bool, now: WindowStats) -> Standing:
    return Standing(quota, now.remaining if passed else 0, max(0.0, now.reset_time - time.time()), not passed)


def _least(standings: Iterable[Standing]) -> Standing:
    """The one that refuses, else the one with the least left."""
    return min(standings, key=lambda standing: (not standing.refused, standing.remaining))
