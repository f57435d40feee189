"""The rows of tasks, and their order in a list."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum

from isa_common import InvalidArgument, NotFound, Row, Sql, Statement
from kernel import Caller, Work
from services.tasks.domain.task import Status, Task
from services.tasks.domain.when import When

COLUMNS = (
    "id, title, notes, status, priority, due_at, due_is_day, start_at, start_is_day, tags, projects, contexts, "
    "assignee, recurrence, created_by, created_at, updated_at, done_at, version"
)
GET = f"SELECT {COLUMNS} FROM tasks WHERE id = $1"  # noqa: S608 -- our own names
ASSIGNED_TO = f"SELECT {COLUMNS} FROM tasks WHERE assignee = $1"  # noqa: S608 -- our own names
INSERT = f"""
INSERT INTO tasks ({COLUMNS})
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)
"""  # noqa: S608 -- our own names
INSERT_MANY = f"""
INSERT INTO tasks ({COLUMNS})
SELECT {COLUMNS} FROM jsonb_to_recordset($1::jsonb) AS row (
    id text, title text, notes text, status text, priority text, due_at timestamptz, due_is_day boolean,
    start_at timestamptz, start_is_day boolean, tags text[], projects text[], contexts text[], assignee text,
    recurrence text, created_by text, created_at timestamptz, updated_at timestamptz, done_at timestamptz,
    version bigint
)
"""  # noqa: S608 -- our own names
UPDATE = """
UPDATE tasks SET
    title = $3, notes = $4, status = $5, priority = $6, due_at = $7, due_is_day = $8, start_at = $9, start_is_day = $10,
    tags = $11, projects = $12, contexts = $13, assignee = $14, recurrence = $15, updated_at = $16, done_at = $17,
    version = $18
WHERE id = $1 AND version = $2
"""
UNASSIGN = """
UPDATE tasks SET assignee = NULL, updated_at = $3, version = tasks.version + 1
FROM unnest($1::text[], $2::bigint[]) AS read (id, version)
WHERE tasks.id = read.id AND tasks.version = read.version
"""
ID = re.compile(r"task-[a-z2-7]{26}", re.ASCII)
WORDS = 8
"""How many words of a search count."""


class Sort(StrEnum):
    """The order of a list; a minus is from last to first. Equal ones go by id."""

    NEWEST = "-created_at"
    OLDEST = "created_at"
    DUE = "due_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks a list has; None means any."""

    status: Status | None = None
    due_before: datetime | None = None
    due_after: datetime | None = None
    text: str | None = None
    assignee: str | None = None
    priority: str | None = None
    tag: str | None = None
    project: str | None = None
    context: str | None = None


@dataclass(frozen=True, slots=True)
class Page:
    """Some tasks of a list, and the cursor of the next ones."""

    tasks: list[Task]
    next_cursor: str | None


class Tasks:
    """The tasks of the caller's organisation."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def get(self, caller: Caller, task_id: str) -> Task:
        """Read one; another organisation's is as unknown as one that never was."""
        rows = await self._sql.acting_for(caller).query(GET, task_id) if ID.fullmatch(task_id) else []
        if not rows:
            raise no_such_task(task_id)
        return _task(rows[0])

    async def assigned_to(self, caller: Caller, user: str) -> list[Task]:
        """Read all that one user is to do."""
        rows = await self._sql.acting_for(caller).query(ASSIGNED_TO, user)
        return [_task(row) for row in rows]

    async def page(self, caller: Caller, wanted: Filter, *, sort: Sort, limit: int, cursor: str | None = None) -> Page:
        """Read one page. It is stable: what comes or goes meanwhile neither repeats nor hides what stays."""
        conditions = _Conditions()
        _narrow(conditions, wanted)
        check = _check_of(wanted, sort)
        if cursor is not None:
            _continue(conditions, sort, *_read_cursor(cursor, check))
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {COLUMNS} FROM tasks WHERE {conditions.sql} ORDER BY {_ORDER[sort]} LIMIT {limit + 1}",  # noqa: S608
            *conditions.params,
        )
        tasks = [_task(row) for row in rows[:limit]]
        more = len(rows) > limit
        return Page(tasks, _write_cursor(tasks[-1], sort, check) if more else None)

    def insert(self, work: Work, task: Task) -> None:
        """Queue a new row."""
        work.add(INSERT, *_values(task).values())

    def insert_many(self, work: Work, tasks: Iterable[Task]) -> None:
        """Queue new rows as one statement."""
        rows = [_values(task) for task in tasks]
        work.add(INSERT_MANY, rows, expect_rows=len(rows))

    def save(self, work: Work, task: Task) -> None:
        """Queue the row of a task that is one version on; Aborted at the end when somebody was faster."""
        values = _values(task)
        for constant in ("id", "created_by", "created_at", "version"):
            del values[constant]
        work.add(UPDATE, task.id, task.version - 1, *values.values(), task.version, expect_rows=1)

    def delete(self, work: Work, task: Task) -> None:
        """Queue the end of a row; Aborted when somebody was faster. Its reminders go with it."""
        work.add("DELETE FROM tasks WHERE id = $1 AND version = $2", task.id, task.version, expect_rows=1)

    def unassign(self, tasks: Sequence[Task], *, at: datetime) -> Statement:
        """Return the statement that leaves tasks without an assignee, one version on."""
        ids, versions = [task.id for task in tasks], [task.version for task in tasks]
        return Statement(UNASSIGN, ids, versions, at, expect_rows=len(tasks))


