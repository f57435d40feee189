"""Statements run on a connection, and their rows as JSON."""

from __future__ import annotations

import gc
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import asyncpg
import orjson

from isa.sql.v1 import sql_pb2
from isa_common import Aborted, ResourceExhausted, Unavailable
from kernel import Caller
from kernel.call import CURRENT
from services.adapters.postgres.codec import encode_params, parse_params
from services.adapters.postgres.connection import Connection, Prepared
from services.adapters.postgres.errors import STALE, failure

FIRST_PAGE = 100
"""Rows that are asked for before their size is known."""
MOST_ROWS = 5000
"""Rows that are asked for at once."""
PAGE = 256 * 1024
"""Bytes that a page of a stream aims at."""
LONGEST_PAGE = 12 << 20
"""Bytes of a page of one row; a message may have 16 MiB."""
SHORTEST_TIMEOUT = 10
"""Milliseconds."""
DEFAULT_TIMEOUT = 30.0
"""Seconds of a statement whose caller named no deadline."""

_IDENTIFIER = re.compile(r"[a-z0-9-]*")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one call may return."""

    rows: int
    bytes: int
    streamed_rows: int
    streamed_bytes: int


def left() -> float:
    """Seconds that the call at hand may still take."""
    call = CURRENT.get()
    if call is None or call.timeout is None:
        return DEFAULT_TIMEOUT
    return call.timeout - (datetime.now(UTC) - call.started).total_seconds()


def begin(caller: Caller, text: str, seconds: float | None = None) -> str:
    """One text, one round trip: the transaction, whom it is for, and how long its statements may take."""
    seconds = left() if seconds is None else seconds
    text += f"; SET LOCAL statement_timeout = {max(int(seconds * 1000) - 20, SHORTEST_TIMEOUT)}"
    if caller.org:
        assert _IDENTIFIER.fullmatch(caller.org) and _IDENTIFIER.fullmatch(caller.user), "verified with the token"
        text += f"; SET LOCAL isa.org = '{caller.org}'; SET LOCAL isa.\"user\" = '{caller.user}'"
    return text


def bind(caller: Caller) -> str:
    """The settings of a session that only reads, for one user of a tenant."""
    assert _IDENTIFIER.fullmatch(caller.org) and _IDENTIFIER.fullmatch(caller.user), "verified with the token"
    return f"SET default_transaction_read_only = on; SET isa.org = '{caller.org}'; SET isa.\"user\" = '{caller.user}'"


async def commit(connection: Connection) -> None:
    """Commit, and say when that did not happen, or when nobody knows."""
    try:
        tag = await connection.execute("COMMIT")
    except asyncpg.PostgresConnectionError as error:
        raise _unknown() from error
    except asyncpg.PostgresError as error:
        if str(error.sqlstate or "").startswith(("08", "57P")):  # the server went down while it committed
            raise _unknown() from error
        raise failure(error, "", "", 0) from error  # a deferred constraint
    except (asyncpg.InterfaceError, OSError) as error:
        raise _unknown() from error
    if tag == "ROLLBACK":
        raise Aborted("A statement of this transaction had failed: it was rolled back.")


def _unknown() -> Unavailable:
    return Unavailable("The connection was lost while committing: read to see whether it was done.", outcome="unknown")


@contextmanager
def failures(
    connection: Connection, statement: sql_pb2.Statement, path: str = "statement", index: int = 0
) -> Iterator[None]:
    """Say what the server says of a statement as our errors; a prepared one that is stale is for the caller."""
    try:
        yield
    except STALE:
        raise
    except asyncpg.PostgresError as error:
        connection.check_flood()
        raise failure(error, statement.sql, path, index) from error
    except (asyncpg.InterfaceError, OSError):
        connection.check_flood()
        raise


async def run(
    connection: Connection, statement: sql_pb2.Statement, path: str, index: int, limits: Limits
) -> sql_pb2.Result:
    """Run a statement; what it returns must fit into the limits."""
    values = parse_params(statement.params, f"{path}.params")
    with failures(connection, statement, path, index):
        prepared = await connection.prepared(statement.sql)
        arguments = encode_params(values, prepared.encoders, f"{path}.params")
        rows, tag, is_complete = await connection.run(prepared, arguments, limit=limits.rows)
    if not is_complete:
        raise ResourceExhausted(f"More than {limits.rows} rows: read them with Query.", field=path)
    count = tag.rpartition(" ")[2]
    result = sql_pb2.Result(affected=int(count) if count.isdigit() else 0)
    if statement.HasField("expect_rows") and result.affected != statement.expect_rows:
        raise Aborted(
            f"Statement {index} touched {result.affected} rows, and {statement.expect_rows} were expected.",
            field=path, statement=index, affected=result.affected, expected=statement.expect_rows,
        )  # fmt: skip
    if prepared.columns:
        result.rows.CopyFrom(message(prepared, as_json(prepared, rows), has_columns=True))
    return result


async def fetch(
    connection: Connection, statement: sql_pb2.Statement, limits: Limits
) -> tuple[Prepared, list[Any]] | None:
    """Read a result at one stroke, in no transaction but its own; None when there is more of it than was expected."""
    values = parse_params(statement.params, "statement.params")
    with failures(connection, statement):
        prepared = await connection.prepared(statement.sql)
        arguments = encode_params(values, prepared.encoders, "statement.params")
        limit = int(limits.bytes / prepared.width) + 1 if prepared.width else FIRST_PAGE
        rows, _, is_complete = await connection.run(prepared, arguments, limit=min(limit, limits.rows))
    return (prepared, rows) if is_complete else None


async def read(
    connection: Connection, statement: sql_pb2.Statement, limits: Limits
) -> AsyncIterator[tuple[Prepared, list[Any]]]:
    """Run a statement in an open transaction and return its rows as they come, at least once."""
    values = parse_params(statement.params, "statement.params")
    with failures(connection, statement):
        prepared = await connection.prepared(statement.sql)
        arguments = encode_params(values, prepared.encoders, "statement.params")
        limit = int(PAGE / prepared.width) + 1 if prepared.width else FIRST_PAGE
        rows, _, is_complete = await connection.run(prepared, arguments, limit=min(limit, MOST_ROWS))
        yield prepared, rows
        while not is_complete:
            limit = min(int(PAGE / max(prepared.width, 1)) + 1, len(rows) * 4, MOST_ROWS)
            rows, is_complete = await connection.more(prepared, limit=limit)
            yield prepared, rows


def message(prepared: Prepared, page: bytes, *, has_columns: bool) -> sql_pb2.Rows:
    """A page of rows as it is sent."""
    columns = [sql_pb2.Column(name=name, type=kind) for name, kind in prepared.columns] if has_columns else ()
    return sql_pb2.Rows(columns=columns, rows=page)


def as_json(prepared: Prepared, rows: Sequence[Any]) -> bytes:
    """Rows as a JSON array of arrays."""
    if not prepared.decoders or not rows:
        return orjson.dumps([tuple(row) for row in rows])
    gc.disable()  # a few objects a row, all gone at once: not worth the collector's looking
    try:
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        for position, decode in prepared.decoders:
            columns[position] = decode(columns[position])
        return orjson.dumps(list(zip(*columns, strict=True)))
    finally:
        gc.enable()


def split(prepared: Prepared, rows: Sequence[Any]) -> list[bytes]:
    """Rows as JSON, in pages that fit into a message."""
    page = as_json(prepared, rows)
    if len(page) <= 4 * PAGE or len(rows) <= 1:
        if len(page) > LONGEST_PAGE:
            raise ResourceExhausted(f"A row of {len(page)} bytes does not fit into a message.")
        return [page]
    half = len(rows) // 2
    return split(prepared, rows[:half]) + split(prepared, rows[half:])
