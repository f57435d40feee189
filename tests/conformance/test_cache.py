"""What `isa.cache.v1` promises, in memory and on the real engine."""

from __future__ import annotations

import asyncio
import json
import math
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from isa.cache.v1 import cache_pb2
from isa_common import (
    Aborted,
    Algorithm,
    AlreadyExists,
    Cache,
    FailedPrecondition,
    InvalidArgument,
    Isa,
    IsaError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unavailable,
)
from kernel.caller import Caller
from kernel.shares import Limits, Shares
from tests.conformance.conftest import Clients, Engines, FakeParts, Secrets, person, serving

AsPerson = Callable[..., Isa]


@pytest_asyncio.fixture
async def address(engines: Engines, swept: None) -> AsyncIterator[str]:
    """A Redis adapter on the engine under test."""
    async with serving(adapter(engines)) as address:
        yield address


@pytest_asyncio.fixture
async def swept(raw: Raw) -> AsyncIterator[None]:
    """Nothing of the test's organisations stays on the engine."""
    _orgs.clear()
    yield
    await raw.sweep(_orgs)


_orgs: list[str] = []


def adapter(engines: Engines, shares: Shares | None = None) -> Any:
    """An adapter of its own."""
    from services.adapters.redis.app import Settings, create_app

    host, _, port = engines.address("redis").rpartition(":")
    parts = FakeParts(Secrets(engines.secrets))
    if shares is not None:
        parts.shares = shares
    return create_app(Settings(host=host, port=int(port)), parts)


def fresh_org() -> str:
    _orgs.append(f"org-{uuid.uuid4().hex[:16]}")
    return _orgs[-1]


@pytest.fixture
def isa(as_person: AsPerson) -> Isa:
    """A client of a fresh organisation."""
    return as_person(fresh_org())


@pytest.fixture
def cache(isa: Isa) -> Cache:
    """The cache of a fresh organisation's user."""
    return isa.cache


async def gone(cache: Cache, key: str) -> None:
    """Return when a key is gone."""
    async with asyncio.timeout(10):
        while await cache.exists(key):
            await asyncio.sleep(0.02)


@dataclass
class Raw:
    """Redis itself, past the adapter."""

    redis: Any

    async def __call__(self, *words: str | bytes | int) -> Any:
        return await self.redis.execute(*words)

    async def sweep(self, orgs: Iterable[str]) -> None:
        """Delete whatever names of these organisations there are."""
        cursor = b"0"
        while True:
            cursor, names = await self("SCAN", cursor, "MATCH", "*org-*", "COUNT", 1000)
            if found := [name for name in names if any(org.encode() in name for org in orgs)]:
                await self("UNLINK", *found)
            if cursor == b"0":
                return


@pytest_asyncio.fixture
async def raw(engines: Engines) -> AsyncIterator[Raw]:
    """The engine under test."""
    from services.adapters.redis.connection import Redis

    host, _, port = engines.address("redis").rpartition(":")

    async def password() -> str:
        return engines.secrets["redis-password"]

    redis = Redis(host, int(port), name="test", password=password, timeout=timedelta(seconds=5))
    await redis.start()
    yield Raw(redis)
    await redis.stop()


# Values


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.1", "isa-cloud-prd:E1-US1:AC-1.2")
@pytest.mark.parametrize("value", [b"v", b"", b"\x00\xff\r\n$5", "naïve 😀".encode(), b"x" * (8 << 20)])
async def test_what_is_set_is_got(cache: Cache, value: bytes) -> None:
    await cache.set("k", value)

    assert await cache.get("k") == value


async def test_text_is_stored_as_utf8_and_read_as_bytes(cache: Cache) -> None:
    await cache.set("k", "naïve 😀")

    assert (await cache.get("k")).decode() == "naïve 😀"


@pytest.mark.parametrize("key", ["k", "a:b::c", "*", "[x]?\\", "ключ", "e\u0301", "\u00e9", "line\nbreak", "x" * 512])
async def test_a_key_may_have_any_character_but_nul(cache: Cache, key: str) -> None:
    await cache.set(key, b"1")

    assert await cache.get(key) == b"1"
    assert [each async for each in cache.scan()] == [key]


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.3")
async def test_a_key_is_gone_after_its_time_to_live(cache: Cache) -> None:
    await cache.set("k", b"v", ttl=timedelta(milliseconds=60))
    assert await cache.get("k") == b"v"
    left = await cache.ttl("k")
    assert left is not None and timedelta(0) <= left <= timedelta(milliseconds=60)

    await gone(cache, "k")

    with pytest.raises(NotFound):
        await cache.get("k")


async def test_a_set_without_a_time_to_live_takes_it_away(cache: Cache) -> None:
    await cache.set("k", b"v", ttl=60)
    await cache.set("k", b"w")

    assert await cache.ttl("k") is None


async def test_a_time_to_live_is_given_and_taken(cache: Cache) -> None:
    await cache.set("k", b"v")

    await cache.expire("k", 60)
    left = await cache.ttl("k")
    await cache.persist("k")
    await cache.persist("k")

    assert left is not None and timedelta(seconds=50) < left <= timedelta(seconds=60)
    assert await cache.ttl("k") is None
    for call in (cache.expire("none", 1), cache.persist("none"), cache.ttl("none")):
        with pytest.raises(NotFound):
            await call


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.4")
async def test_a_missing_key_is_not_found(cache: Cache) -> None:
    with pytest.raises(NotFound) as caught:
        await cache.get("none")

    assert caught.value.details["key"] == "none"
    assert await cache.get("none", None) is None
    assert await cache.get("none", "default") == "default"


