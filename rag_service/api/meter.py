"""Counters of requests, in memory or in Redis for several processes.

When Redis does not answer, each process counts by itself until it does: limits hold, but as many times as there are
processes. Asking Redis is tried again after a while, so that its silence costs a request now and then, not each one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from anyio import CapacityLimiter, to_thread
from limits import RateLimitItemPerMinute
from limits.errors import StorageError
from limits.storage import MemoryStorage, RedisStorage
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
            return _take(self._in_memory, quotas)
        try:
            return await to_thread.run_sync(_take, self._in_redis, quotas, limiter=self._threads)
        except StorageError as error:
            self._silent_until = time.monotonic() + _REDIS_AGAIN_S
            log.warning(
                "Redis does not count requests (%s); this process does it alone.", type(error.storage_error).__name__
            )
            return _take(self._in_memory, quotas)

    @cached_property
    def _in_memory(self) -> SlidingWindowCounterRateLimiter:
        return SlidingWindowCounterRateLimiter(MemoryStorage())

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


def _take(limiter: SlidingWindowCounterRateLimiter, quotas: Sequence[Quota]) -> Standing:
    standings = []
    for quota in quotas:
        item = RateLimitItemPerMinute(quota.per_minute)
        refused = not limiter.hit(item, *quota.of)
        reset, remaining = limiter.get_window_stats(item, *quota.of)
        standings.append(Standing(quota, 0 if refused else remaining, max(0.0, reset - time.time()), refused))
        if refused:
            return standings[-1]
    return min(standings, key=lambda standing: standing.remaining)
