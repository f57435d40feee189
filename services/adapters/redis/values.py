"""Values under keys: one at a time, many at a time, and their names."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from isa.cache.v1 import cache_pb2
from kernel import (
    AlreadyExists,
    Caller,
    DeadlineExceeded,
    InvalidArgument,
    IsaError,
    NotFound,
    PreconditionFailed,
    Unavailable,
    concerns,
    status,
)
from services.adapters.redis.codec import (
    DATA,
    LONGEST_NAME,
    duration,
    isolate,
    literal,
    milliseconds,
    read_cursor,
    tenant,
    version,
    write_cursor,
)
from services.adapters.redis.connection import ReplyError, Word
from services.adapters.redis.part import ANSWER, LARGEST_VALUE, Part, fit, grows, key, missing, permit, refusal
from services.adapters.redis.scripts import MGET, SWAP

PAGE = 1000
"""Names that Redis looks at in one step of a scan; of all tenants, so most of them may be another's."""
STEPS = 20
"""Steps of one call."""


class Values(Part):
    """Get, Set and what belongs to them."""

    async def get(self, caller: Caller, request: cache_pb2.GetRequest) -> cache_pb2.GetResponse:
        """Return a value."""
        try:
            value: bytes | None = await self._redis.execute("GET", key(caller, request))
        except ReplyError as error:
            if "WRONGTYPE" not in str(error):
                raise
            raise NotFound("The key holds a collection, and no value.", key=request.key) from None
        if value is None:
            raise missing(request)
        if request.with_version:
            return cache_pb2.GetResponse(value=value, version=version(value))
        return cache_pb2.GetResponse(value=value)

    @grows
    async def set(self, caller: Caller, request: cache_pb2.SetRequest) -> cache_pb2.SetResponse:
        """Store a value."""
        await self._store(key(caller, request), request)
        return cache_pb2.SetResponse()

    async def delete(self, caller: Caller, request: cache_pb2.DeleteRequest) -> cache_pb2.DeleteResponse:
        """Remove a key."""
        return cache_pb2.DeleteResponse(deleted=await self._redis.execute("UNLINK", key(caller, request)) == 1)

    async def exists(self, caller: Caller, request: cache_pb2.ExistsRequest) -> cache_pb2.ExistsResponse:
        """Tell whether a key is there."""
        return cache_pb2.ExistsResponse(exists=await self._redis.execute("EXISTS", key(caller, request)) == 1)

    async def expire(self, caller: Caller, request: cache_pb2.ExpireRequest) -> cache_pb2.ExpireResponse:
        """Give a key a time to live."""
        name = key(caller, request)
        if not await self._redis.execute("PEXPIRE", name, milliseconds(request.ttl, "ttl")):
            raise missing(request)
        return cache_pb2.ExpireResponse()

    async def persist(self, caller: Caller, request: cache_pb2.PersistRequest) -> cache_pb2.PersistResponse:
        """Take a key's time to live away."""
        link, name = await self._redis.link(), key(caller, request)
        exists, _ = await asyncio.gather(link.send("EXISTS", name), link.send("PERSIST", name))
        if not exists:
            raise missing(request)
        return cache_pb2.PersistResponse()

    async def ttl(self, caller: Caller, request: cache_pb2.TtlRequest) -> cache_pb2.TtlResponse:
        """Tell a key's time to live."""
        left: int = await self._redis.execute("PTTL", key(caller, request))
        if left == -2:
            raise missing(request)
        return cache_pb2.TtlResponse(ttl=None if left == -1 else duration(left))

    @grows
    async def incr(self, caller: Caller, request: cache_pb2.IncrRequest) -> cache_pb2.IncrResponse:
        """Add to a counter."""
        by = request.by if request.HasField("by") else 1
        return cache_pb2.IncrResponse(value=await self._redis.execute("INCRBY", key(caller, request), by))

    async def mget(self, caller: Caller, request: cache_pb2.MGetRequest) -> cache_pb2.MGetResponse:
        """Return values."""
        keys = list(request.keys)
        permit(keys, "keys")
        self._shares.spend(caller, len(keys) - 1)
        names, failures = _names(caller, request.scope, keys)
        concerns(*keys)
        values: list[bytes | None] = await self._redis.run(MGET, names, ANSWER) if names else []
        if not failures and len(values) == len(keys) and None not in values:
            return cache_pb2.MGetResponse(values=values)  # type: ignore[arg-type]  # none of them is None
        return _answer(len(keys), values, failures)

    @grows
    async def mset(self, caller: Caller, request: cache_pb2.MSetRequest) -> cache_pb2.MSetResponse:
        """Store values."""
        entries = request.entries
        permit(entries, "entries")
        self._shares.spend(caller, len(entries) - 1)
        concerns(*[entry.key for entry in entries])
        link, sent, failures = await self._redis.link(), [], {}
        for index, entry in enumerate(entries):
            try:
                (name,) = isolate(caller, entry.scope, (entry.key,))
                if entry.WhichOneof("condition") is None:
                    sent.append((index, link.send("SET", name, *_stored(entry))))
                else:
                    sent.append((index, asyncio.ensure_future(self._store(name, entry))))
            except IsaError as error:
                failures[index] = error
        await _settled(sent, failures)
        return cache_pb2.MSetResponse(failures=_failures(failures))

    async def mdelete(self, caller: Caller, request: cache_pb2.MDeleteRequest) -> cache_pb2.MDeleteResponse:
        """Remove keys."""
        keys = list(request.keys)
        permit(keys, "keys")
        self._shares.spend(caller, len(keys) - 1)
        names, failures = _names(caller, request.scope, keys)
        concerns(*keys)
        link = await self._redis.link()
        indexes = [index for index in range(len(keys)) if index not in failures]
        sent = [(index, link.send("UNLINK", name)) for index, name in zip(indexes, names, strict=True)]
        removed = await _settled(sent, failures)
        return cache_pb2.MDeleteResponse(
            deleted=[removed.get(index) == 1 for index in range(len(keys))], failures=_failures(failures)
        )

    async def scan(self, caller: Caller, request: cache_pb2.ScanRequest) -> cache_pb2.ScanResponse:
        """Return a page of names."""
        head = DATA + tenant(caller.org, caller.user, caller.workload, request.scope)
        if "\0" in request.prefix or len(request.prefix.encode()) > LONGEST_NAME:
            raise InvalidArgument(f"A prefix has at most {LONGEST_NAME} bytes and no NUL.", field="prefix")
        concerns(f"{request.prefix}*")
        begins = head + request.prefix
        position = read_cursor(request.cursor, begins) if request.cursor else b"0"
        found: dict[bytes, None] = {}
        for _ in range(STEPS):
            position, names = await self._redis.execute("SCAN", position, "MATCH", f"{literal(begins)}*", "COUNT", PAGE)
            found |= dict.fromkeys(names)
            if position == b"0" or len(found) >= PAGE:
                break
        return cache_pb2.ScanResponse(
            keys=[name[len(head) :].decode() for name in found],
            next_cursor="" if position == b"0" else write_cursor(position, begins),
        )

    async def _store(self, name: str, entry: cache_pb2.SetRequest) -> None:
        """Set one value, if its condition holds."""
        words = _stored(entry)
        condition = entry.WhichOneof("condition")
        if condition == "if_version":
            if not await self._redis.run(SWAP, (name,), entry.if_version, *words):
                raise PreconditionFailed("The value is no longer of this version.", field="if_version")
            return
        if entry.if_absent:
            words.append("NX")
        if await self._redis.execute("SET", name, *words) is None:
            raise AlreadyExists("The key is there already.", key=entry.key)


