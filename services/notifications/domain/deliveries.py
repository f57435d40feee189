"""A delivery: one e-mail on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

FIRST_WAIT = timedelta(seconds=15)
LONGEST_WAIT = timedelta(minutes=15)


class State(StrEnum):
    """How far an e-mail has come."""

    PENDING = "pending"
    SENT = "sent"
    SKIPPED = "skipped"
    """Not wanted, or no longer of use."""
    FAILED = "failed"
    """Given up, after days."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One e-mail on its way: whom and what, by id."""

    id: str
    org_id: str
    notification_id: str
    user_id: str
    kind: str
    subject_id: str
    created_at: datetime
    attempts: int
    """Attempts begun, this one included."""
    cause_id: str = ""
    correlation_id: str = ""
    data: dict[str, object] = field(default_factory=dict)


def wait_after(attempts: int) -> timedelta:
    """How long to wait after so many failed attempts: twice as long each time, up to a quarter of an hour."""
    return min(LONGEST_WAIT, FIRST_WAIT * (1 << min(attempts - 1, 10)))
