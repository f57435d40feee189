"""The embedded backend: worker processes with the engine in them, and who asks which."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
import sys
import zlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import Code, FailedPrecondition, ResourceExhausted, Unavailable
from isa_common.errors import error_class
from kernel import ErrorMap, log
from services.adapters.qdrant.worker import LENGTH, Answer, Asked

WAITING = 2048
"""Calls that may wait for one worker."""
UNSENT = 64 << 20
"""Bytes that may wait for one worker, beside those of one call."""
START_WITHIN = 30.0

_RESPONSES = {
    each.name: GetMessageClass(each.output_type) for each in pb.DESCRIPTOR.services_by_name["Vectors"].methods
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a worker is told."""

    folder: str
    open_most: int
    collections_most: int
    spare: int


class Worker(asyncio.Protocol):
    """One process, and the calls that wait for it; it answers in their order."""

    def __init__(self, number: int, options: Options) -> None:
        self._number = number
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] | None = None
        self._waiting: deque[asyncio.Future[list[Answer]]] = deque()
        self._buffer = bytearray()
        self._starting = asyncio.Lock()

    async def start(self) -> None:
        """Start the process, and wait until it has the folder."""
        async with self._starting:
            if self._transport is not None:
                return
            loop = asyncio.get_running_loop()
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "services.adapters.qdrant.worker",
                    str(theirs.fileno()),
                    str(self._number),
                    json.dumps(asdict(self._options)),
                    pass_fds=(theirs.fileno(),),
                )
            self._buffer.clear()
            self._ready = loop.create_future()
            transport, _ = await loop.create_connection(lambda: self, sock=ours)
            try:
                async with asyncio.timeout(START_WITHIN):
                    await self._ready
            except TimeoutError:
                transport.abort()
                self._process.kill()
                raise FailedPrecondition("Another replica has the folder of the vectors.") from None
            self._transport = transport

    async def ask(self, calls: Sequence[Asked]) -> list[Answer]:
        """Have calls done, in order."""
        if self._transport is None:
            await self.start()
        assert self._transport is not None, "just started"
        if len(self._waiting) >= WAITING or self._transport.get_write_buffer_size() > UNSENT:
            raise ResourceExhausted("Too many calls wait for the vectors.", retry_after=timedelta(milliseconds=100))
        frame = marshal.dumps(list(calls))
        answer: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write(LENGTH.pack(len(frame)) + frame)
        return await answer

    def data_received(self, data: bytes) -> None:
        """Give each whole answer to the call that has waited longest."""
        self._buffer += data
        while len(self._buffer) >= LENGTH.size:
            end = LENGTH.size + LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            frame = bytes(memoryview(self._buffer)[LENGTH.size : end])
            del self._buffer[:end]
            if not frame:
                if self._ready is not None and not self._ready.done():
                    self._ready.set_result(None)
                continue
            answer = self._waiting.popleft()
            if not answer.done():  # its caller may be gone
                answer.set_result(marshal.loads(frame))  # noqa: S302 -- between two processes of ours

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell everybody who waits; the next call starts a new process."""
        self._transport = None
        gone = Unavailable("The engine was stopped. Try again.", retry_after=timedelta(milliseconds=200))
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(gone)
        while self._waiting:
            answer = self._waiting.popleft()
            if not answer.done():
                answer.set_exception(gone)

    async def stop(self) -> None:
        """Let the process close its collections, and wait for its end."""
        if self._transport is not None:
            self._transport.close()
        if self._process is not None:
            try:
                async with asyncio.timeout(START_WITHIN):
                    await self._process.wait()
            except TimeoutError:
                log.warning("vectors.worker.killed", number=self._number)
                with suppress(ProcessLookupError):
                    self._process.kill()


class Embedded:
    """Collections in the embedded engine, spread over worker processes by their names."""

    CAPABILITIES: frozenset[str] = frozenset({"indexes"})
    ERRORS: ClassVar[ErrorMap] = {}  # the workers speak of nothing but our own errors

    def __init__(self, folder: Path, *, workers: int, open_shards: int, collections: int, spare: int) -> None:
        self._folder = folder
        options = Options(
            folder=str(folder.absolute()),
            open_most=max(1, open_shards // workers),
            collections_most=collections,
            spare=spare,
        )
        self._workers = [Worker(number, options) for number in range(workers)]

    async def start(self) -> None:
        """Start every worker."""
        self._folder.mkdir(parents=True, exist_ok=True)
        await asyncio.gather(*(worker.start() for worker in self._workers))

    async def stop(self) -> None:
        """Stop every worker."""
        await asyncio.gather(*(worker.stop() for worker in self._workers))

    async def call(self, method: str, name: str, request: Message) -> Any:
        """Have one call done."""
        (answer,) = await self._worker(name).ask([(method, name, request.SerializeToString())])
        return _read(method, answer)

    async def call_many(self, method: str, calls: Sequence[tuple[str, Message]]) -> list[Any]:
        """Have many calls done; an outcome each, which may be an error of ours."""
        by_name: dict[str, list[int]] = {}
        for at, (name, _) in enumerate(calls):
            by_name.setdefault(name, []).append(at)
        groups = await asyncio.gather(
            *(
                self._worker(name).ask([(method, name, calls[at][1].SerializeToString()) for at in places])
                for name, places in by_name.items()
            )
        )
        outcomes: list[Any] = [None] * len(calls)
        for places, answers in zip(by_name.values(), groups, strict=True):
            for at, answer in zip(places, answers, strict=True):
                outcomes[at] = _outcome(method, answer)
        return outcomes

    async def stored(self, tenant: str) -> int:
        """Bytes that a tenant's folder takes on the disk."""
        return await asyncio.to_thread(_size, self._folder / tenant)

    def _worker(self, name: str) -> Worker:
        return self._workers[zlib.crc32(name.encode()) % len(self._workers)]


def _outcome(method: str, answer: Answer) -> Any:
    if isinstance(answer, bytes):
        return _RESPONSES[method].FromString(answer)
    code, reason, message, field = answer
    return error_class(Code(code), reason)(message, field=field)


def _read(method: str, answer: Answer) -> Any:
    outcome = _outcome(method, answer)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _size(folder: Path) -> int:
    """Blocks, not lengths: the engine's files have holes."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, file)).st_blocks * 512  # noqa: PTH116, PTH118 -- many files
    return total
