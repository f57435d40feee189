"""The cache in memory: the same answers, limits and errors, for one process."""

from __future__ import annotations

import asyncio
import base64
import bisect
import hashlib
import math
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration

from isa.cache.v1 import cache_pb2 as pb
from isa_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    status_of,
)
from isa_common.testing._transport import Caller

MANY = 1000
READABLE = 10_000
LONGEST_NAME = 512
LARGEST_VALUE = 8 << 20
LARGEST_ELEMENT = 1 << 20
ANSWER = 8 << 20
POPPED = 1 << 20
DAY = 86_400_000
HIGHEST = 1_000_000_000

Tenant = tuple[str, str]
Hash = dict[str, bytes]
List = list[bytes]
Set = set[bytes]


class Sorted(dict[bytes, float]):
    """Members of a sorted set, and their scores."""

    def ordered(self, *, reverse: bool) -> list[tuple[bytes, float]]:
        """By score, of equal ones by member."""
        return sorted(self.items(), key=lambda pair: (pair[1], pair[0]), reverse=reverse)


@dataclass(slots=True)
class _Item:
    value: Any
    until: float | None = None


@dataclass(slots=True)
class _Held:
    token: int
    holder: str
    until: float


@dataclass(slots=True, eq=False)
class _Listener:
    fits: Callable[[str], bool]
    messages: asyncio.Queue[pb.Message] = field(default_factory=asyncio.Queue)


@dataclass(slots=True)
class _Tenant:
    items: dict[str, _Item] = field(default_factory=dict)
    locks: dict[str, _Held] = field(default_factory=dict)
    limits: dict[tuple[int, str], Any] = field(default_factory=dict)
    listeners: set[_Listener] = field(default_factory=set)
    token: int = 0

    def item(self, key: str) -> _Item | None:
        """What a key holds now."""
        item = self.items.get(key)
        if item is not None and item.until is not None and item.until <= time.monotonic():
            del self.items[key]
            return None
        return item

    def read(self, key: str, kind: type[Any]) -> Any:
        """The collection of a key, an empty one where there is none."""
        item = self.item(key)
        if item is None:
            return kind()
        if type(item.value) is not kind:
            raise FailedPrecondition("The key holds another kind of value.", field="key")
        return item.value

    def write(self, key: str, value: Any) -> None:
        """Keep a collection, with the time to live that it has; an empty one is none."""
        item = self.items.get(key)
        if not value:
            self.items.pop(key, None)
        elif item is None:
            self.items[key] = _Item(value)
        else:
            item.value = value


