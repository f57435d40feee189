"""Who is plugged into whom."""

from __future__ import annotations

from datetime import timedelta

import asyncpg
from pydantic import Field

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.postgres.codec import Catalog
from services.adapters.postgres.connection import SETTINGS, Connection
from services.adapters.postgres.pools import Place, Pools
from services.adapters.postgres.repository import ERRORS, Limits, Sql
from services.adapters.postgres.tenants import REGISTER, Tenants

MAIN = "main"
"""The server that new organisations are placed on."""


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with POSTGRES_."""

    host: str = "127.0.0.1"
    """Where PostgreSQL answers."""
    port: int = 15432
    """Its port."""
    rooms: frozenset[str] = frozenset({"users", "tasks", "notifications", "analytics", "audit"})
    """Workloads that have a database of their name."""
    connections: int = Field(60, gt=0)
    """Connections to PostgreSQL at most, over all databases."""
    connections_each: int = Field(8, gt=0)
    """Of them, for one login to one database."""
    idle: Seconds = timedelta(seconds=60)
    """How long an unused connection is kept."""
    connect_timeout: float = Field(5.0, gt=0)
    """Seconds that a connection may take to open."""
    rows: int = Field(10_000, gt=0)
    """Rows that Execute may return; Query streams."""
    bytes: int = Field(8 << 20, gt=0)
    """Bytes of rows that one Execute or ExecuteBatch may return."""
    streamed_rows: int = Field(5_000_000, gt=0)
    """Rows that one Query may stream."""
    streamed_bytes: int = Field(1 << 30, gt=0)
    """Bytes that one Query may stream."""
    stored_bytes: int = Field(10 << 30, gt=0)
    """Bytes that an organisation's database may hold."""
    queue: int = Field(1024, gt=0)
    """Calls that may wait for a connection of one login."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together; secrets are read when the first connection is made."""
    known: dict[str, str] = {}
    catalogs: dict[tuple[str, str], Catalog] = {}

    async def secret(name: str) -> str:
        if name not in known:
            known[name] = await parts.secrets.get(name)
        return known[name]

    async def connect(place: Place) -> Connection:
        password = tenants.password(place) or await secret(f"postgres-{place.role.replace('_', '-')}")
        try:
            connection: Connection = await asyncpg.connect(
                host=settings.host,
                port=settings.port,
                user=place.role,
                password=password,
                database=place.database,
                connection_class=Connection,
                server_settings=SETTINGS,
                timeout=settings.connect_timeout,
            )
        except asyncpg.InvalidAuthorizationSpecificationError:
            known.clear()  # the secret was rotated: read it anew for the next attempt
            raise
        await connection.prime(catalogs.setdefault((place.server, place.database), Catalog()))
        return connection

    async def connect_admin(server: str, database: str) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=settings.host,
            port=settings.port,
            user=REGISTER,
            password=await secret("postgres-tenants-admin"),
            database=database,
            timeout=settings.connect_timeout,
        )

    async def master_key() -> bytes:
        return (await secret("postgres-tenant-master-key")).encode()

    pools = Pools(
        connect,
        each=settings.connections_each,
        total=settings.connections,
        idle=settings.idle,
        queue=settings.queue,
    )
    tenants = Tenants(connect_admin, master_key=master_key, server=MAIN)
    limits = Limits(
        settings.rows, settings.bytes, settings.streamed_rows, settings.streamed_bytes, settings.stored_bytes
    )
    sql = Sql(pools, tenants, rooms=settings.rooms, server=MAIN, limits=limits)
    return Adapter(service="isa.sql.v1.Sql", implementation=sql, errors=ERRORS)
