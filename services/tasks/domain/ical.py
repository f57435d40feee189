"""To-dos of iCalendar files (RFC 5545), each VTODO on its own, so that a broken one spoils no other.

Only the line and value parsers of `icalendar` are used: its calendar parser remembers time zones for the whole process,
and a zone of one organisation's file must not reach another's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from typing import cast
from zoneinfo import ZoneInfo

from icalendar import Timezone, vDuration
from icalendar.parser import Contentline
from icalendar.timezone.windows_to_olson import WINDOWS_TO_OLSON

from services.tasks.domain.intake import (
    Draft,
    Line,
    check_is_text,
    check_line_count,
    excerpt,
    mark_repeated,
    source_key,
)
from services.tasks.domain.reminder import FURTHEST, REMINDERS
from services.tasks.domain.task import (
    Status,
    check_labels,
    check_notes,
    check_recurrence,
    check_title,
)
from services.tasks.domain.when import When, at_utc, check_year

_ONCE = frozenset(
    [
        "SUMMARY",
        "DUE",
        "DTSTART",
        "DURATION",
        "PRIORITY",
        "STATUS",
        "COMPLETED",
        "CREATED",
        "DESCRIPTION",
        "RRULE",
        "UID",
        "RECURRENCE-ID",
    ]
)
_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})(Z?)", re.ASCII)
_ESCAPE = re.compile(r"\\([\\;,nN])")
_COMMA = re.compile(r"(?<!\\),")
_NAME = re.compile(r"[A-Za-z0-9-]+(?=[;:])", re.ASCII)
_READ = _ONCE | {"BEGIN", "END", "CATEGORIES", "LOCATION", "URL", "TRIGGER"}
"""Properties that matter here; others need only look like one."""
_LENGTH = 256 * 1024
"""Characters of one VTODO."""
_ZONE_LENGTH = 20_000
_FAR = 2096
_ZONE_RULE = re.compile(
    r"FREQ=YEARLY(;(BYMONTH=\d{1,2}|BYDAY=[+-]?\d?[A-Z]{2}|BYMONTHDAY=-?\d{1,2}(,-?\d{1,2}){0,6}|UNTIL=[0-9TZ]{8,16}"
    r"|COUNT=\d{1,3}|INTERVAL=1|WKST=[A-Z]{2}))*",
    re.ASCII,
)
"""What changes of the clock look like; other rules could take for ever to follow."""


@dataclass(frozen=True, slots=True)
class _Property:
    name: str
    parameters: dict[str, str]
    value: str


@dataclass(slots=True)
class _Block:
    """The logical lines between BEGIN and END of a component."""

    kind: str
    number: int
    lines: list[tuple[int, bytes]] = field(default_factory=list)
    is_ended: bool = False


class _Zones:
    """The time zones of one file."""

    def __init__(self, blocks: dict[str, bytes], floating: tzinfo | None) -> None:
        self.floating = floating
        self._blocks = blocks
        self._known: dict[str, tzinfo] = {}

    def at(self, plain: datetime, name: str) -> datetime:
        """The instant of a local time, in a zone by its IANA or Windows name, or as the file itself defines it."""
        if name not in self._known:
            self._known[name] = named_zone(name) or self._own(name)
        zone = self._known[name]
        if isinstance(zone, ZoneInfo):
            return at_utc(plain.replace(tzinfo=zone))
        # A zone of a file counts its changes one by one: those of the next centuries are taken to be alike.
        near = plain if plain.year <= _FAR else plain.replace(year=_FAR - (_FAR - plain.year) % 4)
        return at_utc(plain.replace(tzinfo=timezone(zone.utcoffset(near.replace(tzinfo=zone)) or timedelta())))

    def _own(self, name: str) -> tzinfo:
        block = self._blocks.get(name)
        if block is None or len(block) > _ZONE_LENGTH or not _is_simple(block):
            raise ValueError(f'The time zone "{name[:60]}" is not known; use one such as Europe/Berlin, or UTC.')
        try:
            zone: tzinfo = cast(Timezone, Timezone.from_ical(block)).to_tz(lookup_tzid=False)
            return zone
        except Exception as error:
            raise ValueError(f'The time zone "{name[:60]}" of the file cannot be read.') from error


def _is_simple(zone: bytes) -> bool:
    lines = zone.decode(errors="replace").upper().splitlines()
    rules = [line for line in lines if line.startswith("RRULE")]
    begins = [line.partition(":")[2].strip() for line in lines if line.startswith("DTSTART")]
    return (
        len(rules) <= 20
        and min(begins, default="") >= "16"
        and all(_ZONE_RULE.fullmatch(rule.partition(":")[2].strip()) for rule in rules)
    )


def named_zone(name: str) -> tzinfo | None:
    """A zone by its IANA or Windows name, also with the prefix of a vendor: `/mozilla.org/20050126_1/Europe/Berlin`."""
    plain = name.strip().strip("\"'")
    if plain in WINDOWS_TO_OLSON:
        return ZoneInfo(WINDOWS_TO_OLSON[plain])
    parts = plain.strip("/").split("/")
    for count in (len(parts), 3, 2, 1) if plain.startswith("/") else (len(parts),):
        try:
            return ZoneInfo("/".join(parts[-count:]))
        except (KeyError, ValueError, OSError):  # not found; not a name; a folder
            continue
    return None


def read_calendar(data: bytes, *, now: datetime) -> list[Line]:
    """Every VTODO of a file, by its first line; ValueError when the file is no calendar at all."""
    lines = list(_unfold(check_is_text(data)))
    if not any(line.strip().upper() == b"BEGIN:VCALENDAR" for _, line in lines):
        raise ValueError("The file is no calendar: it has no line BEGIN:VCALENDAR.")
    blocks = list(_blocks(lines))
    check_line_count(len(blocks))
    zones = _Zones(_zone_blocks(blocks), _floating_zone(lines))
    return mark_repeated(_read_block(block, zones, now) for block in blocks if block.kind != "VTIMEZONE")


def _unfold(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Logical lines with the number of their first physical one; folds may split a character, so on bytes."""
    number, pieces = 0, [b""]
    for index, raw in enumerate(data.splitlines(), start=1):
        if raw[:1] in (b" ", b"\t") and number:
            pieces.append(raw[1:])
            continue
        if number and (joined := b"".join(pieces)).strip():
            yield number, joined
        number, pieces = index, [raw]
    if number and (joined := b"".join(pieces)).strip():
        yield number, joined


