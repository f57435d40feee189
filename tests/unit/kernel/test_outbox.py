"""The outbox: what was committed is published, once where nothing fails, and in the order of its key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from isa_common import IsaError, Unavailable
from kernel import outbox as module
from kernel.events import Record
from kernel.outbox import LEASE, Outbox
from tests.unit.fakes import Broker, Database, FakeSql


def record(number: int, *, key: str = "", topic: str = "task.created") -> Record:
    return Record(
        event_id=f"event-{number:04d}",
        topic=topic,
        key=key or f"task-{number}",
        payload=bytes([number % 256]),
        headers={"ce_id": f"event-{number:04d}", "name": "Zoë"},
    )


async def commit(outbox: Outbox, sql: FakeSql, *records: Record, wake: bool = True) -> None:
    """Commit records as a unit of work does."""
    await sql.execute_batch([outbox.statement(records)])
    if wake:
        outbox.wake(records)


async def eventually(is_so: Callable[[], bool], *, within: float = 3.0) -> None:
    async with asyncio.timeout(within):
        while not is_so():
            await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY", 0.005)
    monkeypatch.setattr(module, "MARK_EVERY", 0.001)
    monkeypatch.setattr(module, "MEASURE_EVERY", 0.005)


@pytest.fixture
def outbox(sql: FakeSql, broker: Broker) -> Outbox:
    return Outbox(sql, broker)  # type: ignore[arg-type]  # a fake


@pytest.fixture
async def running(outbox: Outbox) -> AsyncIterator[Outbox]:
    await outbox.start()
    yield outbox
    await outbox.stop(at_most=0.2)


async def test_what_is_committed_is_published_once_and_marked(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    sent = [record(number) for number in range(50)]

    await commit(running, sql, *sent)
    await eventually(lambda: not database.pending())
    database.sleep(LEASE.total_seconds() * 2)
    await asyncio.sleep(0.03)

    assert sorted(broker.ids()) == [item.event_id for item in sent]
    assert {item.event_id: item for _, item in broker.published} == {item.event_id: item for item in sent}


async def test_each_topic_gets_its_own(running: Outbox, sql: FakeSql, broker: Broker, database: Database) -> None:
    await commit(running, sql, record(1, key="k"), record(2, key="k", topic="task.deleted"))
    await eventually(lambda: not database.pending())

    assert [(topic, item.event_id) for topic, item in broker.published] == [
        ("task.created", "event-0001"),
        ("task.deleted", "event-0002"),
    ]


async def test_a_key_keeps_its_order(running: Outbox, sql: FakeSql, broker: Broker, database: Database) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.002)

    broker.before = slowly
    for number in range(60):
        await commit(running, sql, record(number, key=f"task-{number % 6}"))
    await eventually(lambda: not database.pending())

    for key in {item.key for _, item in broker.published}:
        ids = [item.event_id for _, item in broker.published if item.key == key]
        assert ids == sorted(ids)
    assert broker.calls < 60  # what has gathered meanwhile goes together


async def test_nothing_committed_publishes_nothing(running: Outbox, broker: Broker) -> None:
    await asyncio.sleep(0.02)

    assert broker.calls == 0


async def test_what_the_broker_refused_is_given_back_and_swept(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    broker.refused = {"event-0002"}
    await commit(running, sql, record(1), record(2), record(3))
    await eventually(lambda: database.pending() == ["event-0002"])

    broker.refused = set()
    await eventually(lambda: not database.pending())

    assert sorted(broker.ids()) == ["event-0001", "event-0002", "event-0003"]


@pytest.mark.parametrize("failure", [Unavailable("No broker."), RuntimeError("Bug.")])
async def test_while_the_broker_is_away_nothing_is_lost(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database, failure: Exception
) -> None:
    broker.is_down = failure
    sent = [record(number, key=f"task-{number % 3}") for number in range(20)]
    await commit(running, sql, *sent)
    await eventually(lambda: broker.calls > 8)
    assert len(database.pending()) == 20

    broker.is_down = None
    await eventually(lambda: not database.pending())

    assert set(broker.ids()) == {item.event_id for item in sent}
    for key in {item.key for item in sent}:
        ids = [item.event_id for _, item in broker.published if item.key == key]
        assert ids == sorted(ids)


async def test_a_topic_in_trouble_holds_back_no_other(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    broker.missing = {"org.created"}

    await commit(running, sql, record(1, key="k", topic="org.created"), record(2, key="k"))
    await eventually(lambda: broker.ids() == ["event-0002"])

    assert database.pending() == ["event-0001"]


async def test_an_outage_is_no_busy_loop(
    running: Outbox, sql: FakeSql, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SWEEP_EVERY", 0.05)
    broker.is_down = Unavailable("No broker.")

    await commit(running, sql, *(record(number) for number in range(8)))
    await asyncio.sleep(0.2)

    assert 2 <= broker.calls <= 5


async def test_large_records_go_in_small_batches(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 5)

    await commit(running, sql, *(record(number, key="k") for number in range(20)))
    await eventually(lambda: not database.pending())

    assert broker.calls >= 4


async def test_what_a_crash_left_is_swept_after_its_lease(
    outbox: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    crashed = Outbox(sql, Broker())  # type: ignore[arg-type]  # a fake
    await commit(crashed, sql, *(record(number, key="task-x") for number in range(5)), wake=False)
    await outbox.start()
    await asyncio.sleep(0.03)
    assert broker.published == []

    database.sleep(LEASE.total_seconds() + 0.1)
    await eventually(lambda: not database.pending())
    await outbox.stop()

    assert broker.ids() == [f"event-{number:04d}" for number in range(5)]
    assert broker.published[0][1] == record(0, key="task-x")


async def test_two_processes_share_what_is_left_and_publish_it_once(
    sql: FakeSql, database: Database, broker: Broker
) -> None:
    crashed = Outbox(sql, Broker())  # type: ignore[arg-type]  # a fake
    await commit(crashed, sql, *(record(number) for number in range(40)), wake=False)
    database.sleep(LEASE.total_seconds() + 0.1)
    pair = [Outbox(sql, broker), Outbox(sql, broker)]  # type: ignore[arg-type]  # a fake

    for each in pair:
        await each.start()
    await eventually(lambda: not database.pending())
    for each in pair:
        await each.stop()

    assert len(broker.ids()) == len(set(broker.ids())) == 40


async def test_a_lease_is_given_back_by_its_owner_alone(sql: FakeSql, database: Database, broker: Broker) -> None:
    mine, other = Outbox(sql, broker), Outbox(sql, broker)  # type: ignore[arg-type]  # a fake
    await commit(mine, sql, record(1), wake=False)

    await other._give_back([record(1)])

    assert database.outbox["event-0001"].leased_until > database.now


async def test_what_was_published_while_the_database_was_away_is_marked_when_it_is_back(
    running: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    async def lose_database() -> None:
        database.is_down = Unavailable("No database.")

    broker.before = lose_database
    await commit(running, sql, record(1))
    await eventually(lambda: len(broker.published) == 1)
    assert database.pending() == ["event-0001"]

    database.sleep(LEASE.total_seconds() + 0.1)
    broker.before, database.is_down = None, None
    await eventually(lambda: not database.pending())

    assert broker.ids() == ["event-0001"]


async def test_no_bug_below_stops_the_relay(running: Outbox, sql: FakeSql, broker: Broker, database: Database) -> None:
    class Odd(RuntimeError):
        """Nobody foresaw it."""

    async def break_database() -> None:
        broker.before = None
        database.is_down = Odd()  # type: ignore[assignment]  # on purpose no error of ours
        raise Odd

    broker.before = break_database
    await commit(running, sql, record(1, key="task-x"))
    await eventually(lambda: isinstance(database.is_down, Odd))
    await asyncio.sleep(0.01)
    database.is_down = None

    await commit(running, sql, record(2, key="task-x"))
    await eventually(lambda: "event-0002" in broker.ids())
    assert all(not task.done() for task in running._tasks)


async def test_stopping_drains_what_is_in_hand(
    outbox: Outbox, sql: FakeSql, broker: Broker, database: Database
) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.005)

    broker.before = slowly
    await outbox.start()
    await commit(outbox, sql, *(record(number) for number in range(300)))

    await outbox.stop()

    assert database.pending() == []
    assert all(task.done() for task in outbox._tasks)


async def test_stopping_while_something_is_being_marked_leaves_nothing_unmarked(
    outbox: Outbox, sql: FakeSql, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute = sql.execute

    async def slowly(statement: str, *params: object) -> object:
        if statement == module.MARK:
            await asyncio.sleep(0.02)
        return await execute(statement, *params)

    monkeypatch.setattr(sql, "execute", slowly)
    await outbox.start()
    await commit(outbox, sql, record(1))
    await asyncio.sleep(0.01)  # published, and the marking is under way

    await outbox.stop()

    assert database.pending() == []


async def test_stopping_does_not_wait_for_ever(outbox: Outbox, sql: FakeSql, broker: Broker) -> None:
    async def hang() -> None:
        await asyncio.sleep(60)

    broker.before = hang
    await outbox.start()
    await commit(outbox, sql, record(1))

    async with asyncio.timeout(1):
        await outbox.stop(at_most=0.02)


async def test_pending_events_are_measured(running: Outbox, sql: FakeSql, broker: Broker) -> None:
    broker.is_down = Unavailable("No broker.")

    await commit(running, sql, record(1), record(2))

    await eventually(lambda: REGISTRY.get_sample_value("isa_outbox_pending") == 2)


async def test_old_rows_are_cleaned(running: Outbox, sql: FakeSql, database: Database) -> None:
    await commit(running, sql, record(1), record(2))
    await eventually(lambda: not database.pending())

    assert await running.clean() == 2
    assert await running.clean() == 0


def test_a_lease_outlives_a_publish_and_evidence_outlives_a_lease() -> None:
    assert timedelta(seconds=10) <= LEASE < module.KEEP
    assert issubclass(Unavailable, IsaError)
