"""What comes in: routes by noun, one event of our own, and three jobs."""

from __future__ import annotations

from services.users.handlers.desk import Desk
from services.users.handlers.keys import KeyRoutes
from services.users.handlers.members import MemberRoutes
from services.users.handlers.oauth import OAuthRoutes
from services.users.handlers.passwords import PasswordRoutes
from services.users.handlers.preferences import PreferenceRoutes

__all__ = ["Desk", "Handlers"]


class Handlers(OAuthRoutes, MemberRoutes, PasswordRoutes, PreferenceRoutes, KeyRoutes):
    """Organisations, their members, and what proves who somebody is.

    Sign up at `/v1/signup`, or log in at `/v1/login` or by OAuth 2 at `/oauth/token`; send the access token as
    `authorization: Bearer <token>` to every service. It is good for ten minutes; the refresh token gives the next.
    """

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def start(self) -> None:
        """Have a key before the first token is wanted."""
        await self.desk.prepare()

    async def stop(self) -> None:
        """Let letters on their way leave."""
        await self.desk.finish()