def _blocks(lines: list[tuple[int, bytes]]) -> Iterator[_Block]:
    """The components below VCALENDAR. One that is never ended stops where the next begins."""
    block: _Block | None = None
    inner: list[str] = []
    for number, line in lines:
        word, _, kind = line.strip().decode(errors="replace").upper().partition(":")
        begins, ends = word == "BEGIN", word == "END"
        if block is None:
            if begins and kind != "VCALENDAR":
                block, inner = _Block(kind, number), []
            continue
        if kind in ("VCALENDAR", "VTODO", "VEVENT", "VJOURNAL", "VTIMEZONE") and (
            begins or (kind != block.kind and ends)
        ):
            yield block
            block, inner = (_Block(kind, number), []) if begins and kind != "VCALENDAR" else (None, [])
        elif ends and kind == block.kind and not inner:
            block.is_ended = True
            yield block
            block = None
        else:
            if begins:
                inner.append(kind)
            elif ends and inner:
                inner.pop()
            block.lines.append((number, line))
    if block is not None:
        yield block


def _zone_blocks(blocks: list[_Block]) -> dict[str, bytes]:
    found = {}
    for block in blocks:
        if block.kind == "VTIMEZONE" and block.is_ended:
            for _, line in block.lines:
                if line.upper().startswith(b"TZID") and b":" in line:
                    name = line.partition(b":")[2].decode(errors="replace").strip()
                    body = b"\r\n".join(each for _, each in block.lines)
                    found[name] = b"BEGIN:VTIMEZONE\r\n" + body + b"\r\nEND:VTIMEZONE\r\n"
    return found


def _floating_zone(lines: list[tuple[int, bytes]]) -> tzinfo | None:
    for _, line in lines:
        if line.upper().startswith(b"X-WR-TIMEZONE"):
            return named_zone(line.partition(b":")[2].decode(errors="replace"))
    return None


def _read_block(block: _Block, zones: _Zones, now: datetime) -> Line:
    shown = next(
        (line for _, line in block.lines if line.upper().startswith(b"SUMMARY")), f"BEGIN:{block.kind}".encode()
    )
    line = Line(number=block.number, excerpt=excerpt(shown.decode(errors="replace")))
    if block.kind != "VTODO":
        return line.skipped(f"A {block.kind[:40]} is no task.")
    if not block.is_ended:
        return line.refused("The VTODO has no END:VTODO.")
    if sum(len(each) for _, each in block.lines) > _LENGTH:
        return line.refused(f"The VTODO has more than {_LENGTH:,} bytes.")
    try:
        draft, remarks = _Todo(block, zones, now).read()
    except ValueError as error:
        return line.refused(str(error))
    return Line(number=line.number, excerpt=excerpt(draft.title), reason=" ".join(remarks), draft=draft)


