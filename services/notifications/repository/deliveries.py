"""Deliveries: a row an e-mail, which is the truth; jobs only look for what is due."""

from __future__ import annotations

from datetime import datetime, timedelta

from isa_common import Row, Sql, Statement
from services.notifications.domain.deliveries import Delivery, State

LEASE = timedelta(minutes=1)
"""How long a claimed delivery is nobody else's; longer than an attempt takes."""
CLAIM = """
UPDATE deliveries SET attempts = attempts + 1, next_try = $1::timestamptz + make_interval(secs => $2)
WHERE id IN (
    SELECT id FROM deliveries WHERE state = 'pending' AND next_try <= $1
    ORDER BY next_try LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING id, org_id, notification_id, user_id, kind, subject_id, cause_id, correlation_id, data, created_at,
    attempts
"""
END = """
UPDATE deliveries SET state = $2, reason = $3, ended_at = $4 WHERE id = $1 AND state = 'pending'
"""
POSTPONE = """
UPDATE deliveries SET next_try = $2, reason = $3 WHERE id = $1 AND state = 'pending' AND attempts = $4
"""
PENDING = "SELECT count(*) AS number FROM deliveries WHERE state = 'pending'"
CLEAN = "DELETE FROM deliveries WHERE ended_at < $1"


class Deliveries:
    """The e-mails of all organisations on their way; by the room's system login."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def claim(self, *, now: datetime, limit: int) -> list[Delivery]:
        """Take deliveries that are due; nobody else gets them for a while."""
        result = await self._sql.execute(CLAIM, now, LEASE.total_seconds(), limit)
        return [_delivery(row) for row in result.rows]

    def end(self, delivery: Delivery, state: State, *, at: datetime, reason: str = "") -> Statement:
        """Return what ends a delivery; it aborts when somebody else ended it."""
        return Statement(END, delivery.id, state.value, reason, at, expect_rows=1)

    async def postpone(self, delivery: Delivery, *, until: datetime, reason: str) -> None:
        """Try a delivery again later."""
        await self._sql.execute(POSTPONE, delivery.id, until, reason, delivery.attempts)

    async def pending(self) -> int:
        """How many e-mails wait."""
        (row,) = await self._sql.query(PENDING)
        return int(row["number"])

    async def clean(self, *, before: datetime) -> int:
        """Delete deliveries that ended before a time."""
        return (await self._sql.execute(CLEAN, before)).affected


def _delivery(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        org_id=row["org_id"],
        notification_id=row["notification_id"],
        user_id=row["user_id"],
        kind=row["kind"],
        subject_id=row["subject_id"],
        created_at=row["created_at"],
        attempts=row["attempts"],
        cause_id=row["cause_id"],
        correlation_id=row["correlation_id"],
        data=row["data"],
    )
