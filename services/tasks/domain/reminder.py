"""A reminder: the row is the truth, the job that fires it is only the trigger."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

REMINDERS = 20
"""How many reminders one person can have on one task."""
FURTHEST = timedelta(days=3653)
EARLY = timedelta(seconds=1)
"""How much too early a trigger may be: the clocks of two machines differ."""


class State(StrEnum):
    """Of a reminder. A cancelled one waits again when its task is reopened."""

    WAITING = "waiting"
    FIRED = "fired"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reminder:
    """One person wants to be reminded of one task at one time."""

    id: str
    task_id: str
    user: str
    remind_at: datetime
    state: State = State.WAITING
    fired_at: datetime | None = None
    version: int = 1

    def is_due(self, now: datetime) -> bool:
        """Tell whether it waits and its time has come."""
        return self.state is State.WAITING and self.remind_at <= now + EARLY

    def fire(self, *, at: datetime) -> Reminder:
        """Return it as fired."""
        return replace(self, state=State.FIRED, fired_at=at, version=self.version + 1)


def check_remind_at(at: datetime, now: datetime) -> datetime:
    """ValueError when the time has passed, or lies further than ten years ahead."""
    if at <= now:
        raise ValueError(f"{at.isoformat()} has passed; a reminder must lie in the future.")
    if at - now > FURTHEST:
        raise ValueError(f"{at.isoformat()} is more than ten years ahead.")
    return at
