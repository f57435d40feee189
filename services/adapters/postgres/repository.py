"""SQL for a caller, in the caller's own database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import asyncpg
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from isa.sql.v1 import sql_pb2
from isa_common import (
    Aborted,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from kernel import Caller, concerns, status, utc_now
from kernel.call import CURRENT
from kernel.errors import ours
from kernel.rpc.replicas import Replicas
from kernel.shares import Shares
from services.adapters.postgres import copies
from services.adapters.postgres.codec import encode_params, parse_params
from services.adapters.postgres.connection import Connection, Prepared
from services.adapters.postgres.errors import ERRORS, STALE, failure
from services.adapters.postgres.pools import Place, Pools
from services.adapters.postgres.results import (
    Limits,
    as_json,
    begin,
    bind,
    commit,
    fetch,
    message,
    read,
    run,
    split,
)
from services.adapters.postgres.statements import Facts, look
from services.adapters.postgres.tenants import Tenants
from services.adapters.postgres.transactions import Names, Transaction, Transactions

STATEMENTS = 1000
"""Statements of one batch."""
AT_ONCE = 16
"""Requests of one ExecuteMany or FetchMany that run at the same time; the others wait."""
GROWTH = 1024
"""Bytes that a statement is taken to store, beside its parameters."""
CHUNK = 256 * 1024
"""Bytes of a chunk of CopyOut, about."""

T = TypeVar("T")
Req = TypeVar("Req")


class Sql:
    """The `isa.sql.v1.Sql` service on PostgreSQL."""

    def __init__(
        self,
        pools: Pools,
        tenants: Tenants,
        transactions: Transactions,
        names: Names,
        *,
        shares: Shares,
        rooms: frozenset[str],
        server: str,
        limits: Limits,
    ) -> None:
        self._pools = pools
        self._tenants = tenants
        self._transactions = transactions
        self._names = names
        self._shares = shares
        self._rooms = rooms
        self._server = server
        self._limits = limits
        self._replicas = Replicas("isa.sql.v1.Sql")

    @property
    def address(self) -> str:
        """Where other replicas reach this one."""
        return self._names.address

    @address.setter
    def address(self, address: str) -> None:
        self._names.address = address

    async def query(self, caller: Caller, request: sql_pb2.QueryRequest) -> AsyncIterator[sql_pb2.QueryResponse]:
        """Read rows, page by page."""
        place = await self._place(caller)
        await self._readable(caller, request.statement)
        rows_left, bytes_left, is_first = self._limits.streamed_rows, self._limits.streamed_bytes, True
        async with (
            self._pools.connection(place) as connection,
            aclosing(self._read(connection, caller, request.statement)) as found,
        ):
            async for prepared, rows in found:
                for page in split(prepared, rows):
                    rows_left -= len(rows)
                    bytes_left -= len(page)
                    if rows_left < 0 or bytes_left < 0:
                        raise ResourceExhausted("The result is too large: narrow the query, or read it in parts.")
                    yield sql_pb2.QueryResponse(rows=message(prepared, page, has_columns=is_first))
                    is_first = False

    async def fetch(self, caller: Caller, request: sql_pb2.FetchRequest) -> sql_pb2.FetchResponse:
        """Read the rows of a small result."""
        place = await self._place(caller)
        await self._readable(caller, request.statement)
        return await self._fetch(place, caller, request.statement)

    async def fetch_many(
        self, caller: Caller, request: sql_pb2.FetchManyRequest
    ) -> AsyncIterator[sql_pb2.FetchManyResponse]:
        """Read many small results."""
        place = await self._place(caller)
        self._shares.spend(caller, _counted(request.requests) - 1)

        async def one(item: sql_pb2.FetchRequest) -> sql_pb2.FetchResponse:
            await self._readable(caller, item.statement)
            return await self._fetch(place, caller, item.statement)

        async with aclosing(_each(request.requests, one)) as answers:
            async for index, answer in answers:
                if isinstance(answer, IsaError):
                    yield sql_pb2.FetchManyResponse(index=index, error=_status(answer))
                else:
                    yield sql_pb2.FetchManyResponse(index=index, ok=answer)

    async def execute(self, caller: Caller, request: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
        """Run one statement in a transaction of its own."""
        (result,) = await self._run(await self._place(caller), caller, [request.statement], "statement")
        return sql_pb2.ExecuteResponse(result=result)

    async def execute_many(
        self, caller: Caller, request: sql_pb2.ExecuteManyRequest
    ) -> AsyncIterator[sql_pb2.ExecuteManyResponse]:
        """Run many statements, each in a transaction of its own."""
        place = await self._place(caller)
        self._shares.spend(caller, _counted(request.requests) - 1)

        async def one(item: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
            (result,) = await self._run(place, caller, [item.statement], "statement")
            return sql_pb2.ExecuteResponse(result=result)

        async with aclosing(_each(request.requests, one)) as answers:
            async for index, answer in answers:
                if isinstance(answer, IsaError):
                    yield sql_pb2.ExecuteManyResponse(index=index, error=_status(answer))
                else:
                    yield sql_pb2.ExecuteManyResponse(index=index, ok=answer)

    async def execute_batch(self, caller: Caller, request: sql_pb2.ExecuteBatchRequest) -> sql_pb2.ExecuteBatchResponse:
        """Run statements in one transaction: all of them, or none."""
        place = await self._place(caller)
        self._shares.spend(caller, _counted(request.statements) - 1)
        return sql_pb2.ExecuteBatchResponse(results=await self._run(place, caller, request.statements, "statements"))

    async def transact(
        self, caller: Caller, requests: AsyncIterator[sql_pb2.TransactRequest]
    ) -> AsyncIterator[sql_pb2.TransactResponse]:
        """Hold a transaction while the caller says what to do in it."""
        place = await self._place(caller)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("action") != "begin":
            raise InvalidArgument("The first message begins the transaction.", field="begin")
        async with self._transactions.open(caller, place, first.begin) as transaction:
            yield sql_pb2.TransactResponse(begun=sql_pb2.TransactResponse.Begun())
            while (request := await _next(requests, transaction)) is not None:
                match request.WhichOneof("action"):
                    case "statement":
                        yield await self._in_stream(caller, transaction, request.statement)
                    case "commit":
                        await transaction.commit()
                        yield sql_pb2.TransactResponse(committed=sql_pb2.TransactResponse.Committed())
                        return
                    case "rollback":
                        await transaction.rollback()
                        yield sql_pb2.TransactResponse(rolled_back=sql_pb2.TransactResponse.RolledBack())
                        return
                    case _:
                        raise InvalidArgument("After the beginning come statements, then commit or rollback.")

    async def begin_tx(self, caller: Caller, request: sql_pb2.BeginTxRequest) -> sql_pb2.BeginTxResponse:
        """Begin a transaction that further calls go on with."""
        key, transaction = await self._transactions.keep(caller, await self._place(caller), request.begin)
        expires_at = Timestamp()
        expires_at.FromDatetime(utc_now() + transaction.left)
        return sql_pb2.BeginTxResponse(tx_id=await self._names.seal(caller, key), expires_at=expires_at)

    async def execute_in_tx(self, caller: Caller, request: sql_pb2.ExecuteInTxRequest) -> sql_pb2.ExecuteInTxResponse:
        """Run statements in a transaction, here or where it is."""
        key, elsewhere = await self._names.open(caller, request.tx_id)
        if elsewhere:
            answer: sql_pb2.ExecuteInTxResponse = await self._forwarded(elsewhere, "ExecuteInTx", request)
            return answer
        self._shares.spend(caller, _counted(request.statements) - 1)
        async with self._transactions.use(key) as transaction:
            await self._permitted(caller, request.statements, "statements", in_transaction=True)
            results = await transaction.run(request.statements, "statements")
        return sql_pb2.ExecuteInTxResponse(results=results)

    async def commit(self, caller: Caller, request: sql_pb2.CommitRequest) -> sql_pb2.CommitResponse:
        """Commit a transaction, here or where it is."""
        key, elsewhere = await self._names.open(caller, request.tx_id)
        if elsewhere:
            if not await self._replicas.is_there(elsewhere):
                raise _lost()
            answer: sql_pb2.CommitResponse = await self._replicas.ask(elsewhere, "Commit", request)
            return answer
        if not self._transactions.has_committed(key):  # asked again, because the first answer was lost
            async with self._transactions.use(key) as transaction:
                await transaction.commit()
        return sql_pb2.CommitResponse()

    async def rollback(self, caller: Caller, request: sql_pb2.RollbackRequest) -> sql_pb2.RollbackResponse:
        """Roll a transaction back, here or where it is."""
        key, elsewhere = await self._names.open(caller, request.tx_id)
        try:
            if elsewhere:
                answer: sql_pb2.RollbackResponse = await self._forwarded(elsewhere, "Rollback", request)
                return answer
            async with self._transactions.use(key) as transaction:
                await transaction.rollback()
        except FailedPrecondition:
            raise
        except Aborted:
            pass  # it was rolled back before
        return sql_pb2.RollbackResponse()

    async def copy_in(self, caller: Caller, requests: AsyncIterator[sql_pb2.CopyInRequest]) -> sql_pb2.CopyInResponse:
        """Store rows in bulk, all or none."""
        place = await self._place(caller)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("message") != "target":
            raise InvalidArgument("The first message says where the rows go.", field="target")
        statement = copies.copy_in(first.target)
        concerns(first.target.table)
        async with self._pools.connection(place) as connection:
            await connection.execute(begin(caller, "BEGIN READ WRITE"))
            rows = await _copied(connection.copy_in(statement, self._chunks(caller, connection, requests)))
            await commit(connection)
        return sql_pb2.CopyInResponse(rows=rows)

    async def copy_out(self, caller: Caller, request: sql_pb2.CopyOutRequest) -> AsyncIterator[sql_pb2.CopyOutResponse]:
        """Read rows in bulk."""
        place, sql = await self._place(caller), request.statement.sql
        await self._readable(caller, request.statement)
        values = parse_params(request.statement.params, "statement.params")
        chunks: asyncio.Queue[bytes | None] = asyncio.Queue(maxsize=2)
        bytes_left = self._limits.streamed_bytes

        async def copy(connection: Connection) -> None:
            try:
                await connection.execute(begin(caller, "BEGIN READ ONLY"))
                prepared = await connection.prepared(sql)
                arguments = encode_params(values, prepared.encoders, "statement.params")
                await connection.copy_out(copies.copy_out(sql, arguments, request.options), chunks.put)
                await connection.execute("COMMIT")
            except asyncpg.PostgresError as error:
                raise failure(error, sql, "statement", 0) from error
            finally:
                await chunks.put(None)

        async with self._pools.connection(place) as connection:
            copying = asyncio.ensure_future(copy(connection))
            try:
                while (chunk := await chunks.get()) is not None:
                    bytes_left -= len(chunk)
                    if bytes_left < 0:
                        raise ResourceExhausted("The result is too large: narrow the query, or read it in parts.")
                    for start in range(0, len(chunk), CHUNK):
                        yield sql_pb2.CopyOutResponse(chunk=bytes(chunk[start : start + CHUNK]))
                await copying
            finally:
                if not copying.done():
                    copying.cancel()
                    with suppress(asyncio.CancelledError, Exception):
                        await copying

    async def stored(self, org: str) -> int:
        """Bytes of an organisation's database."""
        place = await self._tenants.known(org)
        if place is None:
            return 0
        async with self._pools.connection(place) as connection:
            return int(await connection.fetchval("SELECT pg_database_size(current_database())"))

    async def start(self) -> None:
        """Begin to look after the pools."""
        await self._pools.start()

    async def stop(self) -> None:
        """Roll back what is open and close every connection."""
        await self._transactions.stop()
        await self._replicas.stop()
        await self._pools.stop()

    async def _place(self, caller: Caller) -> Place:
        """A workload's own database, bound to an organisation or not; a tenant's own database."""
        if caller.workload:
            if caller.workload not in self._rooms:
                raise PermissionDenied("This workload has no database.")
            return Place(self._server, caller.workload, f"{caller.workload}_{'app' if caller.org else 'system'}")
        return await self._tenants.place(caller.tenant)

    async def _permitted(
        self,
        caller: Caller,
        statements: Sequence[sql_pb2.Statement],
        field: str,
        *,
        in_transaction: bool = False,
    ) -> list[Facts]:
        """Refuse what may not be run or stored, and note for the audit which tables the rest is about."""
        facts, grows = [], 0
        for index, statement in enumerate(statements):
            try:
                facts.append(await look(statement.sql, in_transaction=in_transaction))
            except IsaError as error:
                error.field = f"{_path(field, index)}.{error.field}"
                raise
            if not (facts[-1].is_read or facts[-1].makes_room):
                grows += len(statement.params) + GROWTH
        if not caller.workload:
            concerns(*sorted({table for each in facts for table in each.tables}))
            if grows:
                await self._shares.room(caller, grows)
        return facts

    async def _readable(self, caller: Caller, statement: sql_pb2.Statement) -> None:
        (facts,) = await self._permitted(caller, [statement], "statement")
        if not facts.is_read:
            raise InvalidArgument("This statement writes: use Execute.", field="statement.sql")

    async def _run(
        self, place: Place, caller: Caller, statements: Sequence[sql_pb2.Statement], field: str
    ) -> list[sql_pb2.Result]:
        await self._permitted(caller, statements, field)
        async with self._pools.connection(place) as connection:
            return await _fresh(connection, lambda: self._transaction(connection, caller, statements, field))

    async def _transaction(
        self, connection: Connection, caller: Caller, statements: Sequence[sql_pb2.Statement], field: str
    ) -> list[sql_pb2.Result]:
        if len(statements) == 1 and not caller.org and not statements[0].HasField("expect_rows"):
            # one statement of no organisation is a transaction already, at a third of the round trips
            return [await run(connection, statements[0], field, 0, self._limits)]
        await connection.execute(begin(caller, "BEGIN READ WRITE"))
        results, size = [], 0
        for index, statement in enumerate(statements):
            results.append(await run(connection, statement, _path(field, index), index, self._limits))
            size += len(results[-1].rows.rows)
            if size > self._limits.bytes:
                raise ResourceExhausted(
                    f"More than {self._limits.bytes} bytes of rows: read them with Query.", field=_path(field, index)
                )
        await commit(connection)
        return results

    async def _read(
        self, connection: Connection, caller: Caller, statement: sql_pb2.Statement
    ) -> AsyncGenerator[tuple[Any, list[Any]], None]:
        """Read in a transaction of its own, anew when a table had changed; the pool ends it, beside the answer."""
        is_first = True
        try:
            await connection.execute(begin(caller, "BEGIN READ ONLY"))
            async for found in read(connection, statement, self._limits):
                yield found
                is_first = False
        except STALE:
            if not is_first:
                raise
            await connection.execute("ROLLBACK")
            connection.forget()
            await connection.execute(begin(caller, "BEGIN READ ONLY"))
            async for found in read(connection, statement, self._limits):
                yield found

    async def _fetch(self, place: Place, caller: Caller, statement: sql_pb2.Statement) -> sql_pb2.FetchResponse:
        async with self._pools.connection(place) as connection:
            found = None
            if not caller.workload:  # a tenant's session is the tenant's: it needs no transaction to be bound
                found = await _fresh(connection, lambda: self._fetch_at_once(connection, caller, statement))
            if found is None:
                found = await self._fetch_in_parts(connection, caller, statement)
        if found is None:
            return sql_pb2.FetchResponse(too_large=True)
        prepared, rows = found
        page = as_json(prepared, rows)
        if len(page) > self._limits.bytes:
            return sql_pb2.FetchResponse(too_large=True)
        return sql_pb2.FetchResponse(rows=message(prepared, page, has_columns=True))

    async def _fetch_in_parts(
        self, connection: Connection, caller: Caller, statement: sql_pb2.Statement
    ) -> tuple[Prepared, list[Any]] | None:
        """Read a result that may be too large; None when it is."""
        rows: list[Any] = []
        async with aclosing(self._read(connection, caller, statement)) as pages:
            async for prepared, more in pages:
                rows += more
                if len(rows) > self._limits.rows or len(rows) * prepared.width > self._limits.bytes:
                    return None
        return prepared, rows

    async def _fetch_at_once(
        self, connection: Connection, caller: Caller, statement: sql_pb2.Statement
    ) -> tuple[Prepared, list[Any]] | None:
        settings = bind(caller)
        if connection.bound != settings:
            await connection.execute(settings)
            connection.bound = settings
        return await fetch(connection, statement, self._limits)

    async def _in_stream(
        self, caller: Caller, transaction: Transaction, statement: sql_pb2.Statement
    ) -> sql_pb2.TransactResponse:
        """The answer to a statement of a stream; what fails a statement only does not end it."""
        try:
            await self._permitted(caller, [statement], "statement", in_transaction=True)
            (result,) = await transaction.run([statement], "statement")
        except IsaError as error:
            if transaction.ended:
                raise
            return sql_pb2.TransactResponse(error=_status(error))
        return sql_pb2.TransactResponse(result=result)

    async def _chunks(
        self, caller: Caller, connection: Connection, requests: AsyncIterator[sql_pb2.CopyInRequest]
    ) -> AsyncIterator[bytes]:
        """The data of a copy, until it ends, or the server has said that it is wrong."""
        async for request in requests:
            if request.WhichOneof("message") != "chunk":
                raise InvalidArgument("After the target comes data only.", field="chunk")
            if connection.has_failed:
                return
            await self._shares.room(caller, len(request.chunk))
            yield request.chunk

    async def _forwarded(self, address: str, method: str, request: Message) -> Any:
        try:
            return await self._replicas.ask(address, method, request)
        except Unavailable as error:
            raise _lost() from error


