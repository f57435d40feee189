"""What every part of the service has: the connection, the shares, and the rules for what comes in."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Any, Protocol, TypeVar

from google.protobuf.message import Message

from kernel import (
    Caller,
    ErrorMap,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    Parts,
    ResourceExhausted,
    Unavailable,
    concerns,
    log,
)
from services.adapters.redis.codec import isolate
from services.adapters.redis.connection import AGAIN, Redis, ReplyError
from services.adapters.redis.scripts import READ

MANY = 1000
"""Items of a batch, and of a call that changes a collection."""
READABLE = 10_000
"""Items that one call reads of a collection."""
LARGEST_VALUE = 8 << 20
LARGEST_ELEMENT = 1 << 20
ANSWER = 8 << 20
"""Bytes of values that one answer has."""

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Keyed(Protocol):
    """A request about one key."""

    scope: Any
    key: str


class Part:
    """Methods of `isa.cache.v1.Cache` that belong together."""

    def __init__(self, redis: Redis, parts: Parts) -> None:
        self._redis = redis
        self._shares = parts.shares

    async def _read(self, name: str, length: str, command: str, *words: str | int) -> list[bytes]:
        """Read a collection, if what is asked for fits into an answer."""
        found: list[bytes] = await self._redis.run(READ, (name,), READABLE, ANSWER, length, command, *words)
        return found


def key(caller: Caller, request: Keyed) -> str:
    """The name in Redis of the key that a request is about."""
    (name,) = isolate(caller, request.scope, (request.key,))
    concerns(request.key)
    return name


def grows(
    method: Callable[[Any, Caller, Request], Awaitable[Response]],
) -> Callable[[Any, Caller, Request], Awaitable[Response]]:
    """Let a method run only while the organisation has room for what it brings."""

    @functools.wraps(method)
    async def checked(self: Part, caller: Caller, request: Request) -> Response:
        await self._shares.room(caller, request.ByteSize())
        return await method(self, caller, request)

    return checked


def unchecked(method: Callable[..., Any]) -> Callable[..., Any] | None:
    """A method that `grows`, without its check; None for one that does not."""
    return getattr(method, "__wrapped__", None)


def permit(items: Sized, field: str, *, most: int = MANY) -> None:
    """Refuse none and too many."""
    if not 0 < len(items) <= most:
        raise InvalidArgument(f"There are 1 to {most} of them in a call.", field=field)


def fit(values: Sequence[bytes], field: str, *, largest: int = LARGEST_ELEMENT) -> None:
    """Refuse values that are too large."""
    if len(max(values, key=len)) > largest:
        raise InvalidArgument(f"A value has at most {largest} bytes here.", field=field)


def missing(request: Keyed) -> NotFound:
    """What a caller learns of a key that is not there."""
    return NotFound("There is no such key.", key=request.key)


def refusal(error: BaseException) -> IsaError:
    """What a caller learns of an error: ours as it is, one of Redis without its words."""
    if isinstance(error, IsaError):
        return error
    text = str(error)
    if "WRONGTYPE" in text:
        return FailedPrecondition("The key holds another kind of value.", field="key")
    if "TOOBIG" in text:
        return ResourceExhausted(f"This is more than {READABLE} items or {ANSWER} bytes: read it in parts.")
    if "OOM command not allowed" in text:
        return ResourceExhausted("The cache is full.")
    if "not an integer" in text or "overflow" in text:
        return FailedPrecondition("The value is no integer of 64 bits, or would become none.", field="key")
    if text.startswith(_AWAY):
        return Unavailable("The cache is not ready now.", retry_after=AGAIN)
    log.error("redis.refused", exc_info=error)
    return Internal("Something went wrong on our side. The request id finds it in our logs.")


_AWAY = ("LOADING", "READONLY", "MASTERDOWN", "BUSY", "MISCONF", "NOREPLICAS", "TRYAGAIN", "CLUSTERDOWN")

ERRORS: ErrorMap = {ReplyError: refusal}
