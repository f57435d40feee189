"""Events and jobs reach their handlers: in order, isolated from poison, and lost never."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import httpx
import prometheus_client
import pytest
from fastapi import FastAPI

from isa.events import ControlChanged, Event, TaskCompleted, TaskCreated
from isa_common import Unavailable
from kernel import delivery as module
from kernel.call import CAUSATION, CORRELATION
from kernel.caller import Caller
from kernel.chain import PLATFORM
from kernel.delivery import Delivered, Delivery, callbacks, check, jobs_of
from kernel.doors import job, on, on_batch
from kernel.errors import Poison
from tests.unit.fakes import NOON, Broker, RegistryServer

TOKEN = "app-token"
TOPIC = "task.created"


def created(number: int, *, task: str = "", org: str = "org-a", version: int = 1) -> TaskCreated:
    return TaskCreated(
        event_id=f"event-{number}",
        occurred_at=NOON,
        org_id=org,
        user_id="user-alice",
        correlation_id="correlation-1",
        aggregate_id=task or f"task-{number}",
        aggregate_version=version,
    )


class Room:
    """Notes what it is given; `fails` raises for an event id, once for each error in the list."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.callers: list[Caller] = []
        self.fails: dict[str, list[Exception]] = {}

    def take(self, caller: Caller, event: Event) -> None:
        if failures := self.fails.get(event.event_id):
            raise failures.pop(0) if len(failures) > 1 else failures[0]
        self.seen.append(event.event_id)
        self.callers.append(caller)

    async def one(self, caller: Caller, event: Event) -> None:
        await asyncio.sleep(0)
        self.take(caller, event)


class Post:
    """Delivers events to a room as daprd does."""

    def __init__(self, registry_server: RegistryServer, broker: Broker) -> None:
        self.codec = registry_server.codec()
        self.delivery = Delivery("notifications", registry_server.codec(), broker)
        self.room = Room()

    async def batch(self, *events: Event | bytes) -> list[Delivered]:
        made = []
        for position, event in enumerate(events):
            is_event = isinstance(event, Event)
            made.append(
                Delivered(
                    entry_id=str(position),
                    value=await self.codec.encode(event) if is_event else event,
                    headers={
                        "__key": event.aggregate_id if is_event else f"key-{position}",
                        "__partition": "0",
                        "__offset": str(100 + position),
                        "ce_id": event.event_id if is_event else f"rubbish-{position}",
                        "rawPayload": "true",
                        "partitionKey": event.aggregate_id if is_event else f"key-{position}",
                    },
                )
            )
        return made

    async def deliver(self, *events: Event | bytes, topic: str = TOPIC) -> list[str]:
        batch = await self.batch(*events)
        await self.delivery.deliver(topic, batch)
        return [record.status for record in batch]


@pytest.fixture
def letters(registry_server: RegistryServer, broker: Broker) -> Post:
    return Post(registry_server, broker)


@pytest.fixture
def alone(letters: Post) -> Post:
    letters.delivery.add(TOPIC, letters.room.one)
    return letters


async def test_each_event_reaches_its_handler_as_its_organisations_caller(alone: Post) -> None:
    statuses = await alone.deliver(created(1), created(2, org="org-b"))

    assert statuses == ["SUCCESS", "SUCCESS"]
    assert alone.room.callers == [
        Caller(org="org-a", user="user-alice", workload="notifications"),
        Caller(org="org-b", user="user-alice", workload="notifications"),
    ]


async def test_what_an_event_sets_off_carries_its_correlation_and_names_it_as_the_cause(letters: Post) -> None:
    seen: list[tuple[str, str | None]] = []

    async def handler(caller: Caller, event: Event) -> None:
        seen.append((CORRELATION.get(), CAUSATION.get()))

    letters.delivery.add(TOPIC, handler)
    await letters.deliver(created(1))

    assert seen == [("correlation-1", "event-1")]
    assert CAUSATION.get() is None


@pytest.mark.parametrize(
    "rubbish",
    [b"", b"\x00", b"rubbish", b"\x00\x00\x00\x00\x07abc", b"\x00\x00\x0f\xff\xff", b"\x01" * 50, b"\x00" * 6],
)
async def test_poison_is_quarantined_and_its_neighbours_are_handled(
    alone: Post, broker: Broker, rubbish: bytes
) -> None:
    statuses = await alone.deliver(created(1), rubbish, created(2))

    assert statuses == ["SUCCESS", "SUCCESS", "SUCCESS"]
    assert alone.room.seen == ["event-1", "event-2"]
    [(topic, letter)] = broker.published
    assert topic == "task.created.dlq"
    assert letter.payload == rubbish
    assert letter.key == "key-1"


