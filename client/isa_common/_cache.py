"""What the caller keeps in memory: values, counters, collections, messages, locks and rate limits."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum
from functools import cached_property
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from isa.cache.v1 import cache_pb2
from isa_common._capability import Acting, Capability, acting
from isa_common._coalesce import Coalescer
from isa_common._contract import Method, methods
from isa_common._messages import portions, to_duration
from isa_common._transport import Transport, error_of
from isa_common.errors import FailedPrecondition, IsaError, NotFound

Value = bytes | str
"""What is stored: bytes, or text, which is stored as UTF-8. What is read is bytes."""
Span = timedelta | float
"""A time span; a number is in seconds."""
T = TypeVar("T")

_SERVICE = cache_pb2.DESCRIPTOR.services_by_name["Cache"]
_METHODS = methods(_SERVICE, capability="cache")
_COMMANDS = {
    name: field.name
    for name, each in _SERVICE.methods_by_name.items()
    for field in cache_pb2.Command.DESCRIPTOR.fields
    if field.message_type is each.input_type
}
"""Under which name a pipeline has the command of a method."""
_ONCE = replace(_METHODS["Set"], is_idempotent=False)
"""Set under a condition, which may no longer hold when the first attempt was done."""
_LEVELS = {name: each.GetOptions().idempotency_level for name, each in _SERVICE.methods_by_name.items()}
"""Reads, what may be repeated, and what may not: calls of one level share a pipeline."""
_AGAIN = replace(_METHODS["Pipeline"], is_idempotent=True)
"""A pipeline of nothing but what may be repeated."""
_MOST = 1000
_ANSWER = timedelta(seconds=10)
"""What the answer may take beyond the time that a lock is waited for."""
_MISSING: Any = object()


class Algorithm(IntEnum):
    """How a rate limit counts."""

    FIXED_WINDOW = 1
    """Windows one after the other; around their border twice the limit may pass."""
    SLIDING_WINDOW = 2
    """In no window of this length passes more than the limit."""
    TOKEN_BUCKET = 3
    """A bucket that is refilled steadily, and lets a burst pass."""


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value, and what `set(if_version=...)` wants to know of it."""

    value: bytes
    version: str


