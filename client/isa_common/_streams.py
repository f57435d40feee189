"""Messages, streams, consumers and key-value buckets of the caller's organisation."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, IntEnum
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from isa.streams.v1 import streams_pb2 as pb
from isa_common._coalesce import Coalescer
from isa_common._contract import method
from isa_common._sql import Acting, acting
from isa_common._transport import Transport, error_of
from isa_common.errors import DeadlineExceeded, IsaError, ResourceExhausted, Unavailable

_SERVICE = pb.DESCRIPTOR.services_by_name["Streams"]
_METHODS = {name: method(_SERVICE, name, capability="streams") for name in _SERVICE.methods_by_name}
_FOREVER = timedelta(0)
_PORTION = 8 << 20
"""Bytes of requests that go out as one message."""
_AHEAD = 1024
"""Items that wait for who reads them; with more, or with more bytes, the service is asked to wait."""
_AHEAD_BYTES = 4 << 20
_BEGIN = 10
"""Seconds until the first answer of a call that does not end by itself."""
_log = logging.getLogger("isa_common.streams")

Item = TypeVar("Item")
Response = TypeVar("Response")


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


_Settle = Callable[[pb.Settlement], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Message):
    """A message that a consumer sent; it comes again until it is settled."""

    attempt: int
    """Which time it is sent: 1 is the first."""
    pending: int
    """Messages that are not sent yet, after this one."""
    ack_token: bytes = field(repr=False)
    _settle: _Settle = field(repr=False, compare=False)

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
            pb.Settlement(ack_token=self.ack_token, settled=settled, delay=_duration(delay), confirm=confirm)
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
    created: datetime
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
    created: datetime
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
    created: datetime
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


class _Feed(Generic[Item, Response]):
    """Answers of a call that does not end by itself: `async with` waits until it began, `async for` takes what comes.

    Waiting for an item may be cancelled; nothing is lost by that.
    """

    _heals = False
    """Whether it is called again when the service was away."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._began = asyncio.Event()
        self._error: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    def _call(self) -> AsyncIterator[Response]:
        """Begin the call."""
        raise NotImplementedError

    def _take(self, response: Response) -> Iterable[Item]:
        """The items of an answer."""
        raise NotImplementedError

    def _weigh(self, item: Item) -> int:
        """The bytes of an item."""
        raise NotImplementedError

    def _lost(self) -> None:
        """Note that the service was away."""

    async def aclose(self) -> None:
        """End the call."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Item]:
        is_own = self._reader is None
        try:
            while True:
                try:
                    item = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if is_own:
                await self.aclose()

    async def __anext__(self) -> Item:
        await self._begin()
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._reader is None or self._reader.done():
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._size -= self._weigh(item)
        self._changed.set()  # the reader may go on
        return item

    async def _begin(self) -> None:
        """Begin the call, if that is not done, and wait until it is answered."""
        if self._began.is_set():
            return
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_BEGIN):
                await self._began.wait()
        except TimeoutError:
            raise DeadlineExceeded("The service did not begin to answer in time.") from None
        if self._error is not None:
            raise self._error

    async def _read(self) -> None:
        try:
            while True:
                try:
                    async for response in self._call():
                        for item in self._take(response):
                            self._items.append(item)
                            self._size += self._weigh(item)
                        self._began.set()
                        self._changed.set()
                        while len(self._items) > _AHEAD or self._size > _AHEAD_BYTES:
                            self._changed.clear()
                            await self._changed.wait()
                except Unavailable:
                    if not self._heals or not self._began.is_set():
                        raise
                    self._lost()
                    await asyncio.sleep(random.uniform(0.1, 0.3))
                else:
                    return
        except Exception as error:
            self._error = error
        finally:
            self._began.set()
            self._changed.set()


class Subscription(_Feed[Message, pb.SubscribeResponse]):
    """Messages as they are published. It goes on when the service was away; messages of that time are missing."""

    _heals = True

    def __init__(self, call: Callable[[], AsyncIterator[pb.SubscribeResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one
        self.dropped = 0
        """Messages that were left out because they were read too slowly."""
        self.interruptions = 0
        """How often the service or its broker was away."""

    def _take(self, response: pb.SubscribeResponse) -> Iterable[Message]:
        self.dropped += response.dropped
        self.interruptions += response.interrupted
        return map(_message, response.messages)

    def _weigh(self, item: Message) -> int:
        return len(item.data)

    def _lost(self) -> None:
        self.interruptions += 1


class Replay(_Feed[Message, pb.ReplayResponse]):
    """Messages of a stream in order."""

    def __init__(self, call: Callable[[], AsyncIterator[pb.ReplayResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one

    def _take(self, response: pb.ReplayResponse) -> Iterable[Message]:
        return map(_message, response.messages)

    def _weigh(self, item: Message) -> int:
        return len(item.data)


class Watch(_Feed[KeyEntry, pb.WatchResponse]):
    """Current values of a bucket, then its changes."""

    def __init__(self, call: Callable[[], AsyncIterator[pb.WatchResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one
        self._current = 0
        """Current values that were not returned yet, as far as they are known."""
        self._is_current_known = False

    @property
    def is_current(self) -> bool:
        """Whether every current value was returned: what comes now is new."""
        return self._is_current_known and self._current <= 0

    async def current(self) -> list[KeyEntry]:
        """Return the current values; what `async for` gives afterwards is new."""
        values: list[KeyEntry] = []
        await self._begin()
        while not self.is_current:
            if self._items:
                values.append(await self.__anext__())
            elif self._error is not None:
                raise self._error
            else:
                self._changed.clear()
                await self._changed.wait()
        return values

    async def __anext__(self) -> KeyEntry:
        entry = await super().__anext__()
        self._current -= 1
        return entry

    def _take(self, response: pb.WatchResponse) -> Iterable[KeyEntry]:
        if not self._is_current_known:
            self._current += len(response.entries)
            self._is_current_known = response.current_done
        return map(_entry, response.entries)

    def _weigh(self, item: KeyEntry) -> int:
        return len(item.value)


class Consumption(_Feed[Delivery, pb.ConsumeResponse]):
    """Messages of a consumer. It goes on when the service was away: what is not settled comes again."""

    _heals = True

    def __init__(
        self,
        call: Callable[[AsyncIterator[pb.ConsumeRequest]], AsyncIterator[pb.ConsumeResponse]],
        opening: pb.ConsumeRequest,
    ) -> None:
        super().__init__()
        self._duplex = call
        self._opening = opening
        self._settlements: deque[pb.Settlement] = deque()
        self._said = asyncio.Event()
        self._is_closing = False
        self._calls = 0
        self._confirming: dict[bytes, asyncio.Future[None]] = {}

    async def aclose(self) -> None:
        """Send what was settled, and end the call."""
        self._is_closing = True
        self._said.set()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=5)
        await super().aclose()

    def _call(self) -> AsyncIterator[pb.ConsumeResponse]:
        self._calls += 1
        self._said.set()
        return self._duplex(self._requests(self._calls))

    async def _requests(self, call: int) -> AsyncIterator[pb.ConsumeRequest]:
        yield self._opening
        while True:
            await self._said.wait()
            if call != self._calls:  # what is said now is for the call that came after
                return
            self._said.clear()
            while self._settlements:
                some = [self._settlements.popleft() for _ in range(min(len(self._settlements), 1000))]
                yield pb.ConsumeRequest(settle=pb.SettleRequest(settlements=some))
            if self._is_closing:
                return

    def _take(self, response: pb.ConsumeResponse) -> Iterable[Delivery]:
        for outcome in response.settled:
            waiting = self._confirming.pop(outcome.ack_token, None)
            if waiting is not None and not waiting.done():
                if outcome.HasField("error"):
                    waiting.set_exception(error_of(outcome.error))
                else:
                    waiting.set_result(None)
        if self._is_closing:
            return ()
        return (_delivery(each, self._settle) for each in response.deliveries)

    def _weigh(self, item: Delivery) -> int:
        return 0  # `max_in_flight` is its bound, and what is settled must be read in time

    def _lost(self) -> None:
        self._calls += 1  # what is said from now on waits for the next call
        for waiting in self._confirming.values():
            if not waiting.done():
                waiting.set_exception(Unavailable("The service went away before it confirmed."))
        self._confirming.clear()
        if self._is_closing:
            raise Unavailable("The service went away before it took all that was settled.")

    async def _settle(self, settlement: pb.Settlement) -> None:
        if self._error is not None:
            raise self._error
        confirmed = None
        if settlement.confirm:
            confirmed = self._confirming[settlement.ack_token] = asyncio.get_running_loop().create_future()
        self._settlements.append(settlement)
        self._said.set()
        if confirmed is not None:
            await confirmed


class Responder:
    """Answers requests while it is open: each message goes to the handler, and what that returns goes back."""

    def __init__(
        self,
        subscription: Subscription,
        handler: Callable[[Message], Awaitable[bytes]],
        reply: Callable[[Message, bytes], Awaitable[None]],
        *,
        at_once: int,
    ) -> None:
        self._subscription = subscription
        self._handler = handler
        self._reply = reply
        self._places = asyncio.Semaphore(at_once)
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._subscription.__aenter__()
        self._server = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take no more requests, and finish those at hand."""
        await self._subscription.aclose()
        if self._server is not None:
            await asyncio.wait([self._server])
        if self._running:
            await asyncio.wait(self._running)

    async def wait(self) -> None:
        """Return when it was closed; raise what ended it."""
        assert self._server is not None, "opened before it is waited for"
        await asyncio.shield(self._server)

    async def _serve(self) -> None:
        async for message in self._subscription:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(message))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()

    async def _answer(self, message: Message) -> None:
        try:
            answer = await self._handler(message)
            if message.reply_token:
                await self._reply(message, answer)
        except Exception:
            _log.exception("A handler failed; who asked gets no answer.")


