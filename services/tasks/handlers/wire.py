"""Bodies and answers as they are on the wire, and the domain's objects from them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)

from kernel import Body, View
from services.tasks.domain.intake import Line, Outcome
from services.tasks.domain.reminder import REMINDERS, Reminder, State
from services.tasks.domain.task import (
    NOTES_LENGTH,
    RECURRENCE_LENGTH,
    TITLE_LENGTH,
    Changes,
    Status,
    Task,
    check_assignee,
    check_labels,
    check_notes,
    check_priority,
    check_recurrence,
    check_title,
)
from services.tasks.domain.when import When, parse_deadline, parse_instant, parse_start
from services.tasks.repository.tasks import Filter, Sort

T = TypeVar("T")
LIST_AT_MOST = 200


def _text(parse: Callable[[str], T]) -> Callable[[Any], T]:
    def parsed(value: Any) -> T:
        if not isinstance(value, str):
            raise ValueError("It must be text")
        return parse(value)

    return parsed


def _moment(text: str) -> datetime:
    return parse_start(text).at


def _schema(description: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "description": description, "examples": list(examples)})


_DATE_OR_TIME = "A date-time with its offset, or a date."
Title = Annotated[str, AfterValidator(check_title), Field(description=f"1 to {TITLE_LENGTH} characters, one line.")]
Notes = Annotated[str, AfterValidator(check_notes), Field(description=f"Up to {NOTES_LENGTH} characters.")]
Priority = Annotated[str, AfterValidator(check_priority), Field(description="A (highest) to Z.")]
Deadline = Annotated[
    When,
    PlainValidator(_text(parse_deadline)),
    PlainSerializer(str),
    _schema(_DATE_OR_TIME, "2026-12-01T09:30:00+01:00", "2026-12-01"),
]
Start = Annotated[When, PlainValidator(_text(parse_start)), PlainSerializer(str), _schema(_DATE_OR_TIME, "2026-11-30")]
Instant = Annotated[
    datetime, PlainValidator(_text(parse_instant)), _schema("A date-time with its offset.", "2026-12-01T09:00:00+01:00")
]
Moment = Annotated[datetime, BeforeValidator(_text(_moment))]
Labels = Annotated[list[str], AfterValidator(lambda labels: list(check_labels(labels)))]
Assignee = Annotated[str, AfterValidator(check_assignee), Field(description="Id of a user.")]
Recurrence = Annotated[
    str, AfterValidator(check_recurrence), Field(description=f"Kept as it is; up to {RECURRENCE_LENGTH} characters.")
]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]


class CreateTask(Body):
    """A new task; only its title is needed."""

    title: Title
    notes: Notes = ""
    priority: Priority | None = None
    due_at: Deadline | None = None
    start_at: Start | None = None
    tags: Labels = Field(default_factory=list)
    projects: Labels = Field(default_factory=list)
    contexts: Labels = Field(default_factory=list)
    assignee: Assignee | None = None
    recurrence: Recurrence | None = None

    def task(self, id_: str, *, user: str, now: datetime) -> Task:
        """Return the task that it asks for."""
        return Task(
            id=id_,
            title=self.title,
            notes=self.notes,
            priority=self.priority,
            due=self.due_at,
            start=self.start_at,
            tags=tuple(self.tags),
            projects=tuple(self.projects),
            contexts=tuple(self.contexts),
            assignee=self.assignee,
            recurrence=self.recurrence,
            created_by=user,
            created_at=now,
            updated_at=now,
        )


class ChangeTask(Body):
    """What is to change; what is left out stays, and null empties what may be empty."""

    title: Title = ""
    notes: Notes | None = None
    priority: Priority | None = None
    due_at: Deadline | None = None
    start_at: Start | None = None
    tags: Labels = Field(default_factory=list)
    projects: Labels = Field(default_factory=list)
    contexts: Labels = Field(default_factory=list)
    assignee: Assignee | None = None
    recurrence: Recurrence | None = None

    def changes(self) -> Changes:
        """Return the fields that were given."""
        changes = Changes()
        for name in self.model_fields_set:
            value = getattr(self, name)
            match name:
                case "tags" | "projects" | "contexts":
                    changes[name] = tuple(value)
                case "notes":
                    changes["notes"] = value or ""
                case "due_at":
                    changes["due"] = value
                case "start_at":
                    changes["start"] = value
                case _:
                    changes[name] = value  # type: ignore[literal-required]  # the fields above, and no other
        return changes


def wire_names(changed: list[str]) -> list[str]:
    """Return the names of changed fields as the wire knows them."""
    return [{"due": "due_at", "start": "start_at"}.get(name, name) for name in changed]


class TaskView(View):
    """A task."""

    id: str
    title: str
    notes: str
    status: Status
    priority: str | None
    due_at: str | None = Field(description=_DATE_OR_TIME)
    start_at: str | None = Field(description=_DATE_OR_TIME)
    tags: list[str]
    projects: list[str]
    contexts: list[str]
    assignee: str | None
    recurrence: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime
    done_at: datetime | None
    version: int

    @classmethod
    def of(cls, task: Task) -> TaskView:
        """Return how a task is shown."""
        return cls(
            id=task.id,
            title=task.title,
            notes=task.notes,
            status=task.status,
            priority=task.priority,
            due_at=str(task.due) if task.due else None,
            start_at=str(task.start) if task.start else None,
            tags=list(task.tags),
            projects=list(task.projects),
            contexts=list(task.contexts),
            assignee=task.assignee,
            recurrence=task.recurrence,
            created_by=task.created_by,
            created_at=task.created_at,
            updated_at=task.updated_at,
            done_at=task.done_at,
            version=task.version,
        )


class TaskList(View):
    """A page of tasks."""

    tasks: list[TaskView]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null on the last.")


class ListTasks(Body):
    """Which tasks, in which order, from where on."""

    status: Status | None = None
    due_before: Annotated[Moment | None, _schema(_DATE_OR_TIME, "2026-12-01")] = None
    due_after: Annotated[Moment | None, _schema(_DATE_OR_TIME, "2026-12-01")] = None
    q: Word | None = Field(None, description="Words that title or notes hold, all of them, in any case and order.")
    assignee: Word | None = None
    priority: Word | None = None
    tag: Word | None = None
    project: Word | None = None
    context: Word | None = None
    sort: Sort = Sort.NEWEST
    limit: int | None = Field(None, ge=1, le=LIST_AT_MOST)
    cursor: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = None

    def filter(self) -> Filter:
        """Return the filter that it asks for."""
        return Filter(
            status=self.status,
            due_before=self.due_before,
            due_after=self.due_after,
            text=self.q,
            assignee=self.assignee,
            priority=self.priority,
            tag=self.tag,
            project=self.project,
            context=self.context,
        )


class AddReminder(Body):
    """One more reminder."""

    remind_at: Instant


class PutReminders(Body):
    """The caller's reminders of a task; those that wait and are not named are withdrawn."""

    remind_at: Annotated[list[Instant], Field(max_length=REMINDERS)]


class ReminderView(View):
    """A reminder."""

    id: str
    task_id: str
    user: str
    remind_at: datetime
    state: State
    fired_at: datetime | None

    @classmethod
    def of(cls, reminder: Reminder) -> ReminderView:
        """Return how a reminder is shown."""
        return cls.model_validate(reminder)


class ReminderList(View):
    """All reminders of a task."""

    reminders: list[ReminderView]


class LineView(View):
    """What became of a line of an imported file, or of a VTODO by its first line."""

    line: int
    outcome: Outcome
    text: str
    reason: str | None = Field(None, description="Why it was refused or skipped, or what was read differently.")
    task_id: str | None = None

    @classmethod
    def of(cls, line: Line) -> LineView:
        """Return how a line is shown."""
        assert line.outcome is not None  # every line has one when the import ends
        return cls(
            line=line.number,
            outcome=line.outcome,
            text=line.excerpt,
            reason=line.reason or None,
            task_id=line.task_id,
        )


class ImportReport(View):
    """What became of an imported file: how many lines of each outcome, and each line."""

    taken: int
    already_there: int
    refused: int
    skipped: int
    lines: list[LineView]
