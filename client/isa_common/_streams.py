"""Messages, streams, consumers and key-value buckets of the caller's organisation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from isa.streams.v1 import streams_pb2 as pb
from isa_common._capability import Capability
from isa_common._coalesce import Coalescer
from isa_common._contract import methods
from isa_common._messages import outcomes_of, portions, to_duration
from isa_common._stream_readers import Consumption, Replay, Responder, Subscription, Watch
from isa_common._stream_values import (
    Consumer,
    Delivery,
    Discard,
    KeyEntry,
    KeyValueStatus,
    Message,
    Outgoing,
    Published,
    Retention,
    Start,
    Stream,
    bucket_of,
    consumer_of,
    delivery_of,
    entry_of,
    message_of,
    published,
    stream_of,
    to_publish,
    to_start,
)
from isa_common._transport import Transport
from isa_common.errors import IsaError, ResourceExhausted

_FOREVER = timedelta(0)
_MOST = 1000
"""Items of one request."""


class Streams(Capability):
    """Publish and subscribe, streams with consumers, and key-value buckets."""

    _methods = methods(pb.DESCRIPTOR.services_by_name["Streams"], capability="streams")

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._publishing: Coalescer[pb.PublishRequest, pb.PublishResponse] = Coalescer(
            partial(self._call, "Publish"), self._publish_all
        )
        self._settling: Coalescer[pb.Settlement, None] = Coalescer(self._settle_one, self._settle_all)
        self._getting: Coalescer[pb.GetRequest, pb.GetResponse] = Coalescer(partial(self._call, "Get"), self._get_all)
        self._putting: Coalescer[pb.PutRequest, pb.PutResponse] = Coalescer(partial(self._call, "Put"), self._put_all)

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
        return published(await self._publishing(to_publish(outgoing), timeout))

    async def publish_many(
        self, messages: Sequence[Outgoing], *, timeout: timedelta | None = None
    ) -> list[Published | IsaError]:
        """Publish messages in order, each with its own outcome."""
        outcomes = await self._publish_all([to_publish(message) for message in messages], timeout)
        return [told if isinstance(told, IsaError) else published(told) for told in outcomes]

    def subscribe(self, subject: str, *, group: str = "") -> Subscription:
        """Return messages of a subject or filter as they are published; of a group's members, one gets each.

        `async with` returns once every later message will come.
        """
        request = pb.SubscribeRequest(subject=subject, group=group)
        return Subscription(lambda: self._stream("Subscribe", request, _FOREVER))

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
        response: pb.RequestResponse = await self._call("Request", request, timeout)
        return message_of(response.message)

    async def request_many(
        self, messages: Sequence[Outgoing], *, timeout: timedelta | None = None
    ) -> list[Message | IsaError]:
        """Make requests at once, each with its own outcome; only subject, data and headers count."""
        requests = [pb.RequestRequest(subject=each.subject, data=each.data, headers=each.headers) for each in messages]
        response: pb.RequestManyResponse = await self._call(
            "RequestMany", pb.RequestManyRequest(requests=requests), timeout
        )
        outcomes = outcomes_of(response)
        return [told if isinstance(told, IsaError) else message_of(told.message) for told in outcomes]

    async def reply(
        self,
        message: Message,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] = {},
        timeout: timedelta | None = None,
    ) -> None:
        """Answer a message that came with a `reply_token`."""
        await self._call("Reply", pb.ReplyRequest(reply_token=message.reply_token, data=data, headers=headers), timeout)

    async def reply_many(
        self, replies: Sequence[tuple[Message, bytes]], *, timeout: timedelta | None = None
    ) -> list[IsaError | None]:
        """Answer messages, each with its own outcome."""
        request = pb.ReplyManyRequest(
            replies=[pb.ReplyRequest(reply_token=message.reply_token, data=data) for message, data in replies]
        )
        response: pb.ReplyManyResponse = await self._call("ReplyMany", request, timeout)
        return [told if isinstance(told, IsaError) else None for told in outcomes_of(response)]

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
            max_age=to_duration(max_age),
            max_bytes=max_bytes,
            max_messages=max_messages,
            max_messages_per_subject=max_messages_per_subject,
            max_message_size=max_message_size,
            duplicate_window=to_duration(duplicate_window),
            description=description,
        )
        response: pb.CreateStreamResponse = await self._call(
            "CreateStream", pb.CreateStreamRequest(config=config), timeout
        )
        return stream_of(response.stream)

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
            max_age=to_duration(max_age),
            max_bytes=max_bytes,
            max_messages=max_messages,
            max_messages_per_subject=max_messages_per_subject,
            max_message_size=max_message_size,
            duplicate_window=to_duration(duplicate_window),
            description=description,
        )
        response: pb.UpdateStreamResponse = await self._call(
            "UpdateStream", pb.UpdateStreamRequest(config=config), timeout
        )
        return stream_of(response.stream)

    async def get_stream(self, name: str, *, timeout: timedelta | None = None) -> Stream:
        """Return a stream."""
        response: pb.GetStreamResponse = await self._call("GetStream", pb.GetStreamRequest(stream=name), timeout)
        return stream_of(response.stream)

    async def list_streams(self, *, timeout: timedelta | None = None) -> list[Stream]:
        """Return all streams, by name."""
        response: pb.ListStreamsResponse = await self._call("ListStreams", pb.ListStreamsRequest(), timeout)
        return [stream_of(each) for each in response.streams]

    async def delete_stream(self, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a stream, its messages and its consumers."""
        await self._call("DeleteStream", pb.DeleteStreamRequest(stream=name), timeout)

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
        response: pb.PurgeStreamResponse = await self._call("PurgeStream", request, timeout)
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
        response: pb.GetMessageResponse = await self._call("GetMessage", request, timeout)
        return message_of(response.message)

    async def get_messages(
        self, stream: str, sequences: Sequence[int], *, timeout: timedelta | None = None
    ) -> list[Message | IsaError]:
        """Return messages of a stream by their sequences, each with its own outcome."""
        request = pb.GetMessagesRequest(stream=stream, sequences=sequences)
        response: pb.GetMessagesResponse = await self._call("GetMessages", request, timeout)
        outcomes = outcomes_of(response)
        return [told if isinstance(told, IsaError) else message_of(told.message) for told in outcomes]

    def replay(
        self,
        stream: str,
        *,
        start: Start | int | datetime = Start.ALL,
        filter_subject: str = "",
        follow: bool = False,
    ) -> Replay:
        """Return the messages of a stream in order, from a sequence, a time or a `Start`; with `follow`, for ever."""
        request = pb.ReplayRequest(stream=stream, start=to_start(start), filter_subject=filter_subject, follow=follow)
        return Replay(lambda: self._stream("Replay", request, _FOREVER))

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
            start=to_start(start),
            ack_wait=to_duration(ack_wait),
            max_deliver=max_deliver,
            max_ack_pending=max_ack_pending,
            description=description,
        )
        response: pb.CreateConsumerResponse = await self._call(
            "CreateConsumer", pb.CreateConsumerRequest(stream=stream, config=config), timeout
        )
        return consumer_of(response.consumer)

    async def get_consumer(self, stream: str, name: str, *, timeout: timedelta | None = None) -> Consumer:
        """Return a consumer."""
        response: pb.GetConsumerResponse = await self._call(
            "GetConsumer", pb.GetConsumerRequest(stream=stream, consumer=name), timeout
        )
        return consumer_of(response.consumer)

    async def list_consumers(self, stream: str, *, timeout: timedelta | None = None) -> list[Consumer]:
        """Return the durable consumers of a stream, by name."""
        response: pb.ListConsumersResponse = await self._call(
            "ListConsumers", pb.ListConsumersRequest(stream=stream), timeout
        )
        return [consumer_of(each) for each in response.consumers]

    async def delete_consumer(self, stream: str, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a consumer and what it remembers."""
        await self._call("DeleteConsumer", pb.DeleteConsumerRequest(stream=stream, consumer=name), timeout)

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
        request = pb.FetchRequest(stream=stream, consumer=consumer, limit=limit, wait=to_duration(wait))
        response: pb.FetchResponse = await self._call("Fetch", request, timeout or wait + timedelta(seconds=10))
        return [delivery_of(each, self._settling) for each in response.deliveries]

    def consume(self, stream: str, consumer: str, *, max_in_flight: int = 100) -> Consumption:
        """Return the messages of a consumer as they come, so many before the first of them is settled."""
        opening = pb.ConsumeRequest(
            open=pb.ConsumeRequest.Open(stream=stream, consumer=consumer, max_in_flight=max_in_flight)
        )
        return Consumption(
            lambda requests: self._transport.duplex(
                self._methods["Consume"], requests, timeout=_FOREVER, acting=self._acting
            ),
            opening,
            self._settling,
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
            ttl=to_duration(ttl),
            max_bytes=max_bytes,
            max_value_size=max_value_size,
            description=description,
        )
        await self._call("CreateBucket", pb.CreateBucketRequest(config=config), timeout)
        return self.bucket(name)

    def bucket(self, name: str) -> KeyValueBucket:
        """Return a bucket to work with; asks nobody whether it is there."""
        return KeyValueBucket(self, name)

    async def get_bucket(self, name: str, *, timeout: timedelta | None = None) -> KeyValueStatus:
        """Return how a bucket is made and what it holds."""
        response: pb.GetBucketResponse = await self._call("GetBucket", pb.GetBucketRequest(bucket=name), timeout)
        return bucket_of(response.bucket)

    async def list_buckets(self, *, timeout: timedelta | None = None) -> list[KeyValueStatus]:
        """Return all buckets, by name."""
        response: pb.ListBucketsResponse = await self._call("ListBuckets", pb.ListBucketsRequest(), timeout)
        return [bucket_of(each) for each in response.buckets]

    async def delete_bucket(self, name: str, *, timeout: timedelta | None = None) -> None:
        """Delete a bucket and its values."""
        await self._call("DeleteBucket", pb.DeleteBucketRequest(bucket=name), timeout)

    # Calls, alone and together.

    async def _publish_all(
        self, requests: list[pb.PublishRequest], timeout: timedelta | None
    ) -> list[pb.PublishResponse | IsaError]:
        outcomes: list[pb.PublishResponse | IsaError] = []
        for portion in portions(requests, most=_MOST):
            response = await self._call("PublishMany", pb.PublishManyRequest(messages=portion), timeout)
            outcomes += outcomes_of(response)
        return outcomes

    async def _settle_one(self, request: pb.Settlement, timeout: timedelta | None) -> None:
        (told,) = await self._settle_all([request], timeout)
        if told is not None:
            raise told

    async def _settle_all(self, requests: list[pb.Settlement], timeout: timedelta | None) -> list[IsaError | None]:
        response = await self._call("Settle", pb.SettleRequest(settlements=requests), timeout)
        return [told if isinstance(told, IsaError) else None for told in outcomes_of(response)]

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
            response = await self._call("MGet", pb.MGetRequest(bucket=bucket, keys=keys), timeout)
            answers.update(zip(places, outcomes_of(response), strict=True))

        await asyncio.gather(*(of_bucket(bucket, each) for bucket, each in places.items()))
        for place, request in enumerate(requests):
            if isinstance(answers[place], ResourceExhausted):  # no room for it in the answer
                with suppress(ResourceExhausted):
                    answers[place] = await self._call("Get", request, timeout)
        return [answers[place] for place in range(len(requests))]

    async def _put_all(
        self, requests: list[pb.PutRequest], timeout: timedelta | None
    ) -> list[pb.PutResponse | IsaError]:
        outcomes: list[pb.PutResponse | IsaError] = []
        for portion in portions(requests, most=_MOST):
            response = await self._call("PutMany", pb.PutManyRequest(items=portion), timeout)
            outcomes += outcomes_of(response)
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
            return entry_of((await self._streams._call("Get", request, timeout)).entry)
        return entry_of((await self._streams._getting(request, timeout)).entry)

    async def get_many(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[KeyEntry | IsaError]:
        """Return the values of keys, each with its own outcome: NotFound for a key that holds none."""
        requests = [pb.GetRequest(bucket=self.name, key=key) for key in keys]
        outcomes = await self._streams._get_all(requests, timeout)
        return [told if isinstance(told, IsaError) else entry_of(told.entry) for told in outcomes]

    async def put(
        self, key: str, value: bytes, *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> int:
        """Set a key and return its revision; with `ttl`, in whole seconds, for so long, and without its history."""
        request = pb.PutRequest(bucket=self.name, key=key, value=value, ttl=to_duration(ttl))
        return (await self._streams._putting(request, timeout)).revision

    async def put_many(
        self, values: Mapping[str, bytes], *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys in order; the revision of each, or what went wrong with it."""
        requests = [
            pb.PutRequest(bucket=self.name, key=key, value=value, ttl=to_duration(ttl)) for key, value in values.items()
        ]
        return _revisions(values, await self._streams._put_all(requests, timeout))

    async def create(
        self, key: str, value: bytes, *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> int:
        """Set a key that holds nothing; AlreadyExists when it does."""
        request = pb.CreateRequest(bucket=self.name, key=key, value=value, ttl=to_duration(ttl))
        response: pb.CreateResponse = await self._streams._call("Create", request, timeout)
        return response.revision

    async def create_many(
        self, values: Mapping[str, bytes], *, ttl: timedelta | None = None, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys that hold nothing; the revision of each, or what went wrong with it."""
        items = [
            pb.CreateRequest(bucket=self.name, key=key, value=value, ttl=to_duration(ttl))
            for key, value in values.items()
        ]
        response = await self._streams._call("CreateMany", pb.CreateManyRequest(items=items), timeout)
        return _revisions(values, outcomes_of(response))

    async def update(self, key: str, value: bytes, revision: int, *, timeout: timedelta | None = None) -> int:
        """Set a key that is still at a revision; Aborted when it is not."""
        request = pb.UpdateRequest(bucket=self.name, key=key, value=value, revision=revision)
        response: pb.UpdateResponse = await self._streams._call("Update", request, timeout)
        return response.revision

    async def update_many(
        self, values: Mapping[str, tuple[bytes, int]], *, timeout: timedelta | None = None
    ) -> dict[str, int | IsaError]:
        """Set keys that are still at their revisions; the new one of each, or what went wrong with it."""
        items = [
            pb.UpdateRequest(bucket=self.name, key=key, value=value, revision=revision)
            for key, (value, revision) in values.items()
        ]
        response = await self._streams._call("UpdateMany", pb.UpdateManyRequest(items=items), timeout)
        return _revisions(values, outcomes_of(response))

    async def delete(self, key: str, *, timeout: timedelta | None = None) -> None:
        """Delete a key; its history stays."""
        await self._streams._call("Delete", pb.DeleteRequest(bucket=self.name, key=key), timeout)

    async def delete_many(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[IsaError | None]:
        """Delete keys, each with its own outcome."""
        items = [pb.DeleteRequest(bucket=self.name, key=key) for key in keys]
        response = await self._streams._call("DeleteMany", pb.DeleteManyRequest(items=items), timeout)
        return [told if isinstance(told, IsaError) else None for told in outcomes_of(response)]

    async def purge(self, key: str, *, timeout: timedelta | None = None) -> None:
        """Delete a key and its history."""
        await self._streams._call("Purge", pb.PurgeRequest(bucket=self.name, key=key), timeout)

    async def purge_many(self, keys: Sequence[str], *, timeout: timedelta | None = None) -> list[IsaError | None]:
        """Delete keys and their history, each with its own outcome."""
        items = [pb.PurgeRequest(bucket=self.name, key=key) for key in keys]
        response = await self._streams._call("PurgeMany", pb.PurgeManyRequest(items=items), timeout)
        return [told if isinstance(told, IsaError) else None for told in outcomes_of(response)]

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
            entry_of(entry)
            async for response in self._streams._stream("History", request, timeout)
            for entry in response.entries
        ]

    def watch(self, filter: str = "", *, only_changes: bool = False) -> Watch:  # noqa: A002 -- as NATS calls it
        """Return the current values of all keys, or of a filter, and then every change.

        Unavailable ends it when the service was away: watch again, and take the current values.
        """
        request = pb.WatchRequest(bucket=self.name, filter=filter, only_changes=only_changes)
        return Watch(lambda: self._streams._stream("Watch", request, _FOREVER))


def _revisions(keys: Iterable[str], outcomes: Iterable[Any]) -> dict[str, int | IsaError]:
    return {
        key: told if isinstance(told, IsaError) else told.revision for key, told in zip(keys, outcomes, strict=True)
    }
