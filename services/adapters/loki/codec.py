"""Log entries between the contract and Loki's JSON, and the cursor between two pages."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from google.protobuf.timestamp_pb2 import Timestamp

from isa.logs.v1 import logs_pb2
from isa_common import InvalidArgument
from kernel import Caller

NANOSECONDS = 1_000_000_000
LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
LABELS = 13
"""Labels that a caller may give; Loki takes 15, and two are ours."""
LONGEST_VALUE = 2048
LONGEST_LINE = 256 * 1024
METADATA = 64

Line = tuple[int, logs_pb2.Entry]
"""An entry and its time in nanoseconds, which is finer than what most clients can say."""


def isolate(caller: Caller) -> str:
    """Loki's tenant of a caller."""
    return caller.tenant


def nanoseconds(time: Timestamp) -> int:
    """A moment as Loki counts it."""
    return time.seconds * NANOSECONDS + time.nanos


def streams(entries: Sequence[logs_pb2.Entry], caller: Caller, *, now: int, newest: int) -> bytes:
    """The body of a push; InvalidArgument names the entry that Loki would refuse, before anything is stored."""
    tenant = isolate(caller)
    grouped: defaultdict[tuple[tuple[str, str], ...], list[list[Any]]] = defaultdict(list)
    known: dict[frozenset[tuple[str, str]], list[list[Any]]] = {}
    for index, entry in enumerate(entries):
        given = frozenset(entry.labels.items())
        values = known.get(given)
        if values is None:
            _check(entry.labels, f"entries[{index}]", "labels", LABELS)
            labels = {"service": "unknown", **entry.labels, "org": tenant}
            if caller.workload:
                labels["service"] = caller.workload
            values = known[given] = grouped[tuple(sorted(labels.items()))]
        line, moment = entry.line, entry.time
        if len(line) > LONGEST_LINE // 4 and len(line.encode()) > LONGEST_LINE:
            raise InvalidArgument(f"A line may have {LONGEST_LINE} bytes.", field=f"entries[{index}].line")
        time = moment.seconds * NANOSECONDS + moment.nanos if entry.HasField("time") else now
        if time > newest or time < 0:
            raise InvalidArgument("The time is too far in the future, or before 1970.", field=f"entries[{index}].time")
        value: list[Any] = [str(time), line]
        if entry.metadata:
            _check(entry.metadata, f"entries[{index}]", "metadata", METADATA)
            value.append(dict(entry.metadata))
        values.append(value)
    return orjson.dumps({"streams": [{"stream": dict(key), "values": values} for key, values in grouped.items()]})


def _check(names: Mapping[str, str], field: str, kind: str, most: int) -> None:
    if len(names) > most:
        raise InvalidArgument(f"At most {most} {kind} an entry.", field=f"{field}.{kind}")
    for name, value in names.items():
        if not LABEL.fullmatch(name) or name.startswith("__"):
            raise InvalidArgument(
                f"{name!r} is no name: letters, digits and _, and neither a digit nor __ in front.",
                field=f"{field}.{kind}",
            )
        if not value or len(value.encode()) > LONGEST_VALUE:
            raise InvalidArgument(
                f"The value of {name} is empty or longer than {LONGEST_VALUE} bytes.", field=f"{field}.{kind}.{name}"
            )


def read(result: Iterable[Mapping[str, Any]]) -> list[Line]:
    """The entries of Loki's answer, of all streams, in no order."""
    lines: list[Line] = []
    for stream in result:
        for time, text, *more in stream["values"]:
            metadata: dict[str, str] = more[0].get("structuredMetadata", {}) if more else {}
            labels = {name: value for name, value in stream["stream"].items() if name not in metadata}
            seconds, nanos = divmod(int(time), NANOSECONDS)
            entry = logs_pb2.Entry(
                time=Timestamp(seconds=seconds, nanos=nanos), line=text, labels=labels, metadata=metadata
            )
            lines.append((int(time), entry))
    return lines


def samples(data: Mapping[str, Any]) -> list[logs_pb2.Samples]:
    """Loki's vector, matrix or number, as series."""
    if data["resultType"] == "scalar":
        time, value = data["result"]
        return [logs_pb2.Samples(samples=[_sample(time / 1000, value)])]  # Loki counts here in milliseconds
    return [
        logs_pb2.Samples(
            labels=series["metric"],
            samples=[_sample(time, value) for time, value in series.get("values") or (series["value"],)],
        )
        for series in data["result"]
    ]


def _sample(time: float, value: str) -> logs_pb2.Sample:
    seconds, milliseconds = divmod(round(time * 1000), 1000)
    return logs_pb2.Sample(time=Timestamp(seconds=seconds, nanos=milliseconds * 1_000_000), value=float(value))


def mark(entry: logs_pb2.Entry) -> bytes:
    """What tells an entry from its neighbours of the same time."""
    facts = [sorted(entry.labels.items()), sorted(entry.metadata.items()), entry.line]
    return hashlib.blake2b(orjson.dumps(facts), digest_size=8).digest()


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a page ended: the range of the whole query, the last time, and which entries of that time were sent."""

    start: int
    end: int
    time: int
    seen: frozenset[bytes]

    def write(self, question: bytes) -> str:
        """The cursor as text, bound to the question that it belongs to."""
        head = struct.pack(">8sqqq", question, self.start, self.end, self.time)
        return base64.urlsafe_b64encode(head + b"".join(sorted(self.seen))).decode("ascii")

    @classmethod
    def parse(cls, text: str, question: bytes) -> Cursor:
        """Read a cursor; InvalidArgument when it is none, or belongs to another question."""
        try:
            raw = base64.urlsafe_b64decode(text)
            given, start, end, time = struct.unpack_from(">8sqqq", raw)
        except (ValueError, struct.error):
            raise InvalidArgument("This is no cursor that a query returned.", field="cursor") from None
        seen = raw[struct.calcsize(">8sqqq") :]
        if given != question or len(seen) % 8:
            raise InvalidArgument("This cursor belongs to another query, tenant or direction.", field="cursor")
        return cls(start, end, time, frozenset(seen[at : at + 8] for at in range(0, len(seen), 8)))


def question(tenant: str, request: logs_pb2.QueryRequest) -> bytes:
    """What must be the same from page to page."""
    facts = [tenant, request.query, nanoseconds(request.start), nanoseconds(request.end), request.direction]
    return hashlib.blake2b(orjson.dumps(facts), digest_size=8).digest()
