"""Sets, and sets whose members have a score."""

from __future__ import annotations

import math
from collections.abc import Sequence

from isa.cache.v1 import cache_pb2
from kernel import Caller, InvalidArgument, NotFound
from services.adapters.redis.part import READABLE, Part, fit, grows, key, permit

PAGE = 1000
"""Members that a range by score returns where nothing is said."""


class Sets(Part):
    """The methods of sets and sorted sets."""

    @grows
    async def sadd(self, caller: Caller, request: cache_pb2.SAddRequest) -> cache_pb2.SAddResponse:
        """Add members."""
        name = key(caller, request)
        permit(request.members, "members")
        fit(request.members, "members")
        return cache_pb2.SAddResponse(added=await self._redis.execute("SADD", name, *request.members))

    async def srem(self, caller: Caller, request: cache_pb2.SRemRequest) -> cache_pb2.SRemResponse:
        """Remove members."""
        name = key(caller, request)
        permit(request.members, "members")
        return cache_pb2.SRemResponse(removed=await self._redis.execute("SREM", name, *request.members))

    async def smembers(self, caller: Caller, request: cache_pb2.SMembersRequest) -> cache_pb2.SMembersResponse:
        """Return all members."""
        return cache_pb2.SMembersResponse(members=await self._read(key(caller, request), "SCARD", "SMEMBERS"))

    async def scontains(self, caller: Caller, request: cache_pb2.SContainsRequest) -> cache_pb2.SContainsResponse:
        """Tell whether there is a member."""
        found = await self._redis.execute("SISMEMBER", key(caller, request), request.member)
        return cache_pb2.SContainsResponse(contains=found == 1)

    @grows
    async def zadd(self, caller: Caller, request: cache_pb2.ZAddRequest) -> cache_pb2.ZAddResponse:
        """Add members with a score."""
        name = key(caller, request)
        permit(request.members, "members")
        fit([each.member for each in request.members], "members")
        words: list[bytes | float] = []
        for index, each in enumerate(request.members):
            if math.isnan(each.score):
                raise InvalidArgument("A score is a number.", field=f"members[{index}].score")
            words += (each.score, each.member)
        return cache_pb2.ZAddResponse(added=await self._redis.execute("ZADD", name, *words))

    async def zrem(self, caller: Caller, request: cache_pb2.ZRemRequest) -> cache_pb2.ZRemResponse:
        """Remove members."""
        name = key(caller, request)
        permit(request.members, "members")
        return cache_pb2.ZRemResponse(removed=await self._redis.execute("ZREM", name, *request.members))

    async def zrange(self, caller: Caller, request: cache_pb2.ZRangeRequest) -> cache_pb2.ZRangeResponse:
        """Return what is between two ranks."""
        command = "ZREVRANGE" if request.reverse else "ZRANGE"
        found = await self._read(key(caller, request), "ZCARD", command, request.start, request.stop, "WITHSCORES")
        return cache_pb2.ZRangeResponse(members=_scored(found))

    async def zrange_by_score(
        self, caller: Caller, request: cache_pb2.ZRangeByScoreRequest
    ) -> cache_pb2.ZRangeByScoreResponse:
        """Return what is between two scores."""
        name, limit = key(caller, request), request.limit or PAGE
        if not 0 < limit <= READABLE:
            raise InvalidArgument(f"An answer has 1 to {READABLE} members.", field="limit")
        if request.offset < 0:
            raise InvalidArgument("The offset is 0 or more.", field="offset")
        lowest = request.min if request.HasField("min") else -math.inf
        highest = request.max if request.HasField("max") else math.inf
        if math.isnan(lowest) or math.isnan(highest):
            raise InvalidArgument("A score is a number.", field="min" if math.isnan(lowest) else "max")
        command, ends = "ZRANGEBYSCORE", (repr(lowest), repr(highest))
        if request.reverse:
            command, ends = "ZREVRANGEBYSCORE", ends[::-1]
        found = await self._read(name, "", command, *ends, "WITHSCORES", "LIMIT", request.offset, limit)
        return cache_pb2.ZRangeByScoreResponse(members=_scored(found))

    async def zscore(self, caller: Caller, request: cache_pb2.ZScoreRequest) -> cache_pb2.ZScoreResponse:
        """Return a member's score."""
        score: bytes | None = await self._redis.execute("ZSCORE", key(caller, request), request.member)
        if score is None:
            raise NotFound("There is no such member.", key=request.key)
        return cache_pb2.ZScoreResponse(score=float(score))

    async def zrank(self, caller: Caller, request: cache_pb2.ZRankRequest) -> cache_pb2.ZRankResponse:
        """Return a member's rank."""
        command = "ZREVRANK" if request.reverse else "ZRANK"
        rank: int | None = await self._redis.execute(command, key(caller, request), request.member)
        if rank is None:
            raise NotFound("There is no such member.", key=request.key)
        return cache_pb2.ZRankResponse(rank=rank)


def _scored(found: Sequence[bytes]) -> list[cache_pb2.ScoredMember]:
    pairs = zip(found[::2], found[1::2], strict=True)
    return [cache_pb2.ScoredMember(member=member, score=float(score)) for member, score in pairs]
