"""Engines of a test's own, which it may kill, stop and start again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg

from isa_common import DeadlineExceeded, Unavailable
from runtime import kafka, postgres
from runtime.engines import Engines, load_engines
from runtime.layout import Layout, layout_from_environment

PATIENCE = 30
"""Seconds for what must happen; nothing is asserted about how long it took."""


def binary(engine: str, name: str) -> str:
    """A program of the cache."""
    return str(Engines(layout_from_environment(), load_engines()).binary(engine, name))


def free_port() -> int:
    """A port that nobody has."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class Program:
    """One process, as often as it is started."""

    def __init__(
        self, *command: str, log: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        self.command = list(command)
        self._log = log or Path(os.devnull)
        self._env = {**os.environ, **(env or {})}
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """The process that runs."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, without waiting until it answers."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self.command, env=self._env, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, **self._options
            )

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """End it, if it runs, even one that was stopped; by default without a chance to write anything."""
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)
                self._process.send_signal(signal.SIGCONT)
            await self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Stop it or let it go on."""
        assert self._process is not None
        self._process.send_signal(number)


@asynccontextmanager
async def kafka_of(folder: Path, properties: str, *options: str) -> AsyncIterator[None]:
    """Run one broker that is its own controller, with these properties too; the options are those of its format."""
    engines = Engines(layout_from_environment(), load_engines())
    controller, file = f"127.0.0.1:{free_port()}", folder / "server.properties"
    file.write_text(f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
controller.listener.names=CONTROLLER
log.dirs={folder / "data"}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
{properties.replace("CONTROLLER://", f"CONTROLLER://{controller}")}
""")
    java = [str(engines.java), "-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", *kafka.LOGGING,
            "-cp", kafka.classpath(engines)]  # fmt: skip
    format_ = [*java, "kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(file), *options]
    done = await asyncio.to_thread(subprocess.run, format_, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    server = Program(*java, "kafka.Kafka", str(file), log=folder / "log")
    await server.start()
    try:
        yield
    finally:
        await server.end()


async def until_served(call: Callable[[], Awaitable[object]]) -> None:
    """Call until it succeeds; what fails meanwhile must fail as an engine that is away."""
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                await call()
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(0.05)
            else:
                return


class Postgres:
    """A PostgreSQL on a port and a folder of its own."""

    PASSWORD = "super"
    """Of its superuser, `isa`."""

    def __init__(self, home: Path, *options: str) -> None:
        self.port = free_port()
        self.layout = Layout(home=home, cache=layout_from_environment().cache, port_base=None)
        self.engines = Engines(self.layout, load_engines())
        self._options = options
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start it, and wait until it takes logins."""
        who = postgres.account()
        identity = {"user": who.uid, "group": who.gid, "extra_groups": ()} if who.name is not None else {}
        self._process = await asyncio.create_subprocess_exec(
            str(postgres.binaries(self.engines) / "bin" / "postgres"), "-D", str(postgres.data_folder(self.layout)),
            "-p", str(self.port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "shared_buffers=16MB", *self._options,
            cwd="/", start_new_session=True, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL, **identity,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await (await self.login()).close()
                except (OSError, asyncpg.PostgresError):
                    await asyncio.sleep(0.05)
                else:
                    return

    async def login(self) -> asyncpg.Connection:
        """Connect as its superuser."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self.port, user="isa", password=self.PASSWORD, database="postgres"
        )

    def all(self, number: signal.Signals) -> None:
        """Send a signal to each of its processes."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for pid in (self._process.pid, *map(int, children)):  # each process of PostgreSQL is a session of its own
            os.kill(pid, number)

    async def end(self) -> None:
        """End it at once, as a crash does."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGQUIT)
            await self._process.wait()
