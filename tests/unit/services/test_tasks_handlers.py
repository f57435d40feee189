"""Doors of tasks: what commits together, and what happens once; the database only notes what it is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from isa.events import EVENTS, OrgMemberRemoved, ReminderTriggered
from isa_common import Aborted, AlreadyExists, NotFound, PreconditionFailed, Result, Statement
from kernel import Caller, Parts
from kernel.outbox import Outbox
from services.tasks.app import Settings, create_app
from services.tasks.domain.intake import source_key
from services.tasks.domain.task import AlreadyDone
from services.tasks.handlers import Handlers
from services.tasks.handlers.wire import ChangeTask, CreateTask
from services.tasks.repository import answers, imports, reminders, tasks
from tests.unit.fakes import NOON, Broker, Database, FakeSql, RegistryServer

ALICE = Caller(org="org-a", user="user-alice", roles=frozenset({"member"}))
TASK = f"task-{'a' * 26}"


class Rows(FakeSql):
    """A login whose reads answer what a test prepared, by their SQL."""

    def __init__(self, database: Database, answers: dict[str, list[dict[str, Any]]], *, org: str = "") -> None:
        super().__init__(database, org=org)
        self.answers = answers
        self.asked: list[str] = []
        self.results: dict[str, list[Any]] = {}

    def acting_for(self, caller: Caller | None = None, *, org: str = "", user: str = "") -> Rows:
        self.org = caller.org if caller else org
        return self

    async def query(self, sql: str, *params: Any, timeout: timedelta | None = None) -> list[Any]:
        self.asked.append(sql)
        return self.answers[sql] if sql in self.answers else await super().query(sql, *params)

    async def execute_batch(self, statements: Sequence[Statement], *, timeout: timedelta | None = None) -> list[Result]:
        done = await super().execute_batch(statements)
        return [
            Result(result.affected, self.results.get(statement.sql, []))
            for statement, result in zip(statements, done, strict=True)
        ]


class Jobs:
    """A scheduler that notes what it hears."""

    def __init__(self) -> None:
        self.scheduled: dict[str, datetime] = {}
        self.deleted: list[str] = []

    async def schedule(self, name: str, due: datetime, *, data: dict[str, object]) -> None:
        self.scheduled[name] = due

    async def delete(self, name: str) -> None:
        self.deleted.append(name)


class Metric:
    """A metric that counts nothing."""

    def __call__(self, *_names: object) -> Metric:
        return self

    labels = inc = counter = __call__


class Room:
    """The room, its database, and what it published."""

    def __init__(self) -> None:
        self.database = Database()
        self.rows: dict[str, list[dict[str, Any]]] = {}
        self.sql = Rows(self.database, self.rows)
        self.jobs = Jobs()
        registry = RegistryServer()
        for topic, event in EVENTS.items():
            registry.register(f"{topic}-value", event.SCHEMA)
        self.codec = registry.codec()
        nothing: Any = SimpleNamespace()
        sql: Any = self.sql
        parts: dict[str, Any] = {
            "name": "tasks",
            "sql": sql,
            "outbox": Outbox(sql, Broker()),
            "codec": self.codec,
            "jobs": self.jobs,
            "metrics": Metric(),
            "clock": lambda: NOON,
            **dict.fromkeys(("logs", "state", "secrets", "invoke", "bindings"), nothing),
        }
        self.handlers: Handlers = create_app(Settings(), Parts(**parts))

    def committed(self) -> list[str]:
        """Return the statements that were committed, by the table and verb they begin with."""
        return [" ".join(sql.split()[:3]) for _, sql, _ in self.database.executed]

    def topics(self) -> list[str]:
        """Return the topics of the events that were committed."""
        return [row.record.topic for row in self.database.outbox.values()]


@pytest.fixture
def room() -> Room:
    """A room with an empty database."""
    return Room()


def row(**changes: object) -> dict[str, Any]:
    """Return the row of a task."""
    return {
        "id": TASK, "title": "Order tubes", "notes": "", "status": "open", "priority": None, "due_at": None,
        "due_is_day": False, "start_at": None, "start_is_day": False, "tags": [], "projects": [], "contexts": [],
        "assignee": None, "recurrence": None, "created_by": "user-alice", "created_at": NOON, "updated_at": NOON,
        "done_at": None, "version": 1, **changes,
    }  # fmt: skip


def reminder_row(**changes: object) -> dict[str, Any]:
    """Return the row of a reminder."""
    return {
        "id": "reminder-a", "task_id": TASK, "user_id": "user-alice", "remind_at": NOON, "state": "waiting",
        "fired_at": None, "version": 1, **changes,
    }  # fmt: skip


GET_REMINDER = f"SELECT {reminders.COLUMNS} FROM reminders WHERE id = $1"


async def test_creating_is_one_round_trip(room: Room) -> None:
    answer = await room.handlers.create_task(ALICE, CreateTask(title="Order tubes"), idempotency_key="key-1")

    assert answer.status_code == 201
    assert room.database.batches == 1
    assert room.sql.asked == []
    assert room.committed() == ["INSERT INTO answers", "INSERT INTO tasks"]
    assert room.topics() == ["task.created"]


async def test_a_taken_key_answers_what_was_answered_before(room: Room) -> None:
    first = await room.handlers.create_task(ALICE, CreateTask(title="Order tubes"), idempotency_key="key-1")
    kept: Any = next(params for _, sql, params in room.database.executed if sql == answers.INSERT)
    names = ("user_id", "key", "fingerprint", "status", "headers", "body")
    room.rows[answers.FIND] = [dict(zip(names, kept, strict=True))]
    room.database.failures = [AlreadyExists("There is one.")]

    second = await room.handlers.create_task(ALICE, CreateTask(title="Order tubes"), idempotency_key="key-1")

    assert second.body == first.body
    assert (second.status_code, second.headers["idempotent-replayed"]) == (201, "true")
    assert second.headers["etag"] == first.headers["etag"]
    room.database.failures = [AlreadyExists("There is one.")]
    with pytest.raises(answers.KeyReused) as error:
        await room.handlers.create_task(ALICE, CreateTask(title="Another"), idempotency_key="key-1")
    assert error.value.field == "Idempotency-Key"


async def test_completing_cancels_reminders_in_the_same_transaction(room: Room) -> None:
    room.rows[tasks.GET] = [row()]
    room.sql.results[reminders.CANCEL] = [{"id": "reminder-a"}]

    answer = await room.handlers.complete_task(ALICE, TASK)
    await room.handlers.stop()

    assert json.loads(bytes(answer.body))["status"] == "done"
    assert (room.database.batches, room.topics()) == (1, ["task.completed"])
    assert room.committed() == ["UPDATE tasks SET", "UPDATE reminders SET"]
    assert room.jobs.deleted == ["reminder-a"]


async def test_completing_a_done_task_is_refused_and_nothing_is_written(room: Room) -> None:
    room.rows[tasks.GET] = [row(status="done", done_at=NOON)]

    with pytest.raises(AlreadyDone):
        await room.handlers.complete_task(ALICE, TASK)

    assert room.database.batches == 0


async def test_a_lost_race_is_run_again_unless_an_etag_was_given(room: Room) -> None:
    room.rows[tasks.GET] = [row()]

    async def other_is_faster() -> None:
        room.database.before_batch = None
        room.rows[tasks.GET][0] = row(version=2, priority="B")
        raise Aborted("Another number of rows than expected.")

    room.database.before_batch = other_is_faster
    answer = await room.handlers.update_task(ALICE, TASK, ChangeTask(title="Order tyres"))
    assert (json.loads(bytes(answer.body))["version"], json.loads(bytes(answer.body))["priority"]) == (3, "B")

    room.rows[tasks.GET][0] = row()
    room.database.before_batch = other_is_faster
    with pytest.raises(PreconditionFailed):
        await room.handlers.update_task(ALICE, TASK, ChangeTask(title="Order tyres"), if_match='"1"')


async def test_a_change_of_nothing_is_no_event(room: Room) -> None:
    room.rows[tasks.GET] = [row()]

    answer = await room.handlers.update_task(ALICE, TASK, ChangeTask(title="Order tubes"))

    assert (answer.headers["etag"], room.database.batches, room.topics()) == ('"1"', 0, [])


async def test_an_id_that_is_none_is_not_even_looked_up(room: Room) -> None:
    with pytest.raises(NotFound):
        await room.handlers.get_task(ALICE, "task-\x00")

    assert room.sql.asked == []


async def test_a_trigger_fires_a_reminder_in_one_transaction_with_its_event(room: Room) -> None:
    room.rows[GET_REMINDER] = [reminder_row()]

    await room.handlers.remind("reminder-a", {"org": "org-a"})

    assert [(org, sql) for org, sql, _ in room.database.executed] == [("org-a", reminders.FIRE)]
    (found,) = room.database.outbox.values()
    event: Any = await room.codec.decode(found.record.payload, ReminderTriggered)
    assert (event.aggregate_id, event.aggregate_version, event.task_id) == ("reminder-a", 2, TASK)
    assert (event.org_id, event.user_id) == ("org-a", "user-alice")


@pytest.mark.parametrize("state", ["fired", "cancelled"])
async def test_a_trigger_of_what_no_longer_waits_does_nothing(room: Room, state: str) -> None:
    room.rows[GET_REMINDER] = [reminder_row(state=state)]

    await room.handlers.remind("reminder-a", {"org": "org-a"})

    assert (room.topics(), room.jobs.scheduled) == ([], {})


async def test_a_trigger_of_what_is_gone_or_taken_by_another_does_nothing(room: Room) -> None:
    await room.handlers.remind("reminder-a", {"org": "org-a"})

    room.rows[GET_REMINDER] = [reminder_row()]
    room.database.affected[reminders.FIRE] = 0
    await room.handlers.remind("reminder-a", {"org": "org-a"})

    assert room.topics() == []


async def test_a_trigger_that_comes_too_early_is_scheduled_again(room: Room) -> None:
    later = NOON + timedelta(hours=1)
    room.rows[GET_REMINDER] = [reminder_row(remind_at=later)]

    await room.handlers.remind("reminder-a", {"org": "org-a"})

    assert (room.topics(), room.jobs.scheduled) == ([], {"reminder-a": later})


async def test_the_sweep_fires_what_is_late_and_arms_what_no_job_stands_for(room: Room) -> None:
    later = NOON + timedelta(hours=1)
    room.rows[reminders.MISSING] = [
        {"org_id": "org-a", "id": "reminder-a", "remind_at": NOON - timedelta(minutes=1)},
        {"org_id": "org-b", "id": "reminder-b", "remind_at": later},
    ]
    room.rows[GET_REMINDER] = [reminder_row(remind_at=NOON - timedelta(minutes=1))]

    await room.handlers.sweep_reminders({})

    assert room.topics() == ["reminder.triggered"]
    assert room.jobs.scheduled == {"reminder-b": later}
    assert room.database.executed[-1][1:] == (reminders.ARMED, (["org-b"], ["reminder-b"]))


async def test_who_is_removed_is_unassigned_once(room: Room) -> None:
    room.rows[tasks.ASSIGNED_TO] = [row(assignee="user-bob", version=4)]
    event = OrgMemberRemoved(event_id="event-1", org_id="org-a", aggregate_id="org-a", member_id="user-bob")

    for _ in range(2):
        await room.handlers.unassign(ALICE, event)

    assert room.topics() == ["task.updated"]
    assert room.committed() == ["DELETE FROM reminders", "UPDATE tasks SET"]


async def test_an_import_commits_a_chunk_together_and_knows_what_is_taken(room: Room) -> None:
    room.handlers.import_chunk = 2
    first = source_key_of("x 2026-02-02 one")
    room.rows[imports.FIND] = [{"source_key": first, "task_id": TASK, "is_there": True}]

    answer = await room.handlers.import_tasks(ALICE, upload(b"x 2026-02-02 one\ntwo\nx 2026-02-01 three\n\n+none"))

    report = json.loads(bytes(answer.body))
    assert [line["outcome"] for line in report["lines"]] == ["already_there", "taken", "taken", "skipped", "refused"]
    assert report["lines"][0]["task_id"] == TASK
    assert room.database.batches == 2
    assert room.topics() == ["task.created", "task.created", "task.completed"]


def source_key_of(line: str) -> str:
    """Return what recognises a line."""
    return source_key("todo.txt", line)


def upload(content: bytes) -> Any:
    """Return the request of an import."""

    async def body() -> bytes:
        return content

    return SimpleNamespace(headers={"content-type": "text/plain"}, body=body)
