"""Everything that knows gRPC: channels, calls, retries, and errors from the wire."""

from __future__ import annotations

import asyncio
import functools
import math
import random
import re
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from isa_common._breaker import Breaker
from isa_common._contract import Method
from isa_common.errors import (
    Code,
    DeadlineExceeded,
    InvalidArgument,
    IsaError,
    MessageTooLarge,
    NotFound,
    Unavailable,
    error_class,
)

TokenSource = Callable[[], Awaitable[str]]
MetadataSource = Callable[[], Mapping[str, str]]

MESSAGE_LIMIT = 16 * 1024 * 1024
"""Bytes of a request or an answer; streams have it a message."""

CORRELATION_HEADER = "isa-correlation-id"
_STATUS_HEADER = "grpc-status-details-bin"
_MANY = 1000
"""Attempts of one call; its deadline ends it long before."""
_NOT_SERVED = frozenset({Code.UNKNOWN, Code.UNAVAILABLE, Code.INTERNAL})
"""What a sidecar answers while the app behind it is away; our servers always send an ErrorInfo."""
_PLAIN = {
    Code.UNAVAILABLE: "The service could not be reached; is its address right, and is it running?",
    Code.DEADLINE_EXCEEDED: "The call took longer than its deadline.",
}
_FAILURES = (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.CancelledError)
_ADDRESS = re.compile(r"(?:dns|ipv4|ipv6|unix|unix-abstract|xds):\S+|(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]@]+):\d{1,5}")
_HEALTHY = frozenset(
    {grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING, grpc.ChannelConnectivity.READY}
)
_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),  # how long one attempt to connect may take
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 0),
    ("grpc.http2.max_pings_without_data", 2),
    ("grpc.enable_retries", 0),  # retried here, where RetryInfo and the method's idempotency are known
    ("grpc.use_local_subchannel_pool", 1),  # a rebuilt channel must not inherit the old one's back-off
]


