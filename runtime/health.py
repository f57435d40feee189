"""Probes: is a part ready to serve? Each answers yes or no, and never raises."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable

import httpx

Probe = Callable[[], Awaitable[bool]]

ANSWER_WITHIN = 3.0


def http(url: str) -> Probe:
    """Ready when a GET is answered with 2xx."""

    async def probe() -> bool:
        try:
            async with httpx.AsyncClient(timeout=ANSWER_WITHIN, trust_env=False) as client:
                return (await client.get(url)).is_success
        except httpx.HTTPError:
            return False

    return probe


def kafka(port: int) -> Probe:
    """Ready when the broker answers an ApiVersions request; its port is open long before that."""
    body = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, correlation 1, no client id
    request = struct.pack(">i", len(body)) + body

    async def probe() -> bool:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(request)
                    answer = await reader.readexactly(10)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False
        _, correlation, error = struct.unpack(">iih", answer)
        return bool(correlation == 1 and error == 0)

    return probe


def postgres(port: int) -> Probe:
    """Ready when the server asks for a password; while it recovers, it answers with an error."""
    body = struct.pack(">i", 196608) + b"user\0isa\0database\0postgres\0\0"  # protocol 3.0
    request = struct.pack(">i", len(body) + 4) + body

    async def probe() -> bool:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(request)
                    return await reader.readexactly(1) == b"R"
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return False

    return probe


def redis(port: int, password: str) -> Probe:
    """Ready when the server answers to its password; while it reads its data, it says that it is loading."""

    async def probe() -> bool:
        try:
            async with asyncio.timeout(ANSWER_WITHIN):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                    return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False

    return probe
