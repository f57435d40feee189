"""Log lines of a caller's organisation, in Loki."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import orjson
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from isa.logs.v1 import logs_pb2
from isa_common import FailedPrecondition, Internal, InvalidArgument, IsaError, ResourceExhausted, Unavailable
from kernel import Caller, ErrorMap, Shares, concerns, status
from services.adapters.loki.codec import (
    LABEL,
    NANOSECONDS,
    Cursor,
    isolate,
    mark,
    nanoseconds,
    question,
    read,
    samples,
    streams,
)

ENTRIES = 5000
"""Entries of one push, and of one page: Loki's own limit of a query."""
PAGE = 100
QUERIES = 20
"""Queries of one QueryMany."""
SELECTORS = 50
STEPS = 11_000
"""Samples of a series in one answer: Loki's own limit."""
HOUR = 3600 * NANOSECONDS
"""The longest range that Loki answers about, unless it is told otherwise."""
LONGEST_RANGE = 30 * 24 * HOUR
"""Loki refuses to look at more at a time."""
LONGEST_QUERY = 16 * 1024
TENANT = "X-Scope-OrgID"
CATEGORIES = {"X-Loki-Response-Encoding-Flags": "categorize-labels"}
"""Makes Loki tell labels from the metadata of an entry."""


class Logs:
    """The `isa.logs.v1.Logs` service on Loki."""

    def __init__(self, url: str, *, timeout: timedelta, newest: timedelta, shares: Shares) -> None:
        self._shares = shares
        self._url = url.rstrip("/")
        self._timeout = timeout.total_seconds()
        self._newest = int(newest.total_seconds() * NANOSECONDS)
        self._http: httpx.AsyncClient | None = None

    async def start(self) -> None:
        """Open the connections' pool."""
        self._http = httpx.AsyncClient(
            base_url=self._url,
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=50, max_keepalive_connections=20, keepalive_expiry=30),
        )

    async def stop(self) -> None:
        """Close it."""
        if self._http is not None:
            await self._http.aclose()

    async def push(self, caller: Caller, request: logs_pb2.PushRequest) -> logs_pb2.PushResponse:
        """Store lines under the caller's tenant."""
        if not request.entries:
            return logs_pb2.PushResponse()
        if len(request.entries) > ENTRIES:
            raise InvalidArgument(f"A push may have {ENTRIES} entries.", field="entries")
        now = time.time_ns()
        body = streams(request.entries, caller, now=now, newest=now + self._newest)
        concerns(f"{len(request.entries)} entries")
        await self._shares.room(caller, len(body))
        answer = await self._client.post(
            "/loki/api/v1/push",
            content=body,
            headers={TENANT: isolate(caller), "content-type": "application/json"},
        )
        if answer.status_code == httpx.codes.BAD_REQUEST:
            raise InvalidArgument(
                "Lines are too old, out of order or beyond a limit. The others of this push may be stored; "
                "pushing them again does no harm.",
                field="entries",
            )
        answer.raise_for_status()
        return logs_pb2.PushResponse(accepted=len(request.entries))

    async def query(self, caller: Caller, request: logs_pb2.QueryRequest) -> logs_pb2.QueryResponse:
        """Return a page of the lines that a query selects."""
        _permit(request.query)
        concerns(request.query)
        limit = request.limit or PAGE
        if not 0 < limit <= ENTRIES:
            raise InvalidArgument(f"A page may have 1 to {ENTRIES} lines.", field="limit")
        tenant = isolate(caller)
        asked = question(tenant, request)
        is_forward = request.direction == logs_pb2.DIRECTION_FORWARD
        if request.cursor:
            cursor = Cursor.parse(request.cursor, asked)
        else:
            start, end = _range(request)
            cursor = Cursor(start, end, start if is_forward else end - 1, frozenset())
        wanted = min(limit + len(cursor.seen) + 1, ENTRIES)
        if len(cursor.seen) >= ENTRIES:
            raise FailedPrecondition(
                f"More than {ENTRIES} lines have the same time: narrow the query by a label.", field="query"
            )
        answer = await self._client.get(
            "/loki/api/v1/query_range",
            params={
                "query": request.query,
                "start": cursor.time if is_forward else cursor.start,
                "end": cursor.end if is_forward else cursor.time + 1,  # Loki's end is exclusive
                "limit": wanted,
                "direction": "forward" if is_forward else "backward",
            },
            headers={TENANT: tenant, **CATEGORIES},
        )
        data = _data(answer, "query")
        if data["resultType"] != "streams":
            raise InvalidArgument("Only queries that select lines can be paged; this one counts.", field="query")
        found = read(data["result"])
        found.sort(key=lambda line: (line[0] if is_forward else -line[0], mark(line[1])))
        fresh = [
            line for line in found if line[0] != cursor.time or not cursor.seen or mark(line[1]) not in cursor.seen
        ]
        page = fresh[:limit]
        response = logs_pb2.QueryResponse(entries=[entry for _, entry in page])
        if page and (len(fresh) > limit or len(found) >= wanted):
            last = page[-1][0]
            seen = {mark(entry) for moment, entry in page if moment == last}
            if last == cursor.time:
                seen |= cursor.seen
            response.next_cursor = Cursor(cursor.start, cursor.end, last, frozenset(seen)).write(asked)
        return response

    async def query_many(self, caller: Caller, request: logs_pb2.QueryManyRequest) -> logs_pb2.QueryManyResponse:
        """Return a page a query, or what was wrong with it."""
        if len(request.queries) > QUERIES:
            raise InvalidArgument(f"At most {QUERIES} queries at a time.", field="queries")

        async def outcome(query: logs_pb2.QueryRequest) -> logs_pb2.QueryOutcome:
            try:
                return logs_pb2.QueryOutcome(ok=await self.query(caller, query))
            except IsaError as error:
                return logs_pb2.QueryOutcome(error=status(error))

        self._shares.spend(caller, len(request.queries) - 1)
        return logs_pb2.QueryManyResponse(outcomes=await asyncio.gather(*map(outcome, request.queries)))

    async def instant_query(
        self, caller: Caller, request: logs_pb2.InstantQueryRequest
    ) -> logs_pb2.InstantQueryResponse:
        """Return the value of a metric query at one moment."""
        moment = nanoseconds(request.time) if request.HasField("time") else time.time_ns()
        data = await self._read(caller, "query", "query", query=request.query, time=moment)
        return logs_pb2.InstantQueryResponse(series=samples(data))

    async def range_query(self, caller: Caller, request: logs_pb2.RangeQueryRequest) -> logs_pb2.RangeQueryResponse:
        """Return the values of a metric query, one a step."""
        start, end = _range(request)
        step = request.step.seconds * NANOSECONDS + request.step.nanos
        if request.HasField("step") and step <= 0:
            raise InvalidArgument("A step must be longer than nothing.", field="step")
        step = step or max((end - start) // 250, NANOSECONDS)
        if (end - start) // step >= STEPS:
            raise InvalidArgument(f"At most {STEPS} steps: make them longer, or the range shorter.", field="step")
        data = await self._read(
            caller, "query_range", "query", query=request.query, start=start, end=end, step=step / NANOSECONDS
        )
        if data["resultType"] == "streams":
            raise InvalidArgument("This query selects lines: read them with Query.", field="query")
        return logs_pb2.RangeQueryResponse(series=samples(data))

    async def labels(self, caller: Caller, request: logs_pb2.LabelsRequest) -> logs_pb2.LabelsResponse:
        """Return the names of the labels in use."""
        start, end = _range(request)
        return logs_pb2.LabelsResponse(names=sorted(await self._read(caller, "labels", "", start=start, end=end) or ()))

    async def label_values(self, caller: Caller, request: logs_pb2.LabelValuesRequest) -> logs_pb2.LabelValuesResponse:
        """Return the values of one label."""
        if not LABEL.fullmatch(request.name):
            raise InvalidArgument("A label is letters, digits and _, and begins with no digit.", field="name")
        start, end = _range(request)
        values = await self._read(caller, f"label/{request.name}/values", "name", start=start, end=end)
        return logs_pb2.LabelValuesResponse(values=sorted(values or ()))

    async def series(self, caller: Caller, request: logs_pb2.SeriesRequest) -> logs_pb2.SeriesResponse:
        """Return the streams that match."""
        if not 0 < len(request.selectors) <= SELECTORS:
            raise InvalidArgument(f"Name 1 to {SELECTORS} selectors.", field="selectors")
        for index, selector in enumerate(request.selectors):
            _permit(selector, f"selectors[{index}]")
        start, end = _range(request)
        found = await self._read(
            caller, "series", "selectors", **{"match[]": list(request.selectors)}, start=start, end=end
        )
        return logs_pb2.SeriesResponse(series=[logs_pb2.Series(labels=labels) for labels in found or ()])

    async def statistics(self, caller: Caller, request: logs_pb2.StatisticsRequest) -> logs_pb2.StatisticsResponse:
        """Count what a selector holds. Loki's own statistics leave out what is not on disk yet."""
        _permit(request.selector, "selector")
        start, end = _range(request)
        over = f"({request.selector} [{max((end - start) // 1_000_000, 1)}ms])"

        async def total(function: str) -> int:
            found = samples(await self._read(caller, "query", "selector", query=f"sum({function}{over})", time=end))
            return int(found[0].samples[0].value) if found else 0

        streams, entries, size = await asyncio.gather(
            self._read(caller, "series", "selector", **{"match[]": [request.selector]}, start=start, end=end),
            total("count_over_time"),
            total("bytes_over_time"),
        )
        return logs_pb2.StatisticsResponse(streams=len(streams or ()), entries=entries, bytes=size)

    async def stored(self, org: str) -> int:
        """Bytes of an organisation's lines of the last month, as far as they are on disk."""
        now = time.time_ns()
        answer = await self._client.get(
            "/loki/api/v1/index/stats",
            params={"query": f'{{org="{org}"}}', "start": now - LONGEST_RANGE, "end": now},
            headers={TENANT: org},
        )
        answer.raise_for_status()
        return int(orjson.loads(answer.content)["bytes"])

    async def tail(self, caller: Caller, request: logs_pb2.TailRequest) -> AsyncIterator[logs_pb2.TailResponse]:
        """Send lines as Loki receives them."""
        _permit(request.query)
        start = time.time_ns()
        if request.HasField("since"):
            start -= request.since.seconds * NANOSECONDS + request.since.nanos
        url = self._url.replace("http", "ws", 1) + "/loki/api/v1/tail?"
        url += urlencode({"query": request.query, "start": start, "limit": ENTRIES})
        headers = {TENANT: isolate(caller), **CATEGORIES}
        async with connect(url, additional_headers=headers, open_timeout=self._timeout, max_size=16 << 20) as socket:
            async for message in socket:
                data: dict[str, Any] = orjson.loads(message)
                lines = sorted(read(data.get("streams") or ()), key=lambda line: line[0])
                dropped = len(data.get("dropped_entries") or ())
                if lines or dropped:
                    yield logs_pb2.TailResponse(entries=[entry for _, entry in lines], dropped=dropped)

    async def _read(self, caller: Caller, path: str, field: str, **asked: Any) -> Any:
        """What Loki answers about the caller's tenant."""
        if "query" in asked:
            if not asked["query"].strip() or len(asked["query"]) > LONGEST_QUERY:
                raise InvalidArgument(f"A query has 1 to {LONGEST_QUERY} characters.", field=field)
            concerns(asked["query"])
        answer = await self._client.get(f"/loki/api/v1/{path}", params=asked, headers={TENANT: isolate(caller)})
        return _data(answer, field)

    @property
    def _client(self) -> httpx.AsyncClient:
        assert self._http is not None, "started before it serves"
        return self._http


def _permit(query: str, field: str = "query") -> None:
    """Refuse what cannot be a query for lines, before Loki works on it."""
    if not query.lstrip().startswith("{"):
        raise InvalidArgument('A query begins with a selector, such as {service="tasks"}.', field=field)
    if len(query) > LONGEST_QUERY:
        raise InvalidArgument(f"A query may have {LONGEST_QUERY} characters.", field=field)


def _range(request: Any) -> tuple[int, int]:
    """The time range of a request: the last hour unless it says otherwise."""
    end = nanoseconds(request.end) if request.HasField("end") else time.time_ns()
    start = nanoseconds(request.start) if request.HasField("start") else end - HOUR
    if start >= end:
        raise InvalidArgument("The start must be before the end.", field="start")
    return start, end


def _data(answer: httpx.Response, field: str) -> Any:
    """What Loki found. In a 400 it speaks of the caller's own query: those words help."""
    if answer.status_code == httpx.codes.BAD_REQUEST:
        words = answer.text.strip()[:500]
        raise InvalidArgument(f"{words[:1].upper()}{words[1:]}.", field=field)
    answer.raise_for_status()
    return orjson.loads(answer.content).get("data")


def _status(error: BaseException) -> IsaError:
    status = error.response.status_code if isinstance(error, httpx.HTTPStatusError | InvalidStatus) else 0
    if status == httpx.codes.BAD_REQUEST:
        return InvalidArgument("The log store cannot read this query.", field="query")
    if status == httpx.codes.TOO_MANY_REQUESTS:
        return ResourceExhausted("Too many lines or queries at a time.", retry_after=timedelta(seconds=1))
    if status >= httpx.codes.INTERNAL_SERVER_ERROR:
        return Unavailable("The log store cannot answer now.", retry_after=timedelta(seconds=1))
    return Internal("The log store could not do this.")


def _away(_: BaseException) -> IsaError:
    return Unavailable("The log store could not be reached.", retry_after=timedelta(seconds=1))


ERRORS: ErrorMap = {
    httpx.HTTPStatusError: _status,
    httpx.TransportError: _away,
    InvalidStatus: _status,
    WebSocketException: _away,
    OSError: _away,
}