@pytest.mark.parametrize(
    "unstorable",
    [
        replace(created(3), event_id="event\0"),
        replace(created(3), aggregate_id=""),
        replace(created(3), aggregate_id="task-" + "x" * 9000),
        replace(created(3), correlation_id="\0"),
        replace(created(3), priority="\0"),
    ],
)
async def test_an_event_that_no_database_can_keep_blocks_nobody(alone: Post, broker: Broker, unstorable: Event) -> None:
    statuses = await alone.deliver(created(1), unstorable, created(2))

    assert statuses == ["SUCCESS", "SUCCESS", "SUCCESS"]
    assert alone.room.seen == ["event-1", "event-2"]
    assert [topic for topic, _ in broker.published] == ["task.created.dlq"]


async def test_a_letter_says_why_by_whom_and_from_where(alone: Post, broker: Broker) -> None:
    await alone.deliver(struct.pack(">bI", 0, 4711) + b"x")

    headers = broker.published[0][1].headers
    assert "4711" in headers.pop("isa-dlq-reason")
    assert headers.pop("isa-dlq-at")
    assert headers == {
        "ce_id": "rubbish-0",
        "partitionKey": "key-0",
        "isa-dlq-consumer": "notifications",
        "isa-dlq-attempts": "1",
        "isa-dlq-schema-id": "4711",
        "isa-dlq-position": "0/100",
    }


async def test_a_letter_that_cannot_be_sent_comes_again_and_counts_its_attempts(alone: Post, broker: Broker) -> None:
    for failure in (Unavailable("No broker."), None):
        broker.is_down, broker.refused = failure, {"rubbish-1"}

        assert await alone.deliver(created(1), b"rubbish") == ["SUCCESS", "RETRY"]

    broker.is_down, broker.refused = None, set()
    assert await alone.deliver(created(1), b"rubbish") == ["SUCCESS", "SUCCESS"]
    assert broker.published[0][1].headers["isa-dlq-attempts"] == "3"


async def test_a_schema_that_describes_no_record_is_poison_and_stops_nobody(
    alone: Post, broker: Broker, registry_server: RegistryServer
) -> None:
    odd = [
        '"string"',
        '["null","string"]',
        "{}",
        '{"type":"record"}',
        '{"type":"enum","name":"E","symbols":["A"]}',
        "x",
    ]
    values = [struct.pack(">bI", 0, registry_server.register("odd", schema)) + b"xxxx" for schema in odd]

    statuses = await alone.deliver(*values, created(1))

    assert set(statuses) == {"SUCCESS"}
    assert alone.room.seen == ["event-1"]
    assert len(broker.published) == len(odd)


@pytest.mark.parametrize(
    "changes", [{"org_id": ""}, {"org_id": PLATFORM}, {"org_id": "ORG-A"}, {"org_id": "org-a:b"}, {"user_id": "x"}]
)
async def test_an_event_of_nobody_is_poison(alone: Post, broker: Broker, changes: dict[str, Any]) -> None:
    statuses = await alone.deliver(replace(created(1), **changes), created(2))

    assert statuses == ["SUCCESS", "SUCCESS"]
    assert alone.room.seen == ["event-2"]
    assert broker.ids() == ["event-1"]


@pytest.mark.parametrize("org", ["", PLATFORM, "org-a"])
async def test_the_control_topic_belongs_to_the_platform_too(letters: Post, org: str) -> None:
    letters.delivery.add("control.changed", letters.room.one)
    event = ControlChanged(
        event_id="event-1", occurred_at=NOON, org_id=org, aggregate_id="user-a", kind="user", state="active"
    )

    await letters.deliver(event, topic="control.changed")

    assert letters.room.seen == ["event-1"]


async def test_an_event_of_another_topic_is_poison(alone: Post, broker: Broker) -> None:
    other = TaskCompleted(event_id="event-9", occurred_at=NOON, org_id="org-a", aggregate_id="task-9", created_at=NOON)

    await alone.deliver(other)

    assert "not a TaskCreated" in broker.published[0][1].headers["isa-dlq-reason"]
    assert alone.room.seen == []


