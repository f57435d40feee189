"""Engines as clouds have them: over TLS, and Kafka with logins. The servers and their authority are made here.

The PostgreSQL of the cache is built without TLS: a front of this file's own speaks it, as PostgreSQL's protocol has it.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import json
import os
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli import events, topics
from isa_common import Cache, DeadlineExceeded, Isa, IsaError, Unavailable
from kernel import kafka as login
from kernel import lag, telemetry
from kernel.events import Record
from kernel.settings import KafkaLogin
from runtime import postgres
from runtime.engines import Engines, load_engines
from runtime.layout import CHECKOUT, layout_from_environment
from runtime.secrets import DATABASES, ROLES
from tests.conformance.conftest import FakeParts, Secrets, person, serving
from tests.integration.private import PATIENCE, Postgres, Program, free_port, kafka_of, until_served

SECOND = timedelta(seconds=1)
AWAY = (Unavailable, DeadlineExceeded)
SECRETS = {
    "postgres-superuser": Postgres.PASSWORD,
    "postgres-tenants-admin": "admin",
    "postgres-tenant-master-key": "key",
    **{f"postgres-{database}-{role}": "secret" for database in DATABASES for role in ROLES},
}


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and the certificate of a server on this machine."""

    ca: Path
    certificate: Path
    key: Path

    @property
    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def authority(folder: Path, host: str = "localhost") -> Authority:
    """Make one whose server is called `localhost`, and 127.0.0.1 too, unless it is to have another name."""
    now, keys = datetime.now(UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", host)]
    known: list[x509.GeneralName] = [x509.DNSName(host)]
    if host == "localhost":
        known.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = []
    for number, key in enumerate(keys):
        builder = (
            x509.CertificateBuilder(issuer_name=names[0], subject_name=names[number], public_key=key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(keys[0].public_key()), critical=False)
        )
        if number:
            builder = builder.add_extension(x509.SubjectAlternativeName(known), critical=False)
        made.append(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    found = Authority(folder / "ca.pem", folder / "server.pem", folder / "server.key")
    found.ca.write_bytes(made[0])
    found.certificate.write_bytes(made[1])
    found.key.write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, *form))
    for path in (found.certificate, found.key):
        path.chmod(0o600)
    return found


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority of the servers here."""
    return authority(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that certified nobody here."""
    return authority(tmp_path_factory.mktemp("stranger"))


# Redis


