"""The control topic: which subjects' tokens are no longer good, known to every replica before it is ready.

The topic is compacted and has one partition. A starting replica publishes a marker of its own and is ready when the
marker has come back: everything before it has been read.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

from isa.events import ControlChanged
from isa_common import IsaError, Unavailable
from kernel import telemetry
from kernel.caller import Caller
from kernel.chain import PLATFORM
from kernel.identity import Revocations

MARKER = "marker"
AGAIN_AFTER = 5.0


class Control:
    """This replica's reading of the control topic."""

    def __init__(
        self, service: str, revocations: Revocations, publish: Callable[[ControlChanged], Awaitable[bool]]
    ) -> None:
        self._marker = f"{MARKER}:{service}:{socket.gethostname()}"
        self._version = time.time_ns()
        self._revocations = revocations
        self._publish = publish
        self._is_read = asyncio.Event()

    async def note(self, _caller: Caller, event: ControlChanged) -> None:
        """Take a record of the topic."""
        if event.kind != MARKER:
            self._revocations.note(event.aggregate_id, event.aggregate_version, event.state, event.not_before)
        elif event.aggregate_id == self._marker and event.aggregate_version == self._version:
            self._is_read.set()

    async def read_to_end(self, *, at_most: float = 120.0) -> None:
        """Return when everything that was on the topic has been taken."""
        until = time.monotonic() + at_most
        marker = ControlChanged(
            aggregate_id=self._marker,
            aggregate_version=self._version,
            org_id=PLATFORM,
            kind=MARKER,
            state="active",
        )
        while not self._is_read.is_set():
            if time.monotonic() > until:
                raise Unavailable(f"The control topic was not read to its end in {at_most:.0f} s.")
            try:
                await self._publish(marker)
                async with asyncio.timeout(AGAIN_AFTER):
                    await self._is_read.wait()
            except TimeoutError:
                telemetry.log.info("control.waiting")
            except IsaError as error:
                telemetry.log.info("control.waiting", reason=error.message)
                await asyncio.sleep(0.5)
