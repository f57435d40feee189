"""Points in time as people give them: an instant with its offset, or a whole day."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

FIRST_YEAR = 1900
LAST_YEAR = 9998
"""A year short of what databases and Python can tell, so that no time zone pushes a point over the edge."""

_DATE = re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII)
_INSTANT = re.compile(
    r"(?P<date>\d{4}-\d{2}-\d{2})[Tt ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?P<fraction>\.\d{1,9})?)?"
    r"(?P<offset>[Zz]|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_END_OF_DAY = time(23, 59, 59, tzinfo=UTC)
_START_OF_DAY = time(0, 0, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class When:
    """An instant, in UTC. A whole day counts as its first second (a start) or its last (a deadline), in UTC."""

    at: datetime
    is_day: bool = False

    @classmethod
    def start_of(cls, day: date) -> When:
        """From the beginning of a day."""
        return cls(datetime.combine(day, _START_OF_DAY), is_day=True)

    @classmethod
    def end_of(cls, day: date) -> When:
        """By the end of a day."""
        return cls(datetime.combine(day, _END_OF_DAY), is_day=True)

    @classmethod
    def instant(cls, at: datetime) -> When:
        """From an aware datetime; ValueError when its year is out of range."""
        return cls(at_utc(at))

    def __str__(self) -> str:
        return self.at.date().isoformat() if self.is_day else format_instant(self.at)


def format_instant(at: datetime) -> str:
    """RFC 3339 in UTC: `2026-12-01T08:00:00Z`."""
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def at_utc(at: datetime) -> datetime:
    """The same instant in UTC; ValueError when its year is out of range."""
    check_year(at.year, str(at.year))
    return at.astimezone(UTC)


def check_year(year: int, text: str) -> None:
    """ValueError when a year is out of range."""
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise ValueError(f"{text} is out of range; the year must be between {FIRST_YEAR} and {LAST_YEAR}.")


def parse_day(text: str) -> date:
    """A date, `2026-12-01`; ValueError says what is wrong with it."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_quoted(text)} is not a date; write it as YYYY-MM-DD, such as 2026-12-01.")
    year, month, day = (int(part) for part in match.groups())
    if not 1 <= month <= 12:
        raise ValueError(f"{text} does not exist: a year has 12 months.")
    check_year(year, text)
    days = calendar.monthrange(year, month)[1]
    if not 1 <= day <= days:
        raise ValueError(f"{text} does not exist: {calendar.month_name[month]} {year} has {days} days.")
    return date(year, month, day)


def parse_deadline(text: str) -> When:
    """A day, due at its end, or an instant with its offset."""
    return When.end_of(parse_day(text)) if _DATE.fullmatch(text) else When(parse_instant(text))


def parse_start(text: str) -> When:
    """A day, from its beginning, or an instant with its offset."""
    return When.start_of(parse_day(text)) if _DATE.fullmatch(text) else When(parse_instant(text))


def parse_instant(text: str) -> datetime:
    """A date-time with its offset, as UTC; ValueError says what is wrong with it."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{_quoted(text)} is not a date or a date-time; write 2026-12-01, 2026-12-01T08:00:00Z or "
            "2026-12-01T08:00:00+01:00."
        )
    day = parse_day(match["date"])
    if match["offset"] is None:
        raise ValueError(f"{text} has no offset; add Z for UTC or one such as +01:00.")
    try:
        microsecond = int((match["fraction"] or ".0")[1:7].ljust(6, "0"))
        offset = "+00:00" if match["offset"] in "Zz" else match["offset"]
        clock = time.fromisoformat(f"{match['hour']}:{match['minute']}:{match['second'] or '00'}{offset}")
    except ValueError:
        raise ValueError(f"{text} does not exist: there is no such time of day or offset.") from None
    return at_utc(datetime.combine(day, clock.replace(microsecond=microsecond)))


def _quoted(text: str) -> str:
    return f'"{text[:40]}..."' if len(text) > 40 else f'"{text}"'
