"""Signing keys and housekeeping."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import Response

from isa_common import PermissionDenied
from kernel import Body, Caller, View, get, job, log, post
from services.users.handlers.desk import Desk

KEPT = timedelta(days=7)
"""How long a session that is over is remembered, so that a late second use of its refresh token is still noticed."""


class Rotate(Body):
    """How to rotate."""

    is_compromised: bool = False
    """The old keys are refused at once, and with them every token that they signed."""


class KeyView(View):
    """A signing key."""

    kid: str
    algorithm: str
    active_from: datetime


class KeyRoutes:
    """Signing keys and housekeeping."""

    desk: Desk

    @get("/.well-known/jwks.json", anonymous=True)
    async def jwks(self, response: Response) -> dict[str, object]:
        """Return the public keys of people's tokens (RFC 7517)."""
        response.headers["cache-control"] = "public, max-age=30"
        return await self.desk.keyring.published()

    @post("/v1/keys/rotate", permission="users.admin", status=201)
    async def rotate_keys(self, caller: Caller, body: Rotate) -> KeyView:
        """Make a new signing key. Only for our own workloads: keys belong to no organisation."""
        if not caller.workload:
            raise PermissionDenied("Keys belong to no organisation: only an operator's workload rotates them.")
        key = await self.desk.keyring.rotate(compromised=body.is_compromised)
        log.warning("users.keys_rotated", kid=key.kid, is_compromised=body.is_compromised)
        return KeyView.model_validate(key)

    @job("rotate-keys", schedule="0 0 3 1 * *")
    async def rotate_monthly(self, data: dict[str, object]) -> None:
        """Make a new signing key on the first of a month; the old one stays good for what it signed."""
        key = await self.desk.keyring.rotate()
        log.info("users.keys_rotated", kid=key.kid, is_compromised=False)

    @job("users-cleanup", schedule="0 17 * * * *")
    async def clean_up(self, data: dict[str, object]) -> None:
        """Delete what is over: sessions, invitations, reset tokens, attempts, keys."""
        desk, at = self.desk, self.desk.parts.clock()
        statements = [
            *desk.people.expired(at=at),
            *desk.proofs.expired(at=at, kept=KEPT),
            *desk.throttles.expired(at=at),
            *desk.keyring.expired(at=at),
        ]
        deleted = 0
        for statement in statements:
            deleted += (await desk.parts.sql.execute(statement.sql, *statement.params)).affected
        log.info("users.cleaned_up", rows=deleted)
