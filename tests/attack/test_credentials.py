"""Every RPC, with every credential that must not open it."""

from __future__ import annotations

import asyncio

import pytest

from tests.attack.calls import Tally, Wire, storm
from tests.attack.conftest import served
from tests.attack.credentials import NOBODY, NOT_ALLOWED, Credential, Signer, bad
from tests.attack.surface import Rpc, requests
from tests.attack.tenants import TENANCIES
from tests.attack.values import Names
from tests.conftest import PASSWORD, SignUp


async def refused(wire: Wire, tally: Tally, rpcs: list[Rpc], credentials: list[Credential], names: Names) -> None:
    """Try each RPC with each credential; the wrong answers, all of them."""
    wrong: list[str] = []

    async def case(rpc: Rpc, credential: Credential) -> None:
        answer = await wire.call(rpc, next(requests(rpc, names.values())), credential.metadata)
        tally.note(f"{rpc.name} with {credential.name}", answer, markers=[names.secret])
        if answer.code not in credential.expected:
            wrong.append(f"{rpc.name} with {credential.name}: {answer.code.name} {answer.body[:300]!r}")

    await storm(lambda r=rpc, c=credential: case(r, c) for rpc in rpcs for credential in credentials)
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("capability", sorted(TENANCIES))
@pytest.mark.ac("isa-cloud-prd:E1-US1:AC-1.5")
async def test_no_rpc_takes_a_bad_credential(
    capability: str, wire: Wire, tally: Tally, signing: Signer, organisation: SignUp
) -> None:
    victim, attacker = await organisation("Victim"), await organisation("Attacker")
    names = Names(victim.org_id, victim.user_id)

    await refused(wire, tally, served(capability), bad(signing, victim, attacker), names)


@pytest.mark.parametrize("capability", sorted(TENANCIES))
async def test_a_viewer_changes_nothing(
    capability: str, wire: Wire, tally: Tally, signing: Signer, organisation: SignUp
) -> None:
    org = await organisation()
    token = signing.person(org.org_id, org.user_id, roles=["viewer"])
    viewer = Credential("a viewer's token", {"authorization": f"Bearer {token}"}, NOT_ALLOWED)
    writes = [rpc for rpc in served(capability) if not rpc.permission.endswith(".read")]
    assert writes

    await refused(wire, tally, writes, [viewer], Names(org.org_id, org.user_id))


@pytest.mark.parametrize("capability", sorted(TENANCIES))
async def test_a_suspended_user_reaches_nothing(
    capability: str, wire: Wire, tally: Tally, signing: Signer, organisation: SignUp
) -> None:
    org = await organisation()
    users = org.client("users")
    invited = (await users.post("/v1/org/invitations", json={"email": f"g{org.user_id[5:]}@example.org"})).json()
    body = {"token": invited["token"], "name": "Grace", "password": PASSWORD}
    joined = (await users.post("/v1/invitations/accept", json=body)).json()
    user = joined["user"]["id"]
    assert (await users.put(f"/v1/org/members/{user}/suspension")).status_code == 200
    fresh = signing.person(org.org_id, user)  # newer than the suspension
    for token in (joined["access_token"], fresh):
        suspended = Credential("a suspended user", {"authorization": f"Bearer {token}"}, NOT_ALLOWED)
        await until_refused(wire, capability, suspended)
        await refused(wire, tally, served(capability), [suspended], Names(org.org_id, user))


async def until_refused(wire: Wire, capability: str, credential: Credential) -> None:
    """Wait until an adapter has heard of it: within a second, everywhere."""
    probe = served(capability)[0]
    request = next(requests(probe, Names("org-x", "user-x").values()))
    async with asyncio.timeout(10):
        while (await wire.call(probe, request, credential.metadata)).code not in credential.expected:
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("capability", sorted(TENANCIES))
async def test_an_ended_session_reaches_nothing(
    capability: str, wire: Wire, tally: Tally, organisation: SignUp
) -> None:
    org = await organisation()
    names = Names(org.org_id, org.user_id)
    ended = Credential("an ended session", {"authorization": f"Bearer {org.token}"}, NOBODY)
    assert (await org.client("users").post("/v1/logout")).status_code == 204
    await until_refused(wire, capability, ended)

    await refused(wire, tally, served(capability), [ended], names)
