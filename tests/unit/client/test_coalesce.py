"""Calls of one tick travel together, and nobody notices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest

from isa_common import IsaError, MessageTooLarge, NotFound, Unavailable
from isa_common._coalesce import Coalescer


class Wire:
    """Answers with the square, and remembers what was sent together."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: Exception | None = None

    async def one(self, number: int, timeout: timedelta | None) -> int:
        self.sent.append(number)
        return number * number

    async def many(self, numbers: list[int], timeout: timedelta | None) -> Sequence[int | IsaError]:
        self.sent.append((numbers, timeout))
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        return [NotFound("No such number.") if number == 13 else number * number for number in numbers]


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def call(wire: Wire) -> Coalescer[int, int]:
    return Coalescer(wire.one, wire.many, most=4)


async def test_a_lonely_call_goes_out_as_it_is(wire: Wire, call: Coalescer[int, int]) -> None:
    assert await call(3) == 9
    assert await call(4) == 16
    assert wire.sent == [3, 4]


async def test_calls_of_one_tick_are_one_batch_in_their_order(wire: Wire, call: Coalescer[int, int]) -> None:
    assert await asyncio.gather(*(call(number) for number in range(4))) == [0, 1, 4, 9]
    assert wire.sent == [([0, 1, 2, 3], None)]


async def test_many_calls_are_cut_into_chunks(wire: Wire, call: Coalescer[int, int]) -> None:
    assert await asyncio.gather(*(call(number) for number in range(9))) == [number * number for number in range(9)]
    assert [sent[0] if isinstance(sent, tuple) else sent for sent in wire.sent] == [[0, 1, 2, 3], [4, 5, 6, 7], 8]


async def test_what_fails_in_a_batch_fails_for_its_own_call(call: Coalescer[int, int]) -> None:
    first, second, third = await asyncio.gather(call(2), call(13), call(3), return_exceptions=True)

    assert (first, third) == (4, 9)
    assert isinstance(second, NotFound)


async def test_a_batch_that_fails_fails_for_each_with_an_error_of_its_own(
    wire: Wire, call: Coalescer[int, int]
) -> None:
    wire.failure = Unavailable("Gone.", retry_after=timedelta(seconds=1))
    wire.failure.request_id = "request-1"

    first, second = await asyncio.gather(call(1), call(2), return_exceptions=True)

    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert first is not second
    assert (first.message, first.retry_after, first.request_id) == ("Gone.", timedelta(seconds=1), "request-1")


async def test_who_goes_away_takes_nobody_along(wire: Wire, call: Coalescer[int, int]) -> None:
    wire.gate.clear()
    calls = [asyncio.ensure_future(call(number)) for number in range(3)]
    while not wire.sent:
        await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.wait({calls[1]})
    wire.gate.set()

    assert await asyncio.gather(calls[0], calls[2]) == [0, 4]
    assert calls[1].cancelled()


async def test_who_left_before_the_tick_is_not_sent(wire: Wire, call: Coalescer[int, int]) -> None:
    async def leave() -> int:
        return await call(1)

    left = asyncio.ensure_future(leave())
    stayed = asyncio.ensure_future(call(5))
    asyncio.get_running_loop().call_soon(left.cancel)

    assert await stayed == 25
    assert wire.sent == [5]


async def test_calls_of_different_deadlines_do_not_share_a_batch(wire: Wire, call: Coalescer[int, int]) -> None:
    short, long = timedelta(seconds=1), timedelta(seconds=9)

    await asyncio.gather(call(1, short), call(2, long), call(3, short), call(4, long))

    assert wire.sent == [([1, 3], short), ([2, 4], long)]


async def test_a_batch_that_is_too_large_goes_out_in_parts(wire: Wire) -> None:
    async def many(numbers: list[int], timeout: timedelta | None) -> Sequence[int | IsaError]:
        if sum(numbers) > 10:
            raise MessageTooLarge("No.")
        return await wire.many(numbers, timeout)

    call = Coalescer(wire.one, many)
    answers = await asyncio.gather(*(call(number) for number in (4, 5, 6, 11)), return_exceptions=True)

    assert answers[:3] == [16, 25, 36]
    assert isinstance(answers[3], MessageTooLarge)
