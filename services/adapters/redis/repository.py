"""The cache of a caller's organisation, in Redis."""

from __future__ import annotations

import asyncio
from typing import Any

from isa.cache.v1 import cache_pb2
from isa.policy.v1 import policy_pb2
from kernel import Caller, InvalidArgument, IsaError, Parts, ResourceExhausted, status
from services.adapters.redis.connection import Redis
from services.adapters.redis.hashes import Hashes
from services.adapters.redis.lists import Lists
from services.adapters.redis.locks import Locks
from services.adapters.redis.messages import Channels
from services.adapters.redis.part import ERRORS, permit, refusal, unchecked
from services.adapters.redis.sets import Sets
from services.adapters.redis.stored import Stored
from services.adapters.redis.values import Values

__all__ = ["ERRORS", "Cache"]

NEAR, FULL = 7 << 20, 9 << 20
"""Bytes of outcomes after which no command is run, and that reads do not pass: the largest value fits."""
AT_ONCE = 64
WEIGHTS = {
    "get": 8, "hget": 1, "hget_all": 8, "lpop": 10, "rpop": 10, "lrange": 8, "smembers": 8, "zrange": 8,
    "zrange_by_score": 8, "scan": 1,
}  # fmt: skip
"""About how many MiB the answer of a command may have: as many run at once as AT_ONCE allows.

A pop cannot be taken back when its answer is too large, so fewer of them run at once.
"""


class Cache(Values, Hashes, Lists, Sets, Locks):
    """The `isa.cache.v1.Cache` service on Redis."""

    def __init__(self, redis: Redis, channels: Channels, parts: Parts) -> None:
        super().__init__(redis, channels, parts)
        self._stored = Stored(redis)

    async def start(self) -> None:
        """Begin to connect."""
        await self._redis.start()
        await self._channels.redis.start()

    async def stop(self) -> None:
        """Close the connections."""
        self._stored.stop()
        await self._channels.redis.stop()
        await self._redis.stop()

    async def stored(self, org: str) -> int:
        """Bytes that an organisation holds."""
        return await self._stored.of(org)

    async def pipeline(self, caller: Caller, request: cache_pb2.PipelineRequest) -> cache_pb2.PipelineResponse:
        """Run commands: at once as far as their answers fit, in their order always, as all share one connection."""
        commands = request.commands
        permit(commands, "commands")
        for permission in {PERMISSIONS[kind] for each in commands if (kind := each.WhichOneof("command"))}:
            caller.require(permission)
        self._shares.spend(caller, len(commands) - 1)
        full = await self._full(caller, commands)
        response = cache_pb2.PipelineResponse()
        size = weight = 0
        running: list[Any] = []

        async def finish() -> None:
            nonlocal size
            for outcome in await asyncio.gather(*running):
                size += outcome.ByteSize()
                if size > FULL and outcome.WhichOneof("outcome") in READS:
                    size -= outcome.ByteSize()
                    outcome = cache_pb2.Outcome()
                    response.unread.append(len(response.outcomes))
                response.outcomes.append(outcome)
            running.clear()

        for index, command in enumerate(commands):
            name = command.WhichOneof("command") or ""
            weight += WEIGHTS.get(name, 0)
            if weight > AT_ONCE:
                await finish()
                weight = WEIGHTS.get(name, 0)
            if size > NEAR:
                response.unread.extend(range(index, len(commands)))
                response.outcomes.extend(cache_pb2.Outcome() for _ in range(index, len(commands)))
                break
            running.append(self._outcome(caller, name, command, full))
            if name == "scan":  # takes several steps, and must not see what comes after it
                await finish()
        await finish()
        return response

    async def _full(self, caller: Caller, commands: Any) -> IsaError | None:
        """Why commands that bring something may not run; asked once, as they must not wait one by one."""
        growth = 0
        for command in commands:
            name = command.WhichOneof("command")
            if name and unchecked(getattr(self, name)):
                growth += getattr(command, name).ByteSize()
        try:
            if growth:
                await self._shares.room(caller, growth)
        except ResourceExhausted as error:
            return error
        return None

    async def _outcome(
        self, caller: Caller, name: str, command: cache_pb2.Command, full: IsaError | None
    ) -> cache_pb2.Outcome:
        """Run one command as its own method runs it; it writes to the connection before it waits for anything."""
        try:
            if not name:
                raise InvalidArgument("The command is empty.", field="command")
            request, method = getattr(command, name), getattr(self, name)
            if name == "acquire_lock" and request.HasField("wait"):
                raise InvalidArgument("In a pipeline a lock is not waited for.", field="wait")
            if growing := unchecked(method):
                if full is not None:
                    raise full
                answer = await growing(self, caller, request)
            else:
                answer = await method(caller, request)
        except Exception as error:
            return cache_pb2.Outcome(error=status(refusal(error)))
        return cache_pb2.Outcome(**{name: answer})


READS = WEIGHTS.keys() - {"lpop", "rpop"}

PERMISSIONS = {
    field.name: method.GetOptions().Extensions[policy_pb2.rule].permission
    for method in cache_pb2.DESCRIPTOR.services_by_name["Cache"].methods
    for field in cache_pb2.Command.DESCRIPTOR.fields
    if field.message_type is method.input_type
}
"""What each command of a pipeline needs, as its own method says."""
