"""todo.txt, line by line."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.tasks.domain.intake import Draft, Line, Outcome
from services.tasks.domain.task import Status
from services.tasks.domain.todotxt import TodoItem, format_item, parse_line, read_todo_txt

NOW = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
EXAMPLE = Path(__file__).parents[3] / "examples" / "spoke-and-bean-todo.txt"


def read(text: str | bytes) -> list[Line]:
    """Return the lines of a file."""
    return read_todo_txt(text if isinstance(text, bytes) else text.encode(), now=NOW)


def draft_of(line: str) -> Draft:
    """Return what one line offers."""
    (found,) = read(line)
    assert found.draft is not None, found.reason
    return found.draft


def test_a_full_line_is_taken_apart() -> None:
    draft = draft_of(
        "(B) 2026-11-01 Call Ann about +Fleet bikes @phone +Money due:2026-12-01 t:2026-11-25 rec:+1w est:5m"
    )

    assert draft.title == "Call Ann about +Fleet bikes @phone +Money est:5m"
    assert (draft.priority, draft.recurrence, draft.status) == ("B", "+1w", Status.OPEN)
    assert (str(draft.due), str(draft.start)) == ("2026-12-01", "2026-11-25")
    assert (draft.projects, draft.contexts) == (("Fleet", "Money"), ("phone",))
    assert draft.created_at == datetime(2026, 11, 1, tzinfo=UTC)


def test_labels_that_trail_the_text_are_not_part_of_the_title() -> None:
    assert draft_of("Water the ficus @shop +Green rec:5d").title == "Water the ficus"


def test_a_done_line_has_both_dates_and_its_old_priority() -> None:
    draft = draft_of("x 2026-11-10 2026-11-02 Pay rent pri:A")

    assert (draft.status, draft.priority, draft.title) == (Status.DONE, "A", "Pay rent")
    assert (draft.done_at, draft.created_at) == (
        datetime(2026, 11, 10, tzinfo=UTC),
        datetime(2026, 11, 2, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("line", "title"),
    [
        ("xylophone lesson", "xylophone lesson"),
        ("X marks the spot", "X marks the spot"),
        ("(AA) too much", "(AA) too much"),
        ("(A)no blank", "(A)no blank"),
        ("Really gotta call Mom (A) @phone", "Really gotta call Mom (A)"),
        ("2 + 2 @ home", "2 + 2 @ home"),
        ("mail bob@example.org", "mail bob@example.org"),
        ("see https://example.org/t/1", "see https://example.org/t/1"),
        ("rent due: friday", "rent due: friday"),
        ("pri:high matters", "pri:high matters"),
    ],
)
def test_what_only_looks_like_a_mark_stays_text(line: str, title: str) -> None:
    draft = draft_of(line)

    assert (draft.title, draft.priority, draft.status) == (title, None, Status.OPEN)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("2025-02-30 Pay", "2025-02-30 does not exist"),
        ("Pay due:2025-02-30", "due: 2025-02-30 does not exist"),
        ("Pay t:2025-13-01", "t: 2025-13-01 does not exist"),
        ("Pay due:tomorrow", 'due: "tomorrow" is not a date'),
        ("Pay due:2026-12-01T10:00:00", "has no offset"),
        ("Pay due:2026-12-01 due:2026-12-02", "2 values for due"),
        ("(A) +Shop @home due:2026-12-01", "has no title"),
        ("x", "has no title"),
        ("y" * 501, "501 characters"),
        ("Pay \x07", "control character U\\+0007"),
        (b"caf\xe9", "Byte 4 is not UTF-8"),
    ],
)
def test_a_bad_line_is_refused_with_the_reason_and_spoils_no_other(line: str | bytes, reason: str) -> None:
    raw = line if isinstance(line, bytes) else line.encode()

    before, bad, after = read(b"before\n" + raw + b"\nafter")

    assert (before.outcome, after.outcome) == (None, None)
    assert bad.outcome is Outcome.REFUSED
    assert re.search(reason, bad.reason), bad.reason


@pytest.mark.parametrize(
    ("line", "remark"),
    [
        ("(c) small", "The priority (c) was read as (C)."),
        ("X 2026-11-01 done", "upper-case X"),
        ("x done", "no completion date"),
        ("2027-01-01 later", "creation date 2027-01-01 lies in the future"),
        ("x 2027-01-01 2026-01-01 later", "completion date 2027-01-01 lies in the future"),
        ("x 2026-01-01 2026-02-01 swapped", "lies after the completion date"),
    ],
)
def test_what_is_read_differently_is_taken_with_a_remark(line: str, remark: str) -> None:
    (found,) = read(line)

    assert found.draft is not None
    assert remark in found.reason
    assert found.draft.created_at <= (found.draft.done_at or NOW) <= NOW


def test_line_ends_marks_and_blanks_of_all_systems_are_read() -> None:
    lines = read(b"\xef\xbb\xbfone\r\ntwo\rthree\n\n \t\n\xef\xbb\xbf(B)\tfour  five\n")

    titles = [line.draft.title for line in lines if line.draft]
    assert titles == ["one", "two", "three", "four five"]
    assert [line.number for line in lines if line.outcome is Outcome.SKIPPED] == [4, 5]


def test_a_repeated_line_is_already_there() -> None:
    _, again, other = read("Buy milk @shop\nBuy  milk\t@shop\nBuy milk")

    assert (again.outcome, again.reason) == (Outcome.ALREADY_THERE, "Repeats line 1.")
    assert other.outcome is None


@pytest.mark.parametrize(
    ("data", "message"),
    [("a".encode("utf-16"), "UTF-16"), (b"PK\x03\x04\0\0\0", "not text"), (b"a\n" * 10_001, "more than 10,000")],
)
def test_what_is_no_such_file_is_refused_whole(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(data)


words = st.text(
    st.characters(exclude_categories=("Cc", "Cs", "Z"), exclude_characters="\ufeff"), min_size=1, max_size=12
).filter(lambda word: len(word.split()) == 1)
days = st.dates(min_value=date(1900, 1, 1), max_value=date(9998, 12, 31))


@st.composite
def items(draw: st.DrawFn) -> TodoItem:
    """Items that a line can say: a text that begins like a mark would be read as one."""
    is_done = draw(st.booleans())
    completed_on = draw(st.none() | days) if is_done else None
    may_have_created = not is_done or completed_on is not None
    return TodoItem(
        text="Do " + " ".join(draw(st.lists(words, max_size=6))) if draw(st.booleans()) else "Do",
        is_done=is_done,
        priority=draw(st.none() | st.sampled_from("ABCXYZ")),
        completed_on=completed_on,
        created_on=draw(st.none() | days) if may_have_created else None,
    )


@given(items())
def test_every_item_reads_as_it_is_written(item: TodoItem) -> None:
    clean = TodoItem(
        text=" ".join(item.text.split()),
        is_done=item.is_done,
        priority=item.priority,
        completed_on=item.completed_on,
        created_on=item.created_on,
    )

    assert parse_line(format_item(clean)) == clean


@given(st.text(max_size=80))
@example("x (A) 2026-01-01 2026-01-01 2026-01-01 x")
@example("(A) x (B) y")
def test_every_line_that_can_be_read_is_stable(line: str) -> None:
    try:
        item = parse_line(line)
    except ValueError:
        return
    assert parse_line(format_item(item)) == item


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    try:
        lines = read(data)
    except ValueError:
        return
    assert all((line.outcome is None) == (line.draft is not None) for line in lines)


def test_the_example_is_as_messy_as_files_are() -> None:
    lines = read(EXAMPLE.read_bytes())

    count = {kind: sum(line.outcome is kind for line in lines) for kind in (None, *Outcome)}
    assert len(lines) >= 300
    assert count[None] >= 280
    assert count[Outcome.REFUSED] >= 10
    assert count[Outcome.ALREADY_THERE] >= 3
    assert count[Outcome.SKIPPED] >= 3
