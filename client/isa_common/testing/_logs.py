"""Log lines in memory: selectors, line filters, and counting over a range; the rest of LogQL needs Loki."""

from __future__ import annotations

import asyncio
import base64
import json
import operator
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from isa.logs.v1 import logs_pb2
from isa_common.errors import InvalidArgument, IsaError, status_of
from isa_common.testing._transport import Caller

NANOSECONDS = 1_000_000_000
HOUR = 3600 * NANOSECONDS
MOST = 5000
LABELS = 13
LONGEST_LINE = 256 * 1024
NEWEST = 600 * NANOSECONDS
STEPS = 11_000

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TEXT = r'"(?:[^"\\]|\\.)*"|`[^`]*`'
_MATCHER = re.compile(rf"\s*([a-zA-Z_]\w*)\s*(=~|!~|!=|=)\s*({_TEXT})\s*")
_FILTER = re.compile(rf"\s*(\|=|\|~|!=|!~)\s*({_TEXT})\s*")
_COUNT = re.compile(
    r"\s*(?:(?P<sum>sum)\s*(?:by\s*\((?P<by>[^)]*)\))?\s*\()?\s*"
    r"(?P<function>count_over_time|bytes_over_time|rate)\s*\((?P<lines>.*)\[(?P<range>\d+)(?P<unit>ns|ms|s|m|h|d)\]\s*\)\s*\)?\s*"
)
_UNITS = {"ns": 1, "ms": 10**6, "s": NANOSECONDS, "m": 60 * NANOSECONDS, "h": HOUR, "d": 24 * HOUR}

Match = Callable[["_Line"], bool]


@dataclass(frozen=True, slots=True)
class _Line:
    time: int
    labels: tuple[tuple[str, str], ...]
    metadata: tuple[tuple[str, str], ...]
    text: str

    def message(self) -> logs_pb2.Entry:
        return logs_pb2.Entry(
            time=_timestamp(self.time), line=self.text, labels=dict(self.labels), metadata=dict(self.metadata)
        )


@dataclass(slots=True)
class _Tenant:
    lines: set[_Line] = field(default_factory=set)
    tails: list[asyncio.Queue[_Line]] = field(default_factory=list)


