"""What uploads may hold in memory, all together and one organisation."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Budget:
    """Bytes to hold for a while; who asks for more than is left waits."""

    def __init__(self, total: int, *, each: int) -> None:
        self._left = total
        self._each = each
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def held(self, tenant: str, size: int) -> AsyncIterator[None]:
        """Hold bytes, when the tenant and all together may."""
        async with self._freed:
            await self._freed.wait_for(lambda: self._left >= size and self._held[tenant] + size <= self._each)
            self._left -= size
            self._held[tenant] += size
        try:
            yield
        finally:
            self._left += size
            self._held[tenant] -= size
            if not self._held[tenant]:
                del self._held[tenant]
            await asyncio.shield(self._tell())

    async def _tell(self) -> None:
        async with self._freed:
            self._freed.notify_all()
