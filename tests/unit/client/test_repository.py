"""Which statements typed entities become; tests/conformance/test_repository.py runs them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import pgparse
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from isa_common import Aborted, InvalidArgument, NotFound, Result, Row, Statement
from isa_common._sql import _Shape
from isa_common.repository import Page, Repository, Specification, UnitOfWork, statement

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TABLE = sa.Table(
    "plants",
    sa.MetaData(),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("name", sa.Text),
    sa.Column("height", sa.Integer),
    sa.Column("watered", sa.DateTime(timezone=True)),
    sa.Column("version", sa.Integer),
)


@dataclass(frozen=True)
class Plant:
    """An entity."""

    id: str
    name: str
    height: int | None = None
    watered: datetime | None = None
    version: int = 1


class Taller(Specification[Plant]):
    """A condition with a name."""

    def __init__(self, than: int) -> None:
        self.than = than

    def clause(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.height > self.than


class Scripted:
    """Says what a test lays down, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[object, ...]]] = []
        self.answers: list[list[Plant]] = []
        self.batches: list[list[Statement]] = []

    def _rows(self, sql: str, params: tuple[object, ...]) -> list[Row]:
        assert pgparse.parse(sql)
        self.asked.append((" ".join(sql.split()), params))
        shape = _Shape(tuple((name, "text") for name in TABLE.c.keys()))  # noqa: SIM118 -- keys, not columns
        found = self.answers.pop(0) if self.answers else []
        return [shape.row(each if isinstance(each, tuple) else vars(each).values()) for each in found]

    async def query(self, sql: str, *params: object, timeout: object = None) -> list[Row]:
        return self._rows(sql, params)

    async def stream(self, sql: str, *params: object, timeout: object = None) -> AsyncIterator[Row]:
        for row in self._rows(sql, params):
            yield row

    async def execute(self, sql: str, *params: object, timeout: object = None) -> Result:
        rows = self._rows(sql, params)
        return Result(len(rows), rows)

    async def execute_batch(self, statements: list[Statement], *, timeout: object = None) -> list[Result]:
        self.batches.append(list(statements))
        return [Result(1) for _ in statements]


@pytest.fixture
def sql() -> Scripted:
    return Scripted()


@pytest.fixture
def plants(sql: Scripted) -> Repository[Plant, str]:
    return Repository(sql, TABLE, Plant, version="version")


FERN = Plant("p1", "fern", 3, NOW)


@pytest.mark.ac("platform:R13.1", "platform:R3.3")
async def test_an_entity_is_found_by_its_id(sql: Scripted, plants: Repository[Plant, str]) -> None:
    sql.answers = [[FERN]]

    assert await plants.get("p1") == FERN
    with pytest.raises(NotFound, match="no such Plant"):
        await plants.get("'; DROP TABLE plants; --")

    text, params = sql.asked[1]
    assert "DROP" not in text
    assert params == ("'; DROP TABLE plants; --",)
    assert text.endswith("WHERE plants.id = $1::VARCHAR")


async def test_an_update_is_of_the_version_that_was_read(sql: Scripted, plants: Repository[Plant, str]) -> None:
    sql.answers = [[replace(FERN, version=2)]]

    assert (await plants.update(FERN)).version == 2

    text, params = sql.asked[0]
    assert "version=(plants.version + $" in text
    assert "plants.id = $" in text
    assert "plants.version = $" in text
    assert "id=$" not in text.partition("WHERE")[0]
    assert {"p1", "fern", 3, 1} <= set(params)
    with pytest.raises(Aborted, match="read it again"):
        await plants.update(FERN)
    with pytest.raises(Aborted):
        await plants.remove(FERN)


async def test_without_a_version_what_is_gone_is_not_found(sql: Scripted) -> None:
    with pytest.raises(NotFound):
        await Repository(sql, TABLE, Plant).update(FERN)


@pytest.mark.ac("platform:R13.3")
async def test_conditions_are_combined(sql: Scripted, plants: Repository[Plant, str]) -> None:
    await plants.select((Taller(3) | ~Taller(1)) & plants.matching(name="fern"), order_by=["-height", "id"], limit=5)

    text, params = sql.asked[0]
    assert "plants.height > $1::INTEGER OR plants.height <= $2::INTEGER" in text
    assert text.endswith("ORDER BY plants.height DESC, plants.id LIMIT $4::INTEGER")
    assert params == (3, 1, "fern", 5)


