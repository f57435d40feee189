"""The control topic: a replica is ready when everything before its own marker has been read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from isa.events import ControlChanged
from isa_common import PermissionDenied, Unavailable
from kernel import control as module
from kernel.caller import Caller
from kernel.chain import PLATFORM
from kernel.control import KEPT, Control
from kernel.identity import Revocations

NOBODY = Caller()


class Topic:
    """The topic, read by one replica when the test says so."""

    def __init__(self) -> None:
        self.records: list[ControlChanged] = []
        self.refusals: list[Exception | bool] = []

    async def __call__(self, event: ControlChanged) -> bool:
        refusal = self.refusals.pop(0) if self.refusals else True
        if isinstance(refusal, Exception):
            raise refusal
        if refusal:
            self.records.append(event)
        return refusal

    async def read(self, control: Control) -> None:
        for event in self.records:
            await control.note(NOBODY, event)


def change(subject: str, *, version: int = 1, state: str = "suspended") -> ControlChanged:
    return ControlChanged(aggregate_id=subject, aggregate_version=version, org_id="org-a", kind="user", state=state)


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_AFTER", 0.02)


async def test_a_replica_is_ready_when_its_marker_has_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    topic, revocations = Topic(), Revocations()
    topic.records.append(change("user-bob"))
    control = Control("tasks", revocations, topic)

    reading = asyncio.create_task(control.read_to_end())
    await asyncio.sleep(0.001)
    assert not reading.done()
    await topic.read(control)
    await reading

    with pytest.raises(PermissionDenied):
        revocations.check("user-bob", 0)
    assert topic.records[-1].org_id == PLATFORM


async def test_a_marker_is_no_verdict() -> None:
    topic, revocations = Topic(), Revocations()
    control = Control("tasks", revocations, topic)
    reading = asyncio.create_task(control.read_to_end())
    await asyncio.sleep(0.001)

    await topic.read(control)
    await reading

    assert not revocations._verdicts


async def test_neither_an_older_marker_nor_anothers_counts() -> None:
    topic, revocations = Topic(), Revocations()
    control = Control("tasks", revocations, topic)
    reading = asyncio.create_task(control.read_to_end())
    await asyncio.sleep(0.001)
    mine = topic.records[-1]

    await control.note(NOBODY, replace(mine, aggregate_version=mine.aggregate_version - 1))
    await control.note(NOBODY, replace(mine, aggregate_id="marker:users:elsewhere"))
    await control.note(NOBODY, replace(mine, kind="user"))
    await asyncio.sleep(0.001)
    assert not reading.done()

    await control.note(NOBODY, mine)
    await reading


async def test_a_marker_that_got_lost_is_sent_again() -> None:
    topic = Topic()
    control = Control("tasks", Revocations(), topic)
    topic.refusals = [False, Unavailable("No broker."), False]
    module_sleep = asyncio.create_task(control.read_to_end())

    async with asyncio.timeout(2):
        while not topic.records:
            await asyncio.sleep(0.005)
    await topic.read(control)
    await module_sleep

    assert topic.refusals == []


async def test_a_topic_that_cannot_be_read_stops_the_start() -> None:
    control = Control("tasks", Revocations(), Topic())

    with pytest.raises(Unavailable, match="control topic"):
        await control.read_to_end(at_most=0.05)


async def test_a_later_change_takes_hold_at_once() -> None:
    revocations = Revocations()
    control = Control("tasks", revocations, Topic())

    await control.note(NOBODY, change("user-bob", version=1))
    await control.note(NOBODY, change("user-bob", version=2, state="active"))

    revocations.check("user-bob", 0)


async def test_a_process_that_died_alone_still_knows_who_was_revoked(tmp_path: Path) -> None:
    kept, died = tmp_path / "spool" / "control.known", Revocations()
    control = Control("tasks", died, Topic(), kept=kept)
    control.remember()
    await control.note(NOBODY, change("user-bob"))
    await control.note(NOBODY, change("user-eve"))
    await control.note(NOBODY, change("user-bob", version=2, state="active"))
    with kept.open("a") as file:
        file.write('{"subject": "user-m')

    revocations = Revocations()
    Control("tasks", revocations, Topic(), kept=kept).remember()

    revocations.check("user-bob", 0)
    with pytest.raises(PermissionDenied):
        revocations.check("user-eve", 0)
    assert len(kept.read_text().splitlines()) == 2


async def test_what_no_token_can_outlive_is_dropped_from_the_disk(tmp_path: Path) -> None:
    kept, long_ago = tmp_path / "control.known", datetime.now(UTC) - 2 * KEPT
    control = Control("tasks", Revocations(), Topic(), kept=kept)
    old_session = replace(change("session-a", state="revoked"), kind="session", occurred_at=long_ago)

    await control.note(NOBODY, replace(change("user-eve"), occurred_at=long_ago))
    await control.note(NOBODY, old_session)

    assert [line.split('"')[3] for line in kept.read_text().splitlines()] == ["user-eve"]
