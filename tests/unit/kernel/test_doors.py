"""Doors: mistakes of a room show when it starts, not at its first call."""

from __future__ import annotations

import pytest

from isa.events import TaskCreated, TaskUpdated
from kernel.caller import Caller
from kernel.delivery import check
from kernel.doors import Job, Route, Subscription, delete, doors_of, get, job, on, on_batch, patch, post, put


class Room:
    """Has one of each."""

    @get("/v1/tasks", permission="tasks.read")
    async def list_tasks(self, caller: Caller) -> None: ...

    @post("/v1/tasks", permission="tasks.write", status=201, max_body=10, tags=["tasks"])
    async def create_task(self, caller: Caller) -> None: ...

    @on(TaskCreated, TaskUpdated)
    async def one(self, caller: Caller, event: TaskCreated) -> None: ...

    @on_batch(TaskCreated)
    async def many(self, caller: Caller, events: list[TaskCreated]) -> None: ...

    @job("daily", schedule="@every 1h")
    @job("weekly", schedule="@every 168h")
    async def tidy(self, data: dict[str, object]) -> None: ...


class Heir(Room):
    """Overrides what it inherits."""

    @get("/v2/tasks", permission="tasks.read")
    async def list_tasks(self, caller: Caller) -> None: ...


def test_every_door_of_a_room_is_found_with_its_method() -> None:
    room = Room()
    found = [(door, method.__name__) for door, method in doors_of(room)]

    assert [name for _, name in found] == ["list_tasks", "create_task", "one", "many", "tidy", "tidy"]
    create = found[1][0]
    assert isinstance(create, Route)
    assert (create.status, create.max_body, create.options) == (201, 10, {"tags": ["tasks"]})
    assert found[2][0] == Subscription(topics=("task.created", "task.updated"), is_batch=False)
    assert found[3][0] == Subscription(topics=("task.created",), is_batch=True)
    assert {door.name for door, _ in found if isinstance(door, Job)} == {"daily", "weekly"}
    check(room)


def test_an_overridden_door_counts_once() -> None:
    paths = [door.path for door, _ in doors_of(Heir()) if isinstance(door, Route)]

    assert sorted(paths) == ["/v1/tasks", "/v2/tasks"]


@pytest.mark.parametrize(
    ("decorate", "read_only", "idempotent"),
    [(get, True, True), (put, False, True), (delete, False, True), (post, False, False), (patch, False, False)],
)
def test_the_method_says_what_may_be_repeated(decorate: object, read_only: bool, idempotent: bool) -> None:
    class One:
        @decorate("/", permission="tasks.read")  # type: ignore[operator]  # any of the five
        async def handle(self, caller: Caller) -> None: ...

    [(door, _)] = doors_of(One())

    assert isinstance(door, Route)
    assert (door.rule.read_only, door.rule.idempotent) == (read_only, idempotent)


def test_a_post_may_say_that_it_is_safe_to_repeat() -> None:
    class One:
        @post("/", permission="tasks.write", idempotent=True)
        async def handle(self, caller: Caller) -> None: ...

    [(door, _)] = doors_of(One())

    assert isinstance(door, Route)
    assert door.rule.idempotent


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"permission": ""},
        {"permission": "tasks.read", "anonymous": True},
        {"permission": "tasks"},
        {"permission": "tasks.reed"},
        {"permission": "*.read"},
        {"permission": "tasks.read "},
    ],
)
def test_a_route_names_one_permission_or_is_anonymous(options: dict[str, object]) -> None:
    with pytest.raises(TypeError):
        get("/v1/tasks", **options)


class Forgetful:
    """Forgot the caller."""

    @get("/", permission="tasks.read")
    async def handle(self) -> None: ...


class Curious:
    """Wants a caller that nobody verified."""

    @get("/", anonymous=True)
    async def handle(self, caller: Caller) -> None: ...


class Blocking:
    """Is not async."""

    @get("/", permission="tasks.read")
    def handle(self, caller: Caller) -> None: ...


@pytest.mark.parametrize("room", [Forgetful(), Curious(), Blocking()])
def test_a_route_that_forgets_its_caller_stops_the_start(room: object) -> None:
    with pytest.raises(TypeError, match=type(room).__name__):
        check(room)
