"""Which lines of imported files are taken, by the hash of their source."""

from __future__ import annotations

from collections.abc import Sequence

from isa_common import Sql
from kernel import Caller, Work

FIND = """
SELECT imported.source_key, imported.task_id, tasks.id IS NOT NULL AS is_there
FROM imported LEFT JOIN tasks ON tasks.org_id = imported.org_id AND tasks.id = imported.task_id
WHERE imported.source_key = ANY($1::text[])
"""
INSERT = """
INSERT INTO imported (source_key, task_id) SELECT * FROM unnest($1::text[], $2::text[]) AS row (source_key, task_id)
"""


class Imports:
    """What the caller's organisation has imported. Deleting a task does not forget it: it would come back."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def find(self, caller: Caller, source_keys: Sequence[str]) -> dict[str, tuple[str, bool]]:
        """Return the task of each key that is taken, and whether it still exists."""
        rows = await self._sql.acting_for(caller).query(FIND, list(source_keys))
        return {row["source_key"]: (row["task_id"], row["is_there"]) for row in rows}

    def insert(self, work: Work, taken: Sequence[tuple[str, str]]) -> None:
        """Queue pairs of source key and task id; AlreadyExists at the end when another import was faster."""
        work.add(INSERT, [key for key, _ in taken], [task_id for _, task_id in taken], expect_rows=len(taken))
