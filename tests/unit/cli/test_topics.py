"""What the manifest wants of the cluster, without a cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
import typer
from typer.testing import CliRunner

from cli import topics
from cli.topics import (
    COMPATIBILITY,
    EPHEMERAL,
    Cluster,
    Found,
    Topic,
    manifest,
    milliseconds,
    settings_changes,
    topic_changes,
)
from isa.events import EVENTS


@dataclass
class FakeCluster:
    """A cluster that only remembers."""

    found: dict[str, Found] = field(default_factory=dict)

    def topics(self) -> dict[str, Found]:
        return dict(self.found)

    def create(self, topic: Topic) -> None:
        self.found[topic.name] = Found(partitions=topic.partitions, config=dict(topic.config))

    def grow(self, topic: Topic) -> None:
        self.found[topic.name] = Found(partitions=topic.partitions, config=self.found[topic.name].config)

    def configure(self, name: str, setting: str, value: str) -> None:
        known = self.found[name]
        self.found[name] = Found(partitions=known.partitions, config={**known.config, setting: value})


@dataclass
class FakeRegistry:
    """A registry that only remembers."""

    schemas: dict[str, str] = field(default_factory=dict)
    levels: dict[str, str] = field(default_factory=dict)

    def wait(self, seconds: float) -> None:
        """Answer at once."""

    def is_registered(self, topic: str, schema: str) -> bool:
        return self.schemas.get(topic) == schema

    def register(self, topic: str, schema: str) -> None:
        self.schemas[topic] = schema

    def compatibility(self, topic: str) -> str:
        return self.levels.get(topic, "")

    def hold_to(self, topic: str, level: str) -> None:
        self.levels[topic] = level


def applied(fake: FakeCluster, wanted: dict[str, Topic]) -> list[str]:
    """Make every change that can be made, and return what they were."""
    changes = topic_changes(cast("Cluster", fake), wanted)
    for change in changes:
        if change.apply:
            change.apply()
    return [f"{change.topic}: {change.what}" for change in changes]


@pytest.mark.parametrize("environment", ["local", "single-broker", "production"])
def test_every_event_has_its_topic_and_its_dead_letters(environment: str) -> None:
    wanted = manifest(environment)

    assert wanted.keys() == {name for topic in EVENTS for name in (topic, f"{topic}.dlq")}


def test_production_is_wider_and_keeps_longer() -> None:
    topic = manifest("production")["task.created"]

    assert (topic.partitions, topic.replication_factor) == (3, 3)
    assert topic.config["retention.ms"] == str(7 * 24 * 3600 * 1000)
    assert topic.config["min.insync.replicas"] == "2"


def test_state_is_compacted_and_in_one_partition_everywhere() -> None:
    topic = manifest("production")["control.changed"]

    assert topic.partitions == 1
    assert topic.config["cleanup.policy"] == "compact"
    assert "retention.ms" not in topic.config
    assert manifest("production")["control.changed.dlq"].config["cleanup.policy"] == "delete"


def test_an_empty_cluster_gets_everything_once() -> None:
    fake = FakeCluster()

    first = applied(fake, manifest("local"))
    second = applied(fake, manifest("local"))

    assert len(first) == 2 * len(EVENTS)
    assert second == []


def test_a_move_to_production_widens_and_changes_settings() -> None:
    fake = FakeCluster()
    applied(fake, manifest("local"))

    changes = applied(fake, manifest("production"))

    assert any(change.startswith("task.created: partitions: 1 -> 3") for change in changes)
    assert "task.created: retention.ms: 86400000 -> 604800000" in changes
    assert applied(fake, manifest("production")) == []


def test_partitions_are_never_taken_away_and_strangers_never_deleted() -> None:
    fake = FakeCluster()
    applied(fake, manifest("production"))
    fake.found["stray"] = Found(partitions=1, config={})

    changes = topic_changes(cast("Cluster", fake), manifest("local"))
    by_hand = [change for change in changes if change.apply is None]

    assert "stray" in {change.topic for change in by_hand}
    assert any("Kafka never takes partitions away" in change.what for change in by_hand)


def test_a_topic_as_declared_needs_nothing() -> None:
    topic = manifest("local")["task.created"]
    found = Found(partitions=1, config={**topic.config, "segment.bytes": "1"})

    assert settings_changes(cast("Cluster", FakeCluster()), topic, found) == []


@pytest.mark.parametrize(("text", "value"), [("24h", "86400000"), ("7d", "604800000"), ("90s", "90000"), ("5ms", "5")])
def test_durations_are_milliseconds(text: str, value: str) -> None:
    assert milliseconds(text) == value


@pytest.mark.parametrize("text", ["", "7", "7 d", "-1d", "1w"])
def test_a_duration_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is no duration"):
        milliseconds(text)


def test_an_unknown_environment_is_told_the_known_ones() -> None:
    with pytest.raises(typer.BadParameter, match="local, single-broker, production"):
        manifest("staging")


def test_a_manifest_is_read_from_where_it_is(tmp_path: Path) -> None:
    file = tmp_path / "topics.yaml"
    file.write_text(
        "environments: {local: {partitions: 2, replication_factor: 1, retention: 1h, dlq_retention: 1d}}\n"
        "topics: {a.b: {key: aggregate_id, publisher: tasks, partitions: 5}}\n"
    )

    wanted = manifest("local", file)

    assert {name: topic.partitions for name, topic in wanted.items()} == {"a.b": 5, "a.b.dlq": 5}


def test_groups_of_replicas_are_told_from_groups_of_apps() -> None:
    assert EPHEMERAL.fullmatch("tasks-7d1f0a52-6c2b-4a1f-9a55-0c6f6d6a8e11")
    assert not EPHEMERAL.fullmatch("audit-audit")
    assert not EPHEMERAL.fullmatch("tasks")


def test_schemas_alone_are_applied_without_asking_kafka(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_cluster(brokers: str) -> Cluster:
        raise AssertionError(f"{brokers} was asked, though somebody else declares the topics")

    registry = FakeRegistry()
    monkeypatch.setattr(topics, "Cluster", no_cluster)
    monkeypatch.setattr(topics, "SchemaRegistry", lambda url: registry)

    done = CliRunner().invoke(topics.app, ["apply", "--environment", "production", "--schemas-only"])

    assert done.exit_code == 0, done.output
    assert registry.schemas.keys() == EVENTS.keys()
    assert set(registry.levels.values()) == {COMPATIBILITY}
    assert f"{len(EVENTS)} schemas are as declared, {2 * len(EVENTS)} change(s) made." in done.output
    again = CliRunner().invoke(topics.app, ["check", "--schemas-only"])
    assert again.exit_code == 0, again.output
