"""Notifications as its callers see it, on fakes: who is told, what waits, and that no mail is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from email import message_from_bytes
from email.headerregistry import Address
from email.policy import default
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, cast

import pytest

from isa.events import Event, NotificationSent, OrgMemberAdded, TaskCompleted, TaskCreated, UserRegistered
from isa_common import Aborted, InvalidArgument, NotFound, PermissionDenied, Statement, Unavailable
from kernel import Caller, Parts
from kernel.doors import Job, Route, Subscription, doors_of
from services.notifications.domain.deliveries import Delivery, State
from services.notifications.domain.digests import DueTask
from services.notifications.domain.letters import Letter
from services.notifications.domain.notices import Notice, delivery_id
from services.notifications.domain.watches import Watch
from services.notifications.handlers import Handlers, ReadAll, RunDigest
from services.notifications.handlers.digests import DigestRuns
from services.notifications.handlers.mail import Mailer
from services.notifications.repository.addresses import Addresses, Titles
from services.notifications.repository.inboxes import Item
from services.notifications.repository.post import Post

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ALICE = Caller(org="org-a", user="user-alice", roles=frozenset({"owner"}))
BOB = Caller(org="org-a", user="user-bob", roles=frozenset({"member"}))
DONE = Statement("effect")


class FakeMetric:
    """A metric that takes everything."""

    def labels(self, *_values: str) -> FakeMetric:
        return self

    def inc(self) -> None: ...

    def set(self, _value: float) -> None: ...


class FakeWork:
    """A unit of work that does what its statements stand for when it commits."""

    def __init__(self, events: list[Event], caller: Caller) -> None:
        self.caller = caller
        self._events = events
        self._statements: list[Statement] = []
        self._emitted: list[Event] = []

    async def __aenter__(self) -> FakeWork:
        return self

    async def __aexit__(self, kind: object, error: object, traceback: TracebackType | None) -> None:
        if kind is None:
            for statement in self._statements:
                run(statement)
            self._events += self._emitted

    def extend(self, statements: Sequence[Statement]) -> None:
        self._statements += statements

    def emit(self, event: Event) -> None:
        self._emitted.append(event)


def effect(does: Callable[[], None]) -> Statement:
    """A statement that stands for a change of a fake."""
    return Statement("effect", does)


def run(statement: Statement) -> None:
    does = statement.params[0]
    assert callable(does)
    does()


class FakeInbox:
    """The inbox of the kernel: each event id once, effects and events together."""

    def __init__(self, events: list[Event]) -> None:
        self._events = events
        self._seen: set[str] = set()

    async def apply(
        self,
        caller: Caller,
        events: Sequence[Event],
        effects: Callable[[list[Event]], Awaitable[Sequence[Statement]]],
        *,
        emit: Callable[[list[Event]], Sequence[Event]],
    ) -> list[Event]:
        fresh = [event for event in {e.event_id: e for e in events}.values() if event.event_id not in self._seen]
        if not fresh:
            return []
        for statement in await effects(fresh):
            run(statement)
        self._events += emit(fresh)
        self._seen |= {event.event_id for event in fresh}
        return fresh


class FakeStore:
    """All repositories of the room, in memory."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[str, Item]] = {}
        self.deliveries: dict[str, Delivery] = {}
        self.next_try: dict[str, datetime] = {}
        self.ended: dict[str, State] = {}
        self.watched: dict[str, Watch] = {}
        self.roles: dict[str, str] = {}
        self.left: list[str] = []
        self.digest_runs: dict[str, int] = {}
        self.due_tasks: dict[str, tuple[list[DueTask], int]] = {}
        self.missing_orgs: list[str] = []

    # inboxes

    async def unknown(self, caller: Caller, notices: Sequence[Notice]) -> list[Notice]:
        return [notice for notice in notices if notice.id not in self.items]

    def put(self, caller: Caller, notices: Sequence[Notice], *, at: datetime) -> list[Statement]:
        def does() -> None:
            for n in notices:
                item = Item(
                    id=n.id,
                    kind=n.kind,
                    subject_id=n.subject_id,
                    actor_id=n.actor_id,
                    data=n.data,
                    at=at,
                    read_at=None,
                    mail=None,
                )
                self.items[n.id] = (n.recipient_id, item)
                if n.is_mailed:
                    self.post(delivery(n))

        return [effect(does)]

    def post(self, mail: Delivery) -> None:
        self.deliveries[mail.id] = mail
        self.next_try[mail.id] = NOON

    async def page(self, caller: Caller, *, before: tuple[datetime, str], only_unread: bool, limit: int) -> list[Item]:
        mine = [item for owner, item in self.items.values() if owner == caller.user and (item.at, item.id) < before]
        return sorted(mine, key=lambda item: (item.at, item.id), reverse=True)[:limit]

    async def unread(self, caller: Caller, users: Sequence[str] | None = None) -> Any:
        if users is None:
            return sum(1 for owner, item in self.items.values() if owner == caller.user and item.read_at is None)
        found: dict[str, dict[str, int]] = {}
        for owner, item in self.items.values():
            if owner in users and item.kind != "digest":
                found.setdefault(owner, {})[item.kind] = found.get(owner, {}).get(item.kind, 0) + 1
        return found

    async def read(self, caller: Caller, notice: str, *, at: datetime) -> Item:
        owner, item = self.items.get(notice, ("", None))
        if owner != caller.user or item is None:
            raise NotFound("There is no such notification in your inbox.")
        return item

    # watches

    async def find(self, caller: Caller, task_ids: Sequence[str]) -> dict[str, Watch]:
        return {task: self.watched.get(task, Watch(task_id=task)) for task in task_ids}

    def save(self, caller: Caller, watches: Sequence[Watch]) -> list[Statement]:
        return [effect(lambda: self.watched.update({watch.task_id: watch for watch in watches}))]

    async def due(self, caller: Caller, makers: Sequence[str], *, before: datetime) -> Any:
        return {maker: tasks for maker, tasks in self.due_tasks.items() if maker in makers}

    # people and digests

    def add(self, caller: Caller, roles: Mapping[str, str], *, at: datetime) -> list[Statement]:
        return [effect(lambda: self.roles.update(roles))]

    async def owners(self, caller: Caller) -> list[str]:
        return [user for user, role in self.roles.items() if role == "owner"]

    async def members(self, caller: Caller, *, after: str, limit: int) -> list[str]:
        return [user for user in sorted(self.roles) if user > after and user not in self.left][:limit]

    async def leave(self, caller: Caller, *, at: datetime) -> None:
        self.left.append(caller.user)

    async def runs(self, caller: Caller, users: Sequence[str], day: object) -> dict[str, int]:
        return {user: number for user, number in self.digest_runs.items() if user in users}

    def run(self, caller: Caller, runs: Mapping[str, int], day: object) -> Statement:
        return effect(lambda: self.digest_runs.update(runs))

    async def finish(self, caller: Caller, day: object) -> None:
        self.missing_orgs = [org for org in self.missing_orgs if org != caller.org]

    async def missing(self, day: object, *, since: datetime, after: str, limit: int) -> list[str]:
        return [org for org in self.missing_orgs if org > after]

    # deliveries

    async def claim(self, *, now: datetime, limit: int) -> list[Delivery]:
        due = [mail for key, mail in self.deliveries.items() if key not in self.ended and self.next_try[key] <= now]
        for mail in due[:limit]:
            self.next_try[mail.id] = now + timedelta(minutes=2)
        return due[:limit]

    def end(self, mail: Delivery, state: State, *, at: datetime, reason: str = "") -> Statement:
        def does() -> None:
            if mail.id in self.ended:
                raise Aborted("Somebody else ended it.")
            self.ended[mail.id] = state

        return effect(does)

    async def postpone(self, mail: Delivery, *, until: datetime, reason: str) -> None:
        self.next_try[mail.id] = until

    async def pending(self) -> int:
        return len(self.deliveries) - len(self.ended)


