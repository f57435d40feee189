"""SQL in the caller's own database."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import lru_cache, partial
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from isa.sql.v1 import sql_pb2
from isa_common._capability import Acting, Capability, acting
from isa_common._coalesce import _ALONE, Coalescer
from isa_common._contract import methods
from isa_common._messages import outcome_of, to_duration
from isa_common._transport import Transport, error_of
from isa_common._values import copy_line, decoder, encode
from isa_common.errors import Aborted, FailedPrecondition, InvalidArgument, IsaError, MessageTooLarge, Unavailable

_quick: Callable[[bytes], Any] = json.loads
with suppress(ImportError):
    from orjson import loads as _quick  # when it is installed: it needs a quarter of the time

_METHODS = methods(sql_pb2.DESCRIPTOR.services_by_name["Sql"], capability="sql")

_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG = b"0" * 19
"""A number that orjson would round; outside of JSON such numbers travel as strings."""

CHUNK = 256 * 1024
"""Bytes of a chunk that rows are written into, about."""
LONGEST_CHUNK = 4 << 20
"""Bytes of a chunk that is sent; a longer one is cut."""
OTHERS = 1024
"""Clients that act for others and are kept, so that their calls may go together."""
IN_ALL = timedelta(seconds=60)
"""How long a transaction may be open when its caller does not say."""

Req = TypeVar("Req")
Res = TypeVar("Res")


class Isolation(IntEnum):
    """How much a transaction sees of others that run beside it."""

    READ_COMMITTED = 1
    REPEATABLE_READ = 2
    SERIALIZABLE = 3


class CopyFormat(IntEnum):
    """How rows are written in bulk."""

    CSV = 1
    TEXT = 2
    BINARY = 3


class Row(tuple[Any, ...]):
    """One row: by name `row["title"]`, by position `row[0]`, `dict(row)`; of equal names the first counts."""

    __slots__ = ()
    _shape: ClassVar[_Shape]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in order; they may repeat."""
        return self._shape.names

    def __getitem__(self, key: Any) -> Any:
        return tuple.__getitem__(self, self._shape.index[key] if isinstance(key, str) else key)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column, or the default when there is no such column."""
        position = self._shape.index.get(name)
        return default if position is None else self[position]

    def keys(self) -> tuple[str, ...]:
        """The names, each once."""
        return tuple(self._shape.index)

    def values(self) -> tuple[Any, ...]:
        """The values, in the order of the columns."""
        return tuple(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row) and self.columns != other.columns:
            return False
        return tuple.__eq__(self, other) if isinstance(other, tuple) else NotImplemented

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = tuple.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return _row, (self._shape.columns, tuple(self))

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self.columns, self, strict=True))
        return f"Row({pairs})"


def _row(columns: tuple[tuple[str, str], ...], values: tuple[Any, ...]) -> Row:
    """A row out of a pickle."""
    return _shape(columns).row(values)


class _Shape:
    """The columns that the rows of one result share, and the class of these rows: a tuple has no room for them."""

    __slots__ = ("columns", "decoders", "has_json", "index", "names", "row")

    def __init__(self, columns: tuple[tuple[str, str], ...]) -> None:
        self.columns = columns
        self.names = tuple(name for name, _ in columns)
        self.index: dict[str, int] = {}
        for position, name in enumerate(self.names):
            self.index.setdefault(name, position)
        found = ((position, decoder(kind)) for position, (_, kind) in enumerate(columns))
        self.decoders = [(position, decode) for position, decode in found if decode is not None]
        self.has_json = any(kind.startswith("json") for _, kind in columns)
        self.row: type[Row] = type("Row", (Row,), {"__slots__": (), "_shape": self})

    def rows(self, page: bytes) -> list[Row]:
        if not page:
            return []
        is_collecting = gc.isenabled()
        gc.disable()  # thousands of objects of which none is garbage: looking at them costs more than making them
        try:
            has_long = self.has_json and _LONG in page.translate(_ZEROS)
            values: list[Sequence[Any]] = json.loads(page) if has_long else _quick(page)
            if self.decoders and values:
                columns: list[Sequence[Any]] = list(zip(*values, strict=True))
                for position, decode in self.decoders:
                    columns[position] = decode(columns[position])
                values = list(zip(*columns, strict=True))
            return list(map(self.row, values))
        finally:
            if is_collecting:
                gc.enable()


_shape = lru_cache(maxsize=1024)(_Shape)


@dataclass(frozen=True, slots=True)
class Result:
    """What a statement did."""

    affected: int
    """Rows inserted, updated, deleted or returned."""
    rows: list[Row] = field(default_factory=list)
    """What `RETURNING` or a `SELECT` gave."""


class Statement:
    """One statement of a batch, with `$1`, `$2`, ... for its parameters."""

    __slots__ = ("expect_rows", "params", "sql")

    def __init__(self, sql: str, *params: object, expect_rows: int | None = None) -> None:
        self.sql = sql
        self.params = params
        self.expect_rows = expect_rows

    def __repr__(self) -> str:
        return f"Statement({self.sql!r}, {len(self.params)} parameters, expect_rows={self.expect_rows})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Statement):
            return (self.sql, self.params, self.expect_rows) == (other.sql, other.params, other.expect_rows)
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # parameters may be lists


class Sql(Capability):
    """SQL with parameters. Reads are retried within their deadline; writes are sent once.

    Calls that are made at the same time travel together; each is answered as it is done.
    """

    _methods = _METHODS

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._others: dict[tuple[str, str], Sql] = {}
        self._fetches = _Scattered(partial(self._call, "Fetch"), self._fetch_many, is_repeatable=True)
        self._executes = _Scattered(partial(self._call, "Execute"), self._execute_many, is_repeatable=False)

    async def query(self, sql: str, *params: object, timeout: timedelta | None = None) -> list[Row]:
        """Return all rows of a statement that only reads."""
        statement = _message(Statement(sql, *params))
        response = await self._fetches(sql_pb2.FetchRequest(statement=statement), timeout)
        if response.too_large:
            return [row async for row in self._rows_of(statement, timeout)]
        return _rows(response.rows)

    async def stream(self, sql: str, *params: object, timeout: timedelta | None = None) -> AsyncIterator[Row]:
        """Return the rows of a statement that only reads as they come; they need not fit into memory."""
        async with aclosing(self._rows_of(_message(Statement(sql, *params)), timeout)) as rows:
            async for row in rows:
                yield row

    async def execute(self, sql: str, *params: object, timeout: timedelta | None = None) -> Result:
        """Run one statement in a transaction of its own."""
        request = sql_pb2.ExecuteRequest(statement=_message(Statement(sql, *params)))
        return _result((await self._executes(request, timeout)).result)

    async def execute_batch(self, statements: Sequence[Statement], *, timeout: timedelta | None = None) -> list[Result]:
        """Run statements in one transaction, all or none.

        Aborted says that one touched another number of rows than expected. Unavailable and DeadlineExceeded
        may also mean that it was committed and the answer lost: repeat only what is idempotent.
        """
        request = sql_pb2.ExecuteBatchRequest(statements=[_message(statement) for statement in statements])
        response = await self._call("ExecuteBatch", request, timeout)
        return [_result(result) for result in response.results]

    async def execute_many(
        self, statements: Sequence[Statement], *, timeout: timedelta | None = None
    ) -> list[Result | IsaError]:
        """Run statements at the same time, each in a transaction of its own; return what came of each."""
        answers: list[Result | IsaError] = [Unavailable("It was not answered.") for _ in statements]
        requests = [sql_pb2.ExecuteRequest(statement=_message(statement)) for statement in statements]
        async with aclosing(self._execute_many(requests, timeout)) as found:
            async for index, answer in found:
                answers[index] = answer if isinstance(answer, IsaError) else _result(answer.result)
        return answers

    def transaction(
        self,
        *,
        isolation: Isolation = Isolation.READ_COMMITTED,
        read_only: bool = False,
        timeout: timedelta | None = None,
        idle_timeout: timedelta | None = None,
    ) -> Transaction:
        """Begin a transaction: `async with isa.sql.transaction() as tx`. It ends by commit, after an error by rollback.

        `timeout` is for all of it, `idle_timeout` for the pauses between its statements.
        """
        begin = _begin(isolation, read_only, timeout, idle_timeout)
        return Transaction(self._transport, self._acting, begin, timeout or IN_ALL)

    async def begin(
        self,
        *,
        isolation: Isolation = Isolation.READ_COMMITTED,
        read_only: bool = False,
        timeout: timedelta | None = None,
        idle_timeout: timedelta | None = None,
    ) -> OpenTransaction:
        """Begin a transaction that has an id, so that other processes of the same user can go on with it."""
        request = sql_pb2.BeginTxRequest(begin=_begin(isolation, read_only, timeout, idle_timeout))
        response: sql_pb2.BeginTxResponse = await self._call("BeginTx", request, None)
        return OpenTransaction(
            self._transport, self._acting, response.tx_id, expires_at=response.expires_at.ToDatetime(UTC)
        )

    def resume(self, tx_id: str) -> OpenTransaction:
        """Go on with a transaction that was begun elsewhere."""
        return OpenTransaction(self._transport, self._acting, tx_id)

    async def copy_in(
        self,
        table: str,
        *,
        rows: Iterable[Sequence[object]] | AsyncIterable[Sequence[object]] | None = None,
        chunks: Iterable[bytes] | AsyncIterable[bytes] | None = None,
        columns: Sequence[str] = (),
        schema: str = "",
        format: CopyFormat = CopyFormat.CSV,  # noqa: A002 -- PostgreSQL's word
        header: bool = False,
        delimiter: str = "",
        null_text: str | None = None,
        timeout: timedelta | None = None,
    ) -> int:
        """Store rows in bulk, all or none, and return how many; `rows` of values, or `chunks` in a format of COPY."""
        if (rows is None) == (chunks is None):
            raise InvalidArgument("Give rows or chunks.", field="rows")
        options = _options(format, header, delimiter, null_text)
        if rows is not None:
            chunks, options = _lines(rows), sql_pb2.CopyOptions(format=sql_pb2.COPY_FORMAT_TEXT)
        assert chunks is not None
        target = sql_pb2.CopyTarget(table=table, schema=schema, columns=columns, options=options)

        async def requests() -> AsyncIterator[sql_pb2.CopyInRequest]:
            yield sql_pb2.CopyInRequest(target=target)
            async for chunk in _each(chunks):
                for start in range(0, len(chunk), LONGEST_CHUNK):
                    yield sql_pb2.CopyInRequest(chunk=chunk[start : start + LONGEST_CHUNK])

        response: sql_pb2.CopyInResponse = await self._transport.collect(
            _METHODS["CopyIn"], requests(), timeout=timeout, acting=self._acting
        )
        return response.rows

    async def copy_out(
        self,
        sql: str,
        *params: object,
        format: CopyFormat = CopyFormat.CSV,  # noqa: A002 -- PostgreSQL's word
        header: bool = False,
        delimiter: str = "",
        null_text: str | None = None,
        timeout: timedelta | None = None,
    ) -> AsyncIterator[bytes]:
        """Return the rows of a statement in bulk, in chunks that end anywhere; `TABLE plants` reads a table."""
        request = sql_pb2.CopyOutRequest(
            statement=_message(Statement(sql, *params)), options=_options(format, header, delimiter, null_text)
        )
        async for response in self._stream("CopyOut", request, timeout):
            yield response.chunk

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Sql:
        """Return the same, acting for an organisation; only our own workloads may."""
        metadata = acting(caller, org, user)
        key = (metadata.get("isa-org", ""), metadata.get("isa-user", ""))
        if key not in self._others:
            if len(self._others) >= OTHERS:
                del self._others[next(iter(self._others))]
            self._others[key] = Sql(self._transport, acting_for=metadata)
        return self._others[key]

    async def _rows_of(self, statement: sql_pb2.Statement, timeout: timedelta | None) -> AsyncGenerator[Row, None]:
        shape, request = None, sql_pb2.QueryRequest(statement=statement)
        async for response in self._stream("Query", request, timeout):
            if shape is None:
                shape = _shape_of(response.rows)
            for row in shape.rows(response.rows.rows):
                yield row

    async def _fetch_many(
        self, requests: Sequence[sql_pb2.FetchRequest], timeout: timedelta | None
    ) -> AsyncGenerator[tuple[int, sql_pb2.FetchResponse | IsaError], None]:
        request = sql_pb2.FetchManyRequest(requests=requests)
        async for answer in self._stream("FetchMany", request, timeout):
            yield answer.index, outcome_of(answer)

    async def _execute_many(
        self, requests: Sequence[sql_pb2.ExecuteRequest], timeout: timedelta | None
    ) -> AsyncGenerator[tuple[int, sql_pb2.ExecuteResponse | IsaError], None]:
        request = sql_pb2.ExecuteManyRequest(requests=requests)
        async for answer in self._stream("ExecuteMany", request, timeout):
            yield answer.index, outcome_of(answer)


class Transaction:
    """A transaction on a stream of its own: it lives while this process holds it.

    After a statement that failed nothing but a rollback helps: of all, or of an `async with tx.savepoint()` around it.
    """

    def __init__(
        self, transport: Transport, acting_for: Mapping[str, str], begin: sql_pb2.Begin, timeout: timedelta
    ) -> None:
        self._requests: asyncio.Queue[sql_pb2.TransactRequest | None] = asyncio.Queue()
        self._requests.put_nowait(sql_pb2.TransactRequest(begin=begin))
        self._answers: AsyncIterator[sql_pb2.TransactResponse] = transport.duplex(
            _METHODS["Transact"], self._asked(), timeout=timeout, acting=acting_for
        )
        self._turn = asyncio.Lock()
        self._savepoints = 0
        self._is_over = False

    async def query(self, sql: str, *params: object) -> list[Row]:
        """Return the rows of a statement."""
        return (await self.execute(sql, *params)).rows

    async def execute(self, sql: str, *params: object, expect_rows: int | None = None) -> Result:
        """Run a statement."""
        statement = _message(Statement(sql, *params, expect_rows=expect_rows))
        return _result((await self._ask(sql_pb2.TransactRequest(statement=statement))).result)

    async def commit(self) -> None:
        """Commit before the end of the block; Aborted says that it was rolled back instead."""
        await self._ask(sql_pb2.TransactRequest(commit=sql_pb2.TransactRequest.Commit()), is_last=True)

    async def rollback(self) -> None:
        """Roll back before the end of the block."""
        await self._ask(sql_pb2.TransactRequest(rollback=sql_pb2.TransactRequest.Rollback()), is_last=True)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """Undo what is done in the block when it ends with an error, and leave the transaction usable."""
        self._savepoints += 1
        name = f"isa_{self._savepoints}"
        await self.execute(f"SAVEPOINT {name}")
        try:
            yield
        except Exception:
            if not self._is_over:
                await self.execute(f"ROLLBACK TO {name}")
            raise
        else:
            await self.execute(f"RELEASE {name}")

    async def __aenter__(self) -> Self:
        async with self._turn:
            await self._next()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and not self._is_over:
                await self.commit()
            elif not self._is_over and not self._turn.locked():
                with suppress(IsaError):
                    await self.rollback()
        finally:
            await self._end()

    async def _asked(self) -> AsyncIterator[sql_pb2.TransactRequest]:
        while (request := await self._requests.get()) is not None:
            yield request

    async def _ask(self, request: sql_pb2.TransactRequest, *, is_last: bool = False) -> sql_pb2.TransactResponse:
        async with self._turn:
            if self._is_over:
                raise FailedPrecondition("This transaction is over.")
            self._requests.put_nowait(request)
            answer = await self._next()
            if answer.HasField("error"):
                raise error_of(answer.error)
            if is_last:
                await self._end()
            return answer

    async def _next(self) -> sql_pb2.TransactResponse:
        try:
            return await anext(self._answers)
        except StopAsyncIteration:
            await self._end()
            raise Aborted("The transaction was ended by the server.") from None
        except BaseException:
            await self._end()
            raise

    async def _end(self) -> None:
        """Let go of the stream; the server rolls back what was not committed."""
        self._is_over = True
        self._requests.put_nowait(None)
        await self._answers.aclose()  # type: ignore[attr-defined]  # it is a generator


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that lives in a replica of the service and is known by its id, of use to its user only."""

    _transport: Transport = field(repr=False)
    _acting: Mapping[str, str] = field(repr=False)
    id: str
    expires_at: datetime | None = None
    """When it is rolled back at the latest; None when it was begun elsewhere."""

    async def query(self, sql: str, *params: object, timeout: timedelta | None = None) -> list[Row]:
        """Return the rows of a statement."""
        return (await self.execute(sql, *params, timeout=timeout)).rows

    async def execute(self, sql: str, *params: object, timeout: timedelta | None = None) -> Result:
        """Run a statement."""
        return (await self.execute_batch([Statement(sql, *params)], timeout=timeout))[0]

    async def execute_batch(self, statements: Sequence[Statement], *, timeout: timedelta | None = None) -> list[Result]:
        """Run statements in order, up to the first that fails."""
        request = sql_pb2.ExecuteInTxRequest(
            tx_id=self.id, statements=[_message(statement) for statement in statements]
        )
        response = await self._transport.unary(_METHODS["ExecuteInTx"], request, timeout=timeout, acting=self._acting)
        return [_result(result) for result in response.results]

    async def commit(self, *, timeout: timedelta | None = None) -> None:
        """Commit. Aborted says that it was rolled back instead, Unavailable that nobody knows."""
        request = sql_pb2.CommitRequest(tx_id=self.id)
        await self._transport.unary(_METHODS["Commit"], request, timeout=timeout, acting=self._acting)

    async def rollback(self, *, timeout: timedelta | None = None) -> None:
        """Roll back; one that is gone already was rolled back."""
        request = sql_pb2.RollbackRequest(tx_id=self.id)
        await self._transport.unary(_METHODS["Rollback"], request, timeout=timeout, acting=self._acting)


