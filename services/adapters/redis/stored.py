"""How much each organisation holds: one sweep over all names weighs them for all."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from services.adapters.redis.connection import Redis
from services.adapters.redis.scripts import WEIGH

STEP = 200
"""Names that one step weighs, so that no other command waits for long."""
REST = 1.0
"""How many times as long as a step the sweep rests after it."""
PATIENCE = 5.0
"""Seconds after which who asks gets the figure of the sweep before, where there are that many names."""


class Stored:
    """Bytes by organisation, swept when somebody asks."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._bytes: dict[str, int] = {}
        self._sweeping: asyncio.Task[None] | None = None

    async def of(self, org: str) -> int:
        """Bytes that an organisation holds, by a sweep that began after this was asked."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                if self._sweeping is not None:
                    await asyncio.wait([self._sweeping])
                if self._sweeping is None or self._sweeping.done():
                    self._sweeping = asyncio.create_task(self._sweep())
                await asyncio.shield(self._sweeping)
        return self._bytes.get(org, 0)

    def stop(self) -> None:
        """End a sweep that is under way."""
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _sweep(self) -> None:
        found: dict[str, int] = {}
        cursor = b"0"
        while True:
            began = time.monotonic()
            cursor, *sums = await self._redis.run(WEIGH, (), cursor, STEP)
            for org, size in zip(sums[::2], sums[1::2], strict=True):
                found[org.decode()] = found.get(org.decode(), 0) + size
            if cursor == b"0":
                break
            await asyncio.sleep((time.monotonic() - began) * REST)
        self._bytes = found
