"""An adapter in a process of its own that writes down every statement before it answers; made to be killed.

Run as `python -m tests.chaos.counting_server PORT FILE`. It says `ready` on standard output when it listens.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator

from isa.sql.v1 import sql_pb2
from isa_common import Unimplemented
from kernel.rpc.binding import python_name, service_named
from kernel.rpc.server import Adapter
from tests.conformance.conftest import serving


class Counting:
    """The SQL contract as far as the test needs it: `Execute` leaves its parameters in a file, `Query` has one row."""

    def __init__(self, log: int) -> None:
        self._log = log

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def execute(self, caller: object, request: sql_pb2.ExecuteRequest) -> sql_pb2.ExecuteResponse:
        os.write(self._log, request.statement.params + b"\n")
        await asyncio.sleep(0)
        return sql_pb2.ExecuteResponse(result=sql_pb2.Result(affected=1))

    async def query(self, caller: object, request: sql_pb2.QueryRequest) -> AsyncIterator[sql_pb2.QueryResponse]:
        column = sql_pb2.Column(name="n", type="int4")
        yield sql_pb2.QueryResponse(rows=sql_pb2.Rows(columns=[column], rows=b"[[1]]"))


async def _one(caller: object, request: object) -> object:
    raise Unimplemented


async def _many(caller: object, request: object) -> AsyncIterator[object]:
    raise Unimplemented
    yield


for method in service_named("isa.sql.v1.Sql").methods:
    if not hasattr(Counting, python_name(method.name)):
        setattr(Counting, python_name(method.name), staticmethod(_many if method.server_streaming else _one))


async def main(port: int, path: str) -> None:
    """Serve until killed."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    async with serving(Adapter(service="isa.sql.v1.Sql", implementation=Counting(log), errors={}), port=port):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
