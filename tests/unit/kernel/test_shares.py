"""What an organisation may use at once: open calls, streams, items a second and stored bytes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest
from prometheus_client import REGISTRY

from isa_common import ResourceExhausted
from kernel import shares as module
from kernel.call import CURRENT, Call, Rule
from kernel.caller import Caller
from kernel.shares import UNHINDERED, Limits, Shares

ALICE = Caller(org="org-a", user="user-alice")
BOB = Caller(org="org-b", user="user-bob")


@dataclass
class Clock:
    """Time that a test moves."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


class Engine:
    """Holds bytes of organisations, and counts who asks."""

    def __init__(self, held: int = 0) -> None:
        self.held = held
        self.asked = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failure: Exception | None = None

    async def stored(self, _org: str) -> int:
        self.asked += 1
        held = self.held
        await self.may_answer.wait()
        if self.failure:
            raise self.failure
        return held


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, engine: Engine | None = None, **limits: float) -> Shares:
    shares = Shares(Limits(**{"calls": 2, "streams": 1, "rate": 10, "burst": 20, "bytes": 100, **limits}), clock=clock)
    shares.stored = engine.stored if engine else None
    return shares


def call(*, is_stream: bool = False) -> Call:
    rule = Rule(permission="cache.write")
    return Call(name="isa.cache.v1.Cache/Set", rule=rule, metadata={}, transport="grpc", is_stream=is_stream)


def refusal(error: pytest.ExceptionInfo[ResourceExhausted]) -> tuple[str, str]:
    return error.value.details["share"], error.value.details["limit"]


async def test_as_many_calls_are_open_as_the_share_has(clock: Clock) -> None:
    shares = make(clock)
    first = await shares.enter(ALICE)
    await shares.enter(ALICE)

    with pytest.raises(ResourceExhausted) as refused:
        await shares.enter(ALICE)
    assert refusal(refused) == ("calls", "2")
    assert refused.value.retry_after

    assert first is not None
    shares.leave(first, call(), is_error=False)
    assert await shares.enter(ALICE) is first


async def test_a_neighbour_has_a_share_of_its_own(clock: Clock) -> None:
    shares = make(clock, calls=1)
    await shares.enter(ALICE)

    assert await shares.enter(BOB) is not None


async def test_streams_take_no_place_of_calls(clock: Clock) -> None:
    shares = make(clock)
    await shares.enter(ALICE, is_stream=True)

    with pytest.raises(ResourceExhausted) as refused:
        await shares.enter(ALICE, is_stream=True)
    assert refusal(refused) == ("streams", "1")
    assert await shares.enter(ALICE) is not None


async def test_over_its_rate_an_organisation_is_told_when_to_come_back(clock: Clock) -> None:
    shares = make(clock, calls=1000)
    for _ in range(20):
        await shares.enter(ALICE)

    with pytest.raises(ResourceExhausted) as refused:
        await shares.enter(ALICE)
    assert refusal(refused) == ("rate", "10")
    assert refused.value.retry_after == timedelta(milliseconds=101)

    clock.now += 0.101
    assert await shares.enter(ALICE) is not None


async def test_a_batch_costs_as_much_as_its_items(clock: Clock) -> None:
    shares = make(clock)
    await shares.enter(ALICE)
    shares.spend(ALICE, 14)

    with pytest.raises(ResourceExhausted) as refused:
        shares.spend(ALICE, 9)
    assert refused.value.retry_after == timedelta(milliseconds=401)
    shares.spend(ALICE, 5)
    assert shares.account("org-a").items == 20


def test_a_batch_beyond_the_burst_is_let_in_after_a_rest_and_leaves_a_debt(clock: Clock) -> None:
    shares = make(clock)

    shares.spend(ALICE, 50)

    clock.now += 3.0
    with pytest.raises(ResourceExhausted):
        shares.spend(ALICE, 1)
    clock.now += 0.2
    shares.spend(ALICE, 1)


async def test_who_has_no_organisation_has_no_share(clock: Clock) -> None:
    shares, workload = make(clock), Caller(workload="tasks")

    for _ in range(1000):
        assert await shares.enter(workload) is None
        shares.spend(workload, 1000)


async def test_bytes_are_those_measured_and_those_let_in_since(clock: Clock) -> None:
    engine = Engine(held=50)
    shares = make(clock, engine)

    await shares.room(ALICE, 30)
    engine.held = 80
    with pytest.raises(ResourceExhausted) as refused:
        await shares.room(ALICE, 30)
    assert refusal(refused) == ("bytes", "100")
    assert refused.value.retry_after is None
    await shares.room(ALICE, 20)
    engine.held = 100
    with pytest.raises(ResourceExhausted):
        await shares.room(ALICE, 1)


async def test_what_an_open_call_will_write_counts_until_it_has_ended_and_was_measured(clock: Clock) -> None:
    engine = Engine()
    shares, upload = make(clock, engine), call(is_stream=True)
    account = await shares.enter(ALICE, is_stream=True)
    assert account is not None
    token = CURRENT.set(upload)
    await shares.room(ALICE, 40)
    await shares.room(ALICE, 40)
    CURRENT.reset(token)

    with pytest.raises(ResourceExhausted):  # measured anew, and not there yet
        await shares.room(ALICE, 30)

    shares.leave(account, upload, is_error=True)
    assert account.estimate == 80
    await shares.room(ALICE, 30)


