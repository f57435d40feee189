"""Messages of JetStream consumers, asked for in portions, so that nobody is sent more than they take."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Self

import orjson
from nats.aio.msg import Msg

from isa_common import IsaError, NotFound, Unavailable
from services.adapters.nats.codec import ACK, SECOND, Place
from services.adapters.nats.connection import Connection, Listening, status

EXPIRES = 30
"""Seconds that JetStream remembers what was asked for."""
HEARTBEAT = 5
"""Seconds between its signs of life while it has nothing to send."""
PORTION = 256
"""Messages of one answer, and of one portion of a reader."""
PORTION_BYTES = 1 << 20
AGAIN = 0.25
"""Seconds between a reader's attempts to go on."""
FORGOTTEN = 30 * SECOND
"""Nanoseconds after which JetStream forgets a reader that went away."""


class Pull:
    """What one consumer sends to one reader."""

    def __init__(self, connection: Connection, stream: str, consumer: str) -> None:
        self.messages: deque[Msg] = deque()
        self.asked = 0
        """Messages that may still come without being asked for again."""
        self.ended: IsaError | None = None
        self.interruptions = 0
        """How often the connection was lost."""
        self.woken = asyncio.Event()
        self._connection = connection
        self._next = f"CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._inbox = connection.inbox()
        self._listening: Listening | None = None
        self._heard = time.monotonic()

    async def __aenter__(self) -> Self:
        self._listening = await self._connection.listen(self._inbox, self._receive, returned=self._returned)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave, and let others have what came and was not taken."""
        if self._listening is not None:
            await self._connection.leave(self._listening)
        with contextlib.suppress(IsaError):
            for message in self.messages:
                await self._connection.publish(message.reply, b"-NAK")

    async def ask(self, count: int, *, seconds: float = EXPIRES, most_bytes: int = 0) -> None:
        """Ask for so many messages more; for zero seconds, only for those that are there."""
        self.asked += count
        self._heard = time.monotonic()
        body: dict[str, Any] = {"batch": count}
        if seconds:
            body["expires"] = int(seconds * SECOND)
            if seconds > 2 * HEARTBEAT:
                body["idle_heartbeat"] = HEARTBEAT * SECOND
        else:
            body["no_wait"] = True
        if most_bytes:
            body["max_bytes"] = most_bytes
        await self._connection.publish(f"$JS.API.{self._next}", orjson.dumps(body), reply=self._inbox)

    async def wait(self, seconds: float = HEARTBEAT) -> None:
        """Return when something came, or after some time; what is asked for in vain is asked for again."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.woken.wait()
        self.woken.clear()
        if self.asked and time.monotonic() - self._heard > 3 * HEARTBEAT:
            self.asked = 0
        if self.ended is not None:
            raise self.ended

    async def all(self) -> None:
        """Return when nothing more is to come."""
        while self.asked:
            await self.wait()

    def take(self) -> list[Msg]:
        """Some of the messages that came, together not much larger than a portion."""
        taken: list[Msg] = []
        size = 0
        while self.messages and len(taken) < PORTION and size < PORTION_BYTES:
            message = self.messages.popleft()
            size += len(message.data)
            taken.append(message)
        return taken

    def _receive(self, message: Msg) -> None:
        self._heard = time.monotonic()
        if message.reply.startswith(ACK):
            self.asked = max(self.asked - 1, 0)
            self.messages.append(message)
        else:
            code, headers = status(message), message.headers or {}
            if code == "100":
                return
            self.asked -= min(int(headers.get("Nats-Pending-Messages", self.asked)), self.asked)
            if code == "503" or (code == "409" and "Deleted" in headers.get("Description", "")):
                self.ended = NotFound("The stream or its consumer is gone, or never was.")
        self.woken.set()

    def _returned(self) -> None:
        self.asked = 0
        self.interruptions += 1
        self.woken.set()


async def read(
    connection: Connection,
    stream: str,
    subjects: Sequence[str],
    start: Mapping[str, Any],
    *,
    headers_only: bool = False,
    follow: bool = False,
) -> AsyncGenerator[tuple[list[Msg], bool], None]:
    """Read a stream in order by a consumer that leaves no trace: messages, and once, whether those of before are done.

    Without `follow` it ends there. A reader that follows goes on after an outage where it was.
    """
    is_done = is_begun = False
    while True:
        config = {
            "ack_policy": "none",
            "filter_subjects": list(subjects),
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": FORGOTTEN,
            "headers_only": headers_only,
            "max_deliver": 1,
            **start,
        }
        try:
            made = await connection.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        except (TimeoutError, Unavailable):
            if not is_begun:
                raise
            await asyncio.sleep(AGAIN)
            continue
        is_begun = True
        last, expected = made["delivered"]["stream_seq"], 1
        try:
            async with Pull(connection, stream, made["name"]) as pull:
                if not made["num_pending"] and not is_done:
                    is_done = True
                    yield [], True
                while follow or not is_done:
                    if pull.asked < PORTION // 2:
                        await pull.ask(PORTION, most_bytes=4 * PORTION_BYTES)
                    await pull.wait()
                    while taken := pull.take():
                        places = [Place(message) for message in taken]
                        if [place.consumer_sequence for place in places] != [*range(expected, expected + len(taken))]:
                            pull.interruptions += 1
                            break
                        expected += len(taken)
                        last = places[-1].sequence
                        was_done, is_done = is_done, is_done or places[-1].pending == 0
                        yield taken, is_done and not was_done
                    if pull.interruptions:
                        break
        except (
            NotFound,
            Unavailable,
        ):  # its consumer went, or NATS did: if the stream is gone too, the next one says so
            await asyncio.sleep(AGAIN)
        finally:
            await _forget(connection, stream, made["name"])
        if is_done and not follow:
            return
        if not is_done and start["deliver_policy"] == "last_per_subject":
            raise Unavailable("The broker went away in the middle of the answer.")
        start = {"deliver_policy": "by_start_sequence", "opt_start_seq": last + 1}


async def _forget(connection: Connection, stream: str, consumer: str) -> None:
    """Delete a reader's consumer without waiting for it; JetStream would do so later by itself."""
    with contextlib.suppress(IsaError):
        await connection.publish(f"$JS.API.CONSUMER.DELETE.{stream}.{consumer}", b"")
