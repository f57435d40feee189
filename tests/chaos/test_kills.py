"""Nothing accepted is lost, and nothing has its effect twice, whatever is killed meanwhile.

The check is that of an operation log: what was accepted is compared with what is in the database, in the analytics and
in the audit. `CHAOS_SECONDS` and `CHAOS_ROUNDS` make it long; as it is, it is the short form that runs with all tests.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import Organisation, SignUp, Stack

RATE = 50
SECONDS_A_FAULT = float(os.environ.get("CHAOS_SECONDS", "5"))
ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "1"))
FAULTS = ("tasks", "tasks-dapr", "kafka", "postgres")
RECOVERY = 120.0


@dataclass
class Ledger:
    """What the clients know."""

    accepted: dict[str, str] = field(default_factory=dict)
    """Task id by idempotency key."""
    correlations: dict[str, str] = field(default_factory=dict)
    """Correlation id of the answer, by idempotency key."""
    refused: Counter[str] = field(default_factory=Counter)
    """What was answered or broke before the key was accepted, by kind."""


async def create(client: httpx.AsyncClient, ledger: Ledger, *, until: float) -> None:
    """Create one task, as a client does: the same key again until somebody says yes."""
    key = uuid.uuid4().hex
    while time.monotonic() < until:
        try:
            answer = await client.post("/v1/tasks", json={"title": f"Task {key}"}, headers={"idempotency-key": key})
        except httpx.TransportError as error:
            ledger.refused[type(error).__name__] += 1
        else:
            if answer.status_code == 201:
                ledger.accepted[key] = answer.json()["id"]
                ledger.correlations[key] = answer.headers["isa-correlation-id"]
                return
            assert answer.status_code in (409, 429, 500, 503, 504), answer.text
            ledger.refused[str(answer.status_code)] += 1
        await asyncio.sleep(0.25)


async def load(org: Organisation, ledger: Ledger, *, seconds: float) -> None:
    """Create tasks at a fixed rate, whatever the answers do."""
    limits = httpx.Limits(max_connections=200)
    headers = {"authorization": f"Bearer {org.token}"}
    async with httpx.AsyncClient(base_url=org.urls["tasks"], headers=headers, timeout=20, limits=limits) as client:
        until = time.monotonic() + seconds + RECOVERY
        running = []
        began = time.monotonic()
        for number in range(int(seconds * RATE)):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            running.append(asyncio.create_task(create(client, ledger, until=until)))
        await asyncio.gather(*running)


async def faults(stack: Stack) -> None:
    """Kill one part after the other, each by SIGKILL."""
    for _ in range(ROUNDS):
        for part in FAULTS:
            await asyncio.sleep(SECONDS_A_FAULT / 2)
            os.kill(await stack.pid(part), signal.SIGKILL)
            await asyncio.sleep(SECONDS_A_FAULT / 2)


def column(stack: Stack, room: str, query: str, *arguments: object) -> list[Any]:
    """Return the first column of a query, read past the room as the owner of its database."""
    port = stack.layout.engine_port("postgres")
    password = stack.secrets["postgres-superuser"]
    with psycopg.connect(host="127.0.0.1", port=port, user="isa", password=password, dbname=room) as connection:
        return [row[0] for row in connection.execute(query.encode(), arguments)]


async def settled(what: str, is_there: Callable[[], bool]) -> None:
    """Wait for a condition; fail when it does not come."""
    until = time.monotonic() + RECOVERY
    while not is_there():
        assert time.monotonic() < until, f"{what} did not come within {RECOVERY:.0f} s"
        await asyncio.sleep(0.5)


@pytest.mark.ac("phase-v:REL3:2", "phase-v:A1.3:3", "phase-v:A1.4:4", "phase-v:A2.2:4")
async def test_every_accepted_task_has_exactly_one_effect_whatever_is_killed(
    stack: Stack, organisation: SignUp, record_property: Callable[[str, object], None]
) -> None:
    org = await organisation("Chaos")
    ledger = Ledger()

    await asyncio.gather(
        load(org, ledger, seconds=SECONDS_A_FAULT * len(FAULTS) * ROUNDS),
        faults(stack),
    )

    assert len(ledger.accepted) == int(SECONDS_A_FAULT * len(FAULTS) * ROUNDS * RATE), "some were never accepted"
    accepted = Counter(ledger.accepted.values())
    assert max(accepted.values()) == 1, "one task answered two keys"
    own = "SELECT id FROM tasks WHERE org_id = %s"
    assert Counter(column(stack, "tasks", own, org.org_id)) == accepted, "the database and the answers differ"

    pending = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
    await settled("An empty outbox", lambda: column(stack, "tasks", pending) == [0])
    counted = "SELECT coalesce(sum(number), 0)::int FROM daily WHERE org_id = %s AND topic = 'task.created'"
    await settled("The count in analytics", lambda: column(stack, "analytics", counted, org.org_id) == [len(accepted)])
    subject = (
        "SELECT resources ->> 0 FROM audit_records WHERE org_id = %s AND kind = 'event' AND action = 'task.created'"
    )
    await settled("The audit of the events", lambda: len(column(stack, "audit", subject, org.org_id)) >= len(accepted))
    assert Counter(column(stack, "audit", subject, org.org_id)) == accepted, (
        "the audit has an event twice, or a strange one"
    )
    calls = "SELECT correlation_id FROM audit_records WHERE org_id = %s AND kind = 'call' AND outcome = 'OK'"
    answered = set(ledger.correlations.values())
    await settled("The audit of the calls", lambda: answered <= set(column(stack, "audit", calls, org.org_id)))
    record_property("refused", dict(ledger.refused))
    print(f"\naccepted {len(accepted)}, lost 0, twice 0; answers on the way: {dict(ledger.refused)}")  # noqa: T201
