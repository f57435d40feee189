"""Analytics as its callers see it, on fakes: each event once, a handful of statements, days without gaps."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.events import Event, TaskCompleted, TaskCreated, UserRegistered
from isa_common import InvalidArgument, Statement
from kernel import Caller, Parts
from kernel.doors import Route, Subscription, doors_of
from services.analytics.domain import LONGEST_PERIOD, Period
from services.analytics.handlers import Handlers
from services.analytics.projections import TOPIC_NAMES, Count, TaskFigures
from services.analytics.repository import Figures

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
TODAY = NOON.date()
ALICE = Caller(org="org-a", user="user-alice", roles=frozenset({"member"}))


class FakeCounter:
    """A counter by topic that can be read."""

    def __init__(self) -> None:
        self.values: dict[str, int] = {}

    def labels(self, topic: str) -> SimpleNamespace:
        self.values.setdefault(topic, 0)
        return SimpleNamespace(inc=lambda: self.values.update({topic: self.values[topic] + 1}))


class FakeInbox:
    """Remembers ids, as the table does, and keeps what would have been committed."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.batches: list[Sequence[Statement]] = []

    async def apply(
        self,
        caller: Caller,
        events: Sequence[Event],
        effects: Callable[[list[Event]], Awaitable[Sequence[Statement]]],
    ) -> list[Event]:
        fresh = [event for event in {e.event_id: e for e in events}.values() if event.event_id not in self.seen]
        if fresh:
            self.batches.append(await effects(fresh))
            self.seen |= {event.event_id for event in fresh}
        return fresh


class FakeSql:
    """Answers each query with the rows it was given for it, of the organisation that it acts for."""

    def __init__(self, rows: dict[str, list[dict[str, Any]]]) -> None:
        self.rows = rows
        self.acting: list[str] = []

    def acting_for(self, caller: Caller) -> FakeSql:
        self.acting.append(caller.org)
        return self

    async def query(self, sql: str, *params: object) -> list[dict[str, Any]]:
        return next(rows for mark, rows in self.rows.items() if mark in sql)


def room(**rows: list[dict[str, Any]]) -> tuple[Handlers, FakeInbox, FakeSql, dict[str, FakeCounter]]:
    """The room on fakes."""
    counters: dict[str, FakeCounter] = {}

    def counter(name: str, _doc: str, _labels: list[str]) -> FakeCounter:
        return counters.setdefault(name, FakeCounter())

    inbox, sql = FakeInbox(), FakeSql(rows)
    parts = SimpleNamespace(inbox=inbox, metrics=SimpleNamespace(counter=counter), clock=lambda: NOON)
    return Handlers(cast(Parts, parts), Figures(cast(Any, sql))), inbox, sql, counters


def created(number: int, *, at: datetime = NOON) -> TaskCreated:
    return TaskCreated(
        event_id=f"created-{number}",
        occurred_at=at,
        org_id="org-a",
        user_id="user-alice",
        aggregate_id=f"task-{number}",
    )


def completed(number: int) -> TaskCompleted:
    return TaskCompleted(
        event_id=f"completed-{number}",
        occurred_at=NOON,
        org_id="org-a",
        aggregate_id=f"task-{number}",
        aggregate_version=2,
        created_at=NOON - timedelta(hours=1),
    )


@pytest.mark.ac("phase-v:A1.4:1")
def test_it_listens_to_the_eight_primary_topics() -> None:
    handlers, *_ = room()

    topics = [topic for door, _ in doors_of(handlers) if isinstance(door, Subscription) for topic in door.topics]

    assert sorted(topics) == sorted(TOPIC_NAMES)
    assert len(topics) == 8


def test_every_question_needs_the_right_to_read_analytics() -> None:
    handlers, *_ = room()

    rules = {door.path: door.rule.permission for door, _ in doors_of(handlers) if isinstance(door, Route)}

    assert set(rules.values()) == {"analytics.read"}
    assert len(rules) == 3


async def test_a_hundred_events_cost_two_statements() -> None:
    handlers, inbox, *_ = room()
    events: list[Event] = [created(number) for number in range(100)]

    await handlers.count(ALICE, events)

    (statements,) = inbox.batches
    assert len(statements) == 2
    assert [statement.expect_rows for statement in statements] == [1, 100]
    assert all(statement.params[0] == "org-a" for statement in statements)


