"""The embedded backend: worker processes with the engine in them, and who asks which."""

from __future__ import annotations

import asyncio
import json
import marshal
import os
import socket
import sys
import zlib
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import Code, FailedPrecondition, IsaError, ResourceExhausted, Unavailable
from isa_common.errors import error_class
from kernel import ErrorMap, log
from services.adapters.qdrant.worker import LENGTH, Answer, Asked

WAITING = 2048
"""Calls that may wait for one worker."""
UNSENT = 64 << 20
"""Bytes of calls that may wait for one worker, beside the latest."""
SENT = 2
"""Frames that a worker has at a time: one that it works on, and the next."""
TOGETHER = 32
"""Items of a batch in one frame, so that others get their turn between two."""
START_WITHIN = 30.0

_RESPONSES = {
    each.name: GetMessageClass(each.output_type) for each in pb.DESCRIPTOR.services_by_name["Vectors"].methods
}


_Waiting = tuple[bytes, "asyncio.Future[list[Answer]]"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a worker is told."""

    folder: str
    open_most: int
    collections_most: int
    spare: int


class Worker(asyncio.Protocol):
    """One process, and the calls that wait for it, of each tenant one in turn; it answers in the order of frames."""

    def __init__(self, number: int, options: Options) -> None:
        self._number = number
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self._transport: asyncio.Transport | None = None
        self._ready: asyncio.Future[None] | None = None
        self._queues: OrderedDict[str, deque[_Waiting]] = OrderedDict()
        self._size = self._count = 0
        self._sent: deque[asyncio.Future[list[Answer]]] = deque()
        self._buffer = bytearray()
        self._starting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process, and wait until it has the folder; who stops waiting does not stop the start."""
        if self._starting is None or self._starting.done():
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def _start(self) -> None:
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
        loop = asyncio.get_running_loop()
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

    async def ask(self, tenant: str, calls: Sequence[Asked]) -> list[Answer]:
        """Have calls done, in order."""
        if self._transport is None:
            await self.start()
        if self._count >= WAITING or self._size > UNSENT:
            raise ResourceExhausted("Too many calls wait for the vectors.", retry_after=timedelta(milliseconds=100))
        frame = marshal.dumps(list(calls))
        answer: asyncio.Future[list[Answer]] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(tenant, deque()).append((frame, answer))
        self._count += 1
        self._size += len(frame)
        self._send()
        return await answer

    def _send(self) -> None:
        """Send what may be sent: of the tenant whose turn it is, the call that has waited longest."""
        while self._queues and len(self._sent) < SENT and self._transport is not None:
            tenant, queue = self._queues.popitem(last=False)
            frame, answer = queue.popleft()
            self._count -= 1
            self._size -= len(frame)
            if queue:
                self._queues[tenant] = queue
            if not answer.done():  # its caller may be gone
                self._transport.write(LENGTH.pack(len(frame)) + frame)
                self._sent.append(answer)

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
            answer = self._sent.popleft()
            self._send()
            if not answer.done():
                answer.set_result(marshal.loads(frame))  # noqa: S302 -- between two processes of ours

    def connection_lost(self, _error: Exception | None) -> None:
        """Tell everybody who waits; the next call starts a new process."""
        self._transport = None
        gone = Unavailable("The engine was stopped. Try again.", retry_after=timedelta(milliseconds=200))
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(gone)
        lost = [*self._sent, *(answer for queue in self._queues.values() for _, answer in queue)]
        self._sent.clear()
        self._queues.clear()
        self._size = self._count = 0
        for answer in lost:
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
        (answer,) = await self._ask(name, [(method, name, request.SerializeToString())])
        outcome = _outcome(method, answer)
        if isinstance(outcome, IsaError):
            raise outcome
        return outcome

    async def call_many(self, method: str, calls: Sequence[tuple[str, Message]]) -> list[Any]:
        """Have many calls done; an outcome each, which may be an error of ours."""
        by_name: dict[str, list[int]] = {}
        for at, (name, _) in enumerate(calls):
            by_name.setdefault(name, []).append(at)
        outcomes: list[Any] = [None] * len(calls)

        async def ask(name: str, places: list[int]) -> None:
            for start in range(0, len(places), TOGETHER):
                part = places[start : start + TOGETHER]
                answers = await self._ask(name, [(method, name, calls[at][1].SerializeToString()) for at in part])
                for at, answer in zip(part, answers, strict=True):
                    outcomes[at] = _outcome(method, answer)

        await asyncio.gather(*(ask(name, places) for name, places in by_name.items()))
        return outcomes

    async def stored(self, tenant: str) -> int:
        """Bytes that a tenant's folder takes on the disk."""
        return await asyncio.to_thread(_size, self._folder / tenant)

    async def _ask(self, name: str, calls: Sequence[Asked]) -> list[Answer]:
        """Ask the worker of a collection, in its tenant's turn."""
        worker = self._workers[zlib.crc32(name.encode()) % len(self._workers)]
        return await worker.ask(name.partition(".")[0], calls)


def _outcome(method: str, answer: Answer) -> Any:
    if isinstance(answer, bytes):
        return _RESPONSES[method].FromString(answer)
    code, reason, message, field, said = answer
    if said:
        log.error("vectors.engine.failed", method=method, exception=said)
    return error_class(Code(code), reason)(message, field=field)


def _size(folder: Path) -> int:
    """Blocks, not lengths: the engine's files have holes."""
    total = 0
    for place, _, files in os.walk(folder):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(place, file)).st_blocks * 512  # noqa: PTH116, PTH118 -- many files
    return total
