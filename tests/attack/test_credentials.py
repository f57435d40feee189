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
from tests.conftest import SignUp


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
async def test_an_ended_session_reaches_nothing(
    capability: str, wire: Wire, tally: Tally, organisation: SignUp
) -> None:
    org = await organisation()
    names = Names(org.org_id, org.user_id)
    ended = Credential("an ended session", {"authorization": f"Bearer {org.token}"}, NOBODY)
    assert (await org.client("users").post("/v1/logout")).status_code == 204
    probe = served(capability)[0]
    async with asyncio.timeout(10):  # told everywhere within a second
        while (await wire.call(probe, next(requests(probe, names.values())), ended.metadata)).code not in NOBODY:
            await asyncio.sleep(0.02)

    await refused(wire, tally, served(capability), [ended], names)
