"""Messages, streams, consumers and buckets in memory."""

from __future__ import annotations

import asyncio
import random
import re
import secrets
import time
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from isa.streams.v1 import streams_pb2 as pb
from isa_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    ResourceExhausted,
    status_of,
)
from isa_common.testing._transport import Caller

SECOND = 1_000_000_000
LARGEST = 1 << 20
STREAMS = 100
CONSUMERS = 500
STREAM_BYTES = 64 << 20
STREAM_BYTES_MOST = 10 << 30
WAITING = 8192

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADER = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ENDED = frozenset({pb.OPERATION_DELETE, pb.OPERATION_PURGE, pb.OPERATION_EXPIRE})


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message of a stream, or an entry of a bucket."""

    message: pb.Message
    nanos: int
    operation: int = pb.OPERATION_PUT
    ends: int = 0
    """When it expires, in nanoseconds; 0: never."""

    @property
    def size(self) -> int:
        return len(self.message.subject.encode()) + len(self.message.data) + 32


@dataclass(slots=True)
class _Log:
    """What a stream or a bucket is made of: messages in order."""

    config: Any
    subjects: list[str]
    is_bucket: bool = False
    created: int = field(default_factory=time.time_ns)
    kept: dict[int, _Kept] = field(default_factory=dict)
    last: int = 0
    ids: dict[str, tuple[int, int]] = field(default_factory=dict)
    consumers: dict[str, _Consumer] = field(default_factory=dict)
    is_deleted: bool = False
    changed: list[asyncio.Event] = field(default_factory=list)

    @property
    def max_age(self) -> int:
        return _nanos(self.config.ttl if self.is_bucket else self.config.max_age)

    @property
    def per_subject(self) -> int:
        kept: int = self.config.history if self.is_bucket else self.config.max_messages_per_subject
        return kept

    def wake(self) -> None:
        for event in self.changed:
            event.set()

    def expire(self) -> None:
        """Let go of what is too old; a bucket marks a key whose last value went."""
        now, age = time.time_ns(), self.max_age
        for sequence, kept in list(self.kept.items()):
            if (kept.ends and kept.ends <= now) or (age and kept.nanos + age <= now):
                del self.kept[sequence]
                if self.is_bucket and kept.operation not in _ENDED and self.last_of(kept.message.subject) is None:
                    marker = pb.Message(subject=kept.message.subject)
                    self.append(_Kept(marker, now, pb.OPERATION_EXPIRE, now + SECOND))

    def append(self, kept: _Kept) -> int:
        self.last += 1
        kept.message.sequence = self.last
        kept.message.time.CopyFrom(_timestamp(kept.nanos))
        self.kept[self.last] = kept
        if kept.ends or self.max_age:
            ends = min(each for each in (kept.ends, kept.nanos + self.max_age if self.max_age else 0) if each)
            loop = asyncio.get_running_loop()
            loop.call_later(max(ends - time.time_ns(), 0) / SECOND + 0.001, self._tick)
        self.wake()
        return self.last

    def _tick(self) -> None:
        self.expire()
        self.wake()

    def last_of(self, subject: str) -> _Kept | None:
        found = [kept for kept in self.kept.values() if kept.message.subject == subject]
        return found[-1] if found else None

    def of(self, subject: str) -> list[int]:
        return [sequence for sequence, kept in self.kept.items() if kept.message.subject == subject]

    def bytes(self) -> int:
        return sum(kept.size for kept in self.kept.values())

    def trim(self, fresh: _Kept) -> None:
        """Keep to the limits once a message more is in."""
        if self.per_subject:
            for sequence in self.of(fresh.message.subject)[: -self.per_subject]:
                del self.kept[sequence]
        while self.kept and (
            (not self.is_bucket and self.config.max_messages and len(self.kept) > self.config.max_messages)
            or self.bytes() > self.config.max_bytes
        ):
            del self.kept[next(iter(self.kept))]

    def admit(self, fresh: _Kept) -> None:
        """Refuse what is too large, or does not fit into a full log that discards nothing."""
        most = self.config.max_value_size if self.is_bucket else self.config.max_message_size
        if len(fresh.message.data) > most:
            raise InvalidArgument("The message is larger than this stream or bucket takes.", field="data")
        if self.is_bucket or self.config.discard == pb.DISCARD_NEW:
            replaced = 0
            if self.per_subject:
                gone = self.of(fresh.message.subject)
                replaced = sum(self.kept[each].size for each in gone[: len(gone) - self.per_subject + 1])
            is_full = not self.is_bucket and self.config.max_messages and len(self.kept) >= self.config.max_messages
            if is_full or self.bytes() + fresh.size - replaced > self.config.max_bytes:
                raise ResourceExhausted("The stream or bucket is full, or the broker is.")

    def start(self, start: pb.Start, matches: Callable[[str], bool]) -> tuple[int, set[int] | None]:
        """The first sequence of a reader, and which of the first messages it is sent at all."""
        self.expire()
        match start.WhichOneof("from"):
            case "new":
                return self.last + 1, None
            case "sequence":
                return start.sequence, None
            case "time":
                moment = start.time.seconds * SECOND + start.time.nanos
                later = [sequence for sequence, kept in self.kept.items() if kept.nanos >= moment]
                return (later[0] if later else self.last + 1), None
            case "last":
                found = [sequence for sequence, kept in self.kept.items() if matches(kept.message.subject)]
                return (found[-1] if found else self.last + 1), None
            case "last_per_subject":
                lasts = {
                    kept.message.subject: sequence
                    for sequence, kept in self.kept.items()
                    if matches(kept.message.subject)
                }
                return min(lasts.values(), default=self.last + 1), set(lasts.values())
        return 1, None


@dataclass(slots=True)
class _Sent:
    """A delivery that is not settled."""

    attempt: int
    due: float


@dataclass(slots=True)
class _Consumer:
    config: pb.ConsumerConfig
    following: int
    """The next sequence that was never sent."""
    only: set[int] | None
    """Of the messages up to the largest of these, only these are sent."""
    created: int = field(default_factory=time.time_ns)
    sent: dict[int, _Sent] = field(default_factory=dict)

    def matches(self, subject: str) -> bool:
        return not self.config.filter_subjects or any(_matches(each, subject) for each in self.config.filter_subjects)

    def wants(self, sequence: int, kept: _Kept) -> bool:
        if sequence < self.following or not self.matches(kept.message.subject):
            return False
        return self.only is None or sequence in self.only or sequence > max(self.only, default=0)

    def ready(self, log: _Log) -> Iterable[tuple[int, int]]:
        """Sequences to send, and which time that is: what is due again, then what is new."""
        now = time.monotonic()
        for sequence, sent in list(self.sent.items()):
            if sequence not in log.kept or (0 < self.config.max_deliver <= sent.attempt and sent.due <= now):
                del self.sent[sequence]
            elif sent.due <= now:
                yield sequence, sent.attempt + 1
        for sequence, kept in list(log.kept.items()):
            if len(self.sent) >= self.config.max_ack_pending:
                return
            if self.wants(sequence, kept):
                yield sequence, 1
                self.following = max(self.following, sequence + 1)

    def pending(self, log: _Log) -> int:
        return sum(self.wants(sequence, kept) for sequence, kept in log.kept.items())


@dataclass(slots=True)
class _Token:
    tenant: str
    log: _Log
    consumer: _Consumer
    sequence: int


@dataclass(slots=True, eq=False)
class _Subscriber:
    filter: str
    group: str
    waiting: deque[pb.Message] = field(default_factory=deque)
    dropped: int = 0
    woken: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Tenant:
    subscribers: list[_Subscriber] = field(default_factory=list)
    streams: dict[str, _Log] = field(default_factory=dict)
    buckets: dict[str, _Log] = field(default_factory=dict)
    asked: dict[bytes, asyncio.Future[pb.Message]] = field(default_factory=dict)
    tokens: dict[bytes, _Token] = field(default_factory=dict)


class MemoryStreams:
    """`isa.streams.v1.Streams` in memory."""

    def __init__(self) -> None:
        self._tenants: defaultdict[str, _Tenant] = defaultdict(_Tenant)

    # Messages.

    async def publish(self, caller: Caller, request: pb.PublishRequest) -> pb.PublishResponse:
        """Send a message; a durable one must find its stream."""
        tenant = self._tenant(caller)
        message = _outgoing(caller, request.subject, request.data, request.headers, request.message_id)
        is_expecting = request.HasField("expected_last_sequence") or request.HasField("expected_last_subject_sequence")
        if is_expecting and not request.durable:
            raise InvalidArgument("Only a durable message finds a stream as expected.", field="durable")
        log = _taking(tenant, request.subject)
        response = pb.PublishResponse(message_id=message.message_id)
        if request.durable:
            if log is None:
                raise NotFound("No stream takes this subject.", field="subject")
            response.stream = log.config.name
            response.sequence, response.duplicate = _store(log, message, request)
        elif log is not None:
            with suppress(IsaError):
                _store(log, message, request)
        _send(tenant, message)
        return response

    async def publish_many(self, caller: Caller, request: pb.PublishManyRequest) -> pb.PublishManyResponse:
        """Send messages, each with its own outcome."""
        outcomes = await _each(self.publish, caller, request.messages, "messages")
        return pb.PublishManyResponse(outcomes=[pb.PublishOutcome(**told) for told in outcomes])

    async def subscribe(self, caller: Caller, request: pb.SubscribeRequest) -> AsyncIterator[pb.SubscribeResponse]:
        """Send messages as they are published."""
        tenant = self._tenant(caller)
        _subject(request.subject, "subject", is_filter=True)
        if request.group:
            _name(request.group, "group")
        subscriber = _Subscriber(request.subject, request.group)
        tenant.subscribers.append(subscriber)
        try:
            yield pb.SubscribeResponse()
            while True:
                await subscriber.woken.wait()
                subscriber.woken.clear()
                while subscriber.waiting:
                    some = [subscriber.waiting.popleft() for _ in range(min(len(subscriber.waiting), 16))]
                    dropped, subscriber.dropped = subscriber.dropped, 0
                    yield pb.SubscribeResponse(messages=some, dropped=dropped)
        finally:
            tenant.subscribers.remove(subscriber)

    async def request(self, caller: Caller, request: pb.RequestRequest) -> pb.RequestResponse:
        """Publish a message and wait for the first reply."""
        tenant = self._tenant(caller)
        message = _outgoing(caller, request.subject, request.data, request.headers, "")
        log = _taking(tenant, request.subject)
        if log is not None:
            with suppress(IsaError):
                _store(log, message, pb.PublishRequest())
        token = secrets.token_bytes(32)
        answer: asyncio.Future[pb.Message] = asyncio.get_running_loop().create_future()
        tenant.asked[token] = answer
        asking = pb.Message()
        asking.CopyFrom(message)
        asking.reply_token = token
        if not _send(tenant, asking) and log is None:
            raise FailedPrecondition("Nobody listens on this subject.", field="subject")
        reply = pb.Message()
        reply.CopyFrom(await answer)
        reply.subject = request.subject
        return pb.RequestResponse(message=reply)

    async def request_many(self, caller: Caller, request: pb.RequestManyRequest) -> pb.RequestManyResponse:
        """Make requests, each with its own outcome."""
        outcomes = await _each(self.request, caller, request.requests, "requests")
        return pb.RequestManyResponse(outcomes=[pb.RequestOutcome(**told) for told in outcomes])

    async def reply(self, caller: Caller, request: pb.ReplyRequest) -> pb.ReplyResponse:
        """Answer who asked."""
        answer = self._tenant(caller).asked.get(request.reply_token)
        if answer is None:
            raise InvalidArgument("This is no token that came with a message of yours.", field="reply_token")
        message = _outgoing(caller, "reply", request.data, request.headers, "")
        if not answer.done():
            answer.set_result(message)
        return pb.ReplyResponse()

    async def reply_many(self, caller: Caller, request: pb.ReplyManyRequest) -> pb.ReplyManyResponse:
        """Answer who asked, each with its own outcome."""
        outcomes = await _each(self.reply, caller, request.replies, "replies")
        return pb.ReplyManyResponse(outcomes=[pb.ReplyOutcome(**told) for told in outcomes])

    # Streams.

    async def create_stream(self, caller: Caller, request: pb.CreateStreamRequest) -> pb.CreateStreamResponse:
        """Make a stream."""
        tenant, config = self._tenant(caller), _stream_config(request.config)
        known = tenant.streams.get(config.name)
        if known is not None:
            if known.config != config:
                raise AlreadyExists("The name is in use, with another configuration.")
            return pb.CreateStreamResponse(stream=_stream(known))
        _another(tenant)
        _no_overlap(tenant, config)
        tenant.streams[config.name] = _Log(config, list(config.subjects))
        return pb.CreateStreamResponse(stream=_stream(tenant.streams[config.name]))

    async def update_stream(self, caller: Caller, request: pb.UpdateStreamRequest) -> pb.UpdateStreamResponse:
        """Replace the configuration of a stream."""
        tenant, config = self._tenant(caller), _stream_config(request.config)
        log = _of(tenant.streams, config.name)
        if request.config.retention and config.retention != log.config.retention:
            raise FailedPrecondition("The retention of a stream stays as it was made.", field="config.retention")
        config.retention = log.config.retention
        _no_overlap(tenant, config)
        log.config, log.subjects = config, list(config.subjects)
        return pb.UpdateStreamResponse(stream=_stream(log))

    async def get_stream(self, caller: Caller, request: pb.GetStreamRequest) -> pb.GetStreamResponse:
        """Return a stream."""
        return pb.GetStreamResponse(stream=_stream(self._stream(caller, request.stream)))

    async def list_streams(self, caller: Caller, request: pb.ListStreamsRequest) -> pb.ListStreamsResponse:
        """Return all streams of the tenant."""
        streams = self._tenant(caller).streams
        return pb.ListStreamsResponse(streams=[_stream(streams[name]) for name in sorted(streams)])

    async def delete_stream(self, caller: Caller, request: pb.DeleteStreamRequest) -> pb.DeleteStreamResponse:
        """Delete a stream."""
        self._stream(caller, request.stream).is_deleted = True
        self._tenant(caller).streams.pop(request.stream).wake()
        return pb.DeleteStreamResponse()

    async def purge_stream(self, caller: Caller, request: pb.PurgeStreamRequest) -> pb.PurgeStreamResponse:
        """Delete messages of a stream."""
        if request.before_sequence and request.keep:
            raise InvalidArgument("Say before which message, or how many to keep, not both.", field="keep")
        if request.filter_subject:
            _subject(request.filter_subject, "filter_subject", is_filter=True)
        log = self._stream(caller, request.stream)
        found = [
            sequence
            for sequence, kept in log.kept.items()
            if not request.filter_subject or _matches(request.filter_subject, kept.message.subject)
        ]
        if request.keep:
            found = found[: -request.keep]
        if request.before_sequence:
            found = [sequence for sequence in found if sequence < request.before_sequence]
        for sequence in found:
            del log.kept[sequence]
        if not request.filter_subject:
            log.last = max(log.last, request.before_sequence - 1)  # what is purged before it was there is counted too
        return pb.PurgeStreamResponse(purged=len(found))

    async def get_message(self, caller: Caller, request: pb.GetMessageRequest) -> pb.GetMessageResponse:
        """Return one message of a stream."""
        if request.WhichOneof("which") == "last_of_subject":
            _subject(request.last_of_subject, "last_of_subject")
            found = self._stream(caller, request.stream).last_of(request.last_of_subject)
        else:
            if not request.sequence:
                raise InvalidArgument("Say which: the first sequence is 1.", field="sequence")
            found = self._stream(caller, request.stream).kept.get(request.sequence)
        if found is None:
            raise NotFound("No such message.")
        return pb.GetMessageResponse(message=found.message)

    async def get_messages(self, caller: Caller, request: pb.GetMessagesRequest) -> pb.GetMessagesResponse:
        """Return messages of a stream, each with its own outcome."""

        async def one(caller: Caller, sequence: int) -> pb.GetMessageResponse:
            if not sequence:
                raise InvalidArgument("The first sequence is 1.", field="sequences")
            return await self.get_message(caller, pb.GetMessageRequest(stream=request.stream, sequence=sequence))

        _name(request.stream, "stream")
        outcomes = await _each(one, caller, request.sequences, "sequences")
        return pb.GetMessagesResponse(outcomes=[pb.GetMessageOutcome(**told) for told in outcomes])

    async def replay(self, caller: Caller, request: pb.ReplayRequest) -> AsyncIterator[pb.ReplayResponse]:
        """Send the messages of a stream in order."""
        wanted = _subject(request.filter_subject or ">", "filter_subject", is_filter=True)
        _check_start(request.start, "start")
        log = self._stream(caller, request.stream)
        async for found, is_done in _read(log, [wanted], request.start, follow=request.follow):
            if found or is_done:
                yield pb.ReplayResponse(messages=[kept.message for kept in found])

    # Consumers.

    async def create_consumer(self, caller: Caller, request: pb.CreateConsumerRequest) -> pb.CreateConsumerResponse:
        """Make a durable consumer."""
        _name(request.stream, "stream")
        config = _consumer_config(request.config)
        log = self._stream(caller, request.stream)
        known = log.consumers.get(config.name)
        if known is None:
            if sum(len(each.consumers) for each in self._tenant(caller).streams.values()) >= CONSUMERS:
                raise ResourceExhausted(f"An organisation may have {CONSUMERS} consumers.")
            _fits_work_queue(log, config)
            known = _Consumer(config, 1, None)
            known.following, known.only = log.start(config.start, known.matches)
            log.consumers[config.name] = known
        elif known.config != config:
            raise AlreadyExists("The name is in use, with another configuration.")
        return pb.CreateConsumerResponse(consumer=_consumer(log, known))

    async def get_consumer(self, caller: Caller, request: pb.GetConsumerRequest) -> pb.GetConsumerResponse:
        """Return a consumer."""
        log, consumer = self._both(caller, request.stream, request.consumer)
        return pb.GetConsumerResponse(consumer=_consumer(log, consumer))

    async def list_consumers(self, caller: Caller, request: pb.ListConsumersRequest) -> pb.ListConsumersResponse:
        """Return the consumers of a stream."""
        log = self._stream(caller, request.stream)
        return pb.ListConsumersResponse(
            consumers=[_consumer(log, log.consumers[name]) for name in sorted(log.consumers)]
        )

    async def delete_consumer(self, caller: Caller, request: pb.DeleteConsumerRequest) -> pb.DeleteConsumerResponse:
        """Delete a consumer."""
        log, _ = self._both(caller, request.stream, request.consumer)
        del log.consumers[request.consumer]
        log.wake()
        return pb.DeleteConsumerResponse()

    async def fetch(self, caller: Caller, request: pb.FetchRequest) -> pb.FetchResponse:
        """Take messages of a consumer."""
        _name(request.stream, "stream")
        _name(request.consumer, "consumer")
        limit = _several(request.limit, "limit")
        wait = _duration(request.wait, "wait") / SECOND if request.HasField("wait") else 5.0
        if wait > 60:
            raise InvalidArgument("At most 60 s; call again.", field="wait")
        log, consumer = self._both(caller, request.stream, request.consumer)
        until = time.monotonic() + wait
        woken = asyncio.Event()
        log.changed.append(woken)
        try:
            while not (taken := self._taken(caller, log, consumer, limit)) and (left := until - time.monotonic()) > 0:
                await _woken(woken, min(left, 0.02 if consumer.sent else left))
                if request.consumer not in log.consumers:
                    raise NotFound("The stream or its consumer is gone, or never was.")
        finally:
            log.changed.remove(woken)
        return pb.FetchResponse(deliveries=taken)

    async def consume(
        self, caller: Caller, requests: AsyncIterator[pb.ConsumeRequest]
    ) -> AsyncIterator[pb.ConsumeResponse]:
        """Send messages as they come, until the caller closes its side."""
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("step") != "open":
            raise InvalidArgument("Say first what to consume.", field="open")
        _name(first.open.stream, "open.stream")
        name = _name(first.open.consumer, "open.consumer")
        most = _several(first.open.max_in_flight, "open.max_in_flight")
        log, consumer = self._both(caller, first.open.stream, name)
        woken = asyncio.Event()
        log.changed.append(woken)
        in_flight: dict[bytes, float] = {}
        settled: list[pb.SettleOutcome] = []

        async def settle() -> None:
            try:
                async for request in requests:
                    if request.WhichOneof("step") != "settle":
                        raise InvalidArgument("What to consume is said once.", field="open")
                    for index, each in enumerate(request.settle.settlements):
                        outcome = pb.SettleOutcome(ack_token=each.ack_token)
                        try:
                            self._settle(caller, each, f"settle.settlements[{index}].")
                            outcome.ok.SetInParent()
                        except NotFound as error:
                            outcome.error.CopyFrom(status_of(error))
                        if each.settled != pb.SETTLED_IN_PROGRESS:
                            in_flight.pop(each.ack_token, None)
                        if each.confirm:
                            settled.append(outcome)
                    woken.set()
            finally:
                woken.set()

        settling = asyncio.ensure_future(settle())
        try:
            yield pb.ConsumeResponse()
            while not settling.done():
                if name not in log.consumers:
                    raise NotFound("The stream or its consumer is gone, or never was.")
                now = time.monotonic()
                for token, due in list(in_flight.items()):
                    if due <= now:
                        del in_flight[token]
                taken = self._taken(caller, log, consumer, most - len(in_flight)) if len(in_flight) < most else []
                due = now + consumer.config.ack_wait.ToTimedelta().total_seconds()
                in_flight.update((delivery.ack_token, due) for delivery in taken)
                if taken or settled:
                    outcomes = settled[:]
                    settled.clear()
                    yield pb.ConsumeResponse(deliveries=taken, settled=outcomes)
                else:
                    await _woken(woken, 0.02 if consumer.sent else 1.0)
            settling.result()
            if settled:
                yield pb.ConsumeResponse(settled=settled)
        finally:
            log.changed.remove(woken)
            settling.cancel()
            with suppress(asyncio.CancelledError, IsaError):
                await settling

    async def settle(self, caller: Caller, request: pb.SettleRequest) -> pb.SettleResponse:
        """Say what became of messages."""

        async def one(caller: Caller, settlement: pb.Settlement) -> pb.Remembered:
            self._settle(caller, settlement, "")
            return pb.Remembered()

        outcomes = await _each(one, caller, request.settlements, "settlements")
        return pb.SettleResponse(outcomes=[pb.SettleOutcome(**told) for told in outcomes])

    def _taken(self, caller: Caller, log: _Log, consumer: _Consumer, most: int) -> list[pb.Delivery]:
        tenant = self._tenant(caller)
        log.expire()
        wait = consumer.config.ack_wait.ToTimedelta().total_seconds()
        taken: list[pb.Delivery] = []
        for sequence, attempt in consumer.ready(log):
            consumer.sent[sequence] = _Sent(attempt, time.monotonic() + wait)
            token = secrets.token_bytes(32)
            tenant.tokens[token] = _Token(caller.tenant, log, consumer, sequence)
            if attempt == 1:
                consumer.following = sequence + 1
            taken.append(
                pb.Delivery(
                    message=log.kept[sequence].message,
                    ack_token=token,
                    attempt=attempt,
                    pending=consumer.pending(log),
                )
            )
            if len(taken) >= most:
                break
        return taken

    def _settle(self, caller: Caller, settlement: pb.Settlement, path: str) -> None:
        token = self._tenant(caller).tokens.get(settlement.ack_token)
        if token is None:
            raise InvalidArgument("This is no token that came with a message of yours.", field=f"{path}ack_token")
        if settlement.settled not in pb.Settled.values():
            raise InvalidArgument("No such outcome.", field=f"{path}settled")
        delay = _duration(settlement.delay, f"{path}delay")
        if settlement.HasField("delay") and settlement.settled != pb.SETTLED_NAK:
            raise InvalidArgument("Only what failed is sent again later.", field=f"{path}delay")
        log, consumer, sequence = token.log, token.consumer, token.sequence
        if log.is_deleted or log.consumers.get(consumer.config.name) is not consumer:
            raise NotFound("The consumer of this message is gone.")
        sent = consumer.sent.get(sequence)
        if sent is None:
            return
        now = time.monotonic()
        if settlement.settled == pb.SETTLED_NAK:
            sent.due = now + delay / SECOND
        elif settlement.settled == pb.SETTLED_IN_PROGRESS:
            sent.due = now + consumer.config.ack_wait.ToTimedelta().total_seconds()
        else:
            del consumer.sent[sequence]
            if log.config.retention == pb.RETENTION_WORK_QUEUE:
                log.kept.pop(sequence, None)
            elif log.config.retention == pb.RETENTION_INTEREST and sequence in log.kept:
                kept = log.kept[sequence]
                if not any(sequence in each.sent or each.wants(sequence, kept) for each in log.consumers.values()):
                    del log.kept[sequence]
        log.wake()

    # Buckets.

    async def create_bucket(self, caller: Caller, request: pb.CreateBucketRequest) -> pb.CreateBucketResponse:
        """Make a bucket."""
        tenant, config = self._tenant(caller), _bucket_config(request.config)
        known = tenant.buckets.get(config.name)
        if known is None:
            _another(tenant)
            known = tenant.buckets[config.name] = _Log(config, [">"], is_bucket=True)
        elif known.config != config:
            raise AlreadyExists("The name is in use, with another configuration.")
        return pb.CreateBucketResponse(bucket=_bucket(known))

    async def get_bucket(self, caller: Caller, request: pb.GetBucketRequest) -> pb.GetBucketResponse:
        """Return a bucket."""
        return pb.GetBucketResponse(bucket=_bucket(self._bucket(caller, request.bucket)))

    async def list_buckets(self, caller: Caller, request: pb.ListBucketsRequest) -> pb.ListBucketsResponse:
        """Return all buckets of the tenant."""
        buckets = self._tenant(caller).buckets
        return pb.ListBucketsResponse(buckets=[_bucket(buckets[name]) for name in sorted(buckets)])

    async def delete_bucket(self, caller: Caller, request: pb.DeleteBucketRequest) -> pb.DeleteBucketResponse:
        """Delete a bucket."""
        self._bucket(caller, request.bucket).is_deleted = True
        self._tenant(caller).buckets.pop(request.bucket).wake()
        return pb.DeleteBucketResponse()

    async def get(self, caller: Caller, request: pb.GetRequest) -> pb.GetResponse:
        """Return the value of a key."""
        log = self._keyed(caller, request.bucket, request.key)
        found = log.kept.get(request.revision) if request.revision else log.last_of(request.key)
        if found is None or found.message.subject != request.key or found.operation in _ENDED:
            raise NotFound("No such key.", field="key")
        return pb.GetResponse(entry=_entry(found))

    async def mget(self, caller: Caller, request: pb.MGetRequest) -> pb.MGetResponse:
        """Return the values of keys, each with its own outcome."""
        _name(request.bucket, "bucket")
        given = [pb.GetRequest(bucket=request.bucket, key=key) for key in request.keys]
        outcomes = await _each(self.get, caller, given, "keys")
        return pb.MGetResponse(outcomes=[pb.GetOutcome(**told) for told in outcomes])

    async def put(self, caller: Caller, request: pb.PutRequest) -> pb.PutResponse:
        """Set a key."""
        return pb.PutResponse(revision=self._put(caller, request, request.value))

    async def put_many(self, caller: Caller, request: pb.PutManyRequest) -> pb.PutManyResponse:
        """Set keys, each with its own outcome."""
        outcomes = await _each(self.put, caller, request.items, "items")
        return pb.PutManyResponse(outcomes=[pb.PutOutcome(**told) for told in outcomes])

    async def create(self, caller: Caller, request: pb.CreateRequest) -> pb.CreateResponse:
        """Set a key that holds nothing."""

        def is_empty(held: _Kept | None) -> None:
            if held is not None and held.operation not in _ENDED:
                raise AlreadyExists("The key holds a value.", field="key")

        return pb.CreateResponse(revision=self._put(caller, request, request.value, is_empty))

    async def create_many(self, caller: Caller, request: pb.CreateManyRequest) -> pb.CreateManyResponse:
        """Set keys that hold nothing, each with its own outcome."""
        outcomes = await _each(self.create, caller, request.items, "items")
        return pb.CreateManyResponse(outcomes=[pb.CreateOutcome(**told) for told in outcomes])

    async def update(self, caller: Caller, request: pb.UpdateRequest) -> pb.UpdateResponse:
        """Set a key that is still at a revision."""
        if not request.revision:
            raise InvalidArgument("The first revision is 1.", field="revision")

        def is_same(held: _Kept | None) -> None:
            if held is None or held.message.sequence != request.revision:
                raise Aborted("The key is at another revision.", field="revision")

        return pb.UpdateResponse(revision=self._put(caller, request, request.value, is_same))

    async def update_many(self, caller: Caller, request: pb.UpdateManyRequest) -> pb.UpdateManyResponse:
        """Set keys that are still at a revision, each with its own outcome."""
        outcomes = await _each(self.update, caller, request.items, "items")
        return pb.UpdateManyResponse(outcomes=[pb.UpdateOutcome(**told) for told in outcomes])

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Mark a key as deleted."""
        self._put(caller, request, b"", operation=pb.OPERATION_DELETE)
        return pb.DeleteResponse()

    async def delete_many(self, caller: Caller, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
        """Delete keys, each with its own outcome."""
        outcomes = await _each(self.delete, caller, request.items, "items")
        return pb.DeleteManyResponse(outcomes=[pb.DeleteOutcome(**told) for told in outcomes])

    async def purge(self, caller: Caller, request: pb.PurgeRequest) -> pb.PurgeResponse:
        """Delete a key and what it held."""
        self._put(caller, request, b"", operation=pb.OPERATION_PURGE)
        return pb.PurgeResponse()

    async def purge_many(self, caller: Caller, request: pb.PurgeManyRequest) -> pb.PurgeManyResponse:
        """Delete keys and what they held, each with its own outcome."""
        outcomes = await _each(self.purge, caller, request.items, "items")
        return pb.PurgeManyResponse(outcomes=[pb.PurgeOutcome(**told) for told in outcomes])

    async def keys(self, caller: Caller, request: pb.KeysRequest) -> AsyncIterator[pb.KeysResponse]:
        """Send the keys that hold a value."""
        _name(request.bucket, "bucket")
        wanted = _subject(request.filter or ">", "filter", is_filter=True)
        log = self._bucket(caller, request.bucket)
        start = pb.Start(last_per_subject=pb.Start.LastPerSubject())
        async for found, _ in _read(log, [wanted], start):
            if keys := [kept.message.subject for kept in found if kept.operation not in _ENDED]:
                yield pb.KeysResponse(keys=keys)

    async def history(self, caller: Caller, request: pb.HistoryRequest) -> AsyncIterator[pb.HistoryResponse]:
        """Send what a key held."""
        log = self._keyed(caller, request.bucket, request.key)
        if found := [kept for kept in log.kept.values() if kept.message.subject == request.key]:
            yield pb.HistoryResponse(entries=map(_entry, found))

    async def watch(self, caller: Caller, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        """Send the current values, say so, and send changes."""
        _name(request.bucket, "bucket")
        wanted = _subject(request.filter or ">", "filter", is_filter=True)
        log = self._bucket(caller, request.bucket)
        start = pb.Start(new=pb.Start.New())
        if not request.only_changes:
            start = pb.Start(last_per_subject=pb.Start.LastPerSubject())
        is_current = not request.only_changes
        async for found, is_done in _read(log, [wanted], start, follow=True):
            entries = [_entry(kept) for kept in found if not is_current or kept.operation not in _ENDED]
            if entries or is_done:
                yield pb.WatchResponse(entries=entries, current_done=is_done)
            is_current = is_current and not is_done

    def _put(
        self,
        caller: Caller,
        request: Any,
        value: bytes,
        check: Callable[[_Kept | None], None] = lambda _: None,
        *,
        operation: int = pb.OPERATION_PUT,
    ) -> int:
        log = self._keyed(caller, request.bucket, request.key)
        ttl = 0
        if isinstance(request, pb.PutRequest | pb.CreateRequest) and request.HasField("ttl"):
            ttl = _duration(request.ttl, "ttl", least=SECOND)
            if not ttl or ttl % SECOND:
                raise InvalidArgument("A time to live is one or more whole seconds.", field="ttl")
        if len(value) > LARGEST - 256:
            raise InvalidArgument("A message has up to 1 MiB with its headers.", field="value")
        check(log.last_of(request.key))
        now = time.time_ns()
        message = pb.Message(subject=request.key, data=value, publisher=caller.user or caller.workload)
        kept = _Kept(message, now, operation, now + ttl if ttl else 0)
        log.admit(kept)
        if ttl or operation == pb.OPERATION_PURGE:
            for sequence in log.of(request.key):
                del log.kept[sequence]
        revision = log.append(kept)
        log.trim(kept)
        return revision

    def _keyed(self, caller: Caller, bucket: str, key: str) -> _Log:
        _name(bucket, "bucket")
        _subject(key, "key")
        return self._bucket(caller, bucket)

    def _bucket(self, caller: Caller, name: str) -> _Log:
        log = _of(self._tenant(caller).buckets, _name(name, "bucket"), field="bucket")
        log.expire()
        return log

    def _stream(self, caller: Caller, name: str) -> _Log:
        log = _of(self._tenant(caller).streams, _name(name, "stream"))
        log.expire()
        return log

    def _both(self, caller: Caller, stream: str, consumer: str) -> tuple[_Log, _Consumer]:
        _name(stream, "stream")
        _name(consumer, "consumer")
        log = self._stream(caller, stream)
        if consumer not in log.consumers:
            raise NotFound("No such consumer.")
        return log, log.consumers[consumer]

    def _tenant(self, caller: Caller) -> _Tenant:
        return self._tenants[caller.tenant]


async def _each(
    one: Callable[[Caller, Any], Awaitable[Any]], caller: Caller, items: Sequence[Any], field: str
) -> list[dict[str, Any]]:
    """Do all, each with its own outcome."""
    if len(items) > 1000:
        raise InvalidArgument("At most 1000 at a time.", field=field)

    async def alone(item: Any) -> dict[str, Any]:
        try:
            return {"ok": await one(caller, item)}
        except IsaError as error:
            return {"error": status_of(error)}

    return list(await asyncio.gather(*(alone(item) for item in items)))


async def _woken(event: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()


async def _read(
    log: _Log, filters: Sequence[str], start: pb.Start, *, follow: bool = False
) -> AsyncIterator[tuple[list[_Kept], bool]]:
    """The messages of a log in order; once, that those of before are done."""

    def matches(subject: str) -> bool:
        return any(_matches(each, subject) for each in filters)

    following, only = log.start(start, matches)
    woken = asyncio.Event()
    log.changed.append(woken)
    try:
        found = [
            kept
            for sequence, kept in log.kept.items()
            if sequence >= following and matches(kept.message.subject) and (only is None or sequence in only)
        ]
        following = log.last + 1
        yield found, True
        while follow:
            await woken.wait()
            woken.clear()
            if log.is_deleted:
                raise NotFound("The stream or its consumer is gone, or never was.")
            fresh = [
                kept for sequence, kept in log.kept.items() if sequence >= following and matches(kept.message.subject)
            ]
            following = log.last + 1
            if fresh:
                yield fresh, False
    finally:
        log.changed.remove(woken)


def _send(tenant: _Tenant, message: pb.Message) -> bool:
    """Give a message to who listens; False when nobody does."""
    groups: defaultdict[tuple[str, str], list[_Subscriber]] = defaultdict(list)
    chosen: list[_Subscriber] = []
    for subscriber in tenant.subscribers:
        if _matches(subscriber.filter, message.subject):
            if subscriber.group:
                groups[subscriber.filter, subscriber.group].append(subscriber)
            else:
                chosen.append(subscriber)
    chosen += [random.choice(members) for members in groups.values()]
    sent = pb.Message()
    sent.CopyFrom(message)
    sent.sequence = 0
    for subscriber in chosen:
        if len(subscriber.waiting) >= WAITING:
            subscriber.dropped += 1
        else:
            subscriber.waiting.append(sent)
        subscriber.woken.set()
    return bool(chosen)


def _store(log: _Log, message: pb.Message, request: pb.PublishRequest) -> tuple[int, bool]:
    """Put a message into a stream; its sequence, and whether it was there."""
    log.expire()
    now = time.time_ns()
    if request.HasField("expected_last_sequence") and request.expected_last_sequence != log.last:
        raise Aborted("The last sequence is another one.")
    if request.HasField("expected_last_subject_sequence"):
        last = log.last_of(message.subject)
        if request.expected_last_subject_sequence != (last.message.sequence if last else 0):
            raise Aborted("The last sequence is another one.")
    if request.message_id:
        window = _nanos(log.config.duplicate_window)
        known = log.ids.get(request.message_id)
        if known is not None and known[1] + window > now:
            return known[0], True
    copy = pb.Message()
    copy.CopyFrom(message)
    kept = _Kept(copy, now)
    log.admit(kept)
    sequence = log.append(kept)
    log.trim(kept)
    if request.message_id:
        log.ids[request.message_id] = sequence, now
    if log.config.retention == pb.RETENTION_INTEREST and not any(
        each.wants(sequence, kept) for each in log.consumers.values()
    ):
        del log.kept[sequence]
    return sequence, False


def _taking(tenant: _Tenant, subject: str) -> _Log | None:
    for log in tenant.streams.values():
        if any(_matches(each, subject) for each in log.subjects):
            return log
    return None


def _outgoing(caller: Caller, subject: str, data: bytes, headers: Mapping[str, str], message_id: str) -> pb.Message:
    _subject(subject, "subject")
    if len(headers) > 64:
        raise InvalidArgument("At most 64 headers a message.", field="headers")
    for key, value in headers.items():
        if not _HEADER.fullmatch(key):
            raise InvalidArgument("A header's name is letters, digits, -, _ and dots.", field="headers")
        if len(value.encode()) > 4096:
            raise InvalidArgument("A header has up to 4096 bytes.", field=f"headers.{key}")
    if len(message_id) > 128 or not message_id.isprintable() or message_id != message_id.strip():
        raise InvalidArgument("A message id is up to 128 printable characters.", field="message_id")
    total = sum(len(key) + len(value) for key, value in headers.items())
    if total > 32 << 10:
        raise InvalidArgument("All headers together have up to 32 KiB.", field="headers")
    if len(data) + total + 256 > LARGEST:
        raise InvalidArgument("A message has up to 1 MiB with its headers.", field="data")
    return pb.Message(
        subject=subject,
        data=data,
        headers=headers,
        message_id=message_id or uuid.uuid4().hex,
        publisher=caller.user or caller.workload,
        time=_timestamp(time.time_ns()),
    )


def _subject(text: str, field: str, *, is_filter: bool = False) -> str:
    tokens = text.split(".")
    if not text or len(text.encode()) > 256 or len(tokens) > 32 or text[0] == "$":
        raise InvalidArgument("A subject has 1 to 256 bytes, up to 32 tokens, and begins with no $.", field=field)
    if not text.isprintable() or " " in text or "" in tokens:
        raise InvalidArgument("A subject has no spaces, no control characters and no empty token.", field=field)
    for index, part in enumerate(tokens):
        is_wildcard = part == "*" or (part == ">" and index == len(tokens) - 1)
        if ("*" in part or ">" in part) and not (is_filter and is_wildcard):
            raise InvalidArgument("A wildcard is a whole token of a filter, and > the last one.", field=field)
    return text


def _name(text: str, field: str) -> str:
    if not _NAME.fullmatch(text):
        raise InvalidArgument("A name is 1 to 64 letters, digits, _ and -.", field=field)
    return text


def _several(given: int, field: str) -> int:
    if not 0 <= given <= 1000:
        raise InvalidArgument("This is 1 to 1000.", field=field)
    return given or 100


def _matches(wanted: str, subject: str) -> bool:
    """Whether a filter takes a subject."""
    filters, tokens = wanted.split("."), subject.split(".")
    for index, each in enumerate(filters):
        if each == ">":
            return len(tokens) > index
        if index >= len(tokens) or each not in ("*", tokens[index]):
            return False
    return len(filters) == len(tokens)


def _overlap(left: str, right: str) -> bool:
    """Whether some subject is taken by both filters."""
    one, other = left.split("."), right.split(".")
    for each, its in zip(one, other, strict=False):
        if ">" in (each, its):
            return True
        if each != its and "*" not in (each, its):
            return False
    return len(one) == len(other)


def _apart(filters: Sequence[str], field: str) -> None:
    for index, one in enumerate(filters):
        if any(_overlap(one, other) for other in filters[:index]):
            raise InvalidArgument("Two of these take the same subject.", field=field)


def _of(logs: dict[str, _Log], name: str, field: str | None = None) -> _Log:
    if name not in logs:
        raise NotFound("No such stream or bucket.", field=field)
    return logs[name]


def _another(tenant: _Tenant) -> None:
    if len(tenant.streams) + len(tenant.buckets) >= STREAMS:
        raise ResourceExhausted(f"An organisation may have {STREAMS} streams and buckets.")


def _no_overlap(tenant: _Tenant, config: pb.StreamConfig) -> None:
    for name, log in tenant.streams.items():
        if name != config.name and any(_overlap(one, other) for one in config.subjects for other in log.subjects):
            raise FailedPrecondition("Another stream takes some of these subjects.", field="config.subjects")


def _fits_work_queue(log: _Log, config: pb.ConsumerConfig) -> None:
    if log.config.retention != pb.RETENTION_WORK_QUEUE:
        return
    if config.start.WhichOneof("from") not in (None, "all"):
        raise FailedPrecondition("A consumer of a work queue begins with all.", field="config.start")
    for other in log.consumers.values():
        for one in config.filter_subjects or [">"]:
            if any(_overlap(one, its) for its in other.config.filter_subjects or [">"]):
                raise FailedPrecondition("A work queue has one consumer a message.", field="config.filter_subjects")


def _nanos(duration: Duration) -> int:
    return duration.seconds * SECOND + duration.nanos


def _duration(duration: Duration, field: str, *, least: int = 0) -> int:
    total = _nanos(duration)
    if total and not least <= total <= 10 * 365 * 86400 * SECOND:
        raise InvalidArgument(f"This is 0, or {least / SECOND:g} s to ten years.", field=field)
    return total


def _spanning(nanos: int) -> Duration:
    return Duration(seconds=nanos // SECOND, nanos=nanos % SECOND)


def _timestamp(nanos: int) -> Timestamp:
    return Timestamp(seconds=nanos // SECOND, nanos=nanos % SECOND)


def _number(value: int, field: str, most: int = 1 << 53) -> int:
    if not 0 <= value <= most:
        raise InvalidArgument(f"This is 0 to {most}.", field=field)
    return value


def _text(text: str, field: str) -> str:
    if len(text) > 1024 or "\0" in text:
        raise InvalidArgument("A description is up to 1024 characters, without NUL.", field=field)
    return text


def _check_start(start: pb.Start, field: str) -> None:
    if start.WhichOneof("from") == "sequence" and not 0 < start.sequence < 1 << 63:
        raise InvalidArgument("The first sequence is 1.", field=f"{field}.sequence")


def _stream_config(given: pb.StreamConfig) -> pb.StreamConfig:
    """The configuration with what is there by default."""
    if not 0 < len(given.subjects) <= 64:
        raise InvalidArgument("A stream takes 1 to 64 subjects.", field="config.subjects")
    for index, text in enumerate(given.subjects):
        _subject(text, f"config.subjects[{index}]", is_filter=True)
    _apart(given.subjects, "config.subjects")
    age = _duration(given.max_age, "config.max_age", least=SECOND // 10)
    window = _duration(given.duplicate_window, "config.duplicate_window", least=SECOND // 10)
    if age and window > age:
        raise InvalidArgument("Ids are not remembered longer than messages.", field="config.duplicate_window")
    return pb.StreamConfig(
        name=_name(given.name, "config.name"),
        subjects=given.subjects,
        retention=given.retention or pb.RETENTION_LIMITS,
        discard=given.discard or pb.DISCARD_OLD,
        max_age=_spanning(age),
        max_bytes=_number(given.max_bytes, "config.max_bytes", STREAM_BYTES_MOST) or STREAM_BYTES,
        max_messages=_number(given.max_messages, "config.max_messages"),
        max_messages_per_subject=_number(given.max_messages_per_subject, "config.max_messages_per_subject"),
        max_message_size=_number(given.max_message_size, "config.max_message_size", LARGEST) or LARGEST,
        duplicate_window=_spanning(window or (min(age, 120 * SECOND) if age else 120 * SECOND)),
        description=_text(given.description, "config.description"),
    )


def _bucket_config(given: pb.BucketConfig) -> pb.BucketConfig:
    """The configuration with what is there by default."""
    return pb.BucketConfig(
        name=_name(given.name, "config.name"),
        history=_number(given.history, "config.history", 64) or 1,
        ttl=_spanning(_duration(given.ttl, "config.ttl", least=SECOND)),
        max_bytes=_number(given.max_bytes, "config.max_bytes", STREAM_BYTES_MOST) or STREAM_BYTES,
        max_value_size=_number(given.max_value_size, "config.max_value_size", LARGEST) or LARGEST,
        description=_text(given.description, "config.description"),
    )


def _consumer_config(given: pb.ConsumerConfig) -> pb.ConsumerConfig:
    """The configuration with what is there by default."""
    if len(given.filter_subjects) > 64:
        raise InvalidArgument("At most 64 at a time.", field="config.filter_subjects")
    _check_start(given.start, "config.start")
    for index, text in enumerate(given.filter_subjects):
        _subject(text, f"config.filter_subjects[{index}]", is_filter=True)
    _apart(given.filter_subjects, "config.filter_subjects")
    config = pb.ConsumerConfig(
        name=_name(given.name, "config.name"),
        filter_subjects=given.filter_subjects,
        start=given.start,
        ack_wait=_spanning(_duration(given.ack_wait, "config.ack_wait", least=SECOND // 10) or 30 * SECOND),
        max_deliver=_number(given.max_deliver, "config.max_deliver"),
        max_ack_pending=_number(given.max_ack_pending, "config.max_ack_pending", 100_000) or 1000,
        description=_text(given.description, "config.description"),
    )
    if given.start.WhichOneof("from") is None:
        config.start.all.SetInParent()
    if given.start.WhichOneof("from") == "last_per_subject" and not given.filter_subjects:
        config.filter_subjects.append(">")
    return config


def _stream(log: _Log) -> pb.Stream:
    log.expire()
    return pb.Stream(
        config=log.config,
        created=_timestamp(log.created),
        messages=len(log.kept),
        bytes=log.bytes(),
        first_sequence=next(iter(log.kept), log.last + 1 if log.last else 0),
        last_sequence=log.last,
        consumers=len(log.consumers),
    )


def _consumer(log: _Log, consumer: _Consumer) -> pb.Consumer:
    unsettled = [*consumer.sent, *(each for each, kept in log.kept.items() if consumer.wants(each, kept))]
    return pb.Consumer(
        stream=log.config.name,
        config=consumer.config,
        created=_timestamp(consumer.created),
        pending=consumer.pending(log),
        ack_pending=len(consumer.sent),
        redelivered=sum(sent.attempt > 1 for sent in consumer.sent.values()),
        ack_floor=min(unsettled, default=consumer.following) - 1,
    )


def _bucket(log: _Log) -> pb.Bucket:
    return pb.Bucket(
        config=log.config,
        created=_timestamp(log.created),
        entries=len(log.kept),
        bytes=log.bytes(),
        revision=log.last,
    )


def _entry(kept: _Kept) -> pb.Entry:
    message = kept.message
    return pb.Entry(
        key=message.subject,
        value=message.data,
        revision=message.sequence,
        time=message.time,
        operation=pb.Operation.ValueType(kept.operation),
        publisher=message.publisher,
    )
