"""The audit spool: nothing that was answered is lost, and nobody fills it for others."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from isa.events import AuditEntry
from isa_common.errors import ResourceExhausted
from kernel.audit import RECORD_CAP, AuditSpool, decode, encode

FAST = timedelta(milliseconds=1)


def entry(number: int, **changes: object) -> AuditEntry:
    """Return a record that is told by its number."""
    fields: dict[str, object] = {
        "record_id": f"record-{number}",
        "at": datetime(2026, 3, 1, 12, 30, 15, 123456, tzinfo=UTC),
        "user_id": "user-alice",
        "workload": "",
        "service": "tasks",
        "action": "POST /v1/tasks",
        "resources": [f"task-{number}"],
        "outcome": "OK",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "correlation_id": "c-1",
    }
    return AuditEntry(**{**fields, **changes})  # type: ignore[arg-type]  # built by name


class Published:
    """What reached pub/sub, and a way to make it fail."""

    def __init__(self) -> None:
        self.batches: list[tuple[str, list[AuditEntry]]] = []
        self.is_down = False

    async def __call__(self, org: str, entries: list[AuditEntry]) -> None:
        if self.is_down:
            raise ConnectionError("The sidecar is away.")
        self.batches.append((org, entries))

    def ids(self, org: str = "org-a") -> list[str]:
        return [item.record_id for name, batch in self.batches for item in batch if name == org]


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def make_spool(tmp_path: Path, published: Published) -> Callable[..., AuditSpool]:
    def make(**options: object) -> AuditSpool:
        settings: dict[str, object] = {
            "publish_every": FAST,
            "fsync_every": FAST,
            "drain": timedelta(seconds=1),
            **options,
        }
        return AuditSpool(tmp_path, service="tasks", publish=published, **settings)  # type: ignore[arg-type]

    return make


async def until(is_true: Callable[[], bool], *, tick: Callable[[], Awaitable[None]] | None = None) -> None:
    """Wait for something that happens in the background."""
    for _ in range(1000):
        if is_true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("It did not happen within five seconds.")


@pytest.mark.ac("phase-v:SEC4:1")
async def test_records_are_published_in_order_and_grouped_by_organisation(
    make_spool: Callable[..., AuditSpool], published: Published, tmp_path: Path
) -> None:
    spool = make_spool()
    await spool.start()

    for number in range(450):
        spool.reserve("org-a", mutating=True).write(entry(number))
    spool.reserve("org-b", mutating=False).write(entry(1))
    await until(lambda: spool.waiting == 0)
    await spool.stop()

    assert published.ids("org-a") == [f"record-{number}" for number in range(450)]
    assert published.ids("org-b") == ["record-1"]
    assert max(len(batch) for _, batch in published.batches) <= 200
    assert list(tmp_path.iterdir()) == []
    assert spool.held_bytes == 0


async def test_a_record_keeps_every_field_on_its_way(
    make_spool: Callable[..., AuditSpool], published: Published
) -> None:
    spool = make_spool()
    await spool.start()
    record = entry(7, resources=["task-7", 'with "quotes" and\nlines'], outcome="PERMISSION_DENIED")

    spool.reserve("org-a", mutating=True).write(record)
    await until(lambda: spool.waiting == 0)
    await spool.stop()

    assert published.batches == [("org-a", [record])]


async def test_an_outage_delays_records_and_loses_none(
    make_spool: Callable[..., AuditSpool], published: Published
) -> None:
    spool = make_spool()
    await spool.start()
    published.is_down = True
    for number in range(10):
        spool.reserve("org-a", mutating=True).write(entry(number))
    await asyncio.sleep(0.05)

    published.is_down = False
    await until(lambda: spool.waiting == 0)
    await spool.stop()

    assert published.ids() == [f"record-{number}" for number in range(10)]


async def test_what_could_not_be_published_waits_for_the_next_start(
    make_spool: Callable[..., AuditSpool], published: Published, tmp_path: Path
) -> None:
    first = make_spool()
    await first.start()
    published.is_down = True
    for number in range(3):
        first.reserve("org-a", mutating=True).write(entry(number))
    await first.stop()

    published.is_down = False
    second = make_spool()
    await second.start()
    await until(lambda: second.waiting == 0)
    await second.stop()

    assert published.ids() == ["record-0", "record-1", "record-2"]
    assert list(tmp_path.iterdir()) == []


async def test_an_organisation_over_its_share_is_refused_changes_while_others_are_served(
    make_spool: Callable[..., AuditSpool], published: Published
) -> None:
    published.is_down = True
    spool = make_spool(capacity_bytes=40 * RECORD_CAP)
    await spool.start()
    slots = [spool.reserve("org-a", mutating=True) for _ in range(10)]

    with pytest.raises(ResourceExhausted) as refused:
        spool.reserve("org-a", mutating=True)

    assert refused.value.retry_after
    spool.reserve("org-b", mutating=True).release()
    spool.reserve("org-a", mutating=False).release()
    slots[0].release()
    spool.reserve("org-a", mutating=True).release()
    await spool.stop()


async def test_reads_over_the_share_never_take_the_room_of_others(
    make_spool: Callable[..., AuditSpool], published: Published
) -> None:
    published.is_down = True
    spool = make_spool(capacity_bytes=40 * RECORD_CAP)
    await spool.start()
    taken = 0

    with pytest.raises(ResourceExhausted):
        for _ in range(41):
            spool.reserve("org-a", mutating=False)
            taken += 1

    assert taken == 30
    for _ in range(10):
        spool.reserve("org-b", mutating=True)
    with pytest.raises(ResourceExhausted):
        spool.reserve("org-c", mutating=False)
    await spool.stop()


async def test_a_full_disk_refuses_calls_before_they_run(
    make_spool: Callable[..., AuditSpool], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = make_spool()
    await spool.start()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", refuse)
        with pytest.raises(ResourceExhausted):
            spool.reserve("org-a", mutating=True)
    spool._retry_disk_at = 0.0

    spool.reserve("org-a", mutating=True).release()
    await spool.stop()


async def test_a_torn_last_line_is_skipped(
    make_spool: Callable[..., AuditSpool], published: Published, tmp_path: Path
) -> None:
    left = tmp_path / "00000000000000000001-1"
    left.mkdir()
    (left / "0000000001.jsonl").write_bytes(encode("org-a", entry(1)) + encode("org-a", entry(2))[:-20] + b"\0" * 100)

    spool = make_spool()
    await spool.start()
    await until(lambda: spool.waiting == 0)
    await spool.stop()

    assert published.ids() == ["record-1"]
    assert list(tmp_path.iterdir()) == []


async def test_a_living_neighbour_keeps_its_records(
    make_spool: Callable[..., AuditSpool], published: Published, tmp_path: Path
) -> None:
    published.is_down = True
    first, second = make_spool(), make_spool()
    await first.start()
    first.reserve("org-a", mutating=True).write(entry(1))

    await second.start()

    assert second.waiting == 0
    await first.stop()
    await second.stop()


async def test_segments_are_deleted_once_acknowledged(make_spool: Callable[..., AuditSpool], tmp_path: Path) -> None:
    spool = make_spool(segment_bytes=4 * RECORD_CAP)
    await spool.start()

    for number in range(200):
        spool.reserve("org-a", mutating=True).write(entry(number))
    await until(lambda: spool.waiting == 0 and len(list(tmp_path.rglob("*.jsonl"))) <= 1)
    await spool.stop()


def test_a_record_over_the_cap_says_that_it_was_cut() -> None:
    line = encode("org-a", entry(1, resources=[f"task-{number:026d}" for number in range(500)]))

    _, kept = decode(line)

    assert len(line) <= RECORD_CAP
    assert kept.resources[0] == f"task-{0:026d}"
    assert kept.resources[-1] == f"and {501 - len(kept.resources)} more"


VICTIM = """
import asyncio, sys
from datetime import timedelta
from pathlib import Path
from kernel.audit import AuditSpool
from tests.unit.kernel.test_audit import entry

