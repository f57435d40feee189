"""A notice: something that one user should know."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field

from isa.events import OrgMemberAdded, ReminderTriggered, UserRegistered

DIGEST = "digest"
"""Kind of the notice that sums up a day."""
ASSIGNED = "task.assigned"
"""Kind of the notice to who is to do a task; every other kind is the topic that caused it."""
BY_MAIL = frozenset({UserRegistered.TOPIC, ReminderTriggered.TOPIC, ASSIGNED, DIGEST})
"""Kinds that go by e-mail too; the rest waits in the inbox for the digest."""
TEXTS = {
    ASSIGNED: "A task was given to you.",
    "task.updated": "A task that you made was changed.",
    "task.completed": "A task that you made was completed.",
    "task.deleted": "A task that you made was deleted.",
    "reminder.triggered": "You asked to be reminded of a task.",
    "user.registered": "Welcome! Your account is ready.",
    "org.member.added": "Somebody joined your organisation.",
    DIGEST: "Your day at a glance.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something that one user should know; whose words are in other rooms."""

    id: str
    recipient_id: str
    kind: str
    subject_id: str
    """What it is about: a task, a user, or the day of a digest."""
    actor_id: str = ""
    """Who did it; empty when nobody did."""
    cause_id: str = ""
    """Event that caused it."""
    correlation_id: str = ""
    """Of the request that set all of it off."""
    data: dict[str, object] = field(default_factory=dict)
    """Facts by kind: ids, dates, numbers."""

    @property
    def is_mailed(self) -> bool:
        """Whether it leaves as an e-mail too, where the recipient wants any."""
        return self.kind in BY_MAIL


_ID = re.compile(r"notification-[a-z2-7]{26}", re.ASCII)


def is_notice_id(text: str) -> bool:
    """Whether a text can be the id of a notice."""
    return _ID.fullmatch(text) is not None


def notice_id(*of: str) -> str:
    """Return the id that this cause and this recipient always have, so that telling twice is seen."""
    return "notification-" + _digest("/".join(of))


def delivery_id(notice: str) -> str:
    """Return the id of a notice's e-mail."""
    return "delivery-" + notice.removeprefix("notification-")


def welcome(event: UserRegistered) -> Notice:
    """Greet who just got an account."""
    return Notice(
        id=notice_id(event.event_id, event.aggregate_id),
        recipient_id=event.aggregate_id,
        kind=event.TOPIC,
        subject_id=event.aggregate_id,
        actor_id=event.user_id,
        cause_id=event.event_id,
        correlation_id=event.correlation_id,
        data={"role": event.role},
    )


def joined(event: OrgMemberAdded, *, owners: list[str]) -> list[Notice]:
    """Tell the owners of an organisation of a new member, but not who did it and not the member."""
    return [
        Notice(
            id=notice_id(event.event_id, owner),
            recipient_id=owner,
            kind=event.TOPIC,
            subject_id=event.member_id,
            actor_id=event.user_id,
            cause_id=event.event_id,
            correlation_id=event.correlation_id,
            data={"role": event.role},
        )
        for owner in owners
        if owner not in (event.member_id, event.user_id)
    ]


def _digest(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:26]
