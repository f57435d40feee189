"""What `isa.sql.v1` promises, on the real engine."""

from __future__ import annotations

import asyncio
import csv
import io
import math
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import asyncpg
import pytest
import pytest_asyncio

from isa_common import (
    Aborted,
    AlreadyExists,
    CopyFormat,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    Isa,
    IsaError,
    Isolation,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Sql,
    Statement,
    Unavailable,
)
from kernel.shares import Limits, Shares
from services.adapters.postgres.app import Settings, create_app
from tests.conformance.conftest import ROOM, Engines, FakeParts, Secrets, person, serving, workload

ORG = "org-conformancesql"
"""Whose database these tests share."""


@pytest_asyncio.fixture
async def tenant(sql_address: str) -> AsyncIterator[Sql]:
    """SQL of an organisation's owner, in a database that other tests of this run share."""
    async with person(sql_address, ORG) as isa:
        yield isa.sql


@pytest_asyncio.fixture
async def room(sql_address: str) -> AsyncIterator[Sql]:
    """SQL of a room, bound to no organisation."""
    async with workload(sql_address) as isa:
        yield isa.sql


@pytest_asyncio.fixture
async def table(tenant: Sql) -> str:
    """A fresh table of the tenant: `id int primary key, title text not null, version int`."""
    name = f"t_{uuid.uuid4().hex[:12]}"
    await tenant.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, title text NOT NULL, version int DEFAULT 1)")
    return name


@pytest.fixture
def address(sql_address: str) -> str:
    """The adapter's, for the clients of both clouds."""
    return sql_address


@pytest.fixture
def sql(as_person: Callable[..., Isa]) -> Sql:
    """SQL of an organisation's owner: in memory, and on the engine."""
    return as_person(ORG).sql


@pytest_asyncio.fixture
async def plants(sql: Sql) -> str:
    """A fresh table there: `id int primary key, name text not null`."""
    name = f"p_{uuid.uuid4().hex[:12]}"
    await sql.execute(f"CREATE TABLE {name} (id int PRIMARY KEY, name text NOT NULL)")
    return name


async def names(sql: Sql, plants: str) -> list[str]:
    """The names in a table of plants, by id."""
    return [row["name"] for row in await sql.query(f"SELECT name FROM {plants} ORDER BY id")]


async def given_rows(tenant: Sql, table: str, count: int) -> None:
    await tenant.execute(f"INSERT INTO {table} SELECT n, 'row ' || n FROM generate_series(1, $1::int) AS n", count)


