"""Parts of a second set on the engines of the set under test: replicas that a test may start, tell things, and stop."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.engines import Engines, load_engines
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout
from runtime.processes import Set, declare, load_apps
from runtime.secrets import ensure_tokens
from tests.conftest import Stack

PORT_BASE = 21200
APPS = {app.name: app.values for app in load_apps()}

Running = asyncio.subprocess.Process


@asynccontextmanager
async def running(command: tuple[str, ...], environment: Mapping[str, str], log: Path) -> AsyncIterator[Running]:
    """A process that is asked to stop at the end, and killed when it does not."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: Running) -> None:
    """Ask a process to stop, and wait until it did."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 45)
        except TimeoutError:
            process.kill()
            await process.wait()


def layout_beside(stack: Stack, home: Path) -> Layout:
    """A layout of ports and folders of its own."""
    layout = Layout(home=home, cache=stack.layout.cache, port_base=PORT_BASE)
    layout.make_folders()
    return layout


@dataclass
class Replicas:
    """The parts that a test started."""

    stack: Stack
    layout: Layout
    declared: Set
    parts: AsyncExitStack

    async def start(self, name: str) -> Running:
        """Start a part; its engines are those of the set under test."""
        part = self.declared.processes[name]
        scheduler = {self.layout.address("scheduler"): self.stack.layout.address("scheduler")}
        command = tuple(scheduler.get(word, word) for word in part.command)
        environment = {**part.environment, **own_engine_environment(self.stack.layout)}
        return await self.parts.enter_async_context(running(command, environment, self.layout.logs / f"{name}.log"))

    async def until_healthy(self, *names: str) -> None:
        """Return when these parts serve."""
        async with asyncio.timeout(60):
            for name in names:
                while not await self.declared.processes[name].healthy():
                    await asyncio.sleep(0.2)

    def port(self, app: str, door: str) -> int:
        """The port of an app, by its name in dapr.yaml."""
        return self.layout.port(APPS[app][door])

    def sidecar(self, app: str) -> tuple[str, str]:
        """Address and token of the gRPC API of an app's sidecar."""
        token = self.declared.processes[f"{app}-dapr"].environment["DAPR_API_TOKEN"]
        return f"127.0.0.1:{self.port(app, 'daprGRPCPort')}", token


@asynccontextmanager
async def replicas(stack: Stack, layout: Layout) -> AsyncIterator[Replicas]:
    """Parts with the secrets of the set under test; the environment is read here, so a test changes it before."""
    declared = declare(layout, Engines(layout, load_engines()), stack.secrets, ensure_tokens(layout, list(APPS)))
    async with AsyncExitStack() as parts:
        yield Replicas(stack, layout, declared, parts)
