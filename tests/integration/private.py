"""Engines of a test's own, which it may kill, stop and start again."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from isa_common import DeadlineExceeded, Unavailable
from runtime.engines import Engines, load_engines
from runtime.layout import layout_from_environment

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
