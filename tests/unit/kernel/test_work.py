"""A unit of work: all of it or none of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from isa.events import TaskCompleted, TaskCreated
from isa_common import Aborted, FailedPrecondition, Unavailable
from kernel.caller import Caller
from kernel.outbox import Outbox
from kernel.work import Work
from tests.unit.fakes import NOON, Broker, Database, FakeSql, RegistryServer

INSERT = "INSERT INTO tasks (id) VALUES ($1)"
UPDATE = "UPDATE tasks SET version = $2 WHERE id = $1 AND version = $2 - 1"


class Wakeful(Outbox):
    """Remembers what it was woken for, and publishes nothing."""

    def __init__(self, sql: FakeSql) -> None:
        super().__init__(sql, Broker())  # type: ignore[arg-type]  # a fake
        self.woken: list[str] = []

    def wake(self, records: Any) -> None:
        self.woken += [record.event_id for record in records]


@pytest.fixture
def outbox(sql: FakeSql) -> Wakeful:
    return Wakeful(sql)


Begin = Callable[..., Work]


@pytest.fixture
def begin(sql: FakeSql, outbox: Wakeful, registry_server: RegistryServer, alice: Caller) -> Begin:
    def begin(codec_server: RegistryServer = registry_server) -> Work:
        login: Any = sql.acting_for(alice)
        return Work(alice, login, outbox=outbox, codec=codec_server.codec(), clock=lambda: NOON, source="tasks")

    return begin


async def test_rows_and_events_commit_together_and_the_relay_is_woken(
    begin: Begin, database: Database, outbox: Wakeful
) -> None:
    async with begin() as work:
        work.add(INSERT, "task-1")
        work.emit(TaskCreated(aggregate_id="task-1"))
        assert database.executed == []

    [event_id] = database.outbox
    assert database.executed == [("org-a", INSERT, ("task-1",))]
    assert database.batches == 1
    assert outbox.woken == [event_id]
    assert [result.affected for result in work.results] == [1]


async def test_events_are_stamped_as_the_callers(begin: Begin, database: Database) -> None:
    async with begin() as work:
        work.emit(TaskCreated(aggregate_id="task-1"))

    [event] = work.events
    assert (event.org_id, event.user_id, event.occurred_at) == ("org-a", "user-alice", NOON)
    [row] = database.outbox.values()
    assert (row.record.event_id, row.record.key) == (event.event_id, "task-1")
    assert row.record.headers["ce_orgid"] == "org-a"


async def test_nothing_is_sent_when_the_block_raises(begin: Begin, database: Database, outbox: Wakeful) -> None:
    with pytest.raises(LookupError):
        async with begin() as work:
            work.add(INSERT, "task-1")
            work.emit(TaskCreated(aggregate_id="task-1"))
            raise LookupError

    assert (database.executed, database.outbox, outbox.woken) == ([], {}, [])


async def test_a_lost_race_leaves_nothing_behind(begin: Begin, database: Database, outbox: Wakeful) -> None:
    database.affected[UPDATE] = 0

    with pytest.raises(Aborted):
        async with begin() as work:
            work.add(INSERT, "task-1")
            work.add(UPDATE, "task-1", 2, expect_rows=1)
            work.emit(TaskCreated(aggregate_id="task-1"))

    assert (database.executed, database.outbox, outbox.woken) == ([], {}, [])


async def test_an_event_that_cannot_be_written_commits_no_row(begin: Begin, database: Database) -> None:
    with pytest.raises(FailedPrecondition):
        async with begin(RegistryServer()) as work:
            work.add(INSERT, "task-1")
            work.emit(TaskCreated(aggregate_id="task-1"))

    assert database.executed == []


async def test_when_the_answer_is_lost_the_relay_is_not_woken(
    begin: Begin, database: Database, outbox: Wakeful
) -> None:
    database.is_down = Unavailable("No database.")

    with pytest.raises(Unavailable):
        async with begin() as work:
            work.emit(TaskCreated(aggregate_id="task-1"))

    assert outbox.woken == []


async def test_work_without_a_change_asks_nothing_of_the_database(begin: Begin, database: Database) -> None:
    async with begin() as work:
        assert await work.query("SELECT 1") == []

    assert database.batches == 0


async def test_results_are_those_of_the_statements_in_order(begin: Begin, database: Database) -> None:
    database.affected |= {INSERT: 1, UPDATE: 3}

    async with begin() as work:
        work.add(UPDATE, "task-1", 2)
        work.add(INSERT, "task-1")
        work.emit(TaskCreated(aggregate_id="task-1"))
        work.emit(TaskCompleted(aggregate_id="task-1", aggregate_version=2, created_at=NOON))

    assert [result.affected for result in work.results] == [3, 1]
    assert len(database.outbox) == 2
