"""Tokens become callers here: signature, lifetime, revocation, and whom a workload acts for."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import jwt

from isa_common import InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from kernel import telemetry
from kernel.caller import Caller, org_id, user_id

ALGORITHMS = ["EdDSA", "RS256"]
WORKLOAD_KEY = "workload"
LEEWAY = 30
"""Seconds that two clocks may differ."""
CACHED_TOKENS = 10_000
KEYS_AT_MOST_EVERY = 5.0
KEYS_FRESH = 30.0
"""Seconds after which the keys are read again: a key that was withdrawn, and all it signed, is refused from then on."""
KEYS_AGAIN_AFTER = 1.0
"""Seconds before another attempt, when the keys could not be read."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `control.changed` last said of a subject."""

    state: str
    not_before: datetime | None


class Revocations:
    """Which organisations, users, sessions and credentials are no longer good. Every replica reads the whole topic."""

    def __init__(self) -> None:
        self._verdicts: dict[str, tuple[int, Verdict]] = {}
        self.changed: Callable[[], None] = lambda: None
        """Called after each verdict."""

    def note(self, subject: str, version: int, state: str, not_before: datetime | None) -> None:
        """Take what is newer than what is known."""
        known = self._verdicts.get(subject)
        if known is None or known[0] <= version:
            self._verdicts[subject] = (version, Verdict(state, not_before))
            self.changed()

    def check(self, subject: str, issued: float) -> None:
        """Refuse a token of a subject that is not active, or that was issued before it changed."""
        known = self._verdicts.get(subject)
        if known is None:
            return
        verdict = known[1]
        if verdict.state == "suspended":
            raise PermissionDenied("This account is suspended. Its organisation's owner can lift that.")
        if verdict.state in ("revoked", "deleted"):
            raise Unauthenticated("This token was revoked. Log in again.")
        if verdict.not_before and issued < verdict.not_before.timestamp():
            raise Unauthenticated("This token is older than a change of its rights. Refresh it.")


@dataclass(frozen=True, slots=True)
class Verified:
    """A token whose signature was checked once."""

    caller: Caller
    expires: float
    kid: str