class Streams:
    """Publish and subscribe, streams with consumers, and key-value buckets."""

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        self._transport = transport
        self._acting = acting_for
        self._publishing: Coalescer[pb.PublishRequest, pb.PublishResponse] = Coalescer(
            self._publish_one, self._publish_all
        )
        self._settling: Coalescer[pb.Settlement, None] = Coalescer(self._settle_one, self._settle_all)
        self._getting: Coalescer[pb.GetRequest, pb.GetResponse] = Coalescer(self._get_one, self._get_all)
        self._putting: Coalescer[pb.PutRequest, pb.PutResponse] = Coalescer(self._put_one, self._put_all)

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Streams:
        """Return the same, acting for an organisation; only our own workloads may."""
        return Streams(self._transport, acting_for=acting(caller, org, user))

    # Messages.

    async def publish(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] = {},
        message_id: str = "",
        durable: bool = False,
        expected_last_sequence: int | None = None,
        expected_last_subject_sequence: int | None = None,
        timeout: timedelta | None = None,
    ) -> Published:
        """Send a message to who listens; with `durable`, return when a stream has it on disk.

        Unavailable and DeadlineExceeded of a durable message may also mean that it was stored and the answer lost:
        with a `message_id`, publishing it again stores it once.
        """
        outgoing = Outgoing(
            subject=subject,
            data=data,
            headers=headers,
            message_id=message_id,
            durable=durable,
            expected_last_sequence=expected_last_sequence,
            expected_last_subject_sequence=expected_last_subject_sequence,
        )
        return _published(await self._publishing(_publish(outgoing), timeout))

    async def publish_many(
        self, messages: Sequence[Outgoing], *, timeout: timedelta | None = None
    ) -> list[Published | IsaError]:
        """Publish messages in order, each with its own outcome; up to 1000."""
        outcomes = await self._publish_all([_publish(message) for message in messages], timeout)
        return [told if isinstance(told, IsaError) else _published(told) for told in outcomes]

    def subscribe(self, subject: str, *, group: str = "") -> Subscription:
        """Return messages of a subject or filter as they are published; of a group's members, one gets each.

        `async with` returns once every later message will come.
        """
        request = pb.SubscribeRequest(subject=subject, group=group)
        return Subscription(lambda: self._stream("Subscribe", request))

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] = {},
        timeout: timedelta | None = None,
    ) -> Message:
        """Publish a message and return the first reply; FailedPrecondition when nobody listens."""
        request = pb.RequestRequest(subject=subject, data=data, headers=headers)
        response: pb.RequestResponse = await self._unary("Request", request, timeout)
        return _message(response.message)

    async def request_many(
        self, messages: Sequence[Outgoing], *, timeout: timedelta | None = None
    ) -> list[Message | IsaError]:
        """Make requests at once, each with its own outcome; only subject, data and headers count."""
        requests = [pb.RequestRequest(subject=each.subject, data=each.data, headers=each.headers) for each in messages]
        response: pb.RequestManyResponse = await self._unary(
            "RequestMany", pb.RequestManyRequest(requests=requests), timeout
        )
        outcomes = _outcomes(response.outcomes)
        return [told if isinstance(told, IsaError) else _message(told.message) for told in outcomes]

    async def reply(
        self,
        message: Message,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] = {},
        timeout: timedelta | None = None,
    ) -> None:
        """Answer a message that came with a `reply_token`."""
        await self._unary(
            "Reply", pb.ReplyRequest(reply_token=message.reply_token, data=data, headers=headers), timeout
        )

    async def reply_many(
        self, replies: Sequence[tuple[Message, bytes]], *, timeout: timedelta | None = None
    ) -> list[IsaError | None]:
        """Answer messages, each with its own outcome."""
        request = pb.ReplyManyRequest(
            replies=[pb.ReplyRequest(reply_token=message.reply_token, data=data) for message, data in replies]
        )
        response: pb.ReplyManyResponse = await self._unary("ReplyMany", request, timeout)
        return [told if isinstance(told, IsaError) else None for told in _outcomes(response.outcomes)]

    def respond(
        self,
        subject: str,
        handler: Callable[[Message], Awaitable[bytes]],
        *,
        group: str = "",
        at_once: int = 64,
    ) -> Responder:
        """Answer requests on a subject while `async with` is open, so many at once."""
        return Responder(self.subscribe(subject, group=group), handler, self.reply, at_once=at_once)

    # Streams.

    async def create_stream(
        self,
        name: str,
        subjects: Sequence[str],
        *,
        retention: Retention = Retention.LIMITS,
        discard: Discard = Discard.OLD,
        max_age: timedelta | None = None,
        max_bytes: int = 0,
        max_messages: int = 0,
        max_messages_per_subject: int = 0,
        max_message_size: int = 0,
        duplicate_window: timedelta | None = None,
        description: str = "",
        timeout: timedelta | None = None,
    ) -> Stream:
        """Make a stream that keeps the messages of some subjects on disk; the same again is no error.

        Zero means the server's default for `max_bytes`, and as many as there is room for elsewhere.
        """
        config = pb.StreamConfig(
            name=name,
            subjects=subjects,
            retention=pb.Retention.ValueType(retention),
            discard=pb.Discard.ValueType(discard),
            max_age=_duration(max_age),
            max_bytes=max_bytes,
            max_messages=max_messages,
            max_messages_per_subject=max_messages_per_subject,
            max_message_size=max_message_size,
            duplicate_window=_duration(duplicate_window),
            description=description,
        )
        response: pb.CreateStreamResponse = await self._unary(
            "CreateStream", pb.CreateStreamRequest(config=config), timeout
        )
        return _stream(response.stream)

    async def update_stream(
        self,
        name: str,
        subjects: Sequence[str],
        *,
        discard: Discard = Discard.OLD,
        max_age: timedelta | None = None,
        max_bytes: int = 0,
        max_messages: int = 0,
        max_messages_per_subject: int = 0,
        max_message_size: int = 0,
        duplicate_window: timedelta | None = None,
        description: str = "",
        timeout: timedelta | None = None,
    ) -> Stream:
        """Replace the configuration of a stream, all of it but its retention."""
        config = pb.StreamConfig(
            name=name,
            subjects=subjects,
            discard=pb.Discard.ValueType(discard),
            max_age=_duration(max_age),
            max_bytes=max_bytes,
            max_messages=max_messages,
            max_messages_per_subject=max_messages_per_subject,
            max_message_size=max_message_size,
            duplicate_window=_duration(duplicate_window),
            description=description,
        )
        response: pb.UpdateStreamResponse = await self._unary(
            "UpdateStream", pb.UpdateStreamRequest(config=config), timeout
        )
        return _stream(response.stream)

    async def get_stream(self, name: str, *, timeout: timedelta | None = None) -> Stream:
        """Return a stream."""
        response: pb.GetStreamResponse = await self._unary("GetStream", pb.GetStreamRequest(stream=name), timeout)
        return _stream(response.stream)

    async def list_streams(self, *, timeout: timedelta | None = None) -> list[Stream]:
        """Return all streams, by name."""
        response: pb.ListStreamsResponse = await self._unary("ListStreams", pb.ListStreamsRequest(), timeout)
        return [_stream(each) for each in response.streams]

    async def delete_stream(self, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a stream, its messages and its consumers."""
        await self._unary("DeleteStream", pb.DeleteStreamRequest(stream=name), timeout)

    async def purge_stream(
        self,
        name: str,
        *,
        filter_subject: str = "",
        before_sequence: int = 0,
        keep: int = 0,
        timeout: timedelta | None = None,
    ) -> int:
        """Delete messages of a stream: of some subjects, before a sequence, or all but the newest; return how many."""
        request = pb.PurgeStreamRequest(
            stream=name, filter_subject=filter_subject, before_sequence=before_sequence, keep=keep
        )
        response: pb.PurgeStreamResponse = await self._unary("PurgeStream", request, timeout)
        return response.purged

    async def get_message(
        self, stream: str, sequence: int | None = None, *, last_of: str = "", timeout: timedelta | None = None
    ) -> Message:
        """Return a message of a stream by its sequence, or the last one of a subject."""
        request = pb.GetMessageRequest(stream=stream)
        if sequence is None:
            request.last_of_subject = last_of
        else:
            request.sequence = sequence
        response: pb.GetMessageResponse = await self._unary("GetMessage", request, timeout)
        return _message(response.message)

    async def get_messages(
        self, stream: str, sequences: Sequence[int], *, timeout: timedelta | None = None
    ) -> list[Message | IsaError]:
        """Return messages of a stream by their sequences, each with its own outcome."""
        request = pb.GetMessagesRequest(stream=stream, sequences=sequences)
        response: pb.GetMessagesResponse = await self._unary("GetMessages", request, timeout)
        outcomes = _outcomes(response.outcomes)
        return [told if isinstance(told, IsaError) else _message(told.message) for told in outcomes]

    def replay(
        self,
        stream: str,
        *,
        start: Start | int | datetime = Start.ALL,
        filter_subject: str = "",
        follow: bool = False,
    ) -> Replay:
        """Return the messages of a stream in order, from a sequence, a time or a `Start`; with `follow`, for ever."""
        request = pb.ReplayRequest(stream=stream, start=_start(start), filter_subject=filter_subject, follow=follow)
        return Replay(lambda: self._stream("Replay", request))

    # Consumers.

    async def create_consumer(
        self,
        stream: str,
        name: str,
        *,
        filter_subjects: Sequence[str] = (),
        start: Start | int | datetime = Start.ALL,
        ack_wait: timedelta | None = None,
        max_deliver: int = 0,
        max_ack_pending: int = 0,
        description: str = "",
        timeout: timedelta | None = None,
    ) -> Consumer:
        """Make a durable consumer; the same again is no error.

        A message that is not settled within `ack_wait`, 30 s by default, is sent again, up to `max_deliver` times.
        """
        config = pb.ConsumerConfig(
            name=name,
            filter_subjects=filter_subjects,
            start=_start(start),
            ack_wait=_duration(ack_wait),
            max_deliver=max_deliver,
            max_ack_pending=max_ack_pending,
            description=description,
        )
        response: pb.CreateConsumerResponse = await self._unary(
            "CreateConsumer", pb.CreateConsumerRequest(stream=stream, config=config), timeout
        )
        return _consumer(response.consumer)

    async def get_consumer(self, stream: str, name: str, *, timeout: timedelta | None = None) -> Consumer:
        """Return a consumer."""
        response: pb.GetConsumerResponse = await self._unary(
            "GetConsumer", pb.GetConsumerRequest(stream=stream, consumer=name), timeout
        )
        return _consumer(response.consumer)

    async def list_consumers(self, stream: str, *, timeout: timedelta | None = None) -> list[Consumer]:
        """Return the durable consumers of a stream, by name."""
        response: pb.ListConsumersResponse = await self._unary(
            "ListConsumers", pb.ListConsumersRequest(stream=stream), timeout
        )
        return [_consumer(each) for each in response.consumers]

    async def delete_consumer(self, stream: str, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a consumer and what it remembers."""
        await self._unary("DeleteConsumer", pb.DeleteConsumerRequest(stream=stream, consumer=name), timeout)

    async def fetch(
        self,
        stream: str,
        consumer: str,
        limit: int = 100,
        *,
        wait: timedelta = timedelta(seconds=5),
        timeout: timedelta | None = None,
    ) -> list[Delivery]:
        """Take up to `limit` messages; wait for the first one only, and return none when none came."""
        request = pb.FetchRequest(stream=stream, consumer=consumer, limit=limit, wait=_duration(wait))
        response: pb.FetchResponse = await self._unary("Fetch", request, timeout or wait + timedelta(seconds=10))
        return [_delivery(each, self._settling) for each in response.deliveries]

    def consume(self, stream: str, consumer: str, *, max_in_flight: int = 100) -> Consumption:
        """Return the messages of a consumer as they come, so many before the first of them is settled."""
        opening = pb.ConsumeRequest(
            open=pb.ConsumeRequest.Open(stream=stream, consumer=consumer, max_in_flight=max_in_flight)
        )
        return Consumption(
            lambda requests: self._transport.duplex(
                _METHODS["Consume"], requests, timeout=_FOREVER, acting=self._acting
            ),
            opening,
        )

    # Buckets.

    async def create_bucket(
        self,
        name: str,
        *,
        history: int = 1,
        ttl: timedelta | None = None,
        max_bytes: int = 0,
        max_value_size: int = 0,
        description: str = "",
        timeout: timedelta | None = None,
    ) -> KeyValueBucket:
        """Make a bucket that keeps so many values of each key, each for `ttl`; the same again is no error."""
        config = pb.BucketConfig(
            name=name,
            history=history,
            ttl=_duration(ttl),
            max_bytes=max_bytes,
            max_value_size=max_value_size,
            description=description,
        )
        await self._unary("CreateBucket", pb.CreateBucketRequest(config=config), timeout)
        return self.bucket(name)

    def bucket(self, name: str) -> KeyValueBucket:
        """Return a bucket to work with; asks nobody whether it is there."""
        return KeyValueBucket(self, name)

    async def get_bucket(self, name: str, *, timeout: timedelta | None = None) -> KeyValueStatus:
        """Return how a bucket is made and what it holds."""
        response: pb.GetBucketResponse = await self._unary("GetBucket", pb.GetBucketRequest(bucket=name), timeout)
        return _bucket(response.bucket)

    async def list_buckets(self, *, timeout: timedelta | None = None) -> list[KeyValueStatus]:
        """Return all buckets, by name."""
        response: pb.ListBucketsResponse = await self._unary("ListBuckets", pb.ListBucketsRequest(), timeout)
        return [_bucket(each) for each in response.buckets]

    async def delete_bucket(self, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a bucket and its values."""
        await self._unary("DeleteBucket", pb.DeleteBucketRequest(bucket=name), timeout)

    # Calls, alone and together.

    async def _unary(self, name: str, request: Any, timeout: timedelta | None) -> Any:
        return await self._transport.unary(_METHODS[name], request, timeout=timeout, acting=self._acting)

    def _stream(self, name: str, request: Any, timeout: timedelta | None = _FOREVER) -> AsyncIterator[Any]:
        return self._transport.stream(_METHODS[name], request, timeout=timeout, acting=self._acting)

    async def _publish_one(self, request: pb.PublishRequest, timeout: timedelta | None) -> pb.PublishResponse:
        response: pb.PublishResponse = await self._unary("Publish", request, timeout)
        return response

    async def _publish_all(
        self, requests: list[pb.PublishRequest], timeout: timedelta | None
    ) -> list[pb.PublishResponse | IsaError]:
        outcomes: list[pb.PublishResponse | IsaError] = []
        for portion in _portions(requests):
            response = await self._unary("PublishMany", pb.PublishManyRequest(messages=portion), timeout)
            outcomes += _outcomes(response.outcomes)
        return outcomes

    async def _settle_one(self, request: pb.Settlement, timeout: timedelta | None) -> None:
        (told,) = await self._settle_all([request], timeout)
        if told is not None:
            raise told

    async def _settle_all(self, requests: list[pb.Settlement], timeout: timedelta | None) -> list[IsaError | None]:
        response = await self._unary("Settle", pb.SettleRequest(settlements=requests), timeout)
        return [told if isinstance(told, IsaError) else None for told in _outcomes(response.outcomes)]

    async def _get_one(self, request: pb.GetRequest, timeout: timedelta | None) -> pb.GetResponse:
        response: pb.GetResponse = await self._unary("Get", request, timeout)
        return response

    async def _get_all(
        self, requests: list[pb.GetRequest], timeout: timedelta | None
    ) -> list[pb.GetResponse | IsaError]:
        """Get keys of any buckets: one batch each."""
        places: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            places.setdefault(request.bucket, []).append(place)
        answers: dict[int, pb.GetResponse | IsaError] = {}

        async def of_bucket(bucket: str, places: list[int]) -> None:
            keys = [requests[place].key for place in places]
            response = await self._unary("MGet", pb.MGetRequest(bucket=bucket, keys=keys), timeout)
            answers.update(zip(places, _outcomes(response.outcomes), strict=True))

        await asyncio.gather(*(of_bucket(bucket, each) for bucket, each in places.items()))
        for place, request in enumerate(requests):
            if isinstance(answers[place], ResourceExhausted):  # no room for it in the answer
                with suppress(ResourceExhausted):
                    answers[place] = await self._get_one(request, timeout)
        return [answers[place] for place in range(len(requests))]

    async def _put_one(self, request: pb.PutRequest, timeout: timedelta | None) -> pb.PutResponse:
        response: pb.PutResponse = await self._unary("Put", request, timeout)
        return response

    async def _put_all(
        self, requests: list[pb.PutRequest], timeout: timedelta | None
    ) -> list[pb.PutResponse | IsaError]:
        outcomes: list[pb.PutResponse | IsaError] = []
        for portion in _portions(requests):
            response = await self._unary("PutMany", pb.PutManyRequest(items=portion), timeout)
            outcomes += _outcomes(response.outcomes)
        return outcomes


class KeyValueBucket:
    """Keys and values. A key is tokens between dots, such as `ui.theme`."""

    def __init__(self, streams: Streams, name: str) -> None:
        self._streams = streams
        self.name = name

    async def get(self, key: str, *, revision: int = 0, timeout: timedelta | None = None) -> KeyEntry:
        """Return the value of a key, or of one of its revisions; NotFound when it holds none."""
        request = pb.GetRequest(bucket=self.name, key=key, revision=revision)
        if revision:
            return _entry((await self._streams._get_one(request, timeout)).entry)
        return _entry((await self._streams._getting(request, timeout)).entry)

    async def mget(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[KeyEntry | IsaError]:
        """Return the values of keys, each with its own outcome: NotFound for a key that holds none."""
        requests = [pb.GetRequest(bucket=self.name, key=key) for key in keys]
        outcomes = await self._streams._get_all(requests, timeout)
        return [told if isinstance(told, IsaError) else _entry(told.entry) for told in outcomes]

    async def put(
        self, key: str, value: bytes, *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> int:
        """Set a key and return its revision; with `ttl`, in whole seconds, for so long, and without its history."""
        request = pb.PutRequest(bucket=self.name, key=key, value=value, ttl=_duration(ttl))
        return (await self._streams._putting(request, timeout)).revision

    async def put_many(
        self, values: Mapping[str, bytes], *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys in order; the revision of each, or what went wrong with it."""
        requests = [
            pb.PutRequest(bucket=self.name, key=key, value=value, ttl=_duration(ttl)) for key, value in values.items()
        ]
        return _revisions(values, await self._streams._put_all(requests, timeout))

    async def create(
        self, key: str, value: bytes, *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> int:
        """Set a key that holds nothing; AlreadyExists when it does."""
        request = pb.CreateRequest(bucket=self.name, key=key, value=value, ttl=_duration(ttl))
        response: pb.CreateResponse = await self._streams._unary("Create", request, timeout)
        return response.revision

    async def create_many(
        self, values: Mapping[str, bytes], *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys that hold nothing; the revision of each, or what went wrong with it."""
        items = [
            pb.CreateRequest(bucket=self.name, key=key, value=value, ttl=_duration(ttl))
            for key, value in values.items()
        ]
        response = await self._streams._unary("CreateMany", pb.CreateManyRequest(items=items), timeout)
        return _revisions(values, _outcomes(response.outcomes))

    async def update(self, key: str, value: bytes, revision: int, *, timeout: timedelta | None = None) -> int:
        """Set a key that is still at a revision; Aborted when it is not."""
        request = pb.UpdateRequest(bucket=self.name, key=key, value=value, revision=revision)
        response: pb.UpdateResponse = await self._streams._unary("Update", request, timeout)
        return response.revision

    async def update_many(
        self, values: Mapping[str, tuple[bytes, int]], *, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys that are still at their revisions; the new one of each, or what went wrong with it."""
        items = [
            pb.UpdateRequest(bucket=self.name, key=key, value=value, revision=revision)
            for key, (value, revision) in values.items()
        ]
        response = await self._streams._unary("UpdateMany", pb.UpdateManyRequest(items=items), timeout)
        return _revisions(values, _outcomes(response.outcomes))

    async def delete(self, key: str, *, timeout: timedelta | None = None) -> None:
        """Delete a key; its history stays."""
        await self._streams._unary("Delete", pb.DeleteRequest(bucket=self.name, key=key), timeout)

    async def delete_many(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[IsaError | None]:
        """Delete keys, each with its own outcome."""
        items = [pb.DeleteRequest(bucket=self.name, key=key) for key in keys]
        response = await self._streams._unary("DeleteMany", pb.DeleteManyRequest(items=items), timeout)
        return [told if isinstance(told, IsaError) else None for told in _outcomes(response.outcomes)]

    async def purge(self, key: str, *, timeout: timedelta | None = None) -> None:
        """Delete a key and its history."""
        await self._streams._unary("Purge", pb.PurgeRequest(bucket=self.name, key=key), timeout)

    async def purge_many(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[IsaError | None]:
        """Delete keys and their history, each with its own outcome."""
        items = [pb.PurgeRequest(bucket=self.name, key=key) for key in keys]
        response = await self._streams._unary("PurgeMany", pb.PurgeManyRequest(items=items), timeout)
        return [told if isinstance(told, IsaError) else None for told in _outcomes(response.outcomes)]

    async def keys(self, filter: str = "", *, timeout: timedelta | None = None) -> AsyncIterator[str]:  # noqa: A002 -- as NATS calls it
        """Return the keys that hold a value, in no order: all, or those of a filter such as `ui.>`."""
        request = pb.KeysRequest(bucket=self.name, filter=filter)
        async for response in self._streams._stream("Keys", request, timeout):
            for key in response.keys:
                yield key

    async def history(self, key: str, *, timeout: timedelta | None = None) -> list[KeyEntry]:
        """Return what a key held, oldest first, deletions included."""
        request = pb.HistoryRequest(bucket=self.name, key=key)
        return [
            _entry(entry)
            async for response in self._streams._stream("History", request, timeout)
            for entry in response.entries
        ]

    def watch(self, filter: str = "", *, only_changes: bool = False) -> Watch:  # noqa: A002 -- as NATS calls it
        """Return the current values of all keys, or of a filter, and then every change.

        Unavailable ends it when the service was away: watch again, and take the current values.
        """
        request = pb.WatchRequest(bucket=self.name, filter=filter, only_changes=only_changes)
        return Watch(lambda: self._streams._stream("Watch", request))


def _portions(requests: Sequence[Any]) -> Iterable[list[Any]]:
    """The items of a batch in portions that fit into one message; an empty batch is one too."""
    portion: list[Any] = []
    size = 0
    for request in requests:
        size += request.ByteSize()
        if portion and size > _PORTION:
            yield portion
            portion, size = [], request.ByteSize()
        portion.append(request)
    yield portion


def _outcomes(outcomes: Iterable[Any]) -> list[Any]:
    """The answer to each item of a batch, or its error."""
    return [error_of(each.error) if each.HasField("error") else each.ok for each in outcomes]


def _revisions(keys: Iterable[str], outcomes: Iterable[Any]) -> dict[str, int | IsaError]:
    return {
        key: told if isinstance(told, IsaError) else told.revision for key, told in zip(keys, outcomes, strict=True)
    }


def _duration(given: timedelta | None) -> Duration | None:
    if given is None:
        return None
    duration = Duration()
    duration.FromTimedelta(given)
    return duration


def _time(given: Timestamp) -> datetime:
    return given.ToDatetime(UTC)


def _span(given: Duration) -> timedelta | None:
    return given.ToTimedelta() or None


def _publish(message: Outgoing) -> pb.PublishRequest:
    return pb.PublishRequest(
        subject=message.subject,
        data=message.data,
        headers=message.headers,
        message_id=message.message_id,
        durable=message.durable,
        expected_last_sequence=message.expected_last_sequence,
        expected_last_subject_sequence=message.expected_last_subject_sequence,
    )


def _published(response: pb.PublishResponse) -> Published:
    return Published(response.message_id, response.stream, response.sequence, response.duplicate)


def _message(message: pb.Message) -> Message:
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


def _delivery(delivery: pb.Delivery, settle: _Settle) -> Delivery:
    return Delivery(
        **_fields(delivery.message),
        attempt=delivery.attempt,
        pending=delivery.pending,
        ack_token=delivery.ack_token,
        _settle=settle,
    )


def _start(start: Start | int | datetime) -> pb.Start:
    message = pb.Start()
    if isinstance(start, Start):
        getattr(message, start.value).SetInParent()
    elif isinstance(start, datetime):
        message.time.FromDatetime(start)
    else:
        message.sequence = start
    return message


def _stream(stream: pb.Stream) -> Stream:
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
        created=_time(stream.created),
        messages=stream.messages,
        bytes=stream.bytes,
        first_sequence=stream.first_sequence,
        last_sequence=stream.last_sequence,
        consumers=stream.consumers,
    )


def _consumer(consumer: pb.Consumer) -> Consumer:
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
        created=_time(consumer.created),
        pending=consumer.pending,
        ack_pending=consumer.ack_pending,
        redelivered=consumer.redelivered,
        ack_floor=consumer.ack_floor,
    )


def _bucket(bucket: pb.Bucket) -> KeyValueStatus:
    config = bucket.config
    return KeyValueStatus(
        name=config.name,
        history=config.history,
        ttl=_span(config.ttl),
        max_bytes=config.max_bytes,
        max_value_size=config.max_value_size,
        description=config.description,
        created=_time(bucket.created),
        entries=bucket.entries,
        bytes=bucket.bytes,
        revision=bucket.revision,
    )


def _entry(entry: pb.Entry) -> KeyEntry:
    return KeyEntry(
        key=entry.key,
        value=entry.value,
        revision=entry.revision,
        time=_time(entry.time),
        operation=KeyOperation(entry.operation),
        publisher=entry.publisher,
    )
