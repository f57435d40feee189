"""What the engines' own logins may and may not do: a stolen one must not stop, empty or reconfigure the engine."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.conftest import Stack


async def ask(address: str, *lines: str) -> list[str]:
    """What a server of lines answers, a line each."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        answers = []
        for line in lines:
            writer.write(f"{line}\r\n".encode())
            answers.append((await asyncio.wait_for(reader.readline(), 10)).decode().strip())
        return answers
    finally:
        writer.close()


@pytest.mark.parametrize(
    "command",
    ["KEYS *", "FLUSHALL", "FLUSHDB", "CONFIG GET *", "SHUTDOWN", "MONITOR", "DEBUG SLEEP 0", "ACL LIST", "CLIENT LIST",
     "REPLICAOF NO ONE", "SAVE", "MODULE LIST", "SWAPDB 0 1"],
)  # fmt: skip
async def test_the_cache_login_cannot_run_the_server(stack: Stack, command: str) -> None:
    address, password = stack.layout.address("redis"), stack.secrets["redis-password"]

    assert (await ask(address, command))[0].startswith("-NOAUTH")
    answers = await ask(address, f"AUTH {password}", "SET isa:probe 1 EX 5", command)
    assert answers[:2] == ["+OK", "+OK"]
    assert answers[2].startswith("-NOPERM")


async def test_streams_need_a_password(stack: Stack) -> None:
    address = stack.layout.address("nats")

    greeting, refusal = await ask(address, 'CONNECT {"verbose":true}', "PING")
    assert greeting.startswith("INFO ") and '"auth_required":true' in greeting
    assert "Authorization Violation" in refusal


async def test_objects_are_told_to_nobody_without_a_signature(stack: Stack) -> None:
    async with httpx.AsyncClient(base_url=f"http://{stack.layout.address('minio')}", trust_env=False) as http:
        assert (await http.get("/")).status_code == 403
        assert (await http.get("/minio/v2/metrics/cluster")).status_code == 403
        assert (await http.get("/minio/admin/v3/info")).status_code == 403
