"""Key-value buckets: a bucket is a stream, a key a subject of it, a value its last message."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing

from google.protobuf.duration_pb2 import Duration
from nats.aio.msg import Msg

from isa.streams.v1 import streams_pb2 as pb
from isa_common import Aborted, AlreadyExists, InvalidArgument, NotFound
from kernel import Caller, concerns
from services.adapters.nats.broker import Broker, outcome
from services.adapters.nats.codec import (
    OPERATION,
    SECOND,
    Kind,
    Place,
    bucket,
    bucket_config,
    entry,
    envelope,
    fits,
    isolate,
    moment,
    name,
    nanoseconds,
    subject,
)
from services.adapters.nats.connection import NobodyListens, accepted
from services.adapters.nats.pulling import read
from services.adapters.nats.storage import Storage

ROLLUP = "Nats-Rollup"
ENDED = frozenset({pb.OPERATION_DELETE, pb.OPERATION_PURGE, pb.OPERATION_EXPIRE})


class Buckets(Storage):
    """The part of the service that keeps values."""

    _broker: Broker

    async def create_bucket(self, caller: Caller, request: pb.CreateBucketRequest) -> pb.CreateBucketResponse:
        """Make a bucket, if the organisation may have one more."""
        concerns(request.config.name)
        limits = self._broker.limits
        config = bucket_config(
            caller,
            request.config,
            bytes_default=limits.stream_bytes,
            bytes_most=limits.stream_bytes_most,
            replicas=limits.replicas,
        )
        async with self._broker.making(caller):
            await self.another(caller, config["name"])
            told = await self._broker.connection.api(f"STREAM.CREATE.{config['name']}", config)
        return pb.CreateBucketResponse(bucket=bucket(caller, told))

    async def get_bucket(self, caller: Caller, request: pb.GetBucketRequest) -> pb.GetBucketResponse:
        """Return a bucket."""
        told = await self._broker.connection.api(f"STREAM.INFO.{_bucket(caller, request.bucket)}")
        return pb.GetBucketResponse(bucket=bucket(caller, told))

    async def list_buckets(self, caller: Caller, request: pb.ListBucketsRequest) -> pb.ListBucketsResponse:
        """Return all buckets of the tenant."""
        found = await self.all_of(caller, Kind.KEY)
        return pb.ListBucketsResponse(buckets=[bucket(caller, each) for each in found])

    async def delete_bucket(self, caller: Caller, request: pb.DeleteBucketRequest) -> pb.DeleteBucketResponse:
        """Delete a bucket."""
        await self._broker.connection.api(f"STREAM.DELETE.{_bucket(caller, request.bucket)}")
        return pb.DeleteBucketResponse()

    async def get(self, caller: Caller, request: pb.GetRequest) -> pb.GetResponse:
        """Return the value of a key, or of one of its revisions."""
        found = await self._held(caller, request.bucket, request.key, request.revision)
        if found is None or found.operation in ENDED:
            raise NotFound("No such key.", field="key")
        return pb.GetResponse(entry=found)

    async def mget(self, caller: Caller, request: pb.MGetRequest) -> pb.MGetResponse:
        """Return the values of keys, each with its own outcome."""
        name(request.bucket, "bucket")
        given = self._broker.batch(caller, request.keys, "keys")
        wanted = [pb.GetRequest(bucket=request.bucket, key=key) for key in given]
        response = pb.MGetResponse()
        async for found in self._broker.fitting(self.get, caller, wanted):
            response.outcomes.add(**found)
        return response

    async def put(self, caller: Caller, request: pb.PutRequest) -> pb.PutResponse:
        """Set a key."""
        return pb.PutResponse(revision=await self._put(caller, request))

    async def put_many(self, caller: Caller, request: pb.PutManyRequest) -> pb.PutManyResponse:
        """Set keys, each with its own outcome."""
        outcomes = await self._broker.each(self.put, caller, self._broker.batch(caller, request.items, "items"))
        return pb.PutManyResponse(outcomes=[pb.PutOutcome(**outcome(told)) for told in outcomes])

    async def create(self, caller: Caller, request: pb.CreateRequest) -> pb.CreateResponse:
        """Set a key that holds nothing."""
        try:
            return pb.CreateResponse(revision=await self._put(caller, request, expected=0))
        except Aborted:
            held = await self._held(caller, request.bucket, request.key)
        if held is not None and held.operation not in ENDED:
            raise AlreadyExists("The key holds a value.", field="key")
        try:
            return pb.CreateResponse(revision=await self._put(caller, request, expected=held.revision if held else 0))
        except Aborted:
            raise AlreadyExists("The key holds a value.", field="key") from None

    async def create_many(self, caller: Caller, request: pb.CreateManyRequest) -> pb.CreateManyResponse:
        """Set keys that hold nothing, each with its own outcome."""
        outcomes = await self._broker.each(self.create, caller, self._broker.batch(caller, request.items, "items"))
        return pb.CreateManyResponse(outcomes=[pb.CreateOutcome(**outcome(told)) for told in outcomes])

    async def update(self, caller: Caller, request: pb.UpdateRequest) -> pb.UpdateResponse:
        """Set a key that is still at a revision."""
        if not request.revision:
            raise InvalidArgument("The first revision is 1.", field="revision")
        try:
            return pb.UpdateResponse(revision=await self._put(caller, request, expected=request.revision))
        except Aborted:
            raise Aborted("The key is at another revision.", field="revision") from None

    async def update_many(self, caller: Caller, request: pb.UpdateManyRequest) -> pb.UpdateManyResponse:
        """Set keys that are still at a revision, each with its own outcome."""
        outcomes = await self._broker.each(self.update, caller, self._broker.batch(caller, request.items, "items"))
        return pb.UpdateManyResponse(outcomes=[pb.UpdateOutcome(**outcome(told)) for told in outcomes])

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Mark a key as deleted."""
        await self._store(caller, request.bucket, request.key, b"", {OPERATION: "DEL"})
        return pb.DeleteResponse()

    async def delete_many(self, caller: Caller, request: pb.DeleteManyRequest) -> pb.DeleteManyResponse:
        """Delete keys, each with its own outcome."""
        outcomes = await self._broker.each(self.delete, caller, self._broker.batch(caller, request.items, "items"))
        return pb.DeleteManyResponse(outcomes=[pb.DeleteOutcome(**outcome(told)) for told in outcomes])

    async def purge(self, caller: Caller, request: pb.PurgeRequest) -> pb.PurgeResponse:
        """Delete a key and what it held."""
        await self._store(caller, request.bucket, request.key, b"", {OPERATION: "PURGE", ROLLUP: "sub"})
        return pb.PurgeResponse()

    async def purge_many(self, caller: Caller, request: pb.PurgeManyRequest) -> pb.PurgeManyResponse:
        """Delete keys and what they held, each with its own outcome."""
        outcomes = await self._broker.each(self.purge, caller, self._broker.batch(caller, request.items, "items"))
        return pb.PurgeManyResponse(outcomes=[pb.PurgeOutcome(**outcome(told)) for told in outcomes])

    async def keys(self, caller: Caller, request: pb.KeysRequest) -> AsyncIterator[pb.KeysResponse]:
        """Send the keys that hold a value."""
        at = _bucket(caller, request.bucket)
        source = read(
            self._broker.connection,
            at,
            [_filter(caller, request.bucket, request.filter)],
            {"deliver_policy": "last_per_subject"},
            headers_only=True,
        )
        async with aclosing(source):
            async for taken, _ in source:
                entries = (self._read(caller, request.bucket, message) for message in taken)
                if keys := [each.key for each in entries if each.operation not in ENDED]:
                    yield pb.KeysResponse(keys=keys)

    async def history(self, caller: Caller, request: pb.HistoryRequest) -> AsyncIterator[pb.HistoryResponse]:
        """Send what a key held."""
        at, of = _bucket(caller, request.bucket), _key(caller, request.bucket, request.key)
        async with aclosing(read(self._broker.connection, at, [of], {"deliver_policy": "all"})) as source:
            async for taken, _ in source:
                if taken:
                    yield pb.HistoryResponse(entries=[self._read(caller, request.bucket, each) for each in taken])

    async def watch(self, caller: Caller, request: pb.WatchRequest) -> AsyncIterator[pb.WatchResponse]:
        """Send the current values, say so, and send changes."""
        at = _bucket(caller, request.bucket)
        source = read(
            self._broker.connection,
            at,
            [_filter(caller, request.bucket, request.filter)],
            {"deliver_policy": "new" if request.only_changes else "last_per_subject"},
            follow=True,
        )
        is_current = not request.only_changes
        async with aclosing(source):
            async for taken, is_done in source:
                entries = [self._read(caller, request.bucket, message) for message in taken]
                if is_current:  # a key that holds nothing has no current value
                    entries = [each for each in entries if each.operation not in ENDED]
                if entries or is_done:
                    yield pb.WatchResponse(entries=entries, current_done=is_done)
                is_current = is_current and not is_done

    async def _put(
        self,
        caller: Caller,
        request: pb.PutRequest | pb.CreateRequest | pb.UpdateRequest,
        *,
        expected: int | None = None,
    ) -> int:
        headers: dict[str, str] = {}
        if not isinstance(request, pb.UpdateRequest) and request.HasField("ttl"):
            headers["Nats-TTL"] = _seconds(request.ttl)
            headers[ROLLUP] = "sub"  # else an older value would come back when this one goes
        if expected is not None:
            headers["Nats-Expected-Last-Subject-Sequence"] = str(expected)
        return await self._store(caller, request.bucket, request.key, request.value, headers)

    async def _store(self, caller: Caller, bucket: str, key: str, value: bytes, headers: Mapping[str, str]) -> int:
        """Put a message into a bucket; its revision."""
        _bucket(caller, bucket)
        at = _key(caller, bucket, key)
        headers = {**envelope(caller, {}), **headers}
        fits(value, headers, "value")
        await self._broker.shares.room(caller, len(value))
        try:
            answer = await self._broker.connection.request(at, value, headers)
        except NobodyListens:
            raise NotFound("No such bucket.", field="bucket") from None
        return int(accepted(answer)["seq"])

    async def _held(self, caller: Caller, bucket: str, key: str, revision: int = 0) -> pb.Entry | None:
        """What a key holds, or its end; None when it never held anything, or not at this revision."""
        at, of = _bucket(caller, bucket), _key(caller, bucket, key)
        found = await (self.direct(at, {"seq": revision}) if revision else self.direct(at, of=of))
        if found is None or (found.headers or {})["Nats-Subject"] != of:
            return None
        return self._entry(caller, bucket, found)

    def _entry(self, caller: Caller, bucket: str, message: Msg) -> pb.Entry:
        """An entry that NATS read by its revision or key."""
        headers = message.headers or {}
        return entry(
            caller,
            bucket,
            message,
            at=headers["Nats-Subject"],
            revision=int(headers["Nats-Sequence"]),
            changed=moment(headers["Nats-Time-Stamp"]),
        )

    def _read(self, caller: Caller, bucket: str, message: Msg) -> pb.Entry:
        """An entry that a reader was sent."""
        place = Place(message)
        return entry(caller, bucket, message, at=message.subject, revision=place.sequence, changed=place.time)


def _bucket(caller: Caller, given: str) -> str:
    """The physical name of a bucket that a request names."""
    return isolate(caller, Kind.BUCKET, name(given, "bucket"))


def _key(caller: Caller, bucket: str, given: str) -> str:
    """The subject of a key that a request names."""
    concerns(f"{bucket}/{given}")
    return isolate(caller, Kind.KEY, f"{bucket}.{subject(given, 'key')}")


def _filter(caller: Caller, bucket: str, given: str) -> str:
    concerns(f"{bucket}/{given}")
    return isolate(caller, Kind.KEY, f"{bucket}.{subject(given or '>', 'filter', is_filter=True)}")


def _seconds(ttl: Duration) -> str:
    nanos = nanoseconds(ttl, "ttl", least=SECOND)
    if not nanos or nanos % SECOND:
        raise InvalidArgument("A time to live is one or more whole seconds.", field="ttl")
    return str(nanos // SECOND)
