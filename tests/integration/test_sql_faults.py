"""SQL while PostgreSQL is killed, hung or full: with a server of this file's own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import asyncpg
import pytest
import pytest_asyncio

from isa_common import Aborted, DeadlineExceeded, IsaError, ResourceExhausted, Sql, Unavailable
from runtime import postgres
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import PATIENCE, Postgres, until_served

SECOND = timedelta(seconds=1)
SECRETS = {
    "postgres-superuser": "super",
    "postgres-tenants-admin": "admin",
    "postgres-tenant-master-key": "key",
}
CONNECTIONS = 12


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A cluster with the login that makes tenants."""
    home = tmp_path_factory.mktemp("sql-faults")
    server = Postgres(home, "-c", f"max_connections={CONNECTIONS}", "-c", "temp_file_limit=1MB")

    async def make() -> None:
        await postgres.prepare(server.layout, server.engines, SECRETS)
        await server.start()
        admin = await server.login()
        await admin.execute("CREATE ROLE isa_tenants LOGIN CREATEDB CREATEROLE PASSWORD 'admin'")
        await admin.close()
        await server.end()

    asyncio.run(make())
    yield server
    postgres.remove(server.layout)


@pytest_asyncio.fixture
async def server(cluster: Postgres) -> AsyncIterator[Postgres]:
    """The server, started."""
    await cluster.start()
    yield cluster
    await cluster.end()


@pytest_asyncio.fixture
async def sql(server: Postgres) -> AsyncIterator[Sql]:
    """SQL of an organisation on it."""
    from services.adapters.postgres.app import Settings, create_app

    settings = Settings(host="127.0.0.1", port=server.port, connections=6, connections_each=4, connect_timeout=1)
    async with (
        serving(create_app(settings, FakeParts(Secrets(SECRETS)))) as address,
        person(address, "org-faults") as isa,
    ):
        await isa.sql.execute("CREATE TABLE IF NOT EXISTS plants (id int)")
        yield isa.sql


async def test_a_server_that_is_down_is_unavailable_and_served_again_when_it_is_back(
    server: Postgres, sql: Sql
) -> None:
    await server.end()

    for _ in range(5):
        with pytest.raises(Unavailable):
            await sql.execute("INSERT INTO plants VALUES (1)", timeout=SECOND)
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await sql.query("SELECT 1", timeout=SECOND)
    await server.start()

    await until_served(lambda: sql.query("SELECT 1", timeout=SECOND))
    assert (await sql.execute("INSERT INTO plants VALUES (1)")).affected == 1


async def test_a_server_that_hangs_costs_no_call_more_than_its_deadline(server: Postgres, sql: Sql) -> None:
    await asyncio.gather(*(sql.query("SELECT pg_sleep(0.05)") for _ in range(4)))
    server.all(signal.SIGSTOP)
    try:
        calls = [sql.query("SELECT 1", timeout=SECOND / 2) for _ in range(20)]
        calls += [sql.execute("SELECT 1", timeout=SECOND / 2) for _ in range(20)]
        outcomes = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), PATIENCE)
        with pytest.raises((DeadlineExceeded, Unavailable)):
            async with sql.transaction(timeout=SECOND / 2) as tx:
                await tx.execute("SELECT 1")
    finally:
        server.all(signal.SIGCONT)

    assert {type(outcome) for outcome in outcomes} <= {DeadlineExceeded, Unavailable}
    assert DeadlineExceeded in {type(outcome) for outcome in outcomes}
    await until_served(lambda: sql.query("SELECT 1", timeout=SECOND))
    assert len(await asyncio.gather(*(sql.execute("SELECT 1") for _ in range(20)))) == 20


async def test_a_crash_ends_what_is_open_and_keeps_what_was_committed(server: Postgres, sql: Sql) -> None:
    await sql.execute("DELETE FROM plants")
    await sql.execute("INSERT INTO plants VALUES (1)")
    tx, ended = await sql.begin(), []

    async def hold() -> None:
        async with sql.transaction() as held:
            await held.execute("INSERT INTO plants VALUES (2)")
            held_it.set()
            await crashed.wait()
            await held.execute("INSERT INTO plants VALUES (3)")

    held_it, crashed = asyncio.Event(), asyncio.Event()
    holding = asyncio.create_task(hold())
    await held_it.wait()
    await tx.execute("INSERT INTO plants VALUES (4)")
    await server.end()
    crashed.set()
    for attempt in (holding, tx.execute("SELECT 1"), tx.commit()):
        with pytest.raises(IsaError) as caught:
            await attempt
        ended.append(type(caught.value))
    await server.start()

    await until_served(lambda: sql.query("SELECT 1", timeout=SECOND))
    assert set(ended) <= {Unavailable, Aborted}
    assert [row[0] for row in await sql.query("SELECT id FROM plants")] == [1]


async def test_without_a_connection_to_be_had_calls_are_refused_until_there_is_one(server: Postgres, sql: Sql) -> None:
    await sql.query("SELECT 1")
    taken = []
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                taken.append(await server.login())
            except asyncpg.TooManyConnectionsError:
                break
    calls = [sql.execute("SELECT pg_sleep(0.3)", timeout=SECOND * 5) for _ in range(4)]
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for connection in taken:
        await connection.close()

    assert {type(outcome) for outcome in outcomes if isinstance(outcome, IsaError)} == {ResourceExhausted}
    await until_served(lambda: sql.query("SELECT 1", timeout=SECOND))
    assert len(await asyncio.gather(*(sql.query("SELECT 1") for _ in range(20)))) == 20


async def test_a_query_that_would_fill_the_disk_is_refused(sql: Sql) -> None:
    sorted_rows = "SELECT repeat('x', 99) AS x FROM generate_series(1, 60000) ORDER BY random()"

    with pytest.raises(ResourceExhausted):
        await sql.query(f"SELECT max(x) FROM ({sorted_rows}) AS y", timeout=2 * PATIENCE * SECOND)

    assert (await sql.query("SELECT 1"))[0][0] == 1
