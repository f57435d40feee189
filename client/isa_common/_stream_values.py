"""What streams, consumers and buckets tell, and its form on the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from isa.streams.v1 import streams_pb2 as pb
from isa_common._messages import to_duration


class Retention(IntEnum):
    """How long a stream keeps a message."""

    LIMITS = 1
    """Until a limit is reached."""
    INTEREST = 2
    """Until every consumer has acknowledged it."""
    WORK_QUEUE = 3
    """Until one consumer has acknowledged it."""


class Discard(IntEnum):
    """What a stream does at a limit."""

    OLD = 1
    """Drops the oldest messages."""
    NEW = 2
    """Refuses new ones with ResourceExhausted."""


class Start(Enum):
    """Which messages a reader or consumer begins with; besides these, a sequence or a time."""

    ALL = "all"
    LAST = "last"
    LAST_PER_SUBJECT = "last_per_subject"
    NEW = "new"


class KeyOperation(IntEnum):
    """What happened to a key."""

    PUT = 1
    DELETE = 2
    PURGE = 3
    EXPIRE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message as its reader sees it."""

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    message_id: str = ""
    publisher: str = ""
    """Id of the user who published it, or name of the workload."""
    time: datetime | None = None
    """When it was published; of a message in a stream, when it was stored."""
    sequence: int = 0
    """Place in its stream; 0 of a message from no stream."""
    reply_token: bytes = field(default=b"", repr=False)
    """What `reply` answers to; empty when nobody waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message to publish."""

    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    message_id: str = ""
    """A stream stores a message of the same id once within its duplicate window."""
    durable: bool = False
    """Wait until a stream has it on disk."""
    expected_last_sequence: int | None = None
    """Aborted unless this is the last sequence of the stream."""
    expected_last_subject_sequence: int | None = None
    """Aborted unless this is the last sequence of the subject in the stream; 0: none."""


@dataclass(frozen=True, slots=True)
class Published:
    """What became of a message; stream and sequence only of a durable one."""

    message_id: str
    stream: str = ""
    sequence: int = 0
    is_duplicate: bool = False
    """The stream had it already, at this sequence."""


