"""People and their organisations, by id, and the digests that they got."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime

from isa_common import Sql, Statement
from kernel import Caller

ADD_PEOPLE = """
INSERT INTO people AS p (org_id, user_id, role)
SELECT $1, x.user_id, x.role FROM jsonb_to_recordset($2::jsonb) AS x (user_id text, role text) ORDER BY x.user_id
ON CONFLICT (org_id, user_id) DO UPDATE SET role = excluded.role
"""
ADD_ORGANISATION = "INSERT INTO organisations (org_id, since) VALUES ($1, $2) ON CONFLICT DO NOTHING"
OWNERS = "SELECT user_id FROM people WHERE role = 'owner' AND left_at IS NULL ORDER BY user_id"
MEMBERS = "SELECT user_id FROM people WHERE left_at IS NULL AND user_id > $1 ORDER BY user_id LIMIT $2"
LEAVE = "UPDATE people SET left_at = coalesce(left_at, $2) WHERE user_id = $1"
WITHOUT_DIGEST = """
SELECT org_id FROM organisations
WHERE (digest_day IS NULL OR digest_day < $1::date) AND since < $2 AND org_id > $3 ORDER BY org_id LIMIT $4
"""
DIGESTED = "UPDATE organisations SET digest_day = greatest(digest_day, $1::date)"
RUNS = "SELECT user_id, run FROM digests WHERE day = $1::date AND user_id = ANY($2::text[])"
RUN = """
INSERT INTO digests AS d (org_id, user_id, day, run)
SELECT $1, x.user_id, $3::date, x.run FROM jsonb_to_recordset($2::jsonb) AS x (user_id text, run integer)
ORDER BY x.user_id
ON CONFLICT (org_id, user_id, day) DO UPDATE SET run = excluded.run WHERE d.run = excluded.run - 1
"""
UNREAD = """
SELECT user_id, kind, count(*) AS number FROM notifications
WHERE read_at IS NULL AND kind <> 'digest' AND user_id = ANY($1::text[]) GROUP BY user_id, kind
"""
CLEAN = "DELETE FROM digests WHERE day < $1::date"


class People:
    """Who is in which organisation."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def add(self, caller: Caller, roles: Mapping[str, str], *, at: datetime) -> list[Statement]:
        """Return what makes users known, each with a role."""
        if not roles:
            return []
        rows = [{"user_id": user, "role": role} for user, role in roles.items()]
        return [Statement(ADD_ORGANISATION, caller.org, at), Statement(ADD_PEOPLE, caller.org, rows)]

    async def owners(self, caller: Caller) -> list[str]:
        """The owners of the caller's organisation."""
        return [row["user_id"] for row in await self._sql.acting_for(caller).query(OWNERS)]

    async def members(self, caller: Caller, *, after: str, limit: int) -> list[str]:
        """The users of the caller's organisation, a page at a time."""
        return [row["user_id"] for row in await self._sql.acting_for(caller).query(MEMBERS, after, limit)]

    async def leave(self, caller: Caller, *, at: datetime) -> None:
        """Note that the user whom the caller acts for is no member any more."""
        await self._sql.acting_for(caller).execute(LEAVE, caller.user, at)


class Digests:
    """Which digests were sent."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def missing(self, day: date, *, since: datetime, after: str, limit: int) -> list[str]:
        """Organisations, of those that were there at a time, whose digest of a day has not run."""
        return [row["org_id"] for row in await self._sql.query(WITHOUT_DIGEST, day.isoformat(), since, after, limit)]

    async def runs(self, caller: Caller, users: Sequence[str], day: date) -> dict[str, int]:
        """How many digests of a day users got; absent: none."""
        rows = await self._sql.acting_for(caller).query(RUNS, day.isoformat(), list(users))
        return {row["user_id"]: row["run"] for row in rows}

    async def unread(self, caller: Caller, users: Sequence[str]) -> dict[str, dict[str, int]]:
        """Unread notices by user and kind."""
        found: dict[str, dict[str, int]] = {}
        for row in await self._sql.acting_for(caller).query(UNREAD, list(users)):
            found.setdefault(row["user_id"], {})[row["kind"]] = row["number"]
        return found

    def run(self, caller: Caller, runs: Mapping[str, int], day: date) -> Statement:
        """Return what notes the digests of a day; it aborts when somebody else sent one of them meanwhile."""
        rows = [{"user_id": user, "run": run} for user, run in runs.items()]
        return Statement(RUN, caller.org, rows, day.isoformat(), expect_rows=len(rows))

    async def finish(self, caller: Caller, day: date) -> None:
        """Note that an organisation's digest of a day has run."""
        await self._sql.acting_for(caller).execute(DIGESTED, day.isoformat())

    async def clean(self, *, before: date) -> int:
        """Forget the digests of all organisations before a day."""
        return (await self._sql.execute(CLEAN, before.isoformat())).affected
