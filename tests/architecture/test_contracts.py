"""One name from the schema to the log, a rule on every method, and generated code that is fresh."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from isa.events import EVENTS, Event
from isa.policy.v1 import policy_pb2
from kernel.dapr.pubsub import component_of
from tests.architecture.tree import CORE, ROOT, TOPICS, schema

PERMISSION = re.compile(r"[a-z]+\.(read|write|admin)")
ENVELOPE = [
    "event_id", "occurred_at", "org_id", "user_id", "schema_version",
    "aggregate_id", "aggregate_version", "correlation_id", "causation_id",
]  # fmt: skip
PRIMARY = {
    "task.created", "task.updated", "task.completed", "task.deleted",
    "user.registered", "user.authenticated", "notification.sent", "reminder.triggered",
}  # fmt: skip


def methods() -> list[MethodDescriptor]:
    """Return every method of every service."""
    import importlib

    found = []
    for path in sorted((ROOT / "schemas/gen/isa").rglob("*_pb2.py")):
        module = importlib.import_module(".".join(path.relative_to(ROOT / "schemas/gen").with_suffix("").parts))
        for service in module.DESCRIPTOR.services_by_name.values():
            found += service.methods
    return found


@pytest.mark.ac("phase-v:A1.1:1")
def test_the_eight_topics_are_declared() -> None:
    assert TOPICS.keys() >= PRIMARY, f"schemas/avro/topics.yaml lacks {sorted(PRIMARY - TOPICS.keys())}."


@pytest.mark.ac("phase-v:A1.1:2", "phase-v:A1.1:3", "phase-v:A1.1:4")
def test_production_keeps_three_copies_in_three_partitions_for_a_week() -> None:
    environments = yaml.safe_load((ROOT / "schemas/avro/topics.yaml").read_text())["environments"]

    production = environments["production"]

    assert production["partitions"] >= 3
    assert production["replication_factor"] == 3
    assert production["retention"] == "7d"


@pytest.mark.ac("phase-v:B2.2:1", "phase-v:B2.2:2")
def test_one_machine_keeps_one_partition_for_a_day() -> None:
    local = yaml.safe_load((ROOT / "schemas/avro/topics.yaml").read_text())["environments"]["local"]

    assert (local["partitions"], local["replication_factor"], local["retention"]) == (1, 1, "24h")


def test_file_topic_and_class_have_one_name() -> None:
    files = {path.stem for path in (ROOT / "schemas/avro").glob("*.avsc")}

    assert files == TOPICS.keys(), (
        f"schemas/avro/*.avsc and topics.yaml differ by {sorted(files ^ TOPICS.keys())}: a topic is one file."
    )
    assert files == EVENTS.keys(), "isa.events differs from schemas/avro: run `make generate`."
    for topic, event in EVENTS.items():
        name = "".join(word.capitalize() for word in topic.split("."))
        assert schema(topic)["name"] == name, f"{topic}.avsc names {schema(topic)['name']}; the chain wants {name}."
        assert (event.TOPIC, event.__name__) == (topic, name), f"isa.events has {event.__name__} for {topic}."


@pytest.mark.ac("phase-v:A1.2:1", "phase-v:A1.2:2")
@pytest.mark.parametrize("topic", EVENTS)
def test_every_event_carries_the_same_envelope_first(topic: str) -> None:
    names = [field["name"] for field in schema(topic)["fields"]]

    assert names[: len(ENVELOPE)] == ENVELOPE, f"{topic}.avsc must begin with {', '.join(ENVELOPE)}."
    undocumented = [field["name"] for field in schema(topic)["fields"] if not field.get("doc")]
    assert not undocumented, f"{topic}.avsc: say in `doc` what {undocumented} mean."


def test_every_topic_has_a_publisher_a_key_and_a_component() -> None:
    for topic, settings in TOPICS.items():
        assert settings["publisher"] in {*CORE, "*"}, f"topics.yaml: {topic} is published by no room of ours."
        fields = {field["name"] for field in schema(topic)["fields"]}
        assert settings["key"] in fields, f"topics.yaml: {topic} has no field {settings['key']} to be keyed by."
        assert component_of(topic) in {"events", "audit", "control"}


def test_event_classes_are_events() -> None:
    assert all(issubclass(event, Event) for event in EVENTS.values())


COMPOSED = {"isa.cache.v1.Cache.Pipeline"}
"""Methods whose commands are each held to the permission of their own method."""


@pytest.mark.parametrize("method", methods(), ids=lambda method: method.full_name)
def test_every_method_states_its_permission(method: MethodDescriptor) -> None:
    options: MethodOptions = method.GetOptions()

    assert options.HasExtension(policy_pb2.rule), f"{method.full_name} has no rule: say its permission in the .proto."
    permission = options.Extensions[policy_pb2.rule].permission
    assert PERMISSION.fullmatch(permission), (
        f"{method.full_name}: {permission!r} is not <capability>.<read|write|admin>."
    )
    if method.full_name in COMPOSED:
        return
    is_read = options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS
    assert is_read == permission.endswith(".read"), (
        f"{method.full_name}: a method without side effects wants .read, and another one .write or .admin."
    )


def test_roles_grant_only_what_something_asks_for() -> None:
    policy = yaml.safe_load((ROOT / "schemas/proto/isa/policy/v1/roles.yaml").read_text())
    workloads = policy.pop("workloads")

    for holder, granted in {**policy, **workloads}.items():
        for permission in granted:
            assert re.fullmatch(r"([a-z]+|\*)\.(read|write|admin)", permission), (
                f"roles.yaml: {holder} has {permission!r}."
            )
    assert set(workloads) <= set(CORE), "roles.yaml names a workload that is no room."


def test_generated_code_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "schemas/generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_contracts_break_nothing_that_was_accepted() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "schemas/compatibility.py"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


def test_generated_code_is_never_linted() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]

    assert "schemas/gen" in tool["ruff"]["extend-exclude"], "ruff must leave schemas/gen alone."
    assert any("schemas/gen" in pattern for pattern in tool["mypy"]["exclude"]), "mypy must leave schemas/gen alone."
