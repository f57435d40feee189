"""Organisations, members, invitations and log-ins: rows of one organisation, found by system before it is known."""

# ruff: noqa: S608 -- what is put into the texts are column lists of ours; values are parameters
from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from isa_common import Row, Sql, Statement
from kernel import Caller
from kernel.work import Work
from services.users.domain.people import Invitation, Member, Org, Role, email_key

MEMBER = "user_id, org_id, name, email, role, version, created_at, suspended_at"
INVITATION = "id, org_id, email, role, invited_by, created_at, expires_at"


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a password is compared with."""

    user_id: str
    org_id: str
    email_key: str
    password_hash: str


def _member(row: Row) -> Member:
    return Member(
        id=row["user_id"],
        org_id=row["org_id"],
        name=row["name"],
        email=row["email"],
        role=Role(row["role"]),
        version=row["version"],
        created_at=row["created_at"],
        suspended_at=row["suspended_at"],
    )


def _invitation(row: Row) -> Invitation:
    return Invitation(
        id=row["id"],
        org_id=row["org_id"],
        email=row["email"],
        role=Role(row["role"]),
        invited_by=row["invited_by"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
    )


class People:
    """Who belongs to which organisation."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql

    async def org(self, caller: Caller) -> Org | None:
        """Return the caller's organisation."""
        rows = await self._sql.acting_for(caller).query(
            "SELECT name, version, created_at FROM orgs WHERE org_id = $1", caller.org
        )
        return next(
            (Org(id=caller.org, name=r["name"], version=r["version"], created_at=r["created_at"]) for r in rows),
            None,
        )

    async def member(self, caller: Caller, user_id: str) -> Member | None:
        """Return a member of the caller's organisation."""
        rows = await self._sql.acting_for(caller).query(f"SELECT {MEMBER} FROM members WHERE user_id = $1", user_id)
        return next(map(_member, rows), None)

    async def members(self, caller: Caller, *, after: str, limit: int) -> list[Member]:
        """Return members in the order of their ids, from after one."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {MEMBER} FROM members WHERE org_id = $1 AND user_id > $2 ORDER BY user_id LIMIT $3",
            caller.org,
            after,
            limit,
        )
        return list(map(_member, rows))

    async def owners(self, caller: Caller) -> int:
        """Return how many owners there are."""
        rows = await self._sql.acting_for(caller).query("SELECT count(*) AS owners FROM members WHERE role = 'owner'")
        return int(rows[0]["owners"])

    def add_org(self, work: Work, org: Org) -> None:
        """Add an organisation."""
        work.add(
            "INSERT INTO orgs (org_id, name, version, created_at) VALUES ($1, $2, $3, $4)",
            org.id,
            org.name,
            org.version,
            org.created_at,
        )

    def count_change(self, work: Work, org: Org) -> None:
        """Move the organisation to its next version; whoever counted from the same one loses."""
        work.add(
            "UPDATE orgs SET version = version + 1 WHERE org_id = $1 AND version = $2",
            org.id,
            org.version,
            expect_rows=1,
        )

    def add_member(self, work: Work, member: Member, password_hash: str) -> None:
        """Add a member with a log-in."""
        work.add(
            f"INSERT INTO members ({MEMBER}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            member.id,
            member.org_id,
            member.name,
            member.email,
            member.role.value,
            member.version,
            member.created_at,
            member.suspended_at,
        )
        work.add(
            "INSERT INTO logins (user_id, org_id, email_key, password_hash, changed_at) VALUES ($1, $2, $3, $4, $5)",
            member.id,
            member.org_id,
            email_key(member.email),
            password_hash,
            member.created_at,
        )

    def save(self, work: Work, member: Member) -> None:
        """Write a member's next version."""
        work.add(
            "UPDATE members SET role = $2, suspended_at = $3, version = $4 WHERE user_id = $1 AND version = $4 - 1",
            member.id,
            member.role.value,
            member.suspended_at,
            member.version,
            expect_rows=1,
        )

    def save_name(self, work: Work, user_id: str, name: str) -> None:
        """Write what a member is called."""
        work.add("UPDATE members SET name = $2 WHERE user_id = $1", user_id, name, expect_rows=1)

    def remove(self, work: Work, member: Member) -> None:
        """Delete a member, and by the foreign keys the log-in, sessions and credentials."""
        work.add(
            "DELETE FROM members WHERE user_id = $1 AND version = $2",
            member.id,
            member.version - 1,
            expect_rows=1,
        )

    async def login(self, email: str) -> Login | None:
        """Return the log-in of an e-mail address, whatever its organisation."""
        rows = await self._sql.query(
            "SELECT user_id, org_id, email_key, password_hash FROM logins WHERE email_key = $1",
            email_key(email),
        )
        return next((Login(**dict(row)) for row in rows), None)

    async def login_of(self, caller: Caller) -> Login | None:
        """Return the log-in of the caller."""
        rows = await self._sql.acting_for(caller).query(
            "SELECT user_id, org_id, email_key, password_hash FROM logins WHERE user_id = $1", caller.user
        )
        return next((Login(**dict(row)) for row in rows), None)

    def hold_password(self, work: Work, login: Login) -> None:
        """Let the transaction fail when the password was changed since it was compared."""
        work.add(
            "SELECT user_id FROM logins WHERE user_id = $1 AND password_hash = $2 FOR SHARE",
            login.user_id,
            login.password_hash,
            expect_rows=1,
        )

    def save_password(self, work: Work, login: Login, password_hash: str, *, at: datetime) -> None:
        """Write a password over the one that was compared."""
        work.add(
            "UPDATE logins SET password_hash = $3, changed_at = $4 WHERE user_id = $1 AND password_hash = $2",
            login.user_id,
            login.password_hash,
            password_hash,
            at,
            expect_rows=1,
        )

    def add_invitation(self, work: Work, invitation: Invitation, token_hash: str) -> None:
        """Add an invitation in the place of one to the same address that has expired."""
        key = email_key(invitation.email)
        work.add(
            "DELETE FROM invitations WHERE org_id = $1 AND email_key = $2 AND expires_at <= $3",
            invitation.org_id,
            key,
            invitation.created_at,
        )
        work.add(
            f"INSERT INTO invitations ({INVITATION}, email_key, token_hash)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            invitation.id,
            invitation.org_id,
            invitation.email,
            invitation.role.value,
            invitation.invited_by,
            invitation.created_at,
            invitation.expires_at,
            key,
            token_hash,
        )

    async def invitations(self, caller: Caller, *, at: datetime) -> list[Invitation]:
        """Return the invitations that are open."""
        rows = await self._sql.acting_for(caller).query(
            f"SELECT {INVITATION} FROM invitations WHERE expires_at > $1 ORDER BY created_at, id LIMIT 1000",
            at,
        )
        return list(map(_invitation, rows))

    async def invitation(self, token_hash: str) -> Invitation | None:
        """Return the invitation that a token opens, whatever its organisation."""
        rows = await self._sql.query(f"SELECT {INVITATION} FROM invitations WHERE token_hash = $1", token_hash)
        return next(map(_invitation, rows), None)

    def end_invitation(self, work: Work, invitation_id: str) -> None:
        """Delete an invitation, which can be done once."""
        work.add("DELETE FROM invitations WHERE id = $1", invitation_id, expect_rows=1)

    def add_reset(self, work: Work, login: Login, token_hash: str, *, expires_at: datetime) -> None:
        """Add a token that resets a password; the one before it is no longer good."""
        work.add("DELETE FROM password_resets WHERE user_id = $1", login.user_id)
        work.add(
            "INSERT INTO password_resets (token_hash, org_id, user_id, expires_at) VALUES ($1, $2, $3, $4)",
            token_hash,
            login.org_id,
            login.user_id,
            expires_at,
        )

    async def reset(self, token_hash: str, *, at: datetime) -> Login | None:
        """Return whose password a token resets, whatever the organisation."""
        rows = await self._sql.query(
            "SELECT l.user_id, l.org_id, l.email_key, l.password_hash"
            " FROM password_resets r JOIN logins l USING (user_id) WHERE r.token_hash = $1 AND r.expires_at > $2",
            token_hash,
            at,
        )
        return next((Login(**dict(row)) for row in rows), None)

    def end_reset(self, work: Work, token_hash: str) -> None:
        """Delete a reset token, which can be done once."""
        work.add("DELETE FROM password_resets WHERE token_hash = $1", token_hash, expect_rows=1)

    def expired(self, *, at: datetime) -> list[Statement]:
        """Return what deletes the tokens that nobody used in time."""
        return [
            Statement("DELETE FROM invitations WHERE expires_at <= $1", at),
            Statement("DELETE FROM password_resets WHERE expires_at <= $1", at),
        ]
