"""The users, rights and topics of charts/messaging on a real Kafka, under the sidecars' components of a cluster.

What Strimzi's operators would do is done here by Kafka's own admin client, from the same manifests: topics, logins by
SCRAM, access lists. A real daprd then reads the components that charts/dapr-resources renders for a bare cluster; of
these, only the brokers' address and the secret store behind `kafka-ca` are this machine's.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import pytest_asyncio
import yaml
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from cli import topics
from tests.architecture.tree import dapr_apps
from tests.deploy.rendering import Release, manifests
from tests.integration.private import PATIENCE, Program, binary, free_port, kafka_of
from tests.integration.test_encrypted_engines import authority

PASSWORD = "of-everybody"
DROPPED = b"drop me"
RAW = {"metadata.rawPayload": "true", "metadata.partitionKey": "key"}
Manifest = dict[str, Any]


def rendered(chart: str, kind: str) -> list[Manifest]:
    """Return what a chart makes of a kind on a bare cluster with one broker."""
    release = Release(chart=chart, name=chart, environment="dev", cloud="local")
    return [each for each in manifests(release) if each["kind"] == kind]


def user(app: str) -> Manifest:
    (found,) = [each for each in rendered("messaging", "KafkaUser") if each["metadata"]["name"] == app]
    return found


def granted(app: str, operation: str) -> set[str]:
    """Return the topics on which an app has a right."""
    acls = user(app)["spec"]["authorization"]["acls"]
    return {
        each["resource"]["name"]
        for each in acls
        if each["resource"]["type"] == "topic" and operation in each["operations"]
    }


def access(app: str) -> Iterator[AclBinding]:
    """Yield a user's access list as Kafka has it."""
    patterns = {"literal": ResourcePatternType.LITERAL, "prefix": ResourcePatternType.PREFIXED}
    for acl in user(app)["spec"]["authorization"]["acls"]:
        resource = acl["resource"]
        for operation in acl["operations"]:
            yield AclBinding(
                ResourceType[resource["type"].upper()], resource["name"], patterns[resource["patternType"]],
                f"User:{app}", "*", AclOperation[operation.upper()], AclPermissionType.ALLOW,
            )  # fmt: skip


@dataclass(frozen=True)
class Broker:
    """Where users log in, where nobody has to, and who certified the server."""

    logins: str
    inner: str
    ca: Path

    def login(self, app: str) -> dict[str, Any]:
        """Return what librdkafka's clients of a user are told."""
        return {
            "bootstrap.servers": self.logins, "security.protocol": "SASL_SSL", "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": app, "sasl.password": PASSWORD, "ssl.ca.location": str(self.ca), "log_level": 0,
        }  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """A broker with the topics, users and rights of the chart."""
    folder = tmp_path_factory.mktemp("kafka")
    trusted = authority(folder)
    pem = folder / "server.pem"
    pem.write_bytes(trusted.key.read_bytes() + trusted.certificate.read_bytes() + trusted.ca.read_bytes())
    inner, logins = (f"127.0.0.1:{free_port()}" for _ in range(2))
    (declared,) = rendered("messaging", "Kafka")
    settings = "\n".join(f"{name}={str(value).lower()}" for name, value in declared["spec"]["kafka"]["config"].items())
    properties = f"""\
inter.broker.listener.name=INNER
listeners=INNER://{inner},SERVICES://{logins},CONTROLLER://
advertised.listeners=INNER://{inner},SERVICES://{logins}
listener.security.protocol.map=INNER:PLAINTEXT,CONTROLLER:PLAINTEXT,SERVICES:SASL_SSL
listener.name.services.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.services.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.services.ssl.keystore.type=PEM
listener.name.services.ssl.keystore.location={pem}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
{settings}
"""
    async with kafka_of(folder, properties):
        await asyncio.to_thread(prepare, topics.Cluster(inner))
        yield Broker(logins, inner, trusted.ca)


def prepare(cluster: topics.Cluster) -> None:
    """Make topics, logins and access lists, as Strimzi's operators do."""
    cluster.wait(60)
    for each in rendered("messaging", "KafkaTopic"):
        spec = each["spec"]
        config = {name: str(value) for name, value in spec["config"].items()}
        cluster.create(
            topics.Topic(
                name=each["metadata"]["name"],
                partitions=spec["partitions"],
                replication_factor=spec["replicas"],
                config=config,
            )
        )
    form = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
    logins = [UserScramCredentialUpsertion(app, form, PASSWORD.encode()) for app in dapr_apps()]
    bindings = [binding for app in dapr_apps() for binding in access(app)]
    for future in cluster.admin.alter_user_scram_credentials(logins).values():
        future.result(PATIENCE)
    for future in cluster.admin.create_acls(bindings).values():
        future.result(PATIENCE)


