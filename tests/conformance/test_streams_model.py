"""The adapter on NATS does what the service in memory does, whatever two tenants do to it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from isa.streams.v1 import streams_pb2 as pb
from isa_common import Code
from isa_common.testing._streams import MemoryStreams
from kernel import Caller
from kernel.errors import ours
from services.adapters.nats.app import Settings, create_app
from services.adapters.nats.repository import ERRORS
from tests.conformance.conftest import Engines, FakeParts, Secrets
from tests.conformance.machines import run_beside

NAMES = ["one", "two", "org-a_one"]
SUBJECTS = ["a", "a.b", "a.c", "b.b", "KV.a", "a..b", "a.*", ""]
FILTERS = ["a", "a.*", "*.b", "a.>", ">", "*", "b.>", "c", "a.>.b", ""]
DIFFERENT = {"time", "created", "bytes", "messageId", "ackToken", "maxBytes", "pending"}
"""What two brokers say differently: moments, sizes on disk, what is random, and what NATS counts a moment later."""

tenants = st.sampled_from([0, 1])
names = st.sampled_from(NAMES)
subjects = st.sampled_from(SUBJECTS)
filters = st.sampled_from(FILTERS)
data = st.sampled_from([b"", b"1", b"\x00\xff", b"x" * 700])
sequences = st.integers(0, 6)
retentions = st.sampled_from([0, 0, 0, *pb.Retention.values()])
starts = st.one_of(
    st.just(pb.Start()),
    st.just(pb.Start(new=pb.Start.New())),
    st.just(pb.Start(last=pb.Start.Last())),
    st.just(pb.Start(last_per_subject=pb.Start.LastPerSubject())),
    sequences.map(lambda number: pb.Start(sequence=number)),
)
keys = st.sampled_from(["k", "a.b", "a.c", "org-b.k", "k k", "*", ""])

Step = Callable[["Side", Caller], Any]


class Side:
    """One of the two services, and the tokens that it gave."""

    def __init__(self, service: Any) -> None:
        self.service = service
        self.tokens: dict[int, list[bytes]] = {0: [], 1: []}


async def outcome(answer: Any) -> Any:
    """What an answer says, without what may differ."""
    try:
        return told([part async for part in answer] if isinstance(answer, AsyncIterator) else await answer)
    except Exception as failure:
        error = ours(failure, ERRORS)
        return error.code, error.field if error.code is Code.INVALID_ARGUMENT else None


def told(answer: Any) -> Any:
    if isinstance(answer, Message):
        return told(MessageToDict(answer))
    if isinstance(answer, list):
        return [told(part) for part in answer]
    if isinstance(answer, dict):
        left = {name: value for name, value in answer.items() if name not in DIFFERENT}
        return {name: value["code"] if name == "error" else told(value) for name, value in left.items()}
    return answer


class Machine(RuleBasedStateMachine):
    """Does the same to both, and compares what they say."""

    loop: asyncio.AbstractEventLoop
    engine: Any

    def __init__(self) -> None:
        super().__init__()
        self.callers = [Caller(org=f"org-{uuid.uuid4().hex[:12]}", user=f"user-{n}") for n in range(2)]
        self.sides = [Side(self.engine), Side(MemoryStreams())]

    def both(self, tenant: int, step: Step) -> None:
        caller = self.callers[tenant]

        async def one(side: Side) -> Any:
            return await outcome(step(side, caller))

        engine, memory = (self.loop.run_until_complete(one(side)) for side in self.sides)
        assert engine == memory

    def teardown(self) -> None:
        """Leave nothing on the engine."""

        async def empty() -> None:
            for caller in self.callers:
                for stream in (await self.engine.list_streams(caller, pb.ListStreamsRequest())).streams:
                    await self.engine.delete_stream(caller, pb.DeleteStreamRequest(stream=stream.config.name))
                for bucket in (await self.engine.list_buckets(caller, pb.ListBucketsRequest())).buckets:
                    await self.engine.delete_bucket(caller, pb.DeleteBucketRequest(bucket=bucket.config.name))

        self.loop.run_until_complete(empty())

    @initialize()
    def begin_with_something(self) -> None:
        """Most of what is asked should be about something that there is."""
        for tenant in (0, 1):
            self.create_stream(tenant, "one", ["a", "a.>"], 0, 0, 0)
            self.create_consumer(tenant, "one", "c", [], pb.Start(), 0)
            self.create_bucket(tenant, "one", 2)

    @rule(
        tenant=tenants,
        name=names,
        taken=st.lists(filters, max_size=2),
        retention=retentions,
        messages=st.sampled_from([0, 0, 3]),
        discard=st.sampled_from(pb.Discard.values()),
    )
    def create_stream(
        self, tenant: int, name: str, taken: list[str], retention: int, messages: int, discard: int
    ) -> None:
        if len(taken) != len(set(taken)):
            return
        config = pb.StreamConfig(name=name, subjects=taken, retention=retention, max_messages=messages, discard=discard)
        self.both(
            tenant, lambda side, caller: side.service.create_stream(caller, pb.CreateStreamRequest(config=config))
        )

    @rule(tenant=tenants, name=names)
    def delete_stream(self, tenant: int, name: str) -> None:
        self.both(tenant, lambda side, caller: side.service.delete_stream(caller, pb.DeleteStreamRequest(stream=name)))

    @rule(tenant=tenants)
    def list_streams(self, tenant: int) -> None:
        self.both(tenant, lambda side, caller: side.service.list_streams(caller, pb.ListStreamsRequest()))

    @rule(
        tenant=tenants,
        subject=subjects,
        body=data,
        message_id=st.sampled_from(["", "", "m1", "m2"]),
        expected=st.one_of(st.none(), st.integers(0, 3)),
    )
    def publish(self, tenant: int, subject: str, body: bytes, message_id: str, expected: int | None) -> None:
        request = pb.PublishRequest(
            subject=subject,
            data=body,
            message_id=message_id,
            durable=True,
            headers={"h": "ü"},
            expected_last_subject_sequence=expected,
        )
        self.both(tenant, lambda side, caller: side.service.publish(caller, request))

    @rule(tenant=tenants, chosen=st.lists(subjects, max_size=5))
    def publish_many(self, tenant: int, chosen: list[str]) -> None:
        messages = [pb.PublishRequest(subject=subject, data=b"batch", durable=True) for subject in chosen]
        self.both(
            tenant, lambda side, caller: side.service.publish_many(caller, pb.PublishManyRequest(messages=messages))
        )

    @rule(tenant=tenants, name=names, wanted=filters, before=sequences, keep=st.sampled_from([0, 0, 1]))
    def purge(self, tenant: int, name: str, wanted: str, before: int, keep: int) -> None:
        request = pb.PurgeStreamRequest(stream=name, filter_subject=wanted, before_sequence=before, keep=keep)
        self.both(tenant, lambda side, caller: side.service.purge_stream(caller, request))

    @rule(tenant=tenants, name=names, chosen=st.lists(sequences, max_size=4))
    def get_messages(self, tenant: int, name: str, chosen: list[int]) -> None:
        request = pb.GetMessagesRequest(stream=name, sequences=chosen)
        self.both(tenant, lambda side, caller: side.service.get_messages(caller, request))

    @rule(tenant=tenants, name=names, subject=subjects)
    def last_message(self, tenant: int, name: str, subject: str) -> None:
        request = pb.GetMessageRequest(stream=name, last_of_subject=subject)
        self.both(tenant, lambda side, caller: side.service.get_message(caller, request))

    @rule(tenant=tenants, name=names, wanted=filters, start=starts)
    def replay(self, tenant: int, name: str, wanted: str, start: pb.Start) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.ReplayRequest(stream=name, filter_subject=wanted, start=start)
            return [message async for part in side.service.replay(caller, request) for message in part.messages]

        self.both(tenant, step)

    @rule(
        tenant=tenants,
        name=names,
        consumer=st.sampled_from(["c", "d"]),
        wanted=st.lists(filters, max_size=1),
        start=starts,
        most=st.sampled_from([0, 1]),
    )
    def create_consumer(
        self, tenant: int, name: str, consumer: str, wanted: list[str], start: pb.Start, most: int
    ) -> None:
        config = pb.ConsumerConfig(name=consumer, filter_subjects=wanted, start=start, max_deliver=most)
        request = pb.CreateConsumerRequest(stream=name, config=config)
        self.both(tenant, lambda side, caller: side.service.create_consumer(caller, request))

    @rule(tenant=tenants, name=names, consumer=st.sampled_from(["c", "d"]))
    def delete_consumer(self, tenant: int, name: str, consumer: str) -> None:
        request = pb.DeleteConsumerRequest(stream=name, consumer=consumer)
        self.both(tenant, lambda side, caller: side.service.delete_consumer(caller, request))

    @rule(tenant=tenants, name=names)
    def list_consumers(self, tenant: int, name: str) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            response = await side.service.list_consumers(caller, pb.ListConsumersRequest(stream=name))
            for consumer in response.consumers:
                consumer.ClearField("ack_floor")  # NATS moves it lazily over what was never sent
            return response

        self.both(tenant, step)

    @rule(tenant=tenants, name=names, consumer=st.sampled_from(["c", "c", "d"]), limit=st.integers(0, 3))
    def fetch(self, tenant: int, name: str, consumer: str, limit: int) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.FetchRequest(stream=name, consumer=consumer, limit=limit, wait=Duration())
            response = await side.service.fetch(caller, request)
            side.tokens[tenant] += [delivery.ack_token for delivery in response.deliveries]
            return response

        self.both(tenant, step)

    @rule(
        tenant=tenants,
        owner=tenants,
        places=st.lists(st.integers(0, 9), max_size=3, unique=True),
        how=st.sampled_from(pb.Settled.values()),
    )
    def settle(self, tenant: int, owner: int, places: list[int], how: int) -> None:
        """Settle with tokens of one's own, or with those of the other tenant."""

        async def step(side: Side, caller: Caller) -> Any:
            tokens = [side.tokens[owner][place] for place in places if place < len(side.tokens[owner])]
            settlements = [pb.Settlement(ack_token=token, settled=how) for token in tokens]
            return await side.service.settle(caller, pb.SettleRequest(settlements=settlements))

        self.both(tenant, step)

    @rule(tenant=tenants, name=names, history=st.sampled_from([0, 2, 65]))
    def create_bucket(self, tenant: int, name: str, history: int) -> None:
        request = pb.CreateBucketRequest(config=pb.BucketConfig(name=name, history=history))
        self.both(tenant, lambda side, caller: side.service.create_bucket(caller, request))

    @rule(tenant=tenants, name=names)
    def delete_bucket(self, tenant: int, name: str) -> None:
        self.both(tenant, lambda side, caller: side.service.delete_bucket(caller, pb.DeleteBucketRequest(bucket=name)))

    @rule(tenant=tenants)
    def list_buckets(self, tenant: int) -> None:
        self.both(tenant, lambda side, caller: side.service.list_buckets(caller, pb.ListBucketsRequest()))

    @rule(tenant=tenants, name=names, key=keys, value=data)
    def put(self, tenant: int, name: str, key: str, value: bytes) -> None:
        request = pb.PutRequest(bucket=name, key=key, value=value)
        self.both(tenant, lambda side, caller: side.service.put(caller, request))

    @rule(tenant=tenants, name=names, chosen=st.lists(keys, max_size=3))
    def create_keys(self, tenant: int, name: str, chosen: list[str]) -> None:
        if len(chosen) != len(set(chosen)):
            return
        request = pb.CreateManyRequest(items=[pb.CreateRequest(bucket=name, key=key, value=b"c") for key in chosen])

        async def step(side: Side, caller: Caller) -> Any:
            response = await side.service.create_many(caller, request)
            for each in response.outcomes:
                each.ok.ClearField("revision") if each.HasField("ok") else None  # those that try twice come later
            return response

        if len(chosen) <= 1:
            self.both(tenant, lambda side, caller: side.service.create_many(caller, request))
        else:
            self.both(tenant, step)

    @rule(tenant=tenants, name=names, key=keys, revision=st.integers(0, 4))
    def update(self, tenant: int, name: str, key: str, revision: int) -> None:
        request = pb.UpdateRequest(bucket=name, key=key, value=b"u", revision=revision)
        self.both(tenant, lambda side, caller: side.service.update(caller, request))

    @rule(tenant=tenants, name=names, key=keys, is_purge=st.booleans())
    def delete(self, tenant: int, name: str, key: str, is_purge: bool) -> None:
        if is_purge:
            self.both(tenant, lambda side, caller: side.service.purge(caller, pb.PurgeRequest(bucket=name, key=key)))
        else:
            self.both(tenant, lambda side, caller: side.service.delete(caller, pb.DeleteRequest(bucket=name, key=key)))

    @rule(tenant=tenants, name=names, chosen=st.lists(keys, max_size=4))
    def mget(self, tenant: int, name: str, chosen: list[str]) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            response = await side.service.mget(caller, pb.MGetRequest(bucket=name, keys=chosen))
            return [
                (each.ok.entry.value, each.ok.entry.key) if each.HasField("ok") else each.error.code
                for each in response.outcomes
            ]

        async def compared(side: Side, caller: Caller) -> Any:
            return [repr(each) for each in await step(side, caller)]

        self.both(tenant, compared)

    @rule(tenant=tenants, name=names, key=keys)
    def history(self, tenant: int, name: str, key: str) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.HistoryRequest(bucket=name, key=key)
            found = [entry async for part in side.service.history(caller, request) for entry in part.entries]
            return [[entry.key, repr(entry.value), entry.operation, entry.publisher] for entry in found]

        self.both(tenant, step)

    @rule(tenant=tenants, name=names, wanted=filters)
    def find_keys(self, tenant: int, name: str, wanted: str) -> None:
        async def step(side: Side, caller: Caller) -> Any:
            request = pb.KeysRequest(bucket=name, filter=wanted)
            return sorted([key async for part in side.service.keys(caller, request) for key in part.keys])

        self.both(tenant, step)


def test_the_adapter_does_what_the_model_does(engines: Engines) -> None:
    adapter = create_app(
        Settings(url=f"nats://{engines.address('nats')}"), FakeParts(Secrets(engines.secrets))
    ).implementation
    run_beside(Machine, adapter)
