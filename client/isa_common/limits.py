"""Rate limits that all instances count together: `RateLimiter`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

from isa_common._cache import Algorithm, Allowance, Cache
from isa_common.errors import ResourceExhausted

__all__ = ["Algorithm", "Allowance", "RateLimiter"]


class RateLimiter:
    """A limit of so many calls in a window, for each of what it is asked about: a user, an address, a route.

    `observe` is told of each decision, for metrics. Of a cache, limits are the user's; of `cache.organisation`, the
    organisation's.
    """

    def __init__(
        self,
        cache: Cache,
        name: str,
        limit: int,
        *,
        window: timedelta,
        algorithm: Algorithm = Algorithm.SLIDING_WINDOW,
        burst: int = 0,
        observe: Callable[[str, Allowance], None] | None = None,
    ) -> None:
        self._cache = cache
        self._name = name
        self._limit = limit
        self._window = window
        self._algorithm = algorithm
        self._burst = burst
        self._observe = observe

    async def count(self, *subject: str, cost: int = 1) -> Allowance:
        """Count a call of a subject, such as a user and a route, when it is allowed, and tell whether it is."""
        allowance = await self._cache.limit(
            ":".join((self._name, *(quote(part, safe="@/") for part in subject))),
            self._limit,
            window=self._window,
            algorithm=self._algorithm,
            cost=cost,
            burst=self._burst,
        )
        if self._observe is not None:
            self._observe(self._name, allowance)
        return allowance

    async def require(self, *subject: str, cost: int = 1) -> Allowance:
        """Count a call; ResourceExhausted, which says when to come back, when it is over the limit."""
        allowance = await self.count(*subject, cost=cost)
        if not allowance.allowed:
            raise ResourceExhausted(
                f"Over the limit of {self._limit} in {self._window}.", retry_after=allowance.retry_after
            )
        return allowance

    async def wait(self, *subject: str, cost: int = 1) -> Allowance:
        """Count a call as soon as it is allowed; `asyncio.timeout` ends the waiting."""
        while True:
            allowance = await self.count(*subject, cost=cost)
            if allowance.allowed:
                return allowance
            await asyncio.sleep(allowance.retry_after.total_seconds())