@dataclass
class Room:
    """An app that only listens: topic -> payloads that it was given. It drops those that say so."""

    port: int
    heard: dict[str, set[bytes]] = field(default_factory=dict)

    def take(self, topic: str, batch: Mapping[str, Any]) -> dict[str, Any]:
        statuses = []
        for entry in batch["entries"]:
            payload = base64.b64decode(entry["event"])
            self.heard.setdefault(topic, set()).add(payload)
            statuses.append({"entryId": entry["entryId"], "status": "DROP" if payload == DROPPED else "SUCCESS"})
        return {"statuses": statuses}


@contextmanager
def room() -> Iterator[Room]:
    """Serve one."""
    listening = Room(free_port())

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(404, {})

        def do_POST(self) -> None:
            batch = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self.answer(200, listening.take(self.path.removeprefix("/events/"), batch))

        def answer(self, status: int, body: object) -> None:
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", listening.port), Answers)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield listening
    finally:
        server.shutdown()
        server.server_close()


def resources(folder: Path, broker: Broker, app: str) -> None:
    """Write what the sidecar of an app finds in a cluster, with this machine's brokers and secrets."""
    (folder / "secrets.json").write_text(json.dumps({"kafka-ca": broker.ca.read_text()}))
    documents = [
        each for kind in ("Component", "Subscription", "Resiliency") for each in rendered("dapr-resources", kind)
    ]
    kept = [each for each in documents if app in each["scopes"] and each["metadata"]["name"] != "preferences"]
    for number, document in enumerate(kept):
        spec = dict(document["spec"])
        if spec.get("type") == "pubsub.kafka":
            here = {"name": "brokers", "value": broker.logins}
            spec["metadata"] = [here if item["name"] == "brokers" else item for item in spec["metadata"]]
        if document["metadata"]["name"] == "secrets":
            spec["type"] = "secretstores.local.file"
            spec["metadata"] = [{"name": "secretsFile", "value": str(folder / "secrets.json")}]
        metadata = {"name": document["metadata"]["name"]}
        (folder / f"{number}.yaml").write_text(yaml.safe_dump({**document, "spec": spec, "metadata": metadata}))


@asynccontextmanager
async def sidecar(folder: Path, broker: Broker, app: str, listening: Room) -> AsyncIterator[httpx.AsyncClient]:
    """Run daprd as an injected one runs, and yield a client of its API."""
    found = folder / "resources"
    found.mkdir()
    resources(found, broker, app)
    http, grpc, internal, metrics, public = (str(free_port()) for _ in range(5))
    program = Program(
        binary("dapr", "daprd"), "--app-id", app, "--app-port", str(listening.port), "--dapr-http-port", http,
        "--dapr-grpc-port", grpc, "--dapr-internal-grpc-port", internal, "--metrics-port", metrics,
        "--dapr-public-port", public, "--dapr-listen-addresses", "127.0.0.1", "--placement-host-address", "",
        "--scheduler-host-address", "", "--resources-path", str(found), "--log-level", "info",
        log=folder / "daprd.log", env={"KAFKA_PASSWORD": PASSWORD},
    )  # fmt: skip
    await program.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http}/v1.0", timeout=PATIENCE) as client:
            await until(lambda: up(client), f"daprd does not start:\n{tail(folder / 'daprd.log')}")
            yield client
    finally:
        await program.end()


