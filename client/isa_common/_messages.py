"""What stands alike in the messages of every contract: times, batches and their outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from isa_common._transport import error_of

_Message = TypeVar("_Message", bound=Message)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BYTES = 8 << 20
"""Of one portion; a message may have 16 MiB."""


def to_duration(length: timedelta | None) -> Duration | None:
    """A time span of the wire."""
    if length is None:
        return None
    duration = Duration()
    duration.FromTimedelta(length)
    return duration


def to_timestamp(moment: datetime | None) -> Timestamp | None:
    """A moment of the wire; one without a zone is UTC."""
    if moment is None:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH  # thrice as fast as FromDatetime
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def outcome_of(outcome: Any) -> Any:
    """The answer to an item of a batch, or its error."""
    return error_of(outcome.error) if outcome.HasField("error") else outcome.ok


def outcomes_of(response: Any) -> list[Any]:
    """The answer to each item of a batch, or its error."""
    return [outcome_of(outcome) for outcome in response.outcomes]


def portions(items: Iterable[_Message], *, most: int) -> Iterator[list[_Message]]:
    """The items of a batch, in lists of so many that fit into one message each."""
    portion: list[_Message] = []
    size = 0
    for item in items:
        length = item.ByteSize()
        if portion and (len(portion) == most or size + length > _BYTES):
            yield portion
            portion, size = [], 0
        portion.append(item)
        size += length
    if portion:
        yield portion
