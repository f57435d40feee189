"""Objects with real tokens, straight at the adapter and over a sidecar."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from isa_common import Isa, NotFound, PermissionDenied, Unauthenticated
from runtime.processes import app_address
from tests.conftest import Organisation, SignUp, Stack
from tests.integration.test_sql_adapter import sidecar_of

MIB = 1 << 20


@pytest.fixture
def direct(stack: Stack) -> str:
    """Address of the adapter itself."""
    return app_address(stack.layout, "minio-grpc")


@pytest_asyncio.fixture(params=["direct", "sidecar"])
async def owner(request: pytest.FixtureRequest, stack: Stack, direct: str, org: Organisation) -> AsyncIterator[Isa]:
    """A client with the token of an organisation's owner, and a bucket; both ways."""
    if request.param == "direct":
        isa = Isa(direct, token=org.token)
    else:
        room = sidecar_of(stack, "tasks")
        address = f"127.0.0.1:{room['DAPR_GRPC_PORT']}"
        isa = Isa(address, token=org.token, sidecar=True, sidecar_token=room["DAPR_API_TOKEN"])
    async with isa:
        await isa.objects.create_bucket("uploads")
        yield isa
        await isa.objects.delete_many("uploads", [each.key async for each in isa.objects.list("uploads")])
        await isa.objects.delete_bucket("uploads")


async def test_an_owner_stores_and_reads(owner: Isa) -> None:
    data = os.urandom(20 * MIB)

    await owner.objects.put("uploads", "a/b", data, metadata={"who": "Zoë"})

    assert await owner.objects.get("uploads", "a/b") == data
    assert (await owner.objects.stat("uploads", "a/b")).metadata == {"who": "Zoë"}


async def test_a_refusal_is_told_in_the_middle_of_an_upload(owner: Isa) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    with pytest.raises(NotFound):
        await owner.objects.put("absent", "a", endless())


async def test_whoever_holds_a_url_needs_no_token(owner: Isa) -> None:
    signed = await owner.objects.presign_put("uploads", "a", size=5)
    async with httpx.AsyncClient() as http:
        stored = await http.put(signed.url, content=b"hello", headers=signed.headers)
        read = await http.get((await owner.objects.presign_get("uploads", "a")).url)

    assert (stored.status_code, read.content) == (200, b"hello")


async def test_another_organisation_has_none_of_it(owner: Isa, direct: str, organisation: SignUp) -> None:
    await owner.objects.put("uploads", "a", b"secret")
    other = await organisation("Other")

    async with Isa(direct, token=other.token) as isa:
        with pytest.raises(NotFound):
            await isa.objects.get("uploads", "a")
        with pytest.raises(PermissionDenied):
            await isa.objects.acting_for(org="org-else").list_buckets()
    async with Isa(direct) as nobody:
        with pytest.raises(Unauthenticated):
            await nobody.objects.list_buckets()