async def test_while_the_registry_is_away_unknown_schemas_wait_and_go_to_no_quarantine(
    alone: Post, broker: Broker, registry_server: RegistryServer
) -> None:
    batch = await alone.batch(created(1))
    registry_server.is_down = True

    await alone.delivery.deliver(TOPIC, batch)

    assert [record.status for record in batch] == ["RETRY"]
    assert broker.published == []


@pytest.mark.parametrize("failure", [Unavailable("No database."), RuntimeError("Bug."), TimeoutError()])
async def test_what_a_handler_cannot_do_now_comes_again(alone: Post, broker: Broker, failure: Exception) -> None:
    alone.room.fails["event-1"] = [failure]

    assert await alone.deliver(created(1), created(2)) == ["RETRY", "SUCCESS"]
    assert broker.published == []


async def test_a_handler_that_hangs_is_ended(letters: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HANDLE_TIMEOUT", 0.01)

    async def hang(caller: Caller, event: Event) -> None:
        await asyncio.sleep(10)

    letters.delivery.add(TOPIC, hang)

    assert await letters.deliver(created(1)) == ["RETRY"]


async def test_what_follows_a_retried_event_of_its_key_is_not_handled_before_it(alone: Post) -> None:
    alone.room.fails["event-2"] = [Unavailable("No database.")]

    statuses = await alone.deliver(
        created(1, task="task-x"),
        created(2, task="task-x", version=2),
        created(3, task="task-y"),
        created(4, task="task-x", version=3),
    )

    assert statuses == ["SUCCESS", "RETRY", "SUCCESS", "RETRY"]
    assert sorted(alone.room.seen) == ["event-1", "event-3"]


async def test_what_follows_an_event_that_could_not_be_decoded_waits_as_well(
    alone: Post, registry_server: RegistryServer
) -> None:
    newer = json.loads(TaskCreated.SCHEMA)
    newer["doc"] = "Another version of the schema."
    schema_id = registry_server.register("task.created-value", json.dumps(newer))
    await alone.deliver(created(0))
    batch = await alone.batch(created(1, task="task-x"), created(2, task="task-x"), created(3))
    batch[0].value = struct.pack(">bI", 0, schema_id) + batch[0].value[5:]
    registry_server.is_down = True
    alone.room.seen.clear()

    await alone.delivery.deliver(TOPIC, batch)

    assert [record.status for record in batch] == ["RETRY", "RETRY", "SUCCESS"]
    assert alone.room.seen == ["event-3"]


async def test_a_second_handler_does_not_run_ahead_of_the_first(alone: Post) -> None:
    second = Room()
    alone.delivery.add(TOPIC, second.one)
    alone.room.fails["event-1"] = [Unavailable("No database.")]

    await alone.deliver(created(1, task="task-x"), created(2, task="task-x"), created(3))

    assert alone.room.seen == ["event-3"]
    assert second.seen == ["event-3"]


async def test_poison_holds_back_nothing_of_its_key(alone: Post) -> None:
    alone.room.fails["event-1"] = [Poison("It makes no sense.")]

    statuses = await alone.deliver(created(1, task="task-x"), created(2, task="task-x"))

    assert statuses == ["SUCCESS", "SUCCESS"]
    assert alone.room.seen == ["event-2"]


async def test_keys_are_handled_side_by_side_and_each_in_its_order(letters: Post) -> None:
    running: set[str] = set()
    at_once = 0
    seen: dict[str, list[int]] = {}

    async def handler(caller: Caller, event: Event) -> None:
        nonlocal at_once
        assert event.aggregate_id not in running
        running.add(event.aggregate_id)
        at_once = max(at_once, len(running))
        await asyncio.sleep(0.001)
        running.discard(event.aggregate_id)
        seen.setdefault(event.aggregate_id, []).append(event.aggregate_version)

    letters.delivery.add(TOPIC, handler)
    events = [created(n, task=f"task-{n % 20}", version=n) for n in range(100)]
    await letters.deliver(*events)

    assert 1 < at_once <= module.AT_ONCE
    assert all(versions == sorted(versions) and len(versions) == 5 for versions in seen.values())


class Batches(Room):
    """Takes batches."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    async def many(self, caller: Caller, events: list[Event]) -> None:
        assert {event.org_id for event in events} == {caller.org}
        taken = len(self.seen)
        try:
            for event in events:
                self.take(caller, event)
        except BaseException:
            del self.seen[taken:]  # as a transaction does
            raise
        self.batches.append([event.event_id for event in events])


@pytest.fixture
def together(letters: Post) -> Post:
    letters.room = Batches()
    letters.delivery.add(TOPIC, letters.room.many, is_batch=True)
    return letters


async def test_a_batch_handler_is_given_each_organisations_events_together_and_in_order(together: Post) -> None:
    await together.deliver(created(1), created(2, org="org-b"), created(3), created(4, org="org-b"))

    assert isinstance(together.room, Batches)
    assert sorted(together.room.batches) == [["event-1", "event-3"], ["event-2", "event-4"]]


async def test_one_organisations_trouble_is_not_anothers(together: Post) -> None:
    together.room.fails["event-1"] = [Unavailable("No database.")]

    assert await together.deliver(created(1), created(2, org="org-b"), created(3)) == ["RETRY", "SUCCESS", "RETRY"]


async def test_poison_inside_a_batch_is_found_and_the_others_are_handled(together: Post, broker: Broker) -> None:
    together.room.fails["event-2"] = [Poison("It makes no sense.")]

    statuses = await together.deliver(created(1), created(2), created(3))

    assert statuses == ["SUCCESS", "SUCCESS", "SUCCESS"]
    assert together.room.seen == ["event-1", "event-3"]
    assert broker.ids() == ["event-2"]


async def test_looking_for_the_poison_keeps_the_order_of_keys(together: Post, broker: Broker) -> None:
    together.room.fails["event-1"] = [Poison("It makes no sense."), Unavailable("No database.")]
    together.room.fails["event-2"] = [Unavailable("No database.")]

    statuses = await together.deliver(created(1, task="task-x"), created(2, task="task-y"), created(3, task="task-x"))

    assert statuses == ["RETRY", "RETRY", "RETRY"]
    assert together.room.seen == []


async def test_memory_of_attempts_is_bounded(alone: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS_KEPT", 3)
    for number in range(6):
        alone.room.fails[f"event-{number}"] = [Unavailable("No database.")]

    await alone.deliver(*(created(number) for number in range(6)))

    assert len(alone.delivery._attempts) == 3


async def test_a_quarantined_event_is_counted_once(alone: Post) -> None:
    def count(outcome: str) -> float:
        labels = {"topic": TOPIC, "outcome": outcome}
        return prometheus_client.REGISTRY.get_sample_value("isa_events_consumed_total", labels) or 0.0

    before = count("success"), count("quarantined")
    await alone.deliver(b"rubbish")

    assert (count("success"), count("quarantined")) == (before[0], before[1] + 1)


class Jobs:
    """A room with jobs."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, ...]] = []
        self.failure: Exception | None = None

    @job("daily-digest", schedule="0 0 7 * * *")
    async def digest(self, data: dict[str, object]) -> None:
        self.runs.append(("digest", data))

    @job("reminder-")
    async def remind(self, name: str, data: dict[str, object]) -> None:
        if self.failure:
            raise self.failure
        self.runs.append((name, data, CORRELATION.get()))


Ask = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def sidecar(alone: Post) -> AsyncIterator[tuple[httpx.AsyncClient, Jobs]]:
    app, room = FastAPI(), Jobs()
    callbacks(app, jobs_of(room), alone.delivery, token=TOKEN)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://tasks", headers={"dapr-api-token": TOKEN}
    ) as client:
        yield client, room


