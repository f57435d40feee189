"""One tenant asks as much as it can; the other must not feel it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

import pytest

from isa_common import Isa
from tests.conftest import SignUp

CALLS = 1500
AT_ONCE = 400
SOURCE = """
import asyncio, sys
from isa_common import Isa, IsaError

async def main(address, token, at_once):
    async with Isa(address, token=token) as isa:
        async def ask(number):
            while True:
                try:
                    await isa.cache.incr(f"flood-{number}")
                except IsaError:
                    pass
        print("flooding", flush=True)
        await asyncio.gather(*(ask(number) for number in range(at_once)))

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


async def p99(isa: Isa) -> float:
    """What the slowest hundredth of calls takes, in milliseconds; each of them succeeds."""
    took = []
    for number in range(CALLS):
        began = time.perf_counter()
        await isa.cache.set(f"quiet-{number % 50}", b"x")
        took.append(time.perf_counter() - began)
    return sorted(took)[int(CALLS * 0.99)] * 1000


@pytest.mark.parametrize("capability", ["cache"])
async def test_a_flooding_tenant_is_held_to_its_share_and_its_neighbour_is_served(
    address: str, isa_of: Callable[[str], Isa], organisation: SignUp, record_property: Callable[[str, object], None]
) -> None:
    victim, attacker = await organisation("Victim"), await organisation("Flood")
    isa, flooding = isa_of(victim.token), isa_of(attacker.token)
    await p99(isa)
    quiet = await p99(isa)
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SOURCE, address, attacker.token, str(AT_ONCE), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert program.stdout is not None
        assert await program.stdout.readline() == b"flooding\n"
        async with asyncio.timeout(60):  # until it is over its share
            while not (await flooding.usage.get("cache")).refused:
                await asyncio.sleep(0.1)
        flooded = await p99(isa)
    finally:
        program.kill()
        await program.wait()

    usage = await isa.usage.get("cache")
    record_property("flood", json.dumps({"quiet": quiet, "flooded": flooded}))
    assert not usage.refused, "the neighbour has a share of its own"
    assert usage.errors == 0
