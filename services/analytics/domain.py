"""What may be asked of the figures."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from isa_common import InvalidArgument

LONGEST_PERIOD = timedelta(days=366)
DEFAULT_PERIOD = timedelta(days=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Days from first to last, both included."""

    first: date
    last: date

    @classmethod
    def of(cls, first: date | None, last: date | None, *, today: date) -> Period:
        """Fill what is left out (the 30 days up to today), and refuse what is too long or the wrong way round."""
        end = last or today
        start = first or date.fromordinal(max(1, end.toordinal() - DEFAULT_PERIOD.days + 1))
        if start > end:
            raise InvalidArgument("The first day is after the last (today, when none is given).", field="from")
        if end - start >= LONGEST_PERIOD:
            raise InvalidArgument("A period has at most 366 days: ask for less at a time.", field="to")
        return cls(first=start, last=end)
