"""The one connection to NATS: kept up for ever, and what is asked over it."""

from __future__ import annotations

import asyncio
import itertools
import random
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error

from isa_common import IsaError, ResourceExhausted, Unavailable
from kernel import log
from services.adapters.nats.codec import refusal

BACKLOG = 16 << 20
"""Bytes that may wait to be written; beyond them calls are refused, so that a hung server fills no memory."""
PAUSE = 0.25
"""Seconds between attempts to connect."""
SOON = timedelta(milliseconds=500)

Receive = Callable[[Msg], None]


class NobodyListens(Exception):
    """NATS says that no subscription takes the subject."""


class Listening:
    """A subscription that is made anew with every connection."""

    def __init__(self, subject: str, group: str, receive: Receive, returned: Callable[[], None]) -> None:
        self.subject = subject
        self.group = group
        self.receive = receive
        self.returned = returned
        self.attached: Subscription | None = None

    async def attach(self, client: Client) -> None:
        """Subscribe on a connection."""

        async def receive(message: Msg) -> None:
            self.receive(message)

        self.attached = await client.subscribe(self.subject, queue=self.group, cb=receive)


class Connection:
    """A connection that comes back by itself; while it is away, everything is Unavailable at once.

    nats-py's own reconnection is not used: it would replay what callers were told has failed.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str,
        password: Callable[[], Awaitable[str]],
        timeout: timedelta,
        heartbeat: timedelta,
    ) -> None:
        self._url = url
        self._user = user
        self._password = password
        self._timeout = timeout.total_seconds()
        self._heartbeat = heartbeat.total_seconds()
        self._client: Client | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._inbox = f"_INBOX.{secrets.token_hex(11)}"
        self._numbers = itertools.count(1)
        self._waiting: dict[str, tuple[asyncio.Future[Msg], Callable[[Msg], bool]]] = {}
        self._listening: set[Listening] = set()
        self._first = asyncio.Event()

    async def start(self) -> None:
        """Begin to connect; waits a moment, but not for a server that is away."""
        self._keeper = asyncio.create_task(self._keep())
        with suppress(TimeoutError):
            async with asyncio.timeout(self._timeout):
                await self._first.wait()

    async def stop(self) -> None:
        """Let go of the server."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        if self._closing:
            await asyncio.wait(self._closing)

    def inbox(self) -> str:
        """A subject that nobody else listens on: with our own wildcard over it, JetStream would send to who is gone."""
        return f"{self._inbox}-{next(self._numbers)}"

    async def publish(
        self, subject: str, payload: bytes, headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> None:
        """Put a message on its way; `flush` tells that it arrived."""
        client = self._live()
        if client.pending_data_size > BACKLOG:
            raise ResourceExhausted("The broker takes messages slower than they come.", retry_after=SOON)
        await client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)

    async def request(
        self,
        subject: str,
        payload: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        mark: str = "a",
        accepts: Callable[[Msg], bool] = lambda _: True,
    ) -> Msg:
        """Publish, and wait for the first reply that is accepted; NobodyListens when none can come.

        `mark` begins the last token of the inbox: it tells those who see it what is waited for.
        """
        key = f"{mark}{next(self._numbers)}"
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future, accepts
        try:
            await self.publish(subject, payload, headers, reply=f"{self._inbox}.{key}")
            return await future
        finally:
            del self._waiting[key]

    async def flush(self) -> None:
        """Return when the server has everything that was published before: an echo came back."""
        key = f"e{next(self._numbers)}"
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future, lambda _: True
        try:
            await self.publish(f"{self._inbox}.{key}", b"")
            await future
        finally:
            del self._waiting[key]

    async def api(self, method: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask JetStream; its refusals come as our errors."""
        async with asyncio.timeout(self._timeout):
            try:
                answer = await self.request(f"$JS.API.{method}", orjson.dumps(body) if body is not None else b"")
            except NobodyListens:
                raise Unavailable("The broker keeps no streams at the moment.", retry_after=SOON) from None
        return accepted(answer)

    async def listen(
        self, subject: str, receive: Receive, *, group: str = "", returned: Callable[[], None] = lambda: None
    ) -> Listening:
        """Subscribe, now and after every return of the server, which `returned` tells."""
        client = self._live()
        listening = Listening(subject, group, receive, returned)
        self._listening.add(listening)
        try:
            await listening.attach(client)
        except BaseException:
            self._listening.discard(listening)
            raise
        return listening

    async def leave(self, listening: Listening) -> None:
        """Unsubscribe."""
        self._listening.discard(listening)
        if self._client is not None and listening.attached is not None:
            with suppress(Error):
                await listening.attached.unsubscribe()

    def _live(self) -> Client:
        client = self._client
        if client is None or not client.is_connected:
            raise Unavailable("The broker is away.", retry_after=SOON)
        return client

    def _received(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject[len(self._inbox) + 1 :])
        if waiting is None or waiting[0].done():
            return
        future, accepts = waiting
        if status(message) == "503":
            future.set_exception(NobodyListens())
        elif accepts(message):
            future.set_result(message)

    async def _keep(self) -> None:
        """Connect, watch over the connection, and connect again."""
        was_told = False
        while True:
            client, lost = Client(), asyncio.Event()
            try:
                await self._connect(client, lost)
                was_told = False
                await self._watch(lost)
            except (Error, OSError, TimeoutError, IsaError) as error:
                if not was_told:
                    log.warning("nats.away", reason=type(error).__name__)
                    was_told = True
            except Exception:
                log.exception("nats.failed")
            finally:
                self._lose(client)
            await asyncio.sleep(PAUSE * random.uniform(0.5, 1.0))

    async def _connect(self, client: Client, lost: asyncio.Event) -> None:
        async def gone() -> None:
            lost.set()

        async def failed(_: Exception) -> None:
            """Told to the log by `_keep`."""

        async with asyncio.timeout(self._timeout):
            await client.connect(
                self._url.split(","),
                user=self._user,
                password=await self._password(),
                name="isa",
                allow_reconnect=False,
                connect_timeout=max(1, int(self._timeout)),
                reconnect_time_wait=0,
                max_reconnect_attempts=1,
                disconnected_cb=gone,
                closed_cb=gone,
                error_cb=failed,
                pending_size=BACKLOG * 4,  # never reached: `publish` refuses before nats-py would wait
            )
            await Listening(f"{self._inbox}.*", "", self._received, lambda: None).attach(client)
            listening = list(self._listening)
            for each in listening:
                await each.attach(client)
            self._client = client
            for each in listening:
                each.returned()
            self._first.set()

    async def _watch(self, lost: asyncio.Event) -> None:
        """Return, or fail, when the connection serves no more."""
        while True:
            try:
                async with asyncio.timeout(self._heartbeat):
                    await lost.wait()
            except TimeoutError:
                async with asyncio.timeout(self._timeout):
                    await self.flush()
            else:
                log.warning("nats.away", reason="connection lost")
                return

    def _lose(self, client: Client) -> None:
        self._client = None
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable("The broker went away before it answered.", retry_after=SOON))
        task = asyncio.create_task(_close(client))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


async def _close(client: Client) -> None:
    with suppress(Exception):
        async with asyncio.timeout(2):
            await client.close()


def status(message: Msg) -> str:
    """The code of an answer that is NATS's own and no message, such as 404."""
    if message.data or not message.headers:
        return ""
    return str(message.headers.get("Status", ""))


def accepted(answer: Msg) -> dict[str, Any]:
    """JetStream's answer, or its refusal as our error."""
    told: dict[str, Any] = orjson.loads(answer.data)
    if "error" in told:
        raise refusal(told["error"])
    return told
