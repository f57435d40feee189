"""The logs while Loki is away, killed or hung: with a Loki of this file's own."""

from __future__ import annotations

import asyncio
import signal
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from isa_common import DeadlineExceeded, Entry, Logs, ResourceExhausted, Unavailable
from runtime import loki
from runtime.layout import ENGINE_PORTS, Layout, layout_from_environment
from services.adapters.loki.app import Settings, create_app
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import Program, binary, until_served

SECOND = timedelta(seconds=1)


def free_base() -> int:
    """A base at which Loki's two ports are free."""
    for base in range(30_000, 45_000, 1_000):
        with suppress(OSError):
            for name in ("loki", "loki-grpc"):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", base + ENGINE_PORTS[name] % 10_000))
            return base
    raise AssertionError("no port is free")


class Server(Program):
    """A Loki on ports and in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(home=folder, cache=layout_from_environment().cache, port_base=free_base())
        self.layout.make_folders()
        narrow = (
            loki.document(self.layout).replace("_rate_mb: 32", "_rate_mb: 1").replace("_size_mb: 64", "_size_mb: 1")
        )
        file = loki.configuration(self.layout)
        file.write_text(narrow)
        super().__init__(binary("loki", "loki"), f"-config.file={file}")


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.end()


@pytest_asyncio.fixture
async def logs(server: Server) -> AsyncIterator[Logs]:
    settings = Settings(url=f"http://{server.layout.address('loki')}", timeout=timedelta(seconds=5))
    async with (
        serving(create_app(settings, FakeParts(Secrets({})))) as address,
        person(address, f"org-{uuid.uuid4().hex[:16]}") as isa,
    ):
        await until_served(lambda: isa.logs.push([Entry("first")]))
        yield isa.logs


async def lines(logs: Logs) -> set[str]:
    return {entry.line for entry in (await logs.query('{service="unknown"}', limit=5000)).entries}


async def test_while_loki_is_away_calls_are_refused_and_what_it_took_is_there_afterwards(
    server: Server, logs: Logs
) -> None:
    taken = {"first"}
    for number in range(20):
        await logs.push([Entry(f"line {number}")])
        taken.add(f"line {number}")
    await server.end()

    for call in (
        lambda: logs.push([Entry("lost")], timeout=SECOND),
        lambda: logs.query('{service="unknown"}', timeout=SECOND),
        lambda: logs.labels(timeout=SECOND),
        lambda: logs.statistics('{service="unknown"}', timeout=SECOND),
    ):
        with pytest.raises((Unavailable, DeadlineExceeded)) as caught:
            await call()
        assert "127.0.0.1" not in str(caught.value)

    await server.start()
    await until_served(lambda: logs.push([Entry("after")]))
    assert await lines(logs) >= taken | {"after"}


async def test_while_loki_hangs_calls_end_at_their_deadline(server: Server, logs: Logs) -> None:
    server.signal(signal.SIGSTOP)
    done = await asyncio.gather(
        *(logs.push([Entry(f"hung {number}")], timeout=SECOND) for number in range(50)), return_exceptions=True
    )
    assert {type(each) for each in done} <= {DeadlineExceeded, Unavailable}
    assert any(isinstance(each, DeadlineExceeded) for each in done)
    with pytest.raises((DeadlineExceeded, Unavailable)):
        await logs.query('{service="unknown"}', timeout=SECOND)

    server.signal(signal.SIGCONT)
    await until_served(lambda: logs.push([Entry("after")]))
    assert "after" in await lines(logs)


async def test_over_its_rate_a_tenant_is_told_to_wait(server: Server, logs: Logs) -> None:
    with pytest.raises(ResourceExhausted) as caught:  # more than Loki lets a tenant push at once
        await logs.push([Entry(f"{number} " + "x" * 200_000) for number in range(20)], timeout=SECOND)
    assert caught.value.retry_after

    await until_served(lambda: logs.push([Entry("after")]))
    assert "after" in await lines(logs)
