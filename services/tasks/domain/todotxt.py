"""The todo.txt format (github.com/todotxt/todo.txt): one task a line.

Read leniently where the meaning is plain (a lower-case priority, an upper-case X before a date), and with a remark.
Beyond the rules of the format: `due:`, `t:` (start), `rec:` (recurrence) and `pri:` (priority of a done task).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from services.tasks.domain.intake import (
    Draft,
    Line,
    check_is_text,
    check_line_count,
    excerpt,
    mark_repeated,
    source_key,
)
from services.tasks.domain.task import (
    Status,
    check_labels,
    check_priority,
    check_recurrence,
    check_title,
)
from services.tasks.domain.when import When, parse_day, parse_deadline, parse_start

_PRIORITY = re.compile(r"\(([A-Za-z])\)")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_KEYS = ("due", "t", "rec", "pri")


@dataclass(frozen=True, slots=True, kw_only=True)
class TodoItem:
    """One line, taken apart by the rules of the format; `text` is all that follows priority and dates."""

    text: str
    is_done: bool = False
    priority: str | None = None
    completed_on: date | None = None
    created_on: date | None = None
    remarks: tuple[str, ...] = field(default=(), compare=False)

    @property
    def projects(self) -> tuple[str, ...]:
        """Words after a plus."""
        return tuple(word[1:] for word in self.text.split(" ") if _is_label(word, "+"))

    @property
    def contexts(self) -> tuple[str, ...]:
        """Words after an at sign."""
        return tuple(word[1:] for word in self.text.split(" ") if _is_label(word, "@"))

    def values(self, key: str) -> list[str]:
        """What follows `key:` in the text, in the order of the line."""
        return [word[len(key) + 1 :] for word in self.text.split(" ") if _key_of(word) == key]

    @property
    def title(self) -> str:
        """The text without the key:value pairs that became fields, and without the labels that trail it."""
        words = [word for word in self.text.split(" ") if _key_of(word) is None]
        while words and (_is_label(words[-1], "+") or _is_label(words[-1], "@")):
            words.pop()
        return " ".join(words)


def parse_line(line: str) -> TodoItem:
    """Take one line apart; ValueError when it begins with a date that does not exist."""
    words = line.split()
    remarks = []
    is_done = bool(words) and words[0] == "x"
    if len(words) > 1 and words[0] == "X" and _DATE.fullmatch(words[1]):
        is_done = True
        remarks.append("An upper-case X was read as done.")
    if is_done:
        words.pop(0)
    priority = None
    if words and (match := _PRIORITY.fullmatch(words[0])):
        priority = match[1].upper()
        if priority != match[1]:
            remarks.append(f"The priority ({match[1]}) was read as ({priority}).")
        words.pop(0)
    dates: list[date] = []
    while words and len(dates) < (2 if is_done else 1) and _DATE.fullmatch(words[0]):
        dates.append(parse_day(words.pop(0)))
    return TodoItem(
        text=" ".join(words),
        is_done=is_done,
        priority=priority,
        completed_on=dates.pop(0) if is_done and dates else None,
        created_on=dates.pop(0) if dates else None,
        remarks=tuple(remarks),
    )


def format_item(item: TodoItem) -> str:
    """The line that reads as the item."""
    parts = [
        "x" if item.is_done else "",
        f"({item.priority})" if item.priority else "",
        item.completed_on.isoformat() if item.completed_on else "",
        item.created_on.isoformat() if item.created_on else "",
        item.text,
    ]
    return " ".join(part for part in parts if part)


def read_todo_txt(data: bytes, *, now: datetime) -> list[Line]:
    """Every line of a file, in its order; ValueError when it is no such file at all."""
    raw = check_is_text(data).splitlines()
    check_line_count(len(raw))
    return mark_repeated(_read_line(number, line, now) for number, line in enumerate(raw, start=1))


def _read_line(number: int, raw: bytes, now: datetime) -> Line:
    try:
        text = raw.decode().strip("\ufeff \t\x0b\x0c")
    except UnicodeDecodeError as error:
        line = Line(number=number, excerpt=excerpt(raw.decode(errors="replace")))
        return line.refused(f"Byte {error.start + 1} is not UTF-8; save the file as UTF-8.")
    line = Line(number=number, excerpt=excerpt(text))
    if not text:
        return line.skipped("The line is empty.")
    try:
        draft, remarks = _draft(text, now)
    except ValueError as error:
        return line.refused(str(error))
    return Line(number=number, excerpt=line.excerpt, reason=" ".join(remarks), draft=draft)


def _draft(text: str, now: datetime) -> tuple[Draft, list[str]]:
    item = parse_line(text)
    if not item.title:
        raise ValueError("The line has no title: nothing is left beside priority, dates, labels and key:value pairs.")
    remarks = list(item.remarks)
    priority = _only(item, "pri")
    recurrence = _only(item, "rec")
    due = _only(item, "due")
    start = _only(item, "t")
    done_at = None
    if item.is_done:
        done_at = _not_after(item.completed_on, now, "completion", remarks)
        if done_at is None:
            remarks.append("The line has no completion date; the time of the import is used.")
            done_at = now
    created_at = _not_after(item.created_on, now, "creation", remarks)
    if created_at is None:
        created_at = done_at or now
    if done_at is not None and created_at > done_at:
        remarks.append("The creation date lies after the completion date, which is used for both.")
        created_at = done_at
    draft = Draft(
        source_key=source_key("todo.txt", " ".join(text.split())),
        title=check_title(item.title),
        status=Status.DONE if item.is_done else Status.OPEN,
        priority=item.priority or (check_priority(priority.upper()) if priority else None),
        due=_when(parse_deadline, "due", due),
        start=_when(parse_start, "t", start),
        projects=check_labels(item.projects),
        contexts=check_labels(item.contexts),
        recurrence=check_recurrence(recurrence) if recurrence else None,
        created_at=created_at,
        done_at=done_at,
    )
    return draft, remarks


def _when(parse: Callable[[str], When], key: str, value: str | None) -> When | None:
    if value is None:
        return None
    try:
        return parse(value)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _not_after(day: date | None, now: datetime, name: str, remarks: list[str]) -> datetime | None:
    """The beginning of a day, or now when that is still to come."""
    if day is None:
        return None
    at = datetime.combine(day, datetime.min.time(), UTC)
    if at > now:
        remarks.append(f"The {name} date {day} lies in the future; the time of the import is used.")
    return min(at, now)


def _only(item: TodoItem, key: str) -> str | None:
    values = item.values(key)
    if len(set(values)) > 1:
        raise ValueError(f"The line has {len(values)} values for {key}: ({', '.join(values)[:60]}); leave one.")
    return values[0] if values else None


def _is_label(word: str, sign: str) -> bool:
    return len(word) > 1 and word.startswith(sign)


def _key_of(word: str) -> str | None:
    """The key of a word such as `due:2026-12-01`, when it is one that becomes a field."""
    key, colon, value = word.partition(":")
    key = key.lower()
    if not colon or not value or value.startswith("//") or key not in _KEYS:
        return None
    return None if key == "pri" and not (len(value) == 1 and "A" <= value.upper() <= "Z") else key
