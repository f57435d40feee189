"""The tasks API under an open-loop load: requests leave at their time, whatever the answers before them do."""

from __future__ import annotations

import asyncio
import time

import aiohttp

from bench.measure import Cpu, console, cpu_line, percentile, table
from bench.stand import Stand

ORGANISATIONS = 10
SETTLE = 5.0
EFFECT = "SELECT extract(epoch FROM seen_at)::float8, event_id FROM inbox WHERE seen_at > to_timestamp(%s)"
ACCEPTED = """
SELECT extract(epoch FROM created_at)::float8, event_id FROM outbox
WHERE topic = 'task.created' AND created_at > to_timestamp(%s)
"""


async def run(*, rate: int, users: int, seconds: int) -> None:
    """Measure and print: latency of accepting from the time that was due, and accepted to effect."""
    stand = Stand.ours()
    stand.isa("start")
    try:
        tokens = [(await stand.sign_up(f"Load {number}"))[1] for number in range(ORGANISATIONS)]
        headers = [{"authorization": f"Bearer {tokens[number % ORGANISATIONS]}"} for number in range(users)]
        latencies: list[float] = []
        failed = 0
        connector = aiohttp.TCPConnector(limit=users, keepalive_timeout=600)
        async with aiohttp.ClientSession(stand.urls["tasks"], connector=connector) as client:

            async def one(number: int, due: float) -> None:
                nonlocal failed
                body = {"title": f"Task {number}"}
                async with client.post("/v1/tasks", json=body, headers=headers[number % users]) as answer:
                    await answer.read()
                latencies.append(time.monotonic() - due)
                failed += answer.status != 201

            async def connect(number: int) -> None:
                async with client.get("/v1/tasks?limit=1", headers=headers[number]) as answer:
                    await answer.read()

            for first in range(0, users, 50):  # every user has been here before: its connection is open
                await asyncio.gather(*(connect(number) for number in range(first, min(users, first + 50))))
            await asyncio.sleep(SETTLE)  # what the first visits set off is over
            cpu = Cpu(await stand.pids())
            cpu.start()
            began, since = time.monotonic(), time.time()
            running = []
            for number in range(rate * seconds):
                due = began + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                running.append(asyncio.create_task(one(number, due)))
            await asyncio.gather(*running)
        costs = cpu.per_operation(rate * seconds)
        await asyncio.sleep(2)
        seen = {event: at for at, event in stand.rows("analytics", EFFECT, since)}
        delays = [seen[event] - at for at, event in stand.rows("tasks", ACCEPTED, since) if event in seen]
        memory = await stand.memory()
        table(
            f"Tasks API, open loop, {rate} tasks/s for {seconds} s, {users} connected users",
            ("", "p50", "p95", "p99", "target"),
            [
                ("accept, ms", *_milliseconds(latencies), "p95 under 200"),
                ("accepted to effect in analytics, ms", *_milliseconds(delays), "p50 under 50"),
            ],
        )
        console.print(f"{len(latencies)} accepted, {failed} failed, {len(delays)} effects")
        console.print(f"CPU us/task: {cpu_line(costs)}; in all {sum(costs.values()):.0f}")
        console.print(f"resident: {sum(memory.values()) / 1e9:.2f} GB in {len(memory)} processes")
    finally:
        stand.isa("stop")


def _milliseconds(values: list[float]) -> tuple[str, str, str]:
    p50, p95, p99 = (percentile(values, share) * 1000 for share in (0.5, 0.95, 0.99))
    return f"{p50:.1f}", f"{p95:.1f}", f"{p99:.1f}"