class FakeRooms:
    """`users` and `tasks`, as invocation shows them."""

    def __init__(self) -> None:
        self.people = {"user-alice": "alice@example.org", "user-bob": "bob@example.org"}
        self.preferences: dict[str, dict[str, object]] = {}
        self.titles = {"task-1": "Water the plants"}
        self.is_away = False

    async def get(self, app_id: str, path: str, *, caller: Caller | None = None) -> Any:
        if self.is_away:
            raise Unavailable(f"{app_id} is not reached.")
        assert caller is not None
        assert caller.workload == "notifications"
        if path == "/v1/me/preferences":
            return self.preferences.get(caller.user, {})
        known = self.people if app_id == "users" else self.titles
        name = path.rpartition("/")[2]
        if name not in known:
            raise NotFound("No such thing.")
        return {"email": known[name], "name": name} if app_id == "users" else {"title": known[name]}


class FakePost:
    """Keeps the letters."""

    def __init__(self) -> None:
        self.letters: list[Letter] = []
        self.is_broken = False

    async def send(self, letter: Letter) -> None:
        if self.is_broken:
            raise Unavailable("The binding email is not reached.")
        self.letters.append(letter)


class Room:
    """The room on fakes, and what can be seen of it."""

    def __init__(self) -> None:
        self.now = NOON
        self.store, self.rooms, self.post = FakeStore(), FakeRooms(), FakePost()
        self.published: list[Event] = []
        self.scheduled: dict[str, str] = {}
        self.clock_is_away = False
        parts = cast(
            Parts,
            SimpleNamespace(
                name="notifications",
                clock=lambda: self.now,
                inbox=FakeInbox(self.published),
                work=lambda caller: FakeWork(self.published, caller),
                jobs=SimpleNamespace(schedule=self._schedule),
                metrics=SimpleNamespace(counter=lambda *_: FakeMetric(), gauge=lambda *_: FakeMetric()),
            ),
        )
        store = cast(Any, self.store)
        addresses = Addresses(self.rooms)
        self.mailer = Mailer(
            parts,
            deliveries=store,
            people=store,
            addresses=addresses,
            titles=Titles(self.rooms),
            post=cast(Post, self.post),
            domain="isa.example",
            give_up_after=timedelta(days=3),
        )
        self.runs = DigestRuns(
            parts, people=store, digests=store, watches=store, inboxes=store, addresses=addresses, wake=self.mailer.wake
        )
        self.handlers = Handlers(
            parts,
            inboxes=store,
            watches=store,
            people=store,
            digests=store,
            deliveries=store,
            mailer=self.mailer,
            digest_runs=self.runs,
            page_size=2,
            digest_at=time(7),
            keep=timedelta(days=90),
        )

    async def _schedule(self, name: str, *, schedule: str) -> None:
        if self.clock_is_away:
            raise Unavailable("The scheduler is not reached.")
        self.scheduled[name] = schedule

    def sent(self, channel: str) -> list[tuple[str, str]]:
        """Who was told of what by a channel, as notification.sent tells it."""
        return [
            (event.recipient_id, event.kind)
            for event in self.published
            if isinstance(event, NotificationSent) and event.channel == channel
        ]


