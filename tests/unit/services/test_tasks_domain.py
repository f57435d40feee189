"""Tasks, times and reminders: what is true without a computer."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tasks.domain import task as rules
from services.tasks.domain.reminder import Reminder, State, check_remind_at
from services.tasks.domain.task import AlreadyDone, AlreadyOpen, Status, Task
from services.tasks.domain.when import When, parse_day, parse_deadline, parse_instant, parse_start

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)


def given_task(**fields: object) -> Task:
    """Return a task of version 1, open."""
    plain = {"id": "task-a", "title": "Order tubes", "created_by": "user-a", "created_at": NOW, "updated_at": NOW}
    return Task(**{**plain, **fields})  # type: ignore[arg-type]


def test_completing_moves_the_version_and_notes_the_time() -> None:
    done = given_task().complete(at=NOW + timedelta(hours=1))

    assert (done.status, done.version, done.done_at) == (Status.DONE, 2, NOW + timedelta(hours=1))


def test_completing_a_done_task_is_refused() -> None:
    with pytest.raises(AlreadyDone, match="task-a is already done"):
        given_task(status=Status.DONE).complete(at=NOW)


def test_reopening_forgets_when_it_was_done() -> None:
    reopened = given_task().complete(at=NOW).reopen(at=NOW)

    assert (reopened.status, reopened.version, reopened.done_at) == (Status.OPEN, 3, None)


def test_reopening_an_open_task_is_refused() -> None:
    with pytest.raises(AlreadyOpen):
        given_task().reopen(at=NOW)


def test_a_change_names_what_changed_and_nothing_else() -> None:
    changed, names = given_task(priority="B").change(at=NOW, title="Order tyres", priority="B")

    assert (changed.title, changed.version, names) == ("Order tyres", 2, ["title"])


def test_a_change_of_nothing_keeps_the_version() -> None:
    task = given_task(notes="n")

    assert task.change(at=NOW, notes="n") == (task, [])


@pytest.mark.parametrize(
    ("title", "message"),
    [
        ("", "The title is empty"),
        (" \t ", "The title is empty"),
        ("\u200b\u200d", "The title is empty"),
        ("x" * 501, "has 501 characters; at most 500"),
        ("a\x00b", r"U\+0000 at position 2"),
        ("a\nb", r"U\+000A at position 2"),
        ("a\x7fb", r"U\+007F"),
        ("a\u2028b", r"U\+2028"),
        ("a\ud800b", r"U\+D800"),
    ],
)
def test_a_bad_title_is_refused_with_the_reason(title: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rules.check_title(title)


@pytest.mark.parametrize("title", ["  Call Ann ", "客户的自行车", "café ☕ 👩‍🔧", "x" * 500, "RTL \u202btext\u202c"])
def test_a_good_title_loses_only_the_blanks_around_it(title: str) -> None:
    assert rules.check_title(title) == title.strip()


def test_notes_may_have_lines_and_tabs_but_no_bells() -> None:
    assert rules.check_notes("a\r\n\tb\n") == "a\n\tb\n"
    with pytest.raises(ValueError, match=r"U\+0007"):
        rules.check_notes("a\x07")
    with pytest.raises(ValueError, match="10,001 characters"):
        rules.check_notes("n" * 10_001)


@pytest.mark.parametrize("priority", ["a", "AA", "", "1", "Å"])
def test_a_priority_is_one_capital_letter(priority: str) -> None:
    with pytest.raises(ValueError, match="from A"):
        rules.check_priority(priority)


def test_labels_are_kept_once_and_in_order() -> None:
    assert rules.check_labels(["b", " a", "b"]) == ("b", "a")
    with pytest.raises(ValueError, match="51 labels"):
        rules.check_labels(f"l{n}" for n in range(51))
    with pytest.raises(ValueError, match="label is empty"):
        rules.check_labels([" "])


def test_an_assignee_is_the_id_of_a_user() -> None:
    assert rules.check_assignee("user-1a") == "user-1a"
    with pytest.raises(ValueError, match="not the id of a user"):
        rules.check_assignee("hanna")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2025-02-30", "February 2025 has 28 days"),
        ("2024-02-30", "February 2024 has 29 days"),
        ("2026-13-01", "a year has 12 months"),
        ("2026-00-10", "a year has 12 months"),
        ("0000-01-01", "out of range"),
        ("9999-01-01", "out of range"),
        ("26-1-1", "not a date"),
        ("tomorrow", "not a date"),
        ("\uff12\uff10\uff12\uff16-01-01", "not a date"),
    ],
)
def test_a_day_that_does_not_exist_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_day(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2026-12-01T10:00:00", "has no offset"),
        ("2026-12-01T24:00:00Z", "no such time of day"),
        ("2026-12-01T10:61:00Z", "no such time of day"),
        ("2026-12-01T10:00:00+25:00", "no such time of day or offset"),
        ("2025-02-30T10:00:00Z", "February 2025"),
        ("2026-12-01T10", "is not a date or a date-time"),
        ("", "is not a date or a date-time"),
        ("x" * 2_000_000, "x\\.\\.\\."),
    ],
)
def test_an_instant_that_cannot_be_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        parse_instant(text)
    assert len(str(error.value)) < 250


def test_an_instant_is_kept_in_utc() -> None:
    assert parse_instant("2026-12-01T10:00:00.123456789+01:00") == datetime(2026, 12, 1, 9, 0, 0, 123456, tzinfo=UTC)
    assert str(parse_deadline("2026-12-01t10:00z")) == "2026-12-01T10:00:00Z"


def test_a_date_is_due_at_its_end_and_starts_at_its_beginning() -> None:
    due, start = parse_deadline("2026-12-01"), parse_start("2026-12-01")

    assert (str(due), str(start)) == ("2026-12-01", "2026-12-01")
    assert due.at - start.at == timedelta(hours=23, minutes=59, seconds=59)


@given(st.dates(min_value=date(1900, 1, 1), max_value=date(9998, 12, 31)))
def test_every_date_reads_as_it_is_shown(day: date) -> None:
    assert parse_deadline(str(When.end_of(day))) == When.end_of(day)
    assert parse_start(str(When.start_of(day))) == When.start_of(day)


@given(
    st.datetimes(
        min_value=datetime(1900, 1, 2),  # noqa: DTZ001 -- hypothesis adds the zone
        max_value=datetime(9998, 12, 30),  # noqa: DTZ001
        timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    )
)
def test_every_instant_reads_as_it_is_shown(at: datetime) -> None:
    assert parse_deadline(str(When.instant(at))) == When.instant(at)


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_times(text: str) -> None:
    try:
        parse_deadline(text)
    except ValueError as error:
        assert str(error).endswith(".")


def test_a_reminder_is_due_when_its_time_has_come_and_fires_once() -> None:
    reminder = Reminder(id="reminder-a", task_id="task-a", user="user-a", remind_at=NOW)

    assert not reminder.is_due(NOW - timedelta(seconds=2))
    assert reminder.is_due(NOW)
    fired = reminder.fire(at=NOW)
    assert (fired.state, fired.version) == (State.FIRED, 2)
    assert not fired.is_due(NOW)


def test_a_reminder_lies_in_the_future_and_not_too_far() -> None:
    with pytest.raises(ValueError, match="has passed"):
        check_remind_at(NOW, NOW)
    with pytest.raises(ValueError, match="ten years"):
        check_remind_at(NOW + timedelta(days=4000), NOW)
    assert check_remind_at(NOW + timedelta(seconds=1), NOW)
