"""Durable consumers: what they send, and what became of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from typing import Any

from google.rpc.status_pb2 import Status

from isa.streams.v1 import streams_pb2 as pb
from isa_common import InvalidArgument, IsaError, NotFound, ResourceExhausted
from kernel import Caller, concerns
from services.adapters.nats.broker import TOGETHER, Broker, outcome
from services.adapters.nats.codec import (
    ACK,
    SECOND,
    Kind,
    consumer,
    consumer_config,
    delivered,
    isolate,
    name,
    nanoseconds,
)
from services.adapters.nats.connection import NobodyListens
from services.adapters.nats.pulling import HEARTBEAT, Pull

FETCHED_BYTES = 8 << 20
SEVERAL = 100
"""Messages where the caller does not say how many."""
LONGEST_WAIT = 60
REMEMBERING = 2
"""Seconds for a consumer to remember; it never answers about what it sent before a crash and forgot."""
WORDS = {pb.SETTLED_ACK: b"+ACK", pb.SETTLED_NAK: b"-NAK", pb.SETTLED_TERM: b"+TERM", pb.SETTLED_IN_PROGRESS: b"+WPI"}


class Consumers:
    """The part of the service that delivers until it hears that it is done."""

    _broker: Broker

    async def create_consumer(self, caller: Caller, request: pb.CreateConsumerRequest) -> pb.CreateConsumerResponse:
        """Make a durable consumer, if the organisation may have one more."""
        at = _stream(caller, request.stream)
        concerns(f"{request.stream}/{request.config.name}")
        config = consumer_config(caller, request.config)
        async with self._broker.making(caller):
            await self._another(caller)
            told = await self._broker.connection.api(
                f"CONSUMER.CREATE.{at}.{config['name']}", {"stream_name": at, "config": config, "action": "create"}
            )
        return pb.CreateConsumerResponse(consumer=consumer(caller, told))

    async def get_consumer(self, caller: Caller, request: pb.GetConsumerRequest) -> pb.GetConsumerResponse:
        """Return a consumer."""
        told = await self._consumer(caller, request.stream, request.consumer)
        return pb.GetConsumerResponse(consumer=consumer(caller, told))

    async def list_consumers(self, caller: Caller, request: pb.ListConsumersRequest) -> pb.ListConsumersResponse:
        """Return the durable consumers of a stream."""
        at = _stream(caller, request.stream)
        found: list[dict[str, Any]] = []
        while True:
            told = await self._broker.connection.api(f"CONSUMER.LIST.{at}", {"offset": len(found)})
            page = told["consumers"] or []
            found += page
            if not page or len(found) >= told["total"]:
                break
        durable = (each for each in found if each["config"].get("durable_name"))
        return pb.ListConsumersResponse(
            consumers=[consumer(caller, each) for each in sorted(durable, key=lambda each: str(each["name"]))]
        )

    async def delete_consumer(self, caller: Caller, request: pb.DeleteConsumerRequest) -> pb.DeleteConsumerResponse:
        """Delete a consumer."""
        at, consumer = _both(caller, request.stream, request.consumer)
        await self._broker.connection.api(f"CONSUMER.DELETE.{at}.{consumer}")
        return pb.DeleteConsumerResponse()

    async def fetch(self, caller: Caller, request: pb.FetchRequest) -> pb.FetchResponse:
        """Take messages of a consumer."""
        at, consumer = _both(caller, request.stream, request.consumer)
        limit = _several(request.limit, "limit")
        wait = 5.0
        if request.HasField("wait"):
            wait = nanoseconds(request.wait, "wait") / SECOND
            if wait > LONGEST_WAIT:
                raise InvalidArgument(f"At most {LONGEST_WAIT} s; call again.", field="wait")
        async with Pull(self._broker.connection, at, consumer) as pull:
            await pull.ask(limit, seconds=0, most_bytes=FETCHED_BYTES)
            await pull.all()
            if not pull.messages and wait:
                until = time.monotonic() + wait
                await pull.ask(1, seconds=wait)
                while pull.asked and (left := until - time.monotonic()) > 0:
                    await pull.wait(min(left, HEARTBEAT))
                if pull.messages and limit > 1:
                    await pull.ask(limit - 1, seconds=0, most_bytes=FETCHED_BYTES)
                    await pull.all()
            response = pb.FetchResponse(
                deliveries=[delivered(caller, message, self._broker.tokens) for message in pull.messages]
            )
            pull.messages.clear()
        return response

    async def consume(
        self, caller: Caller, requests: AsyncIterator[pb.ConsumeRequest]
    ) -> AsyncIterator[pb.ConsumeResponse]:
        """Send messages as they come, no more than the caller has room for, until it closes its side."""
        first = await anext(aiter(requests), None)
        if first is None or first.WhichOneof("step") != "open":
            raise InvalidArgument("Say first what to consume.", field="open")
        at, name = _both(caller, first.open.stream, first.open.consumer, "open.")
        most = _several(first.open.max_in_flight, "open.max_in_flight")
        told = await self._consumer(caller, first.open.stream, first.open.consumer)
        in_flight = _InFlight(told["config"]["ack_wait"] / SECOND)
        settled: list[pb.SettleOutcome] = []

        async def settle() -> None:
            """Take what became of messages, until the caller has no more to say."""
            try:
                async for request in requests:
                    if request.WhichOneof("step") != "settle":
                        raise InvalidArgument("What to consume is said once.", field="open")
                    given = self._broker.batch(caller, request.settle.settlements, "settle.settlements")
                    settled.extend(await self._settle_in_flight(caller, given, in_flight))
                    pull.woken.set()
            finally:
                pull.woken.set()

        async with Pull(self._broker.connection, at, name) as pull:
            settling = asyncio.ensure_future(settle())
            try:
                yield pb.ConsumeResponse()
                while not settling.done():
                    free = most - len(in_flight) - len(pull.messages) - pull.asked
                    if free > 0 and (not pull.asked or free >= most // 4):
                        await pull.ask(free)
                    try:
                        await pull.wait(min(HEARTBEAT, in_flight.expire()))
                    except NotFound:  # said too by a NATS that has just started, and has not looked through its store
                        await self._consumer(caller, first.open.stream, first.open.consumer)
                        pull.ended = None
                    while pull.messages or settled:
                        deliveries = [delivered(caller, each, self._broker.tokens) for each in pull.take()]
                        in_flight.add(delivery.ack_token for delivery in deliveries)
                        outcomes = settled[:]
                        settled.clear()
                        yield pb.ConsumeResponse(deliveries=deliveries, settled=outcomes)
                settling.result()
                await self._broker.connection.flush()
                if settled:
                    yield pb.ConsumeResponse(settled=settled)
            finally:
                settling.cancel()
                with suppress(asyncio.CancelledError, IsaError):
                    await settling

    async def settle(self, caller: Caller, request: pb.SettleRequest) -> pb.SettleResponse:
        """Say what became of messages; an outcome is ok when the consumer remembers it."""
        given = self._broker.batch(caller, request.settlements, "settlements")
        return pb.SettleResponse(outcomes=_outcomes(await self._broker.each(self._settled, caller, given)))

    async def _settle_in_flight(
        self, caller: Caller, given: Iterable[pb.Settlement], in_flight: _InFlight
    ) -> list[pb.SettleOutcome]:
        """Settle what one call has in flight; only what is to be confirmed is waited for."""
        confirmed = []
        for index, settlement in enumerate(given):
            inbox, word = self._word(caller, settlement, f"settle.settlements[{index}].")
            in_flight.settle(settlement)
            if settlement.confirm:
                confirmed.append(settlement)
            else:
                await self._broker.connection.publish(inbox, word)
        outcomes = _outcomes(await self._broker.each(self._settled, caller, confirmed))
        for each, settlement in zip(outcomes, confirmed, strict=True):
            each.ack_token = settlement.ack_token
        return outcomes

    async def _settled(self, caller: Caller, settlement: pb.Settlement) -> pb.Remembered:
        inbox, word = self._word(caller, settlement)
        try:
            async with asyncio.timeout(REMEMBERING):
                await self._broker.connection.request(inbox, word)
        except NobodyListens:
            raise NotFound("The consumer of this message is gone.") from None
        return pb.Remembered()

    def _word(self, caller: Caller, settlement: pb.Settlement, path: str = "") -> tuple[str, bytes]:
        """Where and how JetStream is told."""
        inbox = self._broker.tokens.open(caller, ACK, settlement.ack_token, f"{path}ack_token")
        word = WORDS.get(settlement.settled or pb.SETTLED_ACK)
        if word is None:
            raise InvalidArgument("No such outcome.", field=f"{path}settled")
        if settlement.HasField("delay"):
            if settlement.settled != pb.SETTLED_NAK:
                raise InvalidArgument("Only what failed is sent again later.", field=f"{path}delay")
            if delay := nanoseconds(settlement.delay, f"{path}delay"):
                word += b' {"delay": %d}' % delay
        return inbox, word

    async def _consumer(self, caller: Caller, stream: str, given: str) -> dict[str, Any]:
        at, name = _both(caller, stream, given)
        return await self._broker.connection.api(f"CONSUMER.INFO.{at}.{name}")

    async def _another(self, caller: Caller) -> None:
        found = await self.all_of(caller, Kind.SUBJECT)
        most = self._broker.limits.consumers
        if sum(each["state"]["consumer_count"] for each in found) >= most:
            raise ResourceExhausted(f"An organisation may have {most} consumers.")

    async def all_of(self, caller: Caller, kind: Kind) -> list[dict[str, Any]]:
        """All streams of a tenant; `Storage` has it."""
        raise NotImplementedError


class _InFlight:
    """Messages that one reader was sent and did not settle; each is forgotten when it is due to be sent again."""

    def __init__(self, wait: float) -> None:
        self._wait = wait
        self._due: dict[bytes, float] = {}

    def __len__(self) -> int:
        return len(self._due)

    def add(self, tokens: Iterable[bytes]) -> None:
        due = time.monotonic() + self._wait
        for token in tokens:
            self._due[token] = due

    def settle(self, settlement: pb.Settlement) -> None:
        known = self._due.pop(settlement.ack_token, None)
        if known is not None and settlement.settled == pb.SETTLED_IN_PROGRESS:
            self.add([settlement.ack_token])

    def expire(self) -> float:
        """Forget what is due; seconds until the next one is."""
        now = time.monotonic()
        for token, due in list(self._due.items()):  # in order: each is put at the end
            if due > now:
                return due - now
            del self._due[token]
        return self._wait


def _outcomes(told: Iterable[pb.Remembered | Status]) -> list[pb.SettleOutcome]:
    return [pb.SettleOutcome(**outcome(each)) for each in told]


def _several(given: int, field: str) -> int:
    if not 0 <= given <= TOGETHER:
        raise InvalidArgument(f"This is 1 to {TOGETHER}.", field=field)
    return given or SEVERAL


def _stream(caller: Caller, given: str, path: str = "") -> str:
    return isolate(caller, Kind.STREAM, name(given, f"{path}stream"))


def _both(caller: Caller, stream: str, consumer: str, path: str = "") -> tuple[str, str]:
    """The physical names of a stream and of a consumer of it."""
    at, known = _stream(caller, stream, path), name(consumer, f"{path}consumer")
    concerns(f"{stream}/{consumer}")
    return at, known