@pytest_asyncio.fixture
async def redis_port(tmp_path: Path, trusted: Authority) -> AsyncIterator[int]:
    """A Redis that speaks TLS only."""
    port = free_port()
    options = {
        "port": "0", "tls-port": str(port), "bind": "127.0.0.1", "dir": str(tmp_path), "save": "",
        "requirepass": "secret", "tls-cert-file": str(trusted.certificate), "tls-key-file": str(trusted.key),
        "tls-auth-clients": "no",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    server = Program(str(Engines(layout_from_environment(), load_engines()).redis), *words)
    await server.start()
    yield port
    await server.end()


@asynccontextmanager
async def cache(port: int, *, tls: bool, ca: Path) -> AsyncIterator[Cache]:
    """The cache of an organisation on it."""
    from services.adapters.redis.app import Settings, create_app

    settings = Settings(host="localhost", port=port, timeout=SECOND, tls=tls, tls_ca=ca)
    app = create_app(settings, FakeParts(Secrets({"redis-password": "secret"})))
    async with serving(app) as address, person(address, "org-a") as isa:
        yield isa.cache


async def test_the_cache_is_served_over_tls(redis_port: int, trusted: Authority) -> None:
    async with cache(redis_port, tls=True, ca=trusted.ca) as served:
        await until_served(lambda: served.get("none", None, timeout=SECOND))
        large = b"\0\1" * 500_000

        await served.set("key", large)

        assert await served.get("key") == large


async def test_a_cache_that_cannot_prove_who_it_is_gets_no_password(
    redis_port: int, trusted: Authority, stranger: Authority
) -> None:
    async with cache(redis_port, tls=True, ca=trusted.ca) as served:  # it is there
        await until_served(lambda: served.get("none", None, timeout=SECOND))

    for tls, ca in ((True, stranger.ca), (False, trusted.ca)):
        async with cache(redis_port, tls=tls, ca=ca) as served:
            with pytest.raises(AWAY):
                await served.get("key", timeout=2 * SECOND)


# PostgreSQL


class Front:
    """Speaks TLS before a PostgreSQL that cannot: answers the client's wish for it, then passes bytes on."""

    ASKED = b"\0\0\0\x08\x04\xd2\x16\x2f"
    """What a client begins with that wants TLS."""

    def __init__(self, behind: int, context: ssl.SSLContext) -> None:
        self.port = free_port()
        self.encrypted = 0
        self._behind, self._context = behind, context
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", self.port)

    async def end(self) -> None:
        """Listen no more, and close what is open."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._open):
            writer.close()
        await asyncio.sleep(0)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            if first == self.ASKED:
                writer.write(b"S")
                await writer.drain()
                await writer.start_tls(self._context)
                self.encrypted += 1
                first = b""
            behind, ahead = await asyncio.open_connection("127.0.0.1", self._behind)
            ahead.write(first)
            self._open |= {writer, ahead}
            await asyncio.gather(self._pass(reader, ahead), self._pass(behind, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A PostgreSQL."""
    server = Postgres(tmp_path_factory.mktemp("encrypted"))
    asyncio.run(postgres.prepare(server.layout, server.engines, SECRETS))
    yield server
    postgres.remove(server.layout)


@pytest_asyncio.fixture
async def front(cluster: Postgres, trusted: Authority) -> AsyncIterator[Front]:
    """It, behind TLS."""
    await cluster.start()
    superuser = await cluster.login()
    if not await superuser.fetchval("SELECT true FROM pg_roles WHERE rolname = 'isa_tenants'"):
        await superuser.execute("CREATE ROLE isa_tenants LOGIN CREATEDB CREATEROLE PASSWORD 'admin'")
    await superuser.close()
    front = Front(cluster.port, trusted.server)
    await front.start()
    yield front
    await front.end()
    await cluster.end()


@asynccontextmanager
async def sql(host: str, port: int, sslmode: str, ca: Path | None = None) -> AsyncIterator[Isa]:
    """SQL of an organisation on it."""
    from services.adapters.postgres.app import Settings, create_app

    settings = Settings(host=host, port=port, sslmode=sslmode, sslrootcert=ca, connections=4, connect_timeout=2)
    async with (
        serving(create_app(settings, FakeParts(Secrets(SECRETS)))) as address,
        person(address, "org-encrypted") as isa,
    ):
        yield isa


@pytest.mark.parametrize(
    ("sslmode", "host"), [("require", "127.0.0.1"), ("verify-ca", "127.0.0.1"), ("verify-full", "localhost")]
)
async def test_sql_is_served_over_tls(front: Front, trusted: Authority, sslmode: str, host: str) -> None:
    async with sql(host, front.port, sslmode, trusted.ca) as isa:
        rows = await isa.sql.query("SELECT 42 AS answer")

    assert [row["answer"] for row in rows] == [42]
    assert front.encrypted > 0


async def test_a_database_that_cannot_prove_who_it_is_gets_no_password(
    cluster: Postgres, front: Front, trusted: Authority, stranger: Authority, tmp_path: Path
) -> None:
    async with sql("127.0.0.1", front.port, "verify-full", trusted.ca) as isa:  # it is there
        await isa.sql.query("SELECT 1")
    renamed = Front(cluster.port, authority(tmp_path, "elsewhere").server)
    await renamed.start()

    for port, sslmode, ca in (
        (front.port, "verify-full", stranger.ca),
        (renamed.port, "verify-full", tmp_path / "ca.pem"),
        (cluster.port, "require", None),  # without TLS at all
    ):
        async with sql("127.0.0.1", port, sslmode, ca) as isa:
            with pytest.raises(AWAY):
                await isa.sql.query("SELECT 1", timeout=3 * SECOND)
    async with sql("127.0.0.1", renamed.port, "verify-ca", tmp_path / "ca.pem") as isa:
        await isa.sql.query("SELECT 1")
    await renamed.end()


async def test_databases_and_tables_are_made_over_tls(front: Front, trusted: Authority, tmp_path: Path) -> None:
    for name, value in SECRETS.items():
        (tmp_path / name).write_text(value)
    environment = {
        **os.environ, "POSTGRES_HOST": "localhost", "POSTGRES_PORT": str(front.port), "ISA_SECRETS_FILE": str(tmp_path),
        "POSTGRES_SSLMODE": "verify-full", "POSTGRES_SSLROOTCERT": str(trusted.ca),
    }  # fmt: skip

    for words in (("databases", "apply"), ("migrate", "tasks")):
        before = front.encrypted
        await command(*words, env=environment)
        assert front.encrypted > before, f"`isa {words[0]}` did not ask for TLS."


async def command(*words: str, env: dict[str, str]) -> None:
    """Run `isa`, while what it talks to lives in this process."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words, cwd=CHECKOUT, env=env,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


# Kafka


@dataclass(frozen=True)
class Broker:
    """Where it takes logins by password over TLS, and logins by token."""

    passwords: str
    tokens: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory, trusted: Authority) -> AsyncIterator[Broker]:
    """A broker with a user, `alice`."""
    folder = tmp_path_factory.mktemp("kafka")
    pem = folder / "server.pem"
    pem.write_bytes(trusted.key.read_bytes() + trusted.certificate.read_bytes() + trusted.ca.read_bytes())
    inner, passwords, tokens = (f"127.0.0.1:{free_port()}" for _ in range(3))
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    plain = 'org.apache.kafka.common.security.plain.PlainLoginModule required user_alice="secret";'
    oauth = (
        "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
        ' unsecuredLoginStringClaim_sub="broker";'
    )
    listeners = f"INNER://{inner},PASSWORDS://{passwords},TOKENS://{tokens}"
    properties = f"""\
inter.broker.listener.name=INNER
listeners={listeners},CONTROLLER://
advertised.listeners={listeners}
listener.security.protocol.map=INNER:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORDS:SASL_SSL,TOKENS:SASL_PLAINTEXT
listener.name.passwords.sasl.enabled.mechanisms=SCRAM-SHA-512,PLAIN
listener.name.passwords.scram-sha-512.sasl.jaas.config={scram}
listener.name.passwords.plain.sasl.jaas.config={plain}
listener.name.passwords.ssl.keystore.type=PEM
listener.name.passwords.ssl.keystore.location={pem}
listener.name.tokens.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.tokens.oauthbearer.sasl.jaas.config={oauth}
"""
    async with kafka_of(folder, properties, "--add-scram", "SCRAM-SHA-512=[name=alice,password=secret]"):
        cluster = topics.Cluster(inner)
        await asyncio.to_thread(cluster.wait, 60)
        await asyncio.to_thread(cluster.create, topics.Topic(name="task.created", partitions=1, replication_factor=1))
        yield Broker(passwords, tokens)


def as_alice(monkeypatch: pytest.MonkeyPatch, ca: Path, mechanism: str = "SCRAM-SHA-512") -> None:
    for name, value in {
        "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "KAFKA_SASL_MECHANISM": mechanism,
        "KAFKA_SASL_USERNAME": "alice",
        "KAFKA_PASSWORD": "secret",
        "KAFKA_CA": ca.read_text(),
    }.items():
        monkeypatch.setenv(name, value)


def record() -> Record:
    return Record(event_id="1", topic="task.created", key="key", payload=b"payload", headers={})


async def lag_of(brokers: str, group: str, secret: str) -> float:
    """Watch until the lag is known, and return it."""

    async def found(name: str) -> str:
        assert name == "kafka-password"
        return secret

    watching = asyncio.create_task(lag.watch(brokers, group, ["task.created"], login=KafkaLogin(), secret=found))
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                for metric in telemetry.LAG.collect():
                    for sample in metric.samples:
                        if sample.labels["group"] == group:
                            return sample.value
                await asyncio.sleep(0.05)
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-512", "PLAIN"])
async def test_commands_log_in_to_kafka_by_password_over_tls(
    broker: Broker, trusted: Authority, monkeypatch: pytest.MonkeyPatch, mechanism: str
) -> None:
    as_alice(monkeypatch, trusted.ca, mechanism)
    cluster = topics.Cluster(broker.passwords)

    await asyncio.to_thread(cluster.wait, PATIENCE)
    sent = await asyncio.to_thread(events.send, broker.passwords, "task.created", [record()])

    assert sent == 1
    assert "task.created" in await asyncio.to_thread(cluster.topics)


@pytest.mark.asyncio(loop_scope="module")
async def test_the_lag_of_a_room_is_known_by_the_password_of_its_secret_store(
    broker: Broker, trusted: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_alice(monkeypatch, trusted.ca)
    await asyncio.to_thread(events.send, broker.passwords, "task.created", [record()])
    monkeypatch.delenv("KAFKA_PASSWORD")

    assert await lag_of(broker.passwords, "readers", "secret") > 0


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("wrong", ["password", "authority", "no TLS"])
async def test_kafka_takes_nobody_else_and_is_taken_for_nobody_else(
    broker: Broker, trusted: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    as_alice(monkeypatch, stranger.ca if wrong == "authority" else trusted.ca)
    if wrong == "password":
        monkeypatch.setenv("KAFKA_PASSWORD", "guess")
    if wrong == "no TLS":
        monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")

    with pytest.raises(topics.typer.Exit):
        await asyncio.to_thread(topics.Cluster(broker.passwords).wait, 0)


@pytest.mark.asyncio(loop_scope="module")
async def test_commands_and_rooms_log_in_to_kafka_by_token(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a token that this broker takes: Amazon's own can be had from nobody else."""

    def token(_config: str) -> tuple[str, float]:
        ends = time.time() + 300
        claims = {"sub": "room", "iat": time.time(), "exp": ends}
        parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in ({"alg": "none"}, claims)]
        return b".".join([*parts, b""]).decode(), ends

    monkeypatch.setattr(login, "msk_token", token)
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SASL_PLAINTEXT")
    monkeypatch.setenv("KAFKA_SASL_MECHANISM", "OAUTHBEARER")

    await asyncio.to_thread(topics.Cluster(broker.tokens).wait, PATIENCE)
    await asyncio.to_thread(events.send, broker.tokens, "task.created", [record()])

    assert await lag_of(broker.tokens, "readers-by-token", "") > 0


def test_a_login_at_amazons_kafka_is_a_signed_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-a-test")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")

    token, ends = login.msk_token()

    signed = base64.urlsafe_b64decode(token + "===").decode()
    assert signed.startswith("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&")
    assert "%2Feu-central-1%2Fkafka-cluster%2Faws4_request" in signed
    assert "X-Amz-Expires=900" in signed and "X-Amz-Security-Token=of-a-test" in signed
    assert 0 < ends - time.time() <= login.MSK_LIFETIME


def test_without_settings_kafka_is_spoken_to_as_ever() -> None:
    assert login.client_settings(KafkaLogin()) == {"security.protocol": "PLAINTEXT"}


async def test_an_empty_environment_asks_the_secret_store_for_nothing() -> None:
    async def never(name: str) -> str:
        raise IsaError(name)

    assert await login.room_settings(KafkaLogin(), never) == {"security.protocol": "PLAINTEXT"}