async def test_deleting_and_existing(cache: Cache) -> None:
    await cache.set("k", b"v")
    await cache.sadd("s", "a")

    assert [await cache.exists("k"), await cache.exists("s"), await cache.exists("none")] == [True, True, False]
    assert [await cache.delete("k"), await cache.delete("k"), await cache.delete("s")] == [True, False, True]
    assert not await cache.exists("k")


async def test_a_value_is_set_only_if_absent(cache: Cache) -> None:
    await cache.set("k", b"first", if_absent=True, ttl=60)

    with pytest.raises(AlreadyExists):
        await cache.set("k", b"second", if_absent=True)

    assert await cache.get("k") == b"first"
    assert await cache.ttl("k") is not None


async def test_a_value_is_set_only_if_nobody_changed_it(cache: Cache) -> None:
    await cache.set("k", b"1")
    seen = await cache.get_versioned("k")

    await cache.set("k", b"2", if_version=seen.version, ttl=60)
    with pytest.raises(PreconditionFailed) as caught:
        await cache.set("k", b"3", if_version=seen.version)
    with pytest.raises(PreconditionFailed):
        await cache.set("none", b"3", if_version=seen.version)

    assert caught.value.field == "if_version"
    assert await cache.get("k") == b"2"
    assert await cache.ttl("k") is not None


async def test_of_many_who_change_a_value_at_once_each_change_counts(cache: Cache) -> None:
    await cache.set("n", b"0")

    async def add() -> None:
        while True:
            seen = await cache.get_versioned("n")
            with suppress(PreconditionFailed):
                await cache.set("n", str(int(seen.value) + 1), if_version=seen.version)
                return

    await asyncio.gather(*(add() for _ in range(8)))

    assert await cache.get("n") == b"8"


async def test_a_counter_counts(cache: Cache) -> None:
    assert await cache.incr("n") == 1
    assert await cache.incr("n", 41) == 42
    assert await cache.incr("n", -2) == 40
    assert await cache.incr("n", 0) == 40
    assert await cache.get("n") == b"40"
    assert sum(await asyncio.gather(*(cache.incr("m") for _ in range(50)))) == sum(range(1, 51))


@pytest.mark.parametrize("value", [b"text", b"1.5", str(2**63 - 1).encode(), b" 1", b""])
async def test_only_an_integer_counts(cache: Cache, value: bytes) -> None:
    await cache.set("n", value)

    with pytest.raises(FailedPrecondition):
        await cache.incr("n")

    assert await cache.get("n") == value


async def test_a_key_of_another_kind_is_refused_and_kept(cache: Cache) -> None:
    await cache.set("v", b"1")
    await cache.rpush("l", "a")

    for call in (
        cache.hset("v", {"a": b"1"}), cache.hget("v", "a"), cache.hget_all("l"), cache.hdel("v", "a"),
        cache.hincr_by("v", "a"), cache.lpush("v", "a"), cache.rpop("v"), cache.lrange("v"), cache.llen("v"),
        cache.ltrim("v", 0, 1), cache.sadd("v", "a"), cache.srem("l", "a"), cache.smembers("v"),
        cache.scontains("v", "a"), cache.zadd("v", {"a": 1}), cache.zrem("v", "a"), cache.zrange("v"),
        cache.zrange_by_score("v"), cache.zscore("l", "a"), cache.zrank("v", "a"), cache.incr("l"),
        cache.set("l", b"1", if_version="0" * 40),
    ):  # fmt: skip
        with pytest.raises(FailedPrecondition):
            await call
    for get in (cache.get("l"), cache.get_versioned("l")):
        with pytest.raises(NotFound):
            await get

    assert await cache.get_many(["v", "l"]) == {"v": b"1"}
    assert await cache.lrange("l") == [b"a"]


# Many at a time


async def test_many_values_are_set_got_and_deleted(cache: Cache) -> None:
    values = {f"k{n}": f"v{n}".encode() for n in range(1500)}

    await cache.set_many(values, ttl=60)

    assert await cache.get_many([*values, "none", "k1"]) == values
    assert await cache.ttl("k7") is not None
    assert await cache.delete_many([*values, "none"]) == 1500
    assert await cache.get_many(values) == {}
    assert await cache.get_many([]) == {} and await cache.delete_many([]) == 0
    await cache.set_many({})


async def test_calls_of_one_moment_are_answered_each_for_itself(cache: Cache) -> None:
    await cache.set("k", b"v")
    await cache.rpush("l", "a")

    got = await asyncio.gather(
        cache.get("k"), cache.get("none"), cache.get("l"), cache.get(""), cache.get("k"), return_exceptions=True
    )
    done = await asyncio.gather(
        cache.set("a", b"1"), cache.set("", b"1"), cache.set("b", b"2", ttl=0), cache.set("c", b"3", ttl=5),
        return_exceptions=True,
    )  # fmt: skip
    deleted = await asyncio.gather(
        cache.delete("a"), cache.delete("none"), cache.delete("a\0"), cache.delete("c"), return_exceptions=True
    )
    others = await asyncio.gather(
        cache.incr("n"), cache.hset("h", {"f": b"1"}), cache.hget("h", "f"), cache.llen("n"), cache.incr("n", 4),
        cache.exists("n"), cache.exists("none"), cache.zscore("z", "a"), return_exceptions=True,
    )  # fmt: skip

    assert [got[0], got[4]] == [b"v", b"v"]
    assert [type(each) for each in got[1:4]] == [NotFound, NotFound, InvalidArgument]
    assert done[0] is None and done[3] is None
    assert [each.field for each in done[1:3]] == ["key", "ttl"]
    assert [deleted[0], deleted[1], deleted[3]] == [True, False, True]
    assert isinstance(deleted[2], InvalidArgument)
    assert [others[0], others[1], others[4], others[5], others[6]] == [1, 1, 5, True, False]
    assert isinstance(others[3], FailedPrecondition) and isinstance(others[7], NotFound)


