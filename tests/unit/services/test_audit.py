"""The audit's chain: a change of any record shows, and says where."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.events import AuditEntry, AuditRecorded, ControlChanged, TaskCreated, TaskUpdated
from services.audit.domain import GENESIS, Check, Fact, Head, Kind, Record, Verdict, canonical, chained
from services.audit.projections import event_fact, facts, line, search_query

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def fact(number: int) -> Fact:
    """Return a fact that is told by its number."""
    return Fact(
        record_id=f"record-{number}",
        kind=Kind.CALL,
        at=NOON + timedelta(seconds=number),
        user_id="user-alice",
        action="POST /v1/tasks",
        resources=(f"task-{number}",),
        outcome="OK",
        detail={"number": number},
    )


def chain(length: int, org_id: str = "org-a") -> list[Record]:
    """Return a chain of facts."""
    return chained(org_id, Head(), [fact(number) for number in range(1, length + 1)])


def head_of(records: Sequence[Record]) -> Head:
    """Return the end of a chain."""
    return Head(seq=records[-1].seq, hash=records[-1].hash)


def checked(records: Sequence[Record], head: Head | None, *, anchors: dict[int, str] | None = None) -> Verdict:
    """Return the verdict on records as they are stored."""
    check = Check("org-a", anchors=anchors)
    for record in records:
        check.add(record)
    return check.verdict(head)


@pytest.mark.ac("phase-v:SEC4:1")
def test_an_untouched_chain_is_intact() -> None:
    records = chain(10)

    verdict = checked(records, head_of(records))

    assert verdict.is_intact
    assert (verdict.records, verdict.head) == (10, head_of(records))


def test_a_chain_that_never_began_is_intact() -> None:
    assert checked([], None).is_intact


def test_a_chain_is_the_same_however_it_was_grown() -> None:
    whole = chain(6)
    first = chained("org-a", Head(), [fact(1), fact(2)])

    grown = first + chained("org-a", head_of(first), [fact(3), fact(4), fact(5), fact(6)])

    assert grown == whole
    assert whole[0].prev_hash == GENESIS


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "user-mallory"},
        {"outcome": "PERMISSION_DENIED"},
        {"resources": ("task-9",)},
        {"at": NOON},
        {"detail": {"number": 0}},
        {"action": "DELETE /v1/tasks"},
        {"record_id": "record-other"},
        {"kind": Kind.EVENT},
    ],
)
def test_a_changed_record_is_named(change: dict[str, object]) -> None:
    records = chain(5)
    head = head_of(records)
    records[2] = replace(records[2], fact=replace(records[2].fact, **change))  # type: ignore[arg-type]  # by name

    broken = checked(records, head).broken

    assert broken is not None
    assert broken.seq == 3
    assert broken.record_id == records[2].fact.record_id
    assert broken.reason.startswith("changed")


def test_a_changed_record_with_a_hash_to_match_breaks_the_next_link() -> None:
    records = chain(5)
    head = head_of(records)
    forged = chained("org-a", Head(seq=2, hash=records[1].hash), [replace(records[2].fact, user_id="user-mallory")])
    records[2] = forged[0]

    broken = checked(records, head).broken

    assert broken is not None
    assert (broken.seq, broken.reason.partition(":")[0]) == (4, "moved")


@pytest.mark.parametrize(("gone", "named"), [((0,), 1), ((2,), 3), ((1, 2), 2)])
def test_a_deleted_record_is_named(gone: tuple[int, ...], named: int) -> None:
    records = chain(5)
    left = [record for position, record in enumerate(records) if position not in gone]

    broken = checked(left, head_of(records)).broken

    assert broken is not None
    assert broken.seq == named
    assert broken.reason.startswith("missing")


def test_swapped_records_are_named() -> None:
    records = chain(5)
    swapped = [*records]
    swapped[1], swapped[2] = replace(records[2], seq=2), replace(records[1], seq=3)

    broken = checked(swapped, head_of(records)).broken

    assert broken is not None
    assert broken.seq == 2


def test_a_chain_that_was_cut_off_is_told_from_its_head() -> None:
    records = chain(5)

    broken = checked(records[:3], head_of(records)).broken

    assert broken is not None
    assert (broken.seq, broken.reason) == (4, "cut off: the chain had 5 records")


def test_a_chain_cut_off_together_with_its_head_is_told_from_the_log_store() -> None:
    records = chain(5)
    anchors = {record.seq: record.hash for record in records}

    broken = checked(records[:3], head_of(records[:3]), anchors=anchors).broken

    assert broken is not None
    assert (broken.seq, broken.reason) == (4, "cut off: the log store knows 5 records")


def test_a_chain_that_was_written_anew_is_told_from_the_log_store() -> None:
    records = chain(5)
    anchors = {record.seq: record.hash for record in records[3:]}
    anew = chained("org-a", Head(), [replace(fact(number), user_id="user-mallory") for number in range(1, 6)])

    verdict = checked(anew, head_of(anew), anchors=anchors)

    assert verdict.broken is not None
    assert verdict.broken.seq == 4
    assert verdict.broken.reason.startswith("rewritten")
    assert checked(records, head_of(records), anchors=anchors).anchored_seq == 5


def test_a_record_of_another_organisation_is_named() -> None:
    records = chain(3)
    records[1] = replace(records[1], org_id="org-b")

    broken = checked(records, head_of(records)).broken

    assert broken is not None
    assert broken.seq == 2


def test_a_record_slipped_in_after_the_end_is_named() -> None:
    records = chain(4)

    broken = checked(records, head_of(records[:3])).broken

    assert broken is not None
    assert (broken.seq, broken.reason) == (4, "added: the chain has 3 records")


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.booleans() | st.none(), max_size=5), st.text())
def test_the_canonical_form_survives_a_round_through_json(detail: dict[str, object], user: str) -> None:
    item = replace(fact(1), detail=detail, user_id=user)

    again = replace(item, detail=json.loads(json.dumps(detail)))

    assert canonical("org-a", 1, item) == canonical("org-a", 1, again)


def test_the_canonical_form_does_not_depend_on_the_zone() -> None:
    elsewhere = fact(1).at.astimezone(timezone(timedelta(hours=9)))

    assert canonical("org-a", 1, fact(1)) == canonical("org-a", 1, replace(fact(1), at=elsewhere))


def created(number: int, **changes: object) -> TaskCreated:
    """Return an event that is told by its number."""
    values: dict[str, object] = {
        "event_id": f"event-{number}",
        "occurred_at": NOON,
        "org_id": "org-a",
        "user_id": "user-alice",
        "aggregate_id": f"task-{number}",
        "correlation_id": "c-1",
        "due_at": NOON + timedelta(days=1),
    }
    return TaskCreated(**{**values, **changes})  # type: ignore[arg-type]  # by name


def call(number: int) -> AuditEntry:
    """Return a call that is told by its number."""
    return AuditEntry(
        record_id=f"call-{number}",
        at=NOON,
        user_id="user-alice",
        workload="",
        service="tasks",
        action="POST /v1/tasks",
        resources=[f"task-{number}"],
        outcome="OK",
        trace_id="t",
        correlation_id="c-1",
    )


def recorded(*numbers: int, event_id: str = "event-1") -> AuditRecorded:
    """Return a batch of calls."""
    return AuditRecorded(
        event_id=event_id,
        occurred_at=NOON,
        org_id="org-a",
        aggregate_id="org-a",
        entries=[call(number) for number in numbers],
    )


@pytest.mark.ac("phase-v:A1.4:1")
def test_an_event_is_a_fact_about_its_aggregate() -> None:
    found = event_fact(created(1, causation_id="event-0"))

    assert found.kind is Kind.EVENT
    assert (found.record_id, found.action, found.resources) == ("event-1", "task.created", ("task-1",))
    assert (found.user_id, found.correlation_id, found.outcome) == ("user-alice", "c-1", "OK")
    assert found.detail == {
        "due_at": "2026-03-02T12:00:00.000000+00:00",
        "priority": None,
        "assignee_id": None,
        "source": "api",
        "aggregate_version": 1,
        "causation_id": "event-0",
    }


def test_a_call_that_comes_in_two_batches_is_one_fact() -> None:
    found = facts([recorded(1, 2), recorded(2, 3, event_id="event-2")])

    assert [item.record_id for item in found] == ["call-1", "call-2", "call-3"]
    assert {item.kind for item in found} == {Kind.CALL}


def test_markers_of_a_starting_replica_are_no_facts() -> None:
    marker = ControlChanged(event_id="m", occurred_at=NOON, aggregate_id="marker-1", kind="marker", state="active")
    suspended = ControlChanged(event_id="s", occurred_at=NOON, aggregate_id="user-bob", kind="user", state="suspended")

    assert [item.record_id for item in facts([marker, suspended])] == ["s"]


def test_text_that_the_database_cannot_hold_is_replaced() -> None:
    event = TaskUpdated(
        event_id="e",
        occurred_at=NOON,
        aggregate_id="task-\0",
        changed=["ti\0tle"],
        status="open",
        org_id="org-a",
    )

    found = event_fact(event)

    assert "\0" not in canonical("org-a", 1, found).decode()


@given(st.text(min_size=1))
def test_a_search_text_stays_a_text(text: str) -> None:
    query = search_query("org-a", text)
    prefix = '{service="audit"} |= "{\\"org_id\\":\\"org-a\\",\\"seq\\":" |= '

    assert query.startswith(prefix)
    assert json.loads(query.removeprefix(prefix)) == text


def test_a_line_begins_with_its_owner_and_carries_the_hash() -> None:
    record = chain(1)[0]

    text = line(record)

    assert text.startswith('{"org_id":"org-a","seq":1,')
    assert json.loads(text)["hash"] == record.hash


def test_nothing_in_a_record_can_pass_for_another_owner() -> None:
    poison = '{"org_id":"org-b","seq":1,'
    record = chained("org-a", Head(), [replace(fact(1), user_id=poison, detail={"text": poison})])[0]

    assert poison not in line(record)
