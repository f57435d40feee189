"""Watches: a row a task, written only by who read its current revision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from isa_common import Row, Sql, Statement
from kernel import Caller
from services.notifications.domain.digests import LONGEST_LIST, DueTask
from services.notifications.domain.watches import Untold, Watch

FIND = """
SELECT task_id, maker_id, version, is_open, due_version, due_at, assignee_version, assignee_id,
       untold, revision
FROM watches WHERE task_id = ANY($1::text[])
"""
# In key order, so that two replicas cannot lock each other out; a row written meanwhile is left alone, and missed.
SAVE = """
INSERT INTO watches AS w (org_id, task_id, maker_id, version, is_open, due_version, due_at,
                          assignee_version, assignee_id, untold, revision)
SELECT $1, x.task_id, x.maker_id, x.version, x.is_open, x.due_version, x.due_at,
       x.assignee_version, x.assignee_id, x.untold, x.revision
FROM jsonb_to_recordset($2::jsonb) AS x (
    task_id text, maker_id text, version bigint, is_open boolean, due_version bigint, due_at timestamptz,
    assignee_version bigint, assignee_id text, untold jsonb, revision bigint)
ORDER BY x.task_id
ON CONFLICT (org_id, task_id) DO UPDATE SET
    maker_id = excluded.maker_id, version = excluded.version, is_open = excluded.is_open,
    due_version = excluded.due_version, due_at = excluded.due_at,
    assignee_version = excluded.assignee_version, assignee_id = excluded.assignee_id, untold = excluded.untold,
    revision = excluded.revision, changed_at = now()
WHERE w.revision = excluded.revision - 1
"""
DUE = """
SELECT doer_id, task_id, due_at, total FROM (
    SELECT coalesce(assignee_id, maker_id) AS doer_id, task_id, due_at,
           row_number() OVER (PARTITION BY coalesce(assignee_id, maker_id) ORDER BY due_at, task_id) AS place,
           count(*) OVER (PARTITION BY coalesce(assignee_id, maker_id)) AS total
    FROM watches WHERE is_open AND due_at < $1 AND coalesce(assignee_id, maker_id) = ANY($2::text[])
) AS due WHERE place <= $3 ORDER BY doer_id, place
"""
CLEAN = "DELETE FROM watches WHERE NOT is_open AND changed_at < $1"


class Watches:
    """What is known of tasks, by organisation."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def find(self, caller: Caller, task_ids: Iterable[str]) -> dict[str, Watch]:
        """Return the watch of each task; a new one for a task that nothing is known of."""
        wanted = sorted(set(task_ids))
        rows = await self._sql.acting_for(caller).query(FIND, wanted) if wanted else []
        return {task: Watch(task_id=task) for task in wanted} | {row["task_id"]: _watch(row) for row in rows}

    def save(self, caller: Caller, watches: Sequence[Watch]) -> list[Statement]:
        """Return what writes watches back; it aborts when one of them was written since it was read."""
        rows = [_row(replace(watch, revision=watch.revision + 1)) for watch in watches]
        return [Statement(SAVE, caller.org, rows, expect_rows=len(rows))] if rows else []

    async def due(
        self, caller: Caller, users: Sequence[str], *, before: datetime
    ) -> dict[str, tuple[list[DueTask], int]]:
        """What some users are to do before a time: the first of these tasks, and how many there are."""
        rows = await self._sql.acting_for(caller).query(DUE, before, list(users), LONGEST_LIST)
        found: dict[str, tuple[list[DueTask], int]] = {}
        for row in rows:
            tasks, _ = found.setdefault(row["doer_id"], ([], row["total"]))
            tasks.append(DueTask(task_id=row["task_id"], due_at=row["due_at"]))
        return found

    async def clean(self, *, before: datetime) -> int:
        """Forget the tasks of all organisations that were closed before a time."""
        return (await self._sql.execute(CLEAN, before)).affected


def _row(watch: Watch) -> dict[str, object]:
    return asdict(watch) | {"due_at": watch.due_at.isoformat() if watch.due_at else None}


def _watch(row: Row) -> Watch:
    return Watch(
        task_id=row["task_id"],
        maker_id=row["maker_id"],
        version=row["version"],
        is_open=row["is_open"],
        due_version=row["due_version"],
        due_at=row["due_at"],
        assignee_version=row["assignee_version"],
        assignee_id=row["assignee_id"],
        untold=tuple(Untold(**one) for one in row["untold"]),
        revision=row["revision"],
    )
