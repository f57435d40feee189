"""Events on their way out: who they belong to, and their headers."""

from __future__ import annotations

from datetime import timedelta

import pytest

from isa.events import TaskCreated
from kernel import telemetry
from kernel.call import CAUSATION, CORRELATION
from kernel.caller import Caller
from kernel.events import stamp, to_record, trace_of
from tests.unit.fakes import NOON, RegistryServer

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_stamp_fills_what_the_publisher_left_empty(alice: Caller) -> None:
    correlation, causation = CORRELATION.set("correlation-1"), CAUSATION.set("event-0")
    try:
        stamped = stamp(TaskCreated(aggregate_id="task-1"), alice, NOON)
    finally:
        CORRELATION.reset(correlation)
        CAUSATION.reset(causation)

    assert len(stamped.event_id) == 36
    assert stamped.occurred_at == NOON
    assert (stamped.org_id, stamped.user_id) == ("org-a", "user-alice")
    assert (stamped.correlation_id, stamped.causation_id) == ("correlation-1", "event-0")
    assert stamped.aggregate_id == "task-1"


def test_a_stamp_changes_nothing_that_is_there(alice: Caller) -> None:
    event = TaskCreated(
        event_id="event-1",
        occurred_at=NOON - timedelta(days=1),
        org_id="org-b",
        user_id="user-bob",
        aggregate_id="task-1",
        correlation_id="c",
        causation_id="event-0",
    )

    assert stamp(event, alice, NOON) == event


def test_two_events_get_two_ids_and_a_correlation_each_outside_a_call(alice: Caller) -> None:
    first, second = (stamp(TaskCreated(aggregate_id="task-1"), alice, NOON) for _ in range(2))

    assert first.event_id != second.event_id
    assert first.correlation_id != second.correlation_id
    assert first.causation_id is None


async def test_a_record_is_a_cloud_event_in_binary_mode(alice: Caller, registry_server: RegistryServer) -> None:
    event = stamp(TaskCreated(aggregate_id="task-1", correlation_id="c", event_id="event-1"), alice, NOON)

    with telemetry.span("call", metadata={"traceparent": TRACEPARENT}):
        record = await to_record(event, registry_server.codec(), source="tasks")

    assert (record.event_id, record.topic, record.key) == ("event-1", "task.created", "task-1")
    assert record.headers.pop("traceparent").split("-")[1] == TRACEPARENT.split("-")[1]
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_id": "event-1",
        "ce_type": "task.created",
        "ce_source": "/isa/tasks",
        "ce_subject": "task-1",
        "ce_time": "2026-03-01T12:00:00+00:00",
        "ce_orgid": "org-a",
        "ce_correlationid": "c",
        "content-type": "application/avro",
    }
    assert await registry_server.codec().decode(record.payload, TaskCreated) == event


async def test_a_caused_event_names_its_cause(alice: Caller, registry_server: RegistryServer) -> None:
    event = stamp(TaskCreated(aggregate_id="task-1", causation_id="event-0"), alice, NOON)

    assert (await to_record(event, registry_server.codec(), source="tasks")).headers["ce_causationid"] == "event-0"


@pytest.mark.parametrize("value", ["", "rubbish", TRACEPARENT.upper(), TRACEPARENT + "\n", TRACEPARENT[:-1]])
def test_only_a_well_formed_trace_is_continued(value: str) -> None:
    assert trace_of({"traceparent": value}) == {}
    assert trace_of({"traceparent": TRACEPARENT, "other": "x"}) == {"traceparent": TRACEPARENT}
    assert trace_of({}) == {}
