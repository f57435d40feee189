"""Objects while the store is away, hung or full, and memory while a large one passes: on a store of this file's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from isa_common import DeadlineExceeded, Isa, IsaError, Objects, ResourceExhausted, Unavailable
from runtime.layout import CHECKOUT
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import PATIENCE, Program, binary, free_port, until_served

MIB = 1 << 20
KEYS = {"minio-access-key": "tester", "minio-secret-key": "a long secret"}
LARGE = int(os.environ.get("ISA_TEST_LARGE_OBJECT_MIB", "256"))
"""MiB of the object whose passage must not take memory; the long form is 1024 and more."""
GROWTH = 64 * MIB


class Server(Program):
    """A MinIO on a port and a folder of its own; `room` puts the folder on a file system of so many MiB."""

    def __init__(self, folder: Path, *, room: int = 0) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._data = folder / "data"
        self._data.mkdir()
        command = [binary("minio", "minio"), "server", "--quiet", "--address", self.address, str(self._data)]
        if room:
            mount = f'mount -t tmpfs -o size={room}m tmpfs "$0" && exec "$@"'
            command = ["unshare", "--mount", "--map-root-user", "sh", "-c", mount, str(self._data), *command]
        environment = {
            "MINIO_BROWSER": "off",
            "MINIO_CI_CD": "1",  # takes a folder on tmpfs
            "MINIO_ROOT_USER": KEYS["minio-access-key"],
            "MINIO_ROOT_PASSWORD": KEYS["minio-secret-key"],
        }
        super().__init__(*command, log=folder / "minio.log", env=environment)

    async def grow(self, room: int) -> None:
        """Give the file system more room; what was deleted leaves MinIO's own only after minutes."""
        inside = ["nsenter", f"--target={self.pid}", "--user", "--preserve-credentials", "--mount"]
        command = [*inside, "mount", "-o", f"remount,size={room}m", str(self._data)]
        growing = await asyncio.create_subprocess_exec(*command)
        assert await growing.wait() == 0


@asynccontextmanager
async def adapted(server: Server) -> AsyncIterator[Isa]:
    """A client of an organisation, through an adapter on the server."""
    from services.adapters.minio.app import Settings, create_app

    settings = Settings(url=f"http://{server.address}", timeout=timedelta(seconds=2))
    async with serving(create_app(settings, FakeParts(Secrets(KEYS)))) as address, person(address, "org-a") as isa:
        await until_served(lambda: isa.objects.list_buckets(timeout=timedelta(seconds=2)))
        await isa.objects.create_bucket("uploads")
        yield isa


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """A server that runs."""
    server = Server(tmp_path)
    await server.start()
    yield server
    await server.end()


@pytest_asyncio.fixture
async def objects(server: Server) -> AsyncIterator[Objects]:
    """Objects on it."""
    async with adapted(server) as isa:
        yield isa.objects


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * MIB


async def every_kind(objects: Objects) -> list[object]:
    """One call of each kind, with what became of it."""
    second = timedelta(seconds=1)
    return await asyncio.gather(
        objects.stat("uploads", "a", timeout=second),
        objects.get("uploads", "a", timeout=second),
        objects.put("uploads", "b", pieces(1), timeout=second),
        objects.put("uploads", "c", pieces(20), timeout=second),
        objects.page("uploads", timeout=second),
        objects.list_buckets(timeout=second),
        objects.copy("uploads", "a", "d", timeout=second),
        objects.delete("uploads", "e", timeout=second),
        objects.create_multipart_upload("uploads", "f", timeout=second),
        return_exceptions=True,
    )


async def test_a_store_that_is_away_is_unavailable_and_served_again_when_it_is_back(
    objects: Objects, server: Server
) -> None:
    await objects.put("uploads", "a", b"before")
    await server.end()

    ends = await every_kind(objects)

    assert {type(end) for end in ends} <= {Unavailable, DeadlineExceeded}
    assert all(server.address not in str(end) and "minio" not in str(end).lower() for end in ends)
    await server.start()
    await until_served(lambda: objects.list_buckets(timeout=timedelta(seconds=2)))
    assert await objects.get("uploads", "a") == b"before"
    assert [each.key async for each in objects.list("uploads")] == ["a"]


async def test_a_store_that_hangs_ends_calls_by_their_deadline(objects: Objects, server: Server) -> None:
    await objects.put("uploads", "a", b"before")
    server.signal(signal.SIGSTOP)

    ends = await every_kind(objects)

    assert {type(end) for end in ends} <= {Unavailable, DeadlineExceeded}
    server.signal(signal.SIGCONT)
    await until_served(lambda: objects.list_buckets(timeout=timedelta(seconds=2)))
    assert await objects.get("uploads", "a") == b"before"


