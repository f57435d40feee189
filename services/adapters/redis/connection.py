"""One connection to Redis for the commands of all callers: what is sent in a tick goes out in one write.

A command that was sent when the connection broke fails: whether it ran is not known, so it is never sent again. A
connection on which nothing comes back for a while is replaced.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, cast

from hiredis import HiredisError, PushNotification, Reader, pack_command

from isa_common import IsaError
from kernel import DeadlineExceeded, Unavailable, log

Word = str | bytes | int | float
OnPush = Callable[[list[Any]], None]

WAITING = 50_000
"""Commands that may wait for their answer; more are refused."""
UNSENT = 32 << 20
"""Bytes that may wait for the network; more commands are refused until it took them."""
PAUSES = (0.02, 0.5)
"""Seconds between attempts to connect: the first, and the longest."""
AGAIN = timedelta(milliseconds=200)
NOTHING = object()


class ReplyError(Exception):
    """What Redis answered instead of a result."""


class Script:
    """A Lua script: Redis runs it as one step."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def away() -> IsaError:
    """What a caller learns when Redis is not there."""
    return Unavailable("The cache cannot be reached now.", retry_after=AGAIN)


def hung() -> IsaError:
    """What a caller learns when Redis is there and says nothing."""
    return DeadlineExceeded("The cache did not answer in time.")


class Link(asyncio.Protocol):
    """One connection: answers come in the order of the commands."""

    def __init__(self, on_push: OnPush | None) -> None:
        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._reader = Reader(replyError=ReplyError, notEnoughData=NOTHING)
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport | None = None
        self._is_full = False
        self.is_silent = False
        self._on_push = on_push
        self._reason = away

    def send(self, *words: Word) -> asyncio.Future[Any]:
        """Send a command with the others of this tick; the future has its answer."""
        if self._is_full or len(self._waiting) >= WAITING:
            raise Unavailable("The cache is behind with its work.", retry_after=AGAIN)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(answer)
        self.tell(*words)
        return answer

    def tell(self, *words: Word) -> None:
        """Send a command that is answered by a push, if at all."""
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(pack_command(words))  # type: ignore[arg-type]  # the stub says a tuple of one word

    def ping(self) -> None:
        """Ask for a sign of life; `is_silent` until one comes."""
        self.is_silent = True
        answer: asyncio.Future[Any] = self._loop.create_future()
        answer.cancel()  # nobody waits for it
        self._waiting.append(answer)
        self.tell("PING")

    def abort(self, reason: Callable[[], IsaError] = away) -> None:
        """Break the connection; whoever waits learns the reason."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin; asyncio calls this."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT)

    def pause_writing(self) -> None:
        """Refuse commands: the network is slower than the callers."""
        self._is_full = True

    def resume_writing(self) -> None:
        """Take commands again."""
        self._is_full = False

    def data_received(self, data: bytes) -> None:
        """Hand answers to who waits for them."""
        self.is_silent = False
        self._reader.feed(data)
        waiting, read = self._waiting, self._reader.gets
        try:
            while (reply := read()) is not NOTHING:
                if self._on_push is not None and type(reply) is PushNotification:
                    self._on_push(reply)
                    continue
                answer = waiting.popleft()
                if answer.done():
                    continue  # its caller went away
                if type(reply) is ReplyError:
                    answer.set_exception(reply)
                    if reply.args[0].startswith("READONLY"):
                        self.abort()  # no longer the primary: whoever is, answers at the same address
                else:
                    answer.set_result(reply)
        except (HiredisError, IndexError):
            log.error("redis.garbled")
            self.abort()

    def connection_lost(self, error: Exception | None) -> None:
        """Fail what waits."""
        self._transport = None
        self._is_full = True
        self._unsent.clear()
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(self._reason())
        self.lost.set()

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if self._transport is not None:
            self._transport.write(b"".join(unsent))


class Redis:
    """A connection that is made again whenever it breaks."""

    def __init__(
        self,
        host: str,
        port: int,
        *,
        name: str,
        password: Callable[[], Awaitable[str]],
        timeout: timedelta,
        tls: ssl.SSLContext | None = None,
        scripts: tuple[Script, ...] = (),
        on_push: OnPush | None = None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare; with `on_push` the connection is for messages, which it takes, and for nothing else."""
        self._host, self._port = host, port
        self._name = name
        self._password = password
        self._timeout = timeout.total_seconds()
        self._tls = tls
        self._scripts = scripts
        self._on_push = on_push
        self._on_lost = on_lost
        self._link: Link | None = None
        self._is_away = False
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to connect; calls that come before that is done wait for it."""
        self._task = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Close the connection."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        if self._link is not None:
            self._link.abort()

    async def execute(self, *words: Word) -> Any:
        """Run a command and return its answer; Unavailable at once while Redis is away."""
        return await (self._link or await self.link()).send(*words)

    async def run(self, script: Script, keys: tuple[str, ...] | list[str], *arguments: Word) -> Any:
        """Run a script, and give its text to a server that does not have it."""
        try:
            return await self.execute("EVALSHA", script.sha, len(keys), *keys, *arguments)
        except ReplyError as error:
            if not error.args[0].startswith("NOSCRIPT"):
                raise
        return await self.execute("EVAL", script.text, len(keys), *keys, *arguments)

    async def link(self) -> Link:
        """The connection, once the attempt that is under way has made it."""
        if self._link is None and not self._is_away:
            await self._tried.wait()
        if self._link is None:
            raise away()
        return self._link

    async def _keep(self) -> None:
        """Connect, watch, and connect again."""
        pause, longest = PAUSES
        while True:
            try:
                link = await self._connected()
            except Exception as error:  # whatever it was, the next attempt may do better
                if not self._is_away:
                    log.warning("redis.away", reason=str(error) or type(error).__name__)
                self._is_away = True
                self._tried.set()
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(pause * 2, longest)
                continue
            if self._is_away:
                log.info("redis.back")
            pause, self._is_away, self._link = PAUSES[0], False, link
            self._tried.set()
            await self._watch(link)
            self._tried.clear()
            self._link = None
            self._on_lost()

    async def _connected(self) -> Link:
        """Connect and introduce ourselves, or fail in good time."""
        async with asyncio.timeout(min(self._timeout, 1.0)):
            password = await self._password()
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(self._on_push), self._host, self._port, ssl=self._tls
            )
            try:
                steps = [link.send("AUTH", password)] if password else []
                if self._on_push is not None:
                    steps.append(link.send("HELLO", 3))
                steps.append(link.send("CLIENT", "SETNAME", self._name))
                steps += [link.send("SCRIPT", "LOAD", script.text) for script in self._scripts]
                await asyncio.gather(*steps)
            except BaseException:
                link.abort()
                raise
        return link

    async def _watch(self, link: Link) -> None:
        """Return when the connection is lost; lose it when it says nothing for too long."""
        while not link.lost.is_set():
            link.ping()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await link.lost.wait()
            if link.is_silent and not link.lost.is_set():
                log.warning("redis.hung")
                link.abort(hung)
                await link.lost.wait()
