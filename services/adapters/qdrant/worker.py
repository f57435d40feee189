"""A process that runs the embedded engine: calls in, answers out, one after another, over one socket.

python -m services.adapters.qdrant.worker <socket> <number> <options as JSON>
"""

from __future__ import annotations

import fcntl
import json
import marshal
import select
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common.errors import Internal, IsaError
from services.adapters.qdrant.shards import Shards

Asked = tuple[str, str, bytes]
"""A method, the collection's name, and the request."""
Answer = bytes | tuple[int, str, str, str | None, str]
"""A response, or an error: code, reason, message, field, and for our log what the engine said."""

LENGTH = struct.Struct("<I")
TIDY = 1.0
"""Seconds between two visits to the disk."""

_REQUESTS = {each.name: GetMessageClass(each.input_type) for each in pb.DESCRIPTOR.services_by_name["Vectors"].methods}
_WORDS = {name: "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_") for name in _REQUESTS}


def answers(shards: Shards, calls: Sequence[Asked]) -> list[Answer]:
    """Do calls in order; searches of one collection that stand together are planned together."""
    found: list[Answer] = []
    for (method, name), group in groupby(calls, key=lambda call: call[:2]):
        requests: list[Any] = [_REQUESTS[method].FromString(call[2]) for call in group]
        try:
            if method == "Search":
                outcomes: list[Any] = list(shards.search_many(name, requests))
            else:
                outcomes = [_one(shards, method, name, request) for request in requests]
        except Exception as error:
            outcomes = [error] * len(requests)
        found += [_wire(outcome) for outcome in outcomes]
    return found


def _one(shards: Shards, method: str, name: str, request: Message) -> Message | Exception:
    try:
        response: Message = getattr(shards, _WORDS[method])(name, request)
    except Exception as error:  # the others of a batch go on
        return error
    return response


def _wire(outcome: Message | Exception) -> Answer:
    if isinstance(outcome, IsaError):
        return int(outcome.code), outcome.reason, outcome.message, outcome.field, ""
    if isinstance(outcome, Exception):
        known = Internal("Something went wrong on our side. The request id finds it in our logs.")
        return int(known.code), known.reason, known.message, None, "".join(traceback.format_exception(outcome))
    return outcome.SerializeToString()


def serve(channel: socket.socket, shards: Shards) -> None:
    """Answer until the other side hangs up, and go to the disk once a second."""
    tidied = time.monotonic()
    received = bytearray()
    while True:
        if time.monotonic() - tidied >= TIDY:
            shards.tidy()
            tidied = time.monotonic()
        if not select.select([channel], [], [], TIDY)[0]:
            continue
        part = channel.recv(1 << 20)
        if not part:
            return
        received += part
        while frame := taken(received):
            reply = marshal.dumps(answers(shards, marshal.loads(frame)))  # noqa: S302 -- between two processes of ours
            channel.sendall(LENGTH.pack(len(reply)) + reply)


def taken(received: bytearray) -> bytes:
    """The first whole frame, taken out of what was received; nothing while it is not whole."""
    if len(received) < LENGTH.size:
        return b""
    end = LENGTH.size + LENGTH.unpack_from(received)[0]
    if len(received) < end:
        return b""
    frame = bytes(memoryview(received)[LENGTH.size : end])
    del received[:end]
    return frame


def main() -> None:
    """Run until the room closes the socket."""
    number, options = int(sys.argv[2]), json.loads(sys.argv[3])
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_IGN)  # the room drains first, then hangs up
    folder = Path(options.pop("folder"))
    with socket.socket(fileno=int(sys.argv[1])) as channel, (folder / f".lock-{number}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a former process of this number may still be closing its collections
        shards = Shards(folder, number=number, **options)
        channel.sendall(LENGTH.pack(0))
        try:
            serve(channel, shards)
        finally:
            shards.close()


if __name__ == "__main__":
    main()
