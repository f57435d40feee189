"""The inbox: an event has one effect, whoever is given it and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from isa.events import Event, NotificationSent, TaskCreated
from isa_common import Aborted, AlreadyExists, Statement, Unavailable
from kernel.caller import Caller
from kernel.inbox import ATTEMPTS, Inbox
from kernel.outbox import Outbox
from kernel.work import Work
from tests.unit.fakes import NOON, Broker, Database, FakeSql, RegistryServer

EFFECT = "INSERT INTO notifications (task) VALUES ($1)"


def created(number: int) -> TaskCreated:
    return TaskCreated(event_id=f"event-{number}", occurred_at=NOON, org_id="org-a", aggregate_id=f"task-{number}")


async def effects(events: list[Event]) -> Sequence[Statement]:
    return [Statement(EFFECT, event.aggregate_id) for event in events]


def told(events: list[Event]) -> list[Event]:
    return [
        NotificationSent(aggregate_id=f"notice-{e.event_id}", recipient_id="user-a", channel="inbox", kind=e.TOPIC)
        for e in events
    ]


def effects_of(database: Database) -> list[object]:
    return [params[0] for _, sql, params in database.executed if sql == EFFECT]


@pytest.fixture
def inbox(sql: FakeSql, broker: Broker, registry_server: RegistryServer) -> Inbox:
    login: Any = sql
    outbox, codec = Outbox(login, broker), registry_server.codec()

    def begin(caller: Caller) -> Work:
        acting: Any = sql.acting_for(caller)
        return Work(caller, acting, outbox=outbox, codec=codec, clock=lambda: NOON, source="notifications")

    return Inbox("notifications", login, begin)


async def test_effects_and_ids_commit_together(inbox: Inbox, database: Database, alice: Caller) -> None:
    fresh = await inbox.apply(alice, [created(1), created(2)], effects, emit=told)

    assert [event.event_id for event in fresh] == ["event-1", "event-2"]
    assert effects_of(database) == ["task-1", "task-2"]
    assert database.inbox == {("event-1", "notifications"), ("event-2", "notifications")}
    assert len(database.outbox) == 2
    assert database.batches == 1


async def test_a_second_delivery_has_no_effect(inbox: Inbox, database: Database, alice: Caller) -> None:
    await inbox.apply(alice, [created(1)], effects, emit=told)

    assert await inbox.apply(alice, [created(1)], effects, emit=told) == []

    assert effects_of(database) == ["task-1"]
    assert len(database.outbox) == 1


async def test_what_is_new_of_a_batch_takes_effect(inbox: Inbox, database: Database, alice: Caller) -> None:
    await inbox.apply(alice, [created(1), created(3)], effects)

    fresh = await inbox.apply(alice, [created(1), created(2), created(3), created(4)], effects, emit=told)

    assert [event.event_id for event in fresh] == ["event-2", "event-4"]
    assert effects_of(database) == ["task-1", "task-3", "task-2", "task-4"]
    assert len(database.outbox) == 2


async def test_an_event_twice_in_a_batch_takes_effect_once(inbox: Inbox, database: Database, alice: Caller) -> None:
    await inbox.apply(alice, [created(1), created(1)], effects)

    assert effects_of(database) == ["task-1"]


async def test_no_events_ask_nothing_of_the_database(inbox: Inbox, database: Database, alice: Caller) -> None:
    assert await inbox.apply(alice, [], effects) == []

    assert database.batches == 0


async def test_of_two_that_are_given_one_event_at_once_one_commits(
    inbox: Inbox, database: Database, alice: Caller
) -> None:
    both = asyncio.Barrier(2)

    async def together(events: list[Event]) -> Sequence[Statement]:
        async with asyncio.timeout(1):
            await both.wait()
        return await effects(events)

    results = await asyncio.gather(*(inbox.apply(alice, [created(1)], together, emit=told) for _ in range(2)))

    assert sorted(len(fresh) for fresh in results) == [0, 1]
    assert effects_of(database) == ["task-1"]
    assert len(database.outbox) == 1


async def test_whoever_loses_half_a_race_does_the_other_half(inbox: Inbox, database: Database, alice: Caller) -> None:
    async def rival() -> None:
        database.before_batch = None
        await inbox.apply(alice, [created(2)], effects)

    database.before_batch = rival

    fresh = await inbox.apply(alice, [created(1), created(2)], effects)

    assert [event.event_id for event in fresh] == ["event-1"]
    assert effects_of(database) == ["task-2", "task-1"]


@pytest.mark.parametrize("lost", [Aborted("Lost."), AlreadyExists("Taken.")])
async def test_a_race_for_other_rows_is_run_again(
    inbox: Inbox, database: Database, alice: Caller, lost: Aborted | AlreadyExists
) -> None:
    asked = 0

    async def counted(events: list[Event]) -> Sequence[Statement]:
        nonlocal asked
        asked += 1
        return await effects(events)

    async def lose() -> None:
        database.before_batch = None
        raise lost

    database.before_batch = lose

    assert len(await inbox.apply(alice, [created(1)], counted)) == 1
    assert asked == 2
    assert effects_of(database) == ["task-1"]


async def test_races_end(inbox: Inbox, database: Database, alice: Caller) -> None:
    asked = 0

    async def counted(events: list[Event]) -> Sequence[Statement]:
        nonlocal asked
        asked += 1
        return [Statement(EFFECT, "task-1", expect_rows=7)]

    with pytest.raises(Aborted):
        await inbox.apply(alice, [created(1)], counted)

    assert asked == ATTEMPTS
    assert database.inbox == set()


async def test_an_outage_is_not_repeated_here(inbox: Inbox, database: Database, alice: Caller) -> None:
    database.failures = [Unavailable("No database.")]

    with pytest.raises(Unavailable):
        await inbox.apply(alice, [created(1)], effects)

    assert database.inbox == set()


async def test_two_consumers_of_one_room_each_have_their_effect(
    inbox: Inbox, database: Database, alice: Caller
) -> None:
    await inbox.apply(alice, [created(1)], effects)
    await inbox.apply(alice, [created(1)], effects, consumer="digest")

    assert effects_of(database) == ["task-1", "task-1"]
