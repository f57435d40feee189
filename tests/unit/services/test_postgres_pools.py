"""Few connections shared by many: bounds, turns, and what happens to callers who leave."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from isa_common import ResourceExhausted
from services.adapters.postgres.pools import Place, Pools


class FakeConnection:
    """A connection that does nothing."""

    def __init__(self, place: Place, counter: Counter[str]) -> None:
        self.place = place
        self.counter = counter
        self.is_gone = False
        self.in_transaction = False
        self._protocol = self

    def is_closed(self) -> bool:
        return self.is_gone

    def is_in_transaction(self) -> bool:
        return self.in_transaction

    def _is_cancelling(self) -> bool:
        return False

    async def execute(self, sql: str) -> None:
        self.counter[sql] += 1
        self.in_transaction = False

    async def close(self, timeout: float) -> None:
        self.terminate()

    def terminate(self) -> None:
        if not self.is_gone:
            self.is_gone = True
            self.counter["open"] -= 1


def place(name: str) -> Place:
    return Place("main", name, name)


@pytest.fixture
def counter() -> Counter[str]:
    return Counter()


def pools(counter: Counter[str], *, each: int = 4, total: int = 6, queue: int = 256) -> Pools:
    async def connect(where: Place) -> FakeConnection:
        await asyncio.sleep(0)
        counter["open"] += 1
        counter["opened"] += 1
        counter["most"] = max(counter["most"], counter["open"])
        return FakeConnection(where, counter)

    return Pools(connect, each=each, total=total, idle=timedelta(seconds=60), queue=queue)


async def work(pools: Pools, name: str, ended: list[str], *, seconds: float = 0.001) -> None:
    async with pools.connection(place(name)) as connection:
        assert connection.place.database == name
        await asyncio.sleep(seconds)
    ended.append(name)


async def test_a_connection_is_used_again(counter: Counter[str]) -> None:
    shared, ended = pools(counter), []
    for _ in range(10):
        await work(shared, "a", ended)

    assert counter["opened"] == 1


async def test_one_place_opens_no_more_than_its_own(counter: Counter[str]) -> None:
    shared, ended = pools(counter), []
    await asyncio.gather(*(work(shared, "a", ended) for _ in range(50)))

    assert (counter["most"], len(ended)) == (4, 50)


async def test_all_places_together_stay_below_the_cap(counter: Counter[str]) -> None:
    shared, ended = pools(counter), []
    await asyncio.gather(*(work(shared, name, ended) for name in "abcdefgh" for _ in range(20)))
    await asyncio.sleep(0.05)

    assert counter["most"] <= 6 + 1  # one may be closing while its successor opens
    assert Counter(ended) == dict.fromkeys("abcdefgh", 20)


async def test_a_place_with_many_callers_does_not_starve_one_with_few(counter: Counter[str]) -> None:
    shared, ended = pools(counter, each=6), []
    crowd = [asyncio.create_task(work(shared, "crowd", ended, seconds=0.005)) for _ in range(120)]
    await asyncio.sleep(0.01)
    await asyncio.gather(*(work(shared, "few", ended, seconds=0.005) for _ in range(3)))

    assert ended.count("crowd") < 40
    await asyncio.gather(*crowd)


async def test_too_many_callers_are_told_to_come_back(counter: Counter[str]) -> None:
    shared, ended = pools(counter, each=1, queue=2), []
    waiting = [asyncio.create_task(work(shared, "a", ended, seconds=0.05)) for _ in range(3)]
    await asyncio.sleep(0.01)

    with pytest.raises(ResourceExhausted) as caught:
        await work(shared, "a", ended)

    assert caught.value.retry_after == timedelta(seconds=1)
    await asyncio.gather(*waiting)


async def test_a_caller_who_leaves_the_queue_costs_nobody_a_connection(counter: Counter[str]) -> None:
    shared, ended = pools(counter, each=1, total=1), []
    first = asyncio.create_task(work(shared, "a", ended, seconds=0.05))
    await asyncio.sleep(0.01)
    leavers = [asyncio.create_task(work(shared, name, ended)) for name in "ab"]
    await asyncio.sleep(0.01)
    for leaver in leavers:
        leaver.cancel()
    await asyncio.gather(*leavers, return_exceptions=True)
    await first

    await asyncio.wait_for(work(shared, "b", ended), 1)
    await asyncio.wait_for(work(shared, "a", ended), 1)
    assert ended == ["a", "b", "a"]


async def test_an_open_transaction_is_rolled_back_before_the_next_caller(counter: Counter[str]) -> None:
    shared = pools(counter, each=1)
    with pytest.raises(ValueError, match="mine"):
        async with shared.connection(place("a")) as connection:
            connection.in_transaction = True
            raise ValueError("mine")

    async with shared.connection(place("a")) as connection:
        assert not connection.in_transaction
    assert counter["ROLLBACK"] == 1


async def test_a_broken_connection_is_replaced(counter: Counter[str]) -> None:
    shared, ended = pools(counter, each=1), []
    async with shared.connection(place("a")) as connection:
        connection.terminate()

    await work(shared, "a", ended)
    assert counter["opened"] == 2


async def test_a_place_that_cannot_be_reached_leaves_room_for_others() -> None:
    async def connect(where: Place) -> FakeConnection:
        if where.database == "broken":
            raise OSError
        return FakeConnection(where, Counter())

    shared, ended = Pools(connect, each=2, total=2, idle=timedelta(seconds=60)), []
    for _ in range(5):
        with pytest.raises(OSError):
            await work(shared, "broken", ended)

    await work(shared, "fine", ended)
    assert ended == ["fine"]
