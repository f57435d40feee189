"""Analytics on the running set: every event counts once, in whatever order it comes, and only for its organisation."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from confluent_kafka import Consumer, Producer, TopicPartition

from isa.events import Event, TaskCompleted, TaskCreated, TaskDeleted, TaskUpdated
from kernel import Caller
from kernel.avro import Codec, Registry
from kernel.events import stamp, to_record
from tests.conftest import Organisation, SignUp, Stack

PATIENCE = 30.0
"""Seconds; an effect is there within a tenth of one when the machine is not busy."""


async def summary(org: Organisation) -> dict[str, Any]:
    """The figures of an organisation."""
    answer = await org.client("analytics").get("/v1/analytics/summary")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def until(org: Organisation, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return the figures once they are as expected, or as they are when patience ends."""
    loop = asyncio.get_running_loop()
    end = loop.time() + PATIENCE
    while not holds(found := await summary(org)) and loop.time() < end:
        await asyncio.sleep(0.05)
    return found


async def do(org: Organisation, method: str, path: str, **options: Any) -> dict[str, Any]:
    """Do something in `tasks`."""
    answer = await org.client("tasks").request(method, path, **options)
    assert answer.is_success, answer.text
    return answer.json() if answer.content else {}


class Wire:
    """Our events on Kafka, past all services."""

    def __init__(self, stack: Stack) -> None:
        environment = stack.environment
        self._brokers = environment["KAFKA_BROKERS"]
        self._registry = Registry(environment["REGISTRY_URL"])
        self._codec = Codec(self._registry)
        self._producer = Producer({"bootstrap.servers": self._brokers, "partitioner": "fnv1a_random"})

    async def put(self, event: Event) -> None:
        """Put an event on its topic, as the relay does."""
        stamped = stamp(event, Caller(org=event.org_id), datetime.now(UTC))
        record = await to_record(stamped, self._codec, source="test")
        self.send(record.topic, record.key.encode(), record.payload, list(record.headers.items()))

    def send(self, topic: str, key: bytes | None, value: bytes, headers: Any) -> None:
        """Put a record on a topic, and wait for the broker to take it."""
        self._producer.produce(topic, key=key, value=value, headers=headers)
        assert self._producer.flush(20) == 0

    def find(self, topic: str, key: str) -> tuple[bytes, Any]:
        """Return value and headers of the first record of a key."""
        consumer = Consumer({"bootstrap.servers": self._brokers, "group.id": f"test-{uuid.uuid4()}"})
        try:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
            found: tuple[Any, Any] | None = None
            while (message := consumer.poll(3.0)) is not None:
                if message.error() is None and message.key() == key.encode():
                    found = (message.value(), message.headers())
                    break
        finally:
            consumer.close()
        assert found, f"no record of {key} on {topic}"
        return found

    async def close(self) -> None:
        await self._registry.close()


@pytest_asyncio.fixture
async def wire(stack: Stack) -> AsyncIterator[Wire]:
    """Our events on Kafka."""
    wire = Wire(stack)
    yield wire
    await wire.close()


@pytest.mark.ac("phase-v:A1.3:1", "phase-v:A:1", "phase-v:A1.4:1")
async def test_what_is_done_to_tasks_shows_in_the_figures(org: Organisation) -> None:
    late = datetime.now(UTC) - timedelta(days=1)
    tasks = [await do(org, "POST", "/v1/tasks", json={"title": f"Task {n}"}) for n in range(4)]
    await do(org, "POST", "/v1/tasks", json={"title": "Late", "due_at": late.isoformat()})
    first, second, third, _ = (f"/v1/tasks/{task['id']}" for task in tasks)
    await do(org, "PATCH", first, json={"title": "Task zero"})
    await do(org, "POST", f"{first}/complete")
    await do(org, "POST", f"{second}/complete")
    await do(org, "POST", f"{second}/reopen")
    await do(org, "DELETE", third)

    figures = await until(
        org, lambda found: found["topics"]["task.deleted"] == 1 and found["topics"]["task.updated"] == 2
    )

    assert {topic: figures["topics"][f"task.{topic}"] for topic in ("created", "updated", "completed", "deleted")} == {
        "created": 5,
        "updated": 2,
        "completed": 2,
        "deleted": 1,
    }
    tasks_now = figures["tasks"]
    assert {name: tasks_now[name] for name in ("open", "overdue", "done", "deleted")} == {
        "open": 3,
        "overdue": 1,
        "done": 1,
        "deleted": 1,
    }
    assert tasks_now["completion_rate"] == pytest.approx(1 / 5)
    assert tasks_now["median_lead_seconds"] > 0
    assert figures["topics"]["user.registered"] == 1


async def test_an_organisation_sees_nothing_of_another(organisation: SignUp) -> None:
    busy, quiet = await organisation("Busy"), await organisation("Quiet")
    await do(busy, "POST", "/v1/tasks", json={"title": "Mine"})
    await until(busy, lambda found: found["topics"]["task.created"] == 1)

    figures = await until(quiet, lambda found: found["topics"]["user.registered"] == 1)
    days = (await quiet.client("analytics").get("/v1/analytics/daily")).json()["days"]

    assert figures["organisation"] == quiet.org_id
    assert figures["topics"]["task.created"] == 0
    assert sum(day["topics"]["task.created"] for day in days) == 0