async def up(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/healthz/outbound")).is_success
    except httpx.HTTPError:
        return False


async def until(is_so: Any, otherwise: str) -> None:
    """Ask until something is so."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not await is_so():
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(otherwise) from None


def tail(log: Path) -> str:
    return "\n".join(log.read_text().splitlines()[-15:]) if log.exists() else ""


def component_of(topic: str) -> str:
    (found,) = {
        each["spec"]["pubsubname"]
        for each in rendered("dapr-resources", "Subscription")
        if each["spec"]["topic"] == topic
    }
    return str(found)


def write(broker: Broker, topic: str, payload: bytes) -> None:
    """Write a record as nobody in particular, who may do everything."""
    producer = Producer({"bootstrap.servers": broker.inner, "log_level": 0})
    producer.produce(topic, payload, key="key")  # a compacted topic takes no record without one
    assert producer.flush(PATIENCE) == 0


def buried(broker: Broker, reads: set[str]) -> dict[str, int]:
    """Return how many records each topic's dead letters have."""
    ranges = topics.Cluster(broker.inner).ranges([topic + topics.DEAD_LETTER for topic in reads])
    found: dict[str, int] = {}
    for (letters, _), (first, last) in ranges.items():
        topic = letters.removesuffix(topics.DEAD_LETTER)
        found[topic] = found.get(topic, 0) + last - first
    return found


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("app", ["tasks", "audit", "redis-grpc"])
async def test_a_sidecar_reads_publishes_and_buries_with_its_services_rights(
    broker: Broker, tmp_path: Path, app: str
) -> None:
    reads = granted(app, "Read")
    writes = {topic for topic in granted(app, "Write") if not topic.endswith(topics.DEAD_LETTER)}
    before = await asyncio.to_thread(buried, broker, reads)

    with room() as listening:
        async with sidecar(tmp_path, broker, app, listening) as client:
            for topic in reads:
                write(broker, topic, b"to be read")
                write(broker, topic, DROPPED)
            for topic in writes:
                path = f"/publish/{component_of(topic)}/{topic}"
                done = await client.post(path, params=RAW, content=b"written")
                assert done.status_code == 204, f"{app} may not write {topic}: {done.text}"

            async def heard_all() -> bool:
                return all(listening.heard.get(topic, set()) >= {b"to be read", DROPPED} for topic in reads)

            await until(
                heard_all, f"{app} did not hear of {reads - listening.heard.keys()}:\n{tail(tmp_path / 'daprd.log')}"
            )

            async def buried_all() -> bool:
                now = await asyncio.to_thread(buried, broker, reads)
                return all(now[topic] > before[topic] for topic in reads)

            await until(buried_all, f"{app} could not bury:\n{tail(tmp_path / 'daprd.log')}")


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("app", dapr_apps())
async def test_a_service_writes_its_own_topics_and_no_other(broker: Broker, app: str) -> None:
    everything = [each["metadata"]["name"] for each in rendered("messaging", "KafkaTopic")]

    taken, refused = await asyncio.to_thread(written, Producer(broker.login(app)), everything)

    assert taken == granted(app, "Write")
    assert refused.keys() == set(everything) - taken
    assert set(refused.values()) == {"TOPIC_AUTHORIZATION_FAILED"}


def written(producer: Producer, names: list[str]) -> tuple[set[str], dict[str, str]]:
    """Write to every topic; return those that took the record, and the others with why they did not."""
    taken: set[str] = set()
    refused: dict[str, str] = {}

    def note(error: KafkaError | None, message: Message) -> None:
        topic = message.topic() or ""
        if error is None:
            taken.add(topic)
        else:
            refused[topic] = error.name()

    for name in names:
        producer.produce(name, b"written", key="key", on_delivery=note)
    assert producer.flush(PATIENCE) == 0
    return taken, refused


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_reads_as_another_service_or_what_it_did_not_subscribe_to(broker: Broker) -> None:
    write(broker, "task.created", b"of tasks")

    for app, group, topic in (("tasks", "audit", "org.member.removed"), ("redis-grpc", "redis-grpc-1", "task.created")):
        consumer = Consumer({**broker.login(app), "group.id": group, "auto.offset.reset": "earliest"})
        try:
            consumer.subscribe([topic])
            refused = await asyncio.to_thread(first_of, consumer)
        finally:
            consumer.close()
        assert "AUTHORIZATION_FAILED" in refused, f"{app} reads {topic} as {group}: {refused}"


def first_of(consumer: Consumer) -> str:
    """Return the name of the first error, or that there is a record."""
    message = consumer.poll(PATIENCE)
    if message is None:
        return "nothing"
    error = message.error()
    return error.name() if error else "a record"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("app", ["analytics", "audit"])
async def test_the_lag_of_a_consumer_can_be_asked_for_with_its_own_login(broker: Broker, app: str) -> None:
    """As the room does for its gauge, and KEDA for its replicas."""
    consumer = Consumer({**broker.login(app), "group.id": app, "enable.auto.commit": False})
    try:
        known = await asyncio.to_thread(consumer.list_topics, timeout=PATIENCE)
        partitions = [
            topics.TopicPartition(topic, number)
            for topic in granted(app, "Read")
            for number in known.topics[topic].partitions
        ]
        await asyncio.to_thread(consumer.committed, partitions, timeout=PATIENCE)
        for partition in partitions:
            await asyncio.to_thread(consumer.get_watermark_offsets, partition, timeout=PATIENCE)
    except KafkaException as error:
        raise AssertionError(f"{app} may not ask for its lag: {error}") from error
    finally:
        consumer.close()
