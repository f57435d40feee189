"""Who is plugged into whom in analytics."""

from __future__ import annotations

from kernel import Parts, RoomSettings
from services.analytics.handlers import Handlers
from services.analytics.repository import Figures


class Settings(RoomSettings):
    """Nothing to set: analytics counts."""


def create_app(settings: Settings, parts: Parts) -> Handlers:
    """Build the room."""
    return Handlers(parts, Figures(parts.sql))
