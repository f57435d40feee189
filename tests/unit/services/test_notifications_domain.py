"""Who hears of what, in whatever order it happened; what a letter says; how long a mail waits."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa.events import (
    Event,
    OrgMemberAdded,
    ReminderTriggered,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
    UserRegistered,
)
from isa_common import PermissionDenied
from services.notifications.domain.deliveries import LONGEST_WAIT, Delivery, wait_after
from services.notifications.domain.digests import DueTask, Waiting, digest, may_run, schedule
from services.notifications.domain.letters import Person, one_line, titles_wanted, write
from services.notifications.domain.notices import Notice, delivery_id, joined, notice_id, welcome
from services.notifications.domain.watches import Watch

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ALICE, BOB = "user-alice", "user-bob"


def envelope(version: int, *, by: str = ALICE, aggregate: str = "task-1") -> dict[str, Any]:
    return {
        "event_id": f"{aggregate}/{version}",
        "occurred_at": NOON + timedelta(minutes=version),
        "org_id": "org-a",
        "user_id": by,
        "aggregate_id": aggregate,
        "aggregate_version": version,
        "correlation_id": f"request-{version}",
    }


def created(*, by: str = ALICE, due_at: datetime | None = None, assignee: str | None = None) -> TaskCreated:
    return TaskCreated(**envelope(1, by=by), due_at=due_at, assignee_id=assignee)


def updated(version: int = 2, *, by: str = BOB, status: str = "open", due_at: datetime | None = None) -> TaskUpdated:
    return TaskUpdated(**envelope(version, by=by), changed=["title"], status=status, due_at=due_at)


def completed(version: int = 2, *, by: str = BOB) -> TaskCompleted:
    return TaskCompleted(**envelope(version, by=by), created_at=NOON)


def deleted(version: int = 3, *, by: str = BOB) -> TaskDeleted:
    return TaskDeleted(**envelope(version, by=by), status="open")


def reminded(*, of: str = ALICE) -> ReminderTriggered:
    return ReminderTriggered(**envelope(1, by=of, aggregate="reminder-1"), task_id="task-1", remind_at=NOON)


def watched(events: list[Event]) -> tuple[Watch, list[Notice]]:
    """What is known, and who was told what, after some events in this order."""
    watch, told = Watch(task_id="task-1"), []
    for event in events:
        watch, notices = watch.see(event)
        told += notices
    return watch, told


def test_the_maker_hears_what_others_do_to_a_task() -> None:
    _, told = watched([created(), updated(), completed(3), deleted(4)])

    assert [(n.recipient_id, n.kind, n.actor_id) for n in told] == [
        (ALICE, "task.updated", BOB),
        (ALICE, "task.completed", BOB),
        (ALICE, "task.deleted", BOB),
    ]


def test_nobody_is_told_of_their_own_deeds() -> None:
    _, told = watched([created(), updated(by=ALICE), completed(3, by=ALICE), deleted(4, by=ALICE)])

    assert told == []


def test_a_completion_that_overtakes_its_creation_is_told_when_the_maker_is_known() -> None:
    unknown, nothing = watched([completed()])
    known, told = unknown.see(created())

    assert nothing == []
    assert [(n.recipient_id, n.kind) for n in told] == [(ALICE, "task.completed")]
    assert known.untold == ()
    assert not known.is_open


HISTORY: list[Event] = [
    created(due_at=NOON, assignee=BOB),
    updated(),
    completed(3),
    updated(4, by=ALICE),
    TaskUpdated(**envelope(5, by=ALICE), changed=["assignee"], status="open", assignee_id="user-carol"),
    deleted(6),
    reminded(),
]


@given(st.permutations(HISTORY))
def test_any_order_tells_the_same_people_the_same_and_ends_in_the_same_state(events: list[Event]) -> None:
    in_order, told_in_order = watched(sorted(events, key=lambda event: event.aggregate_version))

    watch, told = watched(events)

    assert watch == in_order
    assert {n.id: n for n in told} == {n.id: n for n in told_in_order}
    assert len(told) == 6


def test_who_is_given_a_task_is_told_but_not_who_took_it() -> None:
    _, given = watched([created(assignee=BOB)])
    _, taken = watched([created(assignee=ALICE)])

    assert [(n.recipient_id, n.kind, n.actor_id, n.is_mailed) for n in given] == [(BOB, "task.assigned", ALICE, True)]
    assert taken == []


def test_a_change_tells_the_assignee_only_when_it_is_who_changed() -> None:
    assigned = TaskUpdated(**envelope(2), changed=["assignee"], status="open", assignee_id=BOB)
    retitled = TaskUpdated(**envelope(3), changed=["title"], status="open", assignee_id=BOB)

    watch, told = watched([retitled, assigned, created()])

    assert [(n.recipient_id, n.kind) for n in told] == [(BOB, "task.assigned")]
    assert (watch.assignee_id, watch.maker_id) == (BOB, ALICE)


def test_the_maker_who_is_given_the_task_by_another_hears_both() -> None:
    back = TaskUpdated(**envelope(2, by=BOB), changed=["assignee"], status="open", assignee_id=ALICE)

    _, told = watched([created(), back])

    assert sorted(n.kind for n in told) == ["task.assigned", "task.updated"]
    assert len({n.id for n in told}) == 2


def test_a_task_that_no_person_made_concerns_nobody() -> None:
    watch, told = watched([created(by=""), updated(), completed(3)])

    assert (watch.maker_id, told) == ("", [])


def test_a_reminder_goes_to_whom_it_belongs_to_and_by_mail() -> None:
    _, told = watched([reminded(of=BOB), created()])

    assert [(n.recipient_id, n.kind, n.subject_id, n.is_mailed) for n in told] == [
        (BOB, "reminder.triggered", "task-1", True)
    ]


def test_a_reminder_of_nobody_goes_to_the_maker() -> None:
    _, told = watched([reminded(of=""), created()])

    assert [n.recipient_id for n in told] == [ALICE]


def test_a_reopened_task_is_open_again_and_keeps_the_latest_due_date() -> None:
    watch, _ = watched([updated(3, due_at=NOON), created(due_at=NOON + timedelta(days=9)), completed(2)])

    assert (watch.is_open, watch.due_at) == (True, NOON)


def test_a_new_user_is_welcomed_by_mail() -> None:
    notice = welcome(UserRegistered(**envelope(1, aggregate=BOB, by=BOB), role="member"))

    assert (notice.recipient_id, notice.is_mailed, notice.data) == (BOB, True, {"role": "member"})


def test_owners_hear_of_a_new_member_unless_they_did_it() -> None:
    event = OrgMemberAdded(**envelope(2, by=ALICE, aggregate="org-a"), member_id=BOB, role="member")

    assert [n.recipient_id for n in joined(event, owners=[ALICE, BOB, "user-carol"])] == ["user-carol"]


def test_the_same_cause_and_recipient_always_make_the_same_id() -> None:
    assert notice_id("event-1", ALICE) == notice_id("event-1", ALICE)
    assert len({notice_id("event-1", ALICE), notice_id("event-1", BOB), notice_id("event-2", ALICE)}) == 3
    assert delivery_id(notice_id("event-1", ALICE)).removeprefix("delivery-") in notice_id("event-1", ALICE)


def test_a_digest_of_nothing_is_nothing() -> None:
    assert Waiting().is_nothing
    assert not Waiting(unread={"task.completed": 1}).is_nothing
    assert not Waiting(due=[DueTask(task_id="task-1", due_at=NOON)], due_total=1).is_nothing


def test_a_forced_digest_is_another_one() -> None:
    day, waiting = date(2026, 3, 2), Waiting(due_total=1)

    assert digest(ALICE, day, waiting, run=1).id != digest(ALICE, day, waiting, run=2).id


def test_the_digest_is_scheduled_at_its_time_of_day() -> None:
    assert schedule(time(7)) == "0 0 7 * * *"
    assert schedule(time(18, 30, 5)) == "5 30 18 * * *"


@pytest.mark.parametrize("roles", [{"member"}, {"viewer"}, set()])
def test_only_owners_and_admins_run_the_digest(roles: set[str]) -> None:
    may_run(frozenset({"owner"}))
    may_run(frozenset({"admin", "member"}))

    with pytest.raises(PermissionDenied):
        may_run(frozenset(roles))


def delivery(kind: str, *, subject: str = "task-1", data: dict[str, object] | None = None) -> Delivery:
    return Delivery(
        id="delivery-abc",
        org_id="org-a",
        notification_id="notification-abc",
        user_id=ALICE,
        kind=kind,
        subject_id=subject,
        created_at=NOON,
        attempts=1,
        data=data or {},
    )


PERSON = Person(name="Alice Ash", email="alice@example.org")


def test_a_reminder_names_its_task() -> None:
    mail = delivery("reminder.triggered")
    letter = write(mail, PERSON, {"task-1": "Water the plants"}, domain="isa.example")

    assert titles_wanted(mail) == ["task-1"]
    assert letter is not None
    assert letter.subject == "Reminder: Water the plants"
    assert letter.message_id == "<delivery-abc@isa.example>"
    assert "Hello Alice Ash," in letter.text
    assert "Water the plants" in letter.text


def test_a_reminder_of_a_task_that_is_gone_is_not_written() -> None:
    assert write(delivery("reminder.triggered"), PERSON, {}, domain="isa.example") is None


def test_a_title_can_neither_add_a_header_nor_markup() -> None:
    title = "Hi\r\nBcc: everybody@example.org\u2028<script>alert(1)</script>"
    letter = write(delivery("reminder.triggered"), PERSON, {"task-1": title}, domain="isa.example")

    assert letter is not None
    assert "\n" not in letter.subject
    assert "\r" not in letter.subject
    assert "<script>" not in letter.html


def test_a_digest_lists_what_is_due_and_counts_what_is_unread() -> None:
    notice = digest(
        ALICE,
        date(2026, 3, 2),
        Waiting(
            unread={"task.completed": 2, "org.member.added": 1},
            due=[DueTask(task_id="task-1", due_at=NOON), DueTask(task_id="task-gone", due_at=NOON)],
            due_total=25,
        ),
        run=1,
    )
    mail = delivery("digest", subject=notice.subject_id, data=notice.data)

    letter = write(mail, PERSON, {"task-1": "Water the plants"}, domain="isa.example")

    assert titles_wanted(mail) == ["task-1", "task-gone"]
    assert letter is not None
    assert letter.subject == "Your day, 2026-03-02: 24 due, 3 unread"
    assert "2026-03-02 12:00  Water the plants" in letter.text
    assert "task-gone" not in letter.text
    assert "and 23 more" in letter.text
    assert "2 tasks of yours completed by others" in letter.text
    assert "1 new member" in letter.text


def test_a_digest_whose_tasks_are_all_gone_is_not_written() -> None:
    notice = digest(ALICE, date(2026, 3, 2), Waiting(due=[DueTask(task_id="t", due_at=NOON)], due_total=1), run=1)

    assert write(delivery("digest", data=notice.data), PERSON, {}, domain="isa.example") is None


def test_who_wants_no_digest_still_gets_reminders() -> None:
    person = Person(name="", email="a@example.org", wants_digest=False)

    assert person.wants("reminder.triggered")
    assert not person.wants("digest")
    assert not Person(name="", email="a@example.org", wants_mail=False).wants("reminder.triggered")


@given(st.text())
def test_a_line_of_a_letter_is_one_line(text: str) -> None:
    line = one_line(text, 50)

    assert len(line) <= 50
    assert len(line.splitlines()) <= 1


@given(st.integers(1, 10_000))
def test_a_mail_waits_longer_each_time_but_never_long(attempts: int) -> None:
    assert timedelta(0) < wait_after(attempts) <= wait_after(attempts + 1) <= LONGEST_WAIT
