"""Messages on channels, to who listens now."""

from __future__ import annotations

import asyncio
import os.path
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from isa.cache.v1 import cache_pb2
from kernel import Caller, IsaError, Parts, Unavailable, concerns
from services.adapters.redis.codec import CHANNEL, isolate, literal, pattern, tenant
from services.adapters.redis.connection import AGAIN, Redis
from services.adapters.redis.part import Part, fit, permit

NAMES = 100
"""Channels and patterns of one subscription."""
UNREAD = (1000, 8 << 20)
"""Messages, and their bytes, that wait for a slow reader; of more the oldest are dropped."""


class Listener:
    """What came for one reader, and was not read yet."""

    def __init__(self, fits: Callable[[str], bool]) -> None:
        self.fits = fits
        self._messages: deque[tuple[str, bytes]] = deque()
        self._bytes = 0
        self._dropped = 0
        self._is_over = False
        self._woken = asyncio.Event()

    def take(self, channel: str, data: bytes) -> None:
        """Keep a message, at the cost of the oldest when there are too many."""
        self._messages.append((channel, data))
        self._bytes += len(data)
        while len(self._messages) > UNREAD[0] or self._bytes > UNREAD[1]:
            self._bytes -= len(self._messages.popleft()[1])
            self._dropped += 1
        self._woken.set()

    def end(self) -> None:
        """Let the reader know that messages may be lost from here on."""
        self._is_over = True
        self._woken.set()

    async def within(self, seconds: float) -> None:
        """Return when something came, or after a time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait()

    async def wait(self) -> tuple[list[tuple[str, bytes]], int]:
        """What came since the last time, and how much of it was dropped."""
        await self._woken.wait()
        self._woken.clear()
        if self._is_over and not self._messages:
            raise _interrupted()
        if self._is_over:
            self._woken.set()
        messages, dropped = list(self._messages), self._dropped
        self._messages.clear()
        self._bytes = self._dropped = 0
        return messages, dropped


class Channels:
    """A connection of its own for messages, shared by all who listen."""

    def __init__(self, connect: Callable[[Callable[[list[Any]], None], Callable[[], None]], Redis]) -> None:
        self.redis = connect(self._deliver, self._interrupt)
        self._listeners: dict[bytes, set[Listener]] = {}
        """By the pattern that Redis knows."""

    @asynccontextmanager
    async def listen(self, begins: str, fits: Callable[[str], bool]) -> AsyncIterator[Listener]:
        """Listen, from when this is entered on, to the channels that begin so and fit."""
        link = await self.redis.link()
        names, listener = f"{literal(begins)}*".encode(), Listener(fits)
        listeners = self._listeners.setdefault(names, set())
        if not listeners:
            link.tell("PSUBSCRIBE", names)
        listeners.add(listener)
        try:
            await link.send("PING")  # answered after the subscription
            yield listener
        finally:
            listeners.discard(listener)
            if not listeners and self._listeners.get(names) is listeners:
                del self._listeners[names]
                link.tell("PUNSUBSCRIBE", names)

    def _deliver(self, push: list[Any]) -> None:
        if push[0] != b"pmessage":
            return
        _, names, channel, data = push
        name = channel.decode(errors="replace")
        for listener in self._listeners.get(names, ()):
            if listener.fits(name):
                listener.take(name, data)

    def _interrupt(self) -> None:
        lost, self._listeners = self._listeners, {}
        for listeners in lost.values():
            for listener in listeners:
                listener.end()


class Messages(Part):
    """The methods of channels."""

    def __init__(self, redis: Redis, channels: Channels, parts: Parts) -> None:
        super().__init__(redis, parts)
        self._channels = channels

    async def publish(self, caller: Caller, request: cache_pb2.PublishRequest) -> cache_pb2.PublishResponse:
        """Send a message."""
        (channel,) = isolate(caller, request.scope, (request.channel,), kind=CHANNEL, field="channel")
        concerns(request.channel)
        fit((request.data,), "data")
        await self._redis.execute("PUBLISH", channel, request.data)
        return cache_pb2.PublishResponse()

    async def subscribe(
        self, caller: Caller, request: cache_pb2.SubscribeRequest
    ) -> AsyncIterator[cache_pb2.SubscribeResponse]:
        """Send messages as they come."""
        head = CHANNEL + tenant(caller.org, caller.user, caller.workload, request.scope)
        channels, patterns = list(request.channels), list(request.patterns)
        permit(channels + patterns, "channels", most=NAMES)
        wanted = set(isolate(caller, request.scope, channels, kind=CHANNEL, field="channels", is_many=True))
        isolate(caller, request.scope, patterns, kind=CHANNEL, field="patterns", is_many=True)
        concerns(*channels, *patterns)
        globs = [pattern(each) for each in patterns]
        begins = os.path.commonprefix([*channels, *(beginning for beginning, _ in globs)])  # noqa: RUF071 -- of text, no path

        def fits(name: str) -> bool:
            return name in wanted or any(glob.fullmatch(name, len(head)) for _, glob in globs)

        async with self._channels.listen(head + begins, fits) as listener:
            yield cache_pb2.SubscribeResponse()
            while True:
                came, dropped = await listener.wait()
                messages = [cache_pb2.Message(channel=name[len(head) :], data=data) for name, data in came]
                yield cache_pb2.SubscribeResponse(messages=messages, dropped=dropped)


def _interrupted() -> IsaError:
    return Unavailable("The subscription was interrupted: messages may be lost. Subscribe again.", retry_after=AGAIN)
