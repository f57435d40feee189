"""Calls that never leave the process: the real client classes on services in memory."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from isa_common._contract import Method
from isa_common._transport import MESSAGE_LIMIT, Transport
from isa_common.errors import (
    DeadlineExceeded,
    IsaError,
    MessageTooLarge,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
    error_class,
)

_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_END: Any = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who calls, as a service sees it."""

    org: str = ""
    user: str = ""
    workload: str = ""

    @property
    def tenant(self) -> str:
        """Whose data a call is about: an organisation's, or a workload's own."""
        if not self.org and not self.workload:
            raise PermissionDenied("This needs a token of an organisation.")
        return self.org or f"isa-{self.workload}"

    def acting(self, metadata: Mapping[str, str]) -> Caller:
        """The caller whom a workload acts for; people act for nobody but themselves."""
        org, user = metadata.get("isa-org", ""), metadata.get("isa-user", "")
        if self.workload and (org or user):
            return replace(self, org=org, user=user)
        if (org and org != self.org) or (user and user != self.user):
            raise PermissionDenied("Only our own workloads act for others: leave out isa-org and isa-user.")
        return self


class MemoryTransport(Transport):
    """Calls the services of one cloud by method, with copies of the messages and the errors of the wire."""

    def __init__(self, service: Callable[[str], object], caller: Caller, *, timeout: timedelta) -> None:
        super().__init__("unix:memory", timeout=timeout)
        self._service = service
        self._caller = caller
        self._is_open = False
        self._reconnects = 0

    @property
    def is_connected(self) -> bool:
        """Whether it was used and not closed."""
        return self._is_open

    @property
    def is_healthy(self) -> bool:
        """The same: memory is always there."""
        return self._is_open

    @property
    def reconnects(self) -> int:
        """How often somebody asked for it."""
        return self._reconnects

    async def health(self, capability: str, *, timeout: timedelta) -> bool:
        """Whether memory has the capability."""
        try:
            self._service(capability)
        except Unimplemented:
            return False
        return True

    @property
    def outages(self) -> int:
        """None."""
        return 0

    async def reconnect(self) -> None:
        """Count it."""
        self._is_open = True
        self._reconnects += 1

    async def close(self) -> None:
        """Be as before the first call."""
        self._is_open = False

    async def unary(
        self, method: Method, request: Any, *, timeout: timedelta | None = None, acting: Mapping[str, str] = {}
    ) -> Any:
        """Call a method with one answer."""
        return await self._one(method, _copy(request), timeout, acting)

    async def stream(
        self, method: Method, request: Any, *, timeout: timedelta | None = None, acting: Mapping[str, str] = {}
    ) -> AsyncIterator[Any]:
        """Call a method with many answers."""
        async with aclosing(self._many(method, _copy(request), timeout, acting)) as answers:
            async for answer in answers:
                yield answer

    async def collect(
        self,
        method: Method,
        requests: AsyncIterator[Any],
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> Any:
        """Call a method that takes many requests."""
        return await self._one(method, _copies(requests), timeout, acting)

    async def duplex(
        self,
        method: Method,
        requests: AsyncIterator[Any],
        *,
        timeout: timedelta | None = None,
        acting: Mapping[str, str] = {},
    ) -> AsyncIterator[Any]:
        """Call a method with many requests and many answers."""
        async with aclosing(self._many(method, _copies(requests), timeout, acting)) as answers:
            async for answer in answers:
                yield answer

    async def _one(self, method: Method, request: Any, timeout: timedelta | None, acting: Mapping[str, str]) -> Any:
        request_id = f"{random.getrandbits(128):032x}"
        deadline = asyncio.timeout(self._seconds(timeout))
        try:
            async with deadline:
                return _copy(await self._function(method)(self._caller.acting(acting), request))
        except IsaError as error:
            raise _wired(error, request_id) from None
        except TimeoutError:
            if not deadline.expired():
                raise
            raise _late(request_id) from None

    async def _many(
        self, method: Method, request: Any, timeout: timedelta | None, acting: Mapping[str, str]
    ) -> AsyncGenerator[Any, None]:
        """Run the service beside its reader, as a server does: it does not stand still between two answers."""
        request_id = f"{random.getrandbits(128):032x}"
        answers: asyncio.Queue[Any] = asyncio.Queue(maxsize=64)
        seconds = self._seconds(timeout)
        until = None if seconds is None else asyncio.get_running_loop().time() + seconds

        async def serve() -> None:
            try:
                generator = self._function(method)(self._caller.acting(acting), request)
                async with aclosing(generator):
                    async for answer in generator:
                        await answers.put(_copy(answer))
            except Exception as error:
                await answers.put(error)
            else:
                await answers.put(_END)

        serving = asyncio.ensure_future(serve())
        try:
            while True:
                try:
                    async with asyncio.timeout_at(until):
                        answer = await answers.get()
                except TimeoutError:
                    raise _late(request_id) from None
                if answer is _END:
                    return
                if isinstance(answer, IsaError):
                    raise _wired(answer, request_id) from None
                if isinstance(answer, Exception):
                    raise answer
                yield answer
        finally:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving

    def _function(self, method: Method) -> Callable[..., Any]:
        self._is_open = True
        if not self._caller.org and not self._caller.user and not self._caller.workload:
            raise Unauthenticated("A bearer token is needed: send `authorization: Bearer <token>`.")
        name = _WORD.sub("_", method.path.rpartition("/")[2]).lower()
        contract = method.path.split(".")[1]  # of isa.usage.v1.Usage, which every adapter serves, not the capability
        found: Callable[..., Any] | None = getattr(self._service(contract), name, None)
        if found is None:
            raise Unimplemented(f"The cloud in memory has no {method.path}.")
        return found

    def _seconds(self, timeout: timedelta | None) -> float | None:
        return (self._timeout if timeout is None else timeout.total_seconds()) or None


def _copy(message: Message) -> Message:
    """What the other side would read."""
    if message.ByteSize() > MESSAGE_LIMIT:
        raise MessageTooLarge("A message may have 16 MiB: send or ask for less at a time, or use a stream.")
    return type(message).FromString(message.SerializeToString())


async def _copies(requests: AsyncIterator[Message]) -> AsyncIterator[Message]:
    async for request in requests:
        yield _copy(request)


def _wired(error: IsaError, request_id: str) -> IsaError:
    """The error as it would arrive: of one of the public classes."""
    arrived = error_class(error.code, error.reason)(error.message, field=error.field, retry_after=error.retry_after)
    arrived.reason = error.reason
    arrived.details = dict(error.details)
    arrived.request_id = error.request_id or request_id
    return arrived


def _late(request_id: str) -> DeadlineExceeded:
    error = DeadlineExceeded("The call took longer than its deadline.")
    error.request_id = request_id
    return error
