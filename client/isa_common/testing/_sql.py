"""SQL in memory: a SQLite database a tenant, one transaction at a time.

What SQLite and PostgreSQL read alike works: tables, indexes, views, constraints, RETURNING, ON CONFLICT, WITH. Casts
(`$1::int8`) are left out, types of columns are those that their tables declare, `now()` and `gen_random_uuid()` are
there. Types of one's own, arrays, functions and PostgreSQL's other statements are not, and numeric is a float.
"""

from __future__ import annotations

import asyncio
import base64
import csv
import io
import json
import re
import secrets
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.status_pb2 import Status

from isa.sql.v1 import sql_pb2
from isa_common.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    status_of,
)
from isa_common.testing._transport import Caller

STATEMENTS = 1000
ROWS = 10_000
PAGE = 500
TRANSACTIONS = 4
TIMEOUT = 60.0
IDLE = 20.0

_ALLOWED = frozenset({"SELECT", "WITH", "VALUES", "EXPLAIN", "INSERT", "UPDATE", "DELETE", "CREATE", "DROP", "ALTER"})
_REFUSED = frozenset(
    {
        "COMMIT", "BEGIN", "ROLLBACK", "SAVEPOINT", "RELEASE", "SET", "RESET", "SHOW", "LISTEN", "NOTIFY", "COPY", "DO",
        "VACUUM", "LOAD", "PREPARE", "DEALLOCATE", "DISCARD", "LOCK", "GRANT", "REVOKE", "PRAGMA", "ATTACH", "DETACH",
        "ANALYZE", "REINDEX", "EXECUTE", "CREATE", "DROP", "ALTER", "REASSIGN", "END", "START",
    }
)  # fmt: skip
_SERVERS = frozenset({"TEMP", "TEMPORARY", "VIRTUAL", "ROLE", "DATABASE", "EXTENSION", "SYSTEM", "FUNCTION", "TRIGGER"})
_SAVEPOINTS = frozenset({"SAVEPOINT", "RELEASE", "ROLLBACK"})
_READS = frozenset({"SELECT", "WITH", "VALUES", "EXPLAIN"})
_TOKEN = re.compile(
    r"(?P<kept>'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|--[^\n]*|/\*.*?\*/)"
    r"|::\s*(?:(?i:time(?:stamp)?\s+with(?:out)?\s+time\s+zone|double\s+precision)|\w+)(?:\s*\(\s*\d+(?:\s*,\s*\d+)?\s*\))?",
    re.DOTALL,
)
_WORDS = re.compile(r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/)*(\w+)(?:\s+(\w+))?", re.DOTALL)
_PARAMETER = re.compile(r"\$(\d+)")
_TYPES = {
    "bigint": "int8", "integer": "int4", "int": "int4", "smallint": "int2", "boolean": "bool", "decimal": "numeric",
    "real": "float4", "double precision": "float8", "timestamp with time zone": "timestamptz",
}  # fmt: skip
_NAMES = {bool: "bool", int: "int8", float: "float8", str: "text", bytes: "bytea", type(None): "text"}


@dataclass(slots=True)
class _Tenant:
    database: sqlite3.Connection
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    open: int = 0


@dataclass(slots=True)
class _Open:
    """A transaction that is known by its id."""

    owner: Caller
    tenant: _Tenant
    until: float
    idle: float
    timer: asyncio.TimerHandle | None = None
    ended: str = ""
    has_failed: bool = False


