"""The desk behind the doors: proves passwords off the loop, counts attempts, signs tokens, retries lost races."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import TypeVar

from fastapi import Request

from isa.events import ControlChanged
from isa_common import (
    Aborted,
    AlreadyExists,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from kernel import Caller, Parts, log
from kernel.caller import grants, policy
from kernel.work import Work
from services.users.domain.access import Credential, Limit, Session, TooManyAttempts, WrongPassword, narrow
from services.users.domain.keys import Issuer, Passwords, blind
from services.users.domain.people import Member, Role, email_key
from services.users.repository.access import Proofs, Throttles
from services.users.repository.keys import Keyring
from services.users.repository.mail import Mail
from services.users.repository.people import Login, People
from services.users.repository.preferences import Preferences

T = TypeVar("T")
Network = IPv4Network | IPv6Network
REFUSED = (Unauthenticated, PermissionDenied, NotFound, AlreadyExists, InvalidArgument)
"""What an attempt that was wrong ends with."""
SKEW = timedelta(minutes=1)
"""How much clocks may differ, and to spare."""
INVITATIONS = Limit(attempts=1000, window=timedelta(hours=1))
PAGE = 500
"""Sessions that are revoked in one transaction."""
RACES = 12
"""How often a change is tried again after it lost a race."""


def is_within(networks: frozenset[Network], peer: str) -> bool:
    """Tell whether a peer is in one of the networks; what is no address is in none."""
    try:
        address = ip_address(peer)
    except ValueError:
        return False
    return any(address in network for network in networks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How often somebody may try."""

    account: Limit
    address: Limit


@dataclass(frozen=True, slots=True)
class Attempt:
    """Somebody who tries, by address and by account."""

    throttles: Throttles
    limits: dict[str, Limit]
    clock: Callable[[], datetime]

    async def check(self) -> set[str]:
        """Refuse when there is no attempt left; return those of the two that failed before."""
        return await self.throttles.check(self.limits, at=self.clock())