SAME = [
    ("bool", True),
    ("bool", False),
    ("int2", -32768),
    ("int4", 2147483647),
    ("int8", 9223372036854775807),
    ("int8", -9223372036854775808),
    ("numeric", Decimal("123456789012345678901234567890.123456789012345678901234567890")),
    ("numeric", Decimal("1.50")),
    ("numeric", Decimal("Infinity")),
    ("numeric", Decimal("-Infinity")),
    ("float4", 0.1),
    ("float8", 0.1),
    ("float8", 1e308),
    ("float8", math.inf),
    ("float8", -math.inf),
    ("text", "naïve “quotes” \\ ' \" \n\t 😀"),
    ("text", ""),
    ("varchar", "x"),
    ("name", "x"),
    ("bytea", bytes(range(256))),
    ("bytea", b""),
    ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    ("date", date(2026, 2, 28)),
    ("time", time(23, 59, 59, 999999)),
    ("timestamp", datetime(2026, 11, 21, 1, 44, 7, 123456)),  # noqa: DTZ001 -- the type has no zone
    ("timestamptz", datetime(2026, 11, 21, 1, 44, 7, 123456, tzinfo=UTC)),
    ("json", {"b": 1, "a": [1.5, None, "é"]}),
    ("jsonb", {"a": {"nested": [True, False]}}),
    ("jsonb", "just text"),
    ("jsonb", 5),
    ("jsonb", []),
    ("inet", "192.168.0.1/24"),
    ("cidr", "10.0.0.0/8"),
    ("macaddr", "08:00:2b:01:02:03"),
    ("interval", "P1Y2M3DT4H5M6.5S"),
    ("point", "(1,2)"),
    ("box", "(3,4),(1,2)"),
    ("int4range", "[1,10)"),
    ("tstzrange", '["2026-01-01 00:00:00+00","2026-01-02 00:00:00+00")'),
    ("int4multirange", "{[1,3),[5,8)}"),
    ("bit(3)", "101"),
    ("varbit", "10101"),
    ("tsvector", "'cat' 'fat'"),
    ("tsquery", "'cat' & 'fat'"),
    ("money", "$12.34"),
    ("pg_lsn", "16/B374D848"),
    ("jsonpath", '$."a"'),
    ("oid", 4294967295),
    ("int4[]", [1, None, 3]),
    ("int4[]", []),
    ("int4[]", [[1, 2], [3, 4]]),
    ("int8[]", [9007199254740993]),
    ("text[]", ["a", 'b "quoted"', "c,d", "{e}", "\\f", "", "NULL", None]),
    ("numeric[]", [Decimal("1.5"), Decimal("2")]),
    ("timestamptz[]", [datetime(2026, 1, 1, tzinfo=UTC)]),
    ("bool[]", [True, False, None]),
    ("float8[]", [0.5, math.inf]),
    ("bytea[]", [b"\x00\xff", b""]),
    ("jsonb[]", [{"a": 1}, "text"]),
    ("uuid[]", ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
    ("date[]", [date(2026, 1, 1)]),
]


@pytest.mark.parametrize(("kind", "value"), SAME, ids=lambda value: str(value)[:30])
async def test_a_value_of_each_type_comes_back_as_it_went(tenant: Sql, kind: str, value: object) -> None:
    cast = f"$1::{kind}"
    if kind.startswith("jsonb["):  # a list of JSON is one array, not JSON in JSON
        cast = "$1::jsonb[]"

    (row,) = await tenant.query(f"SELECT {cast} AS value, pg_typeof({cast})::text AS type", value)

    assert row["value"] == value
    assert type(row["value"]) is type(value)


async def test_not_a_number_comes_back_as_such(tenant: Sql) -> None:
    (row,) = await tenant.query(
        "SELECT $1::float8 AS a, $2::numeric AS b, 'NaN'::float4 AS c, ARRAY['NaN'::float8] AS d",
        math.nan, Decimal("NaN"),
    )  # fmt: skip

    assert math.isnan(row["a"]) and row["b"].is_nan() and math.isnan(row["c"]) and math.isnan(row["d"][0])


@pytest.mark.parametrize("kind", ["int4", "text", "jsonb", "timestamptz", "int4[]", "bytea"])
async def test_null_is_none(tenant: Sql, kind: str) -> None:
    (row,) = await tenant.query(f"SELECT $1::{kind} AS value", None)

    assert row["value"] is None


async def test_times_that_python_cannot_hold_stay_text(tenant: Sql) -> None:
    (row,) = await tenant.query("SELECT 'infinity'::timestamptz, '0044-03-15 BC'::date, '24:00'::time")

    assert tuple(row) == ("infinity", "0044-03-15 BC", "24:00:00")


async def test_types_of_the_tenant_come_as_text_and_arrays_of_them_as_arrays(tenant: Sql, table: str) -> None:
    mood, pair = f"mood_{table}", f"pair_{table}"
    await tenant.execute(f"CREATE TYPE {mood} AS ENUM ('sad', 'happy')")
    await tenant.execute(f"CREATE TYPE {pair} AS (a int, b text)")
    await tenant.execute(f"CREATE DOMAIN even_{table} AS int CHECK (value % 2 = 0)")

    (row,) = await tenant.query(
        f"SELECT $1::{mood} AS one, $2::{mood}[] AS many, (1, 'x y')::{pair} AS pair, 4::even_{table} AS even",
        "happy", ["sad", "happy", None],
    )  # fmt: skip

    assert tuple(row) == ("happy", ["sad", "happy", None], '(1,"x y")', 4)


async def test_columns_of_one_name_are_all_kept(tenant: Sql) -> None:
    (row,) = await tenant.query("SELECT 1 AS a, 2 AS a, 3 AS b")

    assert row.columns == ("a", "a", "b")
    assert tuple(row) == (1, 2, 3)
    assert row["a"] == 1
    assert dict(row) == {"a": 1, "b": 3}


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.1")
async def test_a_select_returns_rows(tenant: Sql, table: str) -> None:
    await given_rows(tenant, table, 3)

    rows = await tenant.query(f"SELECT id, title FROM {table} WHERE id > $1 ORDER BY id", 1)

    assert [tuple(row) for row in rows] == [(2, "row 2"), (3, "row 3")]


async def test_no_row_is_an_empty_list(tenant: Sql, table: str) -> None:
    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_a_large_result_streams_in_order(tenant: Sql) -> None:
    count, last = 0, 0
    async for row in tenant.stream("SELECT n, repeat('x', 100) FROM generate_series(1, 50000) AS n"):
        count, last = count + 1, row[0]

    assert (count, last) == (50_000, 50_000)


async def test_large_rows_are_split_into_pages_that_fit(tenant: Sql) -> None:
    rows = await tenant.query("SELECT repeat('x', 1000000) AS text FROM generate_series(1, 30)")

    assert [len(row["text"]) for row in rows] == [1_000_000] * 30


async def test_a_row_beyond_a_message_is_refused(tenant: Sql) -> None:
    with pytest.raises(ResourceExhausted):
        await tenant.query("SELECT repeat('x', 15000000)")


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.2")
async def test_writes_say_how_many_rows_they_touched(tenant: Sql, table: str) -> None:
    inserted = await tenant.execute(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b')")
    updated = await tenant.execute(f"UPDATE {table} SET title = $1 RETURNING id, title", "c")
    deleted = await tenant.execute(f"DELETE FROM {table} WHERE id = 99")

    assert (inserted.affected, updated.affected, deleted.affected) == (2, 2, 0)
    assert sorted(tuple(row) for row in updated.rows) == [(1, "c"), (2, "c")]


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.3")
async def test_a_parameter_is_never_sql(tenant: Sql, table: str) -> None:
    evil = f"x'); DROP TABLE {table}; --"

    await tenant.execute(f"INSERT INTO {table} VALUES (1, $1)", evil)

    assert (await tenant.query(f"SELECT title FROM {table}"))[0]["title"] == evil


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.4")
@pytest.mark.parametrize(
    ("sql", "says", "near"),
    [
        ("SELECT 1 FROM nowhere", "nowhere", "nowhere"),
        ("SELEKT 1", "syntax error", "SELEKT 1"),
        ("SELECT nothing\nFROM (SELECT 1 AS a) AS t", "nothing", "nothing"),
        ("SELECT 'a' + 1", "invalid input syntax", "'a' + 1"),
    ],
)
async def test_wrong_sql_is_told_with_its_place(tenant: Sql, sql: str, says: str, near: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await tenant.query(sql)

    assert says.lower() in caught.value.message.lower()
    assert caught.value.details["near"].startswith(near)
    assert caught.value.field == "statement.sql"
    assert caught.value.request_id


@pytest.mark.parametrize(
    ("sql", "params", "says"),
    [
        ("SELECT $1::int4", ("one",), "a whole number"),
        ("SELECT $1::int4", (2**31,), "from -2147483648 to 2147483647"),
        ("SELECT $1::int4", (1.5,), "a whole number"),
        ("SELECT $1::text", (5,), "takes text"),
        ("SELECT $1::bool", ("yes",), "true or false"),
        ("SELECT $1::text", ("nul \0",), "NUL"),
        ("SELECT $1::bytea", ("not base64!",), "base64"),
        ("SELECT $1::int4[]", (5,), "an array"),
        ("SELECT $1::int4[]", ([1, "x"],), "a whole number"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_named(
    tenant: Sql, sql: str, params: tuple[object, ...], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        await tenant.query(sql, *params)

    assert caught.value.field == "statement.params[0]"


@pytest.mark.parametrize(
    ("sql", "params"),
    [
        ("SELECT $1::date", ("2026-02-30",)),
        ("SELECT $1::uuid", ("x",)),
        ("SELECT $1::numeric", ("1,5",)),
        ("SELECT 1/0", ()),
        ("SELECT $1::jsonb", ({"a": "\0"},)),
    ],
)
async def test_a_value_that_the_engine_refuses_is_invalid(tenant: Sql, sql: str, params: tuple[object, ...]) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await tenant.query(sql, *params)

    assert caught.value.details["sqlstate"].startswith("22")


@pytest.mark.parametrize("params", [(), (1, 2)])
async def test_the_number_of_parameters_must_fit(tenant: Sql, params: tuple[int, ...]) -> None:
    with pytest.raises(InvalidArgument, match="takes 1 parameters"):
        await tenant.query("SELECT $1::int4", *params)


async def test_a_write_by_query_is_refused_and_does_nothing(tenant: Sql, table: str) -> None:
    with pytest.raises(InvalidArgument, match="Execute"):
        await tenant.query(f"INSERT INTO {table} VALUES (1, 'a')")
    with pytest.raises(InvalidArgument, match="Execute"):
        await tenant.query(f"WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT * FROM gone")
    with pytest.raises(InvalidArgument, match="Execute"):
        await tenant.query(f"SELECT * FROM {table} FOR UPDATE")


@pytest.mark.parametrize("sql", ["", "   ", "-- nothing", "SELECT 1; SELECT 2"])
async def test_one_statement_a_text(tenant: Sql, sql: str) -> None:
    with pytest.raises(InvalidArgument, match="statement"):
        await tenant.execute(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "BEGIN",
        "ROLLBACK",
        "SAVEPOINT a",
        "SET isa.org = 'org-other'",
        "RESET ALL",
        "SHOW ALL",
        "LISTEN x",
        "NOTIFY x",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "COPY pg_class TO STDOUT",
        "DO $$ BEGIN END $$",
        "VACUUM",
        "LOAD 'x'",
        "PREPARE a AS SELECT 1",
        "DEALLOCATE ALL",
        "DISCARD ALL",
        "CREATE ROLE x",
        "CREATE DATABASE x",
        "CREATE EXTENSION dblink",
        "ALTER SYSTEM SET a = 1",
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS 'BEGIN END'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE internal AS 'pg_backend_pid'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE c AS 'x', 'y'",
        "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS 'SELECT set_config(''a'', ''b'', false)'",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql SET role = 'isa' AS 'SELECT 1'",
        "CREATE PROCEDURE f() LANGUAGE sql AS 'SELECT 1'",
        "CREATE TRIGGER t BEFORE UPDATE ON pg_class FOR EACH ROW EXECUTE FUNCTION f()",
        "CREATE EVENT TRIGGER t ON ddl_command_start EXECUTE FUNCTION f()",
        "CREATE RULE r AS ON INSERT TO t DO NOTHING",
        "CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw",
        "CREATE PUBLICATION p FOR ALL TABLES",
        "CREATE TABLE a AS EXECUTE b",
        "CREATE SCHEMA s GRANT ALL ON TABLE x TO PUBLIC",
        "SET SESSION AUTHORIZATION isa",
        "SET statement_timeout = 0",
        "RESET ROLE",
        "ALTER ROLE CURRENT_USER PASSWORD 'x'",
        "ALTER ROLE CURRENT_USER SET search_path = x",
        "ALTER DATABASE x RENAME TO y",
        "COMMENT ON DATABASE x IS 'y'",
        "REASSIGN OWNED BY CURRENT_USER TO isa",
        "DROP OWNED BY CURRENT_USER",
        "DROP EXTENSION plpgsql",
        "SAVEPOINT a",
        "SELECT lo_creat(-1)",
        "SELECT loread(0, 1)",
        "SELECT pg_advisory_xact_lock(n) FROM generate_series(1, 1000000) AS n",
        "SELECT pg_stat_get_activity(NULL)",
        "SELECT * FROM pg_locks",
        "SELECT * FROM pg_stat_database",
        "SELECT * FROM pg_settings",
        "LOCK TABLE pg_class",
        "SET ROLE isa_tenants",
        "GRANT ALL ON SCHEMA public TO PUBLIC",
        "EXPLAIN ANALYZE EXECUTE a",
        "CREATE TEMP TABLE x (a int)",
        "SELECT set_config('isa.org', 'org-other', true)",
        "SELECT pg_catalog.SET_CONFIG('role', 'x', false)",
        "SELECT query_to_xml('SELECT 1', true, false, '')",
        "SELECT * FROM pg_read_file('/etc/passwd')",
        "SELECT lo_import('/etc/passwd')",
        "SELECT pg_advisory_lock(1)",
        "SELECT datname FROM pg_database",
        "SELECT * FROM pg_stat_activity",
        "SELECT rolname FROM pg_catalog.pg_roles",
        "WITH x AS (SELECT pg_notify('a', 'b')) SELECT * FROM x",
        "SELECT pg_terminate_backend(1)",
    ],
)
async def test_what_reaches_beyond_a_transaction_or_a_tenant_is_refused(tenant: Sql, sql: str) -> None:
    with pytest.raises(PermissionDenied) as caught:
        await tenant.execute(sql)

    assert caught.value.field == "statement.sql"


async def test_a_batch_is_done_whole(tenant: Sql, table: str) -> None:
    results = await tenant.execute_batch(
        [
            Statement(f"INSERT INTO {table} VALUES ($1, $2)", 1, "a"),
            Statement(f"UPDATE {table} SET version = version + 1 WHERE id = $1", 1, expect_rows=1),
            Statement(f"SELECT version FROM {table}"),
        ]
    )

    assert [result.affected for result in results] == [1, 1, 1]
    assert results[2].rows[0]["version"] == 2


async def test_another_number_of_rows_than_expected_undoes_the_batch(tenant: Sql, table: str) -> None:
    with pytest.raises(Aborted) as caught:
        await tenant.execute_batch(
            [
                Statement(f"INSERT INTO {table} VALUES (1, 'a')"),
                Statement(f"UPDATE {table} SET version = 3 WHERE id = 1 AND version = 2", expect_rows=1),
            ]
        )

    assert caught.value.details["statement"] == "1"
    assert caught.value.field == "statements[1]"
    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_an_error_in_a_batch_undoes_it_and_names_the_statement(tenant: Sql, table: str) -> None:
    with pytest.raises(AlreadyExists) as caught:
        await tenant.execute_batch([Statement(f"INSERT INTO {table} VALUES (1, 'a')")] * 2)

    assert caught.value.details["constraint"] == f"{table}_pkey"
    assert caught.value.field == "statements[1].sql"
    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_a_batch_cannot_be_cut_in_two(tenant: Sql, table: str) -> None:
    with pytest.raises(PermissionDenied):
        await tenant.execute_batch([Statement(f"INSERT INTO {table} VALUES (1, 'a')"), Statement("COMMIT")])

    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_an_empty_batch_and_a_huge_one_are_refused(tenant: Sql) -> None:
    with pytest.raises(InvalidArgument):
        await tenant.execute_batch([])
    with pytest.raises(InvalidArgument):
        await tenant.execute_batch([Statement("SELECT 1")] * 1001)


async def test_constraints_are_told_apart(tenant: Sql, table: str) -> None:
    await tenant.execute(f"CREATE TABLE child_{table} (id int REFERENCES {table}, n int CHECK (n > 0))")

    with pytest.raises(InvalidArgument) as missing:
        await tenant.execute(f"INSERT INTO {table} VALUES (1, $1)", None)
    with pytest.raises(InvalidArgument) as check:
        await tenant.execute(f"INSERT INTO child_{table} VALUES (NULL, -1)")
    with pytest.raises(FailedPrecondition) as reference:
        await tenant.execute(f"INSERT INTO child_{table} VALUES (5, 1)")

    assert missing.value.details["column"] == "title"
    assert check.value.details["constraint"] == f"child_{table}_n_check"
    assert reference.value.details["constraint"] == f"child_{table}_id_fkey"


async def test_a_statement_ends_with_its_deadline_and_the_next_one_works(tenant: Sql) -> None:
    with pytest.raises(DeadlineExceeded):
        await tenant.query("SELECT pg_sleep(10)", timeout=timedelta(milliseconds=200))

    assert (await tenant.query("SELECT 1"))[0][0] == 1


async def test_a_call_that_is_cancelled_leaves_no_transaction_behind(tenant: Sql, table: str) -> None:
    call = asyncio.create_task(
        tenant.execute_batch([Statement(f"INSERT INTO {table} VALUES (1, 'a')"), Statement("SELECT pg_sleep(10)")])
    )
    await asyncio.sleep(0.3)
    call.cancel()
    await asyncio.sleep(0.2)

    await asyncio.wait_for(tenant.execute(f"INSERT INTO {table} VALUES (1, 'b')"), 5)
    assert (await tenant.query(f"SELECT title FROM {table}"))[0]["title"] == "b"


async def test_a_stream_that_is_left_early_gives_its_connection_back(tenant: Sql) -> None:
    for _ in range(20):
        rows = tenant.stream("SELECT n FROM generate_series(1, 100000) AS n")
        assert (await anext(rows))[0] == 1
        await rows.aclose()

    assert (await tenant.query("SELECT 1"))[0][0] == 1


async def test_a_changed_table_is_read_as_it_is_now(tenant: Sql, table: str) -> None:
    await given_rows(tenant, table, 1)
    sql = f"SELECT * FROM {table}"
    assert [len(await tenant.query(sql)) for _ in range(5)] == [1] * 5

    await tenant.execute(f"ALTER TABLE {table} ADD COLUMN extra text DEFAULT 'new'")

    rows = await asyncio.gather(*(tenant.query(sql) for _ in range(10)))
    assert all(row[0]["extra"] == "new" for row in rows)
    assert (await tenant.execute(f"UPDATE {table} SET extra = 'x' RETURNING *")).rows[0]["extra"] == "x"


async def test_execute_returns_only_what_fits(tenant: Sql) -> None:
    with pytest.raises(ResourceExhausted, match="Query"):
        await tenant.execute("SELECT n FROM generate_series(1, 20000) AS n")


async def test_many_calls_at_once_share_few_connections(tenant: Sql) -> None:
    answers = await asyncio.gather(*(tenant.query("SELECT $1::int4", number) for number in range(200)))

    assert [rows[0][0] for rows in answers] == list(range(200))


async def test_many_tenants_at_once_take_turns(sql_address: str) -> None:
    tenants = [person(sql_address, f"org-turns{number}") for number in range(5)]
    await asyncio.gather(*(isa.sql.query("SELECT 1") for isa in tenants))

    answers = await asyncio.gather(*(isa.sql.query("SELECT pg_sleep(0.02), 1") for isa in tenants for _ in range(20)))

    assert len(answers) == 100
    for isa in tenants:
        await isa.close()


async def test_a_lost_race_is_aborted(tenant: Sql, table: str) -> None:
    await given_rows(tenant, table, 2)

    async def lock(first: int, second: int) -> None:
        await tenant.execute_batch(
            [
                Statement(f"UPDATE {table} SET version = 2 WHERE id = $1", first),
                Statement("SELECT pg_sleep(0.3)"),
                Statement(f"UPDATE {table} SET version = 2 WHERE id = $1", second),
            ]
        )

    ended = await asyncio.gather(lock(1, 2), lock(2, 1), return_exceptions=True)

    assert sum(isinstance(each, Aborted) for each in ended) == 1


# Tenancy


async def test_an_organisation_sees_nothing_of_another(sql_address: str) -> None:
    async with person(sql_address, "org-left") as left, person(sql_address, "org-right") as right:
        await left.sql.execute("CREATE TABLE IF NOT EXISTS secrets (text text)")
        await left.sql.execute("INSERT INTO secrets VALUES ('left')")

        with pytest.raises(InvalidArgument, match="does not exist"):
            await right.sql.query("SELECT * FROM secrets")
        names = [
            (await isa.sql.query("SELECT current_database() AS d, current_user::text AS u"))[0] for isa in (left, right)
        ]

    assert names[0]["d"] != names[1]["d"]
    assert "left" not in names[0]["d"] and names[0]["d"] == names[0]["u"]


async def test_a_tenants_login_reaches_no_other_database(sql_address: str, engines: Engines) -> None:
    from services.adapters.postgres.tenants import isolate, password

    key = engines.secrets["postgres-tenant-master-key"].encode()
    async with person(sql_address, "org-left") as left, person(sql_address, "org-right") as right:
        await left.sql.query("SELECT 1")
        await right.sql.query("SELECT 1")
    host, _, port = engines.postgres.rpartition(":")

    for database in (isolate(key, "org-right"), "conformance", "isa_tenants", "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(
                host=host,
                port=int(port),
                user=isolate(key, "org-left"),
                password=password(key, "org-left"),
                database=database,
            )


async def test_a_person_acts_for_nobody_else(sql_address: str) -> None:
    async with Isa(sql_address, token='{"org": ""}') as isa:
        with pytest.raises(PermissionDenied):
            await isa.sql.query("SELECT 1")


async def test_a_room_sees_only_rows_of_the_organisation_that_it_acts_for(room: Sql) -> None:
    suffix = uuid.uuid4().hex[:8]
    left, right = room.acting_for(org="org-left", user="user-1"), room.acting_for(org="org-right")
    await left.execute("INSERT INTO things (id, org_id, title) VALUES ($1, $2, $3)", f"l{suffix}", "org-left", "mine")

    assert len(await left.query("SELECT * FROM things WHERE id = $1", f"l{suffix}")) == 1
    assert await right.query("SELECT * FROM things WHERE id = $1", f"l{suffix}") == []
    assert (await right.execute("UPDATE things SET title = 'theirs' WHERE id = $1", f"l{suffix}")).affected == 0
    with pytest.raises(PermissionDenied):
        await right.execute("INSERT INTO things (id, org_id, title) VALUES ($1, 'org-left', 'x')", f"r{suffix}")
    with pytest.raises(PermissionDenied):
        await room.query("SELECT * FROM things")


async def test_connections_that_serve_many_organisations_never_mix_them(room: Sql) -> None:
    async def whose(number: int) -> bool:
        sql = room.acting_for(org=f"org-m{number % 7}", user=f"user-{number}")
        (row,) = await sql.query("SELECT current_setting('isa.org'), current_setting('isa.user'), pg_sleep(0.001)")
        return tuple(row)[:2] == (f"org-m{number % 7}", f"user-{number}")

    assert all(await asyncio.gather(*(whose(number) for number in range(100))))


async def test_a_workload_without_a_database_is_refused(sql_address: str) -> None:
    async with workload(sql_address, "loki-grpc") as isa:
        with pytest.raises(PermissionDenied):
            await isa.sql.query("SELECT 1")


async def test_no_error_names_a_host_or_a_login(tenant: Sql) -> None:
    for sql in ("SELECT * FROM pg_authid", "SELECT 1/0", "SELECT * FROM nowhere", "SELECT current_setting('x.y')"):
        with pytest.raises(IsaError) as caught:
            await tenant.query(sql)
        text = f"{caught.value.message} {caught.value.details}"
        assert "127.0.0.1" not in text and "t_" not in text and "isa_tenants" not in text


async def test_a_tenant_that_is_over_its_share_may_read_and_delete_only(
    engines: Engines, tenant: Sql, table: str
) -> None:
    host, _, port = engines.postgres.rpartition(":")
    settings = Settings(host=host, port=int(port), rooms=frozenset({ROOM}))
    shares = Shares(Limits(bytes=1000))
    adapter = create_app(settings, FakeParts(Secrets(engines.secrets), shares))
    shares.stored = adapter.implementation.stored
    await given_rows(tenant, table, 3)

    async with (
        serving(adapter) as address,
        person(address, ORG) as full,
    ):
        with pytest.raises(ResourceExhausted, match="may store"):
            await full.sql.execute(f"INSERT INTO {table} VALUES (9, 'a')")
        assert len(await full.sql.query(f"SELECT * FROM {table}")) == 3
        assert (await full.sql.execute(f"DELETE FROM {table}")).affected == 3


# Outages


async def cut(engines: Engines, login: str = "conformance_%") -> int:
    """End every session of the tests' room, as a restart of the server does."""
    host, _, port = engines.postgres.rpartition(":")
    admin = await asyncpg.connect(
        host=host, port=int(port), user="isa", password=engines.secrets["postgres-superuser"], database="postgres"
    )
    ended = await admin.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE $1", login)
    await admin.close()
    return len(ended)


async def test_idle_connections_that_the_server_ended_are_not_used_again(room: Sql, engines: Engines) -> None:
    await asyncio.gather(*(room.query("SELECT pg_sleep(0.05)") for _ in range(4)))

    assert await cut(engines) >= 4
    await asyncio.sleep(0.05)

    assert (await room.execute("SELECT 1")).affected == 1


async def test_a_read_survives_the_end_of_its_connection_and_a_write_says_so(room: Sql, engines: Engines) -> None:
    read = asyncio.create_task(room.query("SELECT pg_sleep(0.5), 1"))
    write = asyncio.create_task(room.acting_for(org="org-a").execute("SELECT pg_sleep(0.5)"))
    alone = asyncio.create_task(room.execute("SELECT pg_sleep(0.5)"))
    await asyncio.sleep(0.25)

    await cut(engines)

    assert len(await read) == 1
    for call in (write, alone):
        with pytest.raises(Unavailable):
            await call
    assert (await room.query("SELECT 1"))[0][0] == 1


# In memory and on the engine


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.1", "isa-cloud-prd:E2-US1:AC-1.2", "isa-cloud-prd:E2-US1:AC-1.3")
async def test_rows_are_written_and_read(sql: Sql, plants: str) -> None:
    inserted = await sql.execute(f"INSERT INTO {plants} VALUES ($1, $2), ($3, $4)", 1, "fern", 2, "'); DROP TABLE x --")
    changed = await sql.execute(f"UPDATE {plants} SET name = $1 WHERE id = $2 RETURNING id, name", "moss", 1)

    assert (inserted.affected, changed.affected) == (2, 1)
    assert dict(changed.rows[0]) == {"id": 1, "name": "moss"}
    assert await names(sql, plants) == ["moss", "'); DROP TABLE x --"]


async def test_values_of_declared_types_come_back(sql: Sql) -> None:
    name = f"v_{uuid.uuid4().hex[:12]}"
    await sql.execute(
        f"CREATE TABLE {name} (a bigint, b boolean, c text, d double precision, e timestamptz, f jsonb, g bytea)"
    )
    at = datetime(2026, 11, 21, 1, 2, 3, tzinfo=UTC)
    values = (2**60, True, "ü 😀", 0.5, at, {"a": [1, None]}, b"\0\xff")

    await sql.execute(f"INSERT INTO {name} VALUES ($1, $2, $3, $4, $5, $6, $7)", *values)
    await sql.execute(f"INSERT INTO {name} VALUES ($1, $1, $1, $1, $1, $1, $1)".replace("$1", "NULL"))

    assert [tuple(row) for row in await sql.query(f"SELECT * FROM {name} ORDER BY a NULLS LAST")] == [
        values,
        (None,) * 7,
    ]


async def test_a_stream_brings_all_rows(sql: Sql, plants: str) -> None:
    await sql.copy_in(plants, rows=((number, f"plant {number}") for number in range(2500)))

    assert [row["id"] async for row in sql.stream(f"SELECT id FROM {plants} ORDER BY id")] == list(range(2500))


async def test_a_result_that_one_answer_cannot_take_still_comes(sql: Sql, plants: str) -> None:
    await sql.copy_in(plants, rows=((number, "x") for number in range(12_000)))

    assert len(await sql.query(f"SELECT * FROM {plants}")) == 12_000
    with pytest.raises(ResourceExhausted):
        await sql.execute(f"SELECT * FROM {plants}")


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.4")
async def test_errors_have_their_class_and_place(sql: Sql, plants: str) -> None:
    await sql.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")

    for statement, expected in (
        ("SELEKT 1", InvalidArgument),
        ("SELECT * FROM nowhere", InvalidArgument),
        ("", InvalidArgument),
        ("SELECT 1; SELECT 2", InvalidArgument),
        (f"INSERT INTO {plants} VALUES (1, 'again')", AlreadyExists),
        (f"INSERT INTO {plants} VALUES (2, NULL)", InvalidArgument),
        (f"CREATE TABLE {plants} (id int)", AlreadyExists),
        ("COMMIT", PermissionDenied),
        ("SET a = 1", PermissionDenied),
        ("CREATE TEMP TABLE x (a int)", PermissionDenied),
    ):
        with pytest.raises(expected) as caught:
            await sql.execute(statement)
        assert caught.value.field == "statement.sql", statement
        assert caught.value.request_id


async def test_reads_do_not_write(sql: Sql, plants: str) -> None:
    for read in (sql.query, lambda text: anext(sql.stream(text)), lambda text: anext(sql.copy_out(text))):
        with pytest.raises(InvalidArgument, match="Execute"):
            await read(f"INSERT INTO {plants} VALUES (1, 'a')")


async def test_organisations_share_nothing(as_person: Callable[..., Isa]) -> None:
    left, right, colleague = as_person("org-left"), as_person("org-right"), as_person("org-left", "user-2")
    name = f"s_{uuid.uuid4().hex[:12]}"
    await left.sql.execute(f"CREATE TABLE {name} (x int)")
    await left.sql.execute(f"INSERT INTO {name} VALUES (1)")

    assert len(await colleague.sql.query(f"SELECT * FROM {name}")) == 1
    for attempt in (
        right.sql.query(f"SELECT * FROM {name}"),
        right.sql.execute(f"DELETE FROM {name}"),
        right.sql.execute_batch([Statement(f"DROP TABLE {name}")]),
        right.sql.copy_in(name, rows=[(2,)]),
        anext(right.sql.copy_out(f"SELECT * FROM {name}")),
        anext(right.sql.stream(f"SELECT * FROM {name}")),
    ):
        with pytest.raises(InvalidArgument):
            await attempt
    (outcome,) = await right.sql.execute_many([Statement(f"DELETE FROM {name}")])
    assert isinstance(outcome, InvalidArgument)
    with pytest.raises(InvalidArgument):
        async with right.sql.transaction() as tx:
            await tx.execute(f"DELETE FROM {name}")
    assert len(await left.sql.query(f"SELECT * FROM {name}")) == 1


async def test_calls_of_one_moment_are_answered_each_for_itself(sql: Sql, plants: str) -> None:
    writes = [sql.execute(f"INSERT INTO {plants} VALUES ($1, 'x')", number % 50) for number in range(100)]
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    reads = await asyncio.gather(
        *(sql.query(f"SELECT id FROM {plants} WHERE id = $1", number) for number in range(50)),
        sql.query("SELECT nothing"),
        return_exceptions=True,
    )

    assert sum(isinstance(each, AlreadyExists) for each in outcomes) == 50
    assert all(each.field == "statement.sql" and each.request_id for each in outcomes if isinstance(each, IsaError))
    assert [rows[0]["id"] for rows in reads[:-1]] == list(range(50))
    assert isinstance(reads[-1], InvalidArgument)


async def test_many_statements_have_their_own_outcomes(sql: Sql, plants: str) -> None:
    outcomes = await sql.execute_many(
        [
            Statement(f"INSERT INTO {plants} VALUES (1, 'fern')"),
            Statement("SELECT * FROM nowhere"),
            Statement(f"UPDATE {plants} SET name = 'x' WHERE id = 99", expect_rows=1),
        ]
    )

    assert outcomes[0].affected == 1
    assert isinstance(outcomes[1], InvalidArgument) and isinstance(outcomes[2], Aborted)
    assert await names(sql, plants) == ["fern"]
    for empty in (sql.execute_many([]), sql.execute_many([Statement("SELECT 1")] * 1001)):
        with pytest.raises(InvalidArgument):
            await empty


async def test_a_batch_is_all_or_nothing(sql: Sql, plants: str) -> None:
    with pytest.raises(AlreadyExists) as caught:
        await sql.execute_batch([Statement(f"INSERT INTO {plants} VALUES (1, 'a')")] * 2)
    with pytest.raises(Aborted):
        await sql.execute_batch(
            [Statement(f"INSERT INTO {plants} VALUES (1, 'a')"), Statement(f"DELETE FROM {plants}", expect_rows=2)]
        )

    assert caught.value.field == "statements[1].sql"
    assert await names(sql, plants) == []


# Transactions


@pytest.mark.ac("isa-cloud-prd:E2-US2:AC-2.2", "isa-cloud-prd:E2-US2:AC-2.3")
async def test_a_transaction_commits_at_its_end(sql: Sql, plants: str) -> None:
    async with sql.transaction() as tx:
        await tx.execute(f"INSERT INTO {plants} VALUES ($1, $2)", 1, "fern")
        assert (await tx.query(f"SELECT name FROM {plants}"))[0]["name"] == "fern"
        assert (await tx.execute(f"UPDATE {plants} SET name = 'moss'", expect_rows=1)).affected == 1

    assert await names(sql, plants) == ["moss"]


@pytest.mark.ac("isa-cloud-prd:E2-US2:AC-2.4")
async def test_a_transaction_rolls_back_after_an_error_and_when_it_is_told(sql: Sql, plants: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with sql.transaction() as tx:
            await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
            raise ZeroDivisionError
    async with sql.transaction() as tx:
        await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
        await tx.rollback()

    assert await names(sql, plants) == []
    with pytest.raises(FailedPrecondition):
        await tx.execute("SELECT 1")


async def test_a_failed_statement_leaves_only_a_rollback(sql: Sql, plants: str) -> None:
    with pytest.raises(Aborted):
        async with sql.transaction() as tx:
            await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
            with pytest.raises(AlreadyExists):
                await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
            with pytest.raises(FailedPrecondition):
                await tx.execute("SELECT 1")

    assert await names(sql, plants) == []


async def test_a_savepoint_undoes_what_failed(sql: Sql, plants: str) -> None:
    async with sql.transaction() as tx:
        await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
        with pytest.raises(AlreadyExists):
            async with tx.savepoint():
                await tx.execute(f"INSERT INTO {plants} VALUES (2, 'moss')")
                await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
        async with tx.savepoint():
            await tx.execute(f"INSERT INTO {plants} VALUES (3, 'ivy')")

    assert await names(sql, plants) == ["fern", "ivy"]


async def test_another_number_of_rows_than_expected_ends_a_transaction(sql: Sql, plants: str) -> None:
    with pytest.raises(Aborted, match="1 were expected"):
        async with sql.transaction() as tx:
            await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
            await tx.execute(f"DELETE FROM {plants} WHERE id = 2", expect_rows=1)

    assert await names(sql, plants) == []


async def test_a_statement_that_may_not_be_run_does_not_hurt_a_transaction(sql: Sql, plants: str) -> None:
    async with sql.transaction() as tx:
        await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
        for statement in ("COMMIT", "ROLLBACK", "SET a = 1"):
            with pytest.raises(PermissionDenied):
                await tx.execute(statement)

    assert await names(sql, plants) == ["fern"]


async def test_statements_of_one_moment_are_run_in_order(sql: Sql, plants: str) -> None:
    async with sql.transaction() as tx:
        await asyncio.gather(
            *(tx.execute(f"INSERT INTO {plants} SELECT {n}, count(*) FROM {plants}") for n in range(5))
        )

    assert await names(sql, plants) == ["0", "1", "2", "3", "4"]


async def test_a_read_only_transaction_writes_nothing(sql: Sql, plants: str) -> None:
    async with sql.transaction(read_only=True, isolation=Isolation.REPEATABLE_READ) as tx:
        assert await tx.query(f"SELECT * FROM {plants}") == []
        with pytest.raises(InvalidArgument):
            await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
        await tx.rollback()


@pytest.mark.ac("isa-cloud-prd:E2-US2:AC-2.5")
async def test_a_transaction_that_is_idle_or_open_for_too_long_is_rolled_back(sql: Sql, plants: str) -> None:
    for times in ({"idle_timeout": timedelta(milliseconds=80)}, {"timeout": timedelta(milliseconds=150)}):
        with pytest.raises((Aborted, DeadlineExceeded)):
            async with sql.transaction(**times) as tx:
                await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
                await asyncio.sleep(0.3)
                await tx.execute("SELECT 1")

    assert await names(sql, plants) == []
    with pytest.raises(InvalidArgument) as caught:
        async with sql.transaction(timeout=timedelta(hours=2)):
            pass
    assert caught.value.field == "begin.timeout"


@pytest.mark.ac(
    "isa-cloud-prd:E2-US2:AC-2.1", "isa-cloud-prd:E2-US2:AC-2.2", "isa-cloud-prd:E2-US2:AC-2.3",
    "isa-cloud-prd:E2-US2:AC-2.4",
)  # fmt: skip
async def test_a_transaction_with_an_id_goes_on_in_other_calls(sql: Sql, plants: str) -> None:
    tx = await sql.begin()
    await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")
    results = await sql.resume(tx.id).execute_batch(
        [Statement(f"INSERT INTO {plants} VALUES (2, 'moss')"), Statement(f"SELECT count(*) AS n FROM {plants}")]
    )
    await tx.commit()
    await tx.commit()  # the answer of the first may have been lost
    other = await sql.begin()
    await other.execute(f"DELETE FROM {plants}")
    await other.rollback()
    await other.rollback()

    assert results[1].rows[0]["n"] == 2
    assert await names(sql, plants) == ["fern", "moss"]
    assert tx.expires_at > datetime.now(UTC) and tx.id != other.id
    with pytest.raises(FailedPrecondition):
        await tx.execute("SELECT 1")
    with pytest.raises(FailedPrecondition):
        await tx.rollback()
    with pytest.raises(Aborted):
        await other.commit()


async def test_an_id_is_of_use_to_its_user_only(as_person: Callable[..., Isa], sql: Sql, plants: str) -> None:
    tx = await sql.begin()
    await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")

    thieves = [as_person(ORG, "user-2"), as_person("org-other"), as_person("org-other", "user-2")]
    for thief in thieves:
        stolen = thief.sql.resume(tx.id)
        for attempt in (stolen.query("SELECT 1"), stolen.commit(), stolen.rollback()):
            with pytest.raises(NotFound):
                await attempt
    for forged in ("", "x", "a" * 43, tx.id[:-2], tx.id + "AA", tx.id[:-1] + ("A" if tx.id[-1] != "A" else "B"), "\0"):
        with pytest.raises(NotFound):
            await sql.resume(forged).commit()
    await tx.commit()

    assert await names(sql, plants) == ["fern"]


@pytest.mark.ac("isa-cloud-prd:E2-US2:AC-2.5")
async def test_a_forgotten_transaction_is_rolled_back(sql: Sql, plants: str) -> None:
    tx = await sql.begin(idle_timeout=timedelta(milliseconds=100))
    await tx.execute(f"INSERT INTO {plants} VALUES (1, 'fern')")

    await asyncio.sleep(0.3)

    for attempt in (tx.execute("SELECT 1"), tx.commit()):
        with pytest.raises(Aborted):
            await attempt
    await tx.rollback()
    assert await names(sql, plants) == []


async def test_a_failed_transaction_with_an_id_cannot_be_committed(sql: Sql, plants: str) -> None:
    tx = await sql.begin()
    with pytest.raises(InvalidArgument) as caught:
        await tx.execute_batch([Statement(f"INSERT INTO {plants} VALUES (1, 'fern')"), Statement("SELECT nothing")])

    with pytest.raises(Aborted):
        await tx.commit()
    assert caught.value.field == "statements[1].sql"
    assert await names(sql, plants) == []


# Copies


async def test_rows_are_copied_in_and_out(sql: Sql, plants: str) -> None:
    rows = [(1, "fern"), (2, "a\tb\nc\\d"), (3, 'ü, "quoted"')]

    assert await sql.copy_in(plants, rows=rows) == 3
    text = b"".join([chunk async for chunk in sql.copy_out(f"SELECT * FROM {plants} ORDER BY id")]).decode()

    assert await names(sql, plants) == [name for _, name in rows]
    assert [tuple(row) for row in csv.reader(io.StringIO(text, newline=""))] == [(str(n), name) for n, name in rows]


async def test_a_file_of_csv_goes_in_as_it_is(sql: Sql, plants: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for piece in (b"name;i", b"d\nfern;", b"1\nmo", b"ss;2\n"):
            yield piece

    stored = await sql.copy_in(plants, chunks=chunks(), columns=["name", "id"], header=True, delimiter=";")
    out = [
        chunk
        async for chunk in sql.copy_out(
            f"SELECT name FROM {plants} WHERE id = $1", 2, format=CopyFormat.TEXT, header=True
        )
    ]

    assert stored == 2
    assert b"".join(out) == b"name\nmoss\n"


async def test_a_copy_that_fails_stores_nothing(sql: Sql, plants: str) -> None:
    async def broken() -> AsyncIterator[tuple[int, str]]:
        yield (1, "fern")
        raise ZeroDivisionError

    with pytest.raises(AlreadyExists):
        await sql.copy_in(plants, rows=[(1, "fern"), (1, "fern")])
    with pytest.raises(ZeroDivisionError):
        await sql.copy_in(plants, rows=broken())
    with pytest.raises(InvalidArgument):
        await sql.copy_in("nowhere", rows=[(1,)])
    for name, field in (("", "target.table"), ("x" * 64, "target.table"), ("a\0b", "target.table")):
        with pytest.raises(InvalidArgument) as caught:
            await sql.copy_in(name, rows=[(1,)])
        assert caught.value.field == field

    assert await names(sql, plants) == []


# What only the engine does


@pytest_asyncio.fixture
async def replicas(engines: Engines, room_database: None) -> AsyncIterator[tuple[str, str]]:
    """Two adapters on one engine, that know each other by what a transaction's id says."""
    host, _, port = engines.postgres.rpartition(":")
    adapters = [
        create_app(
            Settings(host=host, port=int(port), rooms=frozenset({ROOM}), advertise=f"replica-{number}:1"),
            FakeParts(Secrets(engines.secrets)),
        )
        for number in range(2)
    ]
    async with serving(adapters[0]) as first, serving(adapters[1]) as second:
        for adapter, address in zip(adapters, (first, second), strict=True):
            adapter.implementation.address = address  # known only now: the port was the system's to choose
        yield first, second


async def test_a_transaction_goes_on_through_another_replica(replicas: tuple[str, str]) -> None:
    async with person(replicas[0], ORG) as here, person(replicas[1], ORG) as there:
        name = f"r_{uuid.uuid4().hex[:12]}"
        await here.sql.execute(f"CREATE TABLE {name} (id int PRIMARY KEY)")
        tx, undone = await here.sql.begin(), await here.sql.begin()
        await tx.execute(f"INSERT INTO {name} VALUES (1)")

        away = there.sql.resume(tx.id)
        await away.execute(f"INSERT INTO {name} VALUES (2)")
        with pytest.raises(PermissionDenied):
            await away.execute("COMMIT")
        await away.commit()
        await there.sql.resume(undone.id).rollback()

        assert "127.0.0.1" not in tx.id
        assert len(await there.sql.query(f"SELECT * FROM {name}")) == 2
        async with person(replicas[1], ORG, "user-2") as thief:
            with pytest.raises(NotFound):
                await thief.sql.resume(tx.id).commit()


async def test_a_transaction_whose_replica_is_lost_is_aborted(engines: Engines, sql_address: str) -> None:
    host, _, port = engines.postgres.rpartition(":")
    lost = create_app(Settings(host=host, port=int(port), rooms=frozenset({ROOM})), FakeParts(Secrets(engines.secrets)))
    async with person(sql_address, ORG) as there:
        async with serving(lost) as address:
            lost.implementation.address = address
            async with person(address, ORG) as here:
                txs = [await here.sql.begin() for _ in range(3)]

        with pytest.raises(Aborted):
            await there.sql.resume(txs[0].id).execute("SELECT 1")
        with pytest.raises(Aborted):
            await there.sql.resume(txs[1].id).commit()
        await there.sql.resume(txs[2].id).rollback()


async def test_an_organisation_has_few_open_transactions_and_its_other_calls_go_on(tenant: Sql) -> None:
    txs = [await tenant.begin() for _ in range(4)]

    with pytest.raises(ResourceExhausted) as caught:
        await tenant.begin(timeout=timedelta(seconds=5))
    with pytest.raises(ResourceExhausted):
        async with tenant.transaction(timeout=timedelta(milliseconds=500)):
            pass

    assert caught.value.retry_after
    for tx in txs:
        await tx.rollback()
    await (await tenant.begin()).commit()


async def test_calls_of_one_moment_do_not_wait_for_each_other(tenant: Sql, table: str) -> None:
    await given_rows(tenant, table, 1)
    async with tenant.transaction() as tx:
        await tx.execute(f"UPDATE {table} SET title = 'held' WHERE id = 1")
        waits = asyncio.create_task(tenant.execute(f"UPDATE {table} SET title = 'after' WHERE id = 1"))
        others = [asyncio.create_task(tenant.execute("SELECT $1::int4", number)) for number in range(5)]

        assert [(await other).rows[0][0] for other in others] == list(range(5))
        assert not waits.done()
    await waits

    assert (await tenant.query(f"SELECT title FROM {table}"))[0][0] == "after"


async def test_calls_of_one_moment_that_nobody_waits_for_are_broken_off(tenant: Sql, table: str) -> None:
    calls = [
        asyncio.create_task(tenant.execute(f"INSERT INTO {table} SELECT {n}, pg_sleep(10)::text")) for n in range(3)
    ]
    await asyncio.sleep(0.3)
    for call in calls:
        call.cancel()

    assert await asyncio.gather(*calls, return_exceptions=True)
    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_a_transaction_ends_with_its_caller(tenant: Sql, table: str) -> None:
    held = asyncio.Event()

    async def hold() -> None:
        async with tenant.transaction() as tx:
            await tx.execute(f"INSERT INTO {table} VALUES (1, 'a')")
            held.set()
            await asyncio.Event().wait()

    holding = asyncio.create_task(hold())
    await held.wait()
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)

    await asyncio.wait_for(tenant.execute(f"INSERT INTO {table} VALUES (1, 'b')"), 5)
    assert (await tenant.query(f"SELECT title FROM {table}"))[0][0] == "b"


async def test_a_statement_that_is_broken_off_ends_its_transaction(tenant: Sql, table: str) -> None:
    tx = await tenant.begin()
    await tx.execute(f"INSERT INTO {table} VALUES (1, 'a')")
    with pytest.raises(DeadlineExceeded):
        await tx.execute("SELECT pg_sleep(10)", timeout=timedelta(milliseconds=200))

    with pytest.raises(Aborted):
        await tx.commit()
    await asyncio.wait_for(tenant.execute(f"INSERT INTO {table} VALUES (1, 'b')"), 5)


async def test_a_statement_may_not_outlive_its_transaction(tenant: Sql) -> None:
    with pytest.raises((Aborted, DeadlineExceeded)):
        async with tenant.transaction(timeout=timedelta(milliseconds=300)) as tx:
            await tx.execute("SELECT pg_sleep(10)")


async def test_serializable_transactions_notice_each_other(tenant: Sql, table: str) -> None:
    await given_rows(tenant, table, 2)

    async def swap(source: int, target: int) -> None:
        async with tenant.transaction(isolation=Isolation.SERIALIZABLE) as tx:
            await tx.query(f"SELECT sum(version) FROM {table} WHERE id = $1", source)
            await both.wait()
            await tx.execute(f"UPDATE {table} SET version = version + 1 WHERE id = $1", target)

    both = asyncio.Barrier(2)
    ended = await asyncio.gather(swap(1, 2), swap(2, 1), return_exceptions=True)

    assert [type(each) for each in ended if each is not None] == [Aborted]


async def test_functions_policies_and_statistics_may_be_made(tenant: Sql, table: str) -> None:
    for statement in (
        f"CREATE FUNCTION twice_{table}(n int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT n * 2'",
        f"CREATE FUNCTION thrice_{table}(n int) RETURNS int LANGUAGE sql RETURN n * 3",
        f"CREATE INDEX ON {table} (twice_{table}(id))",
        f"CREATE VIEW view_{table} AS SELECT thrice_{table}(id) AS n FROM {table}",
        f"CREATE MATERIALIZED VIEW kept_{table} AS SELECT * FROM {table}",
        f"REFRESH MATERIALIZED VIEW kept_{table}",
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY",
        f"CREATE POLICY own ON {table} USING (title = current_setting('isa.user'))",
        f"INSERT INTO {table} VALUES (1, 'user-1')",
        f"ANALYZE {table}",
        f"CREATE SCHEMA s_{table}",
        f"ALTER TABLE {table} SET SCHEMA s_{table}",
        f"COMMENT ON TABLE s_{table}.{table} IS 'plants'",
    ):
        await tenant.execute(statement)

    assert (await tenant.query(f"SELECT n FROM view_{table}"))[0]["n"] == 3
    with pytest.raises(PermissionDenied):
        await tenant.execute(f"INSERT INTO s_{table}.{table} VALUES (2, 'user-2')")


async def test_a_function_that_writes_is_no_way_to_write_by_query(tenant: Sql, table: str) -> None:
    body = f"INSERT INTO {table} VALUES (1, ''a'') RETURNING id"
    await tenant.execute(f"CREATE FUNCTION put_{table}() RETURNS int LANGUAGE sql AS '{body}'")

    with pytest.raises(InvalidArgument, match="Execute"):
        await tenant.query(f"SELECT put_{table}()")
    with pytest.raises(InvalidArgument, match="Execute"):
        assert [chunk async for chunk in tenant.copy_out(f"SELECT put_{table}()")]


async def test_a_statement_that_is_nested_too_deeply_is_invalid(tenant: Sql) -> None:
    for text in ("-".join(["1 "] * 5000), "(" * 20_000, "NOT " * 10_000 + "true", "1" + " UNION SELECT 1" * 4000):
        with pytest.raises(InvalidArgument):
            await tenant.query(f"SELECT {text}")


async def test_rows_that_grow_within_a_result_do_not_fill_memory(tenant: Sql) -> None:
    huge = "SELECT CASE WHEN n < 20000 THEN '' ELSE repeat('x', 10000000) END FROM generate_series(1, 25000) AS n"

    with pytest.raises(ResourceExhausted):
        async for _ in tenant.stream(huge):
            pass
    with pytest.raises(ResourceExhausted):
        await tenant.execute("SELECT repeat('x', 10000000) FROM generate_series(1, 1000)")
    assert (await tenant.query("SELECT 1"))[0][0] == 1


async def test_long_numbers_in_json_keep_their_digits(tenant: Sql) -> None:
    value = {"n": 123456789012345678901234567890}

    assert (await tenant.query("SELECT '{\"n\": 123456789012345678901234567890}'::jsonb"))[0][0] == value


async def test_copies_take_every_kind_of_value_and_format(tenant: Sql, table: str) -> None:
    name = f"c_{table}"
    await tenant.execute(f"CREATE TABLE {name} (a int8, b bool, c timestamptz, d numeric, e bytea, f jsonb, g text[])")
    values = (1, True, datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.50"), b"\x00\\", {"a": "b\n\\"}, ["x", 'y "', None])

    assert await tenant.copy_in(name, rows=[values, (None,) * 7]) == 2
    assert tuple((await tenant.query(f"SELECT * FROM {name} WHERE a = 1"))[0]) == values
    binary = [chunk async for chunk in tenant.copy_out(f"TABLE {name}", format=CopyFormat.BINARY)]
    assert await tenant.copy_in(name, chunks=binary, format=CopyFormat.BINARY) == 2
    assert (await tenant.query(f"SELECT count(*) FROM {name}"))[0][0] == 4


async def test_parameters_of_a_copy_are_never_sql(tenant: Sql, table: str) -> None:
    evil = f"') TO STDOUT; DROP TABLE {table}; --"
    sql = "SELECT '$1', $1, $2::int4 + $02::int4 -- $1"

    out = b"".join([chunk async for chunk in tenant.copy_out(sql, evil, 2, format=CopyFormat.TEXT)]).decode()

    assert out == f"$1\t{evil}\t4\n"
    for text in ("SELECT 1; -- x", f"SELECT 1) TO STDOUT; DROP TABLE {table}; --"):
        with pytest.raises(InvalidArgument):
            assert [chunk async for chunk in tenant.copy_out(text)]
    for options in ({"delimiter": "', PROGRAM 'x"}, {"delimiter": "ab"}, {"null_text": "\n"}):
        with pytest.raises(InvalidArgument):
            assert [chunk async for chunk in tenant.copy_out("SELECT 1", **options)]


async def test_a_large_copy_streams_and_may_be_left_early(tenant: Sql, table: str) -> None:
    stored = await tenant.copy_in(table, columns=["id", "title"], rows=((n, "x" * 200) for n in range(50_000)))
    size = 0
    async for chunk in tenant.copy_out(f"TABLE {table}"):
        size += len(chunk)
    for _ in range(10):
        left = tenant.copy_out("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)")
        await anext(left)
        await left.aclose()

    assert stored == 50_000 and size > 10_000_000
    assert (await tenant.query("SELECT 1"))[0][0] == 1


async def test_a_copy_is_told_early_that_it_is_wrong(tenant: Sql, table: str) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"wrong\n" * 1000
            await asyncio.sleep(0)

    with pytest.raises(InvalidArgument):
        await asyncio.wait_for(tenant.copy_in(table, chunks=endless()), 10)
    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_a_copy_stops_at_the_share(engines: Engines, tenant: Sql, table: str) -> None:
    host, _, port = engines.postgres.rpartition(":")
    used = 200 << 20
    shares = Shares(Limits(bytes=used))
    adapter = create_app(
        Settings(host=host, port=int(port), rooms=frozenset({ROOM})), FakeParts(Secrets(engines.secrets), shares)
    )
    measured = adapter.implementation.stored

    async def almost_full(org: str) -> int:
        assert await measured(org) > 1 << 20
        return used - (1 << 20)

    shares.stored = almost_full
    async with serving(adapter) as address, person(address, ORG) as isa:
        with pytest.raises(ResourceExhausted):
            await isa.sql.copy_in(table, columns=["id", "title"], rows=((n, "x" * 1000) for n in range(5000)))

    assert await tenant.query(f"SELECT * FROM {table}") == []


async def test_an_organisation_stays_on_the_server_that_it_was_placed_on(engines: Engines, sql_address: str) -> None:
    host, _, port = engines.postgres.rpartition(":")
    second = Settings(
        host=host, port=int(port), rooms=frozenset({ROOM}), servers={"second": engines.postgres}, place_on="second"
    )
    org = f"org-{uuid.uuid4().hex}"
    async with (
        serving(create_app(second, FakeParts(Secrets(engines.secrets)))) as address,
        person(address, org) as isa,
        person(sql_address, org) as without,
    ):
        await isa.sql.execute("CREATE TABLE plants (id int)")
        with pytest.raises(IsaError):  # a replica that was not told of that server does not make another database
            await without.sql.query("SELECT 1")

    admin = await asyncpg.connect(
        host=host, port=int(port), user="isa_tenants", password=engines.secrets["postgres-tenants-admin"],
        database="isa_tenants",
    )  # fmt: skip
    assert await admin.fetchval("SELECT server FROM placements WHERE org_id = $1", org) == "second"
    await admin.close()


async def test_a_neighbour_of_a_flood_is_served(sql_address: str) -> None:
    async with person(sql_address, "org-flood") as flood, person(sql_address, "org-quiet") as quiet:
        await quiet.sql.query("SELECT 1")
        calls = [asyncio.create_task(flood.sql.execute("SELECT pg_sleep(0.2)")) for _ in range(100)]
        for _ in range(20):
            await asyncio.wait_for(quiet.sql.query("SELECT 1"), 2)

        assert not all(call.done() for call in calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)


async def test_the_outcome_of_a_commit_whose_connection_is_lost_is_unknown(room: Sql, engines: Engines) -> None:
    name = f"d_{uuid.uuid4().hex[:12]}"
    host, _, port = engines.postgres.rpartition(":")
    owner = await asyncpg.connect(
        host=host, port=int(port), user="isa", password=engines.secrets["postgres-superuser"], database=ROOM
    )
    await owner.execute(
        f"CREATE TABLE {name} (id int); GRANT ALL ON {name} TO {ROOM}_app, {ROOM}_system;"
        f"CREATE FUNCTION slow_{name}() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN PERFORM pg_sleep(10); RETURN NULL; END';"
        f"CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON {name} DEFERRABLE INITIALLY DEFERRED "
        f"FOR EACH ROW EXECUTE FUNCTION slow_{name}()"
    )
    call = asyncio.create_task(room.execute_batch([Statement(f"INSERT INTO {name} VALUES (1)")] * 2))
    async with asyncio.timeout(10):
        while not await owner.fetchval(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT' AND state = 'active'"
        ):
            await asyncio.sleep(0.02)

    with pytest.raises(Unavailable) as caught:
        await call
    await owner.close()
    assert caught.value.details["outcome"] == "unknown"


async def test_connections_that_serve_many_users_never_mix_them(sql_address: str) -> None:
    people = [person(sql_address, ORG, f"user-{number}") for number in range(6)]
    asked = "SELECT current_setting('isa.user'), pg_sleep(0.001)"

    async def whose(number: int, isa: Isa) -> bool:
        rows = await isa.sql.query(asked) if number % 2 else (await isa.sql.execute(asked)).rows
        return rows[0][0] == f"user-{people.index(isa)}"

    assert all(await asyncio.gather(*(whose(number, isa) for number in range(20) for isa in people)))
    for isa in people:
        await isa.close()
