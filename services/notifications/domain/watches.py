"""A watch: who made a task, who is to do it and when, so that they hear of what others do to it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from isa.events import Event, ReminderTriggered, TaskCompleted, TaskCreated, TaskDeleted, TaskUpdated
from services.notifications.domain.notices import ASSIGNED, Notice, notice_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Untold:
    """A notice for the maker of a task, kept until it is known who that is: topics have no order among them."""

    event_id: str
    kind: str
    actor_id: str
    correlation_id: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What is known of one task; the same whatever order its events come in."""

    task_id: str
    maker_id: str | None = None
    """None until task.created came; empty when no person made it."""
    version: int = 0
    is_open: bool = True
    due_version: int = 0
    due_at: datetime | None = None
    assignee_version: int = 0
    assignee_id: str | None = None
    """Who is to do it; None: its maker."""
    untold: tuple[Untold, ...] = ()
    revision: int = 0
    """How often the row was written; a writer that read another revision lost a race."""

    def see(self, event: Event) -> tuple[Watch, list[Notice]]:
        """Take in one event of the task, and return whom it concerns."""
        match event:
            case TaskCreated():
                known = self._at(event, is_open=True)._due(event, event.due_at)._assigned(event, event.assignee_id)
                known = replace(known, maker_id=event.user_id, untold=())
                told = [notice for one in self.untold for notice in known._tell(one)]
                return known, told + self._tell_assignee(event, event.assignee_id)
            case TaskUpdated():
                known = self._at(event, is_open=event.status == "open")._due(event, event.due_at)
                known, told = known._assigned(event, event.assignee_id)._tell_or_keep(
                    event, {"changed": event.changed, "status": event.status}
                )
                return known, told + self._tell_assignee(
                    event, event.assignee_id if "assignee" in event.changed else None
                )
            case TaskCompleted():
                return self._at(event, is_open=False)._due(event, event.due_at)._tell_or_keep(event, {})
            case TaskDeleted():
                return self._at(event, is_open=False)._tell_or_keep(event, {"status": event.status})
            case ReminderTriggered():
                return self._remind(event)
            case _:
                return self, []

    def _at(self, event: Event, *, is_open: bool) -> Watch:
        version = event.aggregate_version
        return replace(self, version=version, is_open=is_open) if version > self.version else self

    def _due(self, event: Event, due_at: datetime | None) -> Watch:
        version = event.aggregate_version
        return replace(self, due_version=version, due_at=due_at) if version > self.due_version else self

    def _assigned(self, event: Event, assignee_id: str | None) -> Watch:
        version = event.aggregate_version
        if version <= self.assignee_version:
            return self
        return replace(self, assignee_version=version, assignee_id=assignee_id)

    def _tell_assignee(self, event: Event, assignee_id: str | None) -> list[Notice]:
        if assignee_id is None or assignee_id == event.user_id:
            return []
        assigned = replace(_untold(event, {}), kind=ASSIGNED)
        return [replace(self._notice(assignee_id, assigned), id=notice_id(event.event_id, assignee_id, ASSIGNED))]

    def _remind(self, event: ReminderTriggered) -> tuple[Watch, list[Notice]]:
        data: dict[str, object] = {
            "reminder_id": event.aggregate_id,
            "remind_at": event.remind_at.astimezone(UTC).isoformat(),
        }
        if event.user_id:
            return self, [self._notice(event.user_id, _untold(event, data))]
        return self._tell_or_keep(event, data)

    def _tell_or_keep(self, event: Event, data: dict[str, object]) -> tuple[Watch, list[Notice]]:
        untold = _untold(event, data)
        if self.maker_id is None:
            return replace(self, untold=(*self.untold, untold)), []
        return self, self._tell(untold)

    def _tell(self, untold: Untold) -> list[Notice]:
        if not self.maker_id or self.maker_id == untold.actor_id:
            return []
        return [self._notice(self.maker_id, untold)]

    def _notice(self, recipient: str, untold: Untold) -> Notice:
        return Notice(
            id=notice_id(untold.event_id, recipient),
            recipient_id=recipient,
            kind=untold.kind,
            subject_id=self.task_id,
            actor_id=untold.actor_id,
            cause_id=untold.event_id,
            correlation_id=untold.correlation_id,
            data=untold.data,
        )


def _untold(event: Event, data: dict[str, object]) -> Untold:
    return Untold(
        event_id=event.event_id,
        kind=event.TOPIC,
        actor_id=event.user_id,
        correlation_id=event.correlation_id,
        data=data,
    )


def watched_task(event: Event) -> str | None:
    """The task that an event is about; None when it is about something else."""
    match event:
        case TaskCreated() | TaskUpdated() | TaskCompleted() | TaskDeleted():
            return event.aggregate_id
        case ReminderTriggered():
            return event.task_id
        case _:
            return None
