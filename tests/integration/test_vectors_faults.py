"""What becomes of vectors when a process dies, hangs, or the disk is full."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import (
    DeadlineExceeded,
    FailedPrecondition,
    Filter,
    Point,
    Range,
    ResourceExhausted,
    Unavailable,
)
from services.adapters.qdrant import embedded
from services.adapters.qdrant.app import Settings, create_app
from services.adapters.qdrant.shards import Shards
from tests.conformance.conftest import FakeParts, Secrets, person, serving

ORG = "org-faults"
WRITER = """
import asyncio, sys
from tests.integration.test_vectors_faults import points, serving_in

async def main():
    async with serving_in(sys.argv[1]) as (isa, _):
        await isa.vectors.create_collection("docs", dimension=8)
        n = 0
        while True:
            await isa.vectors.upsert("docs", points(range(n, n + 50)))
            n += 50
            print(n, flush=True)

asyncio.run(main())
"""


@asynccontextmanager
async def serving_in(folder: Path | str, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """A client of an adapter on a folder, and the adapter's backend."""
    settings = Settings(folder=Path(folder), **{"workers": 1, "spare": 0, **options})
    adapter = create_app(settings, FakeParts(Secrets({})))
    async with serving(adapter) as address, person(address, ORG) as isa:
        yield isa, adapter.implementation._backend


def points(numbers: Any) -> list[Point]:
    return [Point(n, [n, 1, 0, 0, 0, 0, 0, 0], {"n": n}) for n in numbers]


async def test_what_was_acknowledged_survives_the_death_of_every_process(tmp_path: Path) -> None:
    for enough in (3, 40):
        folder = tmp_path / str(enough)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, folder], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        assert writer.stdout is not None
        for _ in range(enough):
            assert writer.stdout.readline(), "the writer ended by itself"
        os.killpg(writer.pid, signal.SIGKILL)
        told = writer.stdout.read().split()
        writer.wait()
        acknowledged = int(told[-1]) if told else enough * 50

        async with serving_in(folder) as (isa, _):
            assert await isa.vectors.count("docs", Filter(must=[Range("n", lt=acknowledged)])) == acknowledged
            (hit,) = await isa.vectors.search("docs", [0, 1, 0, 0, 0, 0, 0, 0], limit=1)
            assert hit.id == 0


async def test_a_killed_worker_is_replaced_and_has_lost_nothing(tmp_path: Path) -> None:
    acknowledged = 0
    async with serving_in(tmp_path) as (isa, backend):
        await isa.vectors.create_collection("docs", dimension=8)

        async def write() -> None:
            nonlocal acknowledged
            while acknowledged < 3000:
                await isa.vectors.upsert("docs", points(range(acknowledged, acknowledged + 20)))
                acknowledged += 20

        writing = asyncio.create_task(write())
        for _ in range(3):
            so_far = acknowledged
            while acknowledged < so_far + 200:
                await asyncio.sleep(0)
            backend._workers[0]._process.kill()
        await writing  # an upsert is idempotent: the client repeats it

        assert await isa.vectors.count("docs") == acknowledged
        assert [point.id async for point in isa.vectors.scroll("docs", page=1000)] == list(range(acknowledged))


async def test_a_call_without_retry_learns_of_the_death(tmp_path: Path) -> None:
    async with serving_in(tmp_path) as (isa, backend):
        process = backend._workers[0]._process
        process.send_signal(signal.SIGSTOP)
        creating = asyncio.create_task(isa.vectors.create_collection("docs", dimension=8))
        while not backend._workers[0]._sent:
            await asyncio.sleep(0)

        process.kill()

        with pytest.raises(Unavailable):
            await creating
        assert await isa.vectors.list_collections() == []


async def test_a_hung_worker_is_waited_for_no_longer_than_the_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving_in(tmp_path) as (isa, backend):
        await isa.vectors.create_collection("docs", dimension=8)
        process = backend._workers[0]._process
        process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(DeadlineExceeded):
                await isa.vectors.count("docs", timeout=timedelta(milliseconds=200))
            monkeypatch.setattr(embedded, "WAITING", 0)
            with pytest.raises(ResourceExhausted):
                await isa.vectors.create_collection("more", dimension=8)
        finally:
            monkeypatch.undo()
            process.send_signal(signal.SIGCONT)

        assert await isa.vectors.count("docs") == 0