class MemoryLogs:
    """`isa.logs.v1.Logs` in memory."""

    def __init__(self) -> None:
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)

    async def push(self, caller: Caller, request: logs_pb2.PushRequest) -> logs_pb2.PushResponse:
        """Store lines under the caller's tenant; all of them, or none."""
        tenant = self._tenant(caller)
        if len(request.entries) > MOST:
            raise InvalidArgument(f"A push may have {MOST} entries.", field="entries")
        now = time.time_ns()
        fresh = [_line(caller, entry, f"entries[{index}]", now) for index, entry in enumerate(request.entries)]
        for line in fresh:
            if line not in tenant.lines:
                tenant.lines.add(line)
                for tail in tenant.tails:
                    tail.put_nowait(line)
        return logs_pb2.PushResponse(accepted=len(fresh))

    async def query(self, caller: Caller, request: logs_pb2.QueryRequest) -> logs_pb2.QueryResponse:
        """Return a page of the lines that a query selects."""
        tenant = self._tenant(caller)
        matches = _selection(request.query, "query")
        limit = request.limit or 100
        if not 0 < limit <= MOST:
            raise InvalidArgument(f"A page may have 1 to {MOST} lines.", field="limit")
        asked = [caller.org, caller.workload, request.query, request.direction]
        if request.cursor:
            start, end, last = _read_cursor(request.cursor, asked)
        else:
            (start, end), last = _range(request), None
        is_forward = request.direction == logs_pb2.DIRECTION_FORWARD
        found = sorted(
            (_key(line), line) for line in tenant.lines if start <= line.time < end and all(m(line) for m in matches)
        )
        after = operator.gt
        if not is_forward:
            found.reverse()
            after = operator.lt
        if last is not None:
            found = [each for each in found if after(each[0], last)]
        response = logs_pb2.QueryResponse(entries=[line.message() for _, line in found[:limit]])
        if len(found) > limit:
            response.next_cursor = _write_cursor(asked, start, end, found[limit - 1][0])
        return response

    async def query_many(self, caller: Caller, request: logs_pb2.QueryManyRequest) -> logs_pb2.QueryManyResponse:
        """Return a page a query, or what was wrong with it."""
        if len(request.queries) > 20:
            raise InvalidArgument("At most 20 queries at a time.", field="queries")
        response = logs_pb2.QueryManyResponse()
        for query in request.queries:
            try:
                response.outcomes.add(ok=await self.query(caller, query))
            except IsaError as error:
                response.outcomes.add(error=status_of(error))
        return response

    async def instant_query(
        self, caller: Caller, request: logs_pb2.InstantQueryRequest
    ) -> logs_pb2.InstantQueryResponse:
        """Return the value of a counting query at one moment."""
        moment = _nanoseconds(request.time) if request.HasField("time") else time.time_ns()
        values = self._counted(caller, request.query, "query")(moment)
        return logs_pb2.InstantQueryResponse(
            series=[
                logs_pb2.Samples(labels=dict(labels), samples=[logs_pb2.Sample(time=_timestamp(moment), value=value)])
                for labels, value in values.items()
            ]
        )

    async def range_query(self, caller: Caller, request: logs_pb2.RangeQueryRequest) -> logs_pb2.RangeQueryResponse:
        """Return the values of a counting query, one a step."""
        start, end = _range(request)
        step = request.step.seconds * NANOSECONDS + request.step.nanos
        if request.HasField("step") and step <= 0:
            raise InvalidArgument("A step must be longer than nothing.", field="step")
        step = step or max((end - start) // 250, NANOSECONDS)
        if (end - start) // step >= STEPS:
            raise InvalidArgument(f"At most {STEPS} steps: make them longer, or the range shorter.", field="step")
        count = self._counted(caller, request.query, "query")
        series: defaultdict[tuple[tuple[str, str], ...], logs_pb2.Samples] = defaultdict(logs_pb2.Samples)
        first = -(-start // step) * step  # Loki's steps begin at a multiple
        for moment in range(first, end + step, step):
            for labels, value in count(moment).items():
                series[labels].samples.add(time=_timestamp(moment), value=value)
        for labels, samples in series.items():
            samples.labels.update(dict(labels))
        return logs_pb2.RangeQueryResponse(series=series.values())

    async def labels(self, caller: Caller, request: logs_pb2.LabelsRequest) -> logs_pb2.LabelsResponse:
        """Return the names of the labels in use."""
        names = {name for line in self._between(caller, request) for name, _ in line.labels}
        return logs_pb2.LabelsResponse(names=sorted(names))

    async def label_values(self, caller: Caller, request: logs_pb2.LabelValuesRequest) -> logs_pb2.LabelValuesResponse:
        """Return the values of one label."""
        if not _NAME.fullmatch(request.name):
            raise InvalidArgument("A label is letters, digits and _, and begins with no digit.", field="name")
        values = {
            value for line in self._between(caller, request) for name, value in line.labels if name == request.name
        }
        return logs_pb2.LabelValuesResponse(values=sorted(values))

    async def series(self, caller: Caller, request: logs_pb2.SeriesRequest) -> logs_pb2.SeriesResponse:
        """Return the streams that match."""
        if not 0 < len(request.selectors) <= 50:
            raise InvalidArgument("Name 1 to 50 selectors.", field="selectors")
        wanted = [
            _selection(selector, f"selectors[{index}]", has_filters=False)
            for index, selector in enumerate(request.selectors)
        ]
        found = {
            line.labels
            for line in self._between(caller, request)
            if any(all(match(line) for match in matches) for matches in wanted)
        }
        return logs_pb2.SeriesResponse(series=[logs_pb2.Series(labels=dict(labels)) for labels in sorted(found)])

    async def statistics(self, caller: Caller, request: logs_pb2.StatisticsRequest) -> logs_pb2.StatisticsResponse:
        """Count what a selector holds."""
        matches = _selection(request.selector, "selector", has_filters=False)
        found = [line for line in self._between(caller, request) if all(match(line) for match in matches)]
        return logs_pb2.StatisticsResponse(
            streams=len({line.labels for line in found}),
            entries=len(found),
            bytes=sum(len(line.text.encode()) for line in found),
        )

    async def tail(self, caller: Caller, request: logs_pb2.TailRequest) -> AsyncIterator[logs_pb2.TailResponse]:
        """Send lines as they are pushed."""
        tenant = self._tenant(caller)
        matches = _selection(request.query, "query")
        since = time.time_ns() - request.since.seconds * NANOSECONDS - request.since.nanos
        queue: asyncio.Queue[_Line] = asyncio.Queue()
        for line in sorted(tenant.lines, key=_key):
            if line.time >= since:
                queue.put_nowait(line)
        tenant.tails.append(queue)
        try:
            while True:
                line = await queue.get()
                if all(match(line) for match in matches):
                    yield logs_pb2.TailResponse(entries=[line.message()])
        finally:
            tenant.tails.remove(queue)

    def _tenant(self, caller: Caller) -> _Tenant:
        return self._tenants[caller.tenant]

    def _between(self, caller: Caller, request: Any) -> Iterable[_Line]:
        start, end = _range(request)
        return [line for line in self._tenant(caller).lines if start <= line.time < end]

    def _counted(
        self, caller: Caller, query: str, field: str
    ) -> Callable[[int], dict[tuple[tuple[str, str], ...], float]]:
        """What a counting query gives at a moment, by labels."""
        parsed = _COUNT.fullmatch(query)
        if parsed is None:
            raise InvalidArgument(
                "In memory only count_over_time, bytes_over_time and rate are known, and sum by around them.",
                field=field,
            )
        tenant, matches = self._tenant(caller), _selection(parsed["lines"], field)
        length = int(parsed["range"]) * _UNITS[parsed["unit"]]
        by = None if parsed["sum"] is None else {name.strip() for name in (parsed["by"] or "").split(",")}

        def at(moment: int) -> dict[tuple[tuple[str, str], ...], float]:
            values: defaultdict[tuple[tuple[str, str], ...], float] = defaultdict(float)
            for line in tenant.lines:
                if moment - length < line.time <= moment and all(match(line) for match in matches):
                    labels = line.labels if by is None else tuple(each for each in line.labels if each[0] in by)
                    values[labels] += len(line.text.encode()) if parsed["function"] == "bytes_over_time" else 1
            if parsed["function"] == "rate":
                return {labels: value * NANOSECONDS / length for labels, value in values.items()}
            return dict(values)

        return at


def _line(caller: Caller, entry: logs_pb2.Entry, path: str, now: int) -> _Line:
    labels, metadata = dict(entry.labels), dict(entry.metadata)
    _check(labels, path, "labels", LABELS)
    _check(metadata, path, "metadata", 64)
    if len(entry.line.encode()) > LONGEST_LINE:
        raise InvalidArgument(f"A line may have {LONGEST_LINE} bytes.", field=f"{path}.line")
    moment = _nanoseconds(entry.time) if entry.HasField("time") else now
    if moment > now + NEWEST or moment < 0:
        raise InvalidArgument("The time is too far in the future, or before 1970.", field=f"{path}.time")
    if caller.workload:
        labels["service"] = caller.workload
    labels.setdefault("service", "unknown")
    labels["org"] = caller.tenant
    return _Line(moment, tuple(sorted(labels.items())), tuple(sorted(metadata.items())), entry.line)


def _check(names: dict[str, str], path: str, kind: str, most: int) -> None:
    if len(names) > most:
        raise InvalidArgument(f"At most {most} {kind} an entry.", field=f"{path}.{kind}")
    for name, value in names.items():
        if not _NAME.fullmatch(name) or name.startswith("__"):
            raise InvalidArgument(f"{name!r} is no name.", field=f"{path}.{kind}")
        if not value or len(value.encode()) > 2048:
            raise InvalidArgument(f"The value of {name} is empty or too long.", field=f"{path}.{kind}.{name}")


def _selection(query: str, field: str, *, has_filters: bool = True) -> list[Match]:
    """Read `{label="value", ...} |= "text" ...`."""
    text = query.strip()
    if not text.startswith("{") or "}" not in text:
        raise InvalidArgument('A query begins with a selector, such as {service="tasks"}.', field=field)
    matches: list[Match] = []
    at = 1
    is_bound = False
    while matcher := _MATCHER.match(text, at):
        sign, value = matcher[2], _string(matcher[3])
        matches.append(_label_match(matcher[1], sign, value, field))
        is_bound |= bool(value) if sign == "=" else sign == "=~" and not _pattern(value, field).fullmatch("")
        at = matcher.end()
        if text[at : at + 1] != ",":
            break
        at += 1
    if matches and not is_bound:
        raise InvalidArgument("A selector needs a matcher that says what a label is, not only what not.", field=field)
    if not matches or text[at : at + 1] != "}":
        raise InvalidArgument('The selector is wrong: {label="value", ...}.', field=field)
    at += 1
    while at < len(text) and (line := _FILTER.match(text, at)):
        matches.append(_line_match(line[1], _string(line[2]), field))
        at = line.end()
    if at < len(text) or (not has_filters and text[-1] != "}"):
        raise InvalidArgument("After the selector only line filters are known in memory.", field=field)
    return matches


def _label_match(name: str, sign: str, value: str, field: str) -> Match:
    def of(line: _Line) -> str:
        return dict(line.labels).get(name, "")

    if sign == "=":
        return lambda line: of(line) == value
    if sign == "!=":
        return lambda line: of(line) != value
    pattern = _pattern(value, field)
    if sign == "=~":
        return lambda line: pattern.fullmatch(of(line)) is not None
    return lambda line: pattern.fullmatch(of(line)) is None


def _line_match(sign: str, value: str, field: str) -> Match:
    if sign in ("|=", "!="):
        return (lambda line: value in line.text) if sign == "|=" else (lambda line: value not in line.text)
    pattern = _pattern(value, field)
    if sign == "|~":
        return lambda line: pattern.search(line.text) is not None
    return lambda line: pattern.search(line.text) is None


def _pattern(value: str, field: str) -> re.Pattern[str]:
    try:
        return re.compile(value)
    except re.error as error:
        raise InvalidArgument(f"{value!r} is no pattern: {error}.", field=field) from None


def _string(quoted: str) -> str:
    return quoted[1:-1] if quoted[0] == "`" else quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\")


def _range(request: Any) -> tuple[int, int]:
    end = _nanoseconds(request.end) if request.HasField("end") else time.time_ns()
    start = _nanoseconds(request.start) if request.HasField("start") else end - HOUR
    if start >= end:
        raise InvalidArgument("The start must be before the end.", field="start")
    return start, end


def _key(line: _Line) -> list[Any]:
    return [line.time, [list(each) for each in line.labels], [list(each) for each in line.metadata], line.text]


def _write_cursor(asked: list[Any], start: int, end: int, last: list[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps([asked, start, end, last]).encode()).decode()


def _read_cursor(text: str, asked: list[Any]) -> tuple[int, int, list[Any]]:
    try:
        given, start, end, last = json.loads(base64.urlsafe_b64decode(text))
    except ValueError:
        raise InvalidArgument("This is no cursor that a query returned.", field="cursor") from None
    if given != asked:
        raise InvalidArgument("This cursor belongs to another query, tenant or direction.", field="cursor")
    return start, end, last


def _nanoseconds(moment: Timestamp) -> int:
    return moment.seconds * NANOSECONDS + moment.nanos


def _timestamp(nanoseconds: int) -> Timestamp:
    seconds, nanos = divmod(nanoseconds, NANOSECONDS)
    return Timestamp(seconds=seconds, nanos=nanos)
