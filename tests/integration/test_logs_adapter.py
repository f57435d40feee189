"""Log lines with real tokens."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from isa_common import Entry, Isa, PermissionDenied, Unauthenticated
from runtime.processes import app_address
from tests.conftest import Organisation, SignUp, Stack


@pytest.fixture
def direct(stack: Stack) -> str:
    """Address of the adapter itself."""
    return app_address(stack.layout, "loki-grpc")


async def test_an_owner_pushes_finds_and_follows_lines(direct: str, org: Organisation) -> None:
    async with Isa(direct, token=org.token) as isa:
        await isa.logs.push([Entry("one", labels={"service": "shop"}), Entry("two", labels={"service": "shop"})])
        page = await isa.logs.query('{service="shop"}')
        tail = isa.logs.tail('{service="shop"}', since=timedelta(minutes=1))
        followed = [(await asyncio.wait_for(anext(tail), 10)).line for _ in range(2)]
        await tail.aclose()

    assert sorted(entry.line for entry in page.entries) == sorted(followed) == ["one", "two"]
    assert page.entries[0].labels == {"service": "shop", "org": org.org_id}


async def test_another_organisation_sees_none_of_them(direct: str, org: Organisation, organisation: SignUp) -> None:
    other = await organisation("Other")
    async with Isa(direct, token=org.token) as mine, Isa(direct, token=other.token) as theirs:
        await mine.logs.push([Entry("mine")])

        assert (await theirs.logs.query('{service=~".+"}')).entries == []
        with pytest.raises(PermissionDenied):
            await theirs.logs.acting_for(org=org.org_id).query('{service=~".+"}')


async def test_without_a_token_nothing_is_told(direct: str) -> None:
    async with Isa(direct) as isa:
        with pytest.raises(Unauthenticated):
            await isa.logs.query('{service=~".+"}')
