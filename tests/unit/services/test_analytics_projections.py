"""Folding a history gives one answer, in whatever order and however often its events come."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.events import (
    Event,
    ReminderTriggered,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
    UserRegistered,
)
from services.analytics.projections import Fold, TaskFigures, figures, fold, series, totals

START = datetime(2026, 3, 1, 22, tzinfo=UTC)
NOW = START + timedelta(days=30)


def created(task: str = "task-1", version: int = 1, *, after: int = 0, due: int | None = None) -> TaskCreated:
    """A task made some hours after the start, due some hours after it."""
    return TaskCreated(**_envelope(task, version, after), due_at=_due(due))


def updated(
    task: str = "task-1", version: int = 2, *, after: int = 1, status: str = "open", due: int | None = None
) -> TaskUpdated:
    return TaskUpdated(**_envelope(task, version, after), changed=["status"], status=status, due_at=_due(due))


def completed(task: str = "task-1", version: int = 2, *, after: int = 2, due: int | None = None) -> TaskCompleted:
    return TaskCompleted(**_envelope(task, version, after), created_at=START, due_at=_due(due))


def deleted(task: str = "task-1", version: int = 3, *, after: int = 3, status: str = "open") -> TaskDeleted:
    return TaskDeleted(**_envelope(task, version, after), status=status)


def _due(hours: int | None) -> datetime | None:
    return None if hours is None else START + timedelta(hours=hours)


def _envelope(aggregate: str, version: int, after: int) -> dict[str, Any]:
    return {
        "event_id": f"{aggregate}/{version}",
        "occurred_at": START + timedelta(hours=after),
        "org_id": "org-a",
        "user_id": "user-a",
        "aggregate_id": aggregate,
        "aggregate_version": version,
    }


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What `tasks` and `users` may publish: a life of some tasks, and things that are no tasks."""
    events: list[Event] = []
    for number in range(draw(st.integers(0, 4))):
        task, version, status, due = f"task-{number}", 1, "open", draw(st.none() | st.integers(0, 99))
        events.append(created(task, version, after=0, due=due))
        for step in draw(st.lists(st.sampled_from(["update", "complete", "reopen"]), max_size=5)):
            version += 1
            if step == "complete":
                status = "done"
                events.append(completed(task, version, after=version, due=due))
            else:
                due = draw(st.none() | st.integers(0, 99))
                status = "open" if step == "reopen" else status
                events.append(updated(task, version, after=version, status=status, due=due))
        if draw(st.booleans()):
            events.append(deleted(task, version + 1, after=version + 1, status=status))
    for number in range(draw(st.integers(0, 3))):
        events.append(UserRegistered(**_envelope(f"user-{number}", 1, number * 7), role="member"))
        events.append(
            ReminderTriggered(**_envelope(f"reminder-{number}", 1, number), task_id="task-0", remind_at=START)
        )
    return events


def once(events: list[Event]) -> list[Event]:
    """What the inbox leaves of a delivery: each event id once."""
    return list({event.event_id: event for event in events}.values())


@given(histories(), st.data())
def test_any_order_and_repetition_of_a_history_folds_to_the_same(history: list[Event], data: st.DataObject) -> None:
    repeated = history + (data.draw(st.lists(st.sampled_from(history), max_size=8)) if history else [])
    shuffled = data.draw(st.permutations(repeated))

    folded = fold(once(shuffled))

    assert folded == fold(history)
    assert figures(folded.tasks, now=NOW) == figures(fold(history).tasks, now=NOW)


@given(histories(), st.data())
def test_folding_in_batches_is_folding_at_once(history: list[Event], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(history))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(history)), max_size=4)))
    batches = [shuffled[a:b] for a, b in zip([0, *cuts], [*cuts, len(shuffled)], strict=True)]

    merged = Fold()
    for batch in batches:
        merged = merged.merge(fold(batch))

    assert merged == fold(history)


@given(histories(), st.data())
def test_a_repeated_event_never_changes_the_state_of_a_task(history: list[Event], data: st.DataObject) -> None:
    folded = fold(history)
    again = fold(data.draw(st.lists(st.sampled_from(history)))) if history else Fold()

    assert folded.merge(again).tasks == folded.tasks


@given(histories())
def test_every_task_is_open_done_or_dropped(history: list[Event]) -> None:
    found = figures(fold(history).tasks, now=NOW)

    assert found.open + found.done + found.dropped == len(
        {e.aggregate_id for e in history if isinstance(e, TaskCreated)}
    )
    assert found.overdue <= found.open
    assert found.on_time <= found.done_with_due <= found.done


def test_a_completion_before_its_creation_leaves_nothing_open() -> None:
    found = figures(fold([completed(), created()]).tasks, now=NOW)

    assert (found.open, found.done) == (0, 1)
    assert found.median_lead == timedelta(hours=2)


def test_a_reopened_task_is_open_and_has_no_lead_time() -> None:
    found = figures(fold([created(), updated(version=3), completed(version=2)]).tasks, now=NOW)

    assert (found.open, found.done, found.median_lead) == (1, 0, None)


def test_a_task_deleted_when_done_stays_done() -> None:
    found = figures(fold([deleted(status="done"), created(), completed()]).tasks, now=NOW)

    assert (found.open, found.done, found.deleted, found.dropped) == (0, 1, 1, 0)
    assert found.completion_rate == 1.0


def test_the_due_date_is_that_of_the_latest_version_that_tells_one() -> None:
    late = figures(fold([updated(version=2, due=1), created(due=99)]).tasks, now=NOW)

    assert (late.open, late.overdue) == (1, 1)


def test_on_time_is_judged_by_the_completion() -> None:
    found = figures(
        fold([created(due=2), completed(after=2, due=2), created("task-2"), completed("task-2", due=1)]).tasks,
        now=NOW,
    )

    assert (found.on_time, found.done_with_due, found.on_time_rate) == (1, 2, 0.5)


def test_an_organisation_without_tasks_has_no_rates() -> None:
    assert TaskFigures().completion_rate is None
    assert TaskFigures().on_time_rate is None


def test_a_day_is_a_utc_day() -> None:
    folded = fold([created(), created("task-2", after=3)])

    assert sorted(day for day, _ in folded.counts) == [date(2026, 3, 1), date(2026, 3, 2)]


def test_a_series_has_zeros_where_nothing_happened() -> None:
    folded = fold([created(), completed(after=30)])

    days = series(folded.counts, first=date(2026, 2, 28), last=date(2026, 3, 4))

    assert [day for day, _ in days] == [date(2026, 2, 28), *(date(2026, 3, n) for n in range(1, 5))]
    assert [topics["task.created"] for _, topics in days] == [0, 1, 0, 0, 0]
    assert [topics["task.completed"] for _, topics in days] == [0, 0, 0, 1, 0]
    assert all(len(topics) == 8 for _, topics in days)


def test_totals_name_every_topic() -> None:
    found = totals(fold([created(), created("task-2", after=5)]).counts)

    assert len(found) == 8
    assert found["task.deleted"] is None
    assert (count := found["task.created"]) is not None
    assert (count.number, count.last_at) == (2, START + timedelta(hours=5))


def test_an_event_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time"):
        fold([TaskCreated(aggregate_id="task-1")])