class _Todo:
    """Reads one VTODO; every method raises ValueError with the reason for which it is refused."""

    def __init__(self, block: _Block, zones: _Zones, now: datetime) -> None:
        self._zones = zones
        self._now = now
        self._alarms: list[dict[str, _Property]] = []
        self._properties: dict[str, list[_Property]] = {}
        self._text = "\n".join(line.decode(errors="replace") for _, line in block.lines)
        self.remarks: list[str] = []
        inner: list[str] = []
        for number, line in block.lines:
            each = _parse(number, line)
            if each.name == "BEGIN":
                inner.append(each.value.upper())
                if inner == ["VALARM"]:
                    self._alarms.append({})
            elif each.name == "END" and inner:
                inner.pop()
            elif inner == ["VALARM"]:
                self._alarms[-1][each.name] = each
            elif not inner:
                self._properties.setdefault(each.name, []).append(each)

    def read(self) -> tuple[Draft, list[str]]:
        for name in _ONCE:
            if len(self._properties.get(name, [])) > 1:
                raise ValueError(f"The VTODO has more than one {name}; leave one.")
        title = self._title()
        start = self._when("DTSTART", is_deadline=False)
        due = self._due(start)
        status, done_at = self._status()
        created_at = self._created(done_at)
        return (
            Draft(
                source_key=self._key(),
                title=title,
                notes=self._notes(),
                status=status,
                priority=self._priority(),
                due=due,
                start=start,
                tags=check_labels(label for label in self._categories() if label.strip()),
                recurrence=self._recurrence(),
                created_at=created_at,
                done_at=done_at,
                reminders=() if status is Status.DONE else self._reminders(start, due),
            ),
            self.remarks,
        )

    def _get(self, name: str) -> _Property | None:
        found = self._properties.get(name)
        return found[0] if found else None

    def _value(self, name: str) -> str:
        found = self._get(name)
        return _unescape(found.value).strip() if found else ""

    def _key(self) -> str:
        uid = self._value("UID")
        if not uid:
            self.remarks.append("The VTODO has no UID; it is recognised by its text.")
            return source_key("ical", self._text)
        return source_key("ical", f"{uid}\n{self._value('RECURRENCE-ID')}")

    def _title(self) -> str:
        text = self._value("SUMMARY")
        if not text:
            raise ValueError("The VTODO has no SUMMARY; a task needs a title.")
        return check_title(" ".join(text.split()))

    def _notes(self) -> str:
        parts = [self._value("DESCRIPTION")]
        parts += [f"{name.capitalize()}: {value}" for name in ("LOCATION", "URL") if (value := self._value(name))]
        return check_notes("\n".join(part for part in parts if part))

    def _categories(self) -> Iterator[str]:
        for each in self._properties.get("CATEGORIES", []):
            yield from (_unescape(part) for part in _COMMA.split(each.value))

    def _priority(self) -> str | None:
        value = self._value("PRIORITY")
        if not value:
            return None
        if not (value.isascii() and value.isdigit() and int(value[:4]) <= 9):
            raise ValueError(f'PRIORITY: "{value[:20]}" is not a number from 0 (none) and 1 (highest) to 9.')
        return "ABCDEFGHI"[int(value) - 1] if int(value) else None

    def _recurrence(self) -> str | None:
        value = self._value("RRULE")
        return check_recurrence(value) if value else None

    def _status(self) -> tuple[Status, datetime | None]:
        status = self._value("STATUS").upper()
        completed = self._when("COMPLETED", is_deadline=False)
        if status == "CANCELLED":
            raise ValueError("STATUS: the to-do is cancelled, neither open nor done.")
        if status not in ("", "NEEDS-ACTION", "IN-PROCESS", "COMPLETED"):
            raise ValueError(f'STATUS: "{status[:20]}" is none of NEEDS-ACTION, IN-PROCESS, COMPLETED, CANCELLED.')
        if status != "COMPLETED" and (completed is None or status):
            if completed is not None:
                self.remarks.append(f"COMPLETED is left out, as the status is {status}.")
            return Status.OPEN, None
        if completed is None:
            self.remarks.append("The VTODO has no COMPLETED; the time of the import is used.")
            return Status.DONE, self._now
        if completed.at > self._now:
            self.remarks.append("COMPLETED lies in the future; the time of the import is used.")
        return Status.DONE, min(completed.at, self._now)

    def _created(self, done_at: datetime | None) -> datetime:
        created = self._when("CREATED", is_deadline=False)
        latest = done_at or self._now
        if created is None:
            return latest
        if created.at > latest:
            self.remarks.append("CREATED lies too late; " + ("COMPLETED" if done_at else "the import") + " is used.")
        return min(created.at, latest)

    def _due(self, start: When | None) -> When | None:
        due = self._when("DUE", is_deadline=True)
        duration = self._get("DURATION")
        if duration is None:
            return due
        if due is not None:
            self.remarks.append("DURATION is left out, as there is a DUE.")
            return due
        if start is None:
            raise ValueError("DURATION: there is no DTSTART that it could follow.")
        after = start.at + _duration("DURATION", duration.value)
        return When.end_of(after.date()) if start.is_day else When.instant(after)

    def _when(self, name: str, *, is_deadline: bool) -> When | None:
        found = self._get(name)
        if found is None:
            return None
        moment = self._moment(found)
        if isinstance(moment, datetime):
            return When.instant(moment)
        return When.end_of(moment) if is_deadline else When.start_of(moment)

    def _moment(self, found: _Property) -> datetime | date:
        value = found.value.strip()
        match = _DATE_TIME.fullmatch(value) or _DATE.fullmatch(value)
        if match is None:
            raise ValueError(f'{found.name}: "{value[:40]}" is not a date or a date-time such as 20261201T080000Z.')
        year, month, day, *clock = match.groups()
        check_year(int(year), f"{found.name}: {value}")
        try:
            if not clock:
                return date(int(year), int(month), int(day))
            second = min(int(clock[2]), 59)  # 60 is a leap second
            plain = datetime(int(year), int(month), int(day), int(clock[0]), int(clock[1]), second, tzinfo=UTC)
        except ValueError:
            raise ValueError(f"{found.name}: {value} does not exist in the calendar.") from None
        if clock[3]:
            return plain
        if (name := found.parameters.get("TZID")) is not None:
            return self._zones.at(plain, name)
        if self._zones.floating is not None:
            return at_utc(plain.replace(tzinfo=self._zones.floating))
        self.remarks.append(f"{found.name} has no time zone; it was read as UTC.")
        return plain

    def _reminders(self, start: When | None, due: When | None) -> tuple[datetime, ...]:
        found = []
        for alarm in self._alarms:
            trigger = alarm.get("TRIGGER")
            if trigger is None:
                self.remarks.append("A VALARM without TRIGGER was left out.")
                continue
            try:
                at = self._trigger(trigger, start, due)
            except ValueError as error:
                self.remarks.append(f"A reminder was left out: {error}")
                continue
            if at is None:
                self.remarks.append("A VALARM was left out: it is relative, and there is no DTSTART or DUE.")
            elif at <= self._now:
                self.remarks.append(f"A reminder was left out: {at:%Y-%m-%d %H:%M} UTC has passed.")
            elif at - self._now > FURTHEST:
                self.remarks.append("A reminder was left out: it is more than ten years ahead.")
            else:
                found.append(at)
        kept = tuple(sorted(set(found)))
        if len(kept) > REMINDERS:
            self.remarks.append(f"Only the first {REMINDERS} reminders were kept.")
        return kept[:REMINDERS]

    def _trigger(self, trigger: _Property, start: When | None, due: When | None) -> datetime | None:
        if trigger.parameters.get("VALUE", "").upper() == "DATE-TIME" or _DATE_TIME.fullmatch(trigger.value.strip()):
            at = self._moment(trigger)
            return at if isinstance(at, datetime) else When.start_of(at).at
        base = due or start if trigger.parameters.get("RELATED", "").upper() == "END" else start or due
        if base is None:
            return None
        # A day as such begins at midnight, also when it is a deadline.
        at = datetime.combine(base.at.date(), datetime.min.time(), UTC) if base.is_day else base.at
        return at + _duration("TRIGGER", trigger.value)


def _parse(number: int, line: bytes) -> _Property:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ValueError(f"Line {number} is not UTF-8; save the file as UTF-8.") from None
    name = _NAME.match(text)
    if name is not None and name[0].upper() not in _READ:
        return _Property(name[0].upper(), {}, "")
    try:
        known, parameters, value = Contentline.from_ical(text).parts()  # type: ignore[no-untyped-call]
    except ValueError:
        raise ValueError(f'Line {number} is not a property such as SUMMARY:text: "{excerpt(text)}"') from None
    flat = {key.upper(): each if isinstance(each, str) else ",".join(each) for key, each in parameters.items()}
    return _Property(known.upper(), flat, value)


def _duration(name: str, text: str) -> timedelta:
    try:
        found: timedelta = vDuration.from_ical(text.strip())  # type: ignore[no-untyped-call]
    except (ValueError, OverflowError):
        raise ValueError(f'{name}: "{text[:40]}" is not a duration such as -PT15M or P1D.') from None
    if abs(found) > FURTHEST:
        raise ValueError(f"{name}: {text[:40]} is longer than ten years.")
    return found


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] in "nN" else match[1], text)
