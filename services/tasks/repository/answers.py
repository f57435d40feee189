"""Answers that were given under an `Idempotency-Key`, committed with the effect that they tell of."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from isa_common import FailedPrecondition, Sql
from kernel import Caller, Work

KEEP = timedelta(hours=24)
"""How long a repeated request is answered from here."""
INSERT = "INSERT INTO answers (user_id, key, fingerprint, status, headers, body) VALUES ($1, $2, $3, $4, $5, $6)"
FIND = "SELECT fingerprint, status, headers, body FROM answers WHERE user_id = $1 AND key = $2"
CLEAN = """
DELETE FROM answers WHERE (org_id, user_id, key) IN (
    SELECT org_id, user_id, key FROM answers WHERE created_at < $1::timestamptz LIMIT 5000
)
"""


class KeyReused(FailedPrecondition):
    """An Idempotency-Key stands for one request."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """A key of the caller's own, and the fingerprint of the request that it stands for."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a caller was told."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Answers:
    """The kept answers of the caller. `sql` is the room's system login."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def find(self, caller: Caller, stamp: Stamp) -> Answer | None:
        """Return the answer to an earlier, equal request; KeyReused when the key stood for another one."""
        rows = await self._sql.acting_for(caller).query(FIND, caller.user, stamp.key)
        if not rows:
            return None
        row = rows[0]
        if row["fingerprint"] != stamp.fingerprint:
            raise KeyReused(
                "This Idempotency-Key was used for another request; send a new key, or the very same request.",
                field="Idempotency-Key",
            )
        headers = row["headers"] if isinstance(row["headers"], dict) else json.loads(row["headers"])
        return Answer(status=row["status"], headers=headers, body=zlib.decompress(row["body"]))

    def keep(self, work: Work, stamp: Stamp | None, answer: Answer) -> None:
        """Queue an answer, before its effect: AlreadyExists at the end when the key is taken, and nothing happened."""
        if stamp is not None:
            body = zlib.compress(answer.body, level=1)
            work.add(INSERT, work.caller.user, stamp.key, stamp.fingerprint, answer.status, answer.headers, body)

    async def clean(self, now: datetime) -> int:
        """Delete the old ones of all organisations; return how many."""
        deleted = 0
        while (done := (await self._sql.execute(CLEAN, now - KEEP)).affected) > 0:
            deleted += done
        return deleted
