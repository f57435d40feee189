"""Hashes: fields under a key."""

from __future__ import annotations

from collections.abc import Iterable

from isa.cache.v1 import cache_pb2
from kernel import Caller, InvalidArgument, NotFound
from services.adapters.redis.codec import LONGEST_NAME
from services.adapters.redis.part import Part, fit, grows, key, permit


class Hashes(Part):
    """The methods of hashes."""

    @grows
    async def hset(self, caller: Caller, request: cache_pb2.HSetRequest) -> cache_pb2.HSetResponse:
        """Store fields."""
        name, fields = key(caller, request), dict(request.fields)
        permit(fields, "fields")
        _check(fields)
        fit(list(fields.values()), "fields")
        words = [word for pair in fields.items() for word in pair]
        return cache_pb2.HSetResponse(added=await self._redis.execute("HSET", name, *words))

    async def hget(self, caller: Caller, request: cache_pb2.HGetRequest) -> cache_pb2.HGetResponse:
        """Return a field."""
        value: bytes | None = await self._redis.execute("HGET", key(caller, request), request.field)
        if value is None:
            raise NotFound("There is no such field.", key=request.key, field_name=request.field)
        return cache_pb2.HGetResponse(value=value)

    async def hget_all(self, caller: Caller, request: cache_pb2.HGetAllRequest) -> cache_pb2.HGetAllResponse:
        """Return all fields."""
        found = await self._read(key(caller, request), "HLEN", "HGETALL")
        return cache_pb2.HGetAllResponse(
            fields={field.decode(): value for field, value in zip(found[::2], found[1::2], strict=True)}
        )

    async def hdel(self, caller: Caller, request: cache_pb2.HDelRequest) -> cache_pb2.HDelResponse:
        """Remove fields."""
        name = key(caller, request)
        permit(request.fields, "fields")
        return cache_pb2.HDelResponse(removed=await self._redis.execute("HDEL", name, *request.fields))

    @grows
    async def hincr_by(self, caller: Caller, request: cache_pb2.HIncrByRequest) -> cache_pb2.HIncrByResponse:
        """Add to a field."""
        name = key(caller, request)
        _check((request.field,))
        by = request.by if request.HasField("by") else 1
        return cache_pb2.HIncrByResponse(value=await self._redis.execute("HINCRBY", name, request.field, by))


def _check(fields: Iterable[str]) -> None:
    for field in fields:
        if not field or "\0" in field or len(field.encode()) > LONGEST_NAME:
            raise InvalidArgument(f"A field's name has 1 to {LONGEST_NAME} bytes and no NUL.", field="fields")
