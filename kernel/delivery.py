"""Events and jobs on their way to a room's handlers.

daprd brings up to a hundred records of one topic at a time. Each is decoded; what cannot be is put on the dead-letter
topic with the reason, and its neighbours go on. Whatever else fails is retried, without end and with back-off, by Dapr.
"""

from __future__ import annotations

import asyncio
import base64
import inspect
import time
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from fastapi import FastAPI, Request, Response
from opentelemetry import propagate, trace
from opentelemetry.trace import SpanKind

from isa.events import EVENTS, Event
from isa_common import IsaError, PermissionDenied
from kernel import telemetry
from kernel.avro import HEADER, MAGIC, Codec
from kernel.call import CAUSATION, CORRELATION, TRACES
from kernel.caller import ORG, USER, Caller
from kernel.chain import PLATFORM
from kernel.dapr.pubsub import COMPONENTS
from kernel.doors import Job, Route, Subscription, doors_of
from kernel.errors import Poison
from kernel.events import Record, trace_of
from kernel.http import is_sidecar, told

Status = Literal["SUCCESS", "RETRY", "DROP"]
Publish = Callable[[str, Sequence[Record]], Awaitable[set[str]]]
AT_ONCE = 8
"""Groups of records that are handled side by side."""
ATTEMPTS_KEPT = 10_000
DEAD_LETTER = ".dlq"
LONGEST_ID = 200
"""Characters; ours have 34 at most, and a database cannot index what is much longer."""
HANDLE_TIMEOUT = 45.0


@dataclass(slots=True, kw_only=True)
class Delivered:
    """One record of a batch."""

    entry_id: str
    value: bytes
    headers: dict[str, str]
    event: Event | None = None
    status: Status = "SUCCESS"

    @property
    def position(self) -> str:
        """Partition and offset: what tells it from every other record of its topic."""
        return f"{self.headers.get('__partition', '')}/{self.headers.get('__offset', '')}"


@dataclass(slots=True, kw_only=True)
class Handler:
    """A room's handler of a topic."""

    name: str
    method: Callable[..., Awaitable[None]]
    is_batch: bool


