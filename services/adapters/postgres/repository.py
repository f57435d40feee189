"""SQL for a caller, in the caller's own database."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson

from isa.sql.v1 import sql_pb2
from isa_common import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from kernel import Caller, ErrorMap
from kernel.call import CURRENT
from services.adapters.postgres.codec import encode_params, parse_params
from services.adapters.postgres.connection import Connection, Prepared
from services.adapters.postgres.pools import Place, Pools
from services.adapters.postgres.statements import check, syntax_error
from services.adapters.postgres.tenants import Tenants

STATEMENTS = 1000
"""Statements of one batch."""
FIRST_PAGE = 64
"""Rows that are asked for before their size is known."""
PAGE = 64 * 1024
"""Bytes that a page aims at."""
LONGEST_PAGE = 12 << 20
"""Bytes of a page of one row; a message may have 16 MiB."""
SHORTEST_TIMEOUT = 10
"""Milliseconds."""
MEASURE_EVERY = 30.0
"""Seconds between two looks at a database's size."""

_IDENTIFIER = re.compile(r"[a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may return."""

    rows: int
    bytes: int
    streamed_rows: int
    streamed_bytes: int
    stored_bytes: int
    """What an organisation's database may hold."""


class Sql:
    """The `isa.sql.v1.Sql` service on PostgreSQL."""

    def __init__(self, pools: Pools, tenants: Tenants, *, rooms: frozenset[str], server: str, limits: Limits) -> None:
        self._pools = pools
        self._tenants = tenants
        self._rooms = rooms
        self._server = server
        self._limits = limits
        self._measured: dict[str, tuple[float, int]] = {}

    async def query(self, caller: Caller, request: sql_pb2.QueryRequest) -> AsyncIterator[sql_pb2.QueryResponse]:
        """Read rows, page by page."""
        place = await self._place(caller)
        statement = request.statement
        _permit([statement], "statement", caller)
        if not check(statement.sql).is_read:
            raise InvalidArgument("This statement writes: use Execute.", field="statement.sql")
        async with self._pools.connection(place) as connection:
            pages = self._pages(connection, caller, statement)
            try:
                first = await anext(pages)
            except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
                await connection.execute("ROLLBACK")
                connection.forget()
                pages = self._pages(connection, caller, statement)
                first = await anext(pages)
            yield first
            async for page in pages:
                yield page

    async def execute(self, caller: Caller, request: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
        """Run one statement in a transaction of its own."""
        (result,) = await self._run(caller, [request.statement], "statement")
        return sql_pb2.ExecuteResponse(result=result)

    async def execute_batch(self, caller: Caller, request: sql_pb2.ExecuteBatchRequest) -> sql_pb2.ExecuteBatchResponse:
        """Run statements in one transaction: all of them, or none."""
        if not request.statements:
            raise InvalidArgument("A batch needs a statement.", field="statements")
        if len(request.statements) > STATEMENTS:
            raise InvalidArgument(f"A batch may have {STATEMENTS} statements.", field="statements")
        return sql_pb2.ExecuteBatchResponse(results=await self._run(caller, request.statements, "statements"))

    async def start(self) -> None:
        """Begin to look after the pools."""
        await self._pools.start()

    async def stop(self) -> None:
        """Close every connection."""
        await self._pools.stop()

    async def _place(self, caller: Caller) -> Place:
        """A workload's own database, bound to an organisation or not; a tenant's own database."""
        if caller.workload:
            if caller.workload not in self._rooms:
                raise PermissionDenied("This workload has no database.")
            return Place(self._server, caller.workload, f"{caller.workload}_{'app' if caller.org else 'system'}")
        if not caller.org:
            raise PermissionDenied("SQL needs a token of an organisation.")
        return await self._tenants.place(caller.org)

    async def _run(self, caller: Caller, statements: Sequence[sql_pb2.Statement], field: str) -> list[sql_pb2.Result]:
        place = await self._place(caller)
        _permit(statements, field, caller)
        values = [
            parse_params(statement.params, f"{_path(field, index)}.params")
            for index, statement in enumerate(statements)
        ]
        async with self._pools.connection(place) as connection:
            if not caller.workload and any(_grows(statement.sql) for statement in statements):
                await self._check_share(connection, place)
            try:
                return await self._transaction(connection, caller, statements, values, field)
            except (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError):
                if connection.is_in_transaction():
                    await connection.execute("ROLLBACK")
                connection.forget()
                return await self._transaction(connection, caller, statements, values, field)

    async def _check_share(self, connection: Connection, place: Place) -> None:
        """Refuse to store more in a database that is full; its size is looked at now and then."""
        measured, size = self._measured.get(place.database, (float("-inf"), 0))
        now = time.monotonic()
        if now - measured > MEASURE_EVERY:
            size = int(await connection.fetchval("SELECT pg_database_size(current_database())"))
            self._measured[place.database] = (now, size)
        if size > self._limits.stored_bytes:
            raise ResourceExhausted(
                f"The database is full: it may hold {self._limits.stored_bytes} bytes. Delete something first.",
                stored_bytes=size,
            )

    async def _transaction(
        self,
        connection: Connection,
        caller: Caller,
        statements: Sequence[sql_pb2.Statement],
        values: Sequence[list[Any]],
        field: str,
    ) -> list[sql_pb2.Result]:
        is_alone = len(statements) == 1 and not caller.org and not statements[0].HasField("expect_rows")
        if not is_alone:  # one statement of no organisation is a transaction already, at a third of the round trips
            await connection.execute(_begin(caller, "BEGIN"))
        results, size = [], 0
        for index, statement in enumerate(statements):
            path = _path(field, index)
            try:
                prepared = await connection.prepared(statement.sql)
                arguments = encode_params(values[index], prepared.encoders, f"{path}.params")
                rows, tag, is_complete = await connection.run(prepared, arguments, limit=self._limits.rows)
            except _STALE:
                raise
            except asyncpg.PostgresError as error:
                raise failure(error, statement.sql, path, index) from error
            if not is_complete:
                raise ResourceExhausted(f"More than {self._limits.rows} rows: read them with Query.", field=path)
            count = tag.rpartition(" ")[2]
            affected = int(count) if count.isdigit() else 0
            if statement.HasField("expect_rows") and affected != statement.expect_rows:
                raise Aborted(
                    f"Statement {index} touched {affected} rows, and {statement.expect_rows} were expected.",
                    field=path, statement=index, affected=affected, expected=statement.expect_rows,
                )  # fmt: skip
            result = sql_pb2.Result(affected=affected)
            if prepared.columns:
                page = orjson.dumps([tuple(row) for row in rows])
                size += len(page)
                if size > self._limits.bytes:
                    raise ResourceExhausted(
                        f"More than {self._limits.bytes} bytes of rows: read them with Query.", field=path
                    )
                result.rows.CopyFrom(_rows(prepared, page, has_columns=True))
            results.append(result)
        if not is_alone:
            await _commit(connection)
        return results

    async def _pages(
        self, connection: Connection, caller: Caller, statement: sql_pb2.Statement
    ) -> AsyncIterator[sql_pb2.QueryResponse]:
        values = parse_params(statement.params, "statement.params")
        await connection.execute(_begin(caller, "BEGIN READ ONLY"))
        rows_left, bytes_left, count = self._limits.streamed_rows, self._limits.streamed_bytes, FIRST_PAGE
        is_first = True
        try:
            prepared = await connection.prepared(statement.sql)
            arguments = encode_params(values, prepared.encoders, "statement.params")
            rows, _, is_complete = await connection.run(prepared, arguments, limit=count)
            while True:
                for page in _split(rows):
                    rows_left -= len(rows)
                    bytes_left -= len(page)
                    if rows_left < 0 or bytes_left < 0:
                        raise ResourceExhausted("The result is too large: narrow the query, or read it in parts.")
                    yield sql_pb2.QueryResponse(rows=_rows(prepared, page, has_columns=is_first))
                    is_first = False
                    count = min(max(count * PAGE // len(page), 1), count * 4, 5000)
                if is_complete:
                    break
                rows, is_complete = await connection.more(prepared, limit=count)
        except _STALE:
            raise
        except asyncpg.PostgresError as error:
            raise failure(error, statement.sql, "statement", 0) from error
        await connection.execute("COMMIT")


def _grows(sql: str) -> bool:
    facts = check(sql)
    return not (facts.is_read or facts.makes_room)


_STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A table has changed since its statements were prepared; they are prepared anew, once."""


def _permit(statements: Sequence[sql_pb2.Statement], field: str, caller: Caller) -> None:
    """Refuse what may not be run, and note for the audit which tables the others are about."""
    tables: set[str] = set()
    for index, statement in enumerate(statements):
        try:
            tables |= check(statement.sql).tables
        except IsaError as error:
            error.field = f"{_path(field, index)}.{error.field}"
            raise
    call = CURRENT.get()
    if call is not None and not caller.workload:
        call.resources += sorted(tables)


def _path(field: str, index: int) -> str:
    return f"{field}[{index}]" if field == "statements" else field


def _begin(caller: Caller, begin: str) -> str:
    """One text, one round trip: the transaction, whom it is for, and how long its statements may take."""
    call = CURRENT.get()
    left = 30.0
    if call is not None and call.timeout is not None:
        left = call.timeout - (datetime.now(UTC) - call.started).total_seconds()
    text = f"{begin}; SET LOCAL statement_timeout = {max(int(left * 1000) - 20, SHORTEST_TIMEOUT)}"
    if caller.org:
        assert _IDENTIFIER.fullmatch(caller.org) and _IDENTIFIER.fullmatch(caller.user), "verified with the token"
        text += f"; SET LOCAL isa.org = '{caller.org}'; SET LOCAL isa.\"user\" = '{caller.user}'"
    return text


async def _commit(connection: Connection) -> None:
    try:
        await connection.execute("COMMIT")
    except asyncpg.PostgresError as error:
        raise failure(error, "", "", 0) from error  # a deferred constraint
    except (asyncpg.InterfaceError, OSError) as error:
        raise Unavailable(
            "The connection was lost while committing: read to see whether it was done.", outcome="unknown"
        ) from error


def _rows(prepared: Prepared, page: bytes, *, has_columns: bool) -> sql_pb2.Rows:
    columns = [sql_pb2.Column(name=name, type=kind) for name, kind in prepared.columns] if has_columns else ()
    return sql_pb2.Rows(columns=columns, rows=page)


def _split(rows: list[Any]) -> list[bytes]:
    """Rows as JSON, in pages that fit into a message."""
    page = orjson.dumps([tuple(row) for row in rows])
    if len(page) <= 8 * PAGE or len(rows) <= 1:
        if len(page) > LONGEST_PAGE:
            raise ResourceExhausted(f"A row of {len(page)} bytes does not fit into a message.")
        return [page]
    half = len(rows) // 2
    return _split(rows[:half]) + _split(rows[half:])


def failure(error: asyncpg.PostgresError, sql: str, path: str, index: int) -> IsaError:
    """Our error for PostgreSQL's: its words where they speak of the caller's own SQL, and never a value or a host."""
    state = str(error.sqlstate or "")
    kind, message = _kind(state)
    position = int(error.position or 0)
    field = f"{path}.sql" if path else None
    if state == "25006":
        failed: IsaError = InvalidArgument(message, field=field)
    elif kind is InvalidArgument and position:
        failed = syntax_error(sql, str(error.message), position)
        failed.field = field
    elif kind in (InvalidArgument, NotFound) or state.startswith("42"):
        text = str(error.message)
        failed = kind(f"{text[:1].upper()}{text[1:]}.", field=field)
    else:
        wait = timedelta(seconds=1) if kind in (ResourceExhausted, Unavailable) else None
        failed = kind(message, field=field, retry_after=wait)
    failed.details["sqlstate"] = state
    failed.details["statement"] = str(index)
    for name in ("constraint_name", "table_name", "column_name"):
        if value := getattr(error, name, None):
            failed.details[name.removesuffix("_name")] = str(value)
    return failed


def _kind(state: str) -> tuple[type[IsaError], str]:
    """Our class for an SQLSTATE, the most specific that is known, and what is said instead of PostgreSQL's words."""
    for length in (5, 2):
        known = STATES.get(state[:length])
        if known is not None:
            return known
    return Internal, "The database could not do this."


STATES: dict[str, tuple[type[IsaError], str]] = {
    "08": (Unavailable, "The connection to the database was lost."),
    "0A": (InvalidArgument, "The database does not support this."),
    "0B": (InvalidArgument, "This cannot be done here."),
    "21": (InvalidArgument, "A subquery returned more than one row."),
    "22": (InvalidArgument, "A value does not fit its type."),
    "23": (FailedPrecondition, "A constraint forbids this."),
    "23502": (InvalidArgument, "A column may not be null."),
    "23503": (FailedPrecondition, "Another row refers to this one, or the row that this refers to is missing."),
    "23505": (AlreadyExists, "A row with this key exists already."),
    "23514": (InvalidArgument, "A check forbids this value."),
    "23P01": (AlreadyExists, "A row that excludes this one exists already."),
    "25": (FailedPrecondition, "This cannot be done in this transaction."),
    "25006": (InvalidArgument, "This statement writes: use Execute."),
    "25P03": (DeadlineExceeded, "The transaction was idle for too long."),
    "26": (Aborted, "The statement was not prepared any more; try again."),
    "28": (Unavailable, "The database refused our login."),
    "2B": (FailedPrecondition, "Other things depend on this."),
    "40": (Aborted, "Another transaction was in the way; try again."),
    "42": (InvalidArgument, "The statement is wrong."),
    "42501": (PermissionDenied, "This login may not do that."),
    "42P07": (AlreadyExists, "It exists already."),
    "42710": (AlreadyExists, "It exists already."),
    "42701": (AlreadyExists, "It exists already."),
    "42P06": (AlreadyExists, "It exists already."),
    "44": (PermissionDenied, "The row would not belong to the view."),
    "53": (ResourceExhausted, "The database is out of a resource."),
    "54": (InvalidArgument, "The statement goes beyond a limit of the database."),
    "55": (FailedPrecondition, "It is not in the state that this needs."),
    "55P03": (Aborted, "A lock was not to be had; try again."),
    "57": (Unavailable, "The database is going down or coming up."),
    "57014": (DeadlineExceeded, "The statement did not finish before its deadline."),
}


def outside(error: asyncpg.PostgresError) -> IsaError:
    """Our error for what PostgreSQL said outside a caller's statement: at most that it cannot do more now."""
    kind, message = _kind(str(error.sqlstate or ""))
    if kind in (Unavailable, ResourceExhausted, DeadlineExceeded, Aborted):
        return kind(message, retry_after=timedelta(seconds=1))
    return Internal("The database could not do this.")


ERRORS: ErrorMap = {
    asyncpg.PostgresError: outside,
    asyncpg.InterfaceError: lambda _: Unavailable("The connection to the database was lost."),
    asyncpg.DataError: lambda _: InvalidArgument("A parameter does not fit its type."),
    OSError: lambda _: Unavailable("The database could not be reached."),
}
