"""Lists: values in order under a key."""

from __future__ import annotations

from typing import Literal

from isa.cache.v1 import cache_pb2
from kernel import Caller, InvalidArgument
from services.adapters.redis.part import MANY, Part, fit, grows, key, permit
from services.adapters.redis.scripts import POP

POPPED = 1 << 20
"""Bytes that a pop returns, unless its first value alone has more."""


class Lists(Part):
    """The methods of lists."""

    @grows
    async def lpush(self, caller: Caller, request: cache_pb2.LPushRequest) -> cache_pb2.LPushResponse:
        """Add at the left end."""
        return cache_pb2.LPushResponse(length=await self._push(caller, request, "LPUSH"))

    @grows
    async def rpush(self, caller: Caller, request: cache_pb2.RPushRequest) -> cache_pb2.RPushResponse:
        """Add at the right end."""
        return cache_pb2.RPushResponse(length=await self._push(caller, request, "RPUSH"))

    async def lpop(self, caller: Caller, request: cache_pb2.LPopRequest) -> cache_pb2.LPopResponse:
        """Take from the left end."""
        return cache_pb2.LPopResponse(values=await self._pop(caller, request, "LPOP", 0))

    async def rpop(self, caller: Caller, request: cache_pb2.RPopRequest) -> cache_pb2.RPopResponse:
        """Take from the right end."""
        return cache_pb2.RPopResponse(values=await self._pop(caller, request, "RPOP", -1))

    async def lrange(self, caller: Caller, request: cache_pb2.LRangeRequest) -> cache_pb2.LRangeResponse:
        """Return what is between two positions."""
        found = await self._read(key(caller, request), "LLEN", "LRANGE", request.start, request.stop)
        return cache_pb2.LRangeResponse(values=found)

    async def llen(self, caller: Caller, request: cache_pb2.LLenRequest) -> cache_pb2.LLenResponse:
        """Tell the length."""
        return cache_pb2.LLenResponse(length=await self._redis.execute("LLEN", key(caller, request)))

    async def ltrim(self, caller: Caller, request: cache_pb2.LTrimRequest) -> cache_pb2.LTrimResponse:
        """Remove what is not between two positions."""
        await self._redis.execute("LTRIM", key(caller, request), request.start, request.stop)
        return cache_pb2.LTrimResponse()

    async def _push(
        self, caller: Caller, request: cache_pb2.LPushRequest | cache_pb2.RPushRequest, command: str
    ) -> int:
        name = key(caller, request)
        permit(request.values, "values")
        fit(request.values, "values")
        length: int = await self._redis.execute(command, name, *request.values)
        return length

    async def _pop(
        self,
        caller: Caller,
        request: cache_pb2.LPopRequest | cache_pb2.RPopRequest,
        command: str,
        end: Literal[0, -1],
    ) -> list[bytes]:
        name, count = key(caller, request), request.count or 1
        if not 0 < count <= MANY:
            raise InvalidArgument(f"A pop takes 1 to {MANY} values.", field="count")
        found: list[bytes] = await self._redis.run(POP, (name,), count, POPPED, command, end)
        return found
