"""VTODOs of calendars."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tasks.domain.ical import named_zone, read_calendar
from services.tasks.domain.intake import Draft, Line, Outcome
from services.tasks.domain.task import Status

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[3] / "examples" / "spoke-and-bean-workshop.ics"


def calendar(*components: str, head: str = "") -> bytes:
    """Return a calendar of components."""
    text = f"BEGIN:VCALENDAR\nVERSION:2.0\n{head}" + "\n".join(components) + "\nEND:VCALENDAR\n"
    return text.replace("\n", "\r\n").encode()


def todo(*lines: str, uid: str = "1") -> str:
    """Return a VTODO."""
    return "\n".join(["BEGIN:VTODO", f"UID:{uid}", *lines, "END:VTODO"])


def read_one(*lines: str, head: str = "") -> Line:
    """Return the line of a calendar with one VTODO."""
    (found,) = read_calendar(calendar(todo(*lines), head=head), now=NOW)
    return found


def draft_of(*lines: str, head: str = "") -> Draft:
    """Return what one VTODO offers."""
    found = read_one(*lines, head=head)
    assert found.draft is not None, found.reason
    return found.draft


def test_a_full_to_do_is_taken() -> None:
    draft = draft_of(
        "SUMMARY:Order \\, tubes\\; two",
        "  boxes",
        "DESCRIPTION:One\\nTwo",
        "LOCATION:Shop",
        "DUE;TZID=Europe/Berlin:20261201T100000",
        "DTSTART;VALUE=DATE:20261130",
        "PRIORITY:1",
        "CATEGORIES:Stock,Coffee bar",
        "CATEGORIES:Stock",
        "RRULE:FREQ=WEEKLY;BYDAY=MO",
        "CREATED:20261101T080000Z",
    )

    assert (draft.title, draft.notes) == ("Order , tubes; two boxes", "One\nTwo\nLocation: Shop")
    assert (str(draft.due), str(draft.start)) == ("2026-12-01T09:00:00Z", "2026-11-30")
    assert (draft.priority, draft.tags, draft.recurrence) == ("A", ("Stock", "Coffee bar"), "FREQ=WEEKLY;BYDAY=MO")
    assert draft.created_at == datetime(2026, 11, 1, 8, tzinfo=UTC)


def test_a_completed_to_do_is_done() -> None:
    draft = draft_of("SUMMARY:s", "STATUS:COMPLETED", "COMPLETED:20261101T080000Z")

    assert (draft.status, draft.done_at) == (Status.DONE, datetime(2026, 11, 1, 8, tzinfo=UTC))


@pytest.mark.parametrize(
    ("trigger", "at"),
    [
        ("TRIGGER:-PT15M", "2026-12-01T07:45"),
        ("TRIGGER;RELATED=END:-PT15M", "2026-12-01T09:45"),
        ("TRIGGER:PT5M", "2026-12-01T08:05"),
        ("TRIGGER:-P1W", "2026-11-24T08:00"),
        ("TRIGGER;VALUE=DATE-TIME:20261130T070000Z", "2026-11-30T07:00"),
    ],
)
def test_an_alarm_becomes_a_reminder(trigger: str, at: str) -> None:
    draft = draft_of(
        "SUMMARY:s",
        "DTSTART:20261201T080000Z",
        "DUE:20261201T100000Z",
        "BEGIN:VALARM",
        "ACTION:DISPLAY",
        trigger,
        "END:VALARM",
    )

    assert [f"{each:%Y-%m-%dT%H:%M}" for each in draft.reminders] == [at]


def test_an_alarm_that_has_passed_or_cannot_be_read_is_left_out_with_a_remark() -> None:
    found = read_one(
        "SUMMARY:s",
        "DUE:20261122T080000Z",
        "BEGIN:VALARM",
        "TRIGGER:-P7D",
        "END:VALARM",
        "BEGIN:VALARM",
        "TRIGGER:soon",
        "END:VALARM",
    )

    assert found.draft is not None
    assert found.draft.reminders == ()
    assert "has passed" in found.reason
    assert 'TRIGGER: "soon" is not a duration' in found.reason


def test_a_duration_counts_from_the_start() -> None:
    assert str(draft_of("SUMMARY:s", "DTSTART:20261201T080000Z", "DURATION:PT90M").due) == "2026-12-01T09:30:00Z"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("DUE;VALUE=DATE:20250230", "DUE: 20250230 does not exist"),
        ("DUE:20261201T250000Z", "does not exist"),
        ("DUE:next week", "is not a date"),
        ("DUE;TZID=Mars/Base:20261201T080000", 'time zone "Mars/Base" is not known'),
        ("DUE;TZID=../../etc/passwd:20261201T080000", "is not known"),
        ("PRIORITY:high", "PRIORITY"),
        ("PRIORITY:10", "PRIORITY"),
        ("STATUS:MAYBE", "STATUS"),
        ("STATUS:CANCELLED", "cancelled"),
        ("DURATION:PT1H", "no DTSTART"),
        ("SUMMARY:again", "more than one SUMMARY"),
        ("nonsense", 'Line 6 is not a property.*"nonsense"'),
        (f"DESCRIPTION:{'n' * 10_001}", "10,001 characters"),
    ],
)
def test_a_broken_to_do_is_refused_alone(line: str, reason: str) -> None:
    data = calendar(todo("SUMMARY:bad", line), todo("SUMMARY:good", uid="2"))

    bad, good = read_calendar(data, now=NOW)

    assert (bad.number, bad.outcome) == (3, Outcome.REFUSED)
    assert re.search(reason, bad.reason), bad.reason
    assert good.draft is not None


def test_a_to_do_without_a_title_is_refused() -> None:
    assert "SUMMARY" in read_one("DUE:20261201T080000Z").reason


def test_a_to_do_that_is_never_ended_spoils_no_other() -> None:
    data = calendar("BEGIN:VTODO\nUID:1\nSUMMARY:cut", todo("SUMMARY:good", uid="2"), "BEGIN:VTODO\nSUMMARY:cut too")

    lines = read_calendar(data, now=NOW)

    assert [line.outcome for line in lines] == [Outcome.REFUSED, None, Outcome.REFUSED]
    assert "no END:VTODO" in lines[0].reason


def test_folded_characters_are_put_together_again() -> None:
    raw = calendar(todo("SUMMARY:Café crème")).replace("é crè".encode(), b"\xc3\r\n \xa9 cr\xc3\r\n\t\xa8")

    (line,) = read_calendar(raw, now=NOW)

    assert line.draft is not None
    assert line.draft.title == "Café crème"


def test_other_components_are_left_alone() -> None:
    event = "BEGIN:VEVENT\nSUMMARY:party\nBEGIN:VALARM\nTRIGGER:-PT5M\nEND:VALARM\nEND:VEVENT"

    lines = read_calendar(calendar(event, todo("SUMMARY:s")), now=NOW)

    assert [line.outcome for line in lines] == [Outcome.SKIPPED, None]


def test_the_same_uid_is_taken_once_and_an_exception_of_it_too() -> None:
    data = calendar(
        todo("SUMMARY:a"),
        todo("SUMMARY:b"),
        todo("SUMMARY:c", "RECURRENCE-ID:20261201T080000Z"),
        todo("SUMMARY:d", uid="2"),
    )

    outcomes = [line.outcome for line in read_calendar(data, now=NOW)]

    assert outcomes == [None, Outcome.ALREADY_THERE, None, None]


ZONE = """BEGIN:VTIMEZONE
TZID:{name}
BEGIN:STANDARD
DTSTART:19700101T000000
TZOFFSETFROM:{offset}
TZOFFSETTO:{offset}
{rule}END:STANDARD
END:VTIMEZONE
"""


def test_a_zone_of_the_file_counts_in_this_file_only() -> None:
    lines = ("SUMMARY:s", "DUE;TZID=Ours:20261201T100000")

    first = draft_of(*lines, head=ZONE.format(name="Ours", offset="+0300", rule=""))
    second = draft_of(*lines, head=ZONE.format(name="Ours", offset="-0500", rule=""))

    assert (str(first.due), str(second.due)) == ("2026-12-01T07:00:00Z", "2026-12-01T15:00:00Z")
    assert "is not known" in read_one(*lines).reason


def test_a_zone_that_would_take_for_ever_is_not_computed() -> None:
    zone = ZONE.format(name="Ours", offset="+0300", rule="RRULE:FREQ=SECONDLY\n")

    assert "is not known" in read_one("SUMMARY:s", "DUE;TZID=Ours:20261201T100000", head=zone).reason


def test_a_zone_of_the_file_reaches_far_ahead() -> None:
    zone = ZONE.format(name="Ours", offset="+0300", rule="RRULE:FREQ=YEARLY;BYMONTH=1;BYDAY=1SU\n")

    due = draft_of("SUMMARY:s", "DUE;TZID=Ours:40000229T100000", head=zone).due

    assert str(due) == "4000-02-29T07:00:00Z"


def test_a_huge_to_do_is_refused_without_being_read() -> None:
    assert "262,144 bytes" in read_one("SUMMARY:s", *["X-A:b"] * 60_000).reason


@pytest.mark.parametrize(
    "name", ["Europe/Berlin", "W. Europe Standard Time", "/mozilla.org/20050126_1/Europe/Berlin", '"Europe/Berlin"']
)
def test_a_zone_is_known_by_many_names(name: str) -> None:
    zone = named_zone(name)

    assert zone is not None
    assert datetime(2026, 12, 1, tzinfo=zone).utcoffset() == datetime(2026, 12, 1, 1, tzinfo=UTC) - datetime(
        2026, 12, 1, tzinfo=UTC
    )


def test_a_time_without_a_zone_is_that_of_the_calendar_or_utc() -> None:
    lines = ("SUMMARY:s", "DUE:20261201T100000")

    assert str(draft_of(*lines, head="X-WR-TIMEZONE:Europe/Berlin\n").due) == "2026-12-01T09:00:00Z"
    assert "DUE has no time zone; it was read as UTC." in read_one(*lines).reason


@pytest.mark.parametrize("data", [b"", b"hello", b"<html>", b"BEGIN:VTODO\nSUMMARY:s\nEND:VTODO"])
def test_what_is_no_calendar_is_refused_whole(data: bytes) -> None:
    with pytest.raises(ValueError, match="no calendar"):
        read_calendar(data, now=NOW)


@given(
    st.lists(
        st.sampled_from(
            [
                b"BEGIN:VTODO", b"END:VTODO", b"BEGIN:VALARM", b"END:VALARM", b"BEGIN:VCALENDAR", b"END:VCALENDAR",
                b"SUMMARY:s", b"UID:1", b"DUE:20261201T080000Z", b"DUE:00010101T000000Z", b"DUE;TZID=:20261201T080000",
                b"DTSTART;VALUE=DATE:99980101", b"DURATION:P9999W", b"TRIGGER:-P99999999D", b"TRIGGER;RELATED=END:PT1H",
                b"END:", b":", b" fold", b"BEGIN:VTIMEZONE", b"TZID:x", b"END:VTIMEZONE", b"\xff\xfe",
                b"RRULE:FREQ=DAILY", b"X-WR-TIMEZONE:Nowhere", b"STATUS:COMPLETED", b"COMPLETED:20990101T000000Z",
            ]
        ),
        max_size=25,
    )
)  # fmt: skip
def test_no_calendar_breaks_the_reader(lines: list[bytes]) -> None:
    for line in read_calendar(b"\n".join([b"BEGIN:VCALENDAR", b"VERSION:2.0", *lines]), now=NOW):
        assert (line.outcome is None) == (line.draft is not None)


def test_an_end_of_nothing_is_passed_over() -> None:
    (line,) = read_calendar(b"BEGIN:VCALENDAR\nBEGIN:VTODO\nSUMMARY:s\nEND:\nEND:VTODO\nEND:VCALENDAR", now=NOW)

    assert line.draft is not None


def test_the_example_is_as_messy_as_files_are() -> None:
    lines = read_calendar(EXAMPLE.read_bytes(), now=NOW)

    assert sum(line.draft is not None for line in lines) >= 60
    assert sum(line.outcome is Outcome.REFUSED for line in lines) >= 8
    assert sum(len(line.draft.reminders) for line in lines if line.draft) >= 15
