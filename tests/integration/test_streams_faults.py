"""Streams while NATS is killed, hung or away: with a server of this file's own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from isa_common import DeadlineExceeded, FailedPrecondition, Outgoing, Published, Streams, Unavailable
from runtime import nats
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import PATIENCE, Program, binary, free_port, until_served

SECOND = timedelta(seconds=1)


class Server(Program):
    """A nats-server on a port and a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.address, monitor = (f"127.0.0.1:{free_port()}" for _ in range(2))
        file = folder / "nats.conf"
        file.write_text(nats.document(listen=self.address, monitor=monitor, folder=folder / "data", password="secret"))
        super().__init__(binary("nats", "nats-server"), "--config", str(file), log=folder / "nats.log")


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that runs."""
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.end()


@pytest_asyncio.fixture
async def streams(server: Server) -> AsyncIterator[Streams]:
    """The streams of an organisation on it, with a heart that beats fast."""
    from services.adapters.nats.app import Settings, create_app

    settings = Settings(url=f"nats://{server.address}", heartbeat=SECOND, timeout=SECOND)
    app = create_app(settings, FakeParts(Secrets({"nats-password": "secret"})))
    async with serving(app) as address, person(address, "org-a") as isa:
        await until_served(lambda: isa.streams.list_streams(timeout=SECOND))
        yield isa.streams


async def following(items: AsyncIterator) -> object:
    return await asyncio.wait_for(anext(items), PATIENCE)


async def test_what_was_acknowledged_survives_a_kill(server: Server, streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c", ack_wait=SECOND)
    bucket = await streams.create_bucket("b")
    stored: dict[str, int] = {}
    put: dict[str, int] = {}
    is_ending = asyncio.Event()

    async def publish(lane: int) -> None:
        n = 0
        while not is_ending.is_set():
            name = f"{lane}-{n}"
            try:
                told = await streams.publish("s", name.encode(), message_id=name, durable=True, timeout=SECOND)
                stored[name] = told.sequence
                put[name] = await bucket.put(name, name.encode(), timeout=SECOND)
                n += 1
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(0.02)

    lanes = [asyncio.create_task(publish(lane)) for lane in range(8)]
    for _ in range(3):
        before = len(put)
        async with asyncio.timeout(PATIENCE):
            while len(put) < before + 200:
                await asyncio.sleep(0.01)
        await server.end()
        await server.start()
    is_ending.set()
    await asyncio.gather(*lanes)
    await until_served(lambda: streams.list_streams(timeout=SECOND))

    found = [(message.message_id, message.sequence) async for message in streams.replay("S")]
    values = {}
    async for key in bucket.keys(">"):
        values[key] = (await bucket.get(key)).value
    assert len(found) == len(dict(found)), "a message that was published again is stored once"
    assert stored.items() <= dict(found).items(), "nothing that was acknowledged is lost"
    assert all(values[name] == name.encode() for name in put)


async def consumed(server: Server, streams: Streams, number: signal.Signals) -> tuple[list[bytes], list[bytes]]:
    """What came and what was remembered, over two ends of the server."""
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c", ack_wait=SECOND)
    await streams.publish_many([Outgoing(subject="s", data=str(n).encode(), durable=True) for n in range(60)])
    seen: list[bytes] = []
    settled: list[bytes] = []
    async with streams.consume("S", "c", max_in_flight=2) as deliveries, asyncio.timeout(4 * PATIENCE):
        async for delivery in deliveries:
            seen.append(delivery.data)
            if len(seen) in (20, 40):
                await server.end(number)
                await server.start()
            try:
                await delivery.ack(confirm=True)
                settled.append(delivery.data)
            except (Unavailable, DeadlineExceeded):
                continue  # it comes again
            if len(set(settled)) == 60:
                return seen, settled
    raise AssertionError("consuming ended before it was left")


async def test_after_a_crash_of_nats_everything_comes_at_least_once(server: Server, streams: Streams) -> None:
    _, settled = await consumed(server, streams, signal.SIGKILL)

    assert set(settled) == {str(n).encode() for n in range(60)}


async def test_what_was_settled_is_not_sent_again_after_a_clean_stop(server: Server, streams: Streams) -> None:
    _, settled = await consumed(server, streams, signal.SIGTERM)

    assert sorted(settled) == sorted(str(n).encode() for n in range(60))
    assert (await streams.get_consumer("S", "c")).ack_floor == 60


async def test_while_nats_is_away_every_call_says_so(server: Server, streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    bucket = await streams.create_bucket("b")
    await server.end()

    calls = [
        streams.publish("a"),
        streams.publish("s", durable=True),
        streams.request("a"),
        streams.list_streams(timeout=SECOND),
        streams.get_stream("S", timeout=SECOND),
        streams.fetch("S", "c"),
        bucket.put("k", b"", timeout=SECOND),
        bucket.get("k", timeout=SECOND),
        following(streams.subscribe("a")),
        following(streams.consume("S", "c")),
        following(bucket.watch()),
    ]
    told = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 3 * PATIENCE)
    await server.start()
    await until_served(lambda: streams.list_streams(timeout=SECOND))

    assert {type(each) for each in told} <= {Unavailable, DeadlineExceeded}
    assert (await streams.publish("s", durable=True)).sequence == 1


async def test_a_hung_server_ends_calls_at_their_deadline(server: Server, streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    bucket = await streams.create_bucket("b")
    server.signal(signal.SIGSTOP)
    try:
        calls = [
            streams.publish("a", timeout=SECOND / 2),
            streams.publish("s", durable=True, timeout=SECOND / 2),
            streams.publish_many([Outgoing(subject="s", durable=True)] * 5, timeout=SECOND / 2),
            streams.get_stream("S", timeout=SECOND / 2),
            bucket.put("k", b"", timeout=SECOND / 2),
            bucket.get_many(["k"], timeout=SECOND / 2),
        ]
        told = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)
        large = [streams.publish("a", b"x" * 1_000_000, timeout=SECOND) for _ in range(80)]
        flooded = await asyncio.wait_for(asyncio.gather(*large, return_exceptions=True), 2 * PATIENCE)
    finally:
        server.signal(signal.SIGCONT)
    await until_served(lambda: streams.list_streams(timeout=SECOND))

    assert {type(each) for each in told} <= {Unavailable, DeadlineExceeded}
    assert not any(isinstance(each, Published) for each in flooded)
    assert isinstance(await streams.publish("s", durable=True), Published)


async def test_a_subscription_goes_on_when_nats_is_back(server: Server, streams: Streams) -> None:
    async with streams.subscribe("a") as messages:
        await streams.publish("a", b"before")
        assert (await following(messages)).data == b"before"
        await server.end()
        await server.start()
        await until_served(lambda: streams.list_streams(timeout=SECOND))
        await streams.publish("a", b"after")

        assert (await following(messages)).data == b"after"
        assert messages.interruptions == 1


async def test_a_replay_and_a_watch_go_on_where_they_were(server: Server, streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    bucket = await streams.create_bucket("b")
    for n in range(5):
        await streams.publish("s", str(n).encode(), durable=True)
    await bucket.put("k", b"1")
    async with streams.replay("S", follow=True) as messages, bucket.watch() as watch:
        seen = [(await following(messages)).data for _ in range(5)]
        assert [each.value for each in await watch.current()] == [b"1"]
        await server.end()
        await server.start()
        await until_served(lambda: streams.list_streams(timeout=SECOND))
        await streams.publish("s", b"5", durable=True)
        await bucket.put("k", b"2")
        seen.append((await following(messages)).data)
        changed = await following(watch)

    assert seen == [str(n).encode() for n in range(6)]
    assert changed.value == b"2"


async def test_a_responder_answers_again_when_nats_is_back(server: Server, streams: Streams) -> None:
    async def echo(message: object) -> bytes:
        return message.data

    async with streams.respond("echo", echo):
        await server.end()
        await server.start()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    assert (await streams.request("echo", b"1", timeout=SECOND)).data == b"1"
                    break
                except (Unavailable, DeadlineExceeded, FailedPrecondition):
                    await asyncio.sleep(0.05)


async def test_the_service_starts_before_nats_does(tmp_path: Path) -> None:
    from services.adapters.nats.app import Settings, create_app

    server = Server(tmp_path)
    settings = Settings(url=f"nats://{server.address}", timeout=SECOND)
    app = create_app(settings, FakeParts(Secrets({"nats-password": "secret"})))
    async with serving(app) as address, person(address, "org-a") as isa:
        with pytest.raises(Unavailable):
            await isa.streams.publish("a")
        await server.start()
        try:
            await until_served(lambda: isa.streams.list_streams(timeout=SECOND))
        finally:
            await server.end()
