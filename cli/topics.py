"""`isa topics`: what is on Kafka, and how it is made to be what schemas/avro/topics.yaml says."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
import yaml
from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)
from rich.console import Console
from rich.table import Table

from isa.events import EVENTS
from kernel.kafka import client_settings
from kernel.settings import KafkaLogin
from runtime.environment import engine_environment
from runtime.layout import layout_from_environment

MANIFEST = Path(__file__).resolve().parent.parent / "schemas" / "avro" / "topics.yaml"
DEAD_LETTER = ".dlq"
COMPATIBILITY = "BACKWARD_TRANSITIVE"
TIMEOUT = 15.0
RECORD_LIMIT = 5 << 20
"""Bytes a record may have on the wire; the pub/sub components say the same."""
UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
EPHEMERAL = re.compile(r".+-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""Groups that live as long as a replica: those that read `control.changed`."""

console = Console(highlight=False)
app = typer.Typer(
    add_completion=False, help="Topics, their records, and how far each consumer is.", invoke_without_command=True
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic as the manifest wants it."""

    name: str
    partitions: int
    replication_factor: int
    config: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A topic as the cluster has it."""

    partitions: int
    config: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference between manifest and cluster, and what makes it good."""

    topic: str
    what: str
    apply: Callable[[], None] | None
    """None: a person has to decide."""


def milliseconds(text: str) -> str:
    """Return a duration such as `24h` in milliseconds, as Kafka has it."""
    match = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
    if not match:
        raise typer.BadParameter(f"{text!r} in topics.yaml is no duration: write 24h or 7d.")
    return str(int(match[1]) * UNITS[match[2]])


def manifest(environment: str, path: Path = MANIFEST) -> dict[str, Topic]:
    """Return every topic of an environment, dead-letter topics included, by name."""
    declared = yaml.safe_load(path.read_text())
    if environment not in declared["environments"]:
        known = ", ".join(declared["environments"])
        raise typer.BadParameter(f"topics.yaml has no environment {environment!r}; it has {known}.")
    defaults = declared["environments"][environment]
    wanted: dict[str, Topic] = {}
    for name, own in declared["topics"].items():
        settings = {**defaults, **own}
        common = {
            "max.message.bytes": str(RECORD_LIMIT),
            "min.insync.replicas": str(settings.get("min_insync_replicas", 1)),
        }
        policy = settings.get("cleanup_policy", "delete")
        config = {**common, "cleanup.policy": policy}
        if policy == "delete":
            config["retention.ms"] = milliseconds(settings["retention"])
        shape = {"partitions": settings["partitions"], "replication_factor": settings["replication_factor"]}
        wanted[name] = Topic(name=name, config=config, **shape)
        letters = {**common, "cleanup.policy": "delete", "retention.ms": milliseconds(settings["dlq_retention"])}
        wanted[name + DEAD_LETTER] = Topic(name=name + DEAD_LETTER, config=letters, **shape)
    return wanted


def addresses() -> tuple[str, str]:
    """Return the brokers and the registry of this set."""
    environment = engine_environment(layout_from_environment())
    return environment["KAFKA_BROKERS"], environment["REGISTRY_URL"]


def admin_client(brokers: str) -> AdminClient:
    """Return a client, without librdkafka's own chatter."""
    settings: dict[str, Any] = {"bootstrap.servers": brokers, "log_level": 0, "socket.timeout.ms": 10_000}
    return AdminClient({**settings, **client_settings(KafkaLogin())})


class Cluster:
    """What `isa topics` asks of Kafka and changes there."""

    def __init__(self, brokers: str) -> None:
        self.brokers = brokers
        self.admin = admin_client(brokers)

    def wait(self, seconds: float) -> None:
        """Wait until a broker answers, or say that none does."""
        until = time.monotonic() + seconds
        while True:
            try:
                self.admin.list_topics(timeout=3)
                return
            except KafkaException as error:
                if time.monotonic() > until:
                    console.print(f"[red]Kafka does not answer at {self.brokers}.[/] Start the set: make start.")
                    raise typer.Exit(1) from error

    def topics(self) -> dict[str, Found]:
        """Return the topics that are there, Kafka's own left out."""
        listed = self.admin.list_topics(timeout=TIMEOUT).topics
        names = sorted(name for name in listed if not name.startswith("__"))
        resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in names]
        configs = {resource.name: future.result(TIMEOUT) for resource, future in self._configs(resources)}
        return {
            name: Found(
                partitions=len(listed[name].partitions),
                config={entry.name: entry.value for entry in configs[name].values()},
            )
            for name in names
        }

    def _configs(self, resources: list[ConfigResource]) -> Iterator[tuple[ConfigResource, Future[dict[str, Any]]]]:
        if resources:  # librdkafka refuses an empty list
            yield from self.admin.describe_configs(resources, request_timeout=TIMEOUT).items()

    def create(self, topic: Topic) -> None:
        """Create a topic."""
        new = NewTopic(
            topic.name,
            num_partitions=topic.partitions,
            replication_factor=topic.replication_factor,
            config=dict(topic.config),
        )
        self.admin.create_topics([new], operation_timeout=TIMEOUT)[topic.name].result(TIMEOUT)

    def grow(self, topic: Topic) -> None:
        """Add partitions."""
        self.admin.create_partitions([NewPartitions(topic.name, topic.partitions)])[topic.name].result(TIMEOUT)

    def configure(self, name: str, setting: str, value: str) -> None:
        """Set one setting of a topic."""
        entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
        self.admin.incremental_alter_configs([resource])[resource].result(TIMEOUT)

    def ranges(self, names: list[str]) -> dict[tuple[str, int], tuple[int, int]]:
        """Return the first and the next offset of every partition."""
        listed = self.admin.list_topics(timeout=TIMEOUT).topics
        partitions = [
            TopicPartition(name, number) for name in names if name in listed for number in listed[name].partitions
        ]
        first = self._offsets(partitions, OffsetSpec.earliest())  # type: ignore[no-untyped-call]
        last = self._offsets(partitions, OffsetSpec.latest())  # type: ignore[no-untyped-call]
        return {key: (first[key], last[key]) for key in first}

    def _offsets(self, partitions: list[TopicPartition], which: OffsetSpec) -> dict[tuple[str, int], int]:
        if not partitions:
            return {}
        answers = self.admin.list_offsets(dict.fromkeys(partitions, which), request_timeout=TIMEOUT)
        return {(each.topic, each.partition): future.result(TIMEOUT).offset for each, future in answers.items()}

    def groups(self) -> list[str]:
        """Return the consumer groups that outlive their members."""
        listed = self.admin.list_consumer_groups(request_timeout=TIMEOUT).result(TIMEOUT)
        return sorted(group.group_id for group in listed.valid if not EPHEMERAL.fullmatch(group.group_id))

    def committed(self, group: str) -> dict[tuple[str, int], int]:
        """Return how far a group has come on the partitions that it reads."""
        future = self.admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group]
        found = future.result(TIMEOUT).topic_partitions
        return {(each.topic, each.partition): each.offset for each in found if each.offset >= 0}

    def lags(self, ranges: Mapping[tuple[str, int], tuple[int, int]]) -> dict[str, dict[str, int]]:
        """Return by topic how many records each group still has before it."""
        lags: dict[str, dict[str, int]] = {}
        for group in self.groups():
            for (topic, partition), offset in self.committed(group).items():
                if (topic, partition) in ranges:
                    first, last = ranges[topic, partition]
                    of_topic = lags.setdefault(topic, {})
                    of_topic[group] = of_topic.get(group, 0) + max(0, last - max(offset, first))
        return lags


