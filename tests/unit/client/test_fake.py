"""What the cloud in memory has in common with the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from isa.sql.v1 import sql_pb2
from isa_common import (
    DeadlineExceeded,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    Unimplemented,
)
from isa_common._transport import MESSAGE_LIMIT
from isa_common.testing import FakeCloud, FakeIsa


class Missing(NotFound):
    """An error of a service's own."""


class Service:
    """Answers as a test says."""

    def __init__(self) -> None:
        self.callers: list[object] = []
        self.requests: list[sql_pb2.ExecuteRequest] = []
        self.ended = asyncio.Event()

    async def execute(self, caller: object, request: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
        self.callers.append(caller)
        self.requests.append(request)
        match request.statement.sql:
            case "missing":
                raise Missing("No such row.", field="id", retry_after=timedelta(seconds=2), table="plants")
            case "slow":
                await asyncio.Event().wait()
            case "bug":
                raise ZeroDivisionError
        return sql_pb2.ExecuteResponse(result=sql_pb2.Result(affected=1))

    async def query(self, caller: object, request: sql_pb2.QueryRequest) -> AsyncIterator[sql_pb2.QueryResponse]:
        try:
            while True:
                yield sql_pb2.QueryResponse(rows=sql_pb2.Rows(rows=b"[[1]]"))
        finally:
            self.ended.set()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def cloud(service: Service) -> FakeCloud:
    cloud = FakeCloud()
    cloud._services["sql"] = service
    return cloud


async def execute(isa: FakeIsa, sql: str = "", **options: object) -> object:
    from isa_common._contract import method

    fact = method(sql_pb2.DESCRIPTOR.services_by_name["Sql"], "Execute", capability="sql")
    request = sql_pb2.ExecuteRequest(statement=sql_pb2.Statement(sql=sql))
    return await isa._transport.unary(fact, request, **options)


async def test_an_error_is_as_it_would_arrive(cloud: FakeCloud) -> None:
    with pytest.raises(NotFound) as caught:
        await execute(cloud.isa(), "missing")

    error = caught.value
    assert type(error) is NotFound
    assert (error.message, error.reason, error.field) == ("No such row.", "MISSING", "id")
    assert (error.details, error.retry_after) == ({"table": "plants"}, timedelta(seconds=2))
    assert len(error.request_id) == 32


async def test_a_bug_of_the_fake_is_not_hidden(cloud: FakeCloud) -> None:
    with pytest.raises(ZeroDivisionError):
        await execute(cloud.isa(), "bug")


async def test_a_call_ends_at_its_deadline(cloud: FakeCloud) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        await execute(cloud.isa(), "slow", timeout=timedelta(milliseconds=10))

    assert caught.value.request_id


async def test_a_service_sees_who_calls(cloud: FakeCloud, service: Service) -> None:
    await execute(cloud.isa("org-a", "user-1"))
    await execute(cloud.isa("", "", workload="tasks"), acting={"isa-org": "org-b", "isa-user": "user-2"})
    with pytest.raises(PermissionDenied, match="act for others"):
        await execute(cloud.isa("org-a", "user-1"), acting={"isa-org": "org-b"})
    with pytest.raises(Unauthenticated):
        await execute(cloud.isa("", ""))

    person, workload = service.callers
    assert (person.org, person.user, person.workload) == ("org-a", "user-1", "")
    assert (workload.org, workload.user, workload.workload) == ("org-b", "user-2", "tasks")


async def test_messages_are_copies_and_have_the_limit_of_the_wire(cloud: FakeCloud, service: Service) -> None:
    with pytest.raises(MessageTooLarge):
        await execute(cloud.isa(), "x" * MESSAGE_LIMIT)
    await execute(cloud.isa(), "a")

    service.requests[0].statement.sql = "b"
    assert await execute(cloud.isa(), "a") is not await execute(cloud.isa(), "a")


async def test_leaving_a_stream_ends_it(cloud: FakeCloud, service: Service) -> None:
    from isa_common._contract import method

    fact = method(sql_pb2.DESCRIPTOR.services_by_name["Sql"], "Query", capability="sql")
    answers = cloud.isa()._transport.stream(fact, sql_pb2.QueryRequest(), timeout=timedelta(0))
    assert (await anext(answers)).rows.rows == b"[[1]]"

    await answers.aclose()

    assert service.ended.is_set()


async def test_its_channel_is_healthy_once_it_was_used(cloud: FakeCloud) -> None:
    async with cloud.isa() as isa:
        assert not isa.is_channel_healthy()
        await execute(isa)
        assert isa.is_channel_healthy()
        await isa.reconnect()
        assert (isa.reconnects, isa.outages) == (1, 0)
    assert not isa.is_channel_healthy()


async def test_each_fake_has_a_cloud_of_its_own() -> None:
    first, second = FakeIsa(), FakeIsa()

    await first.cache.set("k", b"v")

    assert await second.cache.get("k", None) is None
    assert (await first.usage.get("cache")).calls == 0
    assert await first.health("cache")
    assert not await first.health("graphs")


async def test_what_the_cloud_has_not_is_unimplemented() -> None:
    with pytest.raises(Unimplemented, match="graphs"):
        FakeCloud().service("graphs")
