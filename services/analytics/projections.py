"""How events become figures: pure, and the same for any order and any repetition of a history.

A count is additive, so it needs events that were not seen before (the inbox sees to it). The state of a task is a
set of registers, each of which keeps the value of the highest version: merging them is commutative, associative and
idempotent.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from statistics import median

from isa.events import (
    Event,
    NotificationSent,
    ReminderTriggered,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
    UserAuthenticated,
    UserRegistered,
)

TOPICS: tuple[type[Event], ...] = (
    TaskCreated,
    TaskUpdated,
    TaskCompleted,
    TaskDeleted,
    UserRegistered,
    UserAuthenticated,
    NotificationSent,
    ReminderTriggered,
)
"""The eight primary topics."""
TOPIC_NAMES = tuple(event.TOPIC for event in TOPICS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """How often, and when last."""

    number: int
    last_at: datetime

    def __add__(self, other: Count) -> Count:
        return Count(number=self.number + other.number, last_at=max(self.last_at, other.last_at))


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskState:
    """What is known of one task so far; each register has the version that wrote it, 0 when nothing did."""

    task_id: str
    version: int
    """Highest version seen; wrote `is_done` and `is_deleted`."""
    is_done: bool
    is_deleted: bool
    created_at: datetime | None = None
    due_version: int = 0
    due_at: datetime | None = None
    completed_version: int = 0
    completed_at: datetime | None = None

    def merge(self, other: TaskState) -> TaskState:
        """Join what two sets of events tell of the same task."""
        latest = self if self.version >= other.version else other
        due = self if self.due_version >= other.due_version else other
        completed = self if self.completed_version >= other.completed_version else other
        return TaskState(
            task_id=self.task_id,
            version=latest.version,
            is_done=latest.is_done,
            is_deleted=latest.is_deleted,
            created_at=self.created_at or other.created_at,
            due_version=due.due_version,
            due_at=due.due_at,
            completed_version=completed.completed_version,
            completed_at=completed.completed_at,
        )


@dataclass(slots=True, kw_only=True)
class Fold:
    """What a set of events comes to."""

    counts: dict[tuple[date, str], Count] = field(default_factory=dict)
    """By UTC day and topic."""
    tasks: dict[str, TaskState] = field(default_factory=dict)

    def merge(self, other: Fold) -> Fold:
        """Join what two disjoint sets of events come to."""
        merged = Fold(counts=dict(self.counts), tasks=dict(self.tasks))
        for key, count in other.counts.items():
            merged._count(key, count)
        for state in other.tasks.values():
            merged._see(state)
        return merged

    def _count(self, key: tuple[date, str], count: Count) -> None:
        known = self.counts.get(key)
        self.counts[key] = count if known is None else known + count

    def _see(self, state: TaskState) -> None:
        known = self.tasks.get(state.task_id)
        self.tasks[state.task_id] = state if known is None else known.merge(state)


def fold(events: Iterable[Event]) -> Fold:
    """Fold events, each given once, in any order."""
    result = Fold()
    for event in events:
        at = happened_at(event)
        result._count((at.date(), event.TOPIC), Count(number=1, last_at=at))
        state = task_state(event)
        if state is not None:
            result._see(state)
    return result


def happened_at(event: Event) -> datetime:
    """When an event became true, in UTC; the kernel fills it on every event that it publishes."""
    if event.occurred_at is None:
        raise ValueError(f"The event {event.event_id} has no time.")
    return event.occurred_at.astimezone(UTC)


def task_state(event: Event) -> TaskState | None:
    """What one event tells of a task; None when it tells of something else."""
    version = event.aggregate_version
    match event:
        case TaskCreated():
            return TaskState(
                task_id=event.aggregate_id,
                version=version,
                is_done=False,
                is_deleted=False,
                created_at=happened_at(event),
                due_version=version,
                due_at=event.due_at,
            )
        case TaskUpdated():
            return TaskState(
                task_id=event.aggregate_id,
                version=version,
                is_done=event.status == "done",
                is_deleted=False,
                due_version=version,
                due_at=event.due_at,
            )
        case TaskCompleted():
            return TaskState(
                task_id=event.aggregate_id,
                version=version,
                is_done=True,
                is_deleted=False,
                created_at=event.created_at.astimezone(UTC),
                due_version=version,
                due_at=event.due_at,
                completed_version=version,
                completed_at=happened_at(event),
            )
        case TaskDeleted():
            return TaskState(
                task_id=event.aggregate_id, version=version, is_done=event.status == "done", is_deleted=True
            )
        case _:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFigures:
    """The tasks of an organisation, as they stand."""

    open: int = 0
    overdue: int = 0
    """Open, and due before now."""
    done: int = 0
    """Completed and not reopened, whether deleted afterwards or not."""
    deleted: int = 0
    dropped: int = 0
    """Deleted while open."""
    on_time: int = 0
    """Done no later than due, of `done_with_due`."""
    done_with_due: int = 0
    median_lead: timedelta | None = None
    """From creation to completion, of what is done."""

    @property
    def completion_rate(self) -> float | None:
        """Share of all tasks that are done, 0 to 1; None while there is none."""
        known = self.open + self.done + self.dropped
        return self.done / known if known else None

    @property
    def on_time_rate(self) -> float | None:
        """Share of the done tasks with a due date that were done by then, 0 to 1; None while there is none."""
        return self.on_time / self.done_with_due if self.done_with_due else None


def figures(tasks: Mapping[str, TaskState], *, now: datetime) -> TaskFigures:
    """Count tasks as they stand; the repository's query says the same in SQL."""
    states = tasks.values()
    is_open = [state for state in states if not state.is_done and not state.is_deleted]
    done = [state for state in states if state.is_done]
    finished = [state for state in done if state.completed_at is not None]
    leads = [state.completed_at - state.created_at for state in finished if state.completed_at and state.created_at]
    due = [state for state in finished if state.due_at is not None]
    return TaskFigures(
        open=len(is_open),
        overdue=sum(1 for state in is_open if state.due_at is not None and state.due_at < now),
        done=len(done),
        deleted=sum(1 for state in states if state.is_deleted),
        dropped=sum(1 for state in states if state.is_deleted and not state.is_done),
        on_time=sum(1 for state in due if state.completed_at and state.due_at and state.completed_at <= state.due_at),
        done_with_due=len(due),
        median_lead=timedelta(seconds=median(lead.total_seconds() for lead in leads)) if leads else None,
    )


def totals(counts: Mapping[tuple[date, str], Count]) -> dict[str, Count | None]:
    """Counts of every topic over all days; None for a topic that never came."""
    result: dict[str, Count | None] = dict.fromkeys(TOPIC_NAMES)
    for (_, topic), count in counts.items():
        known = result.get(topic)
        result[topic] = count if known is None else known + count
    return result


def series(counts: Mapping[tuple[date, str], Count], *, first: date, last: date) -> list[tuple[date, dict[str, int]]]:
    """Numbers of every topic day by day, both ends included, with zeros where nothing happened."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    return [
        (day, {topic: count.number if (count := counts.get((day, topic))) else 0 for topic in TOPIC_NAMES})
        for day in days
    ]
