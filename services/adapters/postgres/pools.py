"""Few connections, shared fairly: small pools that open on use, close when idle, and take turns under one cap."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from isa_common import ResourceExhausted
from kernel import telemetry
from services.adapters.postgres.connection import Connection


@dataclass(frozen=True, slots=True)
class Place:
    """Where a caller's statements run: a database of a server, as a role."""

    server: str
    database: str
    role: str


@dataclass(slots=True)
class _Pool:
    idle: deque[tuple[float, Connection]] = field(default_factory=deque)
    waiting: deque[asyncio.Future[Connection | None]] = field(default_factory=deque)
    open: int = 0


class Pools:
    """Connections by place. Under the cap a place may open more; at the cap, places that wait take turns."""

    def __init__(
        self,
        connect: Callable[[Place], Awaitable[Connection]],
        *,
        each: int,
        total: int,
        idle: timedelta,
        queue: int = 256,
    ) -> None:
        self._connect = connect
        self._each = each
        self._total = total
        self._idle = idle.total_seconds()
        self._queue = queue
        self._pools: dict[Place, _Pool] = {}
        self._open = 0
        self._turns: OrderedDict[Place, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._is_closed = False

    async def start(self) -> None:
        """Begin to close what is idle, and to show in the metrics."""
        telemetry.POOL.labels("postgres", "idle").set_function(self._count_idle)
        telemetry.POOL.labels("postgres", "used").set_function(lambda: self._open - self._count_idle())
        telemetry.POOL.labels("postgres", "limit").set(self._total)
        self._reaper = asyncio.create_task(self._reap())

    async def stop(self) -> None:
        """Close every connection; those in use are closed when they come back."""
        self._is_closed = True
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)
        for place in list(self._pools):
            self.purge(place)
        while self._tasks:  # what is rolled back is closed afterwards
            await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def connection(self, place: Place) -> AsyncIterator[Connection]:
        """Borrow a connection; whatever transaction is open on it when it comes back is rolled back."""
        with telemetry.POOL_WAIT.labels("postgres").time():
            connection = await self._take(place)
        try:
            yield connection
        finally:
            if connection.is_closed():
                self._give_back(place, connection)
            elif connection.is_in_transaction() or connection._protocol._is_cancelling():
                self._later(self._roll_back(place, connection))
            else:
                self._give_back(place, connection)

    def purge(self, place: Place) -> None:
        """Close a place's idle connections: the server was restarted, or its login has changed."""
        pool = self._pools.get(place)
        while pool is not None and pool.idle:
            _, connection = pool.idle.popleft()
            self._close(pool, connection)

    async def _take(self, place: Place) -> Connection:
        pool = self._pools.setdefault(place, _Pool())
        while pool.idle:
            _, connection = pool.idle.pop()
            if not connection.is_closed():
                return connection
            self._forget(pool)
        if pool.open < self._each and not pool.waiting and self._has_room(place):
            return await self._open_one(place, pool)
        if len(pool.waiting) >= self._queue:
            raise ResourceExhausted(
                "Too many calls wait for the database.", retry_after=timedelta(seconds=1), waiting=self._queue
            )
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        pool.waiting.append(turn)
        self._turns.setdefault(place)
        try:
            given = await turn
        except BaseException:
            if turn.done() and not turn.cancelled():
                self._undo(place, pool, turn.result())
            else:
                with suppress(ValueError):
                    pool.waiting.remove(turn)
            raise
        return given if given is not None else await self._open_one(place, pool, is_counted=True)

    def _undo(self, place: Place, pool: _Pool, given: Connection | None) -> None:
        """Pass on what came to a caller that had just gone away."""
        if given is not None:
            self._give_back(place, given)
        else:
            self._forget(pool)

    def _has_room(self, place: Place) -> bool:
        """Whether one more may be opened, if need be after closing what is idle elsewhere."""
        if self._open < self._total:
            return True
        others = [(pool.idle[0][0], other) for other, pool in self._pools.items() if pool.idle and other != place]
        if not others:
            return False
        pool = self._pools[min(others, key=lambda each: each[0])[1]]
        _, connection = pool.idle.popleft()
        self._close(pool, connection, is_wake=False)
        return True

    async def _open_one(self, place: Place, pool: _Pool, *, is_counted: bool = False) -> Connection:
        if not is_counted:
            pool.open += 1
            self._open += 1
        try:
            connection = await self._connect(place)
        except BaseException:
            self._forget(pool)
            raise
        return connection

    def _give_back(self, place: Place, connection: Connection) -> None:
        pool = self._pools[place]
        if connection.is_closed():
            self._forget(pool)
            return
        if self._is_closed:
            self._close(pool, connection)
            return
        waiters = [other for other in self._turns if other != place]
        share = max(1, self._total // (len(waiters) + 1))
        if waiters and self._open >= self._total and pool.open > share:
            self._close(pool, connection)  # its place goes to whoever's turn it is
            return
        while pool.waiting:
            turn = pool.waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                self._turn_taken(place, pool)
                return
        self._turns.pop(place, None)
        pool.idle.append((time.monotonic(), connection))
        if waiters and self._open >= self._total and self._has_room(waiters[0]):
            self._grant()

    def _forget(self, pool: _Pool) -> None:
        """Count a connection out, and let the next in line open one."""
        pool.open -= 1
        self._open -= 1
        self._grant()

    def _grant(self) -> None:
        for place in list(self._turns):
            pool = self._pools[place]
            if self._open >= self._total:
                return
            if pool.open >= self._each:
                continue
            while pool.waiting:
                turn = pool.waiting.popleft()
                if not turn.done():
                    pool.open += 1
                    self._open += 1
                    turn.set_result(None)
                    break
            self._turn_taken(place, pool)

    def _turn_taken(self, place: Place, pool: _Pool) -> None:
        if pool.waiting:
            self._turns.move_to_end(place)
        else:
            self._turns.pop(place, None)

    def _close(self, pool: _Pool, connection: Connection, *, is_wake: bool = True) -> None:
        async def close() -> None:
            try:
                await connection.close(timeout=2)
            except Exception:
                connection.terminate()

        self._later(close())
        if is_wake:
            self._forget(pool)
        else:
            pool.open -= 1
            self._open -= 1

    async def _roll_back(self, place: Place, connection: Connection) -> None:
        """Bring a connection back from a call that failed or was cancelled; one that does not come is cut off."""
        try:
            async with asyncio.timeout(5):
                await connection.execute("ROLLBACK")
        except Exception:
            connection.terminate()
        self._give_back(place, connection)

    def _later(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(min(self._idle, 10))
            oldest = time.monotonic() - self._idle
            for place, pool in list(self._pools.items()):
                while pool.idle and pool.idle[0][0] < oldest:
                    _, connection = pool.idle.popleft()
                    self._close(pool, connection)
                if not pool.open and not pool.waiting:
                    del self._pools[place]

    def _count_idle(self) -> int:
        return sum(len(pool.idle) for pool in self._pools.values())
