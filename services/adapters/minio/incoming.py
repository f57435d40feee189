"""A stream of bytes on its way in: header, bytes, finish; cut into parts, and checked before anything is stored."""

from __future__ import annotations

import asyncio
import hashlib
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta

from isa.objects.v1 import objects_pb2
from isa_common import DeadlineExceeded, InvalidArgument

Request = objects_pb2.UploadRequest | objects_pb2.UploadPartRequest
Header = objects_pb2.UploadHeader | objects_pb2.UploadPartHeader


class Incoming:
    """The requests of one upload."""

    def __init__(self, requests: AsyncIterator[Request], *, most: int, idle: timedelta, slowest: timedelta) -> None:
        self._requests = requests
        self._most = most
        self._idle = idle.total_seconds()
        self._slowest = slowest.total_seconds()
        self._declared: int | None = None
        self._sha256 = b""
        self._hash = hashlib.sha256()
        self._crc32 = 0
        self.size = 0
        """Bytes that came."""
        self.is_whole = False
        """Whether the finish came, and everything is as it was said to be."""

    async def header(self) -> Header:
        """What comes first."""
        request = await self._next()
        if request is None or request.WhichOneof("part") != "header":
            raise InvalidArgument("The first message of an upload is its header.", field="header")
        return request.header

    def expect(self, *, size: int | None, sha256: bytes = b"") -> None:
        """Take note of what the header promises."""
        if size is not None and not 0 <= size <= self._most:
            raise InvalidArgument(f"This takes 0 to {self._most} bytes.", field="size")
        self._declared = size
        self._sha256 = sha256

    async def part(self, size: int) -> bytes:
        """The next bytes: as many as asked for and up to a message more, or what was left before the finish."""
        try:
            async with asyncio.timeout(self._slowest):
                return await self._gathered(size)
        except TimeoutError:
            raise DeadlineExceeded(f"The upload is too slow: {size} bytes in {self._slowest:g} seconds.") from None

    async def _gathered(self, size: int) -> bytes:
        pieces: list[bytes] = []
        held = 0
        while held < size:
            request = await self._next()
            if request is None:
                raise InvalidArgument("The upload was cut off: its last message is a finish.", field="finish")
            kind = request.WhichOneof("part")
            if kind == "finish":
                await self._check(request.finish)
                break
            if kind != "data":
                raise InvalidArgument("After the header come bytes, and a finish.", field="data")
            data = request.data
            held += len(data)
            self._count(data)
            pieces.append(data)
        return b"".join(pieces)

    def _count(self, data: bytes) -> None:
        self.size += len(data)
        most = self._most if self._declared is None else self._declared
        if self.size > most:
            raise InvalidArgument(f"More than {most} bytes came.", field="size")
        self._crc32 = zlib.crc32(data, self._crc32)
        if self._sha256:
            self._hash.update(data)

    async def _check(self, finish: objects_pb2.Finish) -> None:
        if self.size != finish.size:
            raise InvalidArgument(f"{self.size} bytes came, and {finish.size} were sent.", field="finish.size")
        if self._declared is not None and self._declared != self.size:
            raise InvalidArgument(f"{self.size} bytes came, and {self._declared} were announced.", field="size")
        if finish.HasField("crc32") and finish.crc32 != self._crc32:
            raise InvalidArgument("The bytes are not those that were sent: another CRC-32.", field="finish.crc32")
        if self._sha256 and self._hash.digest() != self._sha256:
            raise InvalidArgument("The bytes are not those that were announced: another SHA-256.", field="sha256")
        if await self._next() is not None:
            raise InvalidArgument("Nothing comes after the finish.", field="finish")
        self.is_whole = True

    async def _next(self) -> Request | None:
        """The next message, None at the end."""
        try:
            async with asyncio.timeout(self._idle):
                return await anext(self._requests, None)
        except TimeoutError:
            raise DeadlineExceeded(f"Nothing came for {self._idle:g} seconds.") from None
