"""What unit tests share: fakes in memory and keys that are made once."""

from __future__ import annotations

import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import rsa

from isa.events import EVENTS
from kernel.caller import Caller
from tests.unit.fakes import Broker, Database, FakeSpool, FakeSql, Issuer, RegistryServer


@pytest.fixture(scope="session", autouse=True)
def plain_logs() -> None:
    """Log in plain lines: drawing a traceback takes longer than a test."""
    structlog.configure(
        processors=[structlog.processors.format_exc_info, structlog.processors.LogfmtRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
        cache_logger_on_first_use=False,
    )


@pytest.fixture(scope="session")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture
def issuer(rsa_key: rsa.RSAPrivateKey) -> Issuer:
    return Issuer(rsa_key)


@pytest.fixture
def spool() -> FakeSpool:
    return FakeSpool()


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def sql(database: Database) -> FakeSql:
    return FakeSql(database)


@pytest.fixture
def registry_server() -> RegistryServer:
    """A registry that knows the schema of every event."""
    server = RegistryServer()
    for topic, event in EVENTS.items():
        server.register(f"{topic}-value", event.SCHEMA)
    return server


@pytest.fixture
def alice() -> Caller:
    return Caller(org="org-a", user="user-alice", roles=frozenset({"member"}), session="session-1")