def _lost() -> Aborted:
    return Aborted("This transaction is gone with the replica that had it: begin another one.")


def _path(field: str, index: int) -> str:
    return f"{field}[{index}]" if field == "statements" else field


def _counted(items: Sequence[Any]) -> int:
    if not items:
        raise InvalidArgument("A batch needs a statement.", field="statements")
    if len(items) > STATEMENTS:
        raise InvalidArgument(f"A batch may have {STATEMENTS} statements.", field="statements")
    return len(items)


def _status(error: IsaError) -> Any:
    """An error in the answer of a call that goes on."""
    if call := CURRENT.get():
        error.request_id = call.correlation_id
    return status(error)


async def _fresh(connection: Connection, work: Callable[[], Awaitable[T]]) -> T:
    """Do something, and do it again when a table has changed since its statements were prepared."""
    try:
        return await work()
    except STALE:
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        connection.forget()
        return await work()


async def _each(
    items: Sequence[Req], one: Callable[[Req], Awaitable[T]]
) -> AsyncGenerator[tuple[int, T | IsaError], None]:
    """Do something for each item, some at a time; give what came of each as it is there."""
    answers: asyncio.Queue[tuple[int, T | IsaError]] = asyncio.Queue()
    turns = asyncio.Semaphore(AT_ONCE)

    async def answer(index: int, item: Req) -> None:
        try:
            async with turns:
                answers.put_nowait((index, await one(item)))
        except Exception as error:
            answers.put_nowait((index, ours(error, ERRORS)))

    tasks = [asyncio.ensure_future(answer(index, item)) for index, item in enumerate(items)]
    try:
        for _ in items:
            yield await answers.get()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _next(
    requests: AsyncIterator[sql_pb2.TransactRequest], transaction: Transaction
) -> sql_pb2.TransactRequest | None:
    """What the caller does next, if it does so in time; None when it has gone."""
    try:
        async with asyncio.timeout(transaction.patience):
            return await anext(requests, None)
    except TimeoutError:
        raise Aborted("The transaction was idle or open for too long: it was rolled back.") from None


async def _copied(copying: Awaitable[int]) -> int:
    try:
        return await copying
    except asyncpg.PostgresError as error:
        raise failure(error, "", "target", 0) from error