def _stored(entry: cache_pb2.SetRequest) -> list[Word]:
    """The value and its time to live, as SET takes them."""
    value = entry.value
    fit((value,), "value", largest=LARGEST_VALUE)
    return [value, "PX", milliseconds(entry.ttl, "ttl")] if entry.HasField("ttl") else [value]


def _names(caller: Caller, scope: int, keys: Sequence[str]) -> tuple[list[str], dict[int, IsaError]]:
    """The names of the good keys, and what is wrong with each of the others."""
    try:
        return isolate(caller, scope, keys), {}
    except InvalidArgument as error:
        if error.field == "scope":
            raise
    names: list[str] = []
    failures: dict[int, IsaError] = {}
    for index, each in enumerate(keys):
        try:
            names += isolate(caller, scope, (each,), field=f"keys[{index}]")
        except InvalidArgument as error:
            failures[index] = error
    return names, failures


def _answer(count: int, values: Sequence[bytes | None], failures: dict[int, IsaError]) -> cache_pb2.MGetResponse:
    """The answer where not every key has a value, or not all fit."""
    response = cache_pb2.MGetResponse(values=[b""] * count, failures=_failures(failures))
    good = [index for index in range(count) if index not in failures]
    response.unread.extend(good[len(values) :])
    for index, value in zip(good, values, strict=False):
        if value is None:
            response.absent.append(index)
        else:
            response.values[index] = value
    return response


def _failures(failures: dict[int, IsaError]) -> Iterable[cache_pb2.Failure]:
    return [cache_pb2.Failure(index=index, error=status(error)) for index, error in sorted(failures.items())]


async def _settled(sent: Sequence[tuple[int, asyncio.Future[Any]]], failures: dict[int, IsaError]) -> dict[int, Any]:
    """The results of what was sent, by position; what failed goes to the failures, an outage to the caller."""
    results: dict[int, Any] = {}
    answers = await asyncio.gather(*(answer for _, answer in sent), return_exceptions=True)
    for (index, _), answer in zip(sent, answers, strict=True):
        if isinstance(answer, BaseException):
            failures[index] = refusal(answer)
            if isinstance(failures[index], Unavailable | DeadlineExceeded):
                raise failures[index]
        else:
            results[index] = answer
    return results