def no_such_task(task_id: str) -> NotFound:
    """What there is to say about another organisation's task, too."""
    return NotFound(f"There is no task {task_id[:60]}.", task_id=task_id[:60])


def _values(task: Task) -> dict[str, object]:
    """The row, in the order of COLUMNS."""
    return {
        "id": task.id,
        "title": task.title,
        "notes": task.notes,
        "status": task.status.value,
        "priority": task.priority,
        "due_at": task.due.at if task.due else None,
        "due_is_day": task.due is not None and task.due.is_day,
        "start_at": task.start.at if task.start else None,
        "start_is_day": task.start is not None and task.start.is_day,
        "tags": list(task.tags),
        "projects": list(task.projects),
        "contexts": list(task.contexts),
        "assignee": task.assignee,
        "recurrence": task.recurrence,
        "created_by": task.created_by,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
        "done_at": task.done_at,
        "version": task.version,
    }


def _task(row: Row) -> Task:
    return Task(
        id=row["id"],
        title=row["title"],
        notes=row["notes"],
        status=Status(row["status"]),
        priority=row["priority"],
        due=When(row["due_at"], is_day=row["due_is_day"]) if row["due_at"] else None,
        start=When(row["start_at"], is_day=row["start_is_day"]) if row["start_at"] else None,
        tags=tuple(row["tags"]),
        projects=tuple(row["projects"]),
        contexts=tuple(row["contexts"]),
        assignee=row["assignee"],
        recurrence=row["recurrence"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        done_at=row["done_at"],
        version=row["version"],
    )


class _Conditions:
    """The WHERE of a query, with its parameters."""

    def __init__(self) -> None:
        self.params: list[object] = []
        self._parts: list[str] = []

    def add(self, condition: str, *params: object) -> None:
        """Add a condition in which `{0}`, `{1}` stand for the parameters."""
        first = len(self.params) + 1
        self._parts.append(condition.format(*(f"${first + index}" for index in range(len(params)))))
        self.params += params

    @property
    def sql(self) -> str:
        """All of them."""
        return " AND ".join(self._parts) or "true"


_ORDER = {
    Sort.NEWEST: "created_at DESC, id DESC",
    Sort.OLDEST: "created_at, id",
    Sort.DUE: "due_at NULLS LAST, id",
}


def _narrow(conditions: _Conditions, wanted: Filter) -> None:
    if wanted.status is not None:
        # Said literally, so that the index of open tasks can serve it.
        conditions.add(f"status = '{wanted.status.value}'")
    if wanted.due_after is not None:
        conditions.add("due_at >= {0}::timestamptz", wanted.due_after)
    if wanted.due_before is not None:
        conditions.add("due_at < {0}::timestamptz", wanted.due_before)
    for column, value in (("assignee", wanted.assignee), ("priority", wanted.priority)):
        if value is not None:
            conditions.add(f"{column} = {{0}}::text", value)
    for column, value in (("tags", wanted.tag), ("projects", wanted.project), ("contexts", wanted.context)):
        if value is not None:
            conditions.add(f"{{0}}::text = ANY({column})", value)
    for word in (wanted.text or "").split()[:WORDS]:
        conditions.add("(title ILIKE {0}::text OR notes ILIKE {0}::text)", f"%{_literal(word)}%")


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def _continue(conditions: _Conditions, sort: Sort, key: datetime | None, task_id: str) -> None:
    match sort:
        case Sort.NEWEST:
            conditions.add("(created_at, id) < ({0}::timestamptz, {1}::text)", key, task_id)
        case Sort.OLDEST:
            conditions.add("(created_at, id) > ({0}::timestamptz, {1}::text)", key, task_id)
        case Sort.DUE if key is None:
            conditions.add("due_at IS NULL AND id > {0}::text", task_id)
        case Sort.DUE:
            conditions.add("((due_at, id) > ({0}::timestamptz, {1}::text) OR due_at IS NULL)", key, task_id)


def _check_of(wanted: Filter, sort: Sort) -> str:
    """What ties a cursor to its list."""
    text = json.dumps([sort, asdict(wanted)], default=str, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _write_cursor(last: Task, sort: Sort, check: str) -> str:
    key = last.created_at if sort is not Sort.DUE else last.due.at if last.due else None
    text = json.dumps([check, key.isoformat() if key else None, last.id], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_cursor(cursor: str, check: str) -> tuple[datetime | None, str]:
    try:
        found, key, task_id = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        at = datetime.fromisoformat(key) if key else None
        if not isinstance(task_id, str) or (at is not None and at.tzinfo is None):
            raise ValueError(cursor)
    except (ValueError, TypeError, binascii.Error):
        raise InvalidArgument(
            "The cursor is not one of ours; give the next_cursor of a page, or none.", field="cursor"
        ) from None
    if found != check:
        raise InvalidArgument(
            "The cursor belongs to another list; keep sort and filters while paging, or start without a cursor.",
            field="cursor",
        )
    return at, task_id