async def test_the_series_has_every_day_and_the_topics_their_last_time(org: Organisation) -> None:
    await do(org, "POST", "/v1/tasks", json={"title": "Today"})
    await until(org, lambda found: found["topics"]["task.created"] == 1)
    today = datetime.now(UTC).date()
    span = {"from": str(today - timedelta(days=6)), "to": str(today)}

    daily = (await org.client("analytics").get("/v1/analytics/daily", params=span)).json()
    topics = (await org.client("analytics").get("/v1/analytics/topics")).json()["topics"]

    assert [day["day"] for day in daily["days"]] == [str(today - timedelta(days=n)) for n in range(6, -1, -1)]
    assert sum(day["topics"]["task.created"] for day in daily["days"]) == 1
    assert len(topics) == 8
    assert next(each for each in topics if each["topic"] == "task.created")["last_at"].startswith("20")


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ("from=2026-02-30", 422, "from"),
        ("from=yesterday", 422, "from"),
        ("from=2026-03-02&to=2026-03-01", 400, "from"),
        ("from=2020-01-01&to=2026-03-01", 400, "to"),
    ],
)
async def test_a_period_that_is_none_is_refused_by_name(org: Organisation, query: str, status: int, field: str) -> None:
    answer = await org.client("analytics").get(f"/v1/analytics/daily?{query}")

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["field"] for error in answer.json()["errors"]] == [field]


async def test_who_shows_no_token_learns_nothing(http: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=http["analytics"]) as client:
        for path in ("summary", "topics", "daily"):
            assert (await client.get(f"/v1/analytics/{path}")).status_code == 401


@pytest.mark.ac("phase-v:A1.3:3", "phase-v:A2.2:4")
async def test_a_record_that_comes_again_counts_once(org: Organisation, wire: Wire) -> None:
    task = await do(org, "POST", "/v1/tasks", json={"title": "Once"})
    await until(org, lambda found: found["topics"]["task.created"] == 1)
    value, headers = await asyncio.to_thread(wire.find, "task.created", task["id"])

    for _ in range(3):
        await asyncio.to_thread(wire.send, "task.created", task["id"].encode(), value, headers)
    await do(org, "POST", "/v1/tasks", json={"title": "The next of its topic"})
    figures = await until(org, lambda found: found["topics"]["task.created"] >= 2)

    assert figures["topics"]["task.created"] == 2
    assert figures["tasks"]["open"] == 2


async def test_events_that_overtake_each_other_end_in_the_right_figures(org: Organisation, wire: Wire) -> None:
    now = datetime.now(UTC)

    def about(task: str, version: int) -> dict[str, Any]:
        return {"org_id": org.org_id, "user_id": org.user_id, "aggregate_id": task, "aggregate_version": version}

    await wire.put(TaskCompleted(**about("task-a", 3), created_at=now - timedelta(hours=2), due_at=now))
    await wire.put(TaskDeleted(**about("task-b", 2), status="open"))
    figures_before = await until(
        org, lambda found: found["topics"]["task.completed"] == 1 and found["topics"]["task.deleted"] == 1
    )
    await wire.put(TaskUpdated(**about("task-a", 2), changed=["title"], status="open"))
    for task in ("task-a", "task-b", "task-c"):
        await wire.put(TaskCreated(**about(task, 1)))
    figures = await until(
        org, lambda found: found["topics"]["task.created"] == 3 and found["topics"]["task.updated"] == 1
    )

    assert figures_before["tasks"]["open"] == 0
    assert {name: figures["tasks"][name] for name in ("open", "done", "deleted")} == {
        "open": 1,
        "done": 1,
        "deleted": 1,
    }
    assert figures["tasks"]["median_lead_seconds"] == pytest.approx(7200, abs=60)


@pytest.mark.ac("phase-v:A1.4:3")
async def test_what_cannot_be_read_is_put_aside_and_its_neighbours_count(org: Organisation, wire: Wire) -> None:
    task = f"task-{uuid.uuid4().hex[:20]}"
    marker = uuid.uuid4().hex
    await asyncio.to_thread(wire.send, "task.created", marker.encode(), b"\x00not avro", [("ce_id", marker.encode())])
    await wire.put(TaskCreated(org_id=org.org_id, user_id=org.user_id, aggregate_id=task))

    figures = await until(org, lambda found: found["topics"]["task.created"] == 1)
    value, headers = await asyncio.to_thread(wire.find, "task.created.dlq", marker)

    assert figures["topics"]["task.created"] == 1
    assert value == b"\x00not avro"
    assert dict(headers)["isa-dlq-reason"]


@pytest.mark.ac("phase-v:A3.1:1", "phase-v:A3.1:5")
async def test_business_metrics_are_there_for_prometheus(http: dict[str, str], org: Organisation) -> None:
    async def counted() -> float:
        async with httpx.AsyncClient(base_url=http["analytics"]) as client:
            lines = (await client.get("/metrics")).text.splitlines()
        return float(
            next(line for line in lines if 'isa_business_events_total{topic="task.created"}' in line).split()[-1]
        )

    before = await counted()
    await do(org, "POST", "/v1/tasks", json={"title": "Counted"})
    await until(org, lambda found: found["topics"]["task.created"] == 1)

    assert await counted() >= before + 1