@pytest.fixture
def room() -> Room:
    """The room on fakes."""
    return Room()


def delivery(notice: Notice) -> Delivery:
    return Delivery(
        id=delivery_id(notice.id),
        org_id="org-a",
        notification_id=notice.id,
        user_id=notice.recipient_id,
        kind=notice.kind,
        subject_id=notice.subject_id,
        created_at=NOON,
        attempts=1,
        cause_id=notice.cause_id,
        correlation_id=notice.correlation_id,
        data=notice.data,
    )


def registered(user: str = "user-bob", role: str = "member") -> UserRegistered:
    return UserRegistered(
        event_id=f"registered-{user}",
        occurred_at=NOON,
        org_id="org-a",
        user_id=user,
        aggregate_id=user,
        role=role,
        correlation_id="request-1",
    )


def created(by: str = "user-alice") -> TaskCreated:
    return TaskCreated(event_id="created", occurred_at=NOON, org_id="org-a", user_id=by, aggregate_id="task-1")


def completed(by: str = "user-bob") -> TaskCompleted:
    return TaskCompleted(
        event_id="completed",
        occurred_at=NOON,
        org_id="org-a",
        user_id=by,
        aggregate_id="task-1",
        aggregate_version=2,
        created_at=NOON,
    )


def reminder(user: str = "user-alice") -> Delivery:
    notice = Notice(
        id="notification-r",
        recipient_id=user,
        kind="reminder.triggered",
        subject_id="task-1",
        cause_id="event-1",
        correlation_id="request-1",
    )
    return delivery(notice)


# Who is told