async def test_daprd_is_answered_with_the_status_of_every_entry(
    alone: Post, sidecar: tuple[httpx.AsyncClient, Jobs]
) -> None:
    alone.room.fails["event-2"] = [Unavailable("No database.")]
    batch = await alone.batch(created(1), created(2), b"rubbish")
    entries = [
        {
            "entryId": record.entry_id,
            "event": base64.b64encode(record.value).decode(),
            "contentType": "application/octet-stream",
            "metadata": record.headers,
        }
        for record in batch
    ]

    response = await sidecar[0].post("/events/task.created", json={"topic": TOPIC, "entries": entries})

    assert response.json() == {
        "statuses": [
            {"entryId": "0", "status": "SUCCESS"},
            {"entryId": "1", "status": "RETRY"},
            {"entryId": "2", "status": "SUCCESS"},
        ]
    }


async def test_an_entry_without_a_value_is_poison(broker: Broker, sidecar: tuple[httpx.AsyncClient, Jobs]) -> None:
    entries = [{"entryId": "0", "event": None}]

    response = await sidecar[0].post("/events/task.created", json={"entries": entries})

    assert response.json() == {"statuses": [{"entryId": "0", "status": "SUCCESS"}]}
    assert len(broker.published) == 1


async def test_a_topic_without_a_handler_is_not_acknowledged(sidecar: tuple[httpx.AsyncClient, Jobs]) -> None:
    response = await sidecar[0].post("/events/task.deleted", json={"entries": []})

    assert response.status_code == 503


