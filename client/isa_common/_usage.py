"""What the caller's organisation uses of each engine, and how much it may."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from isa.usage.v1 import usage_pb2
from isa_common._capability import Capability
from isa_common._contract import method

_SERVICE = usage_pb2.DESCRIPTOR.services_by_name["Usage"]


@dataclass(frozen=True, slots=True)
class Share:
    """How much an organisation may use at once of one replica; bytes are of the whole engine."""

    calls: int
    streams: int
    rate: float
    """Items a second, in the long run; a call is one item, a batch as many as it has."""
    burst: int
    """Items at once, after a rest."""
    bytes: int


@dataclass(frozen=True, slots=True)
class Used:
    """What an organisation used of one replica of an adapter."""

    since: datetime
    calls: int
    errors: int
    items: int
    refused: Mapping[str, int]
    """Calls refused by share: `calls`, `streams`, `rate`, `bytes`."""
    open_calls: int
    open_streams: int
    stored_bytes: int | None
    """None where the engine does not tell."""
    limits: Share


class Usage(Capability):
    """What the caller's organisation uses, engine by engine."""

    async def get(self, capability: str, *, timeout: timedelta | None = None) -> Used:
        """Return what was used of a capability, such as `cache`; straight at an adapter it is always that one."""
        response: usage_pb2.GetResponse = await self._unary(
            method(_SERVICE, "Get", capability=capability), usage_pb2.GetRequest(), timeout
        )
        limits = response.limits
        return Used(
            since=response.since.ToDatetime(UTC),
            calls=response.calls,
            errors=response.errors,
            items=response.items,
            refused=dict(response.refused),
            open_calls=response.open_calls,
            open_streams=response.open_streams,
            stored_bytes=response.stored_bytes if response.HasField("stored_bytes") else None,
            limits=Share(
                calls=limits.calls,
                streams=limits.streams,
                rate=limits.rate,
                burst=limits.burst,
                bytes=limits.bytes,
            ),
        )
