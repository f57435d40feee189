"""Lines of JSON become events, or are refused by the name of what is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
import typer

from cli.events import PARTITIONER, event_class, event_of, events_in, producer_of
from isa.events import AuditRecorded, TaskCreated


def test_a_line_becomes_the_typed_event() -> None:
    line = {"aggregate_id": "task-1", "org_id": "org-a", "due_at": "2026-03-01T12:00:00Z", "priority": "A"}

    (event,) = events_in("task.created", [json.dumps(line), ""])

    assert event == TaskCreated(
        aggregate_id="task-1", org_id="org-a", due_at=datetime(2026, 3, 1, 12, tzinfo=UTC), priority="A"
    )


def test_nested_records_are_typed_too() -> None:
    entry = {
        "record_id": "r", "at": "2026-03-01T12:00:00Z", "user_id": "", "workload": "", "service": "tasks",
        "action": "x", "resources": ["task-1"], "outcome": "OK", "trace_id": "", "correlation_id": "",
    }  # fmt: skip

    event = event_of("audit.recorded", {"aggregate_id": "org-a", "entries": [entry]}, "Line 1")

    assert isinstance(event, AuditRecorded)
    assert event.entries[0].at == datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"aggregate_id": "task-1", "titel": "x"}', "Line 1: task.created has no field 'titel'"),
        ('{"aggregate_id": "task-1", "due_at": "2026-02-30T00:00:00Z"}', "Line 1: due_at"),
        ('{"org_id": "org-a"}', "Line 1: aggregate_id"),
        ("{", "Line 1 is no JSON"),
    ],
)
def test_a_line_that_is_no_event_says_why(line: str, told: str) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        list(events_in("task.created", [line]))


def test_dead_letters_have_the_class_of_their_topic() -> None:
    assert event_class("task.created.dlq") is TaskCreated


def test_a_topic_that_is_none_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match=r"There is no topic 'task\.made'"):
        event_class("task.made")


def test_keys_are_put_where_the_sidecar_puts_them() -> None:
    assert PARTITIONER == "fnv1a_random"
    producer_of("127.0.0.1:1")  # librdkafka knows the name