@pytest.mark.ac("platform:R13.5")
async def test_filters_are_checked_against_the_type(sql: Scripted, plants: Repository[Plant, str]) -> None:
    sql.answers = [[(2,)]]

    assert (
        await plants.count(plants.matching(height__ge="7", watered=None, id__in=["a", "b"], name__startswith="50%_"))
        == 2
    )

    text, params = sql.asked[0]
    assert "plants.height >= $1::INTEGER AND plants.watered IS NULL" in text
    assert sorted(map(str, params)) == ["50/%/_", "7", "a", "b"]
    for wrong in ({"high": 1}, {"height": "tall"}, {"height__near": 1}, {"id__in": [None, 3]}):
        with pytest.raises(InvalidArgument) as caught:
            plants.matching(**wrong)
        assert caught.value.field in (*wrong, "high")


@pytest.mark.ac("platform:R13.4")
async def test_numbered_pages_know_how_many_there_are(sql: Scripted, plants: Repository[Plant, str]) -> None:
    sql.answers = [[FERN], [(41,)]]

    page = await plants.page(Taller(1), number=3, size=20, order_by=["name"])

    assert page == Page([FERN], 20, total=41, number=3)
    assert sql.asked[0][1][-2:] == (20, 40)
    assert "ORDER BY plants.name, plants.id" in sql.asked[0][0]
    with pytest.raises(InvalidArgument):
        await plants.page(number=0)


@pytest.mark.ac("platform:R13.4")
async def test_pages_after_a_cursor_begin_where_the_last_one_ended(
    sql: Scripted, plants: Repository[Plant, str]
) -> None:
    sql.answers = [[FERN, replace(FERN, id="p2")], [replace(FERN, id="p2")]]

    first = await plants.page_after(size=1, order_by="-watered")
    last = await plants.page_after(first.next_cursor, size=1, order_by="-watered")

    assert [first.items[0].id, last.items[0].id, last.next_cursor] == ["p1", "p2", ""]
    text, params = sql.asked[1]
    assert "(plants.watered, plants.id) < (" in text
    assert params[:2] == (NOW, "p1")
    for cursor, order in ((first.next_cursor, "name"), ("garbage", ""), ("W10=", "")):
        with pytest.raises(InvalidArgument) as caught:
            await plants.page_after(cursor, order_by=order)
        assert caught.value.field == "cursor"


@pytest.mark.ac("platform:R3.4")
async def test_a_unit_of_work_is_one_transaction(sql: Scripted, plants: Repository[Plant, str]) -> None:
    async with UnitOfWork(sql) as work:
        work.add(plants, FERN)
        work.update(plants, FERN)
        work.remove(plants, FERN)
        work.execute(sa.update(TABLE).values(height=0), expect_rows=3)
        work.execute(Statement("SELECT $1", 1))
    with pytest.raises(ValueError, match="no"):
        async with UnitOfWork(sql) as work:
            work.add(plants, FERN)
            raise ValueError("no")
    async with UnitOfWork(sql):
        pass

    (batch,) = sql.batches
    assert [each.expect_rows for each in batch] == [1, 1, 1, 3, None]


@pytest.mark.ac("platform:R13.2", "platform:R13.6")
async def test_a_repository_of_ones_own_keeps_the_type(sql: Scripted) -> None:
    class Plants(Repository[Plant, str]):
        async def tall(self) -> list[Plant]:
            return await self.select(Taller(10))

    sql.answers = [[FERN]]

    assert await Plants(sql, TABLE, Plant).tall() == [FERN]


async def test_entities_are_streamed(sql: Scripted, plants: Repository[Plant, str]) -> None:
    sql.answers = [[FERN, FERN]]

    assert [plant async for plant in plants.stream()] == [FERN, FERN]


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20), st.text(max_size=5))
def test_every_parameter_has_its_place(numbers: list[int], name: str) -> None:
    query = sa.select(TABLE).where(TABLE.c.height.in_(numbers), TABLE.c.name == name, TABLE.c.version > numbers[0])

    compiled = statement(query)

    assert pgparse.parse(compiled.sql)
    assert len(compiled.params) == len(numbers) + 2
    for position, value in enumerate(compiled.params, 1):
        assert f"${position}::{'VARCHAR' if isinstance(value, str) else 'INTEGER'}" in compiled.sql


async def test_columns_that_are_no_fields_are_left_alone(sql: Scripted) -> None:
    @dataclass(frozen=True)
    class Name:
        id: str
        name: str

    await Repository(sql, TABLE, Name).select()

    assert sql.asked[0][0] == "SELECT plants.id, plants.name FROM plants"
    with pytest.raises(ValueError, match="the fields of its id and its version"):
        Repository(sql, TABLE, Name, version="version")


def test_a_table_needs_one_key(sql: Scripted) -> None:
    with pytest.raises(ValueError, match="primary key of one column"):
        Repository(sql, sa.Table("t", sa.MetaData(), sa.Column("a", sa.Text)), Plant)
