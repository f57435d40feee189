"""The set that is measured: its own home and ports, so that it runs beside a started one."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg

from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout, layout_from_environment
from runtime.processes import load_apps
from runtime.start import runtime_as_it_is

PORT_BASE = int(os.environ.get("ISA_BENCH_PORT_BASE", "21300"))


@dataclass(frozen=True)
class Stand:
    """A started set."""

    layout: Layout

    @classmethod
    def ours(cls) -> Stand:
        """The bench's own set: `.isa/bench`, ports from 21300, below those that the kernel hands out."""
        cache = layout_from_environment().cache
        return cls(Layout(home=CHECKOUT / ".isa" / "bench", cache=cache, port_base=PORT_BASE))

    def isa(self, *arguments: str) -> None:
        """Run the `isa` command on this set."""
        environment = {**os.environ, "ISA_HOME": str(self.layout.home), "ISA_PORT_BASE": str(self.layout.port_base)}
        command = [sys.executable, "-m", "cli", *arguments]
        subprocess.run(command, cwd=CHECKOUT, env=environment, check=True, stdout=sys.stderr)

    @property
    def urls(self) -> dict[str, str]:
        """Where each HTTP room is."""
        apps = [app for app in load_apps() if not app.is_grpc]
        return {app.name: f"http://127.0.0.1:{self.layout.port(int(app.values['appPort']))}" for app in apps}

    @property
    def engines(self) -> dict[str, str]:
        """Addresses of the engines."""
        return own_engine_environment(self.layout)

    @property
    def secrets(self) -> dict[str, str]:
        """The set's secrets."""
        found: dict[str, str] = json.loads(self.layout.secrets.read_text())
        return found

    def database_url(self, name: str) -> str:
        """The superuser's address of a database."""
        port, password = self.layout.engine_port("postgres"), self.secrets["postgres-superuser"]
        return f"postgresql://isa:{password}@127.0.0.1:{port}/{name}"

    def rows(self, database: str, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        """Read rows past the rooms."""
        with psycopg.connect(self.database_url(database), autocommit=True) as connection:
            return connection.execute(query.encode(), arguments).fetchall()

    async def pids(self) -> dict[str, int]:
        """Process id of every part that is up."""
        return {status.name: status.pid for status in await runtime_as_it_is(self.layout).status() if status.pid}

    async def memory(self) -> dict[str, int]:
        """Resident bytes of every part that is up."""
        return {status.name: status.memory for status in await runtime_as_it_is(self.layout).status() if status.memory}

    async def sign_up(self, name: str) -> tuple[str, str]:
        """Sign an organisation up; return its id and its owner's token."""
        body = {
            "organisation": name,
            "name": "Bench Owner",
            "email": f"{secrets.token_hex(8)}@example.org",
            "password": secrets.token_urlsafe(18),
        }
        async with httpx.AsyncClient(timeout=30) as client:
            answer = await client.post(self.urls["users"] + "/v1/signup", json=body)
        answer.raise_for_status()
        made = answer.json()
        return made["org"]["id"], made["access_token"]

    async def until(self, database: str, query: str, *arguments: object, equals: int, seconds: float) -> bool:
        """Wait until a query's first number is what is wanted."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        connection = await psycopg.AsyncConnection.connect(self.database_url(database), autocommit=True)
        async with connection:
            while loop.time() < end:
                row = await (await connection.execute(query.encode(), arguments)).fetchone()
                if row and int(row[0]) >= equals:
                    return True
                await asyncio.sleep(0.02)
        return False
