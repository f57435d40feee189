"""Typed entities in tables: `Repository`, `UnitOfWork`, specifications and pages. Needs `isa-common[sql]`.

Statements are SQLAlchemy Core's; they run through `isa.sql`, so no driver and no connection is needed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from dataclasses import field as field_of
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, get_type_hints

import sqlalchemy as sa
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql import ClauseElement, ColumnElement

from isa_common._sql import Result, Row, Sql, Statement
from isa_common.errors import Aborted, InvalidArgument, NotFound

__all__ = ["Page", "Repository", "Specification", "UnitOfWork", "statement"]

T = TypeVar("T")
Id = TypeVar("Id")

_DIALECT = PGDialect_asyncpg()  # type: ignore[no-untyped-call]  # writes $1 and the parameters' types; opens nothing
_OPERATORS: dict[str, Callable[[ColumnElement[Any], Any], ColumnElement[bool]]] = {
    "": lambda column, value: column.is_(None) if value is None else column == value,
    "not": lambda column, value: column.is_not(None) if value is None else column != value,
    "lt": lambda column, value: column < value,
    "le": lambda column, value: column <= value,
    "gt": lambda column, value: column > value,
    "ge": lambda column, value: column >= value,
    "in": lambda column, value: column.in_(value),
    "contains": lambda column, value: column.contains(value, autoescape=True),
    "startswith": lambda column, value: column.startswith(value, autoescape=True),
}


def statement(clause: ClauseElement, *, expect_rows: int | None = None) -> Statement:
    """Compile a statement of SQLAlchemy Core to PostgreSQL's text and its parameters, which are never in the text."""
    compiled = clause.compile(dialect=_DIALECT, compile_kwargs={"render_postcompile": True})
    values = compiled.params
    names: Sequence[str] = compiled.positiontup or ()  # type: ignore[attr-defined]  # of a compiled SQL statement
    return Statement(compiled.string, *(values[name] for name in names), expect_rows=expect_rows)


class Specification(Generic[T]):
    """A condition on entities that has a name; `&`, `|` and `~` combine them.

    class Overdue(Specification[Task]):
        def __init__(self, now: datetime) -> None:
            self.now = now

        def clause(self, table: Table) -> ColumnElement[bool]:
            return table.c.due < self.now
    """

    def clause(self, table: sa.Table) -> ColumnElement[bool]:
        """The condition in SQL."""
        raise NotImplementedError

    def __and__(self, other: Specification[T]) -> Specification[T]:
        return _Combined(lambda table: sa.and_(self.clause(table), other.clause(table)))

    def __or__(self, other: Specification[T]) -> Specification[T]:
        return _Combined(lambda table: sa.or_(self.clause(table), other.clause(table)))

    def __invert__(self) -> Specification[T]:
        return _Combined(lambda table: sa.not_(self.clause(table)))