async def test_what_was_deleted_is_seen_before_anybody_is_refused(clock: Clock) -> None:
    engine = Engine(held=100)
    shares = make(clock, engine)
    with pytest.raises(ResourceExhausted):
        await shares.room(ALICE, 10)

    engine.held = 0
    await shares.room(ALICE, 10)


async def test_the_engine_is_asked_seldom_and_once_for_all_who_wait(clock: Clock) -> None:
    engine = Engine()
    shares = make(clock, engine)
    engine.may_answer.clear()
    waiting = [asyncio.create_task(shares.room(ALICE, 1)) for _ in range(20)]
    await asyncio.sleep(0)
    engine.may_answer.set()
    await asyncio.gather(*waiting)
    first = engine.asked
    assert first <= 2

    for _ in range(20):
        await shares.room(ALICE, 1)
    assert engine.asked == first

    clock.now += module.FRESH + 1
    await shares.room(ALICE, 1)
    await shares.room(ALICE, 1)
    assert shares.account("org-a").measuring is not None
    await shares.account("org-a").measuring
    assert engine.asked == first + 1


async def test_a_measurement_that_fails_in_the_background_refuses_nobody(clock: Clock) -> None:
    engine = Engine(held=10)
    shares = make(clock, engine)
    await shares.room(ALICE, 1)
    engine.failure = OSError("away")
    clock.now += module.FRESH + 1

    await shares.room(ALICE, 1)
    task = shares.account("org-a").measuring
    assert task is not None
    await asyncio.wait([task])

    await shares.room(ALICE, 1)
    with pytest.raises(OSError, match="away"):
        await shares.room(ALICE, 1000)


async def test_usage_tells_what_was_called_refused_and_stored(clock: Clock) -> None:
    shares = make(clock, Engine(held=7), calls=1)
    account = await shares.enter(ALICE)
    assert account is not None
    with pytest.raises(ResourceExhausted):
        await shares.enter(ALICE)
    shares.leave(account, call(), is_error=True)

    assert (account.calls, account.errors, account.items, account.refused) == (1, 1, 1, {"calls": 1})
    assert await shares.stored_by("org-a") == 7
    assert await make(clock).stored_by("org-a") is None


async def test_refusals_are_counted_without_naming_anybody(clock: Clock) -> None:
    shares = make(clock, calls=1)
    before = REGISTRY.get_sample_value("isa_share_refused_total", {"share": "calls"}) or 0.0
    await shares.enter(ALICE)

    with pytest.raises(ResourceExhausted):
        await shares.enter(ALICE)

    assert REGISTRY.get_sample_value("isa_share_refused_total", {"share": "calls"}) == before + 1


async def test_idle_organisations_are_forgotten_and_busy_ones_are_not(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 3)
    shares = make(clock)
    busy = await shares.enter(Caller(org="org-busy"))
    idle = shares.account("org-idle")

    for number in range(5):
        shares.account(f"org-{number}")

    assert shares.account("org-busy") is busy
    assert shares.account("org-idle") is not idle


async def test_who_calls_now_and_then_does_not_stand_behind_a_crowd(clock: Clock) -> None:
    shares = make(clock, calls=1000, rate=1e6, burst=1e6)
    entered: list[str] = []

    async def call_as(caller: Caller) -> None:
        await shares.enter(caller)
        entered.append(caller.org)

    for _ in range(UNHINDERED):
        await shares.enter(ALICE)
    crowd = [asyncio.create_task(call_as(ALICE)) for _ in range(100)]
    await asyncio.sleep(0)
    alone = asyncio.create_task(call_as(BOB))
    await asyncio.gather(alone, *crowd)

    assert entered.index("org-b") < 3
    assert len(entered) == 101


async def test_two_crowds_take_turns(clock: Clock) -> None:
    shares = make(clock, calls=1000, rate=1e6, burst=1e6)
    entered: list[str] = []

    async def call_as(caller: Caller) -> None:
        await shares.enter(caller)
        entered.append(caller.org)

    for caller in (ALICE, BOB):
        for _ in range(UNHINDERED):
            await shares.enter(caller)
    crowds = [asyncio.create_task(call_as(caller)) for caller in (ALICE, BOB) for _ in range(20)]
    await asyncio.gather(*crowds)

    assert entered == ["org-a", "org-b"] * 20


async def test_who_leaves_while_waiting_holds_nobody_up(clock: Clock) -> None:
    shares = make(clock, calls=1000, rate=1e6, burst=1e6)
    for _ in range(UNHINDERED):
        await shares.enter(ALICE)
    waiting = [asyncio.create_task(shares.enter(ALICE)) for _ in range(10)]
    await asyncio.sleep(0)

    for task in waiting[:9]:
        task.cancel()
    await asyncio.wait(waiting)

    assert shares.account("org-a").open_calls == UNHINDERED + 1
