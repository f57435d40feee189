"""Names, messages, tokens and configurations between the contract and NATS."""

from __future__ import annotations

import functools
import hmac
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from nats.aio.msg import Msg

from isa.streams.v1 import streams_pb2 as pb
from isa_common import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from kernel import Caller

LARGEST = 1 << 20
"""Bytes of a message with its headers: NATS's own max_payload."""
LONGEST_SUBJECT = 256
TOKENS = 32
LONGEST_ID = 128
HEADERS = 64
LONGEST_HEADER = 4096
ALL_HEADERS = 32 << 10
DESCRIPTION = 1024
SECOND = 1_000_000_000
LONGEST_TIME = 10 * 365 * 86400 * SECOND

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
HEADER = re.compile(r"[A-Za-z0-9._-]{1,128}")

ENVELOPE = "Isa-Message"
"""The one header that is ours: who, when, which id, and the publisher's own headers, as JSON."""
MESSAGE_ID = "Nats-Msg-Id"
OPERATION = "KV-Operation"
ACK = "$JS.ACK."

Item = TypeVar("Item")


class Kind(Enum):
    """What NATS calls a thing of a tenant: what stands before its own name."""

    SUBJECT = "{}."
    STREAM = "{}_"
    BUCKET = "KV_{}_"
    KEY = "$KV.{}."


def isolate(caller: Caller, kind: Kind, name: str) -> str:
    """The physical name of a thing; a tenant has no dot and no underscore, so no two tenants' names meet."""
    return _prefix(caller.tenant, kind) + name


def own(caller: Caller, kind: Kind, physical: str) -> str:
    """The name that its tenant knows a thing by."""
    return physical[len(isolate(caller, kind, "")) :]


@functools.lru_cache(maxsize=4096)
def _prefix(tenant: str, kind: Kind) -> str:
    return kind.value.format(tenant)


# Names.


def subject(text: str, field: str, *, is_filter: bool = False) -> str:
    """A well-formed subject; a filter may have wildcards."""
    if not text or len(text.encode()) > LONGEST_SUBJECT:
        raise InvalidArgument(f"A subject has 1 to {LONGEST_SUBJECT} bytes.", field=field)
    tokens = text.split(".")
    if len(tokens) > TOKENS:
        raise InvalidArgument(f"A subject has up to {TOKENS} tokens.", field=field)
    if text[0] == "$":
        raise InvalidArgument("No subject begins with $.", field=field)
    if not text.isprintable() or " " in text:
        raise InvalidArgument("A subject has no spaces and no control characters.", field=field)
    for index, part in enumerate(tokens):
        if not part:
            raise InvalidArgument("A subject has no empty token: no dot at its ends, and no two together.", field=field)
        if "*" in part or ">" in part:
            if not is_filter:
                raise InvalidArgument("Wildcards are for those who listen, not for a single subject.", field=field)
            if part != "*" and (part != ">" or index != len(tokens) - 1):
                raise InvalidArgument("A wildcard is a whole token, and > the last one.", field=field)
    return text


def apart(filters: Sequence[str], field: str) -> None:
    """Refuse filters of which two take the same subject."""
    for index, one in enumerate(filters):
        if any(_overlap(one.split("."), other.split(".")) for other in filters[:index]):
            raise InvalidArgument("Two of these take the same subject.", field=field)


def _overlap(one: Sequence[str], other: Sequence[str]) -> bool:
    for each, its in zip(one, other, strict=False):
        if ">" in (each, its):
            return True
        if each != its and "*" not in (each, its):
            return False
    return len(one) == len(other)


def name(text: str, field: str) -> str:
    """A well-formed name of a stream, consumer, bucket or group."""
    if not NAME.fullmatch(text):
        raise InvalidArgument("A name is 1 to 64 letters, digits, _ and -.", field=field)
    return text


def items(given: Sequence[Item], field: str, *, most: int = 1000) -> Sequence[Item]:
    """The items of a batch, if they are not too many."""
    if len(given) > most:
        raise InvalidArgument(f"At most {most} at a time.", field=field)
    return given


# Messages.


