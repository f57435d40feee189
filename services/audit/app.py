"""Who is plugged into whom in audit."""

from __future__ import annotations

from kernel import Parts, RoomSettings
from services.audit.handlers import Handlers
from services.audit.repository import Chains


class Settings(RoomSettings):
    """Nothing to set: the audit keeps everything."""


def create_app(settings: Settings, parts: Parts) -> Handlers:
    """Build the room."""
    return Handlers(parts, Chains(parts.sql, parts.logs))