class SchemaRegistry:
    """What `isa topics` asks of the schema registry and changes there (the Confluent API, version 7)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT)

    def wait(self, seconds: float) -> None:
        """Wait until it answers, or say that it does not."""
        until = time.monotonic() + seconds
        while True:
            try:
                if self._client.get("/subjects").is_success:
                    return
            except httpx.HTTPError:
                pass
            if time.monotonic() > until:
                console.print(f"[red]The schema registry does not answer at {self.url}.[/] Start the set: make start.")
                raise typer.Exit(1)
            time.sleep(0.3)

    def is_registered(self, topic: str, schema: str) -> bool:
        """Tell whether a topic's subject has exactly this schema."""
        response = self._client.post(f"/subjects/{topic}-value", json={"schema": schema})
        return response.is_success

    def register(self, topic: str, schema: str) -> None:
        """Register a schema; the registry refuses one that older records cannot be read with."""
        response = self._client.post(f"/subjects/{topic}-value/versions", json={"schema": schema})
        if response.is_error:
            console.print(f"[red]The registry refuses the schema of {topic}:[/] {message_of(response)}")
            raise typer.Exit(1)

    def compatibility(self, topic: str) -> str:
        """Return what the registry holds a topic's schemas to."""
        response = self._client.get(f"/config/{topic}-value")
        return str(response.json().get("compatibilityLevel", "")) if response.is_success else ""

    def hold_to(self, topic: str, level: str) -> None:
        """Say what the registry holds a topic's schemas to."""
        self._client.put(f"/config/{topic}-value", json={"compatibility": level}).raise_for_status()

    def problems(self, topic: str, schema: str) -> str:
        """Return why the registry would refuse a schema; empty when it would not."""
        response = self._client.post(
            f"/compatibility/subjects/{topic}-value/versions", params={"verbose": "true"}, json={"schema": schema}
        )
        if response.status_code == httpx.codes.NOT_FOUND or (response.is_success and response.json()["is_compatible"]):
            return ""
        return message_of(response)


