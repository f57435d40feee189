"""Log lines of the caller's organisation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum

from isa.logs.v1 import logs_pb2
from isa_common._capability import Capability
from isa_common._coalesce import Coalescer
from isa_common._contract import methods
from isa_common._messages import outcomes_of, to_duration, to_timestamp
from isa_common._transport import Transport
from isa_common.errors import InvalidArgument, IsaError

_ENTRIES = 5000
"""Entries of one push."""


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


@dataclass(frozen=True, slots=True)
class Sample:
    """A value at a moment."""

    time: datetime
    value: float


@dataclass(frozen=True, slots=True)
class Samples:
    """The samples of one combination of labels, oldest first."""

    labels: Mapping[str, str]
    samples: list[Sample]


@dataclass(frozen=True, slots=True)
class LogStatistics:
    """How much a selector holds; bytes are those of the lines, before compression."""

    streams: int
    entries: int
    bytes: int


class Logs(Capability):
    """Push, query and follow log lines."""

    _methods = methods(logs_pb2.DESCRIPTOR.services_by_name["Logs"], capability="logs")

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._push = Coalescer(self._push_one, self._push_many)

    async def push(self, entries: Sequence[Entry], *, timeout: timedelta | None = None) -> int:
        """Store lines and return how many were taken. The store drops a line that it holds already."""
        now = datetime.now(UTC)  # set here, so that a repeated push is the same push
        request = logs_pb2.PushRequest(entries=[_message(entry, now) for entry in entries])
        return (await self._push(request, timeout)).accepted

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
        response: logs_pb2.QueryResponse = await self._call(
            "Query", _question(query, start, end, limit, direction, cursor), timeout
        )
        return _page(response)

    async def query_many(
        self,
        queries: Sequence[str],
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = 0,
        direction: Direction = Direction.BACKWARD,
        timeout: timedelta | None = None,
    ) -> list[Page | IsaError]:
        """Return the first page of each query, or what was wrong with it; at most 20 queries."""
        request = logs_pb2.QueryManyRequest(
            queries=[_question(query, start, end, limit, direction, "") for query in queries]
        )
        response: logs_pb2.QueryManyResponse = await self._call("QueryMany", request, timeout)
        return [outcome if isinstance(outcome, IsaError) else _page(outcome) for outcome in outcomes_of(response)]

    async def instant_query(
        self, query: str, *, time: datetime | None = None, timeout: timedelta | None = None
    ) -> list[Samples]:
        """Return the value of a LogQL metric query at one moment: now, unless a time is given."""
        request = logs_pb2.InstantQueryRequest(query=query, time=to_timestamp(time))
        response: logs_pb2.InstantQueryResponse = await self._call("InstantQuery", request, timeout)
        return [_samples(series) for series in response.series]

    async def range_query(
        self,
        query: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        step: timedelta | None = None,
        timeout: timedelta | None = None,
    ) -> list[Samples]:
        """Return the values of a LogQL metric query over the last hour, or another range, one a step."""
        request = logs_pb2.RangeQueryRequest(
            query=query, start=to_timestamp(start), end=to_timestamp(end), step=to_duration(step)
        )
        response: logs_pb2.RangeQueryResponse = await self._call("RangeQuery", request, timeout)
        return [_samples(series) for series in response.series]

    async def labels(
        self, *, start: datetime | None = None, end: datetime | None = None, timeout: timedelta | None = None
    ) -> list[str]:
        """Return the names of the labels in use in the last hour, or another range."""
        request = logs_pb2.LabelsRequest(start=to_timestamp(start), end=to_timestamp(end))
        response: logs_pb2.LabelsResponse = await self._call("Labels", request, timeout)
        return list(response.names)

    async def label_values(
        self,
        name: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        timeout: timedelta | None = None,
    ) -> list[str]:
        """Return the values of one label in the last hour, or another range."""
        request = logs_pb2.LabelValuesRequest(name=name, start=to_timestamp(start), end=to_timestamp(end))
        response: logs_pb2.LabelValuesResponse = await self._call("LabelValues", request, timeout)
        return list(response.values)

    async def series(
        self,
        *selectors: str,
        start: datetime | None = None,
        end: datetime | None = None,
        timeout: timedelta | None = None,
    ) -> list[dict[str, str]]:
        """Return the labels of each stream that one of the selectors matches."""
        request = logs_pb2.SeriesRequest(selectors=selectors, start=to_timestamp(start), end=to_timestamp(end))
        response: logs_pb2.SeriesResponse = await self._call("Series", request, timeout)
        return [dict(series.labels) for series in response.series]

    async def statistics(
        self,
        selector: str,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        timeout: timedelta | None = None,
    ) -> LogStatistics:
        """Count the streams, lines and bytes of a selector."""
        request = logs_pb2.StatisticsRequest(selector=selector, start=to_timestamp(start), end=to_timestamp(end))
        response: logs_pb2.StatisticsResponse = await self._call("Statistics", request, timeout)
        return LogStatistics(response.streams, response.entries, response.bytes)

    async def tail(self, query: str, *, since: timedelta | None = None) -> AsyncIterator[Entry]:
        """Return lines as they arrive, until the iterator is closed."""
        request = logs_pb2.TailRequest(query=query, since=to_duration(since))
        async for response in self._stream("Tail", request, timedelta(0)):
            for entry in response.entries:
                yield _entry(entry)

    async def _push_one(self, request: logs_pb2.PushRequest, timeout: timedelta | None) -> logs_pb2.PushResponse:
        response: logs_pb2.PushResponse = await self._call("Push", request, timeout)
        return response

    async def _push_many(
        self, requests: list[logs_pb2.PushRequest], timeout: timedelta | None
    ) -> list[logs_pb2.PushResponse | IsaError]:
        """Push for several callers at a time; where that is refused, for each alone, so that each has its own error."""
        together = logs_pb2.PushRequest(entries=[entry for request in requests for entry in request.entries])
        if len(together.entries) <= _ENTRIES:
            try:
                await self._push_one(together, timeout)
            except InvalidArgument:
                pass
            else:
                return [logs_pb2.PushResponse(accepted=len(request.entries)) for request in requests]

        async def alone(request: logs_pb2.PushRequest) -> logs_pb2.PushResponse | IsaError:
            try:
                return await self._push_one(request, timeout)
            except IsaError as error:
                return error

        return await asyncio.gather(*map(alone, requests))


def _question(
    query: str, start: datetime | None, end: datetime | None, limit: int, direction: Direction, cursor: str
) -> logs_pb2.QueryRequest:
    return logs_pb2.QueryRequest(
        query=query,
        start=to_timestamp(start),
        end=to_timestamp(end),
        limit=limit,
        direction=logs_pb2.Direction.ValueType(direction),
        cursor=cursor,
    )


def _page(response: logs_pb2.QueryResponse) -> Page:
    return Page([_entry(entry) for entry in response.entries], response.next_cursor)


def _samples(series: logs_pb2.Samples) -> Samples:
    return Samples(dict(series.labels), [Sample(each.time.ToDatetime(UTC), each.value) for each in series.samples])


def _message(entry: Entry, now: datetime) -> logs_pb2.Entry:
    return logs_pb2.Entry(
        time=to_timestamp(entry.time or now), line=entry.line, labels=entry.labels, metadata=entry.metadata or None
    )


def _entry(entry: logs_pb2.Entry) -> Entry:
    return Entry(entry.line, entry.time.ToDatetime(UTC), dict(entry.labels), dict(entry.metadata))
