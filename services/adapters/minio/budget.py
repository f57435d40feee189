"""What uploads may hold in memory, all together and one organisation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class Budget:
    """Bytes to hold for a while; who asks for more than is left waits."""

    def __init__(self, total: int, *, each: int) -> None:
        self._left = total
        self._each = each
        self._held: Counter[str] = Counter()
        self._waiting: list[asyncio.Future[None]] = []

    async def take(self, tenant: str, size: int) -> None:
        """Take bytes, when the tenant and all together may."""
        while self._left < size or self._held[tenant] + size > self._each:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._left -= size
        self._held[tenant] += size

    def give(self, tenant: str, size: int) -> None:
        """Give them back."""
        self._left += size
        self._held[tenant] -= size
        if not self._held[tenant]:
            del self._held[tenant]
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:  # those that still do not fit wait again, in the same order
            if not waiter.done():
                waiter.set_result(None)

    @asynccontextmanager
    async def held(self, tenant: str, size: int) -> AsyncIterator[None]:
        """Hold bytes."""
        await self.take(tenant, size)
        try:
            yield
        finally:
            self.give(tenant, size)


class Gathering:
    """The bytes that one upload holds for the part at hand, until whoever sends that part holds them."""

    def __init__(self, budget: Budget, tenant: str) -> None:
        self._budget = budget
        self._tenant = tenant
        self._size = 0

    async def take(self, size: int) -> None:
        """Hold the bytes of the next part."""
        await self._budget.take(self._tenant, size)
        self._size = size

    def passed_on(self) -> Callable[[object], None]:
        """Hold them no more; what is returned gives them back."""
        size, self._size = self._size, 0
        return lambda _: self._budget.give(self._tenant, size)

    def give(self) -> None:
        """Give back what was not passed on."""
        size, self._size = self._size, 0
        self._budget.give(self._tenant, size)