class _Combined(Specification[T]):
    def __init__(self, make: Callable[[sa.Table], ColumnElement[bool]]) -> None:
        self._make = make

    def clause(self, table: sa.Table) -> ColumnElement[bool]:
        return self._make(table)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of the entities that a condition selects."""

    items: list[T]
    size: int
    """How many were asked for; the last page may have fewer."""
    total: int | None = None
    """How many there are on all pages; only where pages are numbered."""
    number: int | None = None
    """From 1; only where pages are numbered."""
    next_cursor: str = field_of(default="")
    """Where the next page begins; empty on the last one, and where pages are numbered."""


class Repository(Generic[T, Id]):
    """Entities of one type, a dataclass or a pydantic model, in one table. Fields are columns of the same name.

    With `version`, the name of an integer column, an update or delete whose entity is no longer the stored one is
    Aborted: read again and try again.
    """

    def __init__(self, sql: Sql, table: sa.Table, kind: type[T], *, version: str = "") -> None:
        keys = list(table.primary_key.columns)
        if len(keys) != 1:
            raise ValueError(f"{table.name} must have a primary key of one column.")
        self._sql = sql
        self._table = table
        self._kind = kind
        self._entity = TypeAdapter(kind)
        self._key: sa.Column[Any] = keys[0]
        self._version: sa.Column[Any] | None = table.c[version] if version else None
        hints = get_type_hints(kind)
        self._columns: list[sa.Column[Any]] = [column for column in table.c if column.name in hints]
        """What is written and read; other columns of the table are the database's own."""
        self._fields = {column.name: TypeAdapter(hints[column.name]) for column in self._columns}
        if not {keys[0].name, version or keys[0].name} <= self._fields.keys():
            raise ValueError(f"{kind.__name__} must have the fields of its id and its version.")

    async def find(self, id: Id, *, timeout: timedelta | None = None) -> T | None:  # noqa: A002 -- what it is
        """Return an entity, or None."""
        rows = await self._rows(sa.select(*self._columns).where(self._key == id), timeout)
        return self._read(rows[0]) if rows else None

    async def get(self, id: Id, *, timeout: timedelta | None = None) -> T:  # noqa: A002 -- what it is
        """Return an entity; NotFound when there is none."""
        found = await self.find(id, timeout=timeout)
        if found is None:
            raise NotFound(f"There is no such {self._kind.__name__}.", id=id)
        return found

    async def add(self, entity: T, *, timeout: timedelta | None = None) -> T:
        """Store a new entity and return it with what the database filled in; AlreadyExists when its id is taken."""
        result = await self._run(self.adding(entity), timeout)
        return self._read(result.rows[0])

    async def update(self, entity: T, *, timeout: timedelta | None = None) -> T:
        """Store a changed entity and return it as it is now."""
        result = await self._run(self.updating(entity), timeout)
        if not result.rows:
            raise self._lost(entity)
        return self._read(result.rows[0])

    async def remove(self, entity: T, *, timeout: timedelta | None = None) -> None:
        """Delete an entity."""
        result = await self._run(self.removing(entity), timeout)
        if not result.rows:
            raise self._lost(entity)

    async def select(
        self,
        condition: Specification[T] | ColumnElement[bool] | None = None,
        *,
        order_by: Sequence[str] = (),
        limit: int | None = None,
        timeout: timedelta | None = None,
    ) -> list[T]:
        """Return the entities that a condition selects; `order_by` names fields, with `-` in front for descending."""
        query = self._select(condition).order_by(*self._order(order_by)).limit(limit)
        return [self._read(row) for row in await self._rows(query, timeout)]

    async def stream(
        self,
        condition: Specification[T] | ColumnElement[bool] | None = None,
        *,
        order_by: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> AsyncIterator[T]:
        """Return the entities as they come; they need not fit into memory."""
        asked = statement(self._select(condition).order_by(*self._order(order_by)))
        async for row in self._sql.stream(asked.sql, *asked.params, timeout=timeout):
            yield self._read(row)

    async def count(
        self, condition: Specification[T] | ColumnElement[bool] | None = None, *, timeout: timedelta | None = None
    ) -> int:
        """Tell how many entities a condition selects."""
        query = sa.select(sa.func.count()).select_from(self._table)
        if (clause := self._clause(condition)) is not None:
            query = query.where(clause)
        ((found,),) = await self._rows(query, timeout)
        return int(found)

    async def page(
        self,
        condition: Specification[T] | ColumnElement[bool] | None = None,
        *,
        number: int = 1,
        size: int = 50,
        order_by: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> Page[T]:
        """Return a numbered page and how many entities there are. Far pages are slow: `page_after` is not."""
        if number < 1 or size < 1:
            raise InvalidArgument("Pages count from 1 and have at least one item.", field="number")
        query = self._select(condition).order_by(*self._order((*order_by, self._key.name)))
        rows = await self._rows(query.limit(size).offset((number - 1) * size), timeout)
        total = await self.count(condition, timeout=timeout)
        return Page([self._read(row) for row in rows], size, total=total, number=number)

    async def page_after(
        self,
        cursor: str = "",
        condition: Specification[T] | ColumnElement[bool] | None = None,
        *,
        size: int = 50,
        order_by: str = "",
        timeout: timedelta | None = None,
    ) -> Page[T]:
        """Return the page that begins after a cursor, by `order_by` and the id; what comes meanwhile shifts nothing.

        `order_by` names a field that is never NULL, with `-` in front for descending.
        """
        descends = order_by.startswith("-")
        columns = [self._key]
        if order_by.lstrip("-") not in ("", self._key.name):
            columns.insert(0, self._column(order_by.lstrip("-")))
        query = self._select(condition).order_by(*(sa.desc(column) if descends else column for column in columns))
        if cursor:
            place = sa.tuple_(*columns)
            after = zip(columns, self._after(cursor, order_by, columns), strict=True)
            values = sa.tuple_(*(sa.literal(value, column.type) for column, value in after))
            query = query.where(place < values if descends else place > values)
        found = await self._rows(query.limit(size + 1), timeout)
        items = [self._read(row) for row in found[:size]]
        return Page(items, size, next_cursor=self._cursor(items[-1], order_by, columns) if len(found) > size else "")

    def matching(self, **conditions: object) -> Specification[T]:
        """The condition that fields have these values: `done=None, age__ge=18, name__startswith="a"`.

        The operators are `not lt le gt ge in contains startswith`. InvalidArgument names what is no field, or has a
        value that does not fit it.
        """
        clauses = []
        for name, value in conditions.items():
            field, _, operator = name.partition("__")
            column = self._column(field)
            if operator not in _OPERATORS:
                raise InvalidArgument(f"There is no operator {operator}.", field=name)
            checked: object
            if operator == "in":
                wanted = value if isinstance(value, Iterable) else [value]
                checked = [self._checked(name, field, each) for each in wanted]
            else:
                checked = self._checked(name, field, value)
            clauses.append(_OPERATORS[operator](column, checked))
        return _Combined(lambda _: sa.and_(sa.true(), *clauses))

    def adding(self, entity: T) -> Statement:
        """The statement of `add`, for a unit of work."""
        columns = self._table.c
        values = {
            name: value
            for name, value in self._values(entity).items()
            if value is not None or columns[name].server_default is None  # which the database fills in
        }
        return statement(sa.insert(self._table).values(values).returning(*self._columns), expect_rows=1)

    def updating(self, entity: T) -> Statement:
        """The statement of `update`; it touches no row when the entity is no longer the stored one."""
        values = self._values(entity)
        del values[self._key.name]
        if self._version is not None:
            values[self._version.name] = self._version + 1
        query = sa.update(self._table).where(self._same(entity)).values(values).returning(*self._columns)
        return statement(query, expect_rows=1)

    def removing(self, entity: T) -> Statement:
        """The statement of `remove`."""
        return statement(sa.delete(self._table).where(self._same(entity)).returning(self._key), expect_rows=1)

    async def _rows(self, query: sa.Select[Any], timeout: timedelta | None) -> list[Row]:
        asked = statement(query)
        return await self._sql.query(asked.sql, *asked.params, timeout=timeout)

    async def _run(self, change: Statement, timeout: timedelta | None) -> Result:
        return await self._sql.execute(change.sql, *change.params, timeout=timeout)

    def _read(self, row: Row) -> T:
        return self._entity.validate_python(dict(row))

    def _values(self, entity: T) -> dict[str, Any]:
        return {column.name: getattr(entity, column.name) for column in self._columns}

    def _same(self, entity: T) -> ColumnElement[bool]:
        same: ColumnElement[bool] = self._key == getattr(entity, self._key.name)
        if self._version is not None:
            same = sa.and_(same, self._version == getattr(entity, self._version.name))
        return same

    def _lost(self, entity: T) -> Aborted | NotFound:
        id = getattr(entity, self._key.name)  # noqa: A001 -- what it is
        if self._version is not None:
            return Aborted(f"This {self._kind.__name__} was changed or deleted meanwhile: read it again.", id=id)
        return NotFound(f"There is no such {self._kind.__name__}.", id=id)

    def _select(self, condition: Specification[T] | ColumnElement[bool] | None) -> sa.Select[Any]:
        query = sa.select(*self._columns)
        clause = self._clause(condition)
        return query if clause is None else query.where(clause)

    def _clause(self, condition: Specification[T] | ColumnElement[bool] | None) -> ColumnElement[bool] | None:
        return condition.clause(self._table) if isinstance(condition, Specification) else condition

    def _column(self, name: str) -> sa.Column[Any]:
        if name not in self._fields:
            raise InvalidArgument(f"{self._kind.__name__} has no field {name}.", field=name)
        column: sa.Column[Any] = self._table.c[name]
        return column

    def _order(self, names: Sequence[str]) -> list[ColumnElement[Any]]:
        return [sa.desc(self._column(name[1:])) if name.startswith("-") else self._column(name) for name in names]

    def _checked(self, name: str, field: str, value: object) -> object:
        try:
            return None if value is None else self._fields[field].validate_python(value)
        except ValidationError:
            raise InvalidArgument(f"{value!r} is no value of {field}.", field=name) from None

    def _cursor(self, last: T, order_by: str, columns: Sequence[sa.Column[Any]]) -> str:
        values = [self._fields[column.name].dump_python(getattr(last, column.name), mode="json") for column in columns]
        return base64.urlsafe_b64encode(json.dumps([order_by, *values]).encode()).decode("ascii")

    def _after(self, cursor: str, order_by: str, columns: Sequence[sa.Column[Any]]) -> list[Any]:
        try:
            order, *values = json.loads(base64.urlsafe_b64decode(cursor))
            if order != order_by or len(values) != len(columns):
                raise ValueError
            return [
                self._fields[column.name].validate_python(value) for column, value in zip(columns, values, strict=True)
            ]
        except (ValueError, TypeError, binascii.Error):
            raise InvalidArgument("This is no cursor of a page in this order.", field="cursor") from None


class UnitOfWork:
    """Changes that happen together or not at all: sent as one transaction at the end of the block.

    async with UnitOfWork(isa.sql) as work:
        work.update(accounts, payer)
        work.update(accounts, payee)

    An exception in the block sends nothing. Aborted says that an entity was changed meanwhile, and nothing was done.
    What is read in the block is read before the transaction, which versions make safe.
    """

    def __init__(self, sql: Sql, *, timeout: timedelta | None = None) -> None:
        self._sql = sql
        self._timeout = timeout
        self._statements: list[Statement] = []
        self.results: list[Result] = []
        """What each statement did, after the block."""

    def add(self, repository: Repository[T, Any], entity: T) -> None:
        """Store a new entity."""
        self._statements.append(repository.adding(entity))

    def update(self, repository: Repository[T, Any], entity: T) -> None:
        """Store a changed entity."""
        self._statements.append(repository.updating(entity))

    def remove(self, repository: Repository[T, Any], entity: T) -> None:
        """Delete an entity."""
        self._statements.append(repository.removing(entity))

    def execute(self, change: ClauseElement | Statement, *, expect_rows: int | None = None) -> None:
        """Run a statement of SQLAlchemy Core, or one in SQL."""
        if not isinstance(change, Statement):
            change = statement(change, expect_rows=expect_rows)
        self._statements.append(change)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        statements, self._statements = self._statements, []
        if kind is None and statements:
            self.results = await self._sql.execute_batch(statements, timeout=self._timeout)
