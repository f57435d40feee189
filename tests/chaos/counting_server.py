"""An adapter in a process of its own that writes down every write before it answers; made to be killed.

Run as `python -m tests.chaos.counting_server PORT FILE`. It says `ready` on standard output when it listens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from isa.cache.v1 import cache_pb2
from isa_common import Unimplemented
from kernel.rpc.binding import python_name, service_named
from kernel.rpc.server import Adapter
from tests.conformance.conftest import serving


class Counting:
    """The cache's contract as far as the test needs it: every counter that is added to leaves its key in a file."""

    def __init__(self, log: int) -> None:
        self._log = log

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def get(self, caller: object, request: cache_pb2.GetRequest) -> cache_pb2.GetResponse:
        return cache_pb2.GetResponse(value=request.key.encode())

    async def mget(self, caller: object, request: cache_pb2.MGetRequest) -> cache_pb2.MGetResponse:
        return cache_pb2.MGetResponse(values=[key.encode() for key in request.keys])

    async def incr(self, caller: object, request: cache_pb2.IncrRequest) -> cache_pb2.IncrResponse:
        os.write(self._log, request.key.encode() + b"\n")
        await asyncio.sleep(0)
        return cache_pb2.IncrResponse(value=1)

    async def pipeline(self, caller: object, request: cache_pb2.PipelineRequest) -> cache_pb2.PipelineResponse:
        outcomes = [cache_pb2.Outcome(incr=await self.incr(caller, command.incr)) for command in request.commands]
        return cache_pb2.PipelineResponse(outcomes=outcomes)


async def _one(caller: object, request: object) -> object:
    raise Unimplemented


async def _many(caller: object, request: object) -> AsyncIterator[object]:
    raise Unimplemented
    yield


for method in service_named("isa.cache.v1.Cache").methods:
    if not hasattr(Counting, python_name(method.name)):
        setattr(Counting, python_name(method.name), staticmethod(_many if method.server_streaming else _one))


async def main(port: int, path: str) -> None:
    """Serve until killed."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with serving(Adapter(service="isa.cache.v1.Cache", implementation=Counting(log), errors={}), port=port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