def envelope(caller: Caller, headers: Mapping[str, str], message_id: str = "") -> dict[str, str]:
    """The NATS headers of a message, with its id made where none was given."""
    if len(headers) > HEADERS:
        raise InvalidArgument(f"At most {HEADERS} headers a message.", field="headers")
    for key, value in headers.items():
        if not HEADER.fullmatch(key):
            raise InvalidArgument("A header's name is 1 to 128 letters, digits, -, _ and dots.", field="headers")
        if len(value.encode()) > LONGEST_HEADER:
            raise InvalidArgument(f"A header has up to {LONGEST_HEADER} bytes.", field=f"headers.{key}")
    if len(message_id) > LONGEST_ID or not message_id.isprintable() or message_id != message_id.strip():
        raise InvalidArgument(f"A message id is up to {LONGEST_ID} printable characters.", field="message_id")
    told: dict[str, Any] = {"publisher": caller.user or caller.workload, "time": time.time_ns()}
    if not message_id:
        told["id"] = uuid.uuid4().hex
    if headers:
        told["headers"] = dict(headers)
    text = json.dumps(told, separators=(",", ":"))
    if len(text) > ALL_HEADERS:
        raise InvalidArgument(f"All headers together have up to {ALL_HEADERS} bytes.", field="headers")
    return {ENVELOPE: text, MESSAGE_ID: message_id} if message_id else {ENVELOPE: text}


def fits(data: bytes, headers: Mapping[str, str], field: str = "data") -> None:
    """Refuse what NATS would end the connection for."""
    if len(data) + sum(len(key) + len(value.encode()) + 4 for key, value in headers.items()) + 12 > LARGEST:
        raise InvalidArgument("A message has up to 1 MiB with its headers.", field=field)


def id_of(headers: Mapping[str, str]) -> str:
    """The id of a message that an `envelope` was made for."""
    return headers.get(MESSAGE_ID) or str(json.loads(headers[ENVELOPE])["id"])


def is_ours(message: Msg) -> bool:
    """Whether a message was published by an adapter; answers of NATS's own have no envelope."""
    return bool(message.headers) and ENVELOPE in (message.headers or {})


def decode(
    caller: Caller, message: Msg, *, at: str = "", sequence: int = 0, stored: Timestamp | None = None
) -> pb.Message:
    """A message as its reader sees it."""
    headers = message.headers or {}
    told: dict[str, Any] = json.loads(headers.get(ENVELOPE, "{}"))
    return pb.Message(
        subject=own(caller, Kind.SUBJECT, at or message.subject),
        data=message.data,
        headers=told.get("headers"),
        message_id=headers.get(MESSAGE_ID) or told.get("id", ""),
        publisher=told.get("publisher", ""),
        time=stored or timestamp(told.get("time", 0)),
        sequence=sequence,
    )


def stored(caller: Caller, message: Msg) -> pb.Message:
    """A message that NATS read from a stream by its sequence or subject."""
    headers = message.headers or {}
    return decode(
        caller,
        message,
        at=headers["Nats-Subject"],
        sequence=int(headers["Nats-Sequence"]),
        stored=moment(headers["Nats-Time-Stamp"]),
    )


class Place:
    """What a consumer tells of a message, by the subject that it is to be acknowledged at."""

    __slots__ = ("attempt", "consumer_sequence", "pending", "sequence", "time")

    def __init__(self, message: Msg) -> None:
        parts = message.reply.split(".")
        at = 4 if len(parts) == 9 else 6  # with a domain and an account in front
        numbers = (int(part) for part in parts[at : at + 5])
        self.attempt, self.sequence, self.consumer_sequence, stored, self.pending = numbers
        self.time = timestamp(stored)


def delivered(caller: Caller, message: Msg, tokens: Tokens) -> pb.Delivery:
    """A message that a consumer sent."""
    place = Place(message)
    return pb.Delivery(
        message=decode(caller, message, sequence=place.sequence, stored=place.time),
        ack_token=tokens.seal(caller, ACK, message.reply),
        attempt=place.attempt,
        pending=place.pending,
    )


OPERATIONS = {"DEL": pb.OPERATION_DELETE, "PURGE": pb.OPERATION_PURGE}


def entry(caller: Caller, bucket: str, message: Msg, *, at: str, revision: int, changed: Timestamp) -> pb.Entry:
    """A value of a key, or its end."""
    headers = message.headers or {}
    operation = OPERATIONS.get(headers.get(OPERATION, ""), pb.OPERATION_PUT)
    if "Nats-Marker-Reason" in headers:
        operation = pb.OPERATION_EXPIRE
    return pb.Entry(
        key=own(caller, Kind.KEY, at)[len(bucket) + 1 :],
        value=message.data,
        revision=revision,
        time=changed,
        operation=operation,
        publisher=json.loads(headers.get(ENVELOPE, "{}")).get("publisher", ""),
    )


