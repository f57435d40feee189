"""Sessions, refresh tokens, credentials and throttles."""

# ruff: noqa: S608 -- what is put into the texts are column lists of ours; values are parameters
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from isa_common import Row, Sql, Statement
from kernel import Caller
from kernel.work import Work
from services.users.domain.access import Credential, Limit, Session

SESSION = "id, org_id, user_id, scopes, device, version, created_at, used_at, expires_at, revoked_at"
CREDENTIAL = "id, org_id, user_id, name, scopes, version, created_at, used_at, revoked_at"
COUNT_ATTEMPTS = """
INSERT INTO throttles AS t (subject, attempts, ends_at)
SELECT x.subject, 1, x.ends_at FROM jsonb_to_recordset($1::jsonb) AS x (subject text, ends_at timestamptz)
ORDER BY x.subject
ON CONFLICT (subject) DO UPDATE SET
    attempts = CASE WHEN t.ends_at <= $2 THEN 1 ELSE t.attempts + 1 END,
    ends_at = CASE WHEN t.ends_at <= $2 THEN excluded.ends_at ELSE t.ends_at END
RETURNING subject, attempts, ends_at
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """A refresh token that was shown: its session, and whether it was used before."""

    session: Session
    was_used: bool


def _session(row: Row) -> Session:
    return Session(
        id=row["id"],
        org_id=row["org_id"],
        user_id=row["user_id"],
        scopes=tuple(row["scopes"]),
        device=row["device"],
        version=row["version"],
        created_at=row["created_at"],
        used_at=row["used_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
    )


def _credential(row: Row) -> Credential:
    return Credential(
        id=row["id"],
        org_id=row["org_id"],
        user_id=row["user_id"],
        name=row["name"],
        scopes=tuple(row["scopes"]),
        version=row["version"],
        created_at=row["created_at"],
        used_at=row["used_at"],
        revoked_at=row["revoked_at"],
    )


class Proofs:
    """What proves who somebody is: sessions with their refresh tokens, and credentials."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    def add_session(self, work: Work, session: Session, token_hash: str) -> None:
        """Add a session with its first refresh token."""
        work.add(
            f"INSERT INTO sessions ({SESSION}) VALUES ($1, $2, $3, $4::text[], $5, $6, $7, $8, $9, $10)",
            session.id,
            session.org_id,
            session.user_id,
            list(session.scopes),
            session.device,
            session.version,
            session.created_at,
            session.used_at,
            session.expires_at,
            session.revoked_at,
        )
        self._add_refresh_token(work, session, token_hash)

    def _add_refresh_token(self, work: Work, session: Session, token_hash: str) -> None:
        work.add(
            "INSERT INTO refresh_tokens (token_hash, org_id, session_id) VALUES ($1, $2, $3)",
            token_hash,
            session.org_id,
            session.id,
        )

    async def presented(self, token_hash: str) -> Presented | None:
        """Return the session of a refresh token, whatever its organisation."""
        columns = ", ".join(f"s.{name}" for name in SESSION.split(", "))
        rows = await self._sql.query(
            f"SELECT {columns}, r.used_at IS NOT NULL AS was_used"
            " FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id WHERE r.token_hash = $1",
            token_hash,
        )
        return next((Presented(session=_session(row), was_used=row["was_used"]) for row in rows), None)

    def rotate(self, work: Work, session: Session, *, used: str, new: str) -> None:
        """Take one refresh token for another; only one of two that do so at once succeeds."""
        work.add(
            "UPDATE refresh_tokens SET used_at = $2 WHERE token_hash = $1 AND used_at IS NULL",
            used,
            session.used_at,
            expect_rows=1,
        )
        self.save_session(work, session)
        self._add_refresh_token(work, session, new)

    def save_session(self, work: Work, session: Session) -> None:
        """Write the next version of a session."""
        work.add(
            "UPDATE sessions SET version = $2, used_at = $3, revoked_at = $4 WHERE id = $1 AND version = $2 - 1",
            session.id,
            session.version,
            session.used_at,
            session.revoked_at,
            expect_rows=1,
        )

    async def session(self, caller: Caller, session_id: str) -> Session | None:
        """Return a session of the caller."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {SESSION} FROM sessions WHERE id = $1 AND user_id = $2", session_id, caller.user
        )
        return next(map(_session, rows), None)

    async def sessions(self, caller: Caller, *, at: datetime, limit: int = 1000) -> list[Session]:
        """Return the caller's sessions that are not over, the last used first."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {SESSION} FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $2"
            " ORDER BY used_at DESC, id LIMIT $3",
            caller.user,
            at,
            limit,
        )
        return list(map(_session, rows))

    def add_credential(self, work: Work, credential: Credential, secret_hash: str) -> None:
        """Add a credential."""
        work.add(
            f"INSERT INTO credentials ({CREDENTIAL}, secret_hash)"
            " VALUES ($1, $2, $3, $4, $5::text[], $6, $7, $8, $9, $10)",
            credential.id,
            credential.org_id,
            credential.user_id,
            credential.name,
            list(credential.scopes),
            credential.version,
            credential.created_at,
            credential.used_at,
            credential.revoked_at,
            secret_hash,
        )

    async def credential_and_hash(self, credential_id: str) -> tuple[Credential, str] | None:
        """Return a credential and what is kept of its secret, whatever its organisation."""
        rows = await self._sql.query(f"SELECT {CREDENTIAL}, secret_hash FROM credentials WHERE id = $1", credential_id)
        return next(((_credential(row), row["secret_hash"]) for row in rows), None)

    async def credential(self, caller: Caller, credential_id: str) -> Credential | None:
        """Return a credential of the caller's organisation."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {CREDENTIAL} FROM credentials WHERE id = $1", credential_id
        )
        return next(map(_credential, rows), None)

    async def credentials(self, caller: Caller) -> list[Credential]:
        """Return the organisation's credentials that are not revoked, in the order they were made."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {CREDENTIAL} FROM credentials WHERE org_id = $1 AND revoked_at IS NULL"
            " ORDER BY created_at, id LIMIT 1000",
            caller.org,
        )
        return list(map(_credential, rows))

    def save_credential(self, work: Work, credential: Credential) -> None:
        """Write the next version of a credential."""
        work.add(
            "UPDATE credentials SET version = $2, used_at = $3, revoked_at = $4 WHERE id = $1 AND version = $2 - 1",
            credential.id,
            credential.version,
            credential.used_at,
            credential.revoked_at,
            expect_rows=1,
        )

    def expired(self, *, at: datetime, kept: timedelta) -> list[Statement]:
        """Return what deletes sessions that have been over for a while, with their refresh tokens."""
        return [Statement("DELETE FROM sessions WHERE expires_at <= $1 OR revoked_at <= $1", at - kept)]


