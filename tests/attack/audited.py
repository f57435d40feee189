"""How many of the suite's calls the audit holds, asked of its own tables."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import asyncpg

from tests.conftest import Stack

WITHIN = 120.0
"""Seconds until records are there: they go by the spool and the broker."""


async def audited(stack: Stack, org: str, calls: Collection[str]) -> int:
    """Wait until each call of an organisation has its record; return how many have one."""
    host, _, port = stack.layout.address("postgres").rpartition(":")
    password = stack.secrets["postgres-superuser"]
    connection = await asyncpg.connect(host=host, port=int(port), user="isa", password=password, database="audit")
    try:
        found = 0
        until = asyncio.get_running_loop().time() + WITHIN
        while asyncio.get_running_loop().time() < until:
            rows = await connection.fetch(
                "SELECT correlation_id FROM audit_records WHERE org_id = $1 AND correlation_id LIKE 'attack-%'",
                org,
            )
            found = len({row["correlation_id"] for row in rows} & set(calls))
            if found == len(calls):
                break
            await asyncio.sleep(0.5)
        return found
    finally:
        await connection.close()
