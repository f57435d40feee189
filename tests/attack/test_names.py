"""Every text of every request, filled with names that try to reach the other tenant."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import pytest
from google.protobuf.message import Message

from isa_common import Isa
from tests.attack.audited import audited
from tests.attack.calls import Tally, Wire, storm
from tests.attack.conftest import served
from tests.attack.surface import Rpc, requests, texts
from tests.attack.tenants import TENANCIES
from tests.attack.values import Names, hostile
from tests.conftest import SignUp, Stack


def attacks(rpc: Rpc, victim: Names, attacker: Names) -> Iterator[list[Message]]:
    """Yield requests of an attacker: all that the victim would send, then each text replaced by each hostile one."""
    values = victim.values(attacker.secret)
    yield from requests(rpc, values)
    usual = next(requests(rpc, values))
    for place, message in enumerate(usual):
        for at, _ in enumerate(texts(message)):
            for text in hostile(victim, attacker):
                changed = [type(each).FromString(each.SerializeToString()) for each in usual]
                _, is_bytes, put = next(itertools.islice(texts(changed[place]), at, None))
                put(text.encode() if is_bytes else text)
                yield changed


@pytest.mark.parametrize("capability", sorted(TENANCIES))
@pytest.mark.ac("isa-cloud-prd:E1-US2:AC-2.2", "isa-cloud-prd:E1-US2:AC-2.3")
async def test_no_name_reaches_another_tenant(
    capability: str, stack: Stack, wire: Wire, tally: Tally, isa_of: Callable[[str], Isa], organisation: SignUp
) -> None:
    victim, attacker = await organisation("Victim"), await organisation("Attacker")
    theirs, mine = Names(victim.org_id, victim.user_id), Names(attacker.org_id, attacker.user_id)
    fill, look = TENANCIES[capability]
    isa = isa_of(victim.token)
    await fill(isa, theirs)
    before = await look(isa, theirs)
    assert before, "the victim has something to lose"
    metadata = {"authorization": f"Bearer {attacker.token}", "dapr-caller-app-id": "users", "x-scope-orgid": theirs.org}
    secrets = (theirs.secret, theirs.hidden.encode())
    known: set[str] = set()

    async def case(rpc: Rpc, messages: list[Message]) -> None:
        sent = b"".join(message.SerializeToString() for message in messages)
        answer = await wire.call(rpc, messages, metadata)
        known.add(answer.correlation_id)
        tally.note(f"{rpc.name} {sent[:60]!r}", answer, markers=secrets, sent=sent)

    await storm(
        lambda r=rpc, m=messages: case(r, m) for rpc in served(capability) for messages in attacks(rpc, theirs, mine)
    )
    tally.calls = len(known)
    tally.audited = await audited(stack, attacker.org_id, known)

    assert not tally.leaks, "\n".join(tally.leaks[:20])
    assert not tally.faults, "\n".join(tally.faults[:20])
    assert await look(isa, theirs) == before, "the victim's things are as they were"
    assert tally.audited == tally.calls