@pytest.mark.ac("phase-v:A1.4:1")
def test_it_listens_to_what_concerns_people(room: Room) -> None:
    topics = {topic for door, _ in doors_of(room.handlers) if isinstance(door, Subscription) for topic in door.topics}

    assert topics == {
        "task.created",
        "task.updated",
        "task.completed",
        "task.deleted",
        "reminder.triggered",
        "user.registered",
        "org.member.added",
    }


def test_marking_needs_the_right_to_write(room: Room) -> None:
    rules = {(r.method, r.path): r.rule.permission for r, _ in doors_of(room.handlers) if isinstance(r, Route)}

    assert rules["GET", "/v1/notifications"] == "notifications.read"
    assert rules["POST", "/v1/notifications/read"] == "notifications.write"
    assert rules["POST", "/v1/digests/run"] == "notifications.write"


async def test_a_new_user_gets_a_welcome_in_the_inbox_and_by_mail(room: Room) -> None:
    await room.handlers.tell(BOB, [registered()])
    await room.handlers.stop()

    assert room.sent("inbox") == [("user-bob", "user.registered")]
    assert room.sent("email") == [("user-bob", "user.registered")]
    assert [letter.to_address for letter in room.post.letters] == ["bob@example.org"]


async def test_an_event_that_comes_again_tells_nobody_again(room: Room) -> None:
    await room.handlers.tell(BOB, [registered(), registered()])
    await room.handlers.tell(BOB, [registered()])
    await room.handlers.stop()

    assert len(room.published) == 2
    assert len(room.post.letters) == 1


async def test_the_maker_hears_of_a_completion_that_came_first(room: Room) -> None:
    await room.handlers.tell(BOB, [completed()])
    await room.handlers.tell(ALICE, [created()])

    assert room.sent("inbox") == [("user-alice", "task.completed")]
    assert room.post.letters == []


async def test_owners_hear_of_a_new_member(room: Room) -> None:
    await room.handlers.tell(ALICE, [registered("user-alice", "owner")])
    added = OrgMemberAdded(
        event_id="added",
        occurred_at=NOON,
        org_id="org-a",
        user_id="user-bob",
        aggregate_id="org-a",
        member_id="user-bob",
        role="member",
    )

    await room.handlers.tell(BOB, [added])

    assert ("user-alice", "org.member.added") in room.sent("inbox")


async def test_every_event_that_it_publishes_names_its_cause_and_its_request(room: Room) -> None:
    await room.handlers.tell(BOB, [registered()])
    await room.handlers.stop()

    assert {(event.causation_id, event.correlation_id) for event in room.published} == {
        ("registered-user-bob", "request-1")
    }
    assert [event.aggregate_version for event in room.published] == [1, 2]


# The inbox


async def test_a_page_has_a_cursor_to_the_next(room: Room) -> None:
    for user in ("user-a", "user-b", "user-c"):
        room.now += timedelta(seconds=1)
        added = OrgMemberAdded(
            event_id=user, occurred_at=NOON, org_id="org-a", aggregate_id="org-a", member_id=user, role="member"
        )
        room.store.roles = {"user-alice": "owner"}
        await room.handlers.tell(ALICE, [added])

    first = await room.handlers.list_notifications(ALICE)
    second = await room.handlers.list_notifications(ALICE, cursor=first.next_cursor)

    assert [n.subject_id for n in first.notifications] == ["user-c", "user-b"]
    assert [n.subject_id for n in second.notifications] == ["user-a"]
    assert (first.unread, second.next_cursor) == (3, None)