class Identity:
    """Turns the metadata of a call into its caller.

    `people_keys` fetches the public keys of people's tokens (a JWKS); `workload_key` is the public key of our own
    programs' tokens, a PEM from the secret store.
    """

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        workload_key: str,
        people_keys: Callable[[], Awaitable[dict[str, object]]],
        revocations: Revocations,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._workload_key = workload_key
        self._fetch = people_keys
        self._revocations = revocations
        self._keys: dict[str, object] = {}
        self._fetch_from = float("-inf")
        self._stale_from = float("inf")
        self._is_keyless = False
        self._renewal: asyncio.Task[None] | None = None
        self._fetching = asyncio.Lock()
        self._verified: OrderedDict[bytes, Verified] = OrderedDict()

    async def caller(self, metadata: Mapping[str, str]) -> Caller:
        """Return who calls; Unauthenticated or PermissionDenied when that is not certain."""
        known = await self._verify(metadata.get("authorization", ""))
        if known.expires + LEEWAY < time.time():
            raise Unauthenticated("This token has expired. Refresh it, or log in again.")
        caller = known.caller
        self.recheck(caller)
        if "isa-org" in metadata or "isa-user" in metadata:
            return _acting(caller, metadata.get("isa-org", ""), metadata.get("isa-user", ""))
        return caller

    def recheck(self, caller: Caller) -> None:
        """Refuse a caller whose token was good, and is not any more."""
        if not caller.workload:
            for subject in (caller.org, caller.user, caller.session):
                self._revocations.check(subject, caller.issued)

    async def _verify(self, header: str) -> Verified:
        """Return what a token says; its signature is checked once, by the hash of the exact header."""
        digest = hashlib.sha256(header.encode()).digest()
        self._renew_keys()
        known = self._verified.get(digest)
        if known and (known.kid == WORKLOAD_KEY or known.kid in self._keys):
            self._verified.move_to_end(digest)
            return known
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated("A bearer token is needed: send `authorization: Bearer <token>`.")
        verified = await self._read(token)
        self._verified[digest] = verified
        if len(self._verified) > CACHED_TOKENS:
            self._verified.popitem(last=False)
        return verified

    async def _read(self, token: str) -> Verified:
        try:
            kid = jwt.get_unverified_header(token).get("kid", "")
            key = self._workload_key if kid == WORKLOAD_KEY else await self._key(kid)
            claims = jwt.decode(
                token,
                key,  # type: ignore[arg-type]  # PyJWK and PEM are both taken
                algorithms=["EdDSA"] if kid == WORKLOAD_KEY else ALGORITHMS,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "sub", "aud", "iss"]},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthenticated("This token has expired. Refresh it, or log in again.") from None
        except (jwt.PyJWTError, ValueError):
            raise Unauthenticated("This token is not one of ours, or it was changed.") from None
        return self._verified_of(claims, kid)

    def _verified_of(self, claims: dict[str, object], kid: str) -> Verified:
        issued, expires = float(claims["iat"]), float(claims["exp"])  # type: ignore[arg-type]  # PyJWT checked both
        scopes = frozenset(str(claims.get("scope", "")).split())
        if kid == WORKLOAD_KEY:
            name = str(claims.get("wl", ""))
            if not name:
                raise Unauthenticated("This token is not one of ours, or it was changed.")
            return Verified(Caller(workload=name, scopes=scopes), expires, kid)
        roles = claims.get("roles")
        caller = Caller(
            org=_well_formed(org_id, claims.get("org")),
            user=_well_formed(user_id, claims["sub"]),
            roles=frozenset(map(str, roles)) if isinstance(roles, list) else frozenset(),
            scopes=scopes,
            session=str(claims.get("sid", "")),
            issued=issued,
        )
        return Verified(caller, expires, kid)

    async def _key(self, kid: str) -> object:
        if kid not in self._keys and time.monotonic() >= self._fetch_from:
            async with self._fetching:
                if kid not in self._keys and time.monotonic() >= self._fetch_from:
                    await self._refresh()
        if kid not in self._keys:
            if self._is_keyless:
                raise Unavailable("The keys that tokens are checked with cannot be read now. Try again.")
            raise Unauthenticated("This token is not one of ours, or its key has been retired.")
        return self._keys[kid]

    def _renew_keys(self) -> None:
        """Read the keys again beside the calls, which go on with those that are known."""
        if time.monotonic() >= self._stale_from:
            self._stale_from = float("inf")
            self._renewal = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Read the keys; a failure is remembered too, so that callers do not queue for one attempt each."""
        try:
            found = jwt.PyJWKSet.from_dict(await self._fetch()).keys
        except Exception as error:
            telemetry.log.warning("keys.unread", reason=str(error) or type(error).__name__)
            self._is_keyless, self._fetch_from = True, time.monotonic() + KEYS_AGAIN_AFTER
            self._stale_from = self._fetch_from
            return
        self._keys = {key.key_id: key for key in found if key.key_id}
        self._is_keyless, self._fetch_from = False, time.monotonic() + KEYS_AT_MOST_EVERY
        self._stale_from = time.monotonic() + KEYS_FRESH


def _acting(caller: Caller, org: str, user: str) -> Caller:
    """The caller that metadata name; only our own workloads may name another than themselves."""
    if caller.workload:
        # No check of the organisation: a suspended one is refused at the door, and its past events still apply.
        return replace(caller, org=org_id(org) if org else "", user=user_id(user) if user else "")
    if (org and org != caller.org) or (user and user != caller.user):
        raise PermissionDenied("Only our own workloads act for others: leave out isa-org and isa-user.")
    return caller


def _well_formed(check: Callable[[str], str], claim: object) -> str:
    try:
        return check(claim if isinstance(claim, str) else "")
    except InvalidArgument:
        raise Unauthenticated("This token names an organisation or a user as we never do.") from None


class WorkloadToken:
    """This process's own token: fetched when first needed, renewed before it ends, by one task at a time."""

    RENEW_BEFORE = 120.0

    def __init__(self, issue: Callable[[], Awaitable[tuple[str, datetime]]]) -> None:
        self._issue = issue
        self._token = ""
        self._expires = datetime.min.replace(tzinfo=UTC)
        self._renewing = asyncio.Lock()

    def _is_fresh(self) -> bool:
        return (self._expires - datetime.now(UTC)).total_seconds() > self.RENEW_BEFORE

    async def __call__(self) -> str:
        """Return a token that is good for at least two more minutes."""
        if not self._is_fresh():
            async with self._renewing:
                if not self._is_fresh():
                    self._token, self._expires = await self._issue()
        return self._token