async def test_the_items_of_a_batch_fail_each_for_itself(cache: Cache) -> None:
    transport, methods = cache._transport, _methods()
    await cache.set("there", b"1")
    await cache.rpush("list", "a")
    version = (await cache.get_versioned("there")).version

    stored = await transport.unary(
        methods["MSet"],
        cache_pb2.MSetRequest(
            entries=[
                cache_pb2.SetRequest(key="a", value=b"1"),
                cache_pb2.SetRequest(key="", value=b"1"),
                cache_pb2.SetRequest(key="there", value=b"2", if_absent=True),
                cache_pb2.SetRequest(key="there", value=b"3", if_version=version),
                cache_pb2.SetRequest(key="list", value=b"3", if_version=version),
                cache_pb2.SetRequest(key="b", value=b"x" * ((8 << 20) + 1)),
                cache_pb2.SetRequest(key="c", value=b"1", scope=cache_pb2.SCOPE_ORGANISATION),
            ]
        ),
    )
    read = await transport.unary(
        methods["MGet"], cache_pb2.MGetRequest(keys=["a", "\0", "there", "list", "none", "c", "x" * 513])
    )

    assert [(each.index, each.error.code) for each in stored.failures] == [(1, 3), (2, 6), (4, 9), (5, 3)]
    assert list(read.values) == [b"1", b"", b"3", b"", b"", b"", b""]
    assert list(read.absent) == [3, 4, 5]
    assert [(each.index, each.error.code) for each in read.failures] == [(1, 3), (6, 3)]
    assert await cache.organisation.get("c") == b"1"


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_has_one_to_a_thousand_items(cache: Cache, count: int) -> None:
    for method, request, field in (
        ("MGet", cache_pb2.MGetRequest(keys=["k"] * count), "keys"),
        ("MDelete", cache_pb2.MDeleteRequest(keys=["k"] * count), "keys"),
        ("MSet", cache_pb2.MSetRequest(entries=[cache_pb2.SetRequest(key="k")] * count), "entries"),
        ("Pipeline", cache_pb2.PipelineRequest(commands=[cache_pb2.Command()] * count), "commands"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await cache._transport.unary(_methods()[method], request)
        assert caught.value.field == field


async def test_commands_of_a_pipeline_run_in_their_order_and_fail_each_for_itself(cache: Cache) -> None:
    response = await cache._transport.unary(
        _methods()["Pipeline"],
        cache_pb2.PipelineRequest(
            commands=[
                cache_pb2.Command(set=cache_pb2.SetRequest(key="n", value=b"1")),
                cache_pb2.Command(incr=cache_pb2.IncrRequest(key="n", by=5)),
                cache_pb2.Command(get=cache_pb2.GetRequest(key="n")),
                cache_pb2.Command(set=cache_pb2.SetRequest(key="n", value=b"7", if_version="no")),
                cache_pb2.Command(delete=cache_pb2.DeleteRequest(key="n")),
                cache_pb2.Command(get=cache_pb2.GetRequest(key="n")),
                cache_pb2.Command(),
                cache_pb2.Command(
                    acquire_lock=cache_pb2.AcquireLockRequest(name="l", lease={"seconds": 5}, wait={"seconds": 1})
                ),
                cache_pb2.Command(limit=cache_pb2.LimitRequest(name="l", limit=1, window={"seconds": 5}, algorithm=2)),
            ]
        ),
    )

    kinds = [each.WhichOneof("outcome") for each in response.outcomes]
    assert kinds == ["set", "incr", "get", "error", "delete", "error", "error", "error", "limit"]
    assert response.outcomes[1].incr.value == 6
    assert response.outcomes[2].get.value == b"6"
    assert [each.error.code for each in response.outcomes if each.HasField("error")] == [9, 5, 3, 3]


async def test_a_pipeline_needs_the_permissions_of_all_its_commands(engines: Engines, swept: None) -> None:
    viewer = Caller(org=fresh_org(), user="user-1", roles=frozenset({"viewer"}))
    exists = cache_pb2.Command(exists=cache_pb2.ExistsRequest(key="k"))
    write = cache_pb2.Command(set=cache_pb2.SetRequest(key="k", value=b"v"))
    cache = adapter(engines).implementation
    await cache.start()

    read = await cache.pipeline(viewer, cache_pb2.PipelineRequest(commands=[exists]))
    with pytest.raises(PermissionDenied):
        await cache.pipeline(viewer, cache_pb2.PipelineRequest(commands=[exists, write]))

    assert not read.outcomes[0].exists.exists
    assert not (await cache.exists(viewer, exists.exists)).exists
    await cache.stop()


def _methods() -> dict[str, Any]:
    from isa_common._cache import _METHODS

    return _METHODS


async def test_values_that_do_not_fit_into_one_answer_come_in_several(cache: Cache) -> None:
    values = {f"k{n}": bytes([n]) * (3 << 20) for n in range(6)}
    await cache.set_many(values)

    assert await cache.get_many([*values, "none"]) == values
    assert await asyncio.gather(*(cache.get(key) for key in values)) == list(values.values())
    assert await asyncio.gather(*(cache.set(key, value) for key, value in values.items())) == [None] * 6
    fields = [bytes([n]) * (1 << 20) for n in range(13)]
    await asyncio.gather(*(cache.hset(f"h{n}", {"f": value}) for n, value in enumerate(fields)))
    assert await asyncio.gather(*(cache.hget(f"h{n}", "f") for n in range(13))) == fields
    await asyncio.gather(*(cache.rpush(f"l{n}", value) for n, value in enumerate(fields)))
    assert await asyncio.gather(*(cache.lpop(f"l{n}") for n in range(13))) == [[value] for value in fields]


# Hashes


@pytest.mark.ac(
    "isa-cloud-prd:E1-US3:AC-3.1", "isa-cloud-prd:E1-US3:AC-3.2", "isa-cloud-prd:E1-US3:AC-3.3",
    "isa-cloud-prd:E1-US3:AC-3.4",
)  # fmt: skip
async def test_fields_of_a_hash_are_set_got_and_removed(cache: Cache) -> None:
    assert await cache.hset("h", {"a": b"1", "ключ": "ü"}) == 2
    assert await cache.hset("h", {"a": b"2", "c": b""}) == 1

    assert await cache.hget("h", "a") == b"2"
    assert await cache.hget_all("h") == {"a": b"2", "ключ": "ü".encode(), "c": b""}
    assert await cache.hdel("h", "a", "none", "c") == 2
    with pytest.raises(NotFound):
        await cache.hget("h", "a")
    with pytest.raises(NotFound):
        await cache.hget("none", "a")
    assert await cache.hget_all("none") == {}
    assert await cache.hdel("h", "ключ") == 1
    assert not await cache.exists("h")


async def test_a_field_of_a_hash_counts(cache: Cache) -> None:
    assert await cache.hincr_by("h", "n", 5) == 5
    assert await cache.hincr_by("h", "n", -7) == -2
    await cache.hset("h", {"t": b"text"})
    with pytest.raises(FailedPrecondition):
        await cache.hincr_by("h", "t")


async def test_a_collection_that_does_not_fit_into_an_answer_is_refused(cache: Cache) -> None:
    for start in range(0, 11_000, 1000):
        members = [str(n) for n in range(start, start + 1000)]
        await asyncio.gather(
            cache.hset("h", dict.fromkeys(members, b"")), cache.sadd("s", *members), cache.rpush("l", *members),
            cache.zadd("z", dict.fromkeys(members, 0.0)),
        )  # fmt: skip
    for part in range(12):
        await cache.rpush("large", bytes([part]) * (1 << 20))

    for call in (cache.hget_all("h"), cache.smembers("s"), cache.lrange("l"), cache.zrange("z"), cache.lrange("large")):
        with pytest.raises(ResourceExhausted):
            await call

    assert len(await cache.lrange("l", 0, 9999)) == len(await cache.zrange("z", -10_000)) == 10_000
    assert len(await cache.lrange("l", 500_000, -1)) == 0
    assert len(await cache.lrange("large", 0, 6)) == 7
    assert [len(await cache.lpop("large", 5)), len(await cache.rpop("large", 2))] == [1, 1]


# Lists


async def test_a_list_is_pushed_and_popped_at_both_ends(cache: Cache) -> None:
    assert await cache.rpush("l", "c", "d") == 2
    assert await cache.lpush("l", "b", "a") == 4

    assert await cache.lrange("l") == [b"a", b"b", b"c", b"d"]
    assert await cache.lrange("l", 1, 2) == [b"b", b"c"]
    assert await cache.lrange("l", -2, -1) == [b"c", b"d"]
    assert await cache.lrange("l", 3, 1) == await cache.lrange("l", 9, 12) == await cache.lrange("none") == []
    assert await cache.llen("l") == 4
    assert await cache.lpop("l") == [b"a"]
    assert await cache.rpop("l", 2) == [b"d", b"c"]
    assert await cache.lpop("l", 9) == [b"b"]
    assert await cache.lpop("l") == await cache.rpop("none", 3) == []
    assert not await cache.exists("l")


async def test_a_list_is_trimmed(cache: Cache) -> None:
    await cache.rpush("l", *"abcdef")

    await cache.ltrim("l", 1, -2)
    assert await cache.lrange("l") == [b"b", b"c", b"d", b"e"]
    await cache.ltrim("l", 5, 9)

    assert await cache.llen("l") == 0


# Sets


async def test_a_set_has_members(cache: Cache) -> None:
    assert await cache.sadd("s", "a", "b", "a", b"\xff") == 3
    assert await cache.sadd("s", "b", "c") == 1

    assert await cache.smembers("s") == {b"a", b"b", b"c", b"\xff"}
    assert await cache.scontains("s", "a") and not await cache.scontains("s", "x")
    assert not await cache.scontains("none", "a")
    assert await cache.srem("s", "a", "x") == 1
    assert await cache.smembers("none") == frozenset()


async def test_a_sorted_set_has_members_by_score(cache: Cache) -> None:
    assert await cache.zadd("z", {"a": 1, "b": 2.5, "c": -3, "d": math.inf, "b2": 2.5}) == 5
    assert await cache.zadd("z", {"a": 4, "e": 0.1}) == 1

    ordered = [(b"c", -3), (b"e", 0.1), (b"b", 2.5), (b"b2", 2.5), (b"a", 4), (b"d", math.inf)]
    assert await cache.zrange("z") == ordered
    assert await cache.zrange("z", 1, 2) == ordered[1:3]
    assert await cache.zrange("z", 0, 1, reverse=True) == ordered[::-1][:2]
    assert await cache.zrange_by_score("z", 0, 4) == ordered[1:5]
    assert await cache.zrange_by_score("z", highest=2.5, reverse=True) == ordered[:4][::-1]
    assert await cache.zrange_by_score("z", offset=1, limit=2) == ordered[1:3]
    assert [await cache.zscore("z", "e"), await cache.zrank("z", "a")] == [0.1, 4]
    assert await cache.zrank("z", "a", reverse=True) == 1
    assert await cache.zrem("z", "a", "x") == 1
    for call in (cache.zscore("z", "a"), cache.zrank("z", "a"), cache.zscore("none", "a")):
        with pytest.raises(NotFound):
            await call


# Names


async def test_keys_are_scanned_by_prefix(cache: Cache) -> None:
    names = [f"user:{n}" for n in range(1200)]
    await cache.set_many(dict.fromkeys([*names, "use", "other", "user*", "*"], b""))
    await cache.sadd("user:set", "a")

    assert {key async for key in cache.scan("user:")} == {*names, "user:set"}
    assert [key async for key in cache.scan("user*")] == ["user*"]
    assert [key async for key in cache.scan("*")] == ["*"]
    assert len({key async for key in cache.scan()}) == 1205
    assert [key async for key in cache.scan("none")] == []


async def test_a_cursor_serves_only_its_own_scan(isa: Isa, as_person: AsPerson) -> None:
    await isa.cache.set_many({f"k{n}": b"" for n in range(1500)})
    scan, other = _methods()["Scan"], as_person(fresh_org())
    page = await isa.cache._transport.unary(scan, cache_pb2.ScanRequest(prefix="k"))
    assert page.next_cursor

    for client, request in (
        (isa, cache_pb2.ScanRequest(prefix="", cursor=page.next_cursor)),
        (isa, cache_pb2.ScanRequest(prefix="k", cursor=page.next_cursor, scope=cache_pb2.SCOPE_ORGANISATION)),
        (isa, cache_pb2.ScanRequest(prefix="k", cursor="garbage!")),
        (isa, cache_pb2.ScanRequest(prefix="k", cursor="MA==")),
        (other, cache_pb2.ScanRequest(prefix="k", cursor=page.next_cursor)),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await client.cache._transport.unary(scan, request)
        assert caught.value.field == "cursor"


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 513, "é" * 257])
async def test_a_bad_name_is_refused_everywhere(cache: Cache, name: str) -> None:
    for call in (
        cache.get(name), cache.set(name, b"v"), cache.delete(name), cache.exists(name), cache.expire(name, 1),
        cache.persist(name), cache.ttl(name), cache.incr(name), cache.hset(name, {"a": b""}), cache.hget(name, "a"),
        cache.hget_all(name), cache.hdel(name, "a"), cache.lpush(name, "a"), cache.lpop(name), cache.lrange(name),
        cache.llen(name), cache.ltrim(name, 0, 1), cache.sadd(name, "a"), cache.srem(name, "a"),
        cache.smembers(name), cache.zadd(name, {"a": 1}), cache.zrange(name), cache.zscore(name, "a"),
    ):  # fmt: skip
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field == "key"
    for batch in (cache.get_many(["a", name]), cache.delete_many(["a", name])):
        with pytest.raises(InvalidArgument) as caught:
            await batch
        assert caught.value.field == "keys[1]"
    for call in (cache.limit(name, 1, window=1), cache.lock(name, wait=0).__aenter__()):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field == "name"
    with pytest.raises(InvalidArgument) as caught:
        await cache.publish(name, b"")
    assert caught.value.field == "channel"
    with pytest.raises(InvalidArgument):
        await anext(cache.subscribe("a", name))
    with pytest.raises(InvalidArgument):
        await cache.hset("h", {name: b""})


async def test_what_is_too_large_or_out_of_range_is_told_by_its_field(cache: Cache) -> None:
    large = b"x" * ((1 << 20) + 1)
    for call, name in (
        (cache.set("k", b"x" * ((8 << 20) + 1)), "value"),
        (cache.set("k", b"", ttl=0), "ttl"),
        (cache.set("k", b"", ttl=-1), "ttl"),
        (cache.set("k", b"", ttl=timedelta(days=40_000)), "ttl"),
        (cache.expire("k", 0), "ttl"),
        (cache.hset("h", {"a": large}), "fields"),
        (cache.hset("h", {}), "fields"),
        (cache.hdel("h"), "fields"),
        (cache.rpush("l", large), "values"),
        (cache.rpush("l"), "values"),
        (cache.lpop("l", 1001), "count"),
        (cache.lpop("l", -1), "count"),
        (cache.sadd("s", large), "members"),
        (cache.sadd("s"), "members"),
        (cache.zadd("z", {"a": math.nan}), "members[0].score"),
        (cache.zrange_by_score("z", math.nan), "min"),
        (cache.zrange_by_score("z", limit=10_001), "limit"),
        (cache.zrange_by_score("z", offset=-1), "offset"),
        (cache.publish("c", large), "data"),
        (cache.limit("l", 0, window=1), "limit"),
        (cache.limit("l", 1, window=0.001), "window"),
        (cache.limit("l", 1, window=1, cost=2), "cost"),
        (cache.limit("l", 1, window=1, burst=2), "burst"),
        (cache.lock("l", lease=0).__aenter__(), "lease"),
        (cache.lock("l", lease=100_000).__aenter__(), "lease"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field == name


# Messages


async def test_a_message_reaches_who_listens(cache: Cache) -> None:
    async with cache.subscribe("task.*", channels=["alerts"]) as messages:
        for channel in ("task.done", "other", "alerts", "task", "task.new"):
            await cache.publish(channel, channel)
        received = [await asyncio.wait_for(anext(messages), 10) for _ in range(3)]

    assert [each.channel for each in received] == ["task.done", "alerts", "task.new"]
    assert received[0].data == b"task.done"


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("a*c", ["ac", "abc", "a*c", "acc"], ["abcd", "xac", "a"]),
        ("*a*b*", ["ab", "xaxbx"], ["ba", "b"]),
        ("a?c", ["abc", "a?c"], ["ac", "abbc"]),
        ("a[bx-z]c", ["abc", "ayc"], ["aac", "a[c"]),
        ("a[^b]c", ["aac", "a^c"], ["abc"]),
        ("a\\*c", ["a*c"], ["abc"]),
        ("[[]x", ["[x"], ["x"]),
        ("a\\[b]", ["a[b]"], ["ab"]),
        ("*" * 40 + "b", ["ab", "b"], ["a" * 200]),
    ],
)
async def test_a_pattern_selects_channels(cache: Cache, pattern: str, fitting: list[str], others: list[str]) -> None:
    async with cache.subscribe(pattern) as messages:
        for channel in others + fitting:
            await cache.publish(channel, b"")
        received = [(await asyncio.wait_for(anext(messages), 10)).channel for _ in fitting]

    assert received == fitting


async def test_a_message_comes_once_to_each_listener(cache: Cache) -> None:
    async with cache.subscribe("*", "a*", channels=["ab"]) as first, cache.subscribe("a*") as second:
        await cache.publish("ab", b"1")
        await cache.publish("end", b"")
        await cache.publish("a", b"2")
        mine = [await asyncio.wait_for(anext(first), 10) for _ in range(3)]
        theirs = [await asyncio.wait_for(anext(second), 10) for _ in range(2)]

    assert [each.channel for each in mine] == ["ab", "end", "a"]
    assert [each.data for each in theirs] == [b"1", b"2"]


@pytest.mark.parametrize("count", [0, 101])
async def test_a_subscription_has_one_to_a_hundred_names(cache: Cache, count: int) -> None:
    with pytest.raises(InvalidArgument):
        await anext(cache.subscribe(*["a"] * count))


# Locks


async def test_a_lock_has_one_holder(cache: Cache) -> None:
    async with cache.lock("l", lease=30) as held:
        assert held.is_held
        with pytest.raises(Aborted) as caught:
            async with cache.lock("l", wait=0):
                pass
        async with cache.lock("other"), cache.organisation.lock("l"):
            pass
    async with cache.lock("l") as next_one:
        assert next_one.token > held.token

    assert caught.value.retry_after is not None and caught.value.retry_after <= timedelta(seconds=30)
    assert not held.is_held


async def test_who_waits_for_a_lock_gets_it_when_it_is_released(cache: Cache) -> None:
    order: list[str] = []

    async def hold(name: str) -> None:
        async with cache.lock("l", lease=30, wait=20):
            order.append(name)
            await asyncio.sleep(0)
            order.append(name)

    await asyncio.gather(*(hold(name) for name in "abcd"))

    assert order[::2] == order[1::2]
    assert sorted(order[::2]) == list("abcd")


async def test_a_lock_whose_holder_died_is_free_after_its_lease(cache: Cache) -> None:
    request = cache_pb2.AcquireLockRequest(name="l", lease={"nanos": 80_000_000})
    first = await cache._transport.unary(_methods()["AcquireLock"], request)

    async with cache.lock("l", lease=30, wait=20) as held:
        assert held.token > first.token
        for name, late in (
            ("ReleaseLock", cache_pb2.ReleaseLockRequest(name="l", token=first.token)),
            ("RenewLock", cache_pb2.RenewLockRequest(name="l", token=first.token, lease={"seconds": 30})),
        ):
            with pytest.raises(FailedPrecondition) as caught:
                await cache._transport.unary(_methods()[name], late)
            assert caught.value.field == "token"
        assert held.is_held


async def test_a_lock_is_renewed_while_it_is_held(cache: Cache) -> None:
    async with cache.lock("l", lease=0.3) as held:
        async with asyncio.timeout(10):
            first = held._until
            while held._until < first + 0.3:
                await asyncio.sleep(0.02)
        with pytest.raises(Aborted):
            async with cache.lock("l", wait=0):
                pass


async def test_a_holder_that_asks_again_has_the_lock_still(cache: Cache) -> None:
    request = cache_pb2.AcquireLockRequest(name="l", lease={"seconds": 30}, holder="me")

    tokens = [(await cache._transport.unary(_methods()["AcquireLock"], request)).token for _ in range(2)]
    with pytest.raises(Aborted):
        await cache._transport.unary(
            _methods()["AcquireLock"], cache_pb2.AcquireLockRequest(name="l", lease={"seconds": 30}, holder="you")
        )

    assert tokens[0] == tokens[1]


async def test_a_lost_lock_is_told_at_the_end(cache: Cache) -> None:
    with pytest.raises(FailedPrecondition):
        async with cache.lock("l", lease=30) as held:
            request = cache_pb2.ReleaseLockRequest(name="l", token=held.token)
            await cache._transport.unary(_methods()["ReleaseLock"], request)


# Limits


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_a_limit_lets_so_many_pass(cache: Cache, algorithm: Algorithm) -> None:
    answers = [await cache.limit("l", 3, window=3600, algorithm=algorithm) for _ in range(5)]
    other = await cache.limit("other", 3, window=3600, algorithm=algorithm, cost=3)

    assert [each.allowed for each in answers] == [True, True, True, False, False]
    assert [each.remaining for each in answers] == [2, 1, 0, 0, 0]
    assert all(not each.retry_after for each in answers[:3])
    assert timedelta(0) < answers[3].retry_after <= timedelta(seconds=3661)
    assert timedelta(0) < answers[3].reset_after <= timedelta(seconds=3661)
    assert other.allowed and other.remaining == 0


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_a_limit_lets_pass_again_after_its_time(cache: Cache, algorithm: Algorithm) -> None:
    first = await cache.limit("l", 2, window=0.2, algorithm=algorithm, cost=2)
    refused = 0

    async with asyncio.timeout(10):
        while not (again := await cache.limit("l", 2, window=0.2, algorithm=algorithm)).allowed:
            refused += 1
            await asyncio.sleep(again.retry_after.total_seconds())

    assert first.allowed and refused


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_a_limit_is_kept_when_many_ask_at_once(cache: Cache, algorithm: Algorithm) -> None:
    answers = await asyncio.gather(*(cache.limit("l", 10, window=3600, algorithm=algorithm) for _ in range(40)))

    assert sum(each.allowed for each in answers) == 10


async def test_a_bucket_lets_a_burst_pass(cache: Cache) -> None:
    async def take(cost: int) -> bool:
        answer = await cache.limit("l", 1, window=3600, algorithm=Algorithm.TOKEN_BUCKET, burst=20, cost=cost)
        return answer.allowed

    assert [await take(cost) for cost in (15, 6, 5, 1)] == [True, False, True, False]


# Tenancy


@pytest.mark.ac("isa-cloud-prd:E1-US2:AC-2.2")
async def test_nobody_reaches_what_another_organisation_or_user_keeps(as_person: AsPerson) -> None:
    org = fresh_org()
    mine, strangers = as_person(org, "user-1").cache, [as_person(org, "user-11").cache, as_person(fresh_org()).cache]
    await mine.set("k", b"secret")
    await mine.hset("h", {"a": b"secret"})
    await mine.incr("n", 40)

    for other in strangers:
        with pytest.raises(NotFound):
            await other.get("k")
        assert await other.get_many(["k", "h"]) == {}
        assert await other.hget_all("h") == {}
        assert await other.incr("n") == 1
        assert not await other.delete("k") and await other.delete_many(["k", "h"]) == 0
        assert [key async for key in other.scan()] == ["n"]
        assert [key async for key in other.scan("*")] == []
        with pytest.raises(NotFound):
            await other.expire("k", 1)
        async with mine.lock("l", lease=30), other.lock("l", wait=0):
            pass
        assert (await mine.limit("r", 5, window=3600)).allowed
        assert (await other.limit("r", 1, window=3600)).allowed

    assert await mine.get("k") == b"secret"


@pytest.mark.parametrize("key", ["user-1:k", ":k", "::k", "x", "*", "user-1::k", "org-x:user-1:k"])
async def test_names_made_to_collide_do_not(as_person: AsPerson, key: str) -> None:
    org = fresh_org()
    caches = [
        as_person(org, "user-1").cache, as_person(org, "user-2").cache, as_person(org, "user-1").cache.organisation,
        as_person(f"{org}0", "user-1").cache,
    ]  # fmt: skip

    for n, each in enumerate(caches):
        await each.set(key, str(n))

    assert [await each.get(key) for each in caches] == [b"0", b"1", b"2", b"3"]


async def test_messages_stay_in_their_scope(as_person: AsPerson) -> None:
    org = fresh_org()
    mine, other = as_person(org, "user-1").cache, as_person(org, "user-2").cache
    stranger = as_person(fresh_org()).cache

    async with mine.subscribe("*", "*:*", "?*") as own, mine.organisation.subscribe("*") as shared:
        for each in (other, stranger, stranger.organisation):
            await each.publish("c", b"no")
            await each.publish(f"{org}:user-1:c", b"no")
        await other.organisation.publish("c", b"to all")
        await mine.publish("c", b"to me")

        assert (await asyncio.wait_for(anext(own), 10)).data == b"to me"
        assert (await asyncio.wait_for(anext(shared), 10)).data == b"to all"


async def test_the_organisation_shares_what_is_in_its_scope(as_person: AsPerson) -> None:
    org = fresh_org()
    one, two = as_person(org, "user-1").cache, as_person(org, "user-2").cache

    await one.organisation.set("k", b"v")

    assert await two.organisation.get("k") == b"v"
    with pytest.raises(NotFound):
        await one.get("k")
    async with one.organisation.lock("l", lease=30):
        with pytest.raises(Aborted):
            await two.organisation.lock("l", wait=0).__aenter__()


async def test_locks_and_limits_are_no_keys(cache: Cache) -> None:
    async with cache.lock("l"):
        await cache.limit("r", 5, window=60)
        assert [key async for key in cache.scan()] == []
        assert not await cache.exists("l") and not await cache.delete("r")


async def test_a_program_of_ours_acts_for_organisations_and_has_keys_of_its_own(clients: Clients) -> None:
    org = fresh_org()
    room, mine = clients.workload("conformance").cache, clients.person(org, "user-1").cache
    key = uuid.uuid4().hex
    await mine.set(key, b"theirs")
    await room.set(key, b"own", ttl=60)

    assert await room.acting_for(org=org, user="user-1").get(key) == b"theirs"
    assert await room.get(key) == b"own"
    await room.acting_for(org=org).set(key, b"shared")
    assert await mine.organisation.get(key) == b"shared"
    with pytest.raises(NotFound):
        await clients.workload("other").cache.get(key)


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.5")
async def test_a_user_of_nobody_is_refused(address: str) -> None:
    for token in ({"org": ""}, {"org": "org-a", "user": "root"}, {"org": "../x", "user": "user-1"}, {"user": "user-1"}):
        async with Isa(address, token=json.dumps(token)) as isa:
            cache = isa.cache
            for call in (
                cache.get("k"), cache.set("k", b"v"), cache.get_many(["k"]), cache.delete_many(["k"]),
                cache.set_many({"k": b""}), cache.incr("n"), anext(cache.subscribe("*")), anext(cache.scan()),
                cache.lock("l", wait=0).__aenter__(), cache.limit("l", 1, window=1),
            ):  # fmt: skip
                with pytest.raises(PermissionDenied):
                    await call


# On the engine alone


@pytest.mark.ac("isa-cloud-prd:E1-US2:AC-2.1")
async def test_names_begin_with_organisation_and_user_by_themselves(address: str, raw: Raw) -> None:
    org = fresh_org()
    async with person(address, org) as isa:
        await isa.cache.set("k", b"v")
        await isa.cache.organisation.set("k", b"w")
        await isa.cache.hset("h", {"a": b"1"})

    assert await raw("GET", f"{org}:user-1:k") == b"v"
    assert await raw("GET", f"{org}::k") == b"w"
    assert await raw("HGETALL", f"{org}:user-1:h") == [b"a", b"1"]


async def test_an_organisation_that_is_over_its_share_may_read_and_delete_only(engines: Engines, swept: None) -> None:
    shares, caller = Shares(Limits(bytes=20_000)), Caller(org=fresh_org(), user="user-1", roles=frozenset({"owner"}))
    cache = adapter(engines, shares).implementation
    shares.stored = cache.stored
    large = cache_pb2.SetRequest(key="l", value=b"x" * 5000)
    push = cache_pb2.RPushRequest(key="r", values=[b"x" * 5000])
    await cache.start()
    await cache.set(caller, cache_pb2.SetRequest(key="k", value=b"x" * 19_000))

    for call in (
        cache.set(caller, large), cache.mset(caller, cache_pb2.MSetRequest(entries=[large])), cache.rpush(caller, push),
    ):  # fmt: skip
        with pytest.raises(ResourceExhausted):
            await call
    commands = [cache_pb2.Command(rpush=push), cache_pb2.Command(exists=cache_pb2.ExistsRequest(key="k"))]
    pipeline = await cache.pipeline(caller, cache_pb2.PipelineRequest(commands=commands))
    assert pipeline.outcomes[0].error.code == ResourceExhausted.code
    assert pipeline.outcomes[1].exists.exists
    assert len((await cache.get(caller, cache_pb2.GetRequest(key="k"))).value) == 19_000
    assert (await cache.delete(caller, cache_pb2.DeleteRequest(key="k"))).deleted
    async with asyncio.timeout(30):
        while not (await cache.exists(caller, cache_pb2.ExistsRequest(key="l"))).exists:
            with suppress(ResourceExhausted):
                await cache.set(caller, large)
            await asyncio.sleep(0.1)
    await cache.stop()


async def test_what_an_organisation_stores_is_measured(engines: Engines, swept: None) -> None:
    served, org = adapter(engines), fresh_org()
    async with serving(served) as address, person(address, org) as isa:
        await isa.cache.set_many({f"k{n}": b"x" * 1000 for n in range(100)})
        await isa.cache.organisation.rpush("l", b"x" * 10_000)

        assert 110_000 < await served.implementation.stored(org) < 150_000
        assert await served.implementation.stored(fresh_org()) == 0


async def test_no_error_names_a_host_or_the_engines_words(address: str) -> None:
    async with person(address, fresh_org()) as isa:
        await isa.cache.set("k", b"text")
        for call in (isa.cache.incr("k"), isa.cache.lpush("k", "a"), isa.cache.smembers("k")):
            with pytest.raises(IsaError) as caught:
                await call
            text = f"{caught.value.message} {caught.value.details}"
            assert not any(word in text for word in ("127.0.0.1", "ERR", "WRONGTYPE", "org-", "script"))


async def test_a_slow_reader_is_told_what_it_missed(address: str) -> None:
    async with person(address, fresh_org()) as isa, isa.cache.subscribe("*") as messages:
        data = b"x" * (1 << 20)
        for _ in range(60):
            await isa.cache.publish("c", data)
        await isa.cache.publish("end", b"")
        received = 0
        async with asyncio.timeout(30):
            async for message in messages:
                if message.channel == "end":
                    break
                received += 1

    assert received + messages.dropped == 60
    assert messages.dropped > 0


async def test_a_subscription_ends_when_messages_may_be_lost(engines: Engines, swept: None) -> None:
    served = adapter(engines)
    async with (
        serving(served) as address,
        person(address, fresh_org()) as isa,
        isa.cache.subscribe("*") as messages,
    ):
        (await served.implementation._channels.redis.link()).abort()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(messages), 10)
        async with asyncio.timeout(10), isa.cache.subscribe("*") as again:
            await isa.cache.publish("c", b"1")
            assert (await anext(again)).data == b"1"