class MemoryCache:
    """`isa.cache.v1.Cache` in memory."""

    def __init__(self) -> None:
        self._tenants: defaultdict[Tenant, _Tenant] = defaultdict(_Tenant)
        self._released = asyncio.Condition()

    # Values

    async def get(self, caller: Caller, request: pb.GetRequest) -> pb.GetResponse:
        """Return a value."""
        item = self._keyed(caller, request).item(request.key)
        if item is None:
            raise _missing(request.key)
        if not isinstance(item.value, bytes):
            raise NotFound("The key holds a collection, and no value.", key=request.key)
        return pb.GetResponse(value=item.value, version=_version(item.value) if request.with_version else "")

    async def set(self, caller: Caller, request: pb.SetRequest) -> pb.SetResponse:
        """Store a value."""
        tenant = self._keyed(caller, request)
        _fit((request.value,), "value", LARGEST_VALUE)
        until = time.monotonic() + _seconds(request.ttl, "ttl") if request.HasField("ttl") else None
        held = tenant.item(request.key)
        if request.WhichOneof("condition") == "if_version":
            if held is not None and not isinstance(held.value, bytes):
                raise FailedPrecondition("The key holds another kind of value.", field="key")
            if held is None or _version(held.value) != request.if_version:
                raise PreconditionFailed("The value is no longer of this version.", field="if_version")
        if request.if_absent and held is not None:
            raise AlreadyExists("The key is there already.", key=request.key)
        tenant.items[request.key] = _Item(request.value, until)
        return pb.SetResponse()

    async def delete(self, caller: Caller, request: pb.DeleteRequest) -> pb.DeleteResponse:
        """Remove a key."""
        tenant = self._keyed(caller, request)
        was_there = tenant.item(request.key) is not None
        tenant.items.pop(request.key, None)
        return pb.DeleteResponse(deleted=was_there)

    async def exists(self, caller: Caller, request: pb.ExistsRequest) -> pb.ExistsResponse:
        """Tell whether a key is there."""
        return pb.ExistsResponse(exists=self._keyed(caller, request).item(request.key) is not None)

    async def expire(self, caller: Caller, request: pb.ExpireRequest) -> pb.ExpireResponse:
        """Give a key a time to live."""
        tenant, seconds = self._keyed(caller, request), _seconds(request.ttl, "ttl")
        _present(tenant, request.key).until = time.monotonic() + seconds
        return pb.ExpireResponse()

    async def persist(self, caller: Caller, request: pb.PersistRequest) -> pb.PersistResponse:
        """Take a key's time to live away."""
        _present(self._keyed(caller, request), request.key).until = None
        return pb.PersistResponse()

    async def ttl(self, caller: Caller, request: pb.TtlRequest) -> pb.TtlResponse:
        """Tell a key's time to live."""
        until = _present(self._keyed(caller, request), request.key).until
        return pb.TtlResponse(ttl=None if until is None else _duration(until - time.monotonic()))

    async def mget(self, caller: Caller, request: pb.MGetRequest) -> pb.MGetResponse:
        """Return values."""
        _count(request.keys, "keys")
        self._tenant(caller, request.scope)
        response, size = pb.MGetResponse(), 0
        for index, key in enumerate(request.keys):
            value = b""
            try:
                value = (await self.get(caller, pb.GetRequest(scope=request.scope, key=key))).value
            except NotFound:
                response.absent.append(index)
            except IsaError as error:
                response.failures.append(_failure(index, error, f"keys[{index}]"))
            if (response.unread or (size + len(value) > ANSWER and size)) and value:
                response.unread.append(index)
                value = b""
            size += len(value)
            response.values.append(value)
        return response

    async def mset(self, caller: Caller, request: pb.MSetRequest) -> pb.MSetResponse:
        """Store values."""
        _count(request.entries, "entries")
        response = pb.MSetResponse()
        for index, entry in enumerate(request.entries):
            try:
                await self.set(caller, entry)
            except IsaError as error:
                response.failures.append(_failure(index, error))
        return response

    async def mdelete(self, caller: Caller, request: pb.MDeleteRequest) -> pb.MDeleteResponse:
        """Remove keys."""
        _count(request.keys, "keys")
        self._tenant(caller, request.scope)
        response = pb.MDeleteResponse()
        for index, key in enumerate(request.keys):
            deleted = False
            try:
                deleted = (await self.delete(caller, pb.DeleteRequest(scope=request.scope, key=key))).deleted
            except IsaError as error:
                response.failures.append(_failure(index, error, f"keys[{index}]"))
            response.deleted.append(deleted)
        return response

    async def pipeline(self, caller: Caller, request: pb.PipelineRequest) -> pb.PipelineResponse:
        """Run commands in their order."""
        _count(request.commands, "commands")
        response = pb.PipelineResponse()
        for command in request.commands:
            name = command.WhichOneof("command")
            try:
                if name is None:
                    raise InvalidArgument("The command is empty.", field="command")
                if name == "acquire_lock" and command.acquire_lock.HasField("wait"):
                    raise InvalidArgument("In a pipeline a lock is not waited for.", field="wait")
                answer = await getattr(self, name)(caller, getattr(command, name))
                arguments: dict[str, Any] = {name: answer}
                response.outcomes.append(pb.Outcome(**arguments))
            except IsaError as error:
                response.outcomes.append(pb.Outcome(error=status_of(error)))
        return response

    async def incr(self, caller: Caller, request: pb.IncrRequest) -> pb.IncrResponse:
        """Add to a counter."""
        tenant = self._keyed(caller, request)
        held = tenant.item(request.key)
        if held is not None and not isinstance(held.value, bytes):
            raise FailedPrecondition("The key holds another kind of value.", field="key")
        value = _sum(b"0" if held is None else held.value, request.by if request.HasField("by") else 1)
        tenant.write(request.key, str(value).encode())
        return pb.IncrResponse(value=value)

    async def scan(self, caller: Caller, request: pb.ScanRequest) -> pb.ScanResponse:
        """Return a page of names."""
        tenant = self._tenant(caller, request.scope)
        if "\0" in request.prefix or len(request.prefix.encode()) > LONGEST_NAME:
            raise InvalidArgument(f"A prefix has at most {LONGEST_NAME} bytes and no NUL.", field="prefix")
        bound = repr((self._name(caller, request.scope), request.prefix)).encode()
        digest = hashlib.blake2b(bound, digest_size=8).digest()
        last = ""
        if request.cursor:
            raw = b""
            with suppress(ValueError):
                raw = base64.urlsafe_b64decode(request.cursor)
            if raw[:8] != digest or not raw[8:]:
                raise InvalidArgument("This cursor belongs to no page of this scope and prefix.", field="cursor")
            last = raw[8:].decode()
        names = sorted(key for key in list(tenant.items) if key.startswith(request.prefix) and tenant.item(key))
        rest = names[bisect.bisect_right(names, last) :]
        cursor = ""
        if len(rest) > MANY:
            rest = rest[:MANY]
            cursor = base64.urlsafe_b64encode(digest + rest[-1].encode()).decode()
        return pb.ScanResponse(keys=rest, next_cursor=cursor)

    # Hashes

    async def hset(self, caller: Caller, request: pb.HSetRequest) -> pb.HSetResponse:
        """Store fields."""
        tenant = self._keyed(caller, request)
        _count(request.fields, "fields")
        _fields(request.fields)
        _fit(list(request.fields.values()), "fields")
        held: Hash = tenant.read(request.key, dict)
        added = len(request.fields.keys() - held.keys())
        tenant.write(request.key, held | dict(request.fields))
        return pb.HSetResponse(added=added)

    async def hget(self, caller: Caller, request: pb.HGetRequest) -> pb.HGetResponse:
        """Return a field."""
        held: Hash = self._keyed(caller, request).read(request.key, dict)
        if request.field not in held:
            raise NotFound("There is no such field.", key=request.key, field_name=request.field)
        return pb.HGetResponse(value=held[request.field])

    async def hget_all(self, caller: Caller, request: pb.HGetAllRequest) -> pb.HGetAllResponse:
        """Return all fields."""
        held: Hash = self._keyed(caller, request).read(request.key, dict)
        _readable(len(held), [*held.values(), *(name.encode() for name in held)])
        return pb.HGetAllResponse(fields=held)

    async def hdel(self, caller: Caller, request: pb.HDelRequest) -> pb.HDelResponse:
        """Remove fields."""
        tenant = self._keyed(caller, request)
        _count(request.fields, "fields")
        held: Hash = tenant.read(request.key, dict)
        left = {name: value for name, value in held.items() if name not in set(request.fields)}
        tenant.write(request.key, left)
        return pb.HDelResponse(removed=len(held) - len(left))

    async def hincr_by(self, caller: Caller, request: pb.HIncrByRequest) -> pb.HIncrByResponse:
        """Add to a field."""
        tenant = self._keyed(caller, request)
        _fields((request.field,))
        held: Hash = tenant.read(request.key, dict)
        value = _sum(held.get(request.field, b"0"), request.by if request.HasField("by") else 1)
        tenant.write(request.key, held | {request.field: str(value).encode()})
        return pb.HIncrByResponse(value=value)

    # Lists

    async def lpush(self, caller: Caller, request: pb.LPushRequest) -> pb.LPushResponse:
        """Add at the left end."""
        return pb.LPushResponse(length=self._push(caller, request, is_left=True))

    async def rpush(self, caller: Caller, request: pb.RPushRequest) -> pb.RPushResponse:
        """Add at the right end."""
        return pb.RPushResponse(length=self._push(caller, request, is_left=False))

    async def lpop(self, caller: Caller, request: pb.LPopRequest) -> pb.LPopResponse:
        """Take from the left end."""
        return pb.LPopResponse(values=self._pop(caller, request, end=0))

    async def rpop(self, caller: Caller, request: pb.RPopRequest) -> pb.RPopResponse:
        """Take from the right end."""
        return pb.RPopResponse(values=self._pop(caller, request, end=-1))

    async def lrange(self, caller: Caller, request: pb.LRangeRequest) -> pb.LRangeResponse:
        """Return what is between two positions."""
        held: List = self._keyed(caller, request).read(request.key, list)
        found = held[_between(request, len(held))]
        _readable(len(found), found)
        return pb.LRangeResponse(values=found)

    async def llen(self, caller: Caller, request: pb.LLenRequest) -> pb.LLenResponse:
        """Tell the length."""
        return pb.LLenResponse(length=len(self._keyed(caller, request).read(request.key, list)))

    async def ltrim(self, caller: Caller, request: pb.LTrimRequest) -> pb.LTrimResponse:
        """Remove what is not between two positions."""
        tenant = self._keyed(caller, request)
        held: List = tenant.read(request.key, list)
        tenant.write(request.key, held[_between(request, len(held))])
        return pb.LTrimResponse()

    def _push(self, caller: Caller, request: pb.LPushRequest | pb.RPushRequest, *, is_left: bool) -> int:
        tenant = self._keyed(caller, request)
        _count(request.values, "values")
        _fit(request.values, "values")
        held: List = tenant.read(request.key, list)
        more = list(request.values)
        tenant.write(request.key, more[::-1] + held if is_left else held + more)
        return len(held) + len(more)

    def _pop(self, caller: Caller, request: pb.LPopRequest | pb.RPopRequest, *, end: int) -> list[bytes]:
        tenant, count = self._keyed(caller, request), request.count or 1
        if not 0 < count <= MANY:
            raise InvalidArgument(f"A pop takes 1 to {MANY} values.", field="count")
        held: List = list(tenant.read(request.key, list))
        found: List = []
        while held and len(found) < count:
            if found and sum(map(len, found)) + len(held[end]) > POPPED:
                break
            found.append(held.pop(end))
        tenant.write(request.key, held)
        return found

    # Sets

    async def sadd(self, caller: Caller, request: pb.SAddRequest) -> pb.SAddResponse:
        """Add members."""
        tenant = self._keyed(caller, request)
        _count(request.members, "members")
        _fit(request.members, "members")
        held: Set = tenant.read(request.key, set)
        added = set(request.members) - held
        tenant.write(request.key, held | added)
        return pb.SAddResponse(added=len(added))

    async def srem(self, caller: Caller, request: pb.SRemRequest) -> pb.SRemResponse:
        """Remove members."""
        tenant = self._keyed(caller, request)
        _count(request.members, "members")
        held: Set = tenant.read(request.key, set)
        removed = set(request.members) & held
        tenant.write(request.key, held - removed)
        return pb.SRemResponse(removed=len(removed))

    async def smembers(self, caller: Caller, request: pb.SMembersRequest) -> pb.SMembersResponse:
        """Return all members."""
        held: Set = self._keyed(caller, request).read(request.key, set)
        _readable(len(held), held)
        return pb.SMembersResponse(members=held)

    async def scontains(self, caller: Caller, request: pb.SContainsRequest) -> pb.SContainsResponse:
        """Tell whether there is a member."""
        return pb.SContainsResponse(contains=request.member in self._keyed(caller, request).read(request.key, set))

    # Sorted sets

    async def zadd(self, caller: Caller, request: pb.ZAddRequest) -> pb.ZAddResponse:
        """Add members with a score."""
        tenant = self._keyed(caller, request)
        _count(request.members, "members")
        _fit([each.member for each in request.members], "members")
        for index, each in enumerate(request.members):
            if math.isnan(each.score):
                raise InvalidArgument("A score is a number.", field=f"members[{index}].score")
        held: Sorted = tenant.read(request.key, Sorted)
        fresh = Sorted(held)
        fresh.update({each.member: each.score for each in request.members})
        tenant.write(request.key, fresh)
        return pb.ZAddResponse(added=len(fresh) - len(held))

    async def zrem(self, caller: Caller, request: pb.ZRemRequest) -> pb.ZRemResponse:
        """Remove members."""
        tenant = self._keyed(caller, request)
        _count(request.members, "members")
        held: Sorted = tenant.read(request.key, Sorted)
        left = Sorted({member: score for member, score in held.items() if member not in set(request.members)})
        tenant.write(request.key, left)
        return pb.ZRemResponse(removed=len(held) - len(left))

    async def zrange(self, caller: Caller, request: pb.ZRangeRequest) -> pb.ZRangeResponse:
        """Return what is between two ranks."""
        held: Sorted = self._keyed(caller, request).read(request.key, Sorted)
        found = held.ordered(reverse=request.reverse)[_between(request, len(held))]
        return pb.ZRangeResponse(members=_scored(found))

    async def zrange_by_score(self, caller: Caller, request: pb.ZRangeByScoreRequest) -> pb.ZRangeByScoreResponse:
        """Return what is between two scores."""
        tenant, limit = self._keyed(caller, request), request.limit or 1000
        if not 0 < limit <= READABLE:
            raise InvalidArgument(f"An answer has 1 to {READABLE} members.", field="limit")
        if request.offset < 0:
            raise InvalidArgument("The offset is 0 or more.", field="offset")
        lowest = request.min if request.HasField("min") else -math.inf
        highest = request.max if request.HasField("max") else math.inf
        if math.isnan(lowest) or math.isnan(highest):
            raise InvalidArgument("A score is a number.", field="min" if math.isnan(lowest) else "max")
        held: Sorted = tenant.read(request.key, Sorted)
        found = [pair for pair in held.ordered(reverse=request.reverse) if lowest <= pair[1] <= highest]
        return pb.ZRangeByScoreResponse(members=_scored(found[request.offset : request.offset + limit]))

    async def zscore(self, caller: Caller, request: pb.ZScoreRequest) -> pb.ZScoreResponse:
        """Return a member's score."""
        held: Sorted = self._keyed(caller, request).read(request.key, Sorted)
        if request.member not in held:
            raise NotFound("There is no such member.", key=request.key)
        return pb.ZScoreResponse(score=held[request.member])

    async def zrank(self, caller: Caller, request: pb.ZRankRequest) -> pb.ZRankResponse:
        """Return a member's rank."""
        held: Sorted = self._keyed(caller, request).read(request.key, Sorted)
        if request.member not in held:
            raise NotFound("There is no such member.", key=request.key)
        ranks = [member for member, _ in held.ordered(reverse=request.reverse)]
        return pb.ZRankResponse(rank=ranks.index(request.member))

    # Messages

    async def publish(self, caller: Caller, request: pb.PublishRequest) -> pb.PublishResponse:
        """Send a message."""
        tenant = self._tenant(caller, request.scope)
        _check(request.channel, "channel")
        _fit((request.data,), "data")
        for listener in tenant.listeners:
            if listener.fits(request.channel):
                listener.messages.put_nowait(pb.Message(channel=request.channel, data=request.data))
        return pb.PublishResponse()

    async def subscribe(self, caller: Caller, request: pb.SubscribeRequest) -> AsyncIterator[pb.SubscribeResponse]:
        """Send messages as they come."""
        tenant = self._tenant(caller, request.scope)
        if not 0 < len(request.channels) + len(request.patterns) <= 100:
            raise InvalidArgument("There are 1 to 100 of them in a call.", field="channels")
        for name, texts in (("channels", request.channels), ("patterns", request.patterns)):
            for index, text in enumerate(texts):
                _check(text, f"{name}[{index}]")
        globs = [_glob(pattern) for pattern in request.patterns]
        channels = set(request.channels)
        listener = _Listener(lambda name: name in channels or any(glob.fullmatch(name) for glob in globs))
        tenant.listeners.add(listener)
        try:
            yield pb.SubscribeResponse()
            while True:
                yield pb.SubscribeResponse(messages=[await listener.messages.get()])
        finally:
            tenant.listeners.discard(listener)

    # Locks

    async def acquire_lock(self, caller: Caller, request: pb.AcquireLockRequest) -> pb.AcquireLockResponse:
        """Take a lock, and wait for it as long as the caller says."""
        tenant = self._tenant(caller, request.scope)
        _check(request.name, "name")
        lease = _seconds(request.lease, "lease", most=DAY)
        until = time.monotonic() + _seconds(request.wait, "wait", least=0, most=3_600_000)
        if len(request.holder) > 128:
            raise InvalidArgument("A holder has at most 128 characters.", field="holder")
        while True:
            now = time.monotonic()
            held = tenant.locks.get(request.name)
            is_free = held is None or held.until <= now
            if is_free or (held and held.holder and held.holder == request.holder):
                break
            assert held is not None, "it is not free"
            if now >= until:
                raise Aborted("Another holder has the lock.", retry_after=timedelta(seconds=held.until - now))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(held.until, until) - now), self._released:
                    await self._released.wait()
        if held is None or is_free:
            tenant.token = max(tenant.token + 1, time.time_ns() // 1000)
            held = tenant.locks[request.name] = _Held(tenant.token, request.holder, 0.0)
        held.until = time.monotonic() + lease
        return pb.AcquireLockResponse(token=held.token)

    async def renew_lock(self, caller: Caller, request: pb.RenewLockRequest) -> pb.RenewLockResponse:
        """Keep a lock for longer."""
        tenant = self._tenant(caller, request.scope)
        _check(request.name, "name")
        lease = _seconds(request.lease, "lease", most=DAY)
        _own(tenant, request).until = time.monotonic() + lease
        return pb.RenewLockResponse()

    async def release_lock(self, caller: Caller, request: pb.ReleaseLockRequest) -> pb.ReleaseLockResponse:
        """Give a lock back."""
        tenant = self._tenant(caller, request.scope)
        _check(request.name, "name")
        _own(tenant, request)
        del tenant.locks[request.name]
        async with self._released:
            self._released.notify_all()
        return pb.ReleaseLockResponse()

    # Limits

    async def limit(self, caller: Caller, request: pb.LimitRequest) -> pb.LimitResponse:
        """Count against a limit."""
        algorithm = request.algorithm or pb.ALGORITHM_FIXED_WINDOW
        if algorithm not in pb.Algorithm.values():
            raise InvalidArgument("There is no such algorithm.", field="algorithm")
        tenant = self._tenant(caller, request.scope)
        _check(request.name, "name")
        window = _seconds(request.window, "window", least=10, most=30 * DAY)
        if not 0 < request.limit <= HIGHEST:
            raise InvalidArgument(f"A limit is 1 to {HIGHEST}.", field="limit")
        burst, cost = request.burst or request.limit, request.cost or 1
        if not 0 < burst <= HIGHEST or (request.burst and algorithm != pb.ALGORITHM_TOKEN_BUCKET):
            raise InvalidArgument(f"A burst is 1 to {HIGHEST}, of a token bucket only.", field="burst")
        if not 0 < cost <= burst:
            raise InvalidArgument("A cost is at least 1, and at most what may pass at once.", field="cost")
        now, place = time.monotonic(), (int(algorithm), request.name)
        if algorithm == pb.ALGORITHM_TOKEN_BUCKET:
            rate = request.limit / window
            tokens, at = tenant.limits.get(place, (float(burst), now))
            tokens = min(float(burst), tokens + (now - at) * rate)
            allowed = tokens >= cost
            tokens -= cost if allowed else 0
            tenant.limits[place] = (tokens, now)
            retry = 0.0 if allowed else (cost - tokens) / rate
            return _allowance(allowed, math.floor(tokens), retry, (burst - tokens) / rate)
        life = window if algorithm == pb.ALGORITHM_FIXED_WINDOW else window * 61 / 60
        counts: list[tuple[float, int]] = tenant.limits.get(place, [])
        if algorithm == pb.ALGORITHM_FIXED_WINDOW:
            counts = counts if counts and counts[0][0] + life > now else []
        else:
            counts = [(began, count) for began, count in counts if began + life > now]
        used = sum(count for _, count in counts)
        allowed = used + cost <= request.limit
        if allowed:
            counts = [*counts, (now, cost)]
            used += cost
        tenant.limits[place] = counts
        last = counts[0][0] if algorithm == pb.ALGORITHM_FIXED_WINDOW else counts[-1][0]
        retry, freed = 0.0, 0
        for began, count in [] if allowed else counts:
            retry, freed = (last if algorithm == pb.ALGORITHM_FIXED_WINDOW else began) + life - now, freed + count
            if used - freed + cost <= request.limit:
                break
        return _allowance(allowed, max(request.limit - used, 0), retry, last + life - now)

    # Tenants

    def _keyed(self, caller: Caller, request: Any) -> _Tenant:
        tenant = self._tenant(caller, request.scope)
        _check(request.key, "key")
        return tenant

    def _tenant(self, caller: Caller, scope: int) -> _Tenant:
        return self._tenants[self._name(caller, scope)]

    def _name(self, caller: Caller, scope: int) -> Tenant:
        if scope not in pb.Scope.values():
            raise InvalidArgument("There is no such scope.", field="scope")
        if scope == pb.SCOPE_USER and not caller.user:
            raise PermissionDenied("The scope of a user needs a token of one.", field="scope")
        if caller.user and not caller.org:
            raise PermissionDenied("This token names no user of an organisation.")
        return caller.tenant, "" if scope == pb.SCOPE_ORGANISATION else caller.user


def _check(name: str, field: str) -> None:
    if not name:
        raise InvalidArgument("A name has at least one character.", field=field)
    if "\0" in name:
        raise InvalidArgument("A name has no NUL in it.", field=field)
    if len(name.encode()) > LONGEST_NAME:
        raise InvalidArgument(f"A name has at most {LONGEST_NAME} bytes.", field=field)


def _fields(names: Iterable[str]) -> None:
    for name in names:
        if not name or "\0" in name or len(name.encode()) > LONGEST_NAME:
            raise InvalidArgument(f"A field's name has 1 to {LONGEST_NAME} bytes and no NUL.", field="fields")


def _count(items: Any, field: str) -> None:
    if not 0 < len(items) <= MANY:
        raise InvalidArgument(f"There are 1 to {MANY} of them in a call.", field=field)


def _fit(values: Sequence[bytes], field: str, largest: int = LARGEST_ELEMENT) -> None:
    if max(map(len, values)) > largest:
        raise InvalidArgument(f"A value has at most {largest} bytes here.", field=field)


def _readable(count: int, values: Iterable[bytes]) -> None:
    if count > READABLE or sum(map(len, values)) > ANSWER:
        raise ResourceExhausted(f"This is more than {READABLE} items or {ANSWER} bytes: read it in parts.")


def _seconds(span: Duration, field: str, *, least: int = 1, most: int = 36_500 * DAY) -> float:
    count = span.seconds * 1000 + math.ceil(span.nanos / 1_000_000)
    if count < least or span.seconds < 0 or span.nanos < 0:
        raise InvalidArgument(f"This is at least {least} ms.", field=field)
    if count > most:
        raise InvalidArgument(f"This is at most {most // 1000} seconds.", field=field)
    return count / 1000


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(math.ceil(seconds * 1000))
    return duration


def _sum(held: bytes, by: int) -> int:
    if not re.fullmatch(rb"0|-?[1-9][0-9]{0,18}", held) or not -(2**63) <= int(held) + by < 2**63:
        raise FailedPrecondition("The value is no integer of 64 bits, or would become none.", field="key")
    return int(held) + by


def _version(value: bytes) -> str:
    return hashlib.sha1(value, usedforsecurity=False).hexdigest()


def _missing(key: str) -> NotFound:
    return NotFound("There is no such key.", key=key)


def _present(tenant: _Tenant, key: str) -> _Item:
    item = tenant.item(key)
    if item is None:
        raise _missing(key)
    return item


def _failure(index: int, error: IsaError, field: str = "") -> pb.Failure:
    error.field = field or error.field
    return pb.Failure(index=index, error=status_of(error))


def _between(request: Any, length: int) -> slice:
    """Both ends are included, as Redis has it."""
    start = max(length + request.start, 0) if request.start < 0 else request.start
    stop = length + request.stop if request.stop < 0 else request.stop
    if min(stop, length - 1) - start + 1 > READABLE and not isinstance(request, pb.LTrimRequest):
        raise ResourceExhausted(f"This is more than {READABLE} items or {ANSWER} bytes: read it in parts.")
    return slice(start, max(stop + 1, start))


def _scored(pairs: Iterable[tuple[bytes, float]]) -> list[pb.ScoredMember]:
    return [pb.ScoredMember(member=member, score=score) for member, score in pairs]


def _own(tenant: _Tenant, request: pb.RenewLockRequest | pb.ReleaseLockRequest) -> _Held:
    held = tenant.locks.get(request.name)
    if held is None or held.until <= time.monotonic() or held.token != request.token:
        raise FailedPrecondition("The lock is no longer yours: its lease ended, or it was given back.", field="token")
    return held


def _allowance(allowed: bool, remaining: int, retry_after: float, reset_after: float) -> pb.LimitResponse:
    return pb.LimitResponse(
        allowed=allowed,
        remaining=remaining,
        retry_after=_duration(retry_after),
        reset_after=_duration(reset_after),
    )


def _glob(pattern: str) -> re.Pattern[str]:
    """A channel pattern as a regular expression."""
    tokens = re.findall(r"\\.|\[\^?(?:\\.|[^\]\\])*\]?|.", pattern, re.DOTALL)
    first, *between = "".join(map(_glob_part, tokens)).split("\0")
    last = f".*{between.pop()}" if between else ""
    return re.compile(first + "".join(f"(?>.*?{each})" for each in between) + last, re.DOTALL)


def _glob_part(part: str) -> str:
    if part in ("*", "?"):
        return "\0" if part == "*" else "."
    if part[0] == "\\" and len(part) == 2:
        return re.escape(part[1])
    if part[0] != "[":
        return re.escape(part)
    inner = part[1:].removesuffix("]")
    is_not, inner = inner.startswith("^"), inner.removeprefix("^")
    members = "".join(
        f"{re.escape(min(low, high))}-{re.escape(max(low, high))}" if high else re.escape(low[-1])
        for low, high in re.findall(r"(\\.|.)(?:-(.))?", inner, re.DOTALL)
    )
    if not members:
        return "." if is_not else "(?!)"
    return f"[{'^' if is_not else ''}{members}]"
