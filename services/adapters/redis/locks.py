"""Locks that end by themselves, and limits of rates."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

from isa.cache.v1 import cache_pb2
from kernel import Aborted, Caller, FailedPrecondition, InvalidArgument, concerns
from services.adapters.redis.codec import BUCKET, FENCE, FIXED, LOCK, SLIDING, WAKE, duration, isolate, milliseconds
from services.adapters.redis.messages import Messages
from services.adapters.redis.part import grows
from services.adapters.redis.scripts import ACQUIRE, FIXED_WINDOW, RELEASE, RENEW, SLIDING_WINDOW, TOKEN_BUCKET

LONGEST_LEASE = timedelta(days=1)
LONGEST_WAIT = timedelta(hours=1)
LONGEST_WINDOW = timedelta(days=30)
SHORTEST_WINDOW = 10
HIGHEST_LIMIT = 1_000_000_000
LONGEST_HOLDER = 128
LOOK = 1.0
"""Seconds after which who waits looks again, whatever it heard."""

ALGORITHMS = {
    cache_pb2.ALGORITHM_UNSPECIFIED: (FIXED, FIXED_WINDOW),
    cache_pb2.ALGORITHM_FIXED_WINDOW: (FIXED, FIXED_WINDOW),
    cache_pb2.ALGORITHM_SLIDING_WINDOW: (SLIDING, SLIDING_WINDOW),
    cache_pb2.ALGORITHM_TOKEN_BUCKET: (BUCKET, TOKEN_BUCKET),
}


class Locks(Messages):
    """The methods of locks and limits; who waits for a lock listens for its release."""

    @grows
    async def acquire_lock(
        self, caller: Caller, request: cache_pb2.AcquireLockRequest
    ) -> cache_pb2.AcquireLockResponse:
        """Take a lock, and wait for it as long as the caller says."""
        lock, wake = self._lock(caller, request)
        (fence,) = isolate(caller, request.scope, ("token",), kind=FENCE)
        lease = milliseconds(request.lease, "lease", longest=LONGEST_LEASE)
        wait = milliseconds(request.wait, "wait", longest=LONGEST_WAIT, least=0)
        if len(request.holder) > LONGEST_HOLDER:
            raise InvalidArgument(f"A holder has at most {LONGEST_HOLDER} characters.", field="holder")

        async def attempt() -> tuple[bytes | None, int]:
            token, left = await self._redis.run(ACQUIRE, (lock, fence), lease, request.holder)
            return token, left

        token, left = await attempt()
        if token is None and wait:
            loop = asyncio.get_running_loop()
            until = loop.time() + wait / 1000
            async with self._channels.listen(wake, lambda name: name == wake) as listener:
                while True:
                    token, left = await attempt()  # it may have been released before we listened
                    remains = until - loop.time()
                    if token is not None or remains <= 0:
                        break
                    pause = min(remains, LOOK, left / 1000 + random.uniform(0.001, 0.005))
                    await listener.within(pause)
        if token is None:
            raise Aborted("Another holder has the lock.", retry_after=timedelta(milliseconds=max(left, 1)))
        return cache_pb2.AcquireLockResponse(token=int(token))

    async def renew_lock(self, caller: Caller, request: cache_pb2.RenewLockRequest) -> cache_pb2.RenewLockResponse:
        """Keep a lock for longer."""
        lock, _ = self._lock(caller, request)
        lease = milliseconds(request.lease, "lease", longest=LONGEST_LEASE)
        if not await self._redis.run(RENEW, (lock,), request.token, lease):
            raise _lost()
        return cache_pb2.RenewLockResponse()

    async def release_lock(
        self, caller: Caller, request: cache_pb2.ReleaseLockRequest
    ) -> cache_pb2.ReleaseLockResponse:
        """Give a lock back."""
        if not await self._redis.run(RELEASE, self._lock(caller, request), request.token):
            raise _lost()
        return cache_pb2.ReleaseLockResponse()

    @grows
    async def limit(self, caller: Caller, request: cache_pb2.LimitRequest) -> cache_pb2.LimitResponse:
        """Count against a limit."""
        if request.algorithm not in ALGORITHMS:
            raise InvalidArgument("There is no such algorithm.", field="algorithm")
        kind, script = ALGORITHMS[request.algorithm]
        (name,) = isolate(caller, request.scope, (request.name,), kind=kind, field="name")
        concerns(request.name)
        window = milliseconds(request.window, "window", longest=LONGEST_WINDOW, least=SHORTEST_WINDOW)
        if not 0 < request.limit <= HIGHEST_LIMIT:
            raise InvalidArgument(f"A limit is 1 to {HIGHEST_LIMIT}.", field="limit")
        burst, cost = request.burst or request.limit, request.cost or 1
        if not 0 < burst <= HIGHEST_LIMIT or (request.burst and kind != BUCKET):
            raise InvalidArgument(f"A burst is 1 to {HIGHEST_LIMIT}, of a token bucket only.", field="burst")
        if not 0 < cost <= burst:
            raise InvalidArgument("A cost is at least 1, and at most what may pass at once.", field="cost")
        allowed, remaining, retry, reset = await self._redis.run(script, (name,), request.limit, window, cost, burst)
        return cache_pb2.LimitResponse(
            allowed=allowed == 1, remaining=remaining, retry_after=duration(retry), reset_after=duration(reset)
        )

    def _lock(
        self,
        caller: Caller,
        request: cache_pb2.AcquireLockRequest | cache_pb2.RenewLockRequest | cache_pb2.ReleaseLockRequest,
    ) -> tuple[str, str]:
        """The names of a lock, and of the channel that tells of its release."""
        (lock,) = isolate(caller, request.scope, (request.name,), kind=LOCK, field="name")
        (wake,) = isolate(caller, request.scope, (request.name,), kind=WAKE, field="name")
        concerns(request.name)
        return lock, wake


def _lost() -> FailedPrecondition:
    return FailedPrecondition("The lock is no longer yours: its lease ended, or it was given back.", field="token")
