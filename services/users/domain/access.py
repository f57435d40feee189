"""Sessions, refresh tokens, client credentials, and how often somebody may try."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from isa_common import InvalidArgument, NotFound, ResourceExhausted, Unauthenticated

TOKEN_BYTES = 32
DEVICE_LENGTH = 120


class WrongPassword(Unauthenticated):
    """One sentence for an unknown e-mail, a wrong password and a removed user."""


class WrongClient(Unauthenticated):
    """One sentence for an unknown client, a wrong secret and a revoked credential."""


class SessionEnded(Unauthenticated):
    """A refresh token that was used before, has expired, was revoked, or never was."""


class TooManyAttempts(ResourceExhausted):
    """Somebody guesses, or forgot. `retry_after` says when to come back."""


class NoSuchSession(NotFound):
    """Not a session of this user."""


class NoSuchCredential(NotFound):
    """Not a credential of this organisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A person who logged in somewhere. Its version counts its tokens and its end."""

    id: str
    org_id: str
    user_id: str
    scopes: tuple[str, ...]
    device: str
    version: int
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    revoked_at: datetime | None = None

    def refreshed(self, *, at: datetime) -> Session:
        """Return the session after one more token, or refuse when it is over."""
        if self.revoked_at is not None or at >= self.expires_at:
            raise SessionEnded("This session is over. Log in again.")
        return replace(self, version=self.version + 1, used_at=at)

    def revoked(self, *, at: datetime) -> Session:
        """Return the ended session; ending it twice changes nothing."""
        return self if self.revoked_at else replace(self, version=self.version + 1, revoked_at=at)

    def may_have_a_live_token(self, life: timedelta, *, at: datetime) -> bool:
        """Tell whether an access token of it can still be good somewhere."""
        return self.revoked_at is None and self.used_at + life > at


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a program logs in with. It acts as the user who made it, within its scopes."""

    id: str
    org_id: str
    user_id: str
    name: str
    scopes: tuple[str, ...]
    version: int
    created_at: datetime
    used_at: datetime | None = None
    revoked_at: datetime | None = None

    def used(self, *, at: datetime) -> Credential:
        """Return the credential after one more token, or refuse when it is revoked."""
        if self.revoked_at is not None:
            raise WrongClient("The client id or its secret is wrong.")
        return replace(self, version=self.version + 1, used_at=at)

    def revoked(self, *, at: datetime) -> Credential:
        """Return the ended credential; ending it twice changes nothing."""
        return self if self.revoked_at else replace(self, version=self.version + 1, revoked_at=at)


def new_token(kind: str) -> str:
    """Return an opaque secret of 256 bits whose beginning tells scanners what it is: `isa_<kind>_...`."""
    return f"isa_{kind}_{secrets.token_urlsafe(TOKEN_BYTES)}"


def digest(token: str) -> str:
    """Return what is kept of an opaque secret. It has 256 random bits, so a plain hash is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def matches(token: str, kept: str) -> bool:
    """Compare a secret with what is kept of it, in constant time."""
    return hmac.compare_digest(digest(token), kept)


def clean_device(text: str | None) -> str:
    """Return what a person recognises a session by: the beginning of the user agent."""
    return "".join(each for each in text or "" if each.isprintable())[:DEVICE_LENGTH]


def narrow(
    wanted: Iterable[str],
    held: Iterable[str],
    *,
    grants: Callable[[str, str], bool],
    levels: Iterable[str] = ("read", "write", "admin"),
) -> tuple[str, ...]:
    """Return the wanted scopes in order, or refuse one that is malformed or that nothing held covers."""
    known, scopes = tuple(held), tuple(sorted(set(wanted)))
    for scope in scopes:
        capability, dot, level = scope.partition(".")
        if not dot or not capability.isalpha() or level not in levels:
            raise InvalidArgument(f"{scope!r:.80} is not a scope: write it like tasks.read.", field="scopes")
        if not any(grants(scope, each) for each in known):
            raise InvalidArgument(f"{scope} is more than you have yourself.", field="scopes", scope=scope)
    return scopes


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How many attempts a subject has within a time."""

    attempts: int
    window: timedelta

    def check(self, attempts: int, ends_at: datetime, *, at: datetime) -> None:
        """Refuse the attempt that is one too many; the one that is refused was counted before it was tried."""
        if attempts > self.attempts:
            wait = max(ends_at - at, timedelta(seconds=1))
            raise TooManyAttempts(
                f"Too many attempts. Wait {int(wait.total_seconds())} seconds, or reset the password.",
                retry_after=wait,
            )