class MemorySql:
    """`isa.sql.v1.Sql` in memory."""

    def __init__(self) -> None:
        self._tenants: dict[str, _Tenant] = {}
        self._open: dict[str, _Open] = {}

    async def query(self, caller: Caller, request: sql_pb2.QueryRequest) -> AsyncIterator[sql_pb2.QueryResponse]:
        """Read rows, page by page."""
        result = await self._read(caller, request.statement)
        columns, rows = result.rows.columns, json.loads(result.rows.rows or b"[]")
        for start in range(0, len(rows) or 1, PAGE):
            page = sql_pb2.Rows(columns=() if start else columns, rows=_dumps(rows[start : start + PAGE]))
            yield sql_pb2.QueryResponse(rows=page)

    async def fetch(self, caller: Caller, request: sql_pb2.FetchRequest) -> sql_pb2.FetchResponse:
        """Read the rows of a small result."""
        result = await self._read(caller, request.statement)
        if result.affected > ROWS:
            return sql_pb2.FetchResponse(too_large=True)
        return sql_pb2.FetchResponse(rows=result.rows)

    async def fetch_many(
        self, caller: Caller, request: sql_pb2.FetchManyRequest
    ) -> AsyncIterator[sql_pb2.FetchManyResponse]:
        """Read many small results."""
        _counted(request.requests)
        for index, item in enumerate(request.requests):
            try:
                yield sql_pb2.FetchManyResponse(index=index, ok=await self.fetch(caller, item))
            except IsaError as error:
                yield sql_pb2.FetchManyResponse(index=index, error=_status(error))

    async def execute(self, caller: Caller, request: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
        """Run one statement in a transaction of its own."""
        (result,) = await self._batch(caller, [request.statement], "statement")
        return sql_pb2.ExecuteResponse(result=result)

    async def execute_many(
        self, caller: Caller, request: sql_pb2.ExecuteManyRequest
    ) -> AsyncIterator[sql_pb2.ExecuteManyResponse]:
        """Run many statements, each in a transaction of its own."""
        _counted(request.requests)
        for index, item in enumerate(request.requests):
            try:
                yield sql_pb2.ExecuteManyResponse(index=index, ok=await self.execute(caller, item))
            except IsaError as error:
                yield sql_pb2.ExecuteManyResponse(index=index, error=_status(error))

    async def execute_batch(self, caller: Caller, request: sql_pb2.ExecuteBatchRequest) -> sql_pb2.ExecuteBatchResponse:
        """Run statements in one transaction: all of them, or none."""
        _counted(request.statements)
        return sql_pb2.ExecuteBatchResponse(results=await self._batch(caller, request.statements, "statements"))

    async def transact(
        self, caller: Caller, requests: AsyncIterator[sql_pb2.TransactRequest]
    ) -> AsyncIterator[sql_pb2.TransactResponse]:
        """Hold a transaction while the caller says what to do in it."""
        first = await anext(requests, None)
        if first is None or first.WhichOneof("action") != "begin":
            raise InvalidArgument("The first message begins the transaction.", field="begin")
        tenant, has_failed = self._tenant(caller), False
        seconds, idle = _terms(first.begin)
        until = asyncio.get_running_loop().time() + seconds
        _admit(tenant)
        try:
            async with tenant.turn, _transaction(tenant, is_read_only=first.begin.read_only) as done:
                yield sql_pb2.TransactResponse(begun=sql_pb2.TransactResponse.Begun())
                while True:
                    try:
                        async with asyncio.timeout(min(idle, until - asyncio.get_running_loop().time())):
                            request = await anext(requests, None)
                    except TimeoutError:
                        raise Aborted("The transaction was idle or open for too long: it was rolled back.") from None
                    match request and request.WhichOneof("action"):
                        case "statement":
                            assert request is not None
                            try:
                                result, has_failed = _in_transaction(
                                    tenant, request.statement, "statement", 0, has_failed=has_failed
                                )
                            except Aborted:
                                raise
                            except IsaError as error:
                                has_failed = has_failed or "sqlstate" in error.details
                                yield sql_pb2.TransactResponse(error=_status(error))
                            else:
                                yield sql_pb2.TransactResponse(result=result)
                        case "commit":
                            if has_failed:
                                raise Aborted("A statement of this transaction had failed: it was rolled back.")
                            done()
                            yield sql_pb2.TransactResponse(committed=sql_pb2.TransactResponse.Committed())
                            return
                        case "rollback":
                            yield sql_pb2.TransactResponse(rolled_back=sql_pb2.TransactResponse.RolledBack())
                            return
                        case None if request is None:
                            return
                        case _:
                            raise InvalidArgument("After the beginning come statements, then commit or rollback.")
        finally:
            tenant.open -= 1

    async def begin_tx(self, caller: Caller, request: sql_pb2.BeginTxRequest) -> sql_pb2.BeginTxResponse:
        """Begin a transaction that further calls go on with."""
        tenant = self._tenant(caller)
        seconds, idle = _terms(request.begin)
        _admit(tenant)
        try:
            await tenant.turn.acquire()
        except BaseException:
            tenant.open -= 1
            raise
        tenant.database.execute("BEGIN")
        tenant.database.execute(f"PRAGMA query_only = {int(request.begin.read_only)}")
        tx_id, now = secrets.token_urlsafe(32), asyncio.get_running_loop().time()
        self._open[tx_id] = _Open(caller, tenant, now + seconds, idle)
        self._watch(self._open[tx_id])
        expires_at = Timestamp()
        expires_at.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
        return sql_pb2.BeginTxResponse(tx_id=tx_id, expires_at=expires_at)

    async def execute_in_tx(self, caller: Caller, request: sql_pb2.ExecuteInTxRequest) -> sql_pb2.ExecuteInTxResponse:
        """Run statements in a transaction."""
        found = self._find(caller, request.tx_id)
        _counted(request.statements)
        _check_open(found)
        self._watch(found)
        results = []
        try:
            for index, statement in enumerate(request.statements):
                result, found.has_failed = _in_transaction(
                    found.tenant, statement, f"statements[{index}]", index, has_failed=found.has_failed
                )
                results.append(result)
        except Aborted:
            self._end(found, "a statement did other than it should")
            raise
        except IsaError as error:
            found.has_failed = found.has_failed or "sqlstate" in error.details
            raise
        return sql_pb2.ExecuteInTxResponse(results=results)

    async def commit(self, caller: Caller, request: sql_pb2.CommitRequest) -> sql_pb2.CommitResponse:
        """Commit a transaction."""
        found = self._find(caller, request.tx_id)
        if found.ended != "committed":
            _check_open(found)
            self._end(found, "it was rolled back" if found.has_failed else "committed")
            if found.has_failed:
                raise Aborted("A statement of this transaction had failed: it was rolled back.")
        return sql_pb2.CommitResponse()

    async def rollback(self, caller: Caller, request: sql_pb2.RollbackRequest) -> sql_pb2.RollbackResponse:
        """Roll a transaction back."""
        found = self._find(caller, request.tx_id)
        if found.ended == "committed":
            raise FailedPrecondition("This transaction was committed already.")
        if not found.ended:
            self._end(found, "it was rolled back")
        return sql_pb2.RollbackResponse()

    async def copy_in(self, caller: Caller, requests: AsyncIterator[sql_pb2.CopyInRequest]) -> sql_pb2.CopyInResponse:
        """Store rows in bulk, all or none."""
        tenant, first = self._tenant(caller), await anext(requests, None)
        if first is None or first.WhichOneof("message") != "target":
            raise InvalidArgument("The first message says where the rows go.", field="target")
        target, data = first.target, b""
        async for request in requests:
            if request.WhichOneof("message") != "chunk":
                raise InvalidArgument("After the target comes data only.", field="chunk")
            data += request.chunk
        rows = _rows_of(data, target.options)
        table = _name(target.table, "target.table")
        columns = ", ".join(_name(column, f"target.columns[{at}]") for at, column in enumerate(target.columns))
        async with tenant.turn, _transaction(tenant) as done:
            into = f"INSERT INTO {table}{f'({columns})' if columns else ''} VALUES "  # noqa: S608 -- quoted names
            for row in rows:
                _run(tenant, f"{into}({', '.join('?' * len(row))})", row, "target", 0)
            done()
        return sql_pb2.CopyInResponse(rows=len(rows))

    async def copy_out(self, caller: Caller, request: sql_pb2.CopyOutRequest) -> AsyncIterator[sql_pb2.CopyOutResponse]:
        """Read rows in bulk."""
        result = await self._read(caller, request.statement)
        names = [[column.name for column in result.rows.columns]] if request.options.header else []
        for row in [*names, *json.loads(result.rows.rows)]:
            yield sql_pb2.CopyOutResponse(chunk=_line(row, request.options))

    def _tenant(self, caller: Caller) -> _Tenant:
        key = f"{caller.workload} {caller.tenant}"  # a workload's data of an organisation are its own
        if key not in self._tenants:
            database = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            database.execute("PRAGMA foreign_keys = ON")
            database.create_function("now", 0, lambda: datetime.now(UTC).isoformat().replace("+00:00", "Z"))
            database.create_function("gen_random_uuid", 0, lambda: str(uuid.uuid4()))
            self._tenants[key] = _Tenant(database)
        return self._tenants[key]

    async def _read(self, caller: Caller, statement: sql_pb2.Statement) -> sql_pb2.Result:
        tenant = self._tenant(caller)
        if _keyword(statement.sql, "statement") not in _READS:
            raise InvalidArgument("This statement writes: use Execute.", field="statement.sql")
        async with tenant.turn, _transaction(tenant, is_read_only=True):
            return _result(tenant, statement, "statement", 0, most=None)

    async def _batch(self, caller: Caller, statements: Sequence[sql_pb2.Statement], path: str) -> list[sql_pb2.Result]:
        tenant = self._tenant(caller)
        paths = [f"{path}[{index}]" if path == "statements" else path for index in range(len(statements))]
        for statement, where in zip(statements, paths, strict=True):
            _keyword(statement.sql, where)
        async with tenant.turn, _transaction(tenant) as done:
            results = [
                _result(tenant, statement, where, index)
                for index, (statement, where) in enumerate(zip(statements, paths, strict=True))
            ]
            done()
        return results

    def _find(self, caller: Caller, tx_id: str) -> _Open:
        found = self._open.get(tx_id)
        if found is None or found.owner != caller:
            raise NotFound("There is no such transaction.", field="tx_id")
        return found

    def _watch(self, found: _Open) -> None:
        if found.timer is not None:
            found.timer.cancel()
        loop = asyncio.get_running_loop()
        patience = max(min(found.idle, found.until - loop.time()), 0)
        found.timer = loop.call_later(patience, self._end, found, "it was idle or open for too long")

    def _end(self, found: _Open, how: str) -> None:
        if found.ended:
            return
        found.ended = how
        if found.timer is not None:
            found.timer.cancel()
        found.tenant.database.execute("COMMIT" if how == "committed" else "ROLLBACK")
        found.tenant.database.execute("PRAGMA query_only = 0")
        found.tenant.open -= 1
        found.tenant.turn.release()


@asynccontextmanager
async def _transaction(tenant: _Tenant, *, is_read_only: bool = False) -> AsyncIterator[Callable[[], None]]:
    """A transaction that is rolled back when nobody called what is given."""
    database = tenant.database
    database.execute("BEGIN")
    database.execute(f"PRAGMA query_only = {int(is_read_only)}")
    try:
        yield lambda: _commit(database)
    finally:
        database.execute("PRAGMA query_only = 0")
        if database.in_transaction:
            database.execute("ROLLBACK")


def _commit(database: sqlite3.Connection) -> None:
    try:
        database.execute("COMMIT")
    except sqlite3.Error as error:  # a deferred constraint
        raise _failure(error, "", "", 0) from None


def _in_transaction(
    tenant: _Tenant, statement: sql_pb2.Statement, path: str, index: int, *, has_failed: bool
) -> tuple[sql_pb2.Result, bool]:
    """What a statement did, and whether the transaction is of no use any more."""
    word = _keyword(statement.sql, path, in_transaction=True)
    if has_failed and word != "ROLLBACK":
        raise FailedPrecondition("This cannot be done in this transaction.", sqlstate="25P02")
    return _result(tenant, statement, path, index), False


def _result(
    tenant: _Tenant, statement: sql_pb2.Statement, path: str, index: int, most: int | None = ROWS
) -> sql_pb2.Result:
    values = _values(statement, f"{path}.params")
    given = {str(number + 1): value for number, value in enumerate(values)}
    wanted = {int(number) for number in _PARAMETER.findall(_TOKEN.sub("", statement.sql))}
    if len(values) != max(wanted, default=0):
        raise InvalidArgument(
            f"The statement takes {max(wanted, default=0)} parameters and was given {len(values)}.",
            field=f"{path}.params",
        )
    cursor = _run(tenant, _plain(statement.sql), given, path, index)
    rows = cursor.fetchall() if cursor.description else []
    if most is not None and len(rows) > most:
        raise ResourceExhausted(f"More than {most} rows: read them with Query.", field=path)
    affected = len(rows) if cursor.description else max(cursor.rowcount, 0)
    if statement.HasField("expect_rows") and affected != statement.expect_rows:
        raise Aborted(
            f"Statement {index} touched {affected} rows, and {statement.expect_rows} were expected.",
            field=path, statement=index, affected=affected, expected=statement.expect_rows,
        )  # fmt: skip
    result = sql_pb2.Result(affected=affected)
    if cursor.description:
        names = [each[0] for each in cursor.description]
        types = _types(tenant, statement.sql, names, rows)
        columns = [sql_pb2.Column(name=name, type=kind) for name, kind in zip(names, types, strict=True)]
        wired = [[_wire(value, kind) for value, kind in zip(row, types, strict=True)] for row in rows]
        result.rows.CopyFrom(sql_pb2.Rows(columns=columns, rows=_dumps(wired)))
    return result


def _run(tenant: _Tenant, sql: str, given: Any, path: str, index: int) -> sqlite3.Cursor:
    try:
        return tenant.database.execute(sql, given)
    except sqlite3.Error as error:
        raise _failure(error, sql, path, index) from None


def _failure(error: sqlite3.Error, sql: str, path: str, index: int) -> IsaError:
    text, place = str(error), f"{path}.sql" if path else None
    table, _, column = text.rpartition(": ")[2].partition(".")
    if "UNIQUE constraint" in text:
        failed: IsaError = AlreadyExists("A row with this key exists already.", constraint=f"{table}_{column}_key")
        state = "23505"
    elif "NOT NULL constraint" in text:
        failed, state = InvalidArgument("A column may not be null.", column=column, table=table), "23502"
    elif "CHECK constraint" in text:
        failed, state = InvalidArgument("A check forbids this value.", constraint=table), "23514"
    elif "FOREIGN KEY" in text:
        failed, state = FailedPrecondition("Another row refers to this one, or what it refers to is missing."), "23503"
    elif "already exists" in text:
        failed, state = AlreadyExists("It exists already."), "42P07"
    elif "readonly database" in text:
        failed, state = InvalidArgument("This statement writes: use Execute."), "25006"
    elif "one statement at a time" in text:
        failed, state = InvalidArgument("The text holds several statements: send one."), ""
    else:
        state = "42601"
        named = re.search(r"no such (?:table|column): (\S+)", text)
        word = named[1] if named else (re.search(r'near "([^"]+)"', text) or ["", ""])[1]
        message = f'"{word}" does not exist.' if named else f"{text[:1].upper()}{text[1:]}."
        failed = InvalidArgument(message, near=sql[max(sql.find(word), 0) :][:24])
    failed.field = place
    if state:
        failed.details |= {"sqlstate": state, "statement": str(index)}
    return failed


def _keyword(sql: str, path: str, *, in_transaction: bool = False) -> str:
    """What a statement is; refused when it may not be run."""
    words = _WORDS.match(sql)
    if words is None:
        raise InvalidArgument("The text holds no statement: send one.", field=f"{path}.sql")
    if "\0" in sql:
        raise InvalidArgument("A statement may not hold NUL characters.", field=f"{path}.sql")
    word, following = words[1].upper(), (words[2] or "").upper()
    is_savepoint = word in _SAVEPOINTS and (word != "ROLLBACK" or following == "TO")
    if is_savepoint and in_transaction:
        return word
    if word in _ALLOWED and following not in _SERVERS:
        return word
    if word not in _REFUSED:
        raise InvalidArgument(f'Syntax error at or near "{words[1]}".', field=f"{path}.sql", near=sql[:24])
    raise PermissionDenied(f"{word} may not be run here: only what works on data and tables is.", field=f"{path}.sql")


def _plain(sql: str) -> str:
    """The statement without casts."""
    return _TOKEN.sub(lambda found: found["kept"] or "", sql)


def _values(statement: sql_pb2.Statement, path: str) -> list[Any]:
    try:
        values = json.loads(statement.params or b"[]")
    except ValueError:
        raise InvalidArgument("The parameters are not valid JSON.", field=path) from None
    if not isinstance(values, list):
        raise InvalidArgument("The parameters must be a JSON array, one value a parameter.", field=path)
    for index, value in enumerate(values):
        if isinstance(value, str) and "\0" in value:
            raise InvalidArgument(
                f"Parameter ${index + 1} takes text without NUL characters.", field=f"{path}[{index}]"
            )
    return [_dumps(value).decode() if isinstance(value, list | dict) else value for value in values]


def _types(tenant: _Tenant, sql: str, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Types of columns: as a table of the statement declares them, else by the first value that is there."""
    declared: dict[str, str] = {}
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    for (table,) in tenant.database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table.lower() in words:
            for _, name, kind, *_ in tenant.database.execute(f"PRAGMA table_info({_name(table, '')})").fetchall():
                declared.setdefault(name, kind.lower())
    types = []
    for position, name in enumerate(names):
        kind = declared.get(name, "").partition("(")[0].strip()
        value = next((row[position] for row in rows if row[position] is not None), None)
        types.append(_TYPES.get(kind, kind) or _NAMES[type(value)])
    return types


def _wire(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "bool":
        return bool(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if kind in ("int8", "numeric"):
        return str(value)
    if kind in ("json", "jsonb") and isinstance(value, str):
        return json.loads(value)
    return value


def _rows_of(data: bytes, options: sql_pb2.CopyOptions) -> list[list[str | None]]:
    if options.format == sql_pb2.COPY_FORMAT_BINARY:
        raise InvalidArgument("The binary format is not known in memory.", field="target.options.format")
    text = data.decode()
    if options.format == sql_pb2.COPY_FORMAT_TEXT:
        null = options.null_text if options.HasField("null_text") else "\\N"
        whole = text.removesuffix("\n").split("\n") if text else []
        lines: Iterable[list[str]] = [line.split(options.delimiter or "\t") for line in whole]
        rows = [[None if item == null else _unescaped(item) for item in line] for line in lines]
    else:
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=options.delimiter or ",")
        rows = [[None if item == options.null_text else item for item in line] for line in lines]
    return rows[1:] if options.header else rows


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t", "r": "\r"}.get(found[1], found[1]), text)


def _line(row: Sequence[Any], options: sql_pb2.CopyOptions) -> bytes:
    if options.format == sql_pb2.COPY_FORMAT_BINARY:
        raise InvalidArgument("The binary format is not known in memory.", field="options.format")
    texts = [None if item is None else ("t" if item else "f") if isinstance(item, bool) else item for item in row]
    out = io.StringIO()
    if options.format == sql_pb2.COPY_FORMAT_TEXT:
        null = options.null_text if options.HasField("null_text") else "\\N"
        escaped = (null if item is None else str(item).replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t") for item in texts)  # fmt: skip # noqa: E501
        out.write((options.delimiter or "\t").join(escaped) + "\n")
    else:
        writer = csv.writer(out, delimiter=options.delimiter or ",", lineterminator="\n")
        writer.writerow([options.null_text if item is None else item for item in texts])
    return out.getvalue().encode()


def _terms(begin: sql_pb2.Begin) -> tuple[float, float]:
    found = []
    for name, given, most in (("timeout", begin.timeout, TIMEOUT), ("idle_timeout", begin.idle_timeout, IDLE)):
        is_given = name in {each.name for each, _ in begin.ListFields()}
        seconds = given.seconds + given.nanos / 1e9 if is_given else most
        if not 0 < seconds <= most:
            raise InvalidArgument(f"This may be up to {most:.0f} seconds.", field=f"begin.{name}")
        found.append(seconds)
    return found[0], found[1]


def _admit(tenant: _Tenant) -> None:
    if tenant.open >= TRANSACTIONS:
        raise ResourceExhausted(
            f"{TRANSACTIONS} transactions are open, as many as may be: end one first.", retry_after=timedelta(seconds=1)
        )
    tenant.open += 1


def _check_open(found: _Open) -> None:
    if found.ended == "committed":
        raise FailedPrecondition("This transaction was committed already.")
    if found.ended:
        raise Aborted(f"This transaction is over: {found.ended}. Begin another one.")


def _counted(items: Sequence[Any]) -> None:
    if not 0 < len(items) <= STATEMENTS:
        raise InvalidArgument(f"A batch may have 1 to {STATEMENTS} statements.", field="statements")


def _status(error: IsaError) -> Status:
    error.request_id = error.request_id or uuid.uuid4().hex
    return status_of(error)


def _name(name: str, where: str) -> str:
    if not name or "\0" in name or len(name.encode()) > 63:
        raise InvalidArgument("A name is 1 to 63 bytes without NUL.", field=where)
    return '"' + name.replace('"', '""') + '"'


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
