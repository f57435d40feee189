"""SQL with real tokens, straight at the adapter and through a sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from isa_common import InvalidArgument, Isa, PermissionDenied, Statement, Unauthenticated, Unavailable
from runtime.processes import app_address
from tests.conftest import Organisation, SignUp, Stack


@pytest.fixture
def direct(stack: Stack) -> str:
    """Address of the adapter itself."""
    return app_address(stack.layout, "postgres-grpc")


def sidecar_of(stack: Stack, room: str) -> dict[str, str]:
    """What a room's process knows of its sidecar."""
    lines = stack.isa("env", room).stdout.replace("\n", " ").split()
    return dict(line.split("=", 1) for line in lines if "=" in line)


@pytest_asyncio.fixture
async def owner(direct: str, org: Organisation) -> AsyncIterator[Isa]:
    """A client with the token of an organisation's owner."""
    async with Isa(direct, token=org.token) as isa:
        yield isa


@pytest.mark.ac("isa-cloud-prd:E2-US1:AC-1.1", "isa-cloud-prd:E2-US1:AC-1.2")
async def test_an_owner_has_a_database(owner: Isa) -> None:
    await owner.sql.execute("CREATE TABLE plants (id int PRIMARY KEY, name text)")
    await owner.sql.execute_batch(
        [Statement("INSERT INTO plants VALUES ($1, $2)", number, name) for number, name in enumerate(("fern", "moss"))]
    )

    assert [tuple(row) for row in await owner.sql.query("SELECT * FROM plants ORDER BY id")] == [
        (0, "fern"),
        (1, "moss"),
    ]


async def test_another_organisation_does_not_see_it(owner: Isa, direct: str, organisation: SignUp) -> None:
    await owner.sql.execute("CREATE TABLE plants (id int)")
    other = await organisation("Other")

    async with Isa(direct, token=other.token) as isa:
        with pytest.raises(InvalidArgument, match="plants"):
            await isa.sql.query("SELECT * FROM plants")


async def test_nobody_acts_for_an_organisation_by_saying_so(owner: Isa, organisation: SignUp) -> None:
    other = await organisation("Other")

    with pytest.raises(PermissionDenied, match="act for others"):
        await owner.sql.acting_for(org=other.org_id).query("SELECT 1")


@pytest.mark.parametrize("damage", [lambda _: "", lambda _: "not.a.token", lambda token: token[:-6] + "AAAAAA"])
async def test_without_a_good_token_nothing_is_told(
    direct: str, org: Organisation, damage: Callable[[str], str]
) -> None:
    async with Isa(direct, token=damage(org.token)) as isa:
        with pytest.raises(Unauthenticated):
            await isa.sql.query("SELECT 1")


async def test_the_sidecar_routes_by_capability(stack: Stack, org: Organisation) -> None:
    environment = sidecar_of(stack, "tasks")
    target = f"127.0.0.1:{environment['DAPR_GRPC_PORT']}"
    token = environment["DAPR_API_TOKEN"]

    async with Isa(target, token=org.token, sidecar=True, sidecar_token=token) as isa:
        rows = [row[0] async for row in isa.sql.stream("SELECT n FROM generate_series(1, 20000) AS n")]
        assert (await isa.sql.execute("CREATE TABLE through_a_sidecar (id int)")).affected == 0
        assert await isa.logs.push([]) == 0
    async with Isa(target, token=org.token, sidecar=True, sidecar_token=token, app_ids={"sql": "absent"}) as isa:
        with pytest.raises(Unavailable):
            await isa.sql.execute("SELECT 1")

    assert rows == list(range(1, 20_001))


@pytest.mark.ac("isa-cloud-prd:E2-US2:AC-2.1", "isa-cloud-prd:E2-US2:AC-2.3")
async def test_transactions_and_copies_go_through_a_sidecar(stack: Stack, org: Organisation) -> None:
    environment = sidecar_of(stack, "tasks")
    target, token = f"127.0.0.1:{environment['DAPR_GRPC_PORT']}", environment["DAPR_API_TOKEN"]

    async with Isa(target, token=org.token, sidecar=True, sidecar_token=token) as isa:
        await isa.sql.execute("CREATE TABLE beans (id int PRIMARY KEY, name text)")
        async with isa.sql.transaction() as tx:
            await tx.execute("INSERT INTO beans VALUES (1, 'runner')")
            assert (await tx.query("SELECT name FROM beans"))[0]["name"] == "runner"
        held = await isa.sql.begin()
        await held.execute("INSERT INTO beans VALUES (2, 'broad')")
        await held.commit()
        assert await isa.sql.copy_in("beans", rows=[(number, "x" * 100) for number in range(3, 5000)]) == 4997
        size = 0
        async for chunk in isa.sql.copy_out("TABLE beans"):
            size += len(chunk)
        together = await asyncio.gather(*(isa.sql.query("SELECT $1::int4", number) for number in range(50)))

    assert size > 400_000
    assert [rows[0][0] for rows in together] == list(range(50))


async def test_each_call_of_a_tenant_leaves_a_record_that_names_the_tables(owner: Isa, org: Organisation) -> None:
    await owner.sql.execute("CREATE TABLE secrets (id int)")
    await owner.sql.query("SELECT * FROM secrets")

    async def recorded() -> list[tuple[str, list[str]]]:
        answer = await org.client("audit").get("/v1/audit", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        items = next(value for value in answer.json().values() if isinstance(value, list))
        return [(item["action"], item["resources"]) for item in items]

    for _ in range(100):
        records = await recorded()
        if {action for action, _ in records} >= {"isa.sql.v1.Sql/Fetch", "isa.sql.v1.Sql/Execute"}:
            break
        await asyncio.sleep(0.2)
    assert ("isa.sql.v1.Sql/Execute", ["secrets"]) in records
    assert ("isa.sql.v1.Sql/Fetch", ["secrets"]) in records


async def test_the_adapter_is_healthy_and_shows_no_reflection(direct: str) -> None:
    async with grpc.aio.insecure_channel(direct) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service="isa.sql.v1.Sql")
        )
        reflection = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await reflection().read()  # nothing is sent: a refusal that overtakes a message would be told as INTERNAL

    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
