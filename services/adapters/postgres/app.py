"""Who is plugged into whom."""

from __future__ import annotations

import ssl
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import asyncpg
from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.postgres.codec import Catalog
from services.adapters.postgres.connection import SETTINGS, Connection
from services.adapters.postgres.errors import ERRORS
from services.adapters.postgres.pools import Place, Pools
from services.adapters.postgres.repository import Sql
from services.adapters.postgres.results import Limits
from services.adapters.postgres.tenants import REGISTER, Tenants
from services.adapters.postgres.transactions import Names, Terms, Transactions

MAIN = "main"
"""The server with the register of who is where, and with the rooms' databases."""


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with POSTGRES_."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    host: str = Field("127.0.0.1", validation_alias=AliasChoices("POSTGRES_HOST", "ISA_CLOUD_POSTGRES_HOST"))
    """Where PostgreSQL answers."""
    port: int = Field(15432, validation_alias=AliasChoices("POSTGRES_PORT", "ISA_CLOUD_POSTGRES_PORT"))
    """Its port."""
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """Whether it is spoken to over TLS and who it must prove to be, in libpq's words; clouds: `require` or more."""
    sslrootcert: Path | None = None
    """File with the certificate authority that `verify-ca` and `verify-full` go by; none: those of the machine."""
    servers: dict[str, str] = Field(default_factory=dict)
    """Further servers by name, such as {"second": "10.0.0.2:5432"}, with the login isa_tenants of the same password."""
    place_on: str = MAIN
    """The server that new organisations are placed on: `main`, or a name of `servers`."""
    app_port: int = Field(0, validation_alias="APP_PORT")
    """The port of this adapter, as every app is told it."""
    advertise: str = ""
    """Where other replicas reach this one, host:port; 127.0.0.1 and the app port when empty."""
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
    transaction_timeout: Seconds = timedelta(seconds=60)
    """How long a transaction may be open, at most and when its caller does not say."""
    transaction_idle: Seconds = timedelta(seconds=20)
    """How long it may wait for its next statement, likewise; below a minute, PostgreSQL's own limit."""
    transactions_each: int = Field(4, gt=0)
    """Open transactions of one login to one database; leave connections for its other calls."""
    transactions: int = Field(24, gt=0)
    """Open transactions of all."""
    queue: int = Field(1024, gt=0)
    """Calls that may wait for a connection of one login."""


def tls_of(settings: Settings) -> ssl.SSLContext | str:
    """What asyncpg is told of TLS; it looks for certificate authorities in the home of its user, and we have none."""
    if not settings.sslmode.startswith("verify"):
        return settings.sslmode
    context = ssl.create_default_context(cafile=settings.sslrootcert)
    context.check_hostname = settings.sslmode == "verify-full"
    return context


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together; secrets are read when the first connection is made."""
    known: dict[str, str] = {}
    catalogs: dict[tuple[str, str], Catalog] = {}

    async def secret(name: str) -> str:
        if name not in known:
            known[name] = await parts.secrets.get(name)
        return known[name]

    encryption = {"ssl": tls_of(settings), "timeout": settings.connect_timeout}

    def address(server: str) -> dict[str, Any]:
        if server == MAIN:
            return {"host": settings.host, "port": settings.port, **encryption}
        host, _, port = settings.servers[server].rpartition(":")
        return {"host": host, "port": int(port), **encryption}

    async def connect(place: Place) -> Connection:
        password = tenants.password(place) or await secret(f"postgres-{place.role.replace('_', '-')}")
        try:
            connection: Connection = await asyncpg.connect(
                **address(place.server),
                user=place.role,
                password=password,
                database=place.database,
                connection_class=Connection,
                server_settings=SETTINGS,
            )
        except asyncpg.InvalidAuthorizationSpecificationError:
            known.clear()  # the secret was rotated: read it anew for the next attempt
            raise
        await connection.prime(catalogs.setdefault((place.server, place.database), Catalog()))
        return connection

    async def connect_admin(server: str, database: str) -> asyncpg.Connection:
        password = await secret("postgres-tenants-admin")
        return await asyncpg.connect(**address(server), user=REGISTER, password=password, database=database)

    async def master_key() -> bytes:
        return (await secret("postgres-tenant-master-key")).encode()

    pools = Pools(
        connect,
        each=settings.connections_each,
        total=settings.connections,
        idle=settings.idle,
        queue=settings.queue,
    )
    tenants = Tenants(connect_admin, master_key=master_key, server=MAIN, new_on=settings.place_on)
    limits = Limits(settings.rows, settings.bytes, settings.streamed_rows, settings.streamed_bytes)
    terms = Terms(
        settings.transaction_timeout, settings.transaction_idle, settings.transactions_each, settings.transactions
    )
    sql = Sql(
        pools,
        tenants,
        Transactions(pools, terms, limits),
        Names(master_key, settings.advertise or f"127.0.0.1:{settings.app_port}"),
        shares=parts.shares,
        rooms=settings.rooms,
        server=MAIN,
        limits=limits,
    )
    return Adapter(service="isa.sql.v1.Sql", implementation=sql, errors=ERRORS)
