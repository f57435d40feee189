"""What an organisation used of each engine, and what it may, with real tokens and by a real sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from isa_common import Isa, NotFound, Unauthenticated
from runtime.processes import app_address
from tests.conftest import Organisation, SignUp, Stack
from tests.integration.test_sql_adapter import sidecar_of

CAPABILITIES = ["cache", "sql", "objects", "vectors", "logs", "streams"]


@pytest.fixture
def direct(stack: Stack) -> str:
    """Address of the cache's adapter itself."""
    return app_address(stack.layout, "redis-grpc")


@pytest_asyncio.fixture
async def isa(direct: str, org: Organisation) -> AsyncIterator[Isa]:
    """An owner's client of the cache's adapter."""
    async with Isa(direct, token=org.token) as isa:
        yield isa


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_each_adapter_tells_usage_through_a_sidecar(stack: Stack, org: Organisation, capability: str) -> None:
    environment = sidecar_of(stack, "tasks")
    target = f"127.0.0.1:{environment['DAPR_GRPC_PORT']}"
    async with Isa(target, token=org.token, sidecar=True, sidecar_token=environment["DAPR_API_TOKEN"]) as isa:
        used = await isa.usage.get(capability)
        again = await isa.usage.get(capability)

    assert used.open_calls >= 1  # the question itself, beside what our own rooms do for the organisation
    assert (again.calls > used.calls, again.since) == (True, used.since)
    assert min(used.limits.calls, used.limits.streams, used.limits.rate, used.limits.bytes) > 0


async def test_usage_counts_calls_errors_items_and_bytes(isa: Isa) -> None:
    before = await isa.usage.get("cache")
    await isa.cache.set("k", b"v" * 100_000)
    with pytest.raises(NotFound):
        await isa.cache.get("none")
    await isa.cache.get_many([f"k{number}" for number in range(50)])

    used = await isa.usage.get("cache")
    assert (used.calls - before.calls, used.errors - before.errors) == (4, 1)
    assert used.items - before.items == 53
    async with asyncio.timeout(30):  # measured every ten seconds
        while ((await isa.usage.get("cache")).stored_bytes or 0) < 100_000:
            await asyncio.sleep(0.5)


async def test_nobody_sees_what_another_organisation_used(isa: Isa, direct: str, organisation: SignUp) -> None:
    for _ in range(20):
        await isa.cache.set("k", b"v")
    other = await organisation("Other")

    async with Isa(direct, token=other.token) as theirs:
        assert (await theirs.usage.get("cache")).calls == 0
        with pytest.raises(Unauthenticated):
            await Isa(direct).usage.get("cache")


async def test_a_log_out_ends_the_open_streams_of_its_session(isa: Isa, org: Organisation) -> None:
    async with isa.cache.subscribe("news") as subscription:
        await isa.cache.publish("news", b"hello")
        assert (await anext(aiter(subscription))).data == b"hello"

        answer = await org.client("users").post("/v1/logout")
        assert answer.status_code == 204
        with pytest.raises(Unauthenticated):
            async with asyncio.timeout(20):
                async for _ in subscription:
                    pass
