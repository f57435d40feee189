"""Typed events between a publisher and consumers, on `isa.streams`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import pytest_asyncio

from isa_common import Delivery, Isa, IsaError, Published, Streams
from isa_common.events import EventConsumer, EventPublisher, Poison
from tests.conformance.conftest import Engines, FakeParts, Secrets, serving

SOON = timedelta(milliseconds=50)


@dataclass(frozen=True)
class Planted:
    """An event."""

    plant: str
    at: datetime
    price: Decimal = Decimal("1.50")


ROSE = Planted("rose", datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))


@pytest_asyncio.fixture
async def address(engines: Engines) -> AsyncIterator[str]:
    """A NATS adapter on the engine under test."""
    from services.adapters.nats.app import Settings, create_app

    settings = Settings(url=f"nats://{engines.address('nats')}")
    async with serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address:
        yield address


@pytest_asyncio.fixture
async def streams(as_person: Callable[..., Isa]) -> AsyncIterator[Streams]:
    """The streams of a fresh organisation, with one for plants."""
    streams = as_person(f"org-{uuid.uuid4().hex[:16]}").streams
    await streams.create_stream("garden", ["garden.>"], max_bytes=1 << 20)
    yield streams
    with suppress(IsaError):
        await streams.delete_stream("garden")


class Seen:
    """A handler that fails as a test says, and remembers what it was given."""

    def __init__(self, *failures: Exception) -> None:
        self.failures = list(failures)
        self.events: list[Planted] = []
        self.attempts: list[int] = []
        self._changed = asyncio.Condition()

    async def __call__(self, event: Planted, delivery: Delivery) -> None:
        async with self._changed:
            self.events.append(event)
            self.attempts.append(delivery.attempt)
            self._changed.notify_all()
        if self.failures:
            raise self.failures.pop(0)

    async def wait(self, number: int) -> None:
        async with asyncio.timeout(20), self._changed:
            await self._changed.wait_for(lambda: len(self.events) >= number)


@asynccontextmanager
async def running(consumer: EventConsumer[Planted], handler: Seen) -> AsyncIterator[None]:
    task = asyncio.ensure_future(consumer.run(handler))
    try:
        yield
    finally:
        consumer.stop()
        await asyncio.wait_for(task, 20)


def consumer(streams: Streams, **options: object) -> EventConsumer[Planted]:
    return EventConsumer(streams, "garden", "gardener", Planted, pause=SOON, **options)


async def settled(streams: Streams) -> None:
    """Return when every event of the consumer is done."""
    async with asyncio.timeout(20):
        while True:
            state = await streams.get_consumer("garden", "gardener")
            if not state.pending and not state.ack_pending:
                return
            await asyncio.sleep(0.02)


@pytest.mark.ac("platform:R1.6")
@pytest.mark.parametrize("form", ["json", "msgpack"])
async def test_an_event_read_is_the_event_written(streams: Streams, form: str) -> None:
    published = await EventPublisher(streams, "garden.planted", Planted, form=form).publish(ROSE)
    seen = Seen()

    async with running(consumer(streams, form=form), seen):
        await seen.wait(1)

    assert (published.stream, published.sequence) == ("garden", 1)
    assert seen.events == [ROSE]


async def test_each_event_says_its_subject_and_its_type(streams: Streams) -> None:
    publisher = EventPublisher(streams, lambda event: f"garden.planted.{event.plant}", Planted)

    outcomes = await publisher.publish_many([ROSE, replace(ROSE, plant="fern")])

    assert all(isinstance(outcome, Published) for outcome in outcomes)
    message = await streams.get_message("garden", 2)
    assert message.subject == "garden.planted.fern"
    assert (message.headers["isa-event-type"], message.headers["content-type"]) == ("Planted", "application/json")


async def test_the_same_event_twice_is_stored_once(streams: Streams) -> None:
    publisher = EventPublisher(streams, "garden.planted", Planted)

    first = await publisher.publish(ROSE, event_id="event-1")
    again = await publisher.publish(ROSE, event_id="event-1")

    assert (first.sequence, again.sequence, again.is_duplicate) == (1, 1, True)


async def test_a_handler_that_fails_gets_the_event_again(streams: Streams) -> None:
    await EventPublisher(streams, "garden.planted", Planted).publish(ROSE)
    seen = Seen(ValueError("not now"), KeyError("nor now"))

    async with running(consumer(streams), seen):
        await seen.wait(3)
        await settled(streams)

    assert (seen.events, seen.attempts) == ([ROSE] * 3, [1, 2, 3])


@pytest.mark.parametrize("failures", [[Poison("It is no plant.")], [ValueError()] * 3])
async def test_what_can_never_be_done_goes_to_the_dead_letters(streams: Streams, failures: list[Exception]) -> None:
    await EventPublisher(streams, "garden.planted", Planted).publish(ROSE, event_id="event-1")
    seen = Seen(*failures)

    async with running(consumer(streams, subjects=["garden.planted"], attempts=3, dead_letters="garden.dead"), seen):
        await seen.wait(len(failures))
        await settled(streams)

    dead = await streams.get_message("garden", last_of="garden.dead")
    assert dead.headers["isa-dead-subject"] == "garden.planted"
    assert dead.headers["isa-dead-attempts"] == str(len(failures))
    assert dead.headers["isa-dead-reason"]
    assert len(seen.events) == len(failures)


async def test_what_cannot_be_read_stops_nobody(streams: Streams) -> None:
    await streams.publish("garden.planted", b"{", durable=True)
    await EventPublisher(streams, "garden.planted", Planted).publish(ROSE)
    seen = Seen()

    async with running(consumer(streams), seen):
        await seen.wait(1)
        await settled(streams)

    assert seen.events == [ROSE]


async def test_a_consumer_goes_on_where_it_stopped(streams: Streams) -> None:
    publisher = EventPublisher(streams, "garden.planted", Planted)
    first, second = Seen(), Seen()
    await publisher.publish_many([replace(ROSE, plant=str(n)) for n in range(20)])
    async with running(consumer(streams), first):
        await first.wait(20)
        await settled(streams)
    await publisher.publish_many([replace(ROSE, plant=str(n)) for n in range(20, 30)])

    async with running(consumer(streams), second):
        await second.wait(10)

    assert sorted(int(event.plant) for event in first.events) == list(range(20))
    assert sorted(int(event.plant) for event in second.events) == list(range(20, 30))


async def test_no_more_events_are_in_hand_than_was_said(streams: Streams) -> None:
    await EventPublisher(streams, "garden.planted", Planted).publish_many([ROSE] * 12)
    at_once, most = 0, 0
    done = 0

    async def slow(event: Planted, delivery: Delivery) -> None:
        nonlocal at_once, most, done
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        done += 1

    reader = consumer(streams, at_once=3)
    task = asyncio.ensure_future(reader.run(slow))
    async with asyncio.timeout(20):
        while done < 12:
            await asyncio.sleep(0.01)
    reader.stop()
    await asyncio.wait_for(task, 20)

    assert most <= 3