async def test_a_tenant_waits_for_one_call_of_another_at_a_time(tmp_path: Path) -> None:
    async with serving_in(tmp_path) as (_, backend):
        process = backend._workers[0]._process
        process.send_signal(signal.SIGSTOP)
        done: list[str] = []

        async def ask(tenant: str) -> None:
            await backend.call("ListCollections", tenant, pb.ListCollectionsRequest())
            done.append(tenant)

        flood = [asyncio.create_task(ask("org-flood")) for _ in range(50)]
        while len(backend._workers[0]._sent) < 2:
            await asyncio.sleep(0)
        neighbour = asyncio.create_task(ask("org-quiet"))
        await asyncio.sleep(0)
        process.send_signal(signal.SIGCONT)
        await asyncio.gather(neighbour, *flood)

        assert done.index("org-quiet") <= 3


async def test_a_folder_has_one_replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving_in(tmp_path) as (isa, _):
        monkeypatch.setattr(embedded, "START_WITHIN", 0.5)
        with pytest.raises(FailedPrecondition):
            async with serving_in(tmp_path):
                pass

        assert await isa.vectors.list_collections() == []


async def test_closed_collections_are_opened_again_under_concurrent_calls(tmp_path: Path) -> None:
    async with serving_in(tmp_path, workers=2, open_shards=2) as (isa, _):
        names = [f"c{n}" for n in range(8)]
        await asyncio.gather(*(isa.vectors.create_collection(name, dimension=8) for name in names))

        async def use(name: str, start: int) -> None:
            await isa.vectors.upsert(name, points(range(start, start + 10)))
            found = await isa.vectors.search(name, [start, 1, 0, 0, 0, 0, 0, 0], limit=1, exact=True)
            assert len(found) == 1
            assert len(await isa.vectors.get(name, range(start, start + 10))) == 10

        await asyncio.gather(*(use(name, start) for start in range(0, 100, 10) for name in names))

        assert await asyncio.gather(*(isa.vectors.count(name) for name in names)) == [100] * 8


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mounting, capture_output=True, check=False).returncode:
        pytest.skip("only root mounts file systems")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_full_disk_refuses_writes_and_serves_reads(small_disk: Path) -> None:
    async with serving_in(small_disk, spare=12 << 20) as (isa, backend):
        await isa.vectors.create_collection("docs", dimension=512)
        stored = 0

        with pytest.raises(ResourceExhausted):
            while stored < 100_000:
                await isa.vectors.upsert("docs", [Point(n, [n] * 512) for n in range(stored, stored + 200)])
                stored += 200

        assert stored
        assert backend._workers[0]._process.returncode is None
        assert await isa.vectors.count("docs") == stored
        assert len(await isa.vectors.search("docs", [1] * 512)) == 10
        await isa.vectors.delete("docs", ids=[0])
        await isa.vectors.delete_collection("docs")
        await isa.vectors.create_collection("docs", dimension=512)
        await isa.vectors.upsert("docs", [Point(1, [1] * 512)])


def test_a_disk_that_is_read_only_refuses_writes_and_serves_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = Shards(tmp_path, number=0, open_most=2, collections_most=2, spare=0)
    params = pb.CollectionParams(vector=pb.VectorParams(dimension=1))
    shards.create_collection("org-a.aa", pb.CreateCollectionRequest(params=params))
    disk = list(os.statvfs(tmp_path))
    disk[8] |= os.ST_RDONLY
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result(disk))

    with pytest.raises(ResourceExhausted):
        shards.upsert("org-a.aa", pb.UpsertRequest(points=[pb.Point(id=pb.PointId(number=1), vector=b"\0\0\0\0")]))
    with pytest.raises(ResourceExhausted):
        shards.create_collection("org-a.bb", pb.CreateCollectionRequest(params=params))

    assert shards.count("org-a.aa", pb.CountRequest()).count == 0
    shards.close()
