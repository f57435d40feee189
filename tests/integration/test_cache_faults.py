"""The cache while Redis is away, killed, hung or full: with a server of this file's own."""

from __future__ import annotations

import asyncio
import resource
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from isa_common import Cache, DeadlineExceeded, IsaError, NotFound, ResourceExhausted, Unavailable
from runtime.engines import Engines, load_engines
from runtime.layout import layout_from_environment
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import PATIENCE, Program, free_port, until_served

SECOND = timedelta(seconds=1)


class Server(Program):
    """A redis-server on a port and a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        options = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(folder), "requirepass": "secret",
            "maxmemory": "16mb", "maxmemory-policy": "noeviction", "appendonly": "yes", "save": "",
        }  # fmt: skip
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        super().__init__(str(Engines(layout_from_environment(), load_engines()).redis), *words)


@dataclass
class Served:
    """A cache, and what serves it."""

    cache: Cache
    adapter: Any


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that runs."""
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.end()


@pytest_asyncio.fixture
async def served(server: Server) -> AsyncIterator[Served]:
    """The cache of an organisation on it, with little patience."""
    from services.adapters.redis.app import Settings, create_app

    settings = Settings(host="127.0.0.1", port=server.port, timeout=SECOND)
    app = create_app(settings, FakeParts(Secrets({"redis-password": "secret"})))
    async with serving(app) as address, person(address, "org-a") as isa:
        await until_served(lambda: isa.cache.get("none", None, timeout=SECOND))
        yield Served(isa.cache, app.implementation)


async def outcome(call: Any) -> type[IsaError] | None:
    """How a call ended."""
    try:
        await call
    except IsaError as error:
        return type(error)
    return None


async def test_while_redis_is_away_calls_are_unavailable_and_then_served_again(server: Server, served: Served) -> None:
    cache = served.cache
    await cache.set("k", b"v")
    await server.end(signal.SIGTERM)

    ended = await asyncio.gather(
        outcome(cache.get("k", timeout=SECOND)),
        outcome(cache.set("k", b"w", timeout=SECOND)),
        outcome(cache.get_many(["k"], timeout=SECOND)),
        outcome(cache.incr("n", timeout=SECOND)),
        outcome(cache.limit("l", 1, window=1, timeout=SECOND)),
        outcome(cache.publish("c", b"", timeout=SECOND)),
    )
    await server.start()
    await until_served(lambda: cache.get("none", None, timeout=SECOND))

    assert set(ended) <= {Unavailable, DeadlineExceeded}, "the second when a repeat met its deadline"
    assert Unavailable in ended
    assert await cache.get("k") == b"v"


async def test_what_was_sent_when_redis_was_killed_fails_and_is_not_sent_again(server: Server, served: Served) -> None:
    counted = failed = 0
    is_ending = asyncio.Event()

    async def count() -> None:
        nonlocal counted, failed
        while not is_ending.is_set():
            try:
                await served.cache.incr("n", timeout=SECOND)
                counted += 1
            except (Unavailable, DeadlineExceeded):
                failed += 1
                await asyncio.sleep(0.01)

    lanes = [asyncio.create_task(count()) for _ in range(20)]
    async with asyncio.timeout(PATIENCE):
        for kill in range(1, 4):
            while counted < 200 * kill:
                await asyncio.sleep(0.01)
            await server.end()
            await server.start()
            await until_served(lambda: served.cache.get("none", None, timeout=SECOND))
    is_ending.set()
    await asyncio.gather(*lanes)

    value = int(await served.cache.get("n"))
    assert failed
    assert value <= counted + failed, "nothing counted twice"


async def test_a_hung_redis_is_given_up_and_taken_again(server: Server, served: Served) -> None:
    cache = served.cache
    await cache.set("k", b"v")
    server.signal(signal.SIGSTOP)

    own_deadline = await asyncio.gather(
        *(outcome(cache.get("k", timeout=timedelta(milliseconds=300))) for _ in range(5)),
        outcome(cache.set("k", b"w", timeout=timedelta(milliseconds=300))),
    )
    given_up = await outcome(cache.incr("n", timeout=timedelta(seconds=PATIENCE)))
    afterwards = await outcome(cache.incr("n", timeout=SECOND))
    server.signal(signal.SIGCONT)
    await until_served(lambda: cache.get("none", None, timeout=SECOND))

    assert set(own_deadline) == {DeadlineExceeded}
    assert given_up is DeadlineExceeded
    assert afterwards in (Unavailable, DeadlineExceeded)
    assert await cache.get("k") in (b"v", b"w")