async def test_a_transfer_without_deadline_ends_when_the_store_hangs(objects: Objects, server: Server) -> None:
    await objects.put("uploads", "a", b"x" * 32 * MIB)
    reading = objects.read("uploads", "a")
    first = await anext(reading)
    server.signal(signal.SIGSTOP)

    async with asyncio.timeout(PATIENCE):
        with pytest.raises((DeadlineExceeded, Unavailable)):
            await objects.put("uploads", "b", pieces(64))

    server.signal(signal.SIGCONT)
    async with asyncio.timeout(PATIENCE):
        assert len(first) + sum([len(data) async for data in reading]) == 32 * MIB
    await until_served(lambda: objects.list_buckets(timeout=timedelta(seconds=2)))


async def test_a_download_goes_on_after_the_store_was_away(objects: Objects, server: Server) -> None:
    data = os.urandom(64 * MIB)
    await objects.put("uploads", "a", data)
    read = hashlib.sha256()

    async with asyncio.timeout(3 * PATIENCE):
        is_killed = False
        async for piece in objects.read("uploads", "a"):
            read.update(piece)
            if not is_killed:
                is_killed = True
                await server.end()
                await server.start()

    assert read.digest() == hashlib.sha256(data).digest()


async def test_bytes_are_sent_again_and_an_iterator_is_not(objects: Objects, server: Server) -> None:
    await server.end()
    again = asyncio.create_task(objects.put("uploads", "a", b"x" * 9 * MIB))
    with pytest.raises(Unavailable):
        await objects.put("uploads", "b", pieces(9))

    await server.start()

    async with asyncio.timeout(PATIENCE):
        await again
    assert [each.key async for each in objects.list("uploads")] == ["a"]


async def test_an_upload_that_its_client_leaves_stores_nothing(objects: Objects) -> None:
    is_underway = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield b"x" * MIB
        is_underway.set()
        await asyncio.Event().wait()

    uploading = asyncio.create_task(objects.put("uploads", "a", endless()))
    await is_underway.wait()
    uploading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await uploading

    assert [each.key async for each in objects.list("uploads")] == []


async def test_a_full_store_is_told_and_serves_again_when_there_is_room(tmp_path: Path) -> None:
    probe = await asyncio.create_subprocess_exec("unshare", "--mount", "--map-root-user", "true")
    if await probe.wait():
        pytest.skip("this machine gives nobody a file system of their own")
    server = Server(tmp_path, room=96)
    await server.start()
    try:
        async with adapted(server) as isa:
            objects = isa.objects
            await objects.put("uploads", "small", b"x")
            with pytest.raises(IsaError) as caught:
                for number in range(16):
                    await objects.put("uploads", f"large-{number}", os.urandom(9 * MIB))
            assert isinstance(caught.value, ResourceExhausted), caught.value

            assert await objects.get("uploads", "small") == b"x"
            await server.grow(256)
            async with asyncio.timeout(PATIENCE):
                while True:  # the store takes a moment to see the room
                    try:
                        await objects.put("uploads", "again", b"x" * 9 * MIB)
                        break
                    except (ResourceExhausted, Unavailable):
                        await asyncio.sleep(0.2)
    finally:
        await server.end()


CHILD = """
import asyncio, json, resource, sys
import uvloop
from services.adapters.minio.app import Settings, create_app
from kernel.shares import Limits, Shares
from tests.conformance.conftest import FakeParts, Secrets, serving

async def main() -> None:
    parts = FakeParts(Secrets(json.loads(sys.argv[2])), Shares(Limits(bytes=1 << 50)))
    async with serving(create_app(Settings(url=sys.argv[1]), parts)) as address:
        print(address, flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, flush=True)

uvloop.run(main())
"""


async def test_memory_does_not_grow_with_an_object(server: Server) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        f"http://{server.address}",
        json.dumps(KEYS),
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdin is not None
    assert child.stdout is not None

    async def peak() -> int:
        child.stdin.write(b"\n")
        return int(await child.stdout.readline())

    try:
        address = (await child.stdout.readline()).decode().strip()
        async with person(address, "org-a") as isa:
            objects = isa.objects
            await until_served(lambda: objects.list_buckets(timeout=timedelta(seconds=2)))
            await objects.create_bucket("uploads")
            await objects.put("uploads", "warm", pieces(1))
            before = await peak()

            await objects.put("uploads", "large", pieces(LARGE), timeout=timedelta(0))
            uploaded = await peak()
            size = 0
            async for data in objects.read("uploads", "large"):
                size += len(data)
            downloaded = await peak()
    finally:
        child.stdin.close()
        await child.wait()

    assert size == LARGE * MIB
    assert uploaded - before < GROWTH, f"an upload took {(uploaded - before) // MIB} MiB"
    assert downloaded - before < GROWTH, f"a download took {(downloaded - before) // MIB} MiB"