class Link:
    """One address on one loop: its channel, shared by every client that talks to it."""

    def __init__(self, address: str, credentials: grpc.ChannelCredentials | None) -> None:
        self.address = address
        self.users = 0
        self.reconnects = 0
        self.outages = 0
        self._credentials = credentials
        self._calls: dict[str, Any] = {}
        self._breakers: dict[str, Breaker] = {}
        self._connector: asyncio.Task[None] | None = None
        self._waiting = 0
        self._has_connected = False
        self._rebuild_at: float | None = None
        """When this outage has lasted long enough for a new channel; None while there is no outage."""
        self._closing: set[asyncio.Task[None]] = set()
        self._channel: grpc.aio.Channel | None = self._open()

    @property
    def is_healthy(self) -> bool:
        """Whether the channel is connected or on its way; asks no network."""
        return self._channel is not None and self._channel.get_state() in _HEALTHY

    def is_ready(self) -> bool:
        """Whether a call can go out at once; if so, an outage is over."""
        channel = self._channel
        if channel is None or channel.get_state() is not grpc.ChannelConnectivity.READY:
            return False
        self._rebuild_at = None
        self._has_connected = True
        return True

    def breaker(self, app_id: str) -> Breaker:
        """The breaker of what is behind this address: an adapter, or one of a sidecar's apps."""
        breaker = self._breakers.get(app_id)
        if breaker is None:
            breaker = self._breakers[app_id] = Breaker()
        return breaker

    def callable(self, method: Method) -> Any:  # grpc.aio's multi-callables are generic in ways that need Any
        """What makes a call of a method on the current channel."""
        call = self._calls.get(method.path)
        if call is None:
            if self._channel is None:
                self.rebuild()
            make = getattr(self._channel, method.kind)
            call = make(method.path, request_serializer=method.serialize, response_deserializer=method.deserialize)
            self._calls[method.path] = call
        return call

    async def ready(self, within: float) -> bool:
        """Wait until connected, False when time is up. All who wait share one connector, which ends with the last."""
        connector = self._connector
        if connector is None or connector.done():
            connector = self._connector = asyncio.ensure_future(self._connect())
        self._waiting += 1
        try:
            await asyncio.wait({connector}, timeout=within)
            return connector.done()
        finally:
            self._waiting -= 1
            if not self._waiting and not connector.done():
                connector.cancel()
                self._connector = None

    async def _connect(self) -> None:
        """Return once connected. gRPC reconnects by itself; an outage that lasts gets one new channel."""
        loop = asyncio.get_running_loop()
        while not self.is_ready():
            channel = self._channel
            if channel is None or channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN:
                self.rebuild()
                continue
            if self._rebuild_at is None:
                self._rebuild_at = loop.time() + random.uniform(1.0, 2.0)
                self.outages += self._has_connected
            state = channel.get_state(try_to_connect=True)
            if state in (grpc.ChannelConnectivity.READY, grpc.ChannelConnectivity.SHUTDOWN):
                continue
            try:
                async with asyncio.timeout_at(self._rebuild_at):
                    await channel.wait_for_state_change(state)
            except TimeoutError:
                self.rebuild()
                self._rebuild_at = math.inf
            except (grpc.aio.UsageError, RuntimeError):
                await asyncio.sleep(0)  # closed while it was watched

    def rebuild(self) -> None:
        """Replace the channel; calls in flight on the old one get a few seconds to end."""
        old, self._channel = self._channel, self._open()
        self._calls.clear()
        self.reconnects += 1
        if old is not None:
            task = asyncio.ensure_future(old.close(grace=5))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close the channel, and wait for those that it replaced."""
        channel, self._channel = self._channel, None
        self._calls.clear()
        if self._connector is not None:
            self._connector.cancel()
            self._connector = None
        if channel is not None:
            await channel.close()
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _open(self) -> grpc.aio.Channel:
        if self._credentials is not None:
            return grpc.aio.secure_channel(self.address, self._credentials, options=_OPTIONS)
        return grpc.aio.insecure_channel(self.address, options=_OPTIONS)


_pool: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[str, bytes | None], Link]] = WeakKeyDictionary()
"""The channels of this process, by loop."""
_pool_lock = threading.Lock()


def _join(loop: asyncio.AbstractEventLoop, address: str, root_certificate: bytes | None) -> Link:
    with _pool_lock:
        for ended in [each for each in _pool if each.is_closed()]:
            del _pool[ended]
        links = _pool.setdefault(loop, {})
    link = links.get((address, root_certificate))
    if link is None:
        credentials = grpc.ssl_channel_credentials(root_certificate) if root_certificate is not None else None
        link = links[address, root_certificate] = Link(address, credentials)
    link.users += 1
    return link


async def _leave(loop: asyncio.AbstractEventLoop, address: str, root_certificate: bytes | None, link: Link) -> None:
    link.users -= 1
    if link.users <= 0:
        with _pool_lock:
            links = _pool.get(loop, {})
            links.pop((address, root_certificate), None)
            if not links:
                _pool.pop(loop, None)
        await link.close()


class Transport:
    """Calls methods at one address: with a token, a deadline, retries where they are safe, and a breaker."""

    def __init__(
        self,
        address: str,
        *,
        token: str | TokenSource = "",
        timeout: timedelta = timedelta(seconds=10),
        connect_timeout: timedelta = timedelta(seconds=5),
        metadata: MetadataSource | None = None,
        app_ids: Mapping[str, str] | None = None,
        sidecar_token: str = "",
        root_certificate: bytes | None = None,
    ) -> None:
        if not _ADDRESS.fullmatch(address):
            raise InvalidArgument(
                f"{address!r} is no address: give host:port, such as localhost:50001.", field="target"
            )
        self.address = address
        self._token = token
        self._timeout = timeout.total_seconds()
        self._connect_timeout = connect_timeout.total_seconds()
        self._metadata = metadata
        self._app_ids = app_ids
        self._sidecar_token = sidecar_token
        self._root_certificate = root_certificate
        self._links: WeakKeyDictionary[asyncio.AbstractEventLoop, Link] = WeakKeyDictionary()
        self._headers: dict[tuple[str, str], tuple[str, tuple[tuple[str, str], ...]]] = {}

    @property
    def is_connected(self) -> bool:
        """Whether a channel is held; it may be unhealthy."""
        return bool(self._links)

    @property
    def is_healthy(self) -> bool:
        """Whether the channel can carry calls; connects nothing, and is False before the first call."""
        return bool(self._links) and all(link.is_healthy for link in self._links.values())

    @property
    def reconnects(self) -> int:
        """How often the channel was replaced."""
        return sum(link.reconnects for link in self._links.values())

    @property
    def outages(self) -> int:
        """How often a connection was lost."""
        return sum(link.outages for link in self._links.values())

    async def reconnect(self) -> None:
        """Replace the channel, for every client of this address."""
        is_new = asyncio.get_running_loop() not in self._links
        link = self._link()
        if not is_new:
            link.rebuild()

    async def close(self) -> None:
        """Let go of the channel; the last client of an address closes it. A later call opens it again."""
        loop = asyncio.get_running_loop()
        link = self._links.pop(loop, None)
        if link is not None:
            await _leave(loop, self.address, self._root_certificate, link)

    async def health(self, capability: str, *, timeout: timedelta) -> bool:
        """Ask whether the service of a capability serves."""
        try:
            status: int = await self.unary(
                _health(capability), f"isa.{capability}.v1.{capability.title()}", timeout=timeout
            )
        except (Unavailable, DeadlineExceeded, NotFound):
            return False
        return status == _SERVING

    def _link(self) -> Link:
        """This loop's link, joined on first use."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            for ended in [each for each in self._links if each.is_closed()]:
                del self._links[ended]
            link = self._links[loop] = _join(loop, self.address, self._root_certificate)
        return link

    async def unary(
        self,
        method: Method,
        request: Any,
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> Any:
        """Call a method with one answer."""
        attempts = _Attempts(method, self._timeout if timeout is None else timeout.total_seconds())
        while True:
            link, breaker, metadata = await self._begin(method, acting, attempts)
            try:
                response = await link.callable(method)(request, timeout=attempts.left(), metadata=metadata)
            except _FAILURES as failure:
                await self._failed(failure, breaker, attempts)
            else:
                breaker.record(Code.OK)
                return response

    async def stream(
        self,
        method: Method,
        request: Any,
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> AsyncIterator[Any]:
        """Call a method with many answers; repeated only while none has come. Timeout zero means none."""
        attempts = _Attempts(method, self._timeout if timeout is None else timeout.total_seconds())
        while True:
            link, breaker, metadata = await self._begin(method, acting, attempts)
            has_answers = False
            call = None
            try:
                call = link.callable(method)(request, timeout=attempts.left(), metadata=metadata)
                async for response in call:
                    has_answers = True
                    yield response
            except _FAILURES as failure:
                await self._failed(failure, breaker, attempts, is_final=has_answers)
            else:
                breaker.record(Code.OK)
                return
            finally:
                if call is not None and not call.done():
                    call.cancel()

    async def collect(
        self,
        method: Method,
        requests: AsyncIterator[Any],
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> Any:
        """Call a method that takes many requests and answers once; never repeated once a request was taken."""
        attempts = _Attempts(method, self._timeout if timeout is None else timeout.total_seconds())
        sending = _Requests(requests)
        while True:
            link, breaker, metadata = await self._begin(method, acting, attempts)
            call = None
            try:
                call = sending.on(link.callable(method)(sending, timeout=attempts.left(), metadata=metadata))
                response = await call
            except _FAILURES as failure:
                failure = sending.told or failure
                sending.check()
                await self._failed(failure, breaker, attempts, is_final=sending.is_taken)
            else:
                breaker.record(Code.OK)
                return response
            finally:
                if call is not None and not call.done():
                    call.cancel()

    async def duplex(
        self,
        method: Method,
        requests: AsyncIterator[Any],
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> AsyncIterator[Any]:
        """Call a method with many requests and many answers, each as they come; Timeout zero means none.

        Never repeated once a request was taken or an answer came. Leaving the iteration early cancels the call.
        """
        attempts = _Attempts(method, self._timeout if timeout is None else timeout.total_seconds())
        sending = _Requests(requests)
        while True:
            link, breaker, metadata = await self._begin(method, acting, attempts)
            has_answers = False
            call = None
            try:
                call = sending.on(link.callable(method)(sending, timeout=attempts.left(), metadata=metadata))
                async for response in call:
                    has_answers = True
                    yield response
            except _FAILURES as failure:
                failure = sending.told or failure
                sending.check()
                await self._failed(failure, breaker, attempts, is_final=sending.is_taken or has_answers)
            else:
                breaker.record(Code.OK)
                return
            finally:
                if call is not None and not call.done():
                    call.cancel()

    async def _begin(
        self, method: Method, acting: Mapping[str, str], attempts: _Attempts
    ) -> tuple[Link, Breaker, tuple[tuple[str, str], ...]]:
        """What an attempt needs: a connected link, a closed breaker, and fresh metadata."""
        link = self._link()
        app_id = "" if self._app_ids is None else self._app_ids.get(method.capability, "")
        if not app_id and self._app_ids is not None:
            raise InvalidArgument(f"No app is known for {method.capability}: name it in app_ids.", field="app_ids")
        breaker = link.breaker(app_id)
        if breaker.failures:
            await attempts.admitted(breaker)
        attempts.seen = breaker.failures
        token = self._token if isinstance(self._token, str) else await self._token()
        known = self._headers.get((app_id, method.path))  # a health check has one path for all apps
        if known is None or known[0] is not token:
            known = self._headers[app_id, method.path] = (token, self._fixed(method, token, app_id))
        if self._metadata is None:
            metadata = (*known[1], (CORRELATION_HEADER, attempts.request_id), *acting.items())
        else:
            given = dict(self._metadata())
            attempts.request_id = given.setdefault(CORRELATION_HEADER, attempts.request_id)
            metadata = (*given.items(), *known[1], *acting.items())
        if not link.is_ready():
            left = attempts.left()
            within = self._connect_timeout if left is None else min(self._connect_timeout, left)
            if not await link.ready(within):
                breaker.record(Code.UNAVAILABLE, seen=attempts.seen)
                raise _unreached(attempts.request_id)
        return link, breaker, metadata

    def _fixed(self, method: Method, token: str, app_id: str) -> tuple[tuple[str, str], ...]:
        """The metadata that all calls of a method have while the token is the same."""
        metadata = []
        if token:
            metadata.append(("authorization", f"Bearer {token}"))
        if app_id:
            metadata.append(("dapr-app-id", app_id))
            if self._sidecar_token:
                metadata.append(("dapr-api-token", self._sidecar_token))
            if method.kind != "unary_unary":
                metadata.append(("dapr-stream", "true"))
        return tuple(metadata)

    async def _failed(
        self, failure: BaseException, breaker: Breaker, attempts: _Attempts, *, is_final: bool = False
    ) -> None:
        """Return when a call is to be tried again, else raise its error."""
        is_unsent = False
        match failure:
            case grpc.aio.AioRpcError():
                error = _error(failure, attempts.request_id)
                breaker.record(error.code, seen=attempts.seen)
            case asyncio.CancelledError():
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise failure
                error = _unreached(attempts.request_id)  # the channel was replaced, and its calls ended
            case _:  # the channel was closed before this call was sent; the next attempt finds a new one
                error, is_unsent = _unreached(attempts.request_id), True
        if is_final:
            raise error from None
        await attempts.again(error, unsent=is_unsent)


_SERVING = 1


@functools.cache
def _health(capability: str) -> Method:
    """grpc.health.v1's Check, in its wire form: one field each way, and no generated code that another package has."""
    return Method(
        path="/grpc.health.v1.Health/Check",
        capability=capability,
        kind="unary_unary",
        is_idempotent=False,
        serialize=lambda service: b"\x0a" + bytes([len(service)]) + service.encode(),
        deserialize=lambda answer: answer[1] if len(answer) > 1 else 0,
    )


class _Requests:
    """The requests of a caller on their way; knows whether one was taken, and keeps what went wrong in their making."""

    __slots__ = ("_error", "_requests", "is_taken", "told")

    def __init__(self, requests: AsyncIterator[Any]) -> None:
        self._requests = requests
        self._error: Exception | None = None
        self.is_taken = False
        self.told: grpc.aio.AioRpcError | None = None
        """The status that ended the call early."""

    def on(self, call: Any) -> Any:
        """Note a call's status as it comes: a write that then fails puts INTERNAL in its place, see grpc/grpc#36066."""
        self.told = None
        call.add_done_callback(self._note)
        return call

    def _note(self, call: Any) -> None:
        code, details, trailing = (_at_hand(each()) for each in (call.code, call.details, call.trailing_metadata))
        if code not in (None, grpc.StatusCode.OK, grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED):
            self.told = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        self.is_taken = True
        try:
            return await anext(self._requests)
        except StopAsyncIteration:
            raise
        except Exception as error:
            self._error = error
            raise

    def check(self) -> None:
        """Raise what the making of a request raised: gRPC only ends the call for it."""
        if self._error is not None:
            raise self._error


def _at_hand(answer: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine that has nothing to wait for returns; None when it does wait."""
    try:
        answer.send(None)
    except StopIteration as end:
        return end.value
    answer.close()
    return None


class _Attempts:
    """When one call may be tried again: if that is safe, with growing jittered pauses, in its deadline."""

    __slots__ = ("_count", "_deadline", "_is_idempotent", "request_id", "seen")

    def __init__(self, method: Method, timeout: float) -> None:
        self.request_id = f"{random.getrandbits(128):032x}"
        self._is_idempotent = method.is_idempotent
        self._deadline = time.monotonic() + timeout if timeout else None
        self._count = 0
        self.seen = 0
        """Failures that the breaker had counted when the attempt began."""

    def left(self) -> float | None:
        """Seconds to the deadline, None without one."""
        if self._deadline is None:
            return None
        return max(self._deadline - time.monotonic(), 0.001)

    async def admitted(self, breaker: Breaker) -> None:
        """Pass the breaker: while it is open a new call is refused at once, and one that was tried before waits."""
        while True:
            try:
                breaker.check()
            except Unavailable as refusal:
                if not self._count:
                    raise
                await self.again(refusal, unsent=True)
            else:
                return

    async def again(self, error: IsaError, *, unsent: bool = False) -> None:
        """Wait for the next attempt, or raise the error when there is none."""
        self._count += 1
        waiting_helps = error.code is Code.UNAVAILABLE or (
            error.code is Code.RESOURCE_EXHAUSTED and error.retry_after is not None
        )
        if not waiting_helps or not (self._is_idempotent or unsent) or self._count >= _MANY:
            raise error from None
        pause = random.uniform(0.5, 1.0) * min(0.05 * 2 ** min(self._count - 1, 6), 1.0)
        if error.retry_after is not None:
            pause = max(pause, error.retry_after.total_seconds() * random.uniform(1.0, 1.1))
        left = self.left()
        if left is not None and pause >= left:
            raise error from None
        await asyncio.sleep(pause)


def _unreached(request_id: str) -> Unavailable:
    error = Unavailable(_PLAIN[Code.UNAVAILABLE])
    error.request_id = request_id
    return error


def _too_large(request_id: str) -> MessageTooLarge:
    error = MessageTooLarge("A message may have 16 MiB: send or ask for less at a time, or use a stream.")
    error.request_id = request_id
    return error


def _error(failure: grpc.aio.AioRpcError, request_id: str) -> IsaError:
    """Our error for a status of the wire, with everything that its details say."""
    status = Status(code=failure.code().value[0], message=failure.details() or "")
    for key, value in failure.trailing_metadata() or ():
        if key == _STATUS_HEADER and isinstance(value, bytes):
            status.details.extend(Status.FromString(value).details)
    return error_of(status, request_id)


def error_of(status: Status, request_id: str = "") -> IsaError:
    """Our error for a status: of a call, or of one item in the answer of a batch."""
    code, message = Code(status.code), status.message
    info, retry, bad, asked = ErrorInfo(), RetryInfo(), BadRequest(), RequestInfo()
    for detail in status.details:
        for known in (info, retry, bad, asked):
            detail.Unpack(known)
    if not info.reason:  # said by gRPC or a sidecar on the way, in words that name hosts
        code = Code.UNAVAILABLE if code in _NOT_SERVED else code
        if code is Code.RESOURCE_EXHAUSTED and "larger than max" in message:
            return _too_large(request_id)
        message = _PLAIN.get(code, message)
    error = error_class(code, info.reason)(message)
    if info.reason:
        error.reason = info.reason
        error.details = dict(info.metadata)
    if retry.HasField("retry_delay"):
        error.retry_after = retry.retry_delay.ToTimedelta()
    if bad.field_violations:
        error.field = bad.field_violations[0].field
    error.request_id = asked.request_id or request_id
    return error
