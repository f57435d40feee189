"""Typed entities in tables, on `isa.sql`."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum

import pytest
import pytest_asyncio
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from isa_common import Aborted, AlreadyExists, Isa, NotFound, Sql
from isa_common.repository import Repository, Specification, UnitOfWork

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Kind(Enum):
    """What sort of account."""

    OWN = "own"
    SHARED = "shared"


@dataclass(frozen=True)
class Account:
    """An entity."""

    id: str
    balance: int
    kind: Kind = Kind.OWN
    opened: datetime = NOW
    closed: datetime | None = None
    version: int = 1


class Overdrawn(Specification[Account]):
    """Has less than nothing."""

    def clause(self, table: sa.Table) -> sa.ColumnElement[bool]:
        return table.c.balance < 0


@pytest.fixture
def address(sql_address: str) -> str:
    """The adapter's, for the clients of both clouds."""
    return sql_address


@pytest.fixture
def sql(as_person: Callable[..., Isa]) -> Sql:
    """SQL of an organisation's owner: in memory, and on the engine."""
    return as_person("org-conformance").sql


@pytest_asyncio.fixture
async def accounts(sql: Sql) -> Repository[Account, str]:
    """A repository on a fresh table."""
    table = sa.Table(
        f"a_{uuid.uuid4().hex[:12]}",
        sa.MetaData(),
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("balance", sa.BigInteger),
        sa.Column("kind", sa.Text),
        sa.Column("opened", sa.DateTime(timezone=True)),
        sa.Column("closed", sa.DateTime(timezone=True)),
        sa.Column("version", sa.Integer),
    )
    await sql.execute(
        f"CREATE TABLE {table.name} (id text PRIMARY KEY, balance bigint NOT NULL, kind text NOT NULL, "
        "opened timestamptz NOT NULL, closed timestamptz, version int NOT NULL)"
    )
    return Repository(sql, table, Account, version="version")


async def given(accounts: Repository[Account, str], *balances: int) -> list[Account]:
    made = [
        Account(f"a{n:02}", balance, opened=NOW + timedelta(days=n // 2), kind=Kind.SHARED if n % 3 else Kind.OWN)
        for n, balance in enumerate(balances)
    ]
    for account in made:
        await accounts.add(account)
    return made


@pytest.mark.ac("platform:R13.1", "platform:R3.6")
async def test_an_entity_is_made_read_changed_and_removed(accounts: Repository[Account, str]) -> None:
    account = Account("a", 2**40, Kind.SHARED, NOW, NOW + timedelta(seconds=1))

    assert await accounts.add(account) == account
    assert await accounts.get("a") == account
    with pytest.raises(AlreadyExists):
        await accounts.add(account)
    changed = await accounts.update(replace(account, balance=1, closed=None))
    assert changed == replace(account, balance=1, closed=None, version=2)
    await accounts.remove(changed)

    assert await accounts.find("a") is None
    with pytest.raises(NotFound):
        await accounts.get("a")


async def test_a_change_of_what_was_changed_meanwhile_is_aborted(accounts: Repository[Account, str]) -> None:
    account = await accounts.add(Account("a", 1))
    await accounts.update(replace(account, balance=2))

    with pytest.raises(Aborted):
        await accounts.update(replace(account, balance=3))
    with pytest.raises(Aborted):
        await accounts.remove(account)

    assert (await accounts.get("a")).balance == 2


@pytest.mark.ac("platform:R13.3", "platform:R13.5")
async def test_conditions_and_filters_select(accounts: Repository[Account, str]) -> None:
    made = await given(accounts, -5, 3, -1, 8)

    async def ids(condition: object) -> list[str]:
        return [account.id for account in await accounts.select(condition, order_by=["id"])]

    assert await ids(Overdrawn()) == ["a00", "a02"]
    assert await ids(~Overdrawn() & accounts.matching(kind=Kind.SHARED)) == ["a01"]
    assert await ids(Overdrawn() | accounts.matching(id__in=["a03", "x"])) == ["a00", "a02", "a03"]
    assert await ids(accounts.matching(opened__gt=NOW, closed=None)) == ["a02", "a03"]
    assert await ids(accounts.matching(id__startswith="a0", balance__not=3)) == ["a00", "a02", "a03"]
    assert await ids(accounts.matching(id__contains="%")) == []
    assert await accounts.count(Overdrawn()) == 2
    assert [account async for account in accounts.stream(order_by=["-balance"])] == sorted(
        made, key=lambda account: -account.balance
    )


@pytest.mark.ac("platform:R13.4")
async def test_pages_hold_everything_once(accounts: Repository[Account, str]) -> None:
    made = await given(accounts, *range(7))

    numbered = [await accounts.page(number=number, size=3, order_by=["opened"]) for number in (1, 2, 3)]
    assert [account for page in numbered for account in page.items] == made
    assert {page.total for page in numbered} == {7}

    for order in ("", "opened", "-opened", "-id", "balance"):
        found, cursor = [], ""
        while True:
            page = await accounts.page_after(cursor, size=2, order_by=order)
            found += page.items
            if not (cursor := page.next_cursor):
                break
        assert found == (made[::-1] if order.startswith("-") else made)


@pytest.mark.ac("platform:R3.2", "platform:R3.4")
async def test_a_unit_of_work_does_all_or_nothing(sql: Sql, accounts: Repository[Account, str]) -> None:
    payer, payee = await given(accounts, 10, 0)

    async with UnitOfWork(sql) as work:
        work.update(accounts, replace(payer, balance=7))
        work.update(accounts, replace(payee, balance=3))
        work.add(accounts, Account("c", 0))
    with pytest.raises(Aborted):
        async with UnitOfWork(sql) as work:
            work.add(accounts, Account("d", 0))
            work.update(accounts, replace(payer, balance=0))  # of an older version
    with pytest.raises(ZeroDivisionError):
        async with UnitOfWork(sql) as work:
            work.remove(accounts, payee)
            _ = 1 / 0

    assert [(account.id, account.balance) for account in await accounts.select(order_by=["id"])] == [
        ("a00", 7),
        ("a01", 3),
        ("c", 0),
    ]


@dataclass(frozen=True)
class Reading:
    """What PostgreSQL has a type of its own for."""

    id: uuid.UUID
    value: Decimal
    tags: list[str]
    about: dict[str, object]
    raw: bytes
    made: datetime | None = None


async def test_types_of_the_engine_survive_the_round_trip(sql_address: str) -> None:
    from tests.conformance.conftest import person

    name = f"r_{uuid.uuid4().hex[:12]}"
    table = sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("value", sa.Numeric),
        sa.Column("tags", sa.ARRAY(sa.Text)),
        sa.Column("about", JSONB),
        sa.Column("raw", sa.LargeBinary),
        sa.Column("made", sa.DateTime(timezone=True), server_default=sa.func.now()),
    )
    reading = Reading(uuid.uuid4(), Decimal("1.50"), ["a", "é"], {"n": 1, "in": {"x": None}}, b"\x00\xff")
    async with person(sql_address, "org-conformance") as isa:
        await isa.sql.execute(
            f"CREATE TABLE {name} (id uuid PRIMARY KEY, value numeric, tags text[], about jsonb, raw bytea, "
            "made timestamptz NOT NULL DEFAULT now())"
        )
        readings: Repository[Reading, uuid.UUID] = Repository(isa.sql, table, Reading)

        stored = await readings.add(reading)

        assert stored.made is not None
        assert replace(stored, made=None) == reading
        assert await readings.select(readings.matching(id=str(reading.id), value__lt=2)) == [stored]
