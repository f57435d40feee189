"""Committed events: a task is accepted and committed with its event, published, and has its effect in a consumer.

One organisation, one Kafka, one PostgreSQL. Rounds are interleaved; the first is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import httpx
import psycopg

from bench.measure import Cpu, console, cpu_line, table
from bench.peers import dapr_outbox
from bench.stand import Stand

PARTS = ("tasks", "analytics")
"""What the pipeline needs of the set; the peer has one consumer too."""
CONCURRENCY = 64
COUNT_OURS = "SELECT coalesce(sum(number), 0) FROM daily WHERE org_id = %s AND topic = 'task.created'"
COUNT_PEER = "SELECT coalesce(sum(number), 0) FROM daily"


@dataclass(slots=True)
class Row:
    """What was measured of one contender."""

    name: str
    says: str
    rates: list[float] = field(default_factory=list)
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Median events a second, without the first round."""
        return statistics.median(self.rates[1:] or self.rates)


async def accept(url: str, headers: dict[str, str], events: int) -> None:
    """Create tasks as fast as they are accepted, a fixed number at a time."""
    numbers = iter(range(events))
    connector = aiohttp.TCPConnector(limit=CONCURRENCY)
    async with aiohttp.ClientSession(url, headers=headers, connector=connector, raise_for_status=True) as client:

        async def worker() -> None:
            for number in numbers:
                async with client.post("/v1/tasks", json={"title": f"Task {number}"}) as answer:
                    await answer.read()

        await asyncio.gather(*(worker() for _ in range(CONCURRENCY)))


async def ours(stand: Stand, row: Row, token: str, org: str, events: int) -> None:
    """One round of the set."""
    (before,) = stand.rows("analytics", COUNT_OURS, org)[0]
    cpu = Cpu(await stand.pids())
    cpu.start()
    began = time.monotonic()
    await accept(stand.urls["tasks"], {"authorization": f"Bearer {token}"}, events)
    if not await stand.until("analytics", COUNT_OURS, org, equals=int(before) + events, seconds=120):
        raise SystemExit("Our effects did not come.")
    row.rates.append(events / (time.monotonic() - began))
    row.costs = cpu.per_operation(events)


@contextlib.asynccontextmanager
async def faststream(stand: Stand, role: str) -> AsyncIterator[dict[str, int]]:
    """Run the peer's publisher and consumer; yield their process ids."""
    environment = {
        **os.environ,
        **stand.engines,
        "BENCH_DATABASE": stand.database_url("bench"),
        "BENCH_TOPIC": "bench.faststream",
        "BENCH_PORT": str(stand.layout.port(8895)),
    }

    async def start(name: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.peers.faststream_pair", name, env=environment
        )

    await (await start("prepare")).wait()
    processes = {"publisher": await start("publisher"), "consumer": await start(role)}
    try:
        async with httpx.AsyncClient() as client:
            for _ in range(200):
                with contextlib.suppress(httpx.HTTPError):
                    await client.get(f"http://127.0.0.1:{environment['BENCH_PORT']}/docs")
                    break
                await asyncio.sleep(0.1)
        yield {name: process.pid for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.terminate()
        await asyncio.gather(*(process.wait() for process in processes.values()))


async def peer(stand: Stand, row: Row, pids: dict[str, int], events: int) -> None:
    """One round of the FastStream pair."""
    (before,) = stand.rows("bench", COUNT_PEER)[0]
    engines = {name: pid for name, pid in (await stand.pids()).items() if name in ("kafka", "postgres")}
    cpu = Cpu({**pids, **engines})
    cpu.start()
    began = time.monotonic()
    await accept(f"http://127.0.0.1:{stand.layout.port(8895)}", {}, events)
    if not await stand.until("bench", COUNT_PEER, equals=int(before) + events, seconds=120):
        raise SystemExit("The peer's effects did not come.")
    row.rates.append(events / (time.monotonic() - began))
    row.costs = cpu.per_operation(events)


def make_database(stand: Stand) -> None:
    """Make the peers' database."""
    with psycopg.connect(stand.database_url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS bench")
        connection.execute("CREATE DATABASE bench")


async def warm(stand: Stand, count: str, url: str) -> None:
    """Send one task until its effect is there: the consumer has its partition."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for _ in range(60):
            (await client.post("/v1/tasks", json={"title": "warm"})).raise_for_status()
            if await stand.until("bench", count, equals=1, seconds=1):
                return


async def run(*, events: int, rounds: int, outbox_events: int) -> None:
    """Measure and print."""
    stand = Stand.ours()
    stand.isa("start", *PARTS)
    try:
        make_database(stand)
        dapr_outbox.make_topic(stand, "bench.faststream")
        org, token = await stand.sign_up(f"Bench {secrets.token_hex(2)}")
        own = Row("isA Cloud", "auth, isolation and audit on; 100 records a delivery")
        single = Row("FastStream", "no auth, isolation or audit; a message a transaction")
        batch = Row("FastStream, batch=True", "the same, up to 100 messages a transaction")
        outbox = Row("Dapr's outbox", f"state.postgresql, CloudEvents JSON, no key; {outbox_events} events")
        for number in range(rounds):
            await ours(stand, own, token, org, events)
            for row, role in ((single, "consumer"), (batch, "consumer-batch")):
                async with faststream(stand, role) as pids:
                    await warm(stand, COUNT_PEER, f"http://127.0.0.1:{stand.layout.port(8895)}")
                    await peer(stand, row, pids, events)
            rates = ", ".join(f"{row.name} {row.rates[-1]:.0f}/s" for row in (own, single, batch))
            console.print(f"round {number + 1} of {rounds}: {rates}", style="dim")
        rate, costs = await dapr_outbox.measure(stand, outbox_events)
        outbox.rates, outbox.costs = [rate], costs
        rows = [own, single, batch, outbox]
        table(
            f"Committed events, {events} a round, {rounds} rounds, {CONCURRENCY} at a time",
            ("pipeline", "events/s", "ours is", "what differs"),
            [(row.name, f"{row.rate:.1f}", f"{own.rate / row.rate:.2f} x", row.says) for row in rows],
        )
        for row in rows:
            console.print(f"CPU us/event, {row.name}: {cpu_line(row.costs)}; in all {sum(row.costs.values()):.0f}")
    finally:
        stand.isa("stop")
