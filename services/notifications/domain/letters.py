"""A letter: the words of an e-mail."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from isa.events import ReminderTriggered, UserRegistered
from services.notifications.domain.deliveries import Delivery
from services.notifications.domain.notices import ASSIGNED, DIGEST, TEXTS

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+")
_PLURALS = {
    ASSIGNED: ("task given to you", "tasks given to you"),
    "task.updated": ("change to a task of yours", "changes to tasks of yours"),
    "task.completed": ("task of yours completed by others", "tasks of yours completed by others"),
    "task.deleted": ("task of yours deleted by others", "tasks of yours deleted by others"),
    "reminder.triggered": ("reminder", "reminders"),
    "user.registered": ("greeting", "greetings"),
    "org.member.added": ("new member", "new members"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Whom a letter is for, as `users` knows them."""

    name: str
    email: str
    wants_mail: bool = True
    wants_digest: bool = True

    def wants(self, kind: str) -> bool:
        """Whether they want an e-mail of this kind."""
        return self.wants_mail and (self.wants_digest or kind != DIGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """The words of an e-mail, to one person."""

    message_id: str
    """The same for every copy of the letter, in angle brackets."""
    to_name: str
    to_address: str
    subject: str
    """One line."""
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        """The letter as plain text."""
        return "\n".join(self.lines) + "\n"

    @property
    def html(self) -> str:
        """The letter as HTML, with its Message-ID in sight where a mailer cannot set one."""
        body = "<br>\n".join(html.escape(line) for line in self.lines)
        return f"<p>{body}</p>\n<p><small>Reference: {html.escape(self.message_id.strip('<>'))}</small></p>\n"


def titles_wanted(delivery: Delivery) -> list[str]:
    """Tasks whose titles a letter names."""
    if delivery.kind in (ReminderTriggered.TOPIC, ASSIGNED):
        return [delivery.subject_id]
    return [str(task["task_id"]) for task in _due(delivery)]


def write(delivery: Delivery, person: Person, titles: Mapping[str, str], *, domain: str) -> Letter | None:
    """Write the letter of a delivery, given the titles of tasks that still exist; None when nothing is left to say."""
    words = _words(delivery, titles)
    if words is None:
        return None
    subject, lines = words
    return Letter(
        message_id=f"<{delivery.id}@{domain}>",
        to_name=one_line(person.name, 200),
        to_address=person.email,
        subject=one_line(subject, 200),
        lines=(f"Hello {one_line(person.name, 200)},", "", *lines),
    )


def one_line(text: str, length: int) -> str:
    """Return a text without line breaks or other control characters, no longer than a header should be."""
    line = _CONTROL.sub(" ", text).strip()
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def _words(delivery: Delivery, titles: Mapping[str, str]) -> tuple[str, list[str]] | None:
    if delivery.kind == ReminderTriggered.TOPIC:
        title = titles.get(delivery.subject_id)
        if title is None:
            return None  # the task is gone, and so is the reason to remind
        return f"Reminder: {title}", ["you asked to be reminded of:", "", f"  {one_line(title, 1000)}"]
    if delivery.kind == ASSIGNED:
        title = titles.get(delivery.subject_id)
        if title is None:
            return None
        return f"For you: {title}", ["this task was given to you:", "", f"  {one_line(title, 1000)}"]
    if delivery.kind == UserRegistered.TOPIC:
        return "Welcome", ["your account is ready.", f"Your role is {delivery.data.get('role', 'member')}."]
    if delivery.kind == DIGEST:
        return _digest_words(delivery, titles)
    return "Notice", [TEXTS.get(delivery.kind, "Something happened that concerns you.")]


def _digest_words(delivery: Delivery, titles: Mapping[str, str]) -> tuple[str, list[str]] | None:
    due = [task for task in _due(delivery) if str(task["task_id"]) in titles]
    more = _number(delivery.data.get("due_total")) - len(_due(delivery))
    known = delivery.data.get("unread")
    unread = {str(k): _number(v) for k, v in known.items()} if isinstance(known, dict) else {}
    if not due and not unread:
        return None
    lines: list[str] = []
    if due:
        lines += ["due or overdue:", ""]
        lines += [f"  {_day(task['due_at'])}  {one_line(titles[str(task['task_id'])], 200)}" for task in due]
        lines += [f"  and {more} more"] if more > 0 else []
        lines.append("")
    if unread:
        lines += ["unread in your inbox:", ""]
        lines += [f"  {number} {_plural(kind, number)}" for kind, number in sorted(unread.items())]
    subject = f"Your day, {delivery.subject_id}: {len(due) + max(more, 0)} due, {sum(unread.values())} unread"
    return subject, lines


def _due(delivery: Delivery) -> list[Mapping[str, object]]:
    due = delivery.data.get("due")
    return [task for task in due if isinstance(task, dict)] if isinstance(due, list) else []


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _day(value: object) -> str:
    return datetime.fromisoformat(str(value)).astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _plural(kind: str, number: int) -> str:
    one, many = _PLURALS.get(kind, ("notice", "notices"))
    return one if number == 1 else many
