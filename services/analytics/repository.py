"""Where the figures live: `daily`, counts by day and topic, and `tasks`, a row a task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import date, datetime, timedelta

from isa_common import Row, Sql, Statement
from kernel import Caller
from services.analytics.domain import Period
from services.analytics.projections import Count, Fold, TaskFigures

# Both upserts visit their rows in key order, so that two replicas that fold at once cannot lock each other out.
ADD_COUNTS = """
INSERT INTO daily AS d (org_id, day, topic, number, last_at)
SELECT $1, x.day, x.topic, x.number, x.last_at
FROM jsonb_to_recordset($2::jsonb) AS x (day date, topic text, number bigint, last_at timestamptz)
ORDER BY x.day, x.topic
ON CONFLICT (org_id, day, topic) DO UPDATE
SET number = d.number + excluded.number, last_at = greatest(d.last_at, excluded.last_at)
"""

MERGE_TASKS = """
INSERT INTO tasks AS t (org_id, task_id, version, is_done, is_deleted, created_at,
                        due_version, due_at, completed_version, completed_at)
SELECT $1, x.task_id, x.version, x.is_done, x.is_deleted, x.created_at,
       x.due_version, x.due_at, x.completed_version, x.completed_at
FROM jsonb_to_recordset($2::jsonb) AS x (
    task_id text, version bigint, is_done boolean, is_deleted boolean, created_at timestamptz,
    due_version bigint, due_at timestamptz, completed_version bigint, completed_at timestamptz)
ORDER BY x.task_id
ON CONFLICT (org_id, task_id) DO UPDATE SET
    version = greatest(t.version, excluded.version),
    is_done = CASE WHEN excluded.version > t.version THEN excluded.is_done ELSE t.is_done END,
    is_deleted = CASE WHEN excluded.version > t.version THEN excluded.is_deleted ELSE t.is_deleted END,
    created_at = coalesce(t.created_at, excluded.created_at),
    due_version = greatest(t.due_version, excluded.due_version),
    due_at = CASE WHEN excluded.due_version > t.due_version THEN excluded.due_at ELSE t.due_at END,
    completed_version = greatest(t.completed_version, excluded.completed_version),
    completed_at = CASE WHEN excluded.completed_version > t.completed_version
                        THEN excluded.completed_at ELSE t.completed_at END
"""

TOTALS = "SELECT topic, sum(number)::bigint AS number, max(last_at) AS last_at FROM daily GROUP BY topic"

# One statement sees one state of the database: the tasks and the counts belong together.
SUMMARY = """
WITH figures AS (
    SELECT count(*) FILTER (WHERE NOT is_done AND NOT is_deleted) AS open,
           count(*) FILTER (WHERE NOT is_done AND NOT is_deleted AND due_at < $1) AS overdue,
           count(*) FILTER (WHERE is_done) AS done,
           count(*) FILTER (WHERE is_deleted) AS deleted,
           count(*) FILTER (WHERE is_deleted AND NOT is_done) AS dropped,
           count(*) FILTER (WHERE is_done AND completed_at <= due_at) AS on_time,
           count(*) FILTER (WHERE is_done AND completed_at IS NOT NULL AND due_at IS NOT NULL) AS done_with_due,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - created_at)::float8)
               FILTER (WHERE is_done AND completed_at IS NOT NULL AND created_at IS NOT NULL) AS median_lead
    FROM tasks
), totals AS (
    SELECT topic, sum(number)::bigint AS number, max(last_at) AS last_at FROM daily GROUP BY topic
)
SELECT figures.*, totals.* FROM figures LEFT JOIN totals ON true
"""

DAILY = "SELECT day, topic, number, last_at FROM daily WHERE day BETWEEN $1::date AND $2::date"


class Figures:
    """The figures of each organisation."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def add(self, caller: Caller, folded: Fold) -> list[Statement]:
        """Return what adds a fold of new events: at most two statements, however many events it holds."""
        counts = [
            {
                "day": day.isoformat(),
                "topic": topic,
                "number": count.number,
                "last_at": count.last_at.isoformat(),
            }
            for (day, topic), count in folded.counts.items()
        ]
        tasks = [_json(asdict(state)) for state in folded.tasks.values()]
        statements = [Statement(ADD_COUNTS, caller.org, counts, expect_rows=len(counts))] if counts else []
        if tasks:
            statements.append(Statement(MERGE_TASKS, caller.org, tasks, expect_rows=len(tasks)))
        return statements

    async def summary(self, caller: Caller, *, now: datetime) -> tuple[TaskFigures, dict[str, Count]]:
        """The tasks of the caller's organisation as they stand, and its counts by topic, of one moment."""
        rows = await self._sql.acting_for(caller).query(SUMMARY, now)
        row = rows[0]
        lead = row["median_lead"]
        tasks = TaskFigures(
            open=row["open"],
            overdue=row["overdue"],
            done=row["done"],
            deleted=row["deleted"],
            dropped=row["dropped"],
            on_time=row["on_time"],
            done_with_due=row["done_with_due"],
            median_lead=None if lead is None else timedelta(seconds=lead),
        )
        return tasks, _counts(row for row in rows if row["topic"] is not None)

    async def totals(self, caller: Caller) -> dict[str, Count]:
        """Counts by topic over all days; a topic that never came is absent."""
        return _counts(await self._sql.acting_for(caller).query(TOTALS))

    async def daily(self, caller: Caller, period: Period) -> dict[tuple[date, str], Count]:
        """Counts by day and topic; a day on which nothing happened is absent."""
        rows = await self._sql.acting_for(caller).query(DAILY, period.first.isoformat(), period.last.isoformat())
        return {(row["day"], row["topic"]): Count(number=row["number"], last_at=row["last_at"]) for row in rows}


def _counts(rows: Iterable[Row]) -> dict[str, Count]:
    return {row["topic"]: Count(number=row["number"], last_at=row["last_at"]) for row in rows}


def _json(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
