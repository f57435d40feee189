"""Topics, schemas, producer, consumer and dead letters on a real broker and registry."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import NewTopic

from cli import events, topics
from isa.events import EVENTS
from kernel.events import Record
from tests.conftest import Stack


@pytest.fixture(autouse=True)
def this_set(stack: Stack) -> Iterator[None]:
    """Let the commands' functions mean the set under test."""
    with patch.dict(os.environ, stack.environment):
        yield


@pytest.fixture
def cluster() -> topics.Cluster:
    return topics.Cluster(topics.addresses()[0])


@pytest.fixture
def wide(cluster: topics.Cluster) -> Iterator[str]:
    """Make a topic of six partitions, and delete it afterwards."""
    name = f"test.{uuid.uuid4().hex[:8]}"
    cluster.admin.create_topics([NewTopic(name, num_partitions=6, replication_factor=1)])[name].result(15)
    until(lambda: name in cluster.topics())
    yield name
    cluster.admin.delete_topics([name])[name].result(15)


def until(check: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    """Return what a check gives once it gives something."""
    end = time.monotonic() + seconds
    while True:
        if found := check():
            return found
        assert time.monotonic() < end, f"It did not happen within {seconds} s."
        time.sleep(0.2)


def partitions_of(brokers: str, topic: str, number: int) -> dict[str, int]:
    """Return on which partition each key stands, once so many records are there."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"t-{uuid.uuid4()}", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(6)])
    found: dict[str, int] = {}
    end = time.monotonic() + 20
    while len(found) < number and time.monotonic() < end:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            key = message.key()
            assert isinstance(key, bytes)
            found[key.decode()] = message.partition() or 0
    consumer.close()
    return found


@pytest.mark.ac("phase-v:A1.1:1", "phase-v:A1.2:1", "phase-v:B2.2:1", "phase-v:B2.2:3", "phase-v:B2.2:4")
def test_the_started_set_has_every_topic_and_schema(cluster: topics.Cluster) -> None:
    found = cluster.topics()

    for topic in topics.manifest("local").values():
        assert found[topic.name].partitions == topic.partitions
        assert found[topic.name].config["cleanup.policy"] == topic.config["cleanup.policy"]
    registry = topics.SchemaRegistry(topics.addresses()[1])
    assert all(registry.is_registered(topic, event.SCHEMA) for topic, event in EVENTS.items())
    assert {registry.compatibility(topic) for topic in EVENTS} == {"BACKWARD_TRANSITIVE"}


@pytest.mark.ac("phase-v:B2.1:2", "phase-v:B2.2:2")
def test_apply_makes_good_what_was_changed_by_hand_and_then_finds_nothing(
    stack: Stack, cluster: topics.Cluster
) -> None:
    cluster.configure("reminder.triggered.dlq", "retention.ms", "1000")

    assert stack.isa("topics", "check", check=False).returncode == 1
    first = stack.isa("topics", "apply").stdout
    second = stack.isa("topics", "apply").stdout

    assert "reminder.triggered.dlq: retention.ms: 1000 -> 604800000" in first
    assert "0 change(s) made" in second
    assert stack.isa("topics", "check").returncode == 0


def test_a_topic_that_nobody_declared_is_told_and_left_alone(cluster: topics.Cluster, wide: str) -> None:
    changes = [change for change in topics.topic_changes(cluster, topics.manifest("local")) if change.topic == wide]

    assert [change.apply for change in changes] == [None]
    assert "not in topics.yaml" in changes[0].what


def test_partitions_are_added_and_never_taken_away(cluster: topics.Cluster, wide: str) -> None:
    config = {"cleanup.policy": "delete"}
    more = topics.Topic(name=wide, partitions=8, replication_factor=1, config=config)
    fewer = topics.Topic(name=wide, partitions=3, replication_factor=1, config=config)

    (change,) = topics.settings_changes(cluster, more, cluster.topics()[wide])
    assert change.apply
    change.apply()

    assert until(lambda: cluster.topics()[wide].partitions == 8)
    (refused,) = topics.settings_changes(cluster, fewer, cluster.topics()[wide])
    assert refused.apply is None


@pytest.mark.ac("phase-v:B2.3:1")
def test_our_producer_puts_a_key_where_the_sidecar_puts_it(stack: Stack, wide: str) -> None:
    brokers = topics.addresses()[0]
    keys = [f"task-{number:03d}" for number in range(24)]
    token = json.loads((stack.layout.run / "tokens.json").read_text())["tasks"]["DAPR_API_TOKEN"]
    with httpx.Client(base_url=f"http://127.0.0.1:{stack.layout.port(3502)}", timeout=30) as sidecar:
        for key in keys:
            answer = sidecar.post(
                f"/v1.0/publish/events/{wide}",
                params={"metadata.partitionKey": key, "metadata.rawPayload": "true"},
                headers={"dapr-api-token": token, "content-type": "application/octet-stream"},
                content=b"x",
            )
            assert answer.status_code == 204, answer.text
    theirs = partitions_of(brokers, wide, len(keys))

    own = [Record(event_id=key, topic=wide, key=f"{key}", payload=b"y", headers={"own": "1"}) for key in keys]
    assert events.send(brokers, wide, own) == len(keys)
    ours = partitions_of_own(brokers, wide, len(keys))

    assert len(theirs) == len(ours) == len(keys)
    assert ours == theirs
    assert len(set(ours.values())) > 1


def partitions_of_own(brokers: str, topic: str, number: int) -> dict[str, int]:
    """Return the partitions of the records that our producer wrote."""
    consumer = events.consumer_of(brokers)
    begin = events.beginnings(consumer, topic, last=10_000)
    found = {
        str((message.key() or b"").decode()): message.partition() or 0
        for message in events.messages(consumer, begin, follow=False)
        if "own" in events.headers_of(message)
    }
    consumer.close()
    assert len(found) == number
    return found


def event_line(org: str, **changes: object) -> dict[str, Any]:
    """Return an event of an organisation that nobody signed up."""
    return {"aggregate_id": f"task-{uuid.uuid4().hex}", "org_id": org, "user_id": "user-test", **changes}


@pytest.mark.ac("phase-v:B2.3:1", "phase-v:B2.3:3", "platform:R1.6")
def test_a_produced_event_is_read_back_as_it_was(stack: Stack, tmp_path: Path) -> None:
    wanted = event_line("org-topicstest", due_at="2026-03-01T12:00:00+00:00", priority="B")
    file = tmp_path / "events.jsonl"
    file.write_text(json.dumps(wanted) + "\n")

    stack.isa("events", "produce", "task.created", "--file", str(file))

    lines = stack.isa("events", "tail", "task.created", "-n", "50").stdout.splitlines()
    found = [line for line in map(json.loads, lines) if line["key"] == wanted["aggregate_id"]]
    assert len(found) == 1
    assert wanted.items() <= found[0]["event"].items()
    assert found[0]["headers"]["ce_type"] == "task.created"
    assert found[0]["headers"]["ce_orgid"] == "org-topicstest"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({"aggregate_id": "task-1", "titel": "x"}, "has no field 'titel'"),
        ({"aggregate_id": "task-1", "due_at": "31 February"}, "due_at"),
        ({}, "aggregate_id"),
    ],
)
def test_an_event_that_is_none_is_refused_before_anything_is_sent(line: dict[str, str], told: str) -> None:
    with pytest.raises(Exception, match=told):
        list(events.events_in("task.created", [json.dumps(line)]))


@pytest.mark.ac("phase-v:A1.4:3", "platform:R1.4")
@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"not avro at all", "not framed as Avro"),
        (b"\x00\x7f\xff\xff\xffx", "no schema"),
        (b"", "not framed as Avro"),
    ],
    ids=["no frame", "unknown schema", "empty"],
)
def test_a_record_that_cannot_be_read_is_set_aside_with_its_reason_and_its_neighbours_go_on(
    stack: Stack, tmp_path: Path, payload: bytes, reason: str
) -> None:
    brokers = topics.addresses()[0]
    key, neighbour = f"poison-{uuid.uuid4().hex}", event_line("org-topicstest", changed=["title"], status="open")
    lines = tmp_path / "events.jsonl"
    lines.write_text(json.dumps(neighbour))

    events.send(
        brokers, "task.updated", [Record(event_id="x", topic="task.updated", key=key, payload=payload, headers={})]
    )
    stack.isa("events", "produce", "task.updated", "--file", str(lines))

    def letters() -> list[dict[str, str]]:
        consumer = events.consumer_of(brokers)
        try:
            begin = events.beginnings(consumer, "task.updated.dlq", last=200)
            return [
                events.headers_of(message)
                for message in events.messages(consumer, begin, follow=False)
                if message.key() == key.encode()
            ]
        finally:
            consumer.close()

    found = until(lambda: (seen := letters()) and len(seen) >= 3 and seen)
    assert {"analytics", "audit", "notifications"} <= {headers["isa-dlq-consumer"] for headers in found}
    assert all(reason in headers["isa-dlq-reason"] for headers in found)
    assert until(lambda: lag_of("audit", "task.updated") == 0)


def lag_of(group: str, topic: str) -> int:
    """Return how many records of a topic a group still has before it."""
    cluster = topics.Cluster(topics.addresses()[0])
    rows = [row for row in events.group_rows(cluster) if (row["group"], row["topic"]) == (group, topic)]
    return int(rows[0]["lag"]) if rows else -1


@pytest.mark.ac("phase-v:B2.3:2")
def test_the_overview_counts_records_and_dead_letters(stack: Stack) -> None:
    rows = [json.loads(line) for line in stack.isa("topics", "--json").stdout.splitlines()]

    assert {row["topic"] for row in rows} == set(EVENTS)
    assert next(row for row in rows if row["topic"] == "task.updated")["dlq"] >= 1
    assert all(row["offset"] >= row["records"] >= 0 for row in rows)


def test_schemas_survive_a_restart_of_the_registry(stack: Stack) -> None:
    if os.environ.get("ISA_TEST_PORT_BASE") == "0":
        pytest.skip("would stop the registry of the set that somebody works with")
    url = topics.addresses()[1]
    body = {"schema": EVENTS["task.created"].SCHEMA}
    before = httpx.post(f"{url}/subjects/task.created-value", json=body).json()

    stack.isa("restart", "registry")
    topics.SchemaRegistry(url).wait(60)

    assert httpx.post(f"{url}/subjects/task.created-value", json=body).json()["id"] == before["id"]
