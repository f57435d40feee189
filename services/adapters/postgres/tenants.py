"""A database and a login for each organisation: opaque names, derived passwords, made on first use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import asyncpg

from kernel import log
from services.adapters.postgres.pools import Place

REGISTER = "isa_tenants"
"""The database that says on which server an organisation is, and the login that makes the others."""

_TABLE = """
CREATE TABLE IF NOT EXISTS placements (
    org_id text PRIMARY KEY,
    server text NOT NULL,
    database text NOT NULL UNIQUE,
    created_at timestamptz NOT NULL DEFAULT now()
)
"""

Connect = Callable[[str, str], Awaitable[asyncpg.Connection]]
"""Connects as the login that makes tenants: server, database."""


def isolate(master_key: bytes, org: str) -> str:
    """The name of an organisation's database and login: opaque, the same each time, never another organisation's."""
    digest = hmac.digest(master_key, b"database\0" + org.encode(), hashlib.sha256)
    return "t_" + base64.b32encode(digest[:20]).decode("ascii").lower()


def password(master_key: bytes, org: str) -> str:
    """The password of an organisation's login."""
    digest = hmac.digest(master_key, b"password\0" + org.encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


class Tenants:
    """Where each organisation's data is. The register is asked once an organisation and process."""

    def __init__(
        self, connect: Connect, *, master_key: Callable[[], Awaitable[bytes]], server: str, new_on: str
    ) -> None:
        """Prepare to place tenants: `server` has the register, `new_on` gets new organisations."""
        self._connect = connect
        self._master_key = master_key
        self._server = server
        self._new_on = new_on
        self._places: dict[str, Place] = {}
        self._passwords: dict[str, str] = {}
        self._making: dict[str, asyncio.Lock] = {}
        self._making_register = asyncio.Lock()
        self._has_register = False

    def password(self, place: Place) -> str | None:
        """The password of a tenant's login; None for logins that are not a tenant's."""
        return self._passwords.get(place.role)

    async def known(self, org: str) -> Place | None:
        """Return an organisation's place, None when it has none yet."""
        if org not in self._places:
            async with self._register() as register:
                if await register.fetchval("SELECT server FROM placements WHERE org_id = $1", org) is None:
                    return None
        return await self.place(org)

    async def place(self, org: str) -> Place:
        """Return an organisation's place; its database is made when it has none."""
        known = self._places.get(org)
        if known is not None:
            return known
        async with self._making.setdefault(org, asyncio.Lock()):
            if org not in self._places:
                master_key = await self._master_key()
                name = isolate(master_key, org)
                self._passwords[name] = password(master_key, org)
                server = await self._placed(org, name)
                self._places[org] = Place(server, name, name)
        self._making.pop(org, None)
        return self._places[org]

    async def _placed(self, org: str, name: str) -> str:
        async with self._register() as register:
            placed = await register.fetchval("SELECT server FROM placements WHERE org_id = $1", org)
            if placed is None:
                await register.fetchval("SELECT pg_advisory_lock(hashtextextended($1, 0))", org)
                placed = await register.fetchval("SELECT server FROM placements WHERE org_id = $1", org)
            if placed is None:  # placed last: what was begun and broken off is finished by the next call
                placed = self._new_on
                await self._make(placed, org, name)
                await register.execute(
                    "INSERT INTO placements (org_id, server, database) VALUES ($1, $2, $3)", org, placed, name
                )
            return str(placed)

    async def _make(self, server: str, org: str, name: str) -> None:
        """Make login, database and grants; whatever was made before is left as it is."""
        admin = await self._connect(server, "postgres")
        try:
            if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
                # the name is 34 of a-z, 2-7 and _, the password URL-safe base64: neither needs quoting
                await admin.execute(
                    f"CREATE ROLE {name} LOGIN NOINHERIT CONNECTION LIMIT 32 PASSWORD '{self._passwords[name]}'"
                )
                for setting in ("statement_timeout = '60s'", "idle_in_transaction_session_timeout = '60s'"):
                    await admin.execute(f"ALTER ROLE {name} SET {setting}")
            if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 CONNECTION LIMIT 64")
            await admin.execute(f"REVOKE ALL ON DATABASE {name} FROM PUBLIC")
            await admin.execute(f"GRANT CONNECT, CREATE ON DATABASE {name} TO {name}")
        finally:
            await admin.close()
        database = await self._connect(server, name)
        try:
            await database.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT ALL ON SCHEMA public TO {name}")
        finally:
            await database.close()
        log.info("tenant.created", org_id=org, server=server)

    @asynccontextmanager
    async def _register(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._making_register:
            if not self._has_register:
                await self._make_register()
                self._has_register = True
        connection = await self._connect(self._server, REGISTER)
        try:
            yield connection
        finally:
            await connection.close()

    async def _make_register(self) -> None:
        connection = await self._connect(self._server, "postgres")
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", REGISTER):
                # another replica may be first
                with suppress(asyncpg.DuplicateDatabaseError, asyncpg.UniqueViolationError):
                    await connection.execute(f"CREATE DATABASE {REGISTER}")
                    await connection.execute(f"REVOKE ALL ON DATABASE {REGISTER} FROM PUBLIC")
        finally:
            await connection.close()
        register = await self._connect(self._server, REGISTER)
        try:
            await register.execute(f"SELECT pg_advisory_lock(0); {_TABLE}")
        finally:
            await register.close()