async def test_events_that_are_no_tasks_touch_no_task() -> None:
    handlers, inbox, *_ = room()
    event = UserRegistered(event_id="u", occurred_at=NOON, org_id="org-a", aggregate_id="user-alice", role="owner")

    await handlers.count(ALICE, [event])

    ((statement,),) = inbox.batches
    assert "INSERT INTO daily" in statement.sql


@pytest.mark.ac("phase-v:A3.1:5")
async def test_business_metrics_count_each_event_once() -> None:
    handlers, _, _, counters = room()

    await handlers.count(ALICE, [created(1), created(2), created(1)])
    await handlers.count(ALICE, [created(2), created(3)])
    await handlers.count(ALICE, [completed(1)])

    values = counters["isa_business_events"].values
    assert (values["task.created"], values["task.completed"], values["user.registered"]) == (3, 1, 0)
    assert set(values) == set(TOPIC_NAMES)


async def test_the_summary_names_every_topic_and_acts_for_the_caller_only() -> None:
    figures: dict[str, Any] = {
        "open": 3,
        "overdue": 1,
        "done": 2,
        "deleted": 1,
        "dropped": 1,
        "on_time": 1,
        "done_with_due": 2,
        "median_lead": 90.5,
    }
    totals = [{"topic": "task.created", "number": 6, "last_at": NOON}]
    handlers, _, sql, _ = room(**{"FROM tasks": [figures | row for row in totals]})

    summary = await handlers.summary(ALICE)

    assert set(summary.topics) == set(TOPIC_NAMES)
    assert summary.topics["task.created"] == 6
    assert summary.topics["task.deleted"] == 0
    assert summary.tasks.completion_rate == pytest.approx(2 / 6)
    assert summary.tasks.median_lead_seconds == 90.5
    assert summary.last_event_at == NOON
    assert set(sql.acting) == {"org-a"}


async def test_an_organisation_without_events_has_zeros_and_no_rates() -> None:
    nothing = dict.fromkeys(("open", "overdue", "done", "deleted", "dropped", "on_time", "done_with_due"), 0)
    no_topic = {"median_lead": None, "topic": None, "number": None, "last_at": None}
    handlers, *_ = room(**{"FROM tasks": [nothing | no_topic]})

    summary = await handlers.summary(ALICE)

    assert (summary.tasks.completion_rate, summary.tasks.median_lead_seconds, summary.last_event_at) == (
        None,
        None,
        None,
    )
    assert set(summary.topics.values()) == {0}


async def test_topics_are_listed_with_the_time_of_the_latest_event() -> None:
    handlers, *_ = room(**{"GROUP BY topic": [{"topic": "task.created", "number": 6, "last_at": NOON}]})

    listed = {view.topic: view for view in (await handlers.topics(ALICE)).topics}

    assert list(listed) == list(TOPIC_NAMES)
    assert (listed["task.created"].number, listed["task.created"].last_at) == (6, NOON)
    assert (listed["task.deleted"].number, listed["task.deleted"].last_at) == (0, None)


async def test_the_daily_series_covers_thirty_days_unless_asked_otherwise() -> None:
    row = {"day": TODAY, "topic": "task.created", "number": 2, "last_at": NOON}
    handlers, *_ = room(**{"FROM daily": [row]})

    daily = await handlers.daily(ALICE)

    assert len(daily.days) == 30
    assert (daily.days[-1].day, daily.days[-1].topics["task.created"]) == (TODAY, 2)
    assert sum(sum(day.topics.values()) for day in daily.days) == 2


@pytest.mark.parametrize(
    ("first", "last", "field"),
    [
        (date(2026, 3, 2), date(2026, 3, 1), "from"),
        (date(2026, 3, 3), None, "from"),
        (date(2020, 1, 1), date(2026, 3, 1), "to"),
        (date.min, None, "to"),
    ],
)
def test_a_period_that_is_no_period_is_refused(first: date | None, last: date | None, field: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        Period.of(first, last, today=TODAY)

    assert refused.value.field == field


@given(st.none() | st.dates(), st.none() | st.dates(), st.dates())
def test_a_period_is_never_longer_than_its_limit_and_never_a_crash(
    first: date | None, last: date | None, today: date
) -> None:
    try:
        period = Period.of(first, last, today=today)
    except InvalidArgument:
        return
    assert period.first <= period.last
    assert period.last - period.first < LONGEST_PERIOD


def test_counts_add_up() -> None:
    assert Count(number=1, last_at=NOON) + Count(number=2, last_at=NOON - timedelta(1)) == Count(number=3, last_at=NOON)
    assert TaskFigures(open=1, done=1, dropped=2).completion_rate == 0.25
