"""Who is plugged into whom."""

from __future__ import annotations

from datetime import timedelta

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.loki.repository import ERRORS, Logs


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with LOKI_."""

    url: str = "http://127.0.0.1:13100"
    """Where Loki answers."""
    timeout: Seconds = timedelta(seconds=30)
    """How long Loki may take for one answer."""
    newest: Seconds = timedelta(minutes=10)
    """How far ahead of our clock a line's time may be; below Loki's own creation_grace_period."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together."""
    logs = Logs(settings.url, timeout=settings.timeout, newest=settings.newest, shares=parts.shares)
    return Adapter(service="isa.logs.v1.Logs", implementation=logs, errors=ERRORS)
