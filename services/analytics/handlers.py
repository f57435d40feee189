"""What comes in: the eight primary topics, and questions about the figures."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

from fastapi import Query

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
from isa_common import Statement
from kernel import Caller, Parts, View, get, on_batch
from services.analytics.domain import Period
from services.analytics.projections import TOPIC_NAMES, fold, series
from services.analytics.repository import Figures


class TaskFiguresView(View):
    """The tasks of an organisation, as they stand."""

    open: int
    overdue: int
    """Open, and due before now."""
    done: int
    """Completed and not reopened."""
    deleted: int
    completion_rate: float | None
    """Share of all tasks that are done, 0 to 1; tasks deleted while open count as not done."""
    on_time_rate: float | None
    """Share of the done tasks with a due date that were done by then, 0 to 1."""
    median_lead_seconds: float | None
    """From creation to completion, of what is done."""


class Summary(View):
    """An organisation in numbers."""

    organisation: str
    as_of: datetime
    last_event_at: datetime | None
    """When the latest event that is counted here happened."""
    tasks: TaskFiguresView
    topics: dict[str, int]
    """Events of each of the eight topics, ever."""


class TopicView(View):
    """Events of one topic."""

    topic: str
    number: int
    last_at: datetime | None


class Topics(View):
    """Events by topic."""

    topics: list[TopicView]


class Day(View):
    """One UTC day."""

    day: date
    topics: dict[str, int]


class Daily(View):
    """A series of days without gaps."""

    first: date
    last: date
    days: list[Day]


class Handlers:
    """Counts of what happens in an organisation, by topic and day, and its tasks as they stand."""

    def __init__(self, parts: Parts, figures: Figures) -> None:
        self._parts = parts
        self._figures = figures
        self._events = parts.metrics.counter("isa_business_events", "Events counted, each once.", ["topic"])
        for topic in TOPIC_NAMES:
            self._events.labels(topic)  # a topic without events is a zero, not a gap

    @on_batch(
        TaskCreated,
        TaskUpdated,
        TaskCompleted,
        TaskDeleted,
        UserRegistered,
        UserAuthenticated,
        NotificationSent,
        ReminderTriggered,
    )
    async def count(self, caller: Caller, events: list[Event]) -> None:
        """Fold the events of one organisation into its figures, each once."""

        async def effects(fresh: list[Event]) -> list[Statement]:
            return self._figures.add(caller, fold(fresh))

        for event in await self._parts.inbox.apply(caller, events, effects):
            self._events.labels(event.TOPIC).inc()

    @get("/v1/analytics/summary", permission="analytics.read")
    async def summary(self, caller: Caller) -> Summary:
        """The organisation in numbers, as of now."""
        now = self._parts.clock()
        tasks, totals = await self._figures.summary(caller, now=now)
        return Summary(
            organisation=caller.org,
            as_of=now,
            last_event_at=max((count.last_at for count in totals.values()), default=None),
            tasks=TaskFiguresView(
                open=tasks.open,
                overdue=tasks.overdue,
                done=tasks.done,
                deleted=tasks.deleted,
                completion_rate=tasks.completion_rate,
                on_time_rate=tasks.on_time_rate,
                median_lead_seconds=tasks.median_lead.total_seconds() if tasks.median_lead else None,
            ),
            topics={topic: count.number if (count := totals.get(topic)) else 0 for topic in TOPIC_NAMES},
        )

    @get("/v1/analytics/topics", permission="analytics.read")
    async def topics(self, caller: Caller) -> Topics:
        """Events of each of the eight topics, and when the latest happened."""
        totals = await self._figures.totals(caller)
        return Topics(
            topics=[
                TopicView(topic=topic, number=count.number, last_at=count.last_at)
                if (count := totals.get(topic))
                else TopicView(topic=topic, number=0, last_at=None)
                for topic in TOPIC_NAMES
            ]
        )

    @get("/v1/analytics/daily", permission="analytics.read")
    async def daily(
        self,
        caller: Caller,
        first: Annotated[
            date | None, Query(alias="from", description="First UTC day; default: 29 days before.")
        ] = None,
        last: Annotated[date | None, Query(alias="to", description="Last UTC day, included; default: today.")] = None,
    ) -> Daily:
        """Events of each topic day by day, with zeros where nothing happened; at most 366 days."""
        period = Period.of(first, last, today=self._parts.clock().date())
        counts = await self._figures.daily(caller, period)
        return Daily(
            first=period.first,
            last=period.last,
            days=[Day(day=day, topics=topics) for day, topics in series(counts, first=period.first, last=period.last)],
        )
