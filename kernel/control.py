"""The control topic: which subjects' tokens are no longer good, known to every replica before it is ready.

The topic is compacted and has one partition. A starting replica publishes a marker of its own and is ready when the
marker has come back: everything before it has been read.

A sidecar reads the topic from its beginning once, at its own start. A process that dies alone would come back knowing
nothing, so what it has taken is on disk before the sidecar is told, beside the audit spool, which lives as long.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from isa.events import ControlChanged
from isa_common import IsaError, Unavailable
from kernel import telemetry
from kernel.caller import Caller
from kernel.chain import PLATFORM
from kernel.identity import Revocations

MARKER = "marker"
KEPT = timedelta(days=1)
"""How long the end of a session or credential is kept on disk; no token lives nearly as long."""
AGAIN_AFTER = 5.0


class Control:
    """This replica's reading of the control topic."""

    def __init__(
        self,
        service: str,
        revocations: Revocations,
        publish: Callable[[ControlChanged], Awaitable[bool]],
        *,
        kept: Path | None = None,
    ) -> None:
        self._marker = f"{MARKER}:{service}:{socket.gethostname()}"
        self._version = time.time_ns()
        self._revocations = revocations
        self._publish = publish
        self._is_read = asyncio.Event()
        self._kept = kept
        """The file of what was taken; without one nothing outlives the process."""

    def remember(self) -> None:
        """Take what this process took before it died, and drop from the file what no longer matters."""
        if self._kept is None:
            return
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        lines = self._kept.read_bytes().splitlines() if self._kept.exists() else []
        latest: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
            except (
                ValueError
            ):  # half a line, from the moment of the death; the sidecar was not told and brings it again
                continue
            if entry["version"] >= latest.get(entry["subject"], entry)["version"]:
                latest[entry["subject"]] = entry
        latest = {subject: entry for subject, entry in latest.items() if _matters(entry)}
        for subject, entry in latest.items():
            not_before = datetime.fromisoformat(entry["not_before"]) if entry["not_before"] else None
            self._revocations.note(subject, entry["version"], entry["state"], not_before)
        fresh = self._kept.with_suffix(".new")
        fresh.write_text("".join(f"{json.dumps(entry)}\n" for entry in latest.values()))
        fresh.replace(self._kept)

    def _keep(self, event: ControlChanged) -> None:
        entry = {
            "subject": event.aggregate_id,
            "version": event.aggregate_version,
            "kind": event.kind,
            "state": event.state,
            "not_before": event.not_before.isoformat() if event.not_before else None,
            "at": (event.occurred_at or datetime.now(UTC)).isoformat(),
        }
        if self._kept and _matters(entry):
            with self._kept.open("a") as file:
                file.write(f"{json.dumps(entry)}\n")

    async def note(self, _caller: Caller, event: ControlChanged) -> None:
        """Take a record of the topic."""
        if event.kind != MARKER:
            self._revocations.note(event.aggregate_id, event.aggregate_version, event.state, event.not_before)
            self._keep(event)
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


def _matters(entry: dict[str, Any]) -> bool:
    """Tell whether a token can still be refused by it: what is suspended or gone always, the rest for a day."""
    if entry["kind"] in ("org", "user") and entry["state"] != "active":
        return True
    return datetime.now(UTC) - datetime.fromisoformat(entry["at"]) < KEPT
