"""Typed values and rate limits on `isa.cache`."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from isa_common import Allowance, Isa, ResourceExhausted
from isa_common._typed import Codec
from isa_common.caching import CacheManager
from isa_common.limits import Algorithm, RateLimiter
from tests.conformance.conftest import Engines, FakeParts, Secrets, serving


class Light(Enum):
    """How much of it."""

    SHADE = "shade"
    SUN = "sun"


@dataclass(frozen=True)
class Plant:
    """What is cached."""

    name: str
    height: Decimal
    light: Light
    planted: datetime
    tags: frozenset[str] = frozenset()
    picture: bytes = b""


class Leaf(BaseModel):
    """The same as a model."""

    name: str
    parent: Leaf | None = None
    sizes: dict[int, float] = {}


FERN = Plant("fern", Decimal("0.350"), Light.SHADE, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), frozenset({"é"}))


@pytest_asyncio.fixture
async def address(engines: Engines) -> AsyncIterator[str]:
    """A Redis adapter on the engine under test."""
    from services.adapters.redis.app import Settings, create_app

    host, _, port = engines.address("redis").rpartition(":")
    parts = FakeParts(Secrets(engines.secrets))
    async with serving(create_app(Settings(host=host, port=int(port)), parts)) as address:
        yield address


@pytest.fixture
def isa(as_person: Callable[..., Isa]) -> Isa:
    """A client of a fresh organisation."""
    return as_person(f"org-{uuid.uuid4().hex[:16]}")


@pytest.fixture
def plants(isa: Isa) -> CacheManager[Plant]:
    return CacheManager(isa.cache, Plant, prefix="plants:", compress_above=512)


class Source:
    """Where values come from, and how often they were asked for."""

    def __init__(self, value: Plant | None = FERN) -> None:
        self.value = value
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Plant | None:
        self.asked += 1
        await self.gate.wait()
        return self.value


@pytest.mark.ac("platform:R5.2", "platform:R5.6")
@pytest.mark.parametrize("picture", [b"\x00\xff", b"leaf" * 10_000])
async def test_a_value_comes_back_as_it_was(isa: Isa, plants: CacheManager[Plant], picture: bytes) -> None:
    plant = Plant(FERN.name, FERN.height, FERN.light, FERN.planted, FERN.tags, picture)

    await plants.set("fern", plant, ttl=timedelta(minutes=1))

    assert await plants.get("fern") == plant
    assert len(await isa.cache.get("plants:fern")) < 1000
    assert timedelta(0) < await isa.cache.ttl("plants:fern") <= timedelta(minutes=1)
    assert await plants.get("none") is None
    assert await plants.delete("fern", "none") == 1
    assert await plants.get("fern", 7) == 7


async def test_many_values_go_and_come_together(plants: CacheManager[Plant]) -> None:
    await plants.set_many({"a": FERN, "b": FERN})

    assert await plants.get_many(["a", "b", "c"]) == {"a": FERN, "b": FERN}


@pytest.mark.ac("platform:R5.5")
async def test_a_value_that_is_missed_is_loaded_once_and_kept(plants: CacheManager[Plant]) -> None:
    source = Source()

    assert await plants.get_or_load("fern", source) == FERN
    assert await plants.get_or_load("fern", source) == FERN

    assert source.asked == 1


async def test_all_who_miss_a_value_wait_for_one_who_loads_it(isa: Isa) -> None:
    source = Source()
    source.gate.clear()
    processes = [CacheManager(isa.cache, Plant, prefix="plants:") for _ in range(3)]

    waiting = [asyncio.ensure_future(each.get_or_load("fern", source)) for each in processes for _ in range(20)]
    while not source.asked:
        await asyncio.sleep(0.01)
    waiting[0].cancel()
    source.gate.set()

    assert await asyncio.gather(*waiting[1:]) == [FERN] * 59
    assert source.asked == 1


async def test_who_waits_too_long_loads_it_alone(isa: Isa, plants: CacheManager[Plant]) -> None:
    slow, quick = Source(), Source()
    slow.gate.clear()
    first = asyncio.ensure_future(plants.get_or_load("fern", slow))
    while not slow.asked:
        await asyncio.sleep(0.01)
    impatient = CacheManager(isa.cache, Plant, prefix="plants:", load_within=timedelta(milliseconds=50))

    assert await impatient.get_or_load("fern", quick) == FERN

    slow.gate.set()
    assert await first == FERN


async def test_that_there_is_nothing_is_remembered_where_that_is_wanted(isa: Isa) -> None:
    forgetful, mindful = Source(None), Source(None)
    remembers = CacheManager(isa.cache, Plant, prefix="b:", absent_ttl=timedelta(minutes=1))

    for _ in range(2):
        assert await CacheManager(isa.cache, Plant, prefix="a:").get_or_load("x", forgetful) is None
        assert await remembers.get_or_load("x", mindful) is None

    assert (forgetful.asked, mindful.asked) == (2, 1)
    assert await remembers.get("x") is None
    assert await remembers.get_many(["x"]) == {}


async def test_an_error_of_the_source_is_told_to_all_and_not_kept(plants: CacheManager[Plant]) -> None:
    async def fail() -> Plant:
        raise ValueError("no")

    ended = await asyncio.gather(*(plants.get_or_load("fern", fail) for _ in range(5)), return_exceptions=True)

    assert all(isinstance(each, ValueError) for each in ended)
    assert await plants.get_or_load("fern", Source()) == FERN


@pytest.mark.parametrize("stored", [b"", b"?", b"\x00{", b"\x01{", b"\x00\x81\xa4name\xa1x"])
async def test_what_cannot_be_read_is_loaded_anew(isa: Isa, plants: CacheManager[Plant], stored: bytes) -> None:
    await isa.cache.set("plants:fern", stored)

    assert await plants.get("fern") is None
    assert await plants.get_or_load("fern", Source()) == FERN
    assert await plants.get("fern") == FERN


async def test_without_a_cache_values_are_loaded() -> None:
    async with Isa("127.0.0.1:1", connect_timeout=timedelta(milliseconds=20)) as isa:
        source = Source()
        assert await CacheManager(isa.cache, Plant, prefix="plants:").get_or_load("fern", source) == FERN
        assert source.asked == 1


values = st.builds(
    Plant,
    st.text(),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from(Light),
    st.datetimes(timezones=st.just(UTC)),
    st.frozensets(st.text()),
    st.binary(),
)
leaves = st.recursive(
    st.builds(
        Leaf, name=st.text(), sizes=st.dictionaries(st.integers(), st.floats(allow_nan=False, allow_infinity=False))
    ),
    lambda inner: st.builds(Leaf, name=st.text(), parent=inner),
    max_leaves=4,
)


@pytest.mark.ac("platform:R5.6", "platform:R3.6")
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(values, leaves)
def test_every_value_survives_the_round_trip(plant: Plant, leaf: Leaf) -> None:
    codec = Codec(Plant)
    assert codec.decode(codec.encode(plant)) == plant
    for form in ("msgpack", "json"):
        leaf_codec = Codec(Leaf, form)
        assert leaf_codec.decode(leaf_codec.encode(leaf)) == leaf


# Rate limits


@pytest.mark.ac("platform:R11.4", "platform:R11.1", "platform:R5.3")
@pytest.mark.parametrize("algorithm", Algorithm)
async def test_a_limit_lets_so_many_pass(isa: Isa, algorithm: Algorithm) -> None:
    limiter = RateLimiter(isa.cache, "login", 3, window=timedelta(minutes=1), algorithm=algorithm)

    passed = [(await limiter.count("user-1")).allowed for _ in range(5)]

    assert passed == [True, True, True, False, False]
    with pytest.raises(ResourceExhausted) as caught:
        await limiter.require("user-1")
    assert timedelta(0) < caught.value.retry_after <= timedelta(seconds=61)


@pytest.mark.ac("platform:R11.3", "platform:R11.6", "platform:R11.5")
async def test_users_addresses_and_routes_are_counted_apart_and_instances_together(isa: Isa) -> None:
    told: list[tuple[str, Allowance]] = []
    instances = [
        RateLimiter(isa.cache, "api", 1, window=timedelta(minutes=1), observe=lambda *seen: told.append(seen))
        for _ in range(2)
    ]

    await instances[0].require("user-1", "GET /v1/tasks")
    await instances[1].require("user-2", "GET /v1/tasks")
    await instances[0].require("10.0.0.1")
    with pytest.raises(ResourceExhausted):
        await instances[1].require("user-1", "GET /v1/tasks")

    assert [allowance.allowed for _, allowance in told] == [True, True, True, False]


async def test_subjects_cannot_be_made_to_meet(isa: Isa) -> None:
    limiter = RateLimiter(isa.cache, "api", 1, window=timedelta(minutes=1))

    await limiter.require("a:b", "c")

    await limiter.require("a", "b:c")
    await limiter.require("a%3Ab", "c")


async def test_who_can_wait_is_let_through(isa: Isa) -> None:
    limiter = RateLimiter(isa.cache, "slow", 1, window=timedelta(milliseconds=200), algorithm=Algorithm.TOKEN_BUCKET)

    async with asyncio.timeout(10):
        for _ in range(3):
            assert (await limiter.wait()).allowed
