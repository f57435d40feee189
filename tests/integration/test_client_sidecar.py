"""The client through a real sidecar: every capability by one address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio

from isa_common import Isa, NotFound
from isa_common.caching import CacheManager
from isa_common.events import EventPublisher
from tests.conftest import Organisation, Stack
from tests.integration.test_sql_adapter import sidecar_of

CAPABILITIES = ["cache", "sql", "objects", "vectors", "logs", "streams"]


@pytest_asyncio.fixture
async def isa(stack: Stack, org: Organisation) -> AsyncIterator[Isa]:
    """An owner's client over the sidecar of a room."""
    environment = sidecar_of(stack, "tasks")
    target = f"127.0.0.1:{environment['DAPR_GRPC_PORT']}"
    async with Isa(target, token=org.token, sidecar=True, sidecar_token=environment["DAPR_API_TOKEN"]) as isa:
        yield isa


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_the_health_of_an_adapter_is_asked_through_the_sidecar(isa: Isa, capability: str) -> None:
    assert await isa.health(capability)


async def test_an_app_that_is_not_there_is_not_healthy(stack: Stack) -> None:
    environment = sidecar_of(stack, "tasks")
    async with Isa(
        f"127.0.0.1:{environment['DAPR_GRPC_PORT']}",
        sidecar=True,
        sidecar_token=environment["DAPR_API_TOKEN"],
        app_ids={"cache": "absent"},
    ) as isa:
        assert not await isa.health("cache", timeout=timedelta(seconds=10))


async def test_one_connection_carries_all_capabilities(isa: Isa) -> None:
    await asyncio.gather(*(isa.cache.set(f"k{n}", str(n)) for n in range(300)))
    values = await asyncio.gather(*(isa.cache.get(f"k{n}") for n in range(300)))
    with pytest.raises(NotFound) as caught:
        await isa.cache.get("none")
    plants = CacheManager(isa.cache, dict[str, int], prefix="plants:")
    await plants.set("fern", {"leaves": 7})
    await isa.streams.create_stream("garden", ["garden.>"], max_bytes=1 << 20)
    published = await EventPublisher(isa.streams, "garden.planted", dict[str, int]).publish({"leaves": 7})
    async with isa.streams.consume("garden", (await isa.streams.create_consumer("garden", "g")).name) as deliveries:
        delivery = await anext(deliveries)
        await delivery.ack(confirm=True)

    assert values == [str(n).encode() for n in range(300)]
    assert caught.value.request_id
    assert await plants.get("fern") == {"leaves": 7}
    assert (published.sequence, delivery.data) == (1, b'{"leaves":7}')
    assert (await isa.usage.get("cache")).calls > 0
    assert isa.reconnects == 0