@dataclass(slots=True, kw_only=True)
class Desk:
    """What the routes share."""

    parts: Parts
    people: People
    proofs: Proofs
    throttles: Throttles
    keyring: Keyring
    preferences: Preferences
    mail: Mail
    issuer: Issuer
    passwords: Passwords
    limits: Limits
    note_attempt: Callable[[str, str], None]
    """Counts attempts to prove who one is, by kind and outcome."""
    master: Callable[[], Awaitable[bytes]]
    trusted_proxies: frozenset[Network]
    session_life: timedelta
    hashes_at_once: int
    hashes_waiting: int
    reset_url: str
    invitation_url: str
    _hashing: asyncio.Semaphore = field(init=False)
    _waiting: int = field(init=False, default=0)
    _tasks: set[asyncio.Task[None]] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        self._hashing = asyncio.Semaphore(self.hashes_at_once)

    async def prepare(self) -> None:
        """Read or make the signing key; a database that is not there yet is waited for at the first token instead."""
        try:
            await self.keyring.signer()
        except Unavailable:
            log.warning("users.keys.later", reason="the database is not reached yet")

    async def finish(self) -> None:
        """Wait for what was begun in the background."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def in_background(self, work: Awaitable[None]) -> None:
        """Do something after the answer, so that its time tells nothing."""

        async def run() -> None:
            try:
                await work
            except Exception:
                log.exception("users.background_failed")

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hashed(
        self, before: Callable[[], Awaitable[object]] | None, function: Callable[..., T], *arguments: object
    ) -> T:
        if self._waiting >= self.hashes_waiting:
            raise ResourceExhausted(
                "Too many log-ins at once. Try again in a moment.", retry_after=timedelta(seconds=2)
            )
        self._waiting += 1
        try:
            async with self._hashing:
                if before:
                    await before()
                return await asyncio.to_thread(function, *arguments)
        finally:
            self._waiting -= 1

    async def sent(self, *, to: str, subject: str, text: str) -> str:
        """Send a letter; return how. A failure is `nowhere`: what it tells of has happened all the same."""
        try:
            return await self.mail.send(to=to, subject=subject, text=text)
        except IsaError as error:
            log.warning("users.mail.failed", reason=error.message)
            return "nowhere"

    async def hash(self, password: str) -> str:
        """Return what is kept of a password."""
        return await self._hashed(None, self.passwords.hash, password)

    async def is_right(self, login: Login | None, password: str, attempt: Attempt) -> bool:
        """Compare a password; an unknown log-in costs the same.

        Whether there is an attempt left is asked again when it is its turn, so that many at once are not more guesses.
        """
        kept = login.password_hash if login else None
        return await self._hashed(attempt.check, self.passwords.verify, kept, password)

    def address(self, request: Request) -> str:
        """Return the address of who calls: the peer, or what a trusted proxy says in X-Forwarded-For."""
        peer = request.client.host if request.client else "unknown"
        hops = [hop.strip() for hop in request.headers.get("x-forwarded-for", "").split(",") if hop.strip()]
        while hops and is_within(self.trusted_proxies, peer):
            peer = hops.pop()
        return peer

    @asynccontextmanager
    async def attempt(self, request: Request, *, account: str = "", kind: str = "login") -> AsyncIterator[Attempt]:
        """Let somebody try who has not failed too often; count it when it fails, and forget when it does not."""
        master = await self.master()
        limits = {f"{kind}:by:{blind(master, self.address(request))}": self.limits.address}
        for_account = f"{kind}:as:{blind(master, email_key(account))}"
        if account:
            limits[for_account] = self.limits.account
        attempt = Attempt(self.throttles, limits, self.parts.clock)
        try:
            tried = await attempt.check()
            yield attempt
        except TooManyAttempts:
            self.note_attempt(kind, "throttled")
            raise
        except REFUSED:  # and nothing else: our failure is nobody's attempt
            self.note_attempt(kind, "refused")
            await self.throttles.count(limits, at=self.parts.clock(), refuse=False)
            raise
        self.note_attempt(kind, "succeeded")
        if for_account in tried:
            await self.throttles.forget(for_account)

    async def count(self, request: Request, *, account: str, kind: str, limit: Limit) -> None:
        """Count what is never forgotten before its time, and refuse what is too much."""
        master = await self.master()
        subjects = {
            f"{kind}:by:{blind(master, self.address(request))}": self.limits.address,
            f"{kind}:as:{blind(master, email_key(account))}": limit,
        }
        await self.throttles.count(subjects, at=self.parts.clock(), refuse=True)

    async def count_invitation(self, caller: Caller) -> None:
        """Count an invitation of an organisation: they are letters to strangers."""
        await self.throttles.count({f"invite:{caller.org}": INVITATIONS}, at=self.parts.clock(), refuse=True)

    async def forgive(self, account: str) -> None:
        """Forget the failed log-ins of an account, whose owner has proved to be there."""
        await self.throttles.forget(f"login:as:{blind(await self.master(), email_key(account))}")

    def as_user(self, org: str, user: str) -> Caller:
        """Return the caller that a proof makes: the work that follows is done for them."""
        return Caller(org=org, user=user, workload=self.parts.name)

    def acting(self, caller: Caller) -> Caller:
        """Refuse a workload that does not say which organisation it acts for."""
        if not caller.org:
            raise InvalidArgument("Say which organisation you act for, in the header isa-org.", field="isa-org")
        return caller

    def person(self, caller: Caller) -> Caller:
        """Refuse a program where a person must be: its credential must not make other proofs."""
        if not caller.session.startswith("session-"):
            raise PermissionDenied("This is for a person who logged in, not for a program.")
        return caller

    async def raced(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do a change that reads, decides and writes by version; again when somebody else was faster."""
        for attempt in range(RACES):
            try:
                return await change()
            except Aborted:
                if attempt == RACES - 1:
                    raise
                await asyncio.sleep(random.uniform(0, 0.01 * 2 ** min(attempt, 5)))
        raise AssertionError("unreachable")

    async def access_token(self, member: Member, *, proof: str, scopes: Sequence[str], at: datetime) -> str:
        """Sign a token. `at` is when the rights were read: a change after it refuses the token."""
        key, private = await self.keyring.signer()
        return self.issuer.person(
            key,
            private,
            user=member.id,
            org=member.org_id,
            role=member.role.value,
            scopes=scopes,
            proof=proof,
            at=at,
        )

    def permissions(self, role: Role) -> list[str]:
        """Return what a role gives."""
        return policy()["roles"][role.value]

    def narrowed(self, wanted: Sequence[str], *, held: Sequence[str]) -> tuple[str, ...]:
        """Return wanted scopes that are within what is held; none wanted means no narrowing."""
        return narrow(wanted, held, grants=grants)

    def new_session(self, member: Member, *, device: str, scopes: Sequence[str] = (), at: datetime) -> Session:
        """Return a session that begins now."""
        return Session(
            id=self.parts.new_id("session"),
            org_id=member.org_id,
            user_id=member.id,
            scopes=tuple(scopes),
            device=device,
            version=1,
            created_at=at,
            used_at=at,
            expires_at=at + self.session_life,
        )

    def end_session(self, work: Work, session: Session, *, at: datetime) -> None:
        """Revoke a session here, and its access tokens everywhere."""
        ended = session.revoked(at=at)
        self.proofs.save_session(work, ended)
        work.emit(
            ControlChanged(aggregate_id=ended.id, aggregate_version=ended.version, kind="session", state="revoked")
        )

    def end_credential(self, work: Work, credential: Credential, *, at: datetime) -> None:
        """Revoke a credential here, and its access tokens everywhere."""
        ended = credential.revoked(at=at)
        self.proofs.save_credential(work, ended)
        work.emit(
            ControlChanged(aggregate_id=ended.id, aggregate_version=ended.version, kind="credential", state="revoked")
        )

    async def end_sessions(
        self, caller: Caller, *, but: str = "", after: Callable[[Work], Awaitable[None]] | None = None
    ) -> None:
        """Revoke all sessions of a user but one, and what comes before in the same transaction as the first of them.

        Only those that can have a live access token are told to the other rooms: the last used are revoked first.
        """
        first: list[Callable[[Work], Awaitable[None]]] = [after] if after else []

        async def end() -> int:
            at = self.parts.clock()
            found = [each for each in await self.proofs.sessions(caller, at=at, limit=PAGE) if each.id != but]
            async with self.parts.work(caller) as work:
                for step in first:
                    await step(work)
                for session in found:
                    if session.may_have_a_live_token(self.issuer.life + SKEW, at=at):
                        self.end_session(work, session, at=at)
                    else:
                        self.proofs.save_session(work, session.revoked(at=at))
            return len(found)

        while await self.raced(end):
            first.clear()

    async def member(self, caller: Caller) -> Member:
        """Return the member that a proof belongs to; one who was removed has none."""
        member = await self.people.member(caller, caller.user)
        if member is None:
            raise WrongPassword("The e-mail address or the password is wrong.")
        return member