class _Scattered(Coalescer[Req, Res]):
    """Answers each call as its answer comes: one that waits for a lock holds none of the others up."""

    def __init__(
        self,
        one: Callable[..., Any],
        many: Callable[[Sequence[Req], timedelta | None], AsyncGenerator[tuple[int, Res | IsaError], None]],
        *,
        is_repeatable: bool,
    ) -> None:
        super().__init__(one, self._never)
        self._scattered = many
        self._is_repeatable = is_repeatable

    async def _never(self, requests: list[Req], timeout: timedelta | None) -> Sequence[Res | IsaError]:
        raise NotImplementedError

    async def _batch(self, calls: list[tuple[Req, asyncio.Future[Res]]], timeout: timedelta | None) -> None:
        task = asyncio.current_task()
        assert task is not None
        waiters = [waiter for _, waiter in calls]

        def left(waiter: asyncio.Future[Res]) -> None:
            if waiter.cancelled() and all(each.done() for each in waiters):
                task.cancel()  # nobody waits any more

        for waiter in waiters:
            waiter.add_done_callback(left)
        failure: Exception = Unavailable("The call was not answered.")
        try:
            async with aclosing(self._scattered([request for request, _ in calls], timeout)) as answers:
                async for index, answer in answers:
                    if not waiters[index].done():
                        if isinstance(answer, IsaError):
                            waiters[index].set_exception(answer)
                        else:
                            waiters[index].set_result(answer)
        except MessageTooLarge as error:
            if len(calls) > 1:
                half = len(calls) // 2
                await asyncio.gather(self._batch(calls[:half], timeout), self._batch(calls[half:], timeout))
                return
            failure = error
        except Exception as error:
            failure = error
        finally:
            for waiter in waiters:
                if waiter.done():
                    continue
                if self._is_repeatable and isinstance(failure, Unavailable):
                    waiter.set_result(_ALONE)  # after the first answer a stream is not repeated: its reads are
                else:
                    waiter.set_exception(copy.copy(failure))  # one traceback each