@dataclass(slots=True)
class Delivery:
    """Takes batches for one room. `consumer` is its app-id."""

    consumer: str
    codec: Codec
    publish: Publish
    handlers: dict[str, list[Handler]] = field(default_factory=dict)
    _attempts: OrderedDict[str, int] = field(default_factory=OrderedDict)

    def register(self, room: object) -> None:
        """Take the handlers of a room."""
        for door, method in doors_of(room):
            if isinstance(door, Subscription):
                for topic in door.topics:
                    self.add(topic, method, is_batch=door.is_batch)

    def add(self, topic: str, method: Callable[..., Awaitable[None]], *, is_batch: bool = False) -> None:
        """Take one handler."""
        handler = Handler(name=getattr(method, "__name__", topic), method=method, is_batch=is_batch)
        self.handlers.setdefault(topic, []).append(handler)

    async def deliver(self, topic: str, batch: Sequence[Delivered]) -> None:
        """Handle a batch, and set the status of each record in it."""
        await asyncio.gather(*(self._decode(topic, record) for record in batch))
        for handler in self.handlers[topic]:
            self._keep_order(batch)
            await self._handle(topic, handler, [r for r in batch if r.event is not None and r.status == "SUCCESS"])
        self._keep_order(batch)
        for record in batch:
            if record.status == "RETRY":
                self._count(topic, record)
            if record.status == "RETRY" or record.event is not None:  # quarantined ones were counted
                telemetry.CONSUMED.labels(topic, record.status.lower()).inc()

    async def _decode(self, topic: str, record: Delivered) -> None:
        try:
            record.event = _owned(await self.codec.decode(record.value, EVENTS[topic]))
        except Poison as error:
            await self._quarantine(topic, record, error)
        except IsaError as error:
            telemetry.log.warning("event.undecoded", topic=topic, position=record.position, reason=error.message)
            record.status = "RETRY"

    async def _handle(self, topic: str, handler: Handler, records: list[Delivered]) -> None:
        groups: dict[str, list[Delivered]] = {}
        for record in records:
            event = record.event
            assert event is not None
            groups.setdefault(event.org_id if handler.is_batch else event.aggregate_id, []).append(record)
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(group: list[Delivered]) -> None:
            async with gate:
                if handler.is_batch:
                    await self._attempt(topic, handler, group)
                    return
                for record in group:
                    await self._attempt(topic, handler, [record])
                    if record.status == "RETRY":
                        return  # _keep_order sends the later ones of its key back too

        await asyncio.gather(*(one(group) for group in groups.values()))

    async def _attempt(self, topic: str, handler: Handler, group: list[Delivered]) -> None:
        events = [record.event for record in group if record.event is not None]
        first = events[0]
        caller = Caller(org=first.org_id, user=first.user_id, workload=self.consumer)
        links = [
            trace.Link(context)
            for record in group
            if (
                context := trace.get_current_span(propagate.extract(trace_of(record.headers))).get_span_context()
            ).is_valid
        ]
        parent = propagate.extract(trace_of(group[0].headers)) if len(group) == 1 else None
        traces = TRACES.set(_traces(group))
        correlation = CORRELATION.set(first.correlation_id)
        causation = CAUSATION.set(first.event_id if len(group) == 1 else None)
        try:
            with telemetry.tracer.start_as_current_span(
                f"consume {topic}", context=parent, kind=SpanKind.CONSUMER, links=links
            ):
                async with asyncio.timeout(HANDLE_TIMEOUT):
                    await handler.method(caller, events if handler.is_batch else first)
        except Poison as error:
            if len(group) == 1:
                await self._quarantine(topic, group[0], error)
            else:  # one of them is poison: each alone shows which
                for record in group:
                    self._keep_order(group)
                    if record.status == "SUCCESS":
                        await self._attempt(topic, handler, [record])
        except Exception as error:
            known = isinstance(error, IsaError)
            telemetry.log.warning(
                "event.retried",
                topic=topic,
                handler=handler.name,
                records=len(group),
                reason=str(error) or type(error).__name__,
                exc_info=None if known else error,
            )
            for record in group:
                record.status = "RETRY"
        else:
            now = time.time()
            for event in events:
                if event.occurred_at:
                    telemetry.DELAY.labels(topic).observe(max(0.0, now - event.occurred_at.timestamp()))
        finally:
            TRACES.reset(traces)
            CORRELATION.reset(correlation)
            CAUSATION.reset(causation)

    def _keep_order(self, batch: Sequence[Delivered]) -> None:
        """Send back what follows a record that is to be retried and has its key."""
        waiting: set[str] = set()
        for record in batch:
            key = record.headers.get("__key", "")
            if key and key in waiting and record.status == "SUCCESS" and record.event is not None:
                record.status = "RETRY"
            if record.status == "RETRY":
                waiting.add(key)

    def _count(self, topic: str, record: Delivered) -> None:
        key = f"{topic}/{record.position}"
        self._attempts[key] = self._attempts.get(key, 0) + 1
        if len(self._attempts) > ATTEMPTS_KEPT:
            self._attempts.popitem(last=False)

    async def _quarantine(self, topic: str, record: Delivered, reason: Poison) -> None:
        """Put a record on its dead-letter topic; when that fails it is retried, so nothing is lost."""
        attempts = self._attempts.get(f"{topic}/{record.position}", 0) + 1
        schema_id = (
            str(HEADER.unpack_from(record.value)[1])
            if record.value[:1] == bytes([MAGIC]) and len(record.value) > 4
            else ""
        )
        kept = {
            name: value for name, value in record.headers.items() if not name.startswith("__") and name != "rawPayload"
        }
        letter = Record(
            event_id=record.headers.get("ce_id", record.position),
            topic=topic + DEAD_LETTER,
            key=record.headers.get("__key", ""),
            payload=record.value,
            headers={
                **kept,
                "isa-dlq-reason": reason.message,
                "isa-dlq-consumer": self.consumer,
                "isa-dlq-attempts": str(attempts),
                "isa-dlq-schema-id": schema_id,
                "isa-dlq-position": record.position,
                "isa-dlq-at": datetime.now(UTC).isoformat(),
            },
        )
        try:
            failed = await self.publish(letter.topic, [letter])
        except IsaError as error:
            telemetry.log.warning("event.unquarantined", topic=topic, position=record.position, reason=error.message)
            failed = {letter.event_id}
        if failed:
            record.status = "RETRY"
            return
        record.event = None
        telemetry.CONSUMED.labels(topic, "quarantined").inc()
        telemetry.log.error("event.quarantined", topic=topic, position=record.position, reason=reason.message)