@pytest.mark.parametrize("path", ["/events/task.created", "/job/daily-digest"])
@pytest.mark.parametrize(
    "headers", [{"dapr-api-token": "wrong"}, {"dapr-caller-app-id": "evil"}, {"dapr-api-token": ""}]
)
async def test_forged_callbacks_are_refused(
    alone: Post, sidecar: tuple[httpx.AsyncClient, Jobs], path: str, headers: dict[str, str]
) -> None:
    response = await sidecar[0].post(path, json={"entries": []}, headers=headers)

    assert response.status_code == 403
    assert response.json()["request_id"]
    assert alone.room.seen == []
    assert sidecar[1].runs == []


async def test_a_job_is_found_by_its_name(sidecar: tuple[httpx.AsyncClient, Jobs]) -> None:
    client, room = sidecar

    response = await client.post("/job/daily-digest", json={"n": 1})

    assert response.status_code == 200
    assert room.runs == [("digest", {"n": 1})]


async def test_a_job_is_found_by_the_beginning_of_its_name_and_told_the_rest(
    sidecar: tuple[httpx.AsyncClient, Jobs],
) -> None:
    client, room = sidecar

    await client.post("/job/reminder-1", json={"task": "task-1"})

    [(name, data, correlation)] = room.runs
    assert (name, data) == ("reminder-1", {"task": "task-1"})
    assert correlation


@pytest.mark.parametrize("body", [b"", b"rubbish", b"[1]", b"null", b"\xff"])
async def test_a_job_without_sane_data_runs_with_none(sidecar: tuple[httpx.AsyncClient, Jobs], body: bytes) -> None:
    client, room = sidecar

    await client.post("/job/daily-digest", content=body)

    assert room.runs == [("digest", {})]


@pytest.mark.parametrize("failure", [Unavailable("No database."), RuntimeError("Bug.")])
async def test_a_failed_job_is_told_to_the_scheduler(
    sidecar: tuple[httpx.AsyncClient, Jobs], failure: Exception
) -> None:
    client, room = sidecar
    room.failure = failure

    assert (await client.post("/job/reminder-1", json={})).status_code == 500


@pytest.mark.parametrize("name", ["unknown", "daily-digest-2", "reminder"])
async def test_a_job_that_nobody_wants_is_forgotten(sidecar: tuple[httpx.AsyncClient, Jobs], name: str) -> None:
    client, room = sidecar

    response = await client.post(f"/job/{name}", json={})

    assert response.status_code == 200
    assert room.runs == []


class OneTooFew:
    """A mistake."""

    @on(TaskCreated)
    async def handle(self, event: TaskCreated) -> None: ...


class OneTooMany:
    """A mistake."""

    @on_batch(TaskCreated)
    async def handle(self, caller: Caller, events: list[Event], more: int) -> None: ...


class NamelessJob:
    """A mistake."""

    @job("reminder-")
    async def run(self, data: dict[str, object]) -> None: ...


class NamedJob:
    """A mistake."""

    @job("daily", schedule="@every 1h")
    async def run(self, name: str, data: dict[str, object]) -> None: ...


class NotAsync:
    """A mistake."""

    @on(TaskCreated)
    def handle(self, caller: Caller, event: TaskCreated) -> None: ...


@pytest.mark.parametrize("room", [OneTooFew(), OneTooMany(), NamelessJob(), NamedJob(), NotAsync()])
def test_a_handler_of_the_wrong_shape_is_found_at_start(room: object) -> None:
    with pytest.raises(TypeError, match=type(room).__name__):
        check(room)


def test_handlers_of_the_right_shape_are_taken() -> None:
    check(Jobs())
