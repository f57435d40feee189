"""Events and calls as facts of the audit, and records as lines of the log store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from isa.events import AuditEntry, AuditRecorded, ControlChanged, Event
from services.audit.domain import PLATFORM, Fact, Kind, Record

ENVELOPE = {item.name for item in fields(Event)}
MARKER = "marker"
"""Kind of a control change that only tells a starting replica how far it has read."""


def chain_of(org_id: str) -> str:
    """Return the chain that an event belongs to."""
    return org_id or PLATFORM


def facts(events: list[Event], trace_of: Callable[[str], str] = lambda _: "") -> list[Fact]:
    """Return what events tell, in their order, each fact once; `trace_of` gives an event's trace by its id."""
    found: dict[str, Fact] = {}
    for event in events:
        match event:
            case AuditRecorded():
                for entry in event.entries:
                    found.setdefault(entry.record_id, call_fact(entry))
            case ControlChanged(kind=kind) if kind == MARKER:
                continue
            case _:
                found.setdefault(event.event_id, event_fact(event, trace_id=trace_of(event.event_id)))
    return list(found.values())


def call_fact(entry: AuditEntry) -> Fact:
    """Return a call as a fact."""
    return Fact(
        record_id=clean(entry.record_id),
        kind=Kind.CALL,
        at=entry.at,
        user_id=clean(entry.user_id),
        workload=clean(entry.workload),
        service=clean(entry.service),
        action=clean(entry.action),
        resources=tuple(clean(resource) for resource in entry.resources),
        outcome=clean(entry.outcome),
        trace_id=clean(entry.trace_id),
        correlation_id=clean(entry.correlation_id),
    )


def event_fact(event: Event, *, trace_id: str = "") -> Fact:
    """Return an event as a fact; what it is about is its aggregate, and the ids in its payload."""
    payload = {name: plain(getattr(event, name)) for name in payload_names(event)}
    ids = [str(value) for name, value in payload.items() if name.endswith("_id") and value]
    detail = {**payload, "aggregate_version": event.aggregate_version}
    if event.causation_id:
        detail["causation_id"] = clean(event.causation_id)
    assert event.occurred_at is not None, "the schema says so"
    return Fact(
        record_id=clean(event.event_id),
        kind=Kind.EVENT,
        at=event.occurred_at,
        user_id=clean(event.user_id),
        action=event.TOPIC,
        resources=tuple(dict.fromkeys([clean(event.aggregate_id), *ids])),
        outcome="OK",
        trace_id=trace_id,
        correlation_id=clean(event.correlation_id),
        detail=detail,
    )


def payload_names(event: Event) -> list[str]:
    """Return the fields that are the event's own."""
    return [item.name for item in fields(event) if item.name not in ENVELOPE]


def plain(value: Any) -> Any:
    """Return a value of an event as JSON has it."""
    match value:
        case str():
            return clean(value)
        case datetime():
            return value.astimezone(UTC).isoformat(timespec="microseconds")
        case list() | tuple():
            return [plain(item) for item in value]
        case bytes():
            return value.hex()
        case float():
            return repr(value)  # one text, whatever the database makes of numbers
        case _:
            return value


def clean(text: str) -> str:
    """Return text that PostgreSQL can hold: it has no NUL."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def line(record: Record) -> str:
    """Return a record as a line of the log store; `hash` there anchors the chain."""
    fact = record.fact
    content = {
        "org_id": record.org_id,
        "seq": record.seq,
        "record_id": fact.record_id,
        "kind": fact.kind.value,
        "at": fact.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "user_id": fact.user_id,
        "workload": fact.workload,
        "service": fact.service,
        "action": fact.action,
        "resources": list(fact.resources),
        "outcome": fact.outcome,
        "trace_id": fact.trace_id,
        "correlation_id": fact.correlation_id,
        "detail": dict(fact.detail),
        "hash": record.hash,
    }
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False)


def lines_of(texts: Iterable[str]) -> list[dict[str, Any]]:
    """Return the lines that are records; whatever else came under our tenant is none."""
    found = []
    for text in texts:
        try:
            item = json.loads(text)
        except ValueError:
            continue
        if isinstance(item, dict) and {"org_id", "seq", "hash"} <= item.keys():
            found.append(item)
    return found


def search_query(org_id: str, text: str) -> str:
    """Return LogQL for the lines of one organisation that hold a text; it stays a text whatever is in it."""
    # JSON escapes quotes, backslashes and control characters; LogQL reads such a string as the same text.
    quoted = json.dumps(text, ensure_ascii=False)
    owner = json.dumps(f'{{"org_id":"{org_id}","seq":')
    return f'{{service="audit"}} |= {owner} |= {quoted}'