@pytest.mark.parametrize("cursor", ["x", "%%%", "bm90IGEgdGltZQ", "MjAyNi0wMS0wMVQwMDowMDowMFogAA"])
async def test_a_cursor_that_is_none_is_refused(room: Room, cursor: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await room.handlers.list_notifications(ALICE, cursor=cursor)

    assert refused.value.field == "cursor"


async def test_nobody_marks_what_is_in_another_inbox(room: Room) -> None:
    await room.handlers.tell(BOB, [registered()])
    (notice,) = room.store.items

    with pytest.raises(NotFound):
        await room.handlers.mark_read(ALICE, notice)


@pytest.mark.parametrize("notice", ["", "\0", "notification-1", "x" * 3000])
async def test_what_is_no_id_is_no_notification(room: Room, notice: str) -> None:
    with pytest.raises(NotFound):
        await room.handlers.mark_read(ALICE, notice)


async def test_a_time_without_zone_is_refused(room: Room) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await room.handlers.mark_all_read(ALICE, ReadAll(until=datetime(2026, 1, 1)))  # noqa: DTZ001 -- that is the point

    assert refused.value.field == "until"


# E-mail


async def test_a_mail_waits_while_users_is_away_and_leaves_when_it_is_back(room: Room) -> None:
    room.store.post(reminder())
    room.rooms.is_away = True

    await room.mailer.sweep()
    waiting = dict(room.store.ended)
    room.rooms.is_away = False
    room.now += timedelta(seconds=15)
    await room.mailer.sweep()

    assert waiting == {}
    assert room.sent("email") == [("user-alice", "reminder.triggered")]
    assert room.post.letters[0].subject == "Reminder: Water the plants"


async def test_a_mail_that_never_leaves_is_given_up_after_days_and_says_so(room: Room) -> None:
    room.store.post(reminder())
    room.post.is_broken = True

    await room.mailer.sweep()
    room.now += timedelta(days=3)
    await room.mailer.sweep()

    assert list(room.store.ended.values()) == [State.FAILED]
    assert room.sent("email") == []


async def test_a_second_copy_of_a_mail_has_the_same_message_id(room: Room) -> None:
    room.store.post(reminder())
    await room.mailer.sweep()
    room.store.ended.clear()  # as if the process had died between sending and saying so
    room.now += timedelta(minutes=2)
    await room.mailer.sweep()

    assert len({letter.message_id for letter in room.post.letters}) == 1
    assert len(room.post.letters) == 2


async def test_two_replicas_that_end_a_mail_tell_of_it_once(room: Room) -> None:
    room.store.post(reminder())
    (mail,) = await room.store.claim(now=NOON, limit=1)

    await asyncio.gather(room.mailer._attempt(mail), room.mailer._attempt(mail))

    assert room.sent("email") == [("user-alice", "reminder.triggered")]


@pytest.mark.parametrize(
    ("preferences", "is_sent"),
    [
        ({}, True),
        ({"notifications.mail": True}, True),
        ({"notifications.mail": False}, False),
        ({"theme": "dark"}, True),
    ],
)
async def test_who_wants_no_mail_gets_none(room: Room, preferences: dict[str, object], is_sent: bool) -> None:
    room.rooms.preferences["user-alice"] = preferences
    room.store.post(reminder())

    await room.mailer.sweep()

    assert list(room.store.ended.values()) == [State.SENT if is_sent else State.SKIPPED]
    assert bool(room.sent("email")) is is_sent


async def test_who_left_gets_no_mail(room: Room) -> None:
    room.store.post(reminder("user-gone"))

    await room.mailer.sweep()

    assert list(room.store.ended.values()) == [State.SKIPPED]
    assert room.store.left == ["user-gone"]


async def test_a_reminder_of_a_deleted_task_is_not_mailed(room: Room) -> None:
    room.rooms.titles.clear()
    room.store.post(reminder())

    await room.mailer.sweep()

    assert list(room.store.ended.values()) == [State.SKIPPED]


# Digests


async def test_a_digest_comes_once_a_day_unless_forced(room: Room) -> None:
    room.store.roles = {"user-alice": "owner", "user-bob": "member"}
    room.store.due_tasks = {"user-bob": ([DueTask(task_id="task-1", due_at=NOON)], 1)}

    first = await room.handlers.run_digest(ALICE)
    second = await room.handlers.run_digest(ALICE, RunDigest())
    forced = await room.handlers.run_digest(ALICE, RunDigest(force=True))
    await room.handlers.stop()

    assert (first.sent, first.nothing, first.had_one) == (1, 1, 0)
    assert (second.sent, second.had_one) == (0, 1)
    assert forced.sent == 1
    assert room.sent("inbox") == [("user-bob", "digest")] * 2
    assert len({letter.message_id for letter in room.post.letters}) == 2


async def test_only_owners_and_admins_run_the_digest(room: Room) -> None:
    with pytest.raises(PermissionDenied):
        await room.handlers.run_digest(BOB)


async def test_who_wants_no_digest_gets_none(room: Room) -> None:
    room.store.roles = {"user-bob": "member"}
    room.store.due_tasks = {"user-bob": ([DueTask(task_id="task-1", due_at=NOON)], 1)}
    room.rooms.preferences["user-bob"] = {"notifications.digest": False}

    outcome = await room.handlers.run_digest(ALICE)

    assert (outcome.sent, outcome.nothing) == (0, 1)
    assert room.published == []


async def test_the_digest_does_not_wait_for_users(room: Room) -> None:
    room.store.roles = {"user-bob": "member"}
    room.store.due_tasks = {"user-bob": ([DueTask(task_id="task-1", due_at=NOON)], 1)}
    room.rooms.is_away = True

    await room.handlers.run_digest(ALICE)

    assert room.sent("inbox") == [("user-bob", "digest")]
    assert room.sent("email") == []


@pytest.mark.ac("phase-v:A2.4:2")
async def test_the_daily_job_runs_what_is_missing_from_its_time_on(room: Room) -> None:
    room.store.missing_orgs = ["org-a", "org-b"]
    room.now = NOON.replace(hour=6, minute=59)
    await room.handlers.daily_digest("daily-digest", {})
    too_early = list(room.store.missing_orgs)

    room.now = NOON.replace(hour=7, minute=0)
    await room.handlers.daily_digest("daily-digest", {})

    assert too_early == ["org-a", "org-b"]
    assert room.store.missing_orgs == []


async def test_the_sweep_catches_up_with_a_digest_that_was_missed(room: Room) -> None:
    room.store.missing_orgs = ["org-a"]

    await room.handlers.sweep({})

    assert room.store.missing_orgs == []


@pytest.mark.ac("phase-v:A2.4:2")
async def test_the_digest_is_scheduled_at_start_and_a_missing_scheduler_is_no_end(room: Room) -> None:
    await room.handlers.start()
    scheduled = dict(room.scheduled)
    room.clock_is_away = True
    await room.handlers.start()

    assert scheduled == {"daily-digest": "0 0 7 * * *"}
    jobs = {door.name: door.schedule for door, _ in doors_of(room.handlers) if isinstance(door, Job)}
    assert jobs == {"daily-digest": None, "post": "*/15 * * * * *", "tidy": "0 30 3 * * *"}


# The post


class FakeBinding:
    """Dapr's output bindings."""

    def __init__(self, *, has: bool) -> None:
        self._has = has
        self.calls: list[tuple[str, str, bytes, Mapping[str, str]]] = []

    async def has(self, name: str) -> bool:
        return self._has

    async def invoke(self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]) -> bytes:
        self.calls.append((name, operation, data, metadata))
        return b""