def _begin(
    isolation: Isolation, read_only: bool, timeout: timedelta | None, idle_timeout: timedelta | None
) -> sql_pb2.Begin:
    return sql_pb2.Begin(
        isolation=sql_pb2.Isolation.ValueType(isolation),
        read_only=read_only,
        timeout=to_duration(timeout),
        idle_timeout=to_duration(idle_timeout),
    )


def _options(form: CopyFormat, header: bool, delimiter: str, null_text: str | None) -> sql_pb2.CopyOptions:
    return sql_pb2.CopyOptions(
        format=sql_pb2.CopyFormat.ValueType(form), header=header, delimiter=delimiter, null_text=null_text
    )


async def _lines(rows: Iterable[Sequence[object]] | AsyncIterable[Sequence[object]]) -> AsyncIterator[bytes]:
    """Rows in COPY's text format, in chunks."""
    lines, size, number = [], 0, 0
    async for row in _each(rows):
        lines.append(copy_line(row, number))
        number, size = number + 1, size + len(lines[-1])
        if size >= CHUNK:
            yield ("\n".join(lines) + "\n").encode()
            lines, size = [], 0
    if lines:
        yield ("\n".join(lines) + "\n").encode()


async def _each(items: Iterable[Req] | AsyncIterable[Req]) -> AsyncIterator[Req]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _message(statement: Statement) -> sql_pb2.Statement:
    return sql_pb2.Statement(sql=statement.sql, params=encode(statement.params), expect_rows=statement.expect_rows)


def _result(result: sql_pb2.Result) -> Result:
    if not result.HasField("rows"):
        return Result(result.affected)
    return Result(result.affected, _rows(result.rows))


def _rows(rows: sql_pb2.Rows) -> list[Row]:
    return _shape_of(rows).rows(rows.rows)


def _shape_of(rows: sql_pb2.Rows) -> _Shape:
    return _shape(tuple((column.name, column.type) for column in rows.columns))
