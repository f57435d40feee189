"""A digest: what waits for a user on one day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta

from isa_common import PermissionDenied
from services.notifications.domain.notices import DIGEST, Notice, notice_id

LONGEST_LIST = 20
"""Tasks that a digest names; the rest is a number."""
HORIZON = timedelta(days=1)
"""How far ahead of a digest a task counts as due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTask:
    """An open task whose time has come or comes today."""

    task_id: str
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What waits for one user."""

    unread: Mapping[str, int] = field(default_factory=dict)
    """Unread inbox items by kind."""
    due: Sequence[DueTask] = ()
    """The first of them, earliest first."""
    due_total: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.unread and not self.due_total


def digest(recipient_id: str, day: date, waiting: Waiting, *, run: int) -> Notice:
    """Sum up a day for one user; the first run of a day is the regular one, the others were forced."""
    return Notice(
        id=notice_id(DIGEST, recipient_id, day.isoformat(), str(run)),
        recipient_id=recipient_id,
        kind=DIGEST,
        subject_id=day.isoformat(),
        data={
            "unread": dict(sorted(waiting.unread.items())),
            "due": [{"task_id": task.task_id, "due_at": task.due_at.isoformat()} for task in waiting.due],
            "due_total": waiting.due_total,
        },
    )


def schedule(at: time) -> str:
    """The cron expression, of six fields and in UTC, of a time of day."""
    return f"{at.second} {at.minute} {at.hour} * * *"


def may_run(roles: frozenset[str]) -> None:
    """Refuse who is neither owner nor admin of the organisation."""
    if roles.isdisjoint({"owner", "admin"}):
        raise PermissionDenied("Only an owner or an admin sends the digest of the whole organisation.")