class Tokens:
    """Seals subjects of NATS for those who got a message: opaque, bound to the tenant, and impossible to forge."""

    def __init__(self) -> None:
        self._key = b""

    def use(self, key: bytes) -> None:
        """Seal with this key from now on."""
        self._key = key

    def seal(self, caller: Caller, kind: str, inbox: str) -> bytes:
        """The token that stands for a subject."""
        return self._tag(caller, kind, inbox.encode()) + inbox.encode()

    def open(self, caller: Caller, kind: str, token: bytes, field: str) -> str:
        """The subject of a token; InvalidArgument when it is none of this caller's."""
        tag, inbox = token[:16], token[16:]
        if len(tag) < 16 or not hmac.compare_digest(tag, self._tag(caller, kind, inbox)):
            raise InvalidArgument("This is no token that came with a message of yours.", field=field)
        return inbox.decode()

    def _tag(self, caller: Caller, kind: str, inbox: bytes) -> bytes:
        assert self._key, "started before it serves"
        facts = f"{kind}\0{caller.tenant}\0".encode() + inbox
        return hmac.digest(self._key, facts, "sha256")[:16]


# Times.


def timestamp(nanoseconds: int) -> Timestamp:
    """A moment as NATS counts it."""
    seconds, nanos = divmod(nanoseconds, SECOND)
    return Timestamp(seconds=seconds, nanos=nanos)


def moment(text: str) -> Timestamp:
    """A moment as NATS writes it."""
    parsed = Timestamp()
    parsed.FromJsonString(text)
    return parsed


def nanoseconds(duration: Duration, field: str, *, least: int = 0) -> int:
    """A duration as NATS counts it; zero stays zero."""
    total = duration.seconds * SECOND + duration.nanos
    if total and not max(least, 0) <= total <= LONGEST_TIME:
        raise InvalidArgument(f"This is 0, or {least / SECOND:g} s to ten years.", field=field)
    return total


