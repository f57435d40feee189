"""Log lines of the caller's organisation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from isa.logs.v1 import logs_pb2
from isa_common._contract import method
from isa_common._sql import Acting, acting
from isa_common._transport import Transport

_SERVICE = logs_pb2.DESCRIPTOR.services_by_name["Logs"]
_PUSH = method(_SERVICE, "Push", capability="logs")
_QUERY = method(_SERVICE, "Query", capability="logs")
_TAIL = method(_SERVICE, "Tail", capability="logs")


class Direction(IntEnum):
    """Which end of the time range comes first."""

    BACKWARD = 1
    FORWARD = 2


@dataclass(frozen=True, slots=True)
class Entry:
    """One line and the labels of its stream."""

    line: str
    time: datetime | None = None
    """Absent in a push: now."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Few values each, such as a level. The server adds `service` and `org`."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    """Many values each, such as a trace id."""


@dataclass(frozen=True, slots=True)
class Page:
    """Some of the entries that a query selects."""

    entries: list[Entry]
    next_cursor: str
    """Where the next page begins; empty on the last one."""


class Logs:
    """Push, query and follow log lines."""

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        self._transport = transport
        self._acting = acting_for

    async def push(self, entries: Sequence[Entry], *, timeout: timedelta | None = None) -> int:
        """Store lines and return how many were taken. The store drops a line that it holds already."""
        now = datetime.now(UTC)  # set here, so that a repeated push is the same push
        request = logs_pb2.PushRequest(entries=[_message(entry, now) for entry in entries])
        response: logs_pb2.PushResponse = await self._transport.unary(
            _PUSH, request, timeout=timeout, acting=self._acting
        )
        return response.accepted

    async def query(
        self,
        query: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 0,
        direction: Direction = Direction.BACKWARD,
        cursor: str = "",
        timeout: timedelta | None = None,
    ) -> Page:
        """Return a page of the lines that a LogQL query selects: the last hour, 100 lines, newest first."""
        request = logs_pb2.QueryRequest(
            query=query,
            start=_timestamp(start),
            end=_timestamp(end),
            limit=limit,
            direction=logs_pb2.Direction.ValueType(direction),
            cursor=cursor,
        )
        response: logs_pb2.QueryResponse = await self._transport.unary(
            _QUERY, request, timeout=timeout, acting=self._acting
        )
        return Page([_entry(entry) for entry in response.entries], response.next_cursor)

    async def tail(self, query: str, *, since: timedelta | None = None) -> AsyncIterator[Entry]:
        """Return lines as they arrive, until the iterator is closed."""
        duration = None
        if since is not None:
            duration = Duration()
            duration.FromTimedelta(since)
        request = logs_pb2.TailRequest(query=query, since=duration)
        async for response in self._transport.stream(_TAIL, request, timeout=timedelta(0), acting=self._acting):
            for entry in response.entries:
                yield _entry(entry)

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Logs:
        """Return the same, acting for an organisation; only our own workloads may."""
        return Logs(self._transport, acting_for=acting(caller, org, user))


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def _message(entry: Entry, now: datetime) -> logs_pb2.Entry:
    return logs_pb2.Entry(
        time=_timestamp(entry.time or now), line=entry.line, labels=dict(entry.labels), metadata=dict(entry.metadata)
    )


def _entry(entry: logs_pb2.Entry) -> Entry:
    return Entry(entry.line, entry.time.ToDatetime(UTC), dict(entry.labels), dict(entry.metadata))