def message_of(response: httpx.Response) -> str:
    """Return what the registry says in one line."""
    try:
        body = response.json()
    except ValueError:
        return f"{response.status_code} {response.text[:200]}"
    return str(body.get("message") or "; ".join(map(str, body.get("messages", []))) or body)


def topic_changes(cluster: Cluster, wanted: Mapping[str, Topic]) -> list[Change]:
    """Return what differs between the manifest and the cluster."""
    found = cluster.topics()
    changes: list[Change] = []
    for topic in wanted.values():
        if topic.name not in found:
            change = f"create: {topic.partitions} partition(s), {topic.replication_factor} replica(s)"
            changes.append(Change(topic=topic.name, what=change, apply=partial(cluster.create, topic)))
            continue
        changes += settings_changes(cluster, topic, found[topic.name])
    for name in sorted(found.keys() - wanted.keys()):
        changes.append(Change(topic=name, what="not in topics.yaml: declare it, or delete it by hand", apply=None))
    return changes


def settings_changes(cluster: Cluster, topic: Topic, found: Found) -> list[Change]:
    """Return what differs in one topic that is there."""
    changes: list[Change] = []
    if found.partitions < topic.partitions:
        change = f"partitions: {found.partitions} -> {topic.partitions} (keys move; their order holds from here on)"
        changes.append(Change(topic=topic.name, what=change, apply=partial(cluster.grow, topic)))
    elif found.partitions > topic.partitions:
        change = (
            f"partitions: {found.partitions}, topics.yaml has {topic.partitions}: Kafka never takes partitions away"
        )
        changes.append(Change(topic=topic.name, what=change, apply=None))
    for name, value in topic.config.items():
        if found.config.get(name) != value:
            changes.append(
                Change(
                    topic=topic.name,
                    what=f"{name}: {found.config.get(name)} -> {value}",
                    apply=partial(cluster.configure, topic.name, name, value),
                )
            )
    return changes


def schema_changes(registry: SchemaRegistry) -> list[Change]:
    """Return what differs between our schemas and the registry's."""
    changes: list[Change] = []
    for topic, event in EVENTS.items():
        schema = event.SCHEMA
        if (level := registry.compatibility(topic)) != COMPATIBILITY:
            change = f"schema compatibility: {level or 'none'} -> {COMPATIBILITY}"
            changes.append(Change(topic=topic, what=change, apply=partial(registry.hold_to, topic, COMPATIBILITY)))
        if not registry.is_registered(topic, schema):
            changes.append(
                Change(
                    topic=topic,
                    what=f"schema: register {event.__name__}",
                    apply=partial(registry.register, topic, schema),
                )
            )
    return changes


