"""What the kernel hands to a room."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import prometheus_client

from isa_common import Logs, Sql
from kernel.avro import Codec
from kernel.call import TRACES, concerns
from kernel.caller import Caller
from kernel.dapr.bindings import Bindings
from kernel.dapr.invoke import Invoke
from kernel.dapr.jobs import Jobs
from kernel.dapr.secrets import Secrets
from kernel.dapr.state import State
from kernel.inbox import Inbox
from kernel.outbox import Outbox
from kernel.shares import Shares
from kernel.work import Work

LETTERS = b"abcdefghijklmnopqrstuvwxyz234567" * 8
"""A letter for each byte, five bits of it; ten times as fast as base32."""


def new_id(kind: str) -> str:
    """Return a new id of a kind: `task-` and 26 of a-z and 2-7, 130 random bits."""
    return f"{kind}-{secrets.token_bytes(26).translate(LETTERS).decode()}"


def utc_now() -> datetime:
    """Return the time, aware, in UTC."""
    return datetime.now(UTC)


class Audited:
    """What a handler may add to the audit record of its call."""

    def resource(self, *ids: str) -> None:
        """Name what the call is about, besides what stands in its path."""
        concerns(*ids)

    def trace_of(self, event_id: str) -> str:
        """Return the W3C trace id that an event of this delivery came with; empty when it came with none."""
        return TRACES.get().get(event_id, "")


class Metrics:
    """Metrics of the business; names are `isa_<room>_...`."""

    counter = staticmethod(prometheus_client.Counter)
    gauge = staticmethod(prometheus_client.Gauge)
    histogram = staticmethod(prometheus_client.Histogram)
    summary = staticmethod(prometheus_client.Summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the kernel hands to a room.

    `sql` is its system login; `sql.acting_for(caller)` its login bound to one organisation.
    """

    name: str
    sql: Sql
    logs: Logs
    outbox: Outbox
    codec: Codec
    jobs: Jobs
    state: State
    secrets: Secrets
    invoke: Invoke
    bindings: Bindings
    shares: Shares = field(default_factory=Shares)
    clock: Callable[[], datetime] = utc_now
    new_id: Callable[[str], str] = new_id
    audit: Audited = field(default_factory=Audited)
    metrics: Metrics = field(default_factory=Metrics)

    def work(self, caller: Caller) -> Work:
        """Begin a unit of work for a caller."""
        return Work(
            caller,
            self.sql.acting_for(caller) if caller.org else self.sql,
            outbox=self.outbox,
            codec=self.codec,
            clock=self.clock,
            source=self.name,
        )

    @property
    def inbox(self) -> Inbox:
        """What makes the effects of events happen once."""
        return Inbox(self.name, self.sql, self.work)