Settle = Callable[[pb.Settlement], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Message):
    """A message that a consumer sent; it comes again until it is settled."""

    attempt: int
    """Which time it is sent: 1 is the first."""
    pending: int
    """Messages that are not sent yet, after this one."""
    ack_token: bytes = field(repr=False)
    _settle: Settle = field(repr=False, compare=False)

    async def ack(self, *, confirm: bool = False) -> None:
        """Done. From `consume` it is sent without waiting; with `confirm` the consumer remembers it on return."""
        await self._say(pb.SETTLED_ACK, confirm=confirm)

    async def nak(self, delay: timedelta | None = None, *, confirm: bool = False) -> None:
        """Failed: send it again, after the delay."""
        await self._say(pb.SETTLED_NAK, delay=delay, confirm=confirm)

    async def term(self, *, confirm: bool = False) -> None:
        """Given up: send it never again."""
        await self._say(pb.SETTLED_TERM, confirm=confirm)

    async def in_progress(self, *, confirm: bool = False) -> None:
        """Not done yet: let the time until it is sent again begin anew."""
        await self._say(pb.SETTLED_IN_PROGRESS, confirm=confirm)

    async def _say(self, settled: pb.Settled.ValueType, *, confirm: bool, delay: timedelta | None = None) -> None:
        await self._settle(
            pb.Settlement(ack_token=self.ack_token, settled=settled, delay=to_duration(delay), confirm=confirm)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A stream and what it holds."""

    name: str
    subjects: tuple[str, ...]
    retention: Retention
    discard: Discard
    max_age: timedelta | None
    max_bytes: int
    max_messages: int
    max_messages_per_subject: int
    max_message_size: int
    duplicate_window: timedelta | None
    description: str
    created_at: datetime
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """A durable consumer and how far it is."""

    stream: str
    name: str
    filter_subjects: tuple[str, ...]
    start: Start | int | datetime
    ack_wait: timedelta
    max_deliver: int
    max_ack_pending: int
    description: str
    created_at: datetime
    pending: int
    """Messages that were not sent yet."""
    ack_pending: int
    """Messages that were sent and are not settled."""
    redelivered: int
    """Messages that were sent again and are not settled."""
    ack_floor: int
    """Up to this sequence every message is settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValueStatus:
    """A bucket and what it holds."""

    name: str
    history: int
    ttl: timedelta | None
    max_bytes: int
    max_value_size: int
    description: str
    created_at: datetime
    entries: int
    """Values, history and marks of deletion included."""
    bytes: int
    revision: int
    """The highest revision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyEntry:
    """A value of a key, or its end."""

    key: str
    value: bytes
    revision: int
    """Grows with every change in the bucket."""
    time: datetime
    operation: KeyOperation
    publisher: str
    """Who did it; empty when time did."""


def _time(given: Timestamp) -> datetime:
    return given.ToDatetime(UTC)


def _span(given: Duration) -> timedelta | None:
    return given.ToTimedelta() or None


def to_publish(message: Outgoing) -> pb.PublishRequest:
    """What is asked for a message to be published."""
    return pb.PublishRequest(
        subject=message.subject,
        data=message.data,
        headers=message.headers,
        message_id=message.message_id,
        durable=message.durable,
        expected_last_sequence=message.expected_last_sequence,
        expected_last_subject_sequence=message.expected_last_subject_sequence,
    )


def published(response: pb.PublishResponse) -> Published:
    """What became of a message."""
    return Published(response.message_id, response.stream, response.sequence, response.duplicate)


def message_of(message: pb.Message) -> Message:
    """A message of the wire."""
    return Message(**_fields(message))


def _fields(message: pb.Message) -> dict[str, Any]:
    return {
        "subject": message.subject,
        "data": message.data,
        "headers": dict(message.headers),
        "message_id": message.message_id,
        "publisher": message.publisher,
        "time": _time(message.time),
        "sequence": message.sequence,
        "reply_token": message.reply_token,
    }


def delivery_of(delivery: pb.Delivery, settle: Settle) -> Delivery:
    """A delivery of the wire, and how it is settled."""
    return Delivery(
        **_fields(delivery.message),
        attempt=delivery.attempt,
        pending=delivery.pending,
        ack_token=delivery.ack_token,
        _settle=settle,
    )


def to_start(start: Start | int | datetime) -> pb.Start:
    """Where to begin, for the wire."""
    message = pb.Start()
    if isinstance(start, Start):
        getattr(message, start.value).SetInParent()
    elif isinstance(start, datetime):
        message.time.FromDatetime(start)
    else:
        message.sequence = start
    return message


def stream_of(stream: pb.Stream) -> Stream:
    """A stream of the wire."""
    config = stream.config
    return Stream(
        name=config.name,
        subjects=tuple(config.subjects),
        retention=Retention(config.retention),
        discard=Discard(config.discard),
        max_age=_span(config.max_age),
        max_bytes=config.max_bytes,
        max_messages=config.max_messages,
        max_messages_per_subject=config.max_messages_per_subject,
        max_message_size=config.max_message_size,
        duplicate_window=_span(config.duplicate_window),
        description=config.description,
        created_at=_time(stream.created),
        messages=stream.messages,
        bytes=stream.bytes,
        first_sequence=stream.first_sequence,
        last_sequence=stream.last_sequence,
        consumers=stream.consumers,
    )


def consumer_of(consumer: pb.Consumer) -> Consumer:
    """A consumer of the wire."""
    config = consumer.config
    start: Start | int | datetime
    match config.start.WhichOneof("from"):
        case "sequence":
            start = config.start.sequence
        case "time":
            start = _time(config.start.time)
        case None:
            start = Start.ALL
        case name:
            start = Start(name)
    return Consumer(
        stream=consumer.stream,
        name=config.name,
        filter_subjects=tuple(config.filter_subjects),
        start=start,
        ack_wait=config.ack_wait.ToTimedelta(),
        max_deliver=config.max_deliver,
        max_ack_pending=config.max_ack_pending,
        description=config.description,
        created_at=_time(consumer.created),
        pending=consumer.pending,
        ack_pending=consumer.ack_pending,
        redelivered=consumer.redelivered,
        ack_floor=consumer.ack_floor,
    )


def bucket_of(bucket: pb.Bucket) -> KeyValueStatus:
    """A bucket of the wire."""
    config = bucket.config
    return KeyValueStatus(
        name=config.name,
        history=config.history,
        ttl=_span(config.ttl),
        max_bytes=config.max_bytes,
        max_value_size=config.max_value_size,
        description=config.description,
        created_at=_time(bucket.created),
        entries=bucket.entries,
        bytes=bucket.bytes,
        revision=bucket.revision,
    )


def entry_of(entry: pb.Entry) -> KeyEntry:
    """An entry of the wire."""
    return KeyEntry(
        key=entry.key,
        value=entry.value,
        revision=entry.revision,
        time=_time(entry.time),
        operation=KeyOperation(entry.operation),
        publisher=entry.publisher,
    )