EnvironmentOption = Annotated[str, typer.Option("--environment", "-e", help="Which of topics.yaml's environments.")]


SchemasOnlyOption = Annotated[
    bool, typer.Option("--schemas-only", help="Leave the topics to who else declares them: Strimzi, or Terraform.")
]


def differences(environment: str, *, wait: float, schemas_only: bool) -> list[Change]:
    """Return everything that is not as declared."""
    brokers, url = addresses()
    changes: list[Change] = []
    if not schemas_only:
        cluster = Cluster(brokers)
        cluster.wait(wait)
        changes += topic_changes(cluster, manifest(environment))
    registry = SchemaRegistry(url)
    registry.wait(wait)
    return [*changes, *schema_changes(registry)]


@app.command("apply")
def apply(
    environment: EnvironmentOption = "local",
    wait: Annotated[float, typer.Option(help="Seconds to wait for Kafka and the registry.")] = 60.0,
    *,
    schemas_only: SchemasOnlyOption = False,
) -> None:
    """Make topics, dead-letter topics and schemas what the manifest says; what is right already is left alone."""
    changes = differences(environment, wait=wait, schemas_only=schemas_only)
    done = 0
    for change in changes:
        if change.apply is None:
            console.print(f"[yellow]warning[/] {change.topic}: {change.what}")
            continue
        try:
            change.apply()
        except (KafkaException, httpx.HTTPError) as error:
            console.print(f"[red]failed[/]  {change.topic}: {change.what}: {error}")
            raise typer.Exit(1) from error
        console.print(f"[green]done[/]    {change.topic}: {change.what}")
        done += 1
    topics = "" if schemas_only else f"{len(manifest(environment))} topics and "
    console.print(f"{topics}{len(EVENTS)} schemas are as declared, {done} change(s) made.")


@app.command("check")
def check(environment: EnvironmentOption = "local", *, schemas_only: SchemasOnlyOption = False) -> None:
    """Tell what `isa topics apply` would change, and fail when there is anything."""
    changes = differences(environment, wait=3.0, schemas_only=schemas_only)
    for change in changes:
        console.print(f"[yellow]differs[/] {change.topic}: {change.what}")
    if any(change.apply for change in changes):
        console.print("Run `isa topics apply`.")
        raise typer.Exit(1)
    console.print("Everything is as declared.")


@app.callback()
def show(
    context: typer.Context,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a topic.")] = False,
) -> None:
    """Show topics, records, lag of each consumer group, and dead letters."""
    if context.invoked_subcommand:
        return
    cluster = Cluster(addresses()[0])
    cluster.wait(3.0)
    rows = overview(cluster)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("topic", no_wrap=True)
    for heading in ("partitions", "records", "offset", "dlq"):
        table.add_column(heading, justify="right")
    table.add_column("lag by consumer group")
    for row in rows:
        lag = ", ".join(f"{group} {number}" for group, number in row["lag"].items()) or "-"
        letters = f"[red]{row['dlq']}[/]" if row["dlq"] else "0"
        table.add_row(row["topic"], str(row["partitions"]), str(row["records"]), str(row["offset"]), letters, lag)
    console.print(table)


def overview(cluster: Cluster) -> list[dict[str, Any]]:
    """Return a row a topic: partitions, records, end offset, dead letters and lag by group."""
    names = list(manifest("local"))
    ranges = cluster.ranges(names)
    lags = cluster.lags(ranges)
    rows = []
    for name in names:
        if name.endswith(DEAD_LETTER):
            continue
        own = [bounds for (topic, _), bounds in ranges.items() if topic == name]
        letters = [bounds for (topic, _), bounds in ranges.items() if topic == name + DEAD_LETTER]
        rows.append(
            {
                "topic": name,
                "partitions": len(own),
                "records": sum(last - first for first, last in own),
                "offset": sum(last for _, last in own),
                "dlq": sum(last - first for first, last in letters),
                "lag": dict(sorted(lags.get(name, {}).items())),
            }
        )
    return rows
