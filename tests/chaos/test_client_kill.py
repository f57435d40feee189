"""A client whose server is killed again and again: it recovers by itself, and sends nothing twice that it must not.

As it is, it is the short form that runs with all tests; `CHAOS_KILLS=20 CHAOS_CALLS=100000` is the long one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest

from isa_common import DeadlineExceeded, Isa, IsaError, Unavailable
from runtime.layout import CHECKOUT
from tests.integration.private import free_port

KILLS = int(os.environ.get("CHAOS_KILLS", "3"))
CALLS = int(os.environ.get("CHAOS_CALLS", "6000"))
TASKS = 100
DEADLINE = timedelta(seconds=60)


@dataclass
class Seen:
    """What the callers know."""

    done: list[int] = field(default_factory=list)
    """Writes that were answered."""
    unknown: list[int] = field(default_factory=list)
    """Writes that ended as Unavailable: done or not, nobody says."""
    errors: Counter[str] = field(default_factory=Counter)
    reads: int = 0
    last_answer: float = 0.0

    @property
    def calls(self) -> int:
        return self.reads + len(self.done) + len(self.unknown)

    def answered(self) -> None:
        self.last_answer = time.monotonic()


@asynccontextmanager
async def server(port: int, log: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child that serves, and is killed at the end."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos.counting_server",
        str(port),
        str(log),
        cwd=CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert await child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        await child.wait()


async def keep_calling(isa: Isa, seen: Seen, numbers: count[int]) -> None:
    """Read and write in turn until all calls are made."""
    for number in numbers:
        if number >= CALLS:
            return
        try:
            if number % 2:
                assert await isa.cache.get(str(number), timeout=DEADLINE) == str(number).encode()
                seen.reads += 1
            else:
                await isa.cache.incr(str(number), timeout=DEADLINE)
                seen.done.append(number)
            seen.answered()
        except IsaError as error:
            seen.errors[f"{type(error).__name__}: {error}"] += 1
            assert isinstance(error, Unavailable), error
            assert number % 2 == 0, "a read waits for the server, within its deadline"
            seen.unknown.append(number)


@pytest.mark.ac("isa-common-prd:NFR-001:3", "isa-common-prd:NFR-002:1", "isa-common-prd:NFR-002:2")
@pytest.mark.ac("isa-common-prd:NFR-002:3", "isa-common-prd:E3-US2:1", "isa-common-prd:E3-US2:4")
async def test_a_server_that_is_killed_again_and_again(tmp_path: Path) -> None:
    log = tmp_path / "written"
    port = free_port()
    seen, numbers = Seen(), count()
    recoveries = []
    token = json.dumps({"org": "org-a", "user": "user-1"})
    async with Isa(f"127.0.0.1:{port}", token=token, connect_timeout=DEADLINE) as isa:
        tasks = [asyncio.create_task(keep_calling(isa, seen, numbers)) for _ in range(TASKS)]
        for kill in range(KILLS + 1):
            async with server(port, log):
                listens = time.monotonic()
                while seen.last_answer < listens and not all(task.done() for task in tasks):
                    await asyncio.sleep(0.005)
                recoveries.append(time.monotonic() - listens)
                goal = CALLS * (kill + 1) // (KILLS + 1)
                while seen.calls < goal and not any(task.done() for task in tasks):
                    await asyncio.sleep(0.01)
                if kill == KILLS:
                    await asyncio.gather(*tasks)
        outages, reconnects = isa.outages, isa.reconnects

    written = Counter(map(int, log.read_text().splitlines()))
    sys.stdout.write(
        f"\n{seen.calls} calls, {KILLS} kills: {outages} outages, {reconnects} channels rebuilt, "
        f"recovered after at most {max(recoveries):.2f} s; writes: {len(seen.done)} done, {len(seen.unknown)} unknown "
        f"({sum(number in written for number in seen.unknown)} of them done); {dict(seen.errors)}\n"
    )
    assert seen.calls == CALLS
    assert not [text for text in seen.errors if "closed" in text.lower()]
    assert [number for number, times in written.items() if times > 1] == [], "nothing is sent twice"
    assert set(seen.done) <= set(written), "what was answered was done"
    assert set(written) <= set(seen.done) | set(seen.unknown)
    assert outages == KILLS
    assert reconnects <= outages + 1  # the server was not up when the calls began


async def test_a_server_that_hangs(tmp_path: Path) -> None:
    port = free_port()
    token = json.dumps({"org": "org-a", "user": "user-1"})
    async with server(port, tmp_path / "written") as child, Isa(f"127.0.0.1:{port}", token=token) as isa:
        await isa.cache.get("a")
        os.kill(child.pid, signal.SIGSTOP)
        hung = await asyncio.gather(
            *(isa.cache.get(str(n), timeout=timedelta(milliseconds=300 + n)) for n in range(TASKS)),
            return_exceptions=True,
        )
        os.kill(child.pid, signal.SIGCONT)

        assert {type(error) for error in hung} == {DeadlineExceeded}
        assert await isa.cache.get("a", timeout=DEADLINE) == b"a"
        assert isa.reconnects == 0
