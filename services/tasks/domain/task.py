"""A task, and what may be written on it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypedDict, Unpack

from isa_common.errors import FailedPrecondition
from services.tasks.domain.when import When

TITLE_LENGTH = 500
NOTES_LENGTH = 10_000
RECURRENCE_LENGTH = 500
LABEL_LENGTH = 100
LABELS = 50
"""How many tags, projects or contexts a task can have, of each."""

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Zs"})
_REFUSED = frozenset({"Cc", "Cs", "Zl", "Zp"})
_USER = re.compile(r"user-[a-z0-9]{1,32}", re.ASCII)


class AlreadyDone(FailedPrecondition):
    """A task can be completed once."""


class AlreadyOpen(FailedPrecondition):
    """Only a done task can be reopened."""


class Status(StrEnum):
    """Of a task."""

    OPEN = "open"
    DONE = "done"


class Changes(TypedDict, total=False):
    """What can be changed on a task; status has its own verbs."""

    title: str
    notes: str
    priority: str | None
    due: When | None
    start: When | None
    tags: tuple[str, ...]
    projects: tuple[str, ...]
    contexts: tuple[str, ...]
    assignee: str | None
    recurrence: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Something one person promised to do."""

    id: str
    title: str
    notes: str = ""
    status: Status = Status.OPEN
    priority: str | None = None
    due: When | None = None
    start: When | None = None
    tags: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    assignee: str | None = None
    recurrence: str | None = None
    created_by: str
    created_at: datetime
    updated_at: datetime
    done_at: datetime | None = None
    version: int = 1

    def complete(self, *, at: datetime) -> Task:
        """Return it as done; AlreadyDone when it is."""
        if self.status is Status.DONE:
            raise AlreadyDone(f"Task {self.id} is already done; reopen it to complete it again.", task_id=self.id)
        return replace(self, status=Status.DONE, done_at=at, updated_at=at, version=self.version + 1)

    def reopen(self, *, at: datetime) -> Task:
        """Return it as open; AlreadyOpen when it is."""
        if self.status is Status.OPEN:
            raise AlreadyOpen(f"Task {self.id} is already open.", task_id=self.id)
        return replace(self, status=Status.OPEN, done_at=None, updated_at=at, version=self.version + 1)

    def change(self, *, at: datetime, **changes: Unpack[Changes]) -> tuple[Task, list[str]]:
        """The changed task and the names of what changed; the very same task when nothing did."""
        changed = sorted(name for name, value in changes.items() if getattr(self, name) != value)
        if not changed:
            return self, []
        return replace(self, updated_at=at, version=self.version + 1, **changes), changed


def check_title(text: str) -> str:
    """A title without the blanks around it; ValueError when it is empty, too long or holds control characters."""
    title = text.strip()
    if all(unicodedata.category(character) in _INVISIBLE for character in title):
        raise ValueError(f"The title is empty; give it 1 to {TITLE_LENGTH} visible characters.")
    return _checked("title", title, TITLE_LENGTH)


def check_notes(text: str) -> str:
    """Notes of several lines; tabs and line ends are welcome."""
    notes = text.replace("\r\n", "\n")
    _checked("notes", notes.replace("\n", " ").replace("\t", " "), NOTES_LENGTH)
    return notes


def check_priority(text: str) -> str:
    """One letter, A to Z."""
    if len(text) != 1 or not "A" <= text <= "Z":
        raise ValueError(f'"{text[:20]}" is not a priority; give one letter from A (highest) to Z.')
    return text


def check_labels(labels: Iterable[str]) -> tuple[str, ...]:
    """Tags, projects or contexts, each once and in the order given."""
    kept = tuple(dict.fromkeys(_checked("label", label.strip(), LABEL_LENGTH) for label in labels))
    if len(kept) > LABELS:
        raise ValueError(f"{len(kept)} labels are too many; give at most {LABELS}.")
    if "" in kept:
        raise ValueError("A label is empty; leave it out or give it a name.")
    return kept


def check_assignee(text: str) -> str:
    """The id of a user, by its form."""
    if _USER.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not the id of a user; it looks like user-1a2b3c.')
    return text


def check_recurrence(text: str) -> str:
    """How it recurs, kept as it is: `+1w` of todo.txt or an RRULE."""
    recurrence = _checked("recurrence", text.strip(), RECURRENCE_LENGTH)
    if not recurrence:
        raise ValueError("The recurrence is empty; leave it out or write one such as +1w or FREQ=WEEKLY.")
    return recurrence


def _checked(name: str, text: str, length: int) -> str:
    if len(text) > length:
        raise ValueError(f"The {name} has {len(text):,} characters; at most {length:,} fit.")
    if not text.isprintable():  # rarely: also what is not ASCII may be unprintable and welcome
        for position, character in enumerate(text, start=1):
            if unicodedata.category(character) in _REFUSED:
                raise ValueError(
                    f"The {name} has the control character U+{ord(character):04X} at position {position}; remove it."
                )
    return text
