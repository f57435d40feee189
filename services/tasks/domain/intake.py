"""What an imported file offers, line by line, before anything is written."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from services.tasks.domain.task import Status, Task
from services.tasks.domain.when import When

LINES = 10_000
"""How many lines or VTODOs one import may have."""
EXCERPT = 60
"""How much of a line its report shows, in characters."""


class Outcome(StrEnum):
    """What became of a line."""

    TAKEN = "taken"
    ALREADY_THERE = "already_there"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A task as a file tells it."""

    source_key: str
    """What recognises it when the file is sent again."""
    title: str
    notes: str = ""
    status: Status = Status.OPEN
    priority: str | None = None
    due: When | None = None
    start: When | None = None
    tags: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    contexts: tuple[str, ...] = ()
    recurrence: str | None = None
    created_at: datetime
    done_at: datetime | None = None
    reminders: tuple[datetime, ...] = ()

    def task(self, id_: str, *, user: str, now: datetime) -> Task:
        """The task that it becomes; a done one has been created (1) and completed (2)."""
        return Task(
            id=id_,
            title=self.title,
            notes=self.notes,
            status=self.status,
            priority=self.priority,
            due=self.due,
            start=self.start,
            tags=self.tags,
            projects=self.projects,
            contexts=self.contexts,
            recurrence=self.recurrence,
            created_by=user,
            created_at=self.created_at,
            updated_at=now,
            done_at=self.done_at,
            version=2 if self.status is Status.DONE else 1,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a file, or one VTODO of a calendar by its first line, and what became of it."""

    number: int
    excerpt: str
    outcome: Outcome | None = None
    """None while it is only offered."""
    reason: str = ""
    """Why it was refused or skipped, or what was read differently from how it was written."""
    draft: Draft | None = None
    task_id: str | None = None

    def refused(self, reason: str) -> Line:
        """Return it as one that cannot be taken."""
        return replace(self, outcome=Outcome.REFUSED, reason=reason, draft=None)

    def skipped(self, reason: str) -> Line:
        """Return it as one that holds no task."""
        return replace(self, outcome=Outcome.SKIPPED, reason=reason, draft=None)

    def taken(self, task_id: str) -> Line:
        """Return it as one that became a task."""
        return replace(self, outcome=Outcome.TAKEN, task_id=task_id, draft=None)

    def already_there(self, reason: str, *, task_id: str | None = None) -> Line:
        """Return it as one that was taken before."""
        return replace(self, outcome=Outcome.ALREADY_THERE, reason=reason, task_id=task_id, draft=None)


def excerpt(text: str) -> str:
    """The beginning of a line, fit to be shown: what cannot be seen becomes U+FFFD."""
    shown = " ".join(text[: EXCERPT + 1].split())
    shown = "".join("\ufffd" if unicodedata.category(each) in {"Cc", "Cs", "Cf"} else each for each in shown)
    return f"{shown[:EXCERPT]}..." if len(text) > EXCERPT else shown


def source_key(kind: str, text: str) -> str:
    """Recognises the same source text, however its characters are composed."""
    return f"{kind}:{hashlib.sha256(unicodedata.normalize('NFC', text).encode()).hexdigest()[:40]}"


def mark_repeated(lines: Iterable[Line]) -> list[Line]:
    """The same lines, of which each that repeats an earlier one is already there."""
    first: dict[str, int] = {}
    marked = []
    for line in lines:
        if line.draft is not None:
            seen = first.setdefault(line.draft.source_key, line.number)
            if seen != line.number:
                line = line.already_there(f"Repeats line {seen}.")
        marked.append(line)
    return marked


def check_is_text(data: bytes) -> bytes:
    """The bytes without their byte order mark; ValueError when they are no UTF-8 text at all."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("The file is UTF-16; save it as UTF-8 and send it again.")
    if b"\0" in data[:4096]:
        raise ValueError("The file is not text; send a todo.txt or an iCalendar file in UTF-8.")
    return data.removeprefix(b"\xef\xbb\xbf")


def check_line_count(count: int) -> None:
    """ValueError when there are more than an import may have."""
    if count > LINES:
        raise ValueError(f"The file has more than {LINES:,} lines or to-dos; split it and send the parts one by one.")