def _owned(event: Event) -> Event:
    """Return an event that a handler can act on: it says whose it is, and its ids and texts can be stored."""
    is_platforms = event.TOPIC in COMPONENTS and event.org_id in ("", PLATFORM)
    if not is_platforms and not ORG.fullmatch(event.org_id):
        raise Poison("The event belongs to no organisation.")
    if event.user_id and not USER.fullmatch(event.user_id):
        raise Poison("The event was caused by what is no user.")
    for name in ("event_id", "aggregate_id"):
        if not 0 < len(getattr(event, name)) <= LONGEST_ID:
            raise Poison(f"The event's {name} does not have 1 to {LONGEST_ID} characters.")
    for each in fields(event):
        value = getattr(event, each.name)
        texts = value if isinstance(value, list) else (value,)
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise Poison(f"The event's {each.name} holds a NUL character, which no database keeps.")
    return event


def jobs_of(*rooms: object) -> list[tuple[Job, Callable[..., Awaitable[None]]]]:
    """Return the jobs of a room, and of the kernel in it."""
    return [(door, method) for room in rooms for door, method in doors_of(room) if isinstance(door, Job)]


def callbacks(
    app: FastAPI, jobs: Sequence[tuple[Job, Callable[..., Awaitable[None]]]], delivery: Delivery, *, token: str
) -> None:
    """Add what only this app's own sidecar may call: batches of events, and jobs."""

    @app.post("/events/{topic}", include_in_schema=False)
    async def events(topic: str, request: Request) -> Response:
        if not is_sidecar(request, token):
            return _forged(request)
        batch = [
            Delivered(
                entry_id=entry["entryId"],
                value=base64.b64decode(entry["event"] or ""),
                headers=entry.get("metadata") or {},
            )
            for entry in orjson.loads(await request.body())["entries"]
        ]
        if topic not in delivery.handlers:
            telemetry.log.error("event.unhandled", topic=topic)
            return Response(status_code=503)
        await delivery.deliver(topic, batch)
        statuses = [{"entryId": record.entry_id, "status": record.status} for record in batch]
        return Response(orjson.dumps({"statuses": statuses}), media_type="application/json")

    @app.post("/job/{name}", include_in_schema=False)
    async def run_job(name: str, request: Request) -> Response:
        if not is_sidecar(request, token):
            return _forged(request)
        data = _data_of(await request.body())
        for door, method in jobs:
            if door.name == name or (door.schedule is None and name.startswith(door.name)):
                return await _run(name, method, data, has_name=door.schedule is None, headers=request.headers)
        telemetry.log.warning("job.unknown", job=name)
        return Response(status_code=200)  # nobody will ever want it: let the scheduler forget it


async def _run(
    name: str,
    method: Callable[..., Awaitable[None]],
    data: Mapping[str, Any],
    *,
    has_name: bool,
    headers: Mapping[str, str],
) -> Response:
    began = time.perf_counter()
    CORRELATION.set(uuid.uuid4().hex)  # one for all that this run sets off; the request's context ends with it
    with telemetry.span(f"job {name}", metadata=trace_of(headers), kind=SpanKind.CONSUMER):
        try:
            await (method(name, data) if has_name else method(data))
        except Exception as error:
            telemetry.log.warning(
                "job.failed", job=name, reason=str(error), exc_info=None if isinstance(error, IsaError) else error
            )
            return Response(status_code=500)
        telemetry.log.info("job.done", job=name, duration=round(time.perf_counter() - began, 3))
    return Response(status_code=200)


def _traces(group: Sequence[Delivered]) -> dict[str, str]:
    """Return the trace id of each event that came with one, by event id."""
    carried = {record.event.event_id: trace_of(record.headers) for record in group if record.event}
    return {event_id: trace["traceparent"].split("-")[1] for event_id, trace in carried.items() if trace}


def _data_of(body: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(body) if body else {}
    except orjson.JSONDecodeError:
        return {}
    return data if isinstance(data, dict) else {}


def _forged(request: Request) -> Response:
    telemetry.log.warning(
        "callback.refused", path=request.url.path, caller=request.headers.get("dapr-caller-app-id", "")
    )
    return told(request, PermissionDenied("Only this app's own sidecar may call this."))


def check(room: object) -> None:
    """Refuse a room whose handlers do not take what their doors bring; at start, not at the first event."""
    for door, method in doors_of(room):
        where = f"{type(room).__name__}.{method.__name__}"
        parameters = inspect.signature(method).parameters
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"{where} must be a coroutine function.")
        if isinstance(door, Route) and ("caller" in parameters) == door.rule.anonymous:
            raise TypeError(f"{where} must take the caller, or be anonymous and not take one.")
        wanted = {Subscription: 2, Job: 1 if isinstance(door, Job) and door.schedule else 2}.get(type(door))
        if wanted is not None and len(parameters) != wanted:
            raise TypeError(f"{where} must take {wanted} arguments besides self.")