async def test_a_full_redis_refuses_writes_and_serves_reads(server: Server, served: Served) -> None:
    cache = served.cache
    await cache.set("k", b"v")
    version = (await cache.get_versioned("k")).version
    filled = 0

    async def refused(call: Callable[[], Awaitable[object]]) -> bool:
        """Whether a write is refused for want of room; until it is, what is left is filled with ever smaller values."""
        nonlocal filled
        size = 300_000
        async with asyncio.timeout(PATIENCE):
            while (ended := await outcome(call())) is None:
                try:
                    await cache.set(f"fill{filled}", b"x" * size)
                    filled += 1
                except ResourceExhausted:
                    size = max(size // 2, 1)
        return ended is ResourceExhausted

    for call in (
        lambda: cache.set("n", b"1"),
        lambda: cache.set_many({"n": b"1"}),
        lambda: cache.incr("n"),
        lambda: cache.rpush("l", "a"),
        lambda: cache.hset("h", {"a": b"1"}),
        lambda: cache.zadd("z", {"a": 1}),
        lambda: cache.set("k", b"v", if_version=version),
        lambda: cache.limit("r", 1_000_000, window=60),
        lambda: cache.lock(uuid.uuid4().hex, wait=0).__aenter__(),
    ):
        assert await refused(call)
    assert await cache.get("k") == b"v"
    assert await cache.delete_many([f"fill{n}" for n in range(filled)]) == filled
    await cache.set("k", b"w")


async def test_memory_stays_bounded_while_redis_hangs_under_load(server: Server, served: Served) -> None:
    from services.adapters.redis import connection

    server.signal(signal.SIGSTOP)
    redis = served.adapter._redis
    link = await redis.link()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = sent = 0
    pending = []
    value = b"x" * 100_000
    for n in range(2000):
        try:
            pending.append(link.send("SET", f"k{n}", value))
            sent += 1
        except Unavailable:
            refused += 1
        if n % 10 == 0:
            await asyncio.sleep(0)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
    server.signal(signal.SIGCONT)
    answers = await asyncio.gather(*pending, return_exceptions=True)

    assert refused, "more than may wait for the network is refused"
    assert sent * len(value) < connection.UNSENT + (16 << 20)
    assert grown < 4 * connection.UNSENT
    assert len(answers) == sent
    await until_served(lambda: served.cache.get("none", None, timeout=SECOND))


async def test_a_subscription_and_a_lock_learn_of_an_outage(server: Server, served: Served) -> None:
    async with served.cache.subscribe("*") as messages:
        await server.end()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(anext(messages), PATIENCE)
    await server.start()
    await until_served(lambda: served.cache.get("none", None, timeout=SECOND))

    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                async with served.cache.subscribe("*") as messages:
                    await served.cache.publish("c", b"1")
                    assert (await anext(messages)).data == b"1"
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    with pytest.raises(NotFound):
        await served.cache.get("none")


async def test_a_replica_that_was_primary_is_left(server: Server, served: Served) -> None:
    redis = served.adapter._redis
    link = await redis.link()
    with suppress(IsaError):
        await redis.execute("REPLICAOF", "127.0.0.1", "1")

    refused = await outcome(served.cache.set("k", b"v", timeout=timedelta(milliseconds=500)))
    async with asyncio.timeout(PATIENCE):
        while redis._link is link:
            await asyncio.sleep(0.01)
        while await outcome(redis_primary(redis)) is not None:
            await asyncio.sleep(0.05)
    await until_served(lambda: served.cache.get("none", None, timeout=SECOND))

    assert refused is Unavailable
    await served.cache.set("k", b"v")


async def redis_primary(redis: Any) -> None:
    await redis.execute("REPLICAOF", "NO", "ONE")
