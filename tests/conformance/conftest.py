"""The adapters on their real engines, served in this process: no sidecar, no tokens, and callers that a test names."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from isa_common import Isa
from isa_common.testing import FakeCloud
from kernel.call import Call
from kernel.caller import Caller
from kernel.chain import Chain
from kernel.rpc.server import Adapter, RpcServer
from kernel.shares import Shares
from runtime.layout import Layout

ROOM = "conformance"
"""A room of the tests: a database with both logins of a room."""


@dataclass(frozen=True)
class Engines:
    """Where the engines under test are."""

    layout: Layout
    secrets: dict[str, str]

    def address(self, name: str) -> str:
        """`host:port` of an engine; ISA_TEST_REDIS and its like win."""
        return os.environ.get(f"ISA_TEST_{name.upper()}") or self.layout.address(name)

    @property
    def postgres(self) -> str:
        """`host:port` of PostgreSQL."""
        return self.address("postgres")

    @property
    def loki(self) -> str:
        """URL of Loki."""
        return f"http://{self.address('loki').removeprefix('http://')}"


@pytest.fixture(scope="session")
def engines(request: pytest.FixtureRequest) -> Engines:
    """The engines of the test set; with ISA_TEST_SECRETS, those of the set whose secrets these are."""
    if path := os.environ.get("ISA_TEST_SECRETS"):
        secrets = Path(path)
        return Engines(Layout(home=secrets.parent, cache=secrets.parent), json.loads(secrets.read_text()))
    stack = request.getfixturevalue("stack")
    return Engines(stack.layout, stack.secrets)


class Identity:
    """Takes callers from metadata that a test writes, where the real one verifies a token."""

    async def caller(self, metadata: dict[str, str]) -> Caller:
        given = json.loads(metadata["authorization"].removeprefix("Bearer "))
        workload = given.get("workload", "")
        org, user = metadata.get("isa-org", given.get("org", "")), metadata.get("isa-user", given.get("user", ""))
        return Caller(org=org, user=user, roles=frozenset({"owner"}), workload=workload)


class Permitted(Chain):
    """The real chain; workloads of the tests may do everything."""

    async def auth(self, call: Call) -> None:
        call.caller = await self.identity.caller(call.metadata)


class NoSlot:
    """A place of an audit record that nobody reads."""

    def write(self, *_: object) -> None: ...

    def release(self) -> None: ...


class NoSpool:
    """A spool without end."""

    def reserve(self, *_: object, **__: object) -> NoSlot:
        return NoSlot()


@asynccontextmanager
async def serving(adapter: Adapter, *, port: int = 0, shares: Shares | None = None) -> AsyncIterator[str]:
    """Serve an adapter, on a free port when none is given; with the shares that its parts have, where they matter."""
    chain = Permitted(service="test", spool=NoSpool(), identity=Identity(), errors=adapter.errors, shares=shares)
    server = RpcServer(f"127.0.0.1:{port}", chain=chain)
    server.add(adapter)
    await adapter.implementation.start()
    await server.start()
    await server.ready()
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.stop(timedelta(0))
        await adapter.implementation.stop()


def person(address: str, org: str, user: str = "user-1") -> Isa:
    """A client with a person's token."""
    return Isa(address, token=json.dumps({"org": org, "user": user}))


def workload(address: str, name: str = ROOM) -> Isa:
    """A client with a workload's token."""
    return Isa(address, token=json.dumps({"workload": name}))


@dataclass(frozen=True)
class Clients:
    """Makes clients of one cloud: of people, and of our own workloads."""

    person: Callable[..., Isa]
    workload: Callable[..., Isa]


@pytest_asyncio.fixture
async def opened() -> AsyncIterator[list[Isa]]:
    """The clients of a test, closed at its end."""
    clients: list[Isa] = []
    yield clients
    for client in clients:
        await client.close()


def clients_of(opened: list[Isa], address: str = "") -> Clients:
    """Clients of the adapter at an address, or of a cloud in memory, which are added to those that are open."""

    def kept(make: Callable[..., Isa]) -> Callable[..., Isa]:
        def keep(*args: str) -> Isa:
            opened.append(make(*args))
            return opened[-1]

        return keep

    if address:
        return Clients(person=kept(partial(person, address)), workload=kept(partial(workload, address)))
    cloud = FakeCloud()
    return Clients(
        person=kept(lambda org, user="user-1": cloud.isa(org, user)),
        workload=kept(lambda name=ROOM: cloud.isa("", "", workload=name)),
    )


@pytest.fixture(params=["fake", "engine"])
def clients(request: pytest.FixtureRequest, opened: list[Isa]) -> Clients:
    """Clients of the cloud in memory and of the engine; the suite's own fixture `address` serves its adapter."""
    return clients_of(opened, "" if request.param == "fake" else request.getfixturevalue("address"))


@pytest.fixture
def as_person(clients: Clients) -> Callable[..., Isa]:
    """`as_person(org, user="user-1")` is a client of that person."""
    return clients.person


@pytest.fixture
def as_workload(clients: Clients) -> Callable[..., Isa]:
    """`as_workload(name)` is a client of one of our own programs."""
    return clients.workload


class Secrets:
    """The secret store of the tests."""

    def __init__(self, secrets: dict[str, str]) -> None:
        self._secrets = {**secrets, f"postgres-{ROOM}-app": "app", f"postgres-{ROOM}-system": "system"}

    async def get(self, name: str) -> str:
        return self._secrets[name]


@dataclass
class FakeParts:
    """What an adapter needs of the kernel's parts."""

    secrets: Secrets
    shares: Shares = field(default_factory=Shares)
    name: str = "test"


@pytest.fixture(scope="session")
def room_database(engines: Engines) -> None:
    """A database of a room, with its tables made anew."""
    import asyncio

    async def make() -> None:
        host, _, port = engines.postgres.rpartition(":")
        login = {"host": host, "port": int(port), "user": "isa", "password": engines.secrets["postgres-superuser"]}
        admin = await asyncpg.connect(database="postgres", **login)
        for role in ("owner", "app", "system"):
            if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", f"{ROOM}_{role}"):
                await admin.execute(f"CREATE ROLE {ROOM}_{role} LOGIN PASSWORD '{role}'")
        if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", ROOM):
            await admin.execute(f"CREATE DATABASE {ROOM} OWNER {ROOM}_owner")
        await admin.execute(f"REVOKE ALL ON DATABASE {ROOM} FROM PUBLIC")
        await admin.execute(f"GRANT CONNECT ON DATABASE {ROOM} TO {ROOM}_app, {ROOM}_system")
        await admin.close()
        from kernel import tables

        room = await asyncpg.connect(database=ROOM, **login)
        await room.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        for statement in tables.create(ROOM):
            await room.execute(statement)
        await room.execute(
            "CREATE TABLE things (id text PRIMARY KEY, org_id text NOT NULL, title text NOT NULL, version int)"
        )
        for statement in tables.tenant_table(ROOM, "things"):
            await room.execute(statement)
        await room.close()

    asyncio.run(make())


@pytest_asyncio.fixture
async def sql_address(engines: Engines, room_database: None) -> AsyncIterator[str]:
    """A PostgreSQL adapter on the engine under test."""
    from services.adapters.postgres.app import Settings, create_app

    host, _, port = engines.postgres.rpartition(":")
    settings = Settings(host=host, port=int(port), rooms=frozenset({ROOM}), connections=12, connections_each=4)
    async with serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address:
        yield address
