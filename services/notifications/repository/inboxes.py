"""Inboxes: a row a notice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from isa_common import NotFound, Row, Sql, Statement
from kernel import Caller
from services.notifications.domain.notices import Notice, delivery_id

KNOWN = "SELECT id FROM notifications WHERE id = ANY($1::text[])"
PUT = """
INSERT INTO notifications (id, org_id, user_id, kind, subject_id, actor_id, data, at)
SELECT x.id, $1, x.user_id, x.kind, x.subject_id, x.actor_id, x.data, $3
FROM jsonb_to_recordset($2::jsonb) AS x (
    id text, user_id text, kind text, subject_id text, actor_id text, data jsonb)
"""
MAIL = """
INSERT INTO deliveries (id, org_id, notification_id, user_id, kind, subject_id, cause_id, correlation_id, data,
                        created_at, next_try)
SELECT x.delivery_id, $1, x.id, x.user_id, x.kind, x.subject_id, x.cause_id, x.correlation_id, x.data, $3, $3
FROM jsonb_to_recordset($2::jsonb) AS x (
    delivery_id text, id text, user_id text, kind text, subject_id text, cause_id text, correlation_id text,
    data jsonb)
"""
ITEM = """
SELECT n.id, n.kind, n.subject_id, n.actor_id, n.data, n.at, n.read_at, d.state AS mail
FROM notifications n LEFT JOIN deliveries d ON d.notification_id = n.id
"""
PAGE = (
    ITEM
    + """
WHERE n.user_id = $1 AND (n.at, n.id) < ($2::timestamptz, $3::text) AND (NOT $4::boolean OR n.read_at IS NULL)
ORDER BY n.at DESC, n.id DESC LIMIT $5
"""
)
UNREAD = "SELECT count(*) AS number FROM notifications WHERE user_id = $1 AND read_at IS NULL"
READ = "UPDATE notifications SET read_at = coalesce(read_at, $3) WHERE id = $1 AND user_id = $2"
READ_ALL = "UPDATE notifications SET read_at = $2 WHERE user_id = $1 AND read_at IS NULL AND at <= $3"
ONE = ITEM + "WHERE n.id = $1 AND n.user_id = $2"
CLEAN = "DELETE FROM notifications WHERE at < $1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A notice as it lies in an inbox."""

    id: str
    kind: str
    subject_id: str
    actor_id: str
    data: dict[str, object]
    at: datetime
    read_at: datetime | None
    mail: str | None
    """How far its e-mail has come; None when it has none."""


class Inboxes:
    """The inboxes of the caller's organisation; what reads or marks, does so in the caller's own."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def unknown(self, caller: Caller, notices: Sequence[Notice]) -> list[Notice]:
        """Return the notices that lie in no inbox yet: a replay of old events tells nobody twice."""
        if not notices:
            return []
        rows = await self._sql.acting_for(caller).query(KNOWN, [notice.id for notice in notices])
        known = {row["id"] for row in rows}
        return [notice for notice in notices if notice.id not in known]

    def put(self, caller: Caller, notices: Sequence[Notice], *, at: datetime) -> list[Statement]:
        """Return what puts notices into inboxes and their e-mails on the way."""
        rows = [_row(notice) for notice in notices]
        mailed = [row for row, notice in zip(rows, notices, strict=True) if notice.is_mailed]
        statements = [Statement(PUT, caller.org, rows, at, expect_rows=len(rows))] if rows else []
        if mailed:
            statements.append(Statement(MAIL, caller.org, mailed, at, expect_rows=len(mailed)))
        return statements

    async def page(self, caller: Caller, *, before: tuple[datetime, str], only_unread: bool, limit: int) -> list[Item]:
        """The caller's notices before a place, latest first."""
        at, notice = before
        rows = await self._sql.acting_for(caller).query(PAGE, caller.user, at, notice, only_unread, limit)
        return [_item(row) for row in rows]

    async def unread(self, caller: Caller) -> int:
        """How many notices the caller has not read."""
        (row,) = await self._sql.acting_for(caller).query(UNREAD, caller.user)
        return int(row["number"])

    async def read(self, caller: Caller, notice: str, *, at: datetime) -> Item:
        """Mark one of the caller's notices as read; the first time counts."""
        sql = self._sql.acting_for(caller)
        if not (await sql.execute(READ, notice, caller.user, at)).affected:
            raise NotFound("There is no such notification in your inbox.", notification_id=notice)
        (row,) = await sql.query(ONE, notice, caller.user)
        return _item(row)

    async def read_all(self, caller: Caller, *, until: datetime, at: datetime) -> int:
        """Mark the caller's notices up to a time as read; return how many were not."""
        return (await self._sql.acting_for(caller).execute(READ_ALL, caller.user, at, until)).affected

    async def clean(self, *, before: datetime) -> int:
        """Delete the notices of all organisations before a time."""
        return (await self._sql.execute(CLEAN, before)).affected


def _row(notice: Notice) -> dict[str, object]:
    return {
        "id": notice.id,
        "delivery_id": delivery_id(notice.id),
        "user_id": notice.recipient_id,
        "kind": notice.kind,
        "subject_id": notice.subject_id,
        "actor_id": notice.actor_id,
        "cause_id": notice.cause_id,
        "correlation_id": notice.correlation_id,
        "data": notice.data,
    }


def _item(row: Row) -> Item:
    return Item(
        id=row["id"],
        kind=row["kind"],
        subject_id=row["subject_id"],
        actor_id=row["actor_id"],
        data=row["data"],
        at=row["at"],
        read_at=row["read_at"],
        mail=row["mail"],
    )