@dataclass(frozen=True, slots=True)
class ChannelMessage:
    """A message that somebody published."""

    channel: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a rate limit said."""

    allowed: bool
    remaining: int
    """What may still pass now."""
    retry_after: timedelta
    """When the call could be allowed; zero when it is."""
    reset_after: timedelta
    """When all of it may pass again."""


class Cache(Capability):
    """Values, counters, collections, messages, locks and limits of the caller.

    `organisation` has those that all users of the organisation share. A key is text of at most 512 bytes. Calls that
    are made at the same time go out as one.
    """

    _methods = _METHODS

    def __init__(
        self,
        transport: Transport,
        *,
        acting_for: Mapping[str, str] = {},
        scope: cache_pb2.Scope.ValueType = cache_pb2.SCOPE_UNSPECIFIED,
    ) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._scope = scope
        self._gets = Coalescer(self._get, self._get_all)
        self._sets = Coalescer(self._set, self._set_all)
        self._deletes = Coalescer(self._delete, self._delete_all)
        self._calls = {
            level: Coalescer(self._run, self._run_all if level == _LEVELS["Pipeline"] else self._run_again)
            for level in set(_LEVELS.values())
        }

    @cached_property
    def organisation(self) -> Cache:
        """The same, of what all users of the organisation share."""
        return Cache(self._transport, acting_for=self._acting, scope=cache_pb2.SCOPE_ORGANISATION)

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Cache:
        """Return the same, acting for an organisation; only our own workloads may."""
        return Cache(self._transport, acting_for=acting(caller, org, user), scope=self._scope)

    # Values

    @overload
    async def get(self, key: str, *, timeout: timedelta | None = None) -> bytes: ...

    @overload
    async def get(self, key: str, default: T, *, timeout: timedelta | None = None) -> bytes | T: ...

    async def get(self, key: str, default: Any = _MISSING, *, timeout: timedelta | None = None) -> Any:
        """Return the value of a key; NotFound when there is none and no default is given."""
        try:
            return await self._gets(key, timeout)
        except NotFound:
            if default is _MISSING:
                raise
            return default

    async def get_versioned(self, key: str, *, timeout: timedelta | None = None) -> Versioned:
        """Return the value of a key and its version; NotFound when there is none."""
        request = cache_pb2.GetRequest(scope=self._scope, key=key, with_version=True)
        response = await self._unary(_METHODS["Get"], request, timeout)
        return Versioned(response.value, response.version)

    async def set(
        self,
        key: str,
        value: Value,
        *,
        ttl: Span | None = None,
        if_absent: bool = False,
        if_version: str | None = None,
        timeout: timedelta | None = None,
    ) -> None:
        """Store a value, for a time or until it is deleted.

        With `if_absent`, AlreadyExists when the key is there; with `if_version`, PreconditionFailed when the value is
        no longer of this version.
        """
        entry = self._entry(key, value, ttl)
        if if_absent:
            entry.if_absent = True
        if if_version is not None:
            entry.if_version = if_version
        if entry.WhichOneof("condition"):
            await self._unary(_ONCE, entry, timeout)
        else:
            await self._sets(entry, timeout)

    async def delete(self, key: str, *, timeout: timedelta | None = None) -> bool:
        """Remove a key of any kind, and tell whether it was there."""
        return await self._deletes(key, timeout)

    async def exists(self, key: str, *, timeout: timedelta | None = None) -> bool:
        """Tell whether a key of any kind is there."""
        response = await self._call("Exists", cache_pb2.ExistsRequest(scope=self._scope, key=key), timeout)
        return bool(response.exists)

    async def expire(self, key: str, ttl: Span, *, timeout: timedelta | None = None) -> None:
        """Make a key end after a time; NotFound when there is no such key."""
        await self._call("Expire", cache_pb2.ExpireRequest(scope=self._scope, key=key, ttl=_duration(ttl)), timeout)

    async def persist(self, key: str, *, timeout: timedelta | None = None) -> None:
        """Make a key stay until it is deleted; NotFound when there is no such key."""
        await self._call("Persist", cache_pb2.PersistRequest(scope=self._scope, key=key), timeout)

    async def ttl(self, key: str, *, timeout: timedelta | None = None) -> timedelta | None:
        """Return how long a key has to live, None for ever; NotFound when there is no such key."""
        response = await self._call("Ttl", cache_pb2.TtlRequest(scope=self._scope, key=key), timeout)
        return response.ttl.ToTimedelta() if response.HasField("ttl") else None

    async def get_many(self, keys: Iterable[str], *, timeout: timedelta | None = None) -> dict[str, bytes]:
        """Return the values of those of the keys that have one."""
        wanted = list(dict.fromkeys(keys))
        found: dict[str, bytes] = {}
        for start in range(0, len(wanted), _MOST):
            portion = wanted[start : start + _MOST]
            for key, value in zip(portion, await self._get_all(portion, timeout), strict=True):
                if isinstance(value, bytes):
                    found[key] = value
                elif not isinstance(value, NotFound):
                    raise value
        return found

    async def set_many(
        self, values: Mapping[str, Value], *, ttl: Span | None = None, timeout: timedelta | None = None
    ) -> None:
        """Store values; when one is refused, its error is raised after the others are stored."""
        entries = (self._entry(key, value, ttl) for key, value in values.items())
        outcomes = [
            outcome for portion in portions(entries, most=_MOST) for outcome in await self._set_all(portion, timeout)
        ]
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def delete_many(self, keys: Iterable[str], *, timeout: timedelta | None = None) -> int:
        """Remove keys, and return how many of them were there."""
        wanted, removed = list(dict.fromkeys(keys)), 0
        for start in range(0, len(wanted), _MOST):
            for outcome in await self._delete_all(wanted[start : start + _MOST], timeout):
                if isinstance(outcome, IsaError):
                    raise outcome
                removed += outcome
        return removed

    async def incr(self, key: str, by: int = 1, *, timeout: timedelta | None = None) -> int:
        """Add to a counter, which begins at 0, and return it."""
        response = await self._call("Incr", cache_pb2.IncrRequest(scope=self._scope, key=key, by=by), timeout)
        return int(response.value)

    async def scan(self, prefix: str = "", *, timeout: timedelta | None = None) -> AsyncIterator[str]:
        """Yield the keys that begin with a text, in no order; one that is there all the while at least once."""
        cursor = ""
        while True:
            request = cache_pb2.ScanRequest(scope=self._scope, prefix=prefix, cursor=cursor)
            response = await self._unary(_METHODS["Scan"], request, timeout)
            for key in response.keys:
                yield key
            cursor = response.next_cursor
            if not cursor:
                return

    # Hashes

    async def hset(self, key: str, fields: Mapping[str, Value], *, timeout: timedelta | None = None) -> int:
        """Store fields of a hash, and return how many are new."""
        encoded = {field: _bytes(value) for field, value in fields.items()}
        request = cache_pb2.HSetRequest(scope=self._scope, key=key, fields=encoded)
        return int((await self._call("HSet", request, timeout)).added)

    async def hget(self, key: str, field: str, *, timeout: timedelta | None = None) -> bytes:
        """Return a field of a hash; NotFound when there is none."""
        request = cache_pb2.HGetRequest(scope=self._scope, key=key, field=field)
        return bytes((await self._call("HGet", request, timeout)).value)

    async def hget_all(self, key: str, *, timeout: timedelta | None = None) -> dict[str, bytes]:
        """Return all fields of a hash; none when there is no such key."""
        response = await self._call("HGetAll", cache_pb2.HGetAllRequest(scope=self._scope, key=key), timeout)
        return dict(response.fields)

    async def hdel(self, key: str, *fields: str, timeout: timedelta | None = None) -> int:
        """Remove fields of a hash, and return how many were there."""
        request = cache_pb2.HDelRequest(scope=self._scope, key=key, fields=fields)
        return int((await self._call("HDel", request, timeout)).removed)

    async def hincr_by(self, key: str, field: str, by: int = 1, *, timeout: timedelta | None = None) -> int:
        """Add to a field of a hash, which begins at 0, and return it."""
        request = cache_pb2.HIncrByRequest(scope=self._scope, key=key, field=field, by=by)
        return int((await self._call("HIncrBy", request, timeout)).value)

    # Lists

    async def lpush(self, key: str, *values: Value, timeout: timedelta | None = None) -> int:
        """Add values at the left end of a list, one after the other, and return its length."""
        request = cache_pb2.LPushRequest(scope=self._scope, key=key, values=map(_bytes, values))
        return int((await self._call("LPush", request, timeout)).length)

    async def rpush(self, key: str, *values: Value, timeout: timedelta | None = None) -> int:
        """Add values at the right end of a list, and return its length."""
        request = cache_pb2.RPushRequest(scope=self._scope, key=key, values=map(_bytes, values))
        return int((await self._call("RPush", request, timeout)).length)

    async def lpop(self, key: str, count: int = 1, *, timeout: timedelta | None = None) -> list[bytes]:
        """Take up to so many values from the left end of a list."""
        request = cache_pb2.LPopRequest(scope=self._scope, key=key, count=count)
        return list((await self._call("LPop", request, timeout)).values)

    async def rpop(self, key: str, count: int = 1, *, timeout: timedelta | None = None) -> list[bytes]:
        """Take up to so many values from the right end of a list, the last one first."""
        request = cache_pb2.RPopRequest(scope=self._scope, key=key, count=count)
        return list((await self._call("RPop", request, timeout)).values)

    async def lrange(
        self, key: str, start: int = 0, stop: int = -1, *, timeout: timedelta | None = None
    ) -> list[bytes]:
        """Return the values of a list between two positions, both included; -1 is the last one."""
        request = cache_pb2.LRangeRequest(scope=self._scope, key=key, start=start, stop=stop)
        return list((await self._call("LRange", request, timeout)).values)

    async def llen(self, key: str, *, timeout: timedelta | None = None) -> int:
        """Return how many values a list has."""
        response = await self._call("LLen", cache_pb2.LLenRequest(scope=self._scope, key=key), timeout)
        return int(response.length)

    async def ltrim(self, key: str, start: int, stop: int, *, timeout: timedelta | None = None) -> None:
        """Remove what is not between two positions of a list, both included."""
        request = cache_pb2.LTrimRequest(scope=self._scope, key=key, start=start, stop=stop)
        await self._call("LTrim", request, timeout)

    # Sets

    async def sadd(self, key: str, *members: Value, timeout: timedelta | None = None) -> int:
        """Add members to a set, and return how many are new."""
        request = cache_pb2.SAddRequest(scope=self._scope, key=key, members=map(_bytes, members))
        return int((await self._call("SAdd", request, timeout)).added)

    async def srem(self, key: str, *members: Value, timeout: timedelta | None = None) -> int:
        """Remove members of a set, and return how many were there."""
        request = cache_pb2.SRemRequest(scope=self._scope, key=key, members=map(_bytes, members))
        return int((await self._call("SRem", request, timeout)).removed)

    async def smembers(self, key: str, *, timeout: timedelta | None = None) -> frozenset[bytes]:
        """Return all members of a set."""
        response = await self._call("SMembers", cache_pb2.SMembersRequest(scope=self._scope, key=key), timeout)
        return frozenset(response.members)

    async def scontains(self, key: str, member: Value, *, timeout: timedelta | None = None) -> bool:
        """Tell whether a set has a member."""
        request = cache_pb2.SContainsRequest(scope=self._scope, key=key, member=_bytes(member))
        return bool((await self._call("SContains", request, timeout)).contains)

    # Sorted sets

    async def zadd(self, key: str, members: Mapping[Value, float], *, timeout: timedelta | None = None) -> int:
        """Add members to a sorted set or give them another score, and return how many are new."""
        scored = [cache_pb2.ScoredMember(member=_bytes(member), score=score) for member, score in members.items()]
        request = cache_pb2.ZAddRequest(scope=self._scope, key=key, members=scored)
        return int((await self._call("ZAdd", request, timeout)).added)

    async def zrem(self, key: str, *members: Value, timeout: timedelta | None = None) -> int:
        """Remove members of a sorted set, and return how many were there."""
        request = cache_pb2.ZRemRequest(scope=self._scope, key=key, members=map(_bytes, members))
        return int((await self._call("ZRem", request, timeout)).removed)

    async def zrange(
        self,
        key: str,
        start: int = 0,
        stop: int = -1,
        *,
        reverse: bool = False,
        timeout: timedelta | None = None,
    ) -> list[tuple[bytes, float]]:
        """Return members and scores between two ranks, both included, the lowest score first."""
        request = cache_pb2.ZRangeRequest(scope=self._scope, key=key, start=start, stop=stop, reverse=reverse)
        return _pairs((await self._call("ZRange", request, timeout)).members)

    async def zrange_by_score(
        self,
        key: str,
        lowest: float | None = None,
        highest: float | None = None,
        *,
        reverse: bool = False,
        offset: int = 0,
        limit: int = 0,
        timeout: timedelta | None = None,
    ) -> list[tuple[bytes, float]]:
        """Return members and scores between two scores, both included: 1000 of them when no limit is given."""
        request = cache_pb2.ZRangeByScoreRequest(
            scope=self._scope, key=key, min=lowest, max=highest, reverse=reverse, offset=offset, limit=limit
        )
        return _pairs((await self._call("ZRangeByScore", request, timeout)).members)

    async def zscore(self, key: str, member: Value, *, timeout: timedelta | None = None) -> float:
        """Return the score of a member; NotFound when there is none."""
        request = cache_pb2.ZScoreRequest(scope=self._scope, key=key, member=_bytes(member))
        return float((await self._call("ZScore", request, timeout)).score)

    async def zrank(self, key: str, member: Value, *, reverse: bool = False, timeout: timedelta | None = None) -> int:
        """Return the rank of a member, from 0; NotFound when there is none."""
        request = cache_pb2.ZRankRequest(scope=self._scope, key=key, member=_bytes(member), reverse=reverse)
        return int((await self._call("ZRank", request, timeout)).rank)

    # Messages

    async def publish(self, channel: str, data: Value, *, timeout: timedelta | None = None) -> None:
        """Send a message to who listens now."""
        request = cache_pb2.PublishRequest(scope=self._scope, channel=channel, data=_bytes(data))
        await self._call("Publish", request, timeout)

    def subscribe(self, *patterns: str, channels: Sequence[str] = ()) -> ChannelSubscription:
        r"""Listen to channels by name or by pattern: `*`, `?`, `[a-z]`, and `\` before what is meant as it is."""
        request = cache_pb2.SubscribeRequest(scope=self._scope, channels=channels, patterns=patterns)
        return ChannelSubscription(self._stream("Subscribe", request, timedelta(0)))

    # Locks and limits

    def lock(self, name: str, *, lease: Span = 10.0, wait: Span = 10.0) -> Lock:
        """A lock for `async with`: Aborted when another holder keeps it for longer than `wait`.

        It is renewed while it is held. When its holder dies, it is free again after `lease`.
        """
        return Lock(self, name, _timedelta(lease), _timedelta(wait))

    async def limit(
        self,
        name: str,
        limit: int,
        *,
        window: Span,
        algorithm: Algorithm = Algorithm.SLIDING_WINDOW,
        cost: int = 1,
        burst: int = 0,
        timeout: timedelta | None = None,
    ) -> Allowance:
        """Count against a rate limit, when that is allowed, and tell whether it was; `burst` is a bucket's size."""
        request = cache_pb2.LimitRequest(
            scope=self._scope,
            name=name,
            algorithm=cache_pb2.Algorithm.ValueType(algorithm),
            limit=limit,
            window=_duration(window),
            cost=cost,
            burst=burst,
        )
        response = await self._call("Limit", request, timeout)
        return Allowance(
            response.allowed,
            response.remaining,
            response.retry_after.ToTimedelta(),
            response.reset_after.ToTimedelta(),
        )

    # Calls, alone and together

    def _entry(self, key: str, value: Value, ttl: Span | None) -> cache_pb2.SetRequest:
        return cache_pb2.SetRequest(scope=self._scope, key=key, value=_bytes(value), ttl=_duration(ttl))

    async def _call(self, name: str, request: Message, timeout: timedelta | None) -> Any:
        """Call a method, in a pipeline when others are called at the same time."""
        return await self._calls[_LEVELS[name]]((name, request), timeout)

    async def _get(self, key: str, timeout: timedelta | None) -> bytes:
        request = cache_pb2.GetRequest(scope=self._scope, key=key)
        return bytes((await self._unary(_METHODS["Get"], request, timeout)).value)

    async def _get_all(self, keys: Sequence[str], timeout: timedelta | None) -> list[bytes | IsaError]:
        if not keys:
            return []
        request = cache_pb2.MGetRequest(scope=self._scope, keys=keys)
        response: cache_pb2.MGetResponse = await self._unary(_METHODS["MGet"], request, timeout)
        found: list[bytes | IsaError] = list(response.values)
        for index in response.absent:
            found[index] = NotFound("There is no such key.", key=keys[index])
        for failure in response.failures:
            found[failure.index] = error_of(failure.error)
        if response.unread:
            rest = await self._get_all([keys[index] for index in response.unread], timeout)
            for index, value in zip(response.unread, rest, strict=True):
                found[index] = value
        return found

    async def _set(self, entry: cache_pb2.SetRequest, timeout: timedelta | None) -> None:
        await self._unary(_METHODS["Set"], entry, timeout)

    async def _set_all(
        self, entries: Sequence[cache_pb2.SetRequest], timeout: timedelta | None
    ) -> Sequence[IsaError | None]:
        outcomes: list[IsaError | None] = [None] * len(entries)
        if entries:
            response = await self._unary(_METHODS["MSet"], cache_pb2.MSetRequest(entries=entries), timeout)
            for failure in response.failures:
                outcomes[failure.index] = error_of(failure.error)
        return outcomes

    async def _delete(self, key: str, timeout: timedelta | None) -> bool:
        request = cache_pb2.DeleteRequest(scope=self._scope, key=key)
        return bool((await self._unary(_METHODS["Delete"], request, timeout)).deleted)

    async def _delete_all(self, keys: Sequence[str], timeout: timedelta | None) -> list[bool | IsaError]:
        if not keys:
            return []
        request = cache_pb2.MDeleteRequest(scope=self._scope, keys=keys)
        response = await self._unary(_METHODS["MDelete"], request, timeout)
        outcomes: list[bool | IsaError] = list(response.deleted)
        for failure in response.failures:
            outcomes[failure.index] = error_of(failure.error)
        return outcomes

    async def _run(self, call: tuple[str, Message], timeout: timedelta | None) -> Any:
        name, request = call
        return await self._unary(_METHODS[name], request, timeout)

    async def _run_again(self, calls: Sequence[tuple[str, Message]], timeout: timedelta | None) -> list[Any]:
        return await self._run_all(calls, timeout, _AGAIN)

    async def _run_all(
        self,
        calls: Sequence[tuple[str, Message]],
        timeout: timedelta | None,
        pipeline: Method = _METHODS["Pipeline"],
    ) -> list[Any]:
        commands = [cache_pb2.Command(**{_COMMANDS[name]: request}) for name, request in calls]  # type: ignore[arg-type]  # a field each
        response = await self._unary(pipeline, cache_pb2.PipelineRequest(commands=commands), timeout)
        answers: list[Any] = []
        for (name, _), outcome in zip(calls, response.outcomes, strict=True):
            failed = outcome.HasField("error")
            answers.append(error_of(outcome.error) if failed else getattr(outcome, _COMMANDS[name]))
        if response.unread:
            rest = await self._run_all([calls[index] for index in response.unread], timeout, pipeline)
            for index, answer in zip(response.unread, rest, strict=True):
                answers[index] = answer
        return answers


class ChannelSubscription:
    """Messages as they come; `async with` waits until nothing is missed from then on.

    Unavailable ends it when messages may have been lost.
    """

    def __init__(self, answers: AsyncIterator[cache_pb2.SubscribeResponse]) -> None:
        self.dropped = 0
        """Messages that were left out because this was read too slowly."""
        self._answers = answers
        self._is_open = False
        self._messages: list[cache_pb2.Message] = []

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChannelMessage:
        while not self._messages:
            answer = await anext(self._answers)
            self._is_open = True
            self.dropped += answer.dropped
            self._messages = list(reversed(answer.messages))
        message = self._messages.pop()
        return ChannelMessage(message.channel, message.data)

    async def aclose(self) -> None:
        """Hang up."""
        close: Any = getattr(self._answers, "aclose", None)
        if close is not None:
            await close()

    async def __aenter__(self) -> Self:
        if not self._is_open:
            await anext(self._answers)
            self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


class Lock:
    """A lock of the cache, held inside `async with`."""

    def __init__(self, cache: Cache, name: str, lease: timedelta, wait: timedelta) -> None:
        self.name = name
        self.token = 0
        """Grows with every holder: what the lock protects can refuse a write with a smaller one."""
        self._cache = cache
        self._lease = lease
        self._wait = wait
        self._until = 0.0
        self._renewal: asyncio.Task[None] | None = None

    @property
    def is_held(self) -> bool:
        """Whether it is still held, as far as can be known without asking."""
        return time.monotonic() < self._until

    async def __aenter__(self) -> Self:
        request = cache_pb2.AcquireLockRequest(
            scope=self._cache._scope,
            name=self.name,
            lease=_duration(self._lease),
            wait=_duration(self._wait),
            holder=secrets.token_hex(16),
        )
        response = await self._cache._unary(_METHODS["AcquireLock"], request, self._wait + _ANSWER)
        self.token = response.token
        self._until = time.monotonic() + self._lease.total_seconds()
        self._renewal = asyncio.create_task(self._renew())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._renewal is not None, "entered before it is left"
        self._renewal.cancel()
        with suppress(asyncio.CancelledError):
            await self._renewal
        self._until = 0.0
        request = cache_pb2.ReleaseLockRequest(scope=self._cache._scope, name=self.name, token=self.token)
        try:
            await self._cache._unary(_METHODS["ReleaseLock"], request, None)
        except IsaError:
            if kind is None:
                raise  # it was lost meanwhile, or still stands until its lease ends: whoever holds it must know

    async def _renew(self) -> None:
        """Renew in good time, until the lock is lost."""
        seconds = self._lease.total_seconds()
        request = cache_pb2.RenewLockRequest(
            scope=self._cache._scope, name=self.name, token=self.token, lease=_duration(self._lease)
        )
        while self.is_held:
            await asyncio.sleep(seconds / 3)
            began = time.monotonic()
            try:
                await self._cache._unary(_METHODS["RenewLock"], request, self._lease / 3)
            except FailedPrecondition:
                self._until = 0.0
            except IsaError:
                continue  # there are more attempts before the lease ends
            else:
                self._until = began + seconds


def _bytes(value: Value) -> bytes:
    return value.encode() if isinstance(value, str) else value


def _timedelta(span: Span) -> timedelta:
    return span if isinstance(span, timedelta) else timedelta(seconds=span)


def _duration(span: Span | None) -> Duration | None:
    return to_duration(None if span is None else _timedelta(span))


def _pairs(members: Iterable[cache_pb2.ScoredMember]) -> list[tuple[bytes, float]]:
    return [(each.member, each.score) for each in members]
