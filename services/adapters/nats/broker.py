"""What every part of the service shares: the connection, the tokens, the shares, and how batches run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import Message
from google.rpc.status_pb2 import Status

from isa_common import DeadlineExceeded, IsaError, ResourceExhausted
from kernel import Caller, Shares, status
from services.adapters.nats.codec import Tokens, items
from services.adapters.nats.connection import Connection

Request = TypeVar("Request")
Response = TypeVar("Response", bound=Message)

TOGETHER = 1000
"""Items of a batch."""
AT_ONCE = 32
"""Items of a batch that are read at a time, so that no batch fills the memory."""
ANSWER = 15 << 20
"""Bytes of items in the answer to a batch; a message may have 16 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an organisation may make."""

    streams: int
    """Streams and buckets."""
    consumers: int
    """Consumers of all its streams, readers included."""
    stream_bytes: int
    """Bytes of a stream or bucket that does not say how many it keeps."""
    stream_bytes_most: int
    """Bytes that one may say."""
    replicas: int
    """Servers of NATS that keep each stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """The engine behind the service."""

    connection: Connection
    tokens: Tokens
    shares: Shares
    limits: Limits
    _making: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def making(self, caller: Caller) -> asyncio.Lock:
        """Held while a tenant's things are counted and one more is made."""
        return self._making.setdefault(caller.tenant, asyncio.Lock())

    def batch(self, caller: Caller, given: Sequence[Request], field: str) -> Sequence[Request]:
        """The items of a batch, which costs as many calls as it has items."""
        checked = items(given, field, most=TOGETHER)
        self.shares.spend(caller, len(checked) - 1)
        return checked

    async def each(
        self,
        one: Callable[[Caller, Request], Awaitable[Response]],
        caller: Caller,
        given: Sequence[Request],
    ) -> list[Response | Status]:
        """Do all at once, in order as far as they are sent; each fails alone."""

        async def alone(request: Request) -> Response | Status:
            try:
                return await one(caller, request)
            except IsaError as error:
                return status(error)
            except TimeoutError:
                return status(DeadlineExceeded("The broker did not answer in time."))

        return list(await asyncio.gather(*(alone(request) for request in given)))

    async def fitting(
        self,
        one: Callable[[Caller, Request], Awaitable[Response]],
        caller: Caller,
        given: Sequence[Request],
    ) -> AsyncIterator[dict[str, Any]]:
        """Read all, some at a time; what has no room in the answer is to be asked for again."""
        size = 0
        for start in range(0, len(given), AT_ONCE):
            for told in await self.each(one, caller, given[start : start + AT_ONCE]):
                size += told.ByteSize()
                if size > ANSWER and not isinstance(told, Status):
                    yield {"error": status(ResourceExhausted("Ask for fewer at a time."))}
                else:
                    yield outcome(told)


def outcome(told: Message | Status) -> dict[str, Any]:
    """The side of an item's outcome that is to be filled."""
    return {"error": told} if isinstance(told, Status) else {"ok": told}