def duration(nanos: int) -> Duration:
    """A duration of NATS."""
    return Duration(seconds=nanos // SECOND, nanos=nanos % SECOND)


# Configurations.

RETENTIONS = {pb.RETENTION_LIMITS: "limits", pb.RETENTION_INTEREST: "interest", pb.RETENTION_WORK_QUEUE: "workqueue"}
DISCARDS = {pb.DISCARD_OLD: "old", pb.DISCARD_NEW: "new"}
TWO_MINUTES = 120 * SECOND
SHORTEST_AGE = SECOND // 10


def _number(value: int, field: str, *, most: int = 1 << 53) -> int:
    if not 0 <= value <= most:
        raise InvalidArgument(f"This is 0 to {most}.", field=field)
    return value


def _text(text: str, field: str) -> str:
    if len(text) > DESCRIPTION or "\0" in text:
        raise InvalidArgument(f"A description is up to {DESCRIPTION} characters, without NUL.", field=field)
    return text


def stream_config(
    caller: Caller, config: pb.StreamConfig, *, bytes_default: int, bytes_most: int, replicas: int
) -> dict[str, Any]:
    """A stream as JetStream is told of it."""
    if not 0 < len(config.subjects) <= 64:
        raise InvalidArgument("A stream takes 1 to 64 subjects.", field="config.subjects")
    subjects = [
        isolate(caller, Kind.SUBJECT, subject(text, f"config.subjects[{index}]", is_filter=True))
        for index, text in enumerate(config.subjects)
    ]
    apart(config.subjects, "config.subjects")
    age = nanoseconds(config.max_age, "config.max_age", least=SHORTEST_AGE)
    window = nanoseconds(config.duplicate_window, "config.duplicate_window", least=SHORTEST_AGE)
    if age and window > age:
        raise InvalidArgument("Ids are not remembered longer than messages.", field="config.duplicate_window")
    return {
        "name": isolate(caller, Kind.STREAM, name(config.name, "config.name")),
        "subjects": subjects,
        "retention": RETENTIONS.get(config.retention, "limits"),
        "discard": DISCARDS.get(config.discard, "old"),
        "max_age": age,
        "max_bytes": _number(config.max_bytes, "config.max_bytes", most=bytes_most) or bytes_default,
        "max_msgs": _number(config.max_messages, "config.max_messages") or -1,
        "max_msgs_per_subject": _number(config.max_messages_per_subject, "config.max_messages_per_subject") or -1,
        "max_msg_size": _number(config.max_message_size, "config.max_message_size", most=LARGEST) or LARGEST,
        "duplicate_window": window or (min(age, TWO_MINUTES) if age else TWO_MINUTES),
        "description": _text(config.description, "config.description"),
        "storage": "file",
        "num_replicas": replicas,
        "max_consumers": -1,
        "allow_direct": True,
    }


def stream(caller: Caller, told: Mapping[str, Any]) -> pb.Stream:
    """A stream as JetStream tells of it."""
    config, state = told["config"], told["state"]
    return pb.Stream(
        config=pb.StreamConfig(
            name=own(caller, Kind.STREAM, config["name"]),
            subjects=[own(caller, Kind.SUBJECT, each) for each in config["subjects"]],
            retention=_key(RETENTIONS, config["retention"]),
            discard=_key(DISCARDS, config["discard"]),
            max_age=duration(config["max_age"]),
            max_bytes=config["max_bytes"],
            max_messages=max(config["max_msgs"], 0),
            max_messages_per_subject=max(config["max_msgs_per_subject"], 0),
            max_message_size=config["max_msg_size"],
            duplicate_window=duration(config["duplicate_window"]),
            description=config.get("description", ""),
        ),
        created=moment(told["created"]),
        messages=state["messages"],
        bytes=state["bytes"],
        first_sequence=state["first_seq"],
        last_sequence=state["last_seq"],
        consumers=state["consumer_count"],
    )


def bucket_config(
    caller: Caller, config: pb.BucketConfig, *, bytes_default: int, bytes_most: int, replicas: int
) -> dict[str, Any]:
    """A bucket as JetStream is told of it: the last values of each subject of a stream."""
    bucket = name(config.name, "config.name")
    ttl = nanoseconds(config.ttl, "config.ttl", least=SECOND)
    return {
        "name": isolate(caller, Kind.BUCKET, bucket),
        "subjects": [isolate(caller, Kind.KEY, f"{bucket}.>")],
        "retention": "limits",
        "discard": "new",
        "max_age": ttl,
        "max_bytes": _number(config.max_bytes, "config.max_bytes", most=bytes_most) or bytes_default,
        "max_msgs": -1,
        "max_msgs_per_subject": _number(config.history, "config.history", most=64) or 1,
        "max_msg_size": _number(config.max_value_size, "config.max_value_size", most=LARGEST) or LARGEST,
        "duplicate_window": min(ttl, TWO_MINUTES) if ttl else TWO_MINUTES,
        "description": _text(config.description, "config.description"),
        "storage": "file",
        "num_replicas": replicas,
        "max_consumers": -1,
        "allow_direct": True,
        "allow_rollup_hdrs": True,
        "deny_delete": True,
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": SECOND,  # tells who watches that a value's time was up
    }


def bucket(caller: Caller, told: Mapping[str, Any]) -> pb.Bucket:
    """A bucket as JetStream tells of it."""
    config, state = told["config"], told["state"]
    return pb.Bucket(
        config=pb.BucketConfig(
            name=own(caller, Kind.BUCKET, config["name"]),
            history=config["max_msgs_per_subject"],
            ttl=duration(config["max_age"]),
            max_bytes=config["max_bytes"],
            max_value_size=config["max_msg_size"],
            description=config.get("description", ""),
        ),
        created=moment(told["created"]),
        entries=state["messages"],
        bytes=state["bytes"],
        revision=state["last_seq"],
    )


def start_config(start: pb.Start, field: str) -> dict[str, Any]:
    """Where a consumer begins, as JetStream is told of it."""
    match start.WhichOneof("from"):
        case "last":
            return {"deliver_policy": "last"}
        case "last_per_subject":
            return {"deliver_policy": "last_per_subject"}
        case "new":
            return {"deliver_policy": "new"}
        case "sequence":
            if not 0 < start.sequence < 1 << 63:
                raise InvalidArgument("The first sequence is 1.", field=f"{field}.sequence")
            return {"deliver_policy": "by_start_sequence", "opt_start_seq": start.sequence}
        case "time":
            try:
                text = start.time.ToJsonString()
            except ValueError:
                raise InvalidArgument("This is no time of the years 1 to 9999.", field=f"{field}.time") from None
            return {"deliver_policy": "by_start_time", "opt_start_time": text}
    return {"deliver_policy": "all"}


def consumer_config(caller: Caller, config: pb.ConsumerConfig) -> dict[str, Any]:
    """A durable consumer as JetStream is told of it."""
    filters = items(config.filter_subjects, "config.filter_subjects", most=64)
    begin = start_config(config.start, "config.start")
    subjects = [
        isolate(caller, Kind.SUBJECT, subject(text, f"config.filter_subjects[{index}]", is_filter=True))
        for index, text in enumerate(filters)
    ]
    apart(config.filter_subjects, "config.filter_subjects")
    if not subjects and begin["deliver_policy"] == "last_per_subject":
        subjects = [isolate(caller, Kind.SUBJECT, ">")]
    consumer = name(config.name, "config.name")
    return {
        "name": consumer,
        "durable_name": consumer,
        "ack_policy": "explicit",
        "replay_policy": "instant",
        "filter_subjects": subjects,
        "ack_wait": nanoseconds(config.ack_wait, "config.ack_wait", least=SHORTEST_AGE) or 30 * SECOND,
        "max_deliver": _number(config.max_deliver, "config.max_deliver") or -1,
        "max_ack_pending": _number(config.max_ack_pending, "config.max_ack_pending", most=100_000) or 1000,
        "description": _text(config.description, "config.description"),
        **begin,
    }


def consumer(caller: Caller, told: Mapping[str, Any]) -> pb.Consumer:
    """A consumer as JetStream tells of it."""
    config = told["config"]
    start = pb.Start()
    match config["deliver_policy"]:
        case "by_start_sequence":
            start.sequence = config["opt_start_seq"]
        case "by_start_time":
            start.time.CopyFrom(moment(config["opt_start_time"]))
        case policy:
            getattr(start, policy).SetInParent()
    filters = config.get("filter_subjects") or ([config["filter_subject"]] if config.get("filter_subject") else [])
    return pb.Consumer(
        stream=own(caller, Kind.STREAM, told["stream_name"]),
        config=pb.ConsumerConfig(
            name=told["name"],
            filter_subjects=[own(caller, Kind.SUBJECT, each) for each in filters],
            start=start,
            ack_wait=duration(config["ack_wait"]),
            max_deliver=max(config["max_deliver"], 0),
            max_ack_pending=config["max_ack_pending"],
            description=config.get("description", ""),
        ),
        created=moment(told["created"]),
        pending=told["num_pending"],
        ack_pending=told["num_ack_pending"],
        redelivered=told["num_redelivered"],
        ack_floor=told["ack_floor"]["stream_seq"],
    )


def _key(table: Mapping[Any, str], value: str) -> Any:
    return next(key for key, each in table.items() if each == value)


# Refusals of JetStream, by its own error codes: https://github.com/nats-io/nats-server/blob/main/server/errors.json

_FULL = "The stream or bucket is full, or the broker is."
_REFUSALS: dict[int, Callable[[], IsaError]] = {
    10014: lambda: NotFound("No such consumer."),
    10037: lambda: NotFound("No such message."),
    10059: lambda: NotFound("No such stream or bucket."),
    10058: lambda: AlreadyExists("The name is in use, with another configuration."),
    10148: lambda: AlreadyExists("The name is in use, with another configuration."),
    10065: lambda: FailedPrecondition("Another stream takes some of these subjects.", field="config.subjects"),
    10071: lambda: Aborted("The last sequence is another one."),
    10164: lambda: Aborted("The last sequence is another one."),
    10054: lambda: InvalidArgument("The message is larger than this stream or bucket takes.", field="data"),
    10077: lambda: ResourceExhausted(_FULL),
    10047: lambda: ResourceExhausted(_FULL),
    10023: lambda: ResourceExhausted(_FULL),
    10099: lambda: FailedPrecondition("A work queue has one consumer a message.", field="config.filter_subjects"),
    10100: lambda: FailedPrecondition("A work queue has one consumer a message.", field="config.filter_subjects"),
    10101: lambda: FailedPrecondition("A consumer of a work queue begins with all.", field="config.start"),
    10052: lambda: InvalidArgument("The configuration contradicts itself, or what is there.", field="config"),
}


def refusal(error: Mapping[str, Any]) -> IsaError:
    """What JetStream refused, in our words."""
    if known := _REFUSALS.get(error.get("err_code", 0)):
        return known()
    match error.get("code"):
        case 400:
            return InvalidArgument("The broker does not take this.", field="config")
        case 404:
            return NotFound("No such stream, consumer or bucket.")
        case 503:
            return Unavailable("The broker cannot do this at the moment.")
    return Internal("Something went wrong on our side.")
