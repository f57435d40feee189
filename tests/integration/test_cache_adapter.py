"""The cache with real tokens, straight at the adapter and through a sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from isa_common import Isa, NotFound, PermissionDenied, Unauthenticated
from runtime.processes import app_address
from tests.conftest import Organisation, SignUp, Stack


@pytest.fixture
def direct(stack: Stack) -> str:
    """Address of the adapter itself."""
    return app_address(stack.layout, "redis-grpc")


@pytest_asyncio.fixture
async def owner(direct: str, org: Organisation) -> AsyncIterator[Isa]:
    """A client with the token of an organisation's owner."""
    async with Isa(direct, token=org.token) as isa:
        yield isa


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.1", "isa-cloud-prd:E1-US1:AC-1.2")
async def test_an_owner_keeps_what_no_other_organisation_sees(owner: Isa, direct: str, organisation: SignUp) -> None:
    other = await organisation("Other")
    await asyncio.gather(owner.cache.set("k", b"v", ttl=60), owner.cache.organisation.set("k", b"w", ttl=60))

    assert [await owner.cache.get("k"), await owner.cache.organisation.get("k")] == [b"v", b"w"]
    async with Isa(direct, token=other.token) as isa:
        for cache in (isa.cache, isa.cache.organisation):
            with pytest.raises(NotFound):
                await cache.get("k")
    with pytest.raises(PermissionDenied, match="act for others"):
        await owner.cache.acting_for(org=other.org_id).get("k")


@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.5")
async def test_without_a_good_token_nothing_is_told(direct: str, org: Organisation) -> None:
    for token in ("", "not.a.token", org.token[:-6] + "AAAAAA"):
        async with Isa(direct, token=token) as isa:
            with pytest.raises(Unauthenticated):
                await isa.cache.get("k")


async def test_the_cache_works_through_a_sidecar(stack: Stack, org: Organisation) -> None:
    lines = stack.isa("env", "tasks").stdout.replace("\n", " ").split()
    environment = dict(line.split("=", 1) for line in lines if "=" in line)
    target = f"127.0.0.1:{environment['DAPR_GRPC_PORT']}"

    async with Isa(target, token=org.token, sidecar=True, sidecar_token=environment["DAPR_API_TOKEN"]) as isa:
        await asyncio.gather(*(isa.cache.set(f"k{n}", str(n), ttl=60) for n in range(300)))
        assert await asyncio.gather(*(isa.cache.get(f"k{n}") for n in range(300))) == [b"%d" % n for n in range(300)]
        async with isa.cache.subscribe("c*") as messages, isa.cache.lock("l"):
            await isa.cache.publish("c1", b"1")
            assert (await asyncio.wait_for(anext(messages), 20)).data == b"1"
        await isa.cache.delete_many(f"k{n}" for n in range(300))


@pytest.mark.ac("isa-cloud-prd:E1-US2:AC-2.3")
async def test_each_call_leaves_a_record_that_names_the_keys(owner: Isa, org: Organisation) -> None:
    await owner.cache.set("secret", b"v", ttl=60)
    await owner.cache.get_many(["secret", "other"])
    with pytest.raises(NotFound):
        await owner.cache.get("none")

    async def records() -> list[tuple[str, list[str], str]]:
        answer = await org.client("audit").get("/v1/audit", params={"limit": 100})
        assert answer.status_code == 200, answer.text
        items = next(value for value in answer.json().values() if isinstance(value, list))
        return [(item["action"], item["resources"], item["outcome"]) for item in items]

    wanted = [
        ("isa.cache.v1.Cache/Set", ["secret"], "OK"),
        ("isa.cache.v1.Cache/MGet", ["secret", "other"], "OK"),
        ("isa.cache.v1.Cache/Get", ["none"], "NOT_FOUND"),
    ]
    async with asyncio.timeout(30):
        found = await records()
        while any(each not in found for each in wanted):
            await asyncio.sleep(0.2)
            found = await records()
