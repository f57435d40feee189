"""Logs, traces and metrics, once for every room.

Logs are JSON lines on standard output with the trace, span and correlation id of the call that wrote them; values of
fields that name a secret are masked. Traces go out by OTLP when an endpoint is set. Metrics are Prometheus's.
"""

from __future__ import annotations

import json
import logging
import random
import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import date, datetime
from enum import Enum
from uuid import UUID

import orjson
import prometheus_client
import structlog
from opentelemetry import propagate, trace
from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from structlog.tracebacks import ExceptionDictTransformer

from kernel.call import CORRELATION, CURRENT, Call

log: structlog.stdlib.BoundLogger = structlog.get_logger()
tracer = trace.get_tracer("isa")

SECRET = re.compile(
    r"(password|passwd|secret|token|authorization|api_?key|private|credential|dsn|cookie)", re.IGNORECASE
)
PATTERNS = [
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"(://[^:/\s]*:)\S*(?=@)"),
    re.compile(r"()\beyJ[\w-]+\.[\w-]+\.[\w-]+"),
    re.compile(r"(\bbearer\s+)[\w.~+/=-]+", re.IGNORECASE),
    re.compile(r"(\b[Bb]asic\s+)(?=[\w+/]*[A-Z0-9=])[\w+/]{8,}=*"),
    re.compile(
        r"""((?:password|passwd|secret|token|api_?key|credential)\w*(?:\\?["'])?\s*[=:]\s*)"""
        r"""(?:\\?"[^"]*"?|\\?'[^']*'?|[^\s"',&;)}]+)""",
        re.IGNORECASE,
    ),
]
"""What a secret looks like inside a text; what the first group holds is kept."""
MASK = "***"
NOT_SECRET = frozenset({"token_type", "secret_name", "credential_id"})

REQUESTS = prometheus_client.Counter("isa_requests_total", "Calls served.", ["service", "method", "code"])
DURATION = prometheus_client.Histogram(
    "isa_request_duration_seconds",
    "Time to serve a call.",
    ["service", "method"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1, 2.5, 5, 10, 30),
)
ANONYMOUS_REFUSALS = prometheus_client.Counter(
    "isa_anonymous_refusals_total",
    "Calls refused before it was known who called; they leave no audit record.",
    ["service", "code"],
)
PUBLISHED = prometheus_client.Counter("isa_events_published_total", "Events that the broker acknowledged.", ["topic"])
CONSUMED = prometheus_client.Counter("isa_events_consumed_total", "Events handled.", ["topic", "outcome"])
DELAY = prometheus_client.Histogram(
    "isa_event_delay_seconds",
    "Time from an event's occurrence to its effect here.",
    ["topic"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 60, 300),
)
OUTBOX_PENDING = prometheus_client.Gauge("isa_outbox_pending", "Events committed and not yet published.")
OUTBOX_OLDEST = prometheus_client.Gauge("isa_outbox_oldest_seconds", "Age of the oldest of them.")
LAG = prometheus_client.Gauge("isa_consumer_lag", "Records not yet handled.", ["group", "topic", "partition"])
POOL = prometheus_client.Gauge(
    "isa_pool_connections", "Connections of a pool, by state: idle, used, limit.", ["pool", "state"]
)
POOL_WAIT = prometheus_client.Histogram("isa_pool_wait_seconds", "Time that a call waited for a connection.", ["pool"])
SPOOL = prometheus_client.Gauge("isa_audit_spool_bytes", "Audit records not yet published.")


TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})\b")
"""W3C's header: the trace, the span, and whether the trace is kept."""


class Sampling:
    """Which of the traces that begin here are kept, by OpenTelemetry's rule for ratios of trace ids."""

    def __init__(self) -> None:
        self.set(1.0, is_exported=False)

    def set(self, share: float, *, is_exported: bool) -> None:
        """Take the share that is kept, and whether spans leave this process at all."""
        self._bound = round(share * (1 << 64))
        self.is_exported = is_exported

    def keeps(self, trace_id: int) -> bool:
        """Tell whether a trace is kept."""
        return trace_id & ((1 << 64) - 1) < self._bound


SAMPLING = Sampling()


class Level:
    """The log level of this process. It may change while the process runs."""

    def __init__(self) -> None:
        self.value = logging.INFO

    def set(self, name: str) -> None:
        """Take a level by name; an unknown one raises ValueError."""
        level = logging.getLevelNamesMapping().get(name.upper())
        if level is None:
            raise ValueError(f"{name!r} is no log level: DEBUG, INFO, WARNING, ERROR or CRITICAL.")
        self.value = level
        logging.getLogger().setLevel(level)

    @property
    def name(self) -> str:
        """Its name."""
        return logging.getLevelName(self.value)

    @property
    def is_debug(self) -> bool:
        """Whether it is the lowest; asked before a line that each call would write."""
        return self.value <= logging.DEBUG


LEVEL = Level()


