"""The rows of reminders. The app login sees its organisation's; the sweep reads ids and times of all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from isa_common import NotFound, Row, Sql, Statement
from kernel import Caller, Work
from services.tasks.domain.reminder import Reminder, State

COLUMNS = "id, task_id, user_id, remind_at, state, fired_at, version"
INSERT = """
INSERT INTO reminders (id, task_id, user_id, remind_at, state, version)
SELECT id, task_id, user_id, remind_at, 'waiting', 1
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) AS row (id, task_id, user_id, remind_at)
"""
FIRE = """
UPDATE reminders SET state = 'fired', fired_at = $3, version = version + 1
WHERE id = $1 AND version = $2 AND state = 'waiting'
"""
CANCEL = """
UPDATE reminders SET state = 'cancelled', version = version + 1 WHERE task_id = $1 AND state = 'waiting' RETURNING id
"""
REVIVE = """
UPDATE reminders SET state = 'waiting', armed_at = NULL, version = version + 1
WHERE task_id = $1 AND state = 'cancelled' AND remind_at > $2
RETURNING id, remind_at
"""
MISSING = """
SELECT org_id, id, remind_at FROM reminders
WHERE state = 'waiting'
  AND (remind_at < $1::timestamptz OR armed_at IS NULL)
ORDER BY remind_at LIMIT $2
"""
ARMED = """
UPDATE reminders SET armed_at = now()
FROM unnest($1::text[], $2::text[]) AS row (org_id, id)
WHERE reminders.org_id = row.org_id AND reminders.id = row.id
"""


@dataclass(frozen=True, slots=True)
class Missing:
    """A reminder of any organisation that no job is known to stand for, or whose time has passed."""

    org: str
    id: str
    remind_at: datetime


class Reminders:
    """The reminders of the caller's organisation. `sql` is the room's system login."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def of_task(self, caller: Caller, task_id: str) -> list[Reminder]:
        """Read all of one task, the earliest first."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {COLUMNS} FROM reminders WHERE task_id = $1 ORDER BY remind_at, id",  # noqa: S608 -- our own names
            task_id,
        )
        return [_reminder(row) for row in rows]

    async def get(self, caller: Caller, reminder_id: str) -> Reminder:
        """Read one; NotFound also when it is another organisation's."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {COLUMNS} FROM reminders WHERE id = $1",  # noqa: S608 -- our own names
            reminder_id,
        )
        if not rows:
            raise NotFound(f"There is no reminder {reminder_id[:60]}.", reminder_id=reminder_id[:60])
        return _reminder(rows[0])

    def insert(self, work: Work, reminders: Sequence[Reminder]) -> None:
        """Queue new rows as one statement."""
        if reminders:
            work.add(
                INSERT,
                [each.id for each in reminders],
                [each.task_id for each in reminders],
                [each.user for each in reminders],
                [each.remind_at for each in reminders],
                expect_rows=len(reminders),
            )

    def guard(self, work: Work, task_id: str) -> None:
        """Queue that the task must still be open, and stay so until the end; Aborted when it is not."""
        work.add("SELECT id FROM tasks WHERE id = $1 AND status = 'open' FOR SHARE", task_id, expect_rows=1)

    def withdraw(self, work: Work, reminder_ids: Iterable[str]) -> None:
        """Queue the end of rows."""
        work.add("DELETE FROM reminders WHERE id = ANY($1::text[])", list(reminder_ids))

    def withdraw_of_user(self, user: str) -> Statement:
        """Return the statement that ends all that wait for one user."""
        return Statement("DELETE FROM reminders WHERE user_id = $1 AND state = 'waiting'", user)

    def cancel(self, work: Work, task_id: str) -> None:
        """Queue that none of a task's reminders fires; its result has their ids."""
        work.add(CANCEL, task_id)

    def revive(self, work: Work, task_id: str, *, now: datetime) -> None:
        """Queue that those which were cancelled wait again, if their time is still to come."""
        work.add(REVIVE, task_id, now)

    def fire(self, work: Work, fired: Reminder) -> None:
        """Queue that it has fired; Aborted when another trigger was faster, or it was withdrawn."""
        work.add(FIRE, fired.id, fired.version - 1, fired.fired_at, expect_rows=1)

    async def missing(self, *, late_since: datetime, limit: int) -> list[Missing]:
        """Read, over all organisations, what should have fired by then, and what has no job; the earliest first."""
        rows = await self._sql.query(MISSING, late_since, limit)
        return [Missing(row["org_id"], row["id"], row["remind_at"]) for row in rows]

    async def armed(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Note that the scheduler knows them: pairs of organisation and reminder id."""
        if pairs:
            await self._sql.execute(ARMED, [org for org, _ in pairs], [reminder_id for _, reminder_id in pairs])


def _reminder(row: Row) -> Reminder:
    return Reminder(
        id=row["id"],
        task_id=row["task_id"],
        user=row["user_id"],
        remind_at=row["remind_at"],
        state=State(row["state"]),
        fired_at=row["fired_at"],
        version=row["version"],
    )
