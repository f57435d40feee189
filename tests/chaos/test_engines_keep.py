"""SIGKILL of engines and adapters: what was acknowledged is there when they are back."""

from __future__ import annotations

import asyncio
import os
import signal
from functools import partial

from isa_common import Unavailable
from runtime.processes import app_address
from tests.belongings import ALL, Belongings
from tests.conftest import Organisation, Stack

PARTS = ("redis", "nats", "minio", "qdrant-grpc", "loki-grpc", "postgres-grpc")


async def test_what_the_engines_acknowledged_outlives_their_death(stack: Stack, org: Organisation) -> None:
    belongings = Belongings(org.token, partial(app_address, stack.layout))
    await belongings.put()
    killed = {part: await stack.pid(part) for part in PARTS}

    for pid in killed.values():
        os.kill(pid, signal.SIGKILL)

    async with asyncio.timeout(90):
        while True:
            try:
                assert await belongings.found() == ALL
                break
            except Unavailable:  # a part is not back yet
                await asyncio.sleep(0.2)
    assert not {part for part, pid in killed.items() if await stack.pid(part) == pid}
