"""Open transactions: each on a connection of its own, few an organisation, and none for long."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal, TypeVar

import asyncpg
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from isa.sql.v1 import sql_pb2
from isa_common import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from kernel import Caller
from services.adapters.postgres.connection import Connection
from services.adapters.postgres.errors import STALE, failure
from services.adapters.postgres.pools import Place, Pools
from services.adapters.postgres.results import Limits, begin, commit, run
from services.adapters.postgres.statements import check

REMEMBERED = 10_000
"""Transactions that are over and whose end is remembered."""
COMMITTED = "committed"
UNKNOWN = "unknown"

_LEVELS = {
    sql_pb2.ISOLATION_UNSPECIFIED: "",
    sql_pb2.ISOLATION_READ_COMMITTED: " ISOLATION LEVEL READ COMMITTED",
    sql_pb2.ISOLATION_REPEATABLE_READ: " ISOLATION LEVEL REPEATABLE READ",
    sql_pb2.ISOLATION_SERIALIZABLE: " ISOLATION LEVEL SERIALIZABLE",
}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Terms:
    """What a transaction may take."""

    timeout: timedelta
    """How long it may be open."""
    idle: timedelta
    """How long it may wait for its next statement."""
    each: int
    """How many may be open on one login to one database."""
    total: int
    """How many may be open here."""


class Transaction:
    """One open transaction. Its statements run one at a time; whatever breaks one off ends it."""

    def __init__(self, connection: Connection, *, seconds: float, idle: float, limits: Limits) -> None:
        self._connection = connection
        self._until = asyncio.get_running_loop().time() + seconds
        self._limits = limits
        self._turn = asyncio.Lock()
        self.idle = idle
        """Seconds that it may wait for its next statement."""
        self.ended = ""
        """How it ended; empty while it is open."""

    @property
    def patience(self) -> float:
        """Seconds that it may wait from now on."""
        return min(self.idle, self.left.total_seconds())

    @property
    def left(self) -> timedelta:
        """How long it may be open from now on."""
        return timedelta(seconds=self._until - asyncio.get_running_loop().time())

    @property
    def is_busy(self) -> bool:
        """Whether a statement runs, or waits for its turn."""
        return self._turn.locked()

    async def run(self, statements: Sequence[sql_pb2.Statement], field: str) -> list[sql_pb2.Result]:
        """Run statements in order; after one that failed only a rollback helps."""

        async def each() -> list[sql_pb2.Result]:
            results, size = [], 0
            for index, statement in enumerate(statements):
                path = f"{field}[{index}]" if field == "statements" else field
                results.append(await self._one(statement, path, index))
                size += len(results[-1].rows.rows)
                if size > self._limits.bytes:
                    raise ResourceExhausted(f"More than {self._limits.bytes} bytes of rows.", field=path)
            return results

        return await self._within(each)

    async def commit(self) -> None:
        """Commit; Aborted says that it was rolled back instead."""
        try:
            await self._within(lambda: commit(self._connection), is_commit=True)
        except Unavailable:
            self.end(UNKNOWN)
            raise
        except IsaError:
            self.end("it was rolled back")
            raise
        self.ended = COMMITTED

    async def rollback(self) -> None:
        """Roll back."""

        async def roll_back() -> None:
            await self._connection.execute("ROLLBACK")

        await self._within(roll_back)
        self.ended = "it was rolled back"

    def end(self, why: str) -> None:
        """Let no further statement run; the connection is rolled back where it is given back."""
        self.ended = self.ended or why

    def check(self) -> None:
        """Refuse what comes after its end."""
        if self.ended == COMMITTED:
            raise FailedPrecondition("This transaction was committed already.")
        if self.ended == UNKNOWN:
            raise Unavailable("Whether this was committed is not known: read to see.", outcome="unknown")
        if self.ended:
            raise Aborted(f"This transaction is over: {self.ended}. Begin another one.")

    async def _one(self, statement: sql_pb2.Statement, path: str, index: int) -> sql_pb2.Result:
        if check(statement.sql, in_transaction=True).is_savepoint:
            try:
                await self._connection.execute(statement.sql)
            except asyncpg.PostgresError as error:
                raise failure(error, statement.sql, path, index) from error
            return sql_pb2.Result()
        try:
            return await run(self._connection, statement, path, index, self._limits)
        except STALE as error:
            self._connection.forget()
            raise Aborted("A table has changed since this transaction began; try again.", field=path) from error
        except (Aborted, ResourceExhausted) as error:
            if "sqlstate" not in error.details:  # PostgreSQL did not fail it, so that a commit would go through
                self.end("a statement did other than it should")
            raise

    async def _within(self, work: Callable[[], Awaitable[T]], *, is_commit: bool = False) -> T:
        """Do something on its connection, in its time."""
        async with self._turn:
            self.check()
            is_done = False
            limit = asyncio.timeout_at(self._until)
            try:
                async with limit:
                    done = await work()
                is_done = True
            except IsaError:
                is_done = not self._connection.is_closed()
                raise
            except TimeoutError:
                if not limit.expired():
                    raise
                self.end(UNKNOWN if is_commit else "it was open for too long")
                self.check()
                raise
            finally:
                if not is_done:
                    self.end(UNKNOWN if is_commit else "a call of it was broken off")
            return done


class Transactions:
    """The open transactions of this replica."""

    def __init__(self, pools: Pools, terms: Terms, limits: Limits) -> None:
        self._pools = pools
        self._terms = terms
        self._limits = limits
        self._counts: Counter[Place] = Counter()
        self._kept: dict[str, tuple[Transaction, AsyncExitStack, asyncio.TimerHandle]] = {}
        self._over: OrderedDict[str, Transaction] = OrderedDict()
        self._closing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, caller: Caller, place: Place, asked: sql_pb2.Begin) -> AsyncIterator[Transaction]:
        """Begin a transaction; what is left of it at the end is rolled back."""
        terms = self._terms
        seconds = _seconds(asked, "timeout", terms.timeout)
        idle = _seconds(asked, "idle_timeout", terms.idle)
        if asked.isolation not in _LEVELS:
            raise InvalidArgument("This isolation is not known.", field="begin.isolation")
        if self._counts[place] >= terms.each or self._counts.total() >= terms.total:
            raise ResourceExhausted(
                f"{terms.each} transactions are open, as many as may be: end one first.",
                retry_after=timedelta(seconds=1),
            )
        self._counts[place] += 1
        try:
            async with self._pools.connection(place) as connection:
                transaction = Transaction(
                    connection,
                    seconds=seconds,
                    idle=idle,
                    limits=self._limits,
                )
                text = f"BEGIN{_LEVELS[asked.isolation]}{' READ ONLY' if asked.read_only else ' READ WRITE'}"
                await connection.execute(begin(caller, text, seconds))
                try:
                    yield transaction
                finally:
                    transaction.end("it was rolled back")
        finally:
            self._counts[place] -= 1

    async def keep(self, caller: Caller, place: Place, asked: sql_pb2.Begin) -> tuple[str, Transaction]:
        """Begin a transaction that outlives its call; return its key."""
        stack, key = AsyncExitStack(), secrets.token_hex(16)
        transaction = await stack.enter_async_context(self.open(caller, place, asked))
        timer = asyncio.get_running_loop().call_later(transaction.patience, self._wake, key)
        self._kept[key] = (transaction, stack, timer)
        return key, transaction

    @asynccontextmanager
    async def use(self, key: str) -> AsyncIterator[Transaction]:
        """Find a transaction for one call; its clock begins anew afterwards."""
        kept = self._kept.get(key)
        if kept is None:
            if key in self._over:
                self._over[key].check()
            raise Aborted("This transaction is gone with the replica that had it: begin another one.")
        transaction, _, timer = kept
        timer.cancel()
        try:
            yield transaction
        finally:
            if key in self._kept:
                self._watch(key)

    def has_committed(self, key: str) -> bool:
        """Whether a transaction is known to be committed."""
        return key in self._over and self._over[key].ended == COMMITTED

    async def stop(self) -> None:
        """Roll all back."""
        for key in list(self._kept):
            self._drop(key, "the replica stopped")
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)

    def _watch(self, key: str) -> None:
        transaction, stack, timer = self._kept[key]
        timer.cancel()
        if transaction.ended:
            self._drop(key, "")
            return
        timer = asyncio.get_running_loop().call_later(max(transaction.patience, 0), self._wake, key)
        self._kept[key] = (transaction, stack, timer)

    def _wake(self, key: str) -> None:
        """Its time is over, if it does nothing; what runs is watched by itself."""
        transaction, _, _ = self._kept[key]
        if not transaction.is_busy:
            self._drop(key, "it was idle or open for too long")

    def _drop(self, key: str, why: str) -> None:
        transaction, stack, timer = self._kept.pop(key)
        timer.cancel()
        transaction.end(why)
        self._over[key] = transaction
        if len(self._over) > REMEMBERED:
            self._over.popitem(last=False)
        task = asyncio.ensure_future(stack.aclose())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


class Names:
    """Ids of transactions: which replica has it, sealed for the one user that began it."""

    def __init__(self, master_key: Callable[[], Awaitable[bytes]], address: str) -> None:
        self._master_key = master_key
        self.address = address
        """Where other replicas reach this one."""

    async def seal(self, caller: Caller, key: str) -> str:
        """Make the id of a transaction of this replica."""
        nonce = secrets.token_bytes(12)
        sealed = (await self._cipher()).encrypt(nonce, f"{key} {self.address}".encode(), _owner(caller))
        return base64.urlsafe_b64encode(nonce + sealed).decode("ascii").rstrip("=")

    async def open(self, caller: Caller, tx_id: str) -> tuple[str, str]:
        """Return a transaction's key, and its replica's address when it is another one."""
        try:
            sealed = base64.b64decode(tx_id + "=" * (-len(tx_id) % 4), altchars=b"-_", validate=True)
            text = (await self._cipher()).decrypt(sealed[:12], sealed[12:], _owner(caller)).decode()
        except (ValueError, InvalidTag):
            raise NotFound("There is no such transaction.", field="tx_id") from None
        key, _, address = text.partition(" ")
        return key, "" if address == self.address else address

    async def _cipher(self) -> AESGCM:
        return AESGCM(hmac.digest(await self._master_key(), b"transactions", hashlib.sha256))


def _owner(caller: Caller) -> bytes:
    return f"{caller.org} {caller.user} {caller.workload}".encode()


def _seconds(asked: sql_pb2.Begin, field: Literal["timeout", "idle_timeout"], most: timedelta) -> float:
    if not asked.HasField(field):
        return most.total_seconds()
    given = getattr(asked, field)
    seconds: float = given.seconds + given.nanos / 1e9
    if not 0 < seconds <= most.total_seconds():
        raise InvalidArgument(f"This may be up to {most.total_seconds():.0f} seconds.", field=f"begin.{field}")
    return seconds