async def never(org, entries):
    await asyncio.sleep(3600)

async def main():
    spool = AuditSpool(Path(sys.argv[1]), service="tasks", publish=never, segment_bytes=65536)
    await spool.start()
    number = 0
    while True:
        spool.reserve("org-a", mutating=True).write(entry(number))
        print(number, flush=True)  # the reply
        number += 1
        if number % 50 == 0:
            await asyncio.sleep(0)

asyncio.run(main())
"""


@pytest.mark.ac("phase-v:SEC4:1")
async def test_no_answered_call_loses_its_record_to_sigkill(
    make_spool: Callable[..., AuditSpool], published: Published, tmp_path: Path
) -> None:
    root = Path(__file__).parents[3]
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert victim.stdout
    answered = -1
    while answered < 1500:
        answered = int(victim.stdout.readline())
    victim.send_signal(signal.SIGKILL)
    answered = max([answered, *(int(line) for line in victim.stdout.read().split("\n")[:-1])])
    victim.wait()

    spool = make_spool(batch_entries=1000)
    await spool.start()
    await until(lambda: spool.waiting == 0)
    await spool.stop()

    ids = published.ids()
    assert ids[: answered + 1] == [f"record-{number}" for number in range(answered + 1)]
    assert len(ids) <= answered + 2
    assert list(tmp_path.iterdir()) == []


async def test_what_came_faster_than_it_is_gathered_is_published_without_a_pause(
    make_spool: Callable[..., AuditSpool], published: Published
) -> None:
    spool = make_spool(publish_every=timedelta(seconds=0.2), batch_entries=10)
    await spool.start()
    for number in range(200):
        spool.reserve("org-a", mutating=True).write(entry(number))

    async with asyncio.timeout(2):  # twenty pauses would be four seconds
        await until(lambda: spool.waiting == 0)

    assert len(published.ids()) == 200
    await spool.stop()
