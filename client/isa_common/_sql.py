"""SQL in the caller's own database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from isa.sql.v1 import sql_pb2
from isa_common._contract import method
from isa_common._transport import Transport
from isa_common._values import decoder, encode

_SERVICE = sql_pb2.DESCRIPTOR.services_by_name["Sql"]
_QUERY = method(_SERVICE, "Query", capability="sql")
_EXECUTE = method(_SERVICE, "Execute", capability="sql")
_EXECUTE_BATCH = method(_SERVICE, "ExecuteBatch", capability="sql")


class Acting(Protocol):
    """Whom a workload acts for; the kernel's `Caller` is one."""

    @property
    def org(self) -> str:
        """The organisation's id."""

    @property
    def user(self) -> str:
        """The person's id, or nothing."""


def acting(caller: Acting | None, org: str, user: str) -> dict[str, str]:
    """The metadata that say whom a workload acts for."""
    if caller is not None:
        org, user = caller.org, caller.user
    return {name: value for name, value in (("isa-org", org), ("isa-user", user)) if value}


class Row:
    """One row: by name `row["title"]`, by position `row[0]`, `dict(row)`; of equal names the first counts."""

    __slots__ = ("_shape", "_values")

    def __init__(self, shape: _Shape, values: list[Any]) -> None:
        self._shape = shape
        self._values = values

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, in order; they may repeat."""
        return self._shape.names

    def __getitem__(self, key: str | int) -> Any:
        return self._values[key if isinstance(key, int) else self._shape.index[key]]

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a column, or the default when there is no such column."""
        position = self._shape.index.get(name)
        return default if position is None else self._values[position]

    def keys(self) -> tuple[str, ...]:
        """The names, each once."""
        return tuple(self._shape.index)

    def values(self) -> tuple[Any, ...]:
        """The values, in the order of the columns."""
        return tuple(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row):
            return self.columns == other.columns and self._values == other._values
        return NotImplemented

    __hash__ = None  # type: ignore[assignment]  # holds lists

    def __repr__(self) -> str:
        pairs = ", ".join(f"{name}={value!r}" for name, value in zip(self.columns, self._values, strict=True))
        return f"Row({pairs})"


class _Shape:
    """The columns that the rows of one result share."""

    __slots__ = ("decoders", "index", "names", "types")

    def __init__(self, columns: Sequence[sql_pb2.Column]) -> None:
        self.names = tuple(column.name for column in columns)
        self.types = tuple(column.type for column in columns)
        self.index: dict[str, int] = {}
        for position, name in enumerate(self.names):
            self.index.setdefault(name, position)
        found = ((position, decoder(kind)) for position, kind in enumerate(self.types))
        self.decoders = [(position, decode) for position, decode in found if decode is not None]

    def rows(self, page: bytes) -> list[Row]:
        values: list[list[Any]] = json.loads(page) if page else []
        for row in values:
            for position, decode in self.decoders:
                if (value := row[position]) is not None:
                    row[position] = decode(value)
        return [Row(self, row) for row in values]


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


class Sql:
    """SQL with parameters. Reads are retried within their deadline; writes are sent once."""

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        self._transport = transport
        self._acting = acting_for

    async def query(self, sql: str, *params: object, timeout: timedelta | None = None) -> list[Row]:
        """Return all rows of a statement that only reads."""
        return [row async for page in self._pages(sql, params, timeout) for row in page]

    async def stream(self, sql: str, *params: object, timeout: timedelta | None = None) -> AsyncIterator[Row]:
        """Return the rows of a statement that only reads as they come; they need not fit into memory."""
        async for page in self._pages(sql, params, timeout):
            for row in page:
                yield row

    async def execute(self, sql: str, *params: object, timeout: timedelta | None = None) -> Result:
        """Run one statement in a transaction of its own."""
        request = sql_pb2.ExecuteRequest(statement=_message(Statement(sql, *params)))
        response = await self._transport.unary(_EXECUTE, request, timeout=timeout, acting=self._acting)
        return _result(response.result)

    async def execute_batch(self, statements: Sequence[Statement], *, timeout: timedelta | None = None) -> list[Result]:
        """Run statements in one transaction, all or none.

        Aborted says that one touched another number of rows than expected. Unavailable and DeadlineExceeded
        may also mean that it was committed and the answer lost: repeat only what is idempotent.
        """
        request = sql_pb2.ExecuteBatchRequest(statements=[_message(statement) for statement in statements])
        response = await self._transport.unary(_EXECUTE_BATCH, request, timeout=timeout, acting=self._acting)
        return [_result(result) for result in response.results]

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Sql:
        """Return the same, acting for an organisation; only our own workloads may."""
        return Sql(self._transport, acting_for=acting(caller, org, user))

    async def _pages(self, sql: str, params: Sequence[object], timeout: timedelta | None) -> AsyncIterator[list[Row]]:
        request = sql_pb2.QueryRequest(statement=_message(Statement(sql, *params)))
        shape = None
        async for response in self._transport.stream(_QUERY, request, timeout=timeout, acting=self._acting):
            if shape is None:
                shape = _Shape(response.rows.columns)
            yield shape.rows(response.rows.rows)


def _message(statement: Statement) -> sql_pb2.Statement:
    return sql_pb2.Statement(sql=statement.sql, params=encode(statement.params), expect_rows=statement.expect_rows)


def _result(result: sql_pb2.Result) -> Result:
    if not result.HasField("rows"):
        return Result(result.affected)
    return Result(result.affected, _Shape(result.rows.columns).rows(result.rows.rows))