class Throttles:
    """How often a subject tried. Subjects are keyed hashes: who tried is not kept."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def check(self, limits: Mapping[str, Limit], *, at: datetime) -> set[str]:
        """Refuse when a subject has had its share; return the subjects that are known to have tried."""
        rows = await self._sql.query(
            "SELECT subject, attempts, ends_at FROM throttles WHERE subject = ANY ($1::text[]) AND ends_at > $2",
            list(limits),
            at,
        )
        for row in rows:
            limits[row["subject"]].check(row["attempts"] + 1, row["ends_at"], at=at)
        return {row["subject"] for row in rows}

    async def count(self, limits: Mapping[str, Limit], *, at: datetime, refuse: bool) -> None:
        """Count an attempt of every subject; when asked to, refuse the one that is too many."""
        subjects = [
            {"subject": subject, "ends_at": (at + limit.window).isoformat()} for subject, limit in limits.items()
        ]
        result = await self._sql.execute(COUNT_ATTEMPTS, subjects, at)
        for row in result.rows if refuse else ():
            limits[row["subject"]].check(row["attempts"], row["ends_at"], at=at)

    async def forget(self, subject: str) -> None:
        """Forget the attempts of a subject."""
        await self._sql.execute("DELETE FROM throttles WHERE subject = $1", subject)

    def expired(self, *, at: datetime) -> list[Statement]:
        """Return what deletes the counts whose time is over."""
        return [Statement("DELETE FROM throttles WHERE ends_at <= $1", at)]