def mask(value: object, name: str = "") -> object:
    """Return a value of a log line without what is secret in it."""
    if name and name not in NOT_SECRET and SECRET.search(name):
        return MASK
    match value:
        case None | bool() | int() | float() | datetime() | date() | UUID():
            return value
        case str():
            return _without_secrets(value)
        case Mapping():
            return {key: mask(item, str(key)) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [mask(item) for item in value]
        case bytes() | bytearray():
            return _without_secrets(value.decode(errors="replace"))
        case Enum():
            return mask(value.value)
    if is_dataclass(value):
        return {item.name: mask(getattr(value, item.name), item.name) for item in fields(value)}
    return _without_secrets(str(value))


def _without_secrets(text: str) -> str:
    for pattern in PATTERNS:
        text = pattern.sub(lambda found: f"{found[1]}{MASK}", text)
    return text


def _masked(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    for name in event:
        if not name.startswith("_"):
            event[name] = mask(event[name], name)
    return event


def _located(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    span, call = trace.get_current_span().get_span_context(), CURRENT.get()
    if span.is_valid:
        event.setdefault("trace_id", f"{span.trace_id:032x}")
        event.setdefault("span_id", f"{span.span_id:016x}")
    elif call:
        event.setdefault("trace_id", call.trace_id)
        event.setdefault("span_id", call.span_id)
    if correlation := CORRELATION.get():
        event.setdefault("correlation_id", correlation)
    if call and call.caller:
        event.setdefault("org_id", call.caller.org)
        event.setdefault("user_id", call.caller.user)
    return event


def _quiet(_logger: object, method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    if logging.getLevelNamesMapping().get(method.upper(), logging.INFO) < LEVEL.value:
        raise structlog.DropEvent
    return event


def _line(event: object, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a lone surrogate, a huge number, a key that is no text: rare, and worth a line all the same
        return json.dumps(event, default=str, skipkeys=True)


def configure(service: str, *, level: str, otlp_endpoint: str, sampling: float) -> None:
    """Set up logs and traces of this process."""
    LEVEL.set(level)
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        _located,
        structlog.processors.ExceptionRenderer(ExceptionDictTransformer(show_locals=False)),  # they hold secrets
        _masked,
    ]
    structlog.configure(
        processors=[_quiet, *shared[:3], *shared[4:], structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stdout)
    render = structlog.processors.JSONRenderer(serializer=_line)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, lambda _l, _m, event: {"service": service, **event}],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    logging.basicConfig(handlers=[handler], level=LEVEL.value, force=True)
    logging.captureWarnings(True)  # a library's warning is a line of JSON too
    for noisy in ("uvicorn.access", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    resource = Resource.create({"service.name": service, "service.namespace": "isa-cloud"})
    provider = TracerProvider(resource=resource, sampler=ParentBased(TraceIdRatioBased(sampling)))
    if otlp_endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=otlp_endpoint, insecure=True)))
    trace.set_tracer_provider(provider)
    SAMPLING.set(sampling, is_exported=bool(otlp_endpoint))


class Opened:
    """A span that is current from here on."""

    __slots__ = ("_span", "_token", "trace_id")

    def __init__(self, name: str, metadata: Mapping[str, str]) -> None:
        context = propagate.extract(metadata)
        self._span = tracer.start_span(name, context=context, kind=SpanKind.SERVER)
        self._token = attach(trace.set_span_in_context(self._span, context))
        self.trace_id = f"{self._span.get_span_context().trace_id:032x}"

    def end(self, failure: str = "") -> None:
        """End it; with the name of a status code when what it spans failed."""
        if failure:
            self._span.set_attribute("isa.code", failure)
            self._span.set_status(Status(StatusCode.ERROR, failure))
        self._span.end()
        detach(self._token)


def begin(call: Call) -> Opened | None:
    """Continue the trace that a call came with, or begin one; a span is made only where it is exported."""
    parent = TRACEPARENT.match(call.metadata.get("traceparent", ""))
    if parent:
        call.trace_id, call.is_traced = parent[1], int(parent[2], 16) & 1 == 1
    else:
        call.trace_id = f"{(trace_id := random.getrandbits(128)):032x}"
        call.is_traced = SAMPLING.keeps(trace_id)
    if not call.is_traced or not SAMPLING.is_exported:
        return None
    opened = Opened(call.name, call.metadata)
    call.trace_id = opened.trace_id
    return opened


@contextmanager
def span(name: str, *, metadata: Mapping[str, str], kind: SpanKind = SpanKind.SERVER) -> Iterator[trace.Span]:
    """Open a span that continues the trace of what came in."""
    context = propagate.extract(metadata) if "traceparent" in metadata else None
    with tracer.start_as_current_span(
        name, context=context, kind=kind, record_exception=False, set_status_on_exception=False
    ) as opened:
        yield opened


def trace_id(opened: trace.Span) -> str:
    """Return the W3C trace id of a span."""
    return f"{opened.get_span_context().trace_id:032x}"


def outgoing() -> dict[str, str]:
    """Return what carries the present trace and correlation to another process."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    if (call := CURRENT.get()) and "traceparent" not in carrier:
        carrier["traceparent"] = f"00-{call.trace_id}-{call.span_id}-{call.is_traced:02x}"
        carrier |= {name: call.metadata[name] for name in ("tracestate", "baggage") if name in call.metadata}
    if correlation := CORRELATION.get():
        carrier["isa-correlation-id"] = correlation
    return carrier
