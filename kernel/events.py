"""Events on their way in and out: who they belong to, what set them off, and their form on the wire.

On Kafka a record is a CloudEvent in binary mode: `ce_*` headers, the Avro bytes as the value, the aggregate as the key.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

from isa.events import Event
from kernel import telemetry
from kernel.avro import Codec
from kernel.call import CAUSATION, CORRELATION
from kernel.caller import Caller

EventT = TypeVar("EventT", bound=Event)
TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An event ready for the wire."""

    event_id: str
    topic: str
    key: str
    payload: bytes
    headers: dict[str, str]


def stamp(event: EventT, caller: Caller, now: datetime) -> EventT:
    """Fill what the publisher left empty: id, time, organisation, user, correlation and cause."""
    return replace(
        event,
        event_id=event.event_id or str(uuid.uuid4()),
        occurred_at=event.occurred_at or now,
        org_id=event.org_id or caller.org,
        user_id=event.user_id or caller.user,
        correlation_id=event.correlation_id or CORRELATION.get() or uuid.uuid4().hex,
        causation_id=event.causation_id or CAUSATION.get(),
    )


async def to_record(event: Event, codec: Codec, *, source: str) -> Record:
    """Return a stamped event as it goes on the wire."""
    assert event.occurred_at is not None  # stamped
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event.event_id,
        "ce_type": event.TOPIC,
        "ce_source": f"/isa/{source}",
        "ce_subject": event.aggregate_id,
        "ce_time": event.occurred_at.isoformat(),
        "ce_orgid": event.org_id,
        "ce_correlationid": event.correlation_id,
        "content-type": "application/avro",
    }
    if event.causation_id:
        headers["ce_causationid"] = event.causation_id
    if traceparent := telemetry.outgoing().get("traceparent"):
        headers["traceparent"] = traceparent
    payload = await codec.encode(event)
    return Record(event_id=event.event_id, topic=event.TOPIC, key=event.aggregate_id, payload=payload, headers=headers)


def trace_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the trace of a record's headers, when there is a well-formed one."""
    traceparent = headers.get("traceparent", "")
    return {"traceparent": traceparent} if TRACEPARENT.fullmatch(traceparent) else {}
