"""Streams of requests: on a real server here, directly and in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf.wrappers_pb2 import Int64Value

from isa_common import DeadlineExceeded, InvalidArgument, NotFound, Unavailable
from isa_common._contract import Method
from isa_common._transport import Transport
from isa_common.testing._transport import Caller, MemoryTransport
from kernel.rpc.status import refuse


def fact(name: str, kind: str) -> Method:
    return Method(
        path=f"/test.Numbers/{name}",
        capability="numbers",
        kind=kind,
        is_idempotent=True,
        serialize=Int64Value.SerializeToString,
        deserialize=Int64Value.FromString,
    )


SUM, ECHO = fact("Sum", "stream_unary"), fact("Echo", "stream_stream")


class Numbers:
    """Adds numbers up, and gives them back; refuses 13."""

    def __init__(self) -> None:
        self.calls = 0
        self.metadata: list[dict[str, str]] = []
        self.left = asyncio.Event()

    async def sum(self, caller: object, requests: AsyncIterator[Int64Value]) -> Int64Value:
        self.calls += 1
        total = 0
        async for request in requests:
            if request.value == 13:
                raise NotFound("No such number.", number=13)
            total += request.value
        return Int64Value(value=total)

    async def echo(self, caller: object, requests: AsyncIterator[Int64Value]) -> AsyncIterator[Int64Value]:
        self.calls += 1
        try:
            async for request in requests:
                if request.value == 13:
                    raise NotFound("No such number.", number=13)
                yield request
        finally:
            self.left.set()


class Served:
    """The same behind gRPC."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers

    async def sum(self, requests: AsyncIterator[Int64Value], context: grpc.aio.ServicerContext) -> Int64Value:
        self.numbers.metadata.append(dict(context.invocation_metadata()))
        try:
            return await self.numbers.sum(None, requests)
        except NotFound as error:
            await refuse(context, error)

    async def echo(
        self, requests: AsyncIterator[Int64Value], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[Int64Value]:
        self.numbers.metadata.append(dict(context.invocation_metadata()))
        try:
            async with aclosing(self.numbers.echo(None, requests)) as answers:
                async for answer in answers:
                    yield answer
        except NotFound as error:
            await refuse(context, error)


@pytest.fixture
def numbers() -> Numbers:
    return Numbers()


@pytest_asyncio.fixture
async def address(numbers: Numbers) -> AsyncIterator[str]:
    served = Served(numbers)
    server = grpc.aio.server()
    coders = (Int64Value.FromString, Int64Value.SerializeToString)
    handlers = {
        "Sum": grpc.stream_unary_rpc_method_handler(served.sum, *coders),
        "Echo": grpc.stream_stream_rpc_method_handler(served.echo, *coders),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Numbers", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


@pytest_asyncio.fixture(params=["wire", "memory"])
async def transport(request: pytest.FixtureRequest, numbers: Numbers, address: str) -> AsyncIterator[Transport]:
    if request.param == "wire":
        transport = Transport(address)
    else:
        caller = Caller(org="org-a", user="user-1")
        transport = MemoryTransport(lambda _: numbers, caller, timeout=timedelta(seconds=10))
    yield transport
    await transport.close()


async def counted(*values: int) -> AsyncIterator[Int64Value]:
    for value in values:
        yield Int64Value(value=value)


async def test_many_requests_have_one_answer(transport: Transport) -> None:
    assert (await transport.collect(SUM, counted(1, 2, 3))).value == 6
    assert (await transport.collect(SUM, counted())).value == 0


async def test_answers_come_while_requests_are_still_made(transport: Transport) -> None:
    requests: asyncio.Queue[int] = asyncio.Queue()

    async def made() -> AsyncIterator[Int64Value]:
        while value := await requests.get():
            yield Int64Value(value=value)

    requests.put_nowait(1)
    answers = []
    async for answer in transport.duplex(ECHO, made()):
        answers.append(answer.value)
        requests.put_nowait(answer.value + 1 if answer.value < 5 else 0)

    assert answers == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("make", [lambda t, r: t.collect(SUM, r), lambda t, r: drained(t.duplex(ECHO, r))])
async def test_a_refusal_midway_is_the_error_of_the_call(transport: Transport, make: Callable[..., object]) -> None:
    async def made() -> AsyncIterator[Int64Value]:
        yield Int64Value(value=13)
        await asyncio.Event().wait()

    with pytest.raises(NotFound) as caught:
        await make(transport, made())

    assert caught.value.details == {"number": "13"}
    assert caught.value.request_id


@pytest.mark.parametrize("make", [lambda t, r: t.collect(SUM, r), lambda t, r: drained(t.duplex(ECHO, r))])
async def test_what_goes_wrong_in_the_making_of_a_request_comes_out(
    transport: Transport, numbers: Numbers, make: Callable[..., object]
) -> None:
    async def made() -> AsyncIterator[Int64Value]:
        yield Int64Value(value=1)
        raise InvalidArgument("No such file.")

    with pytest.raises(InvalidArgument, match="No such file"):
        await make(transport, made())

    assert numbers.calls <= 1  # gRPC may end the call before it is sent


async def test_leaving_early_ends_the_call_on_the_other_side(transport: Transport, numbers: Numbers) -> None:
    async def endless() -> AsyncIterator[Int64Value]:
        yield Int64Value(value=1)
        await asyncio.Event().wait()

    async with aclosing(transport.duplex(ECHO, endless(), timeout=timedelta(0))) as answers:
        async for _ in answers:
            break

    await asyncio.wait_for(numbers.left.wait(), 10)


@pytest.mark.parametrize(
    "make", [lambda t, r, s: t.collect(SUM, r, timeout=s), lambda t, r, s: drained(t.duplex(ECHO, r, timeout=s))]
)
async def test_a_stream_ends_at_its_deadline(transport: Transport, make: Callable[..., object]) -> None:
    async def endless() -> AsyncIterator[Int64Value]:
        yield Int64Value(value=1)
        await asyncio.Event().wait()

    with pytest.raises(DeadlineExceeded) as caught:
        await make(transport, endless(), timedelta(milliseconds=200))

    assert caught.value.request_id


async def test_cancelling_the_caller_cancels_the_call(transport: Transport, numbers: Numbers) -> None:
    async def endless() -> AsyncIterator[Int64Value]:
        yield Int64Value(value=1)
        await asyncio.Event().wait()

    call = asyncio.ensure_future(drained(transport.duplex(ECHO, endless(), timeout=timedelta(0))))
    while not numbers.calls:
        await asyncio.sleep(0.01)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(numbers.left.wait(), 10)


async def test_nothing_is_taken_of_requests_that_cannot_be_sent() -> None:
    taken = []

    async def made() -> AsyncIterator[Int64Value]:
        taken.append(1)
        yield Int64Value(value=1)

    transport = Transport("127.0.0.1:1", connect_timeout=timedelta(milliseconds=100))
    with pytest.raises(Unavailable):
        await transport.collect(SUM, made())

    assert taken == []
    await transport.close()


async def test_a_sidecar_is_told_of_streams(numbers: Numbers, address: str) -> None:
    transport = Transport(address, app_ids={"numbers": "numbers-grpc"})

    await transport.collect(SUM, counted(1))
    await drained(transport.duplex(ECHO, counted(1)))

    assert [metadata["dapr-stream"] for metadata in numbers.metadata] == ["true", "true"]
    await transport.close()


async def drained(answers: AsyncIterator[Int64Value]) -> list[int]:
    return [answer.value async for answer in answers]