LETTER = Letter(
    message_id="<delivery-abc@isa.example>",
    to_name="Ålice, Ash",
    to_address="alice@example.org",
    subject="Reminder: Blumen gießen",
    lines=("Hello,", "", "  Blumen & Bäume <gießen>"),
)


def post_office(binding: FakeBinding, sink: Path) -> Post:
    sender = Address("isA Cloud", addr_spec="isa@isa.example")
    return Post(binding, binding="email", sink=sink, sender=sender, clock=lambda: NOON)


async def test_without_a_binding_a_mail_lands_in_the_sink_once(tmp_path: Path) -> None:
    post = post_office(FakeBinding(has=False), tmp_path / "mail")

    await post.send(LETTER)
    await post.send(LETTER)

    (file,) = (tmp_path / "mail").iterdir()
    mail = message_from_bytes(file.read_bytes(), policy=default)
    assert file.name == "delivery-abc.eml"
    assert mail["Message-ID"] == "<delivery-abc@isa.example>"
    assert mail["To"].addresses[0].addr_spec == "alice@example.org"
    assert mail["Subject"] == "Reminder: Blumen gießen"
    body = mail.get_body(("plain",))
    assert body is not None
    assert "Bäume <gießen>" in body.get_content()
    assert (tmp_path / "mail").stat().st_mode & 0o077 == 0


async def test_with_a_binding_a_mail_leaves_by_it_with_its_reference(tmp_path: Path) -> None:
    binding = FakeBinding(has=True)

    await post_office(binding, tmp_path / "mail").send(LETTER)

    ((name, operation, data, metadata),) = binding.calls
    assert (name, operation) == ("email", "create")
    assert metadata["emailTo"] == "alice@example.org"
    assert b"&lt;gie\xc3\x9fen&gt;" in data
    assert b"delivery-abc@isa.example" in data
    assert not (tmp_path / "mail").exists()
