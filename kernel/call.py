"""A call on its way through the kernel, whatever brought it: gRPC, HTTP or an event."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from kernel.audit import Slot
    from kernel.caller import Caller


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a method or route says about itself."""

    permission: str = ""
    """`<capability>.<read|write|admin>`; empty only when anonymous."""
    anonymous: bool = False
    """No token is wanted: sign-up, log-in, public keys."""
    read_only: bool = False
    """Nothing changes: it may be retried, and is served while the audit share of its organisation is full."""
    idempotent: bool = False
    """Twice has the effect of once: it may be retried."""
    audit_always: bool = False
    """Calls of our own workloads leave a record too, not only those of tenants."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call: what was asked, by whom, and what is known of it so far."""

    name: str
    """`isa.sql.v1.Sql/Query`, or the method and template of a route: `GET /v1/tasks/{task_id}`."""
    rule: Rule
    metadata: Mapping[str, str]
    """gRPC metadata or HTTP headers, names in lower case."""
    transport: Literal["grpc", "http"]
    timeout: float | None = None
    """Seconds that the caller still waits; None when it did not say."""
    is_stream: bool = False
    """Lives as long as the caller stays: no default deadline."""
    caller: Caller | None = None
    correlation_id: str = ""
    trace_id: str = ""
    is_traced: bool = False
    """Whether its trace is kept."""
    resources: list[str] = field(default_factory=list)
    """What it is about, by id, for the audit."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    slot: Slot | None = None
    """Place of its audit record; None for a call that leaves none."""
    grows: int = 0
    """Bytes that it was let in to store."""
    _span_id: str = ""

    @property
    def span_id(self) -> str:
        """Its W3C span id, made when somebody asks."""
        self._span_id = self._span_id or f"{random.getrandbits(64):016x}"
        return self._span_id


CURRENT: ContextVar[Call | None] = ContextVar("isa_call", default=None)
CORRELATION: ContextVar[str] = ContextVar("isa_correlation", default="")
TRACES: ContextVar[Mapping[str, str]] = ContextVar("isa_traces", default={})  # noqa: B039 -- never written to
"""Trace id of each event in the delivery at hand, by event id: a batch has many."""
CAUSATION: ContextVar[str | None] = ContextVar("isa_causation", default=None)


def concerns(*resources: str) -> None:
    """Name what the call at hand is about, for its audit record; names as the caller knows them."""
    if call := CURRENT.get():
        call.resources += resources
