"""The declaration of the set: order, sidecars, and what dapr.yaml and the components promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime import nats, redis
from runtime.engines import Engines, load_engines
from runtime.layout import CHECKOUT, Layout
from runtime.processes import Process, Set, Step, declare, load_apps
from runtime.secrets import ensure_secrets, ensure_tokens
from runtime.supervisor import Program, leftovers, render

COMPONENTS = CHECKOUT / "components" / "local"
PUBSUBS = ("events", "audit", "control")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(home=tmp_path / "home", cache=tmp_path / "cache", port_base=20000)
    layout.make_folders()
    return layout


@pytest.fixture
def declared(layout: Layout) -> Set:
    names = [app.name for app in load_apps()]
    engines = Engines(layout, load_engines())
    return declare(layout, engines, ensure_secrets(layout, names), ensure_tokens(layout, names))


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


def subscriptions() -> list[dict[str, Any]]:
    return [document for path in (COMPONENTS / "subscriptions").glob("*.yaml") for document in documents(path)]


def option(command: tuple[str, ...], name: str) -> str:
    return command[command.index(name) + 1]


def test_every_need_is_declared_and_none_is_circular(declared: Set) -> None:
    everything: dict[str, Process | Step] = {**declared.processes, **declared.steps}

    def depth(name: str, above: tuple[str, ...] = ()) -> int:
        assert name not in above, f"{name} needs itself by {above}"
        return 1 + max((depth(need, (*above, name)) for need in everything[name].needs), default=0)

    assert all(depth(name) for name in everything)


def test_a_room_needs_its_sidecar_its_tables_and_the_adapters(declared: Set) -> None:
    wanted = declared.with_needs(["tasks"])

    assert {"postgres", "kafka", "registry", "tasks-dapr", "migrate", "topics", "postgres-grpc", "users"} <= set(wanted)
    assert "analytics" not in wanted


@pytest.mark.parametrize("engine", ["postgres", "loki", "redis", "nats", "minio"])
def test_an_adapter_needs_its_engine_and_no_other_adapter(declared: Set, engine: str) -> None:
    needs = declared.processes[f"{engine}-grpc"].needs

    assert engine in needs
    assert not {need for need in needs if need.endswith("-grpc")}


def test_an_adapter_that_has_its_engine_in_itself_needs_none(declared: Set) -> None:
    engines = {process.name for process in declared.processes.values() if process.kind == "engine"}

    assert not engines & set(declared.processes["qdrant-grpc"].needs)


def test_consul_is_asked_for_names_only_where_it_is_switched_on(
    declared: Set, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = str(CHECKOUT / "components" / "consul" / "config.yaml")
    assert file not in declared.processes["tasks-dapr"].command

    monkeypatch.setenv("ISA_CLOUD_CONSUL_ENABLED", "true")
    monkeypatch.setenv("ISA_CLOUD_CONSUL_HOST", "consul.example")
    names = [app.name for app in load_apps()]
    secrets, tokens = ensure_secrets(layout, names), ensure_tokens(layout, names)
    sidecar = declare(layout, Engines(layout, load_engines()), secrets, tokens).processes["tasks-dapr"]

    assert file in sidecar.command
    assert sidecar.environment["ISA_CLOUD_CONSUL_HOST"] == "consul.example"
    assert sidecar.environment["HEALTH_PORT"] == "28002"


def test_a_registered_app_is_checked_and_deregisters() -> None:
    (document,) = documents(CHECKOUT / "components" / "consul" / "config.yaml")
    configuration = document["spec"]["nameResolution"]["configuration"]

    assert configuration["selfRegister"] is configuration["selfDeregister"] is True
    assert {check["name"] for check in configuration["checks"]} == {"app", "sidecar"}


def test_redis_and_nats_let_nobody_in_without_a_password_and_listen_here_only(layout: Layout) -> None:
    known = {"redis-password": "secret-of-redis", "nats-password": "secret-of-nats"}

    redis.prepare(layout, known)
    nats.prepare(layout, known)

    text = redis.configuration(layout).read_text()
    assert "secret-of-redis" not in text and "nopass" not in text
    assert "bind 127.0.0.1\n" in text and "-@dangerous -@admin" in text
    assert "appendonly yes\n" in text and "maxmemory-policy noeviction\n" in text
    text = nats.configuration(layout).read_text()
    assert 'listen: "127.0.0.1:24222"' in text and 'password: "secret-of-nats"' in text
    assert "sync_interval: always" in text
    assert nats.configuration(layout).stat().st_mode & 0o077 == 0


def test_every_app_has_a_sidecar_on_this_machine_only(declared: Set) -> None:
    for app in load_apps():
        command = declared.processes[f"{app.name}-dapr"].command
        assert option(command, "--dapr-listen-addresses") == "127.0.0.1"
        assert option(command, "--dapr-internal-grpc-listen-address") == "127.0.0.1"
        assert option(command, "--metrics-listen-address") == "127.0.0.1"
        assert option(command, "--dapr-graceful-shutdown-seconds") == "30"
        assert "--enable-app-health-check" in command


def test_a_base_moves_apps_and_sidecars(declared: Set) -> None:
    assert declared.processes["users"].environment["APP_PORT"] == "28001"
    assert option(declared.processes["users-dapr"].command, "--dapr-grpc-port") == "24501"
    assert declared.processes["postgres-grpc"].environment["METRICS_PORT"] == "29606"


def test_no_token_opens_the_sidecar_of_another_app(declared: Set) -> None:
    tokens = {declared.processes[app.name].environment["DAPR_API_TOKEN"] for app in load_apps()}

    assert len(tokens) == len(load_apps())
    for app in load_apps():
        room, sidecar = declared.processes[app.name], declared.processes[f"{app.name}-dapr"]
        assert room.environment["APP_API_TOKEN"] == sidecar.environment["APP_API_TOKEN"]


def test_no_secret_of_the_store_is_in_a_rooms_environment(declared: Set, layout: Layout) -> None:
    secrets = set(ensure_secrets(layout, [app.name for app in load_apps()]).values()) - {""}

    for app in load_apps():
        assert not secrets & set(declared.processes[app.name].environment.values())


def test_every_name_resolution_keeps_its_hosts_for_ever() -> None:
    """The clean-up of nameresolution.sqlite ends every sidecar after an hour, so it must be off."""
    for app in load_apps():
        (configuration,) = documents(CHECKOUT / app.values["configFilePath"])
        resolution = configuration["spec"]["nameResolution"]
        assert resolution["component"] == "sqlite"
        assert resolution["configuration"]["cleanupInterval"] == "-1"


def test_secrets_are_denied_unless_listed(layout: Layout) -> None:
    known = ensure_secrets(layout, [app.name for app in load_apps()])
    for app in load_apps():
        (configuration,) = documents(CHECKOUT / app.values["configFilePath"])
        (scope,) = configuration["spec"]["secrets"]["scopes"]
        assert scope["defaultAccess"] == "deny"
        assert set(scope["allowedSecrets"]) <= set(known)


def test_only_users_may_sign_for_workloads() -> None:
    for app in load_apps():
        (configuration,) = documents(CHECKOUT / app.values["configFilePath"])
        allowed = configuration["spec"]["secrets"]["scopes"][0]["allowedSecrets"]
        assert ("workload-signing-private" in allowed) == (app.name == "users")
        assert "workload-signing-public" in allowed


def test_every_subscription_is_raw_bulk_and_has_a_dead_letter_topic() -> None:
    for subscription in subscriptions():
        spec = subscription["spec"]
        assert spec["metadata"] == {"rawPayload": "true"}
        assert spec["bulkSubscribe"]["enabled"] is True
        assert spec["bulkSubscribe"]["maxMessagesCount"] == 100
        assert spec["deadLetterTopic"] == f"{spec['topic']}.dlq"
        assert spec["routes"] == {"default": f"/events/{spec['topic']}"}


def test_every_app_hears_of_revocations() -> None:
    heard = {tuple(s["scopes"]) for s in subscriptions() if s["spec"]["pubsubname"] == "control"}

    assert heard == {(app.name,) for app in load_apps()}


def test_audit_hears_every_topic() -> None:
    topics = yaml.safe_load((CHECKOUT / "schemas" / "avro" / "topics.yaml").read_text())["topics"]

    heard = {s["spec"]["topic"] for s in subscriptions() if s["scopes"] == ["audit"]}

    assert heard == set(topics)


def test_what_comes_in_is_retried_for_ever_and_the_adapters_have_no_policy() -> None:
    (resiliency,) = documents(COMPONENTS / "resiliency.yaml")
    policies, targets = resiliency["spec"]["policies"], resiliency["spec"]["targets"]

    for pubsub in PUBSUBS:
        retry = policies["retries"][targets["components"][pubsub]["inbound"]["retry"]]
        assert (retry["maxRetries"], retry["maxInterval"], retry["policy"]) == (-1, "5s", "exponential")
    assert not {app.name for app in load_apps() if app.is_grpc} & set(targets["apps"])


def test_every_replica_reads_control_changes_in_a_group_of_its_own() -> None:
    (control,) = documents(COMPONENTS / "control.yaml")
    values = {item["name"]: item.get("value") for item in control["spec"]["metadata"]}

    assert values["consumerGroup"] == "{appID}-{uuid}"
    assert values["initialOffset"] == "oldest"


def test_components_find_their_brokers_by_environment_so_that_a_base_can_move_them() -> None:
    for pubsub in PUBSUBS:
        (component,) = documents(COMPONENTS / f"{pubsub}.yaml")
        brokers = next(item for item in component["spec"]["metadata"] if item["name"] == "brokers")
        assert brokers == {"name": "brokers", "envRef": "KAFKA_BROKERS"}


def test_supervisor_gets_values_with_its_own_special_characters(layout: Layout) -> None:
    program = Program(name="x", command=("run", "a b", "%p"), environment={"A": 'say "50%", \\ok'})

    text = render(layout, [program])

    assert "command = run 'a b' %%p" in text
    assert 'environment = A="say \\"50%%\\", \\\\ok"' in text


def test_what_a_killed_supervisor_left_is_found_by_its_command_and_home(layout: Layout) -> None:
    command = (sys.executable, "-c", "import time; time.sleep(60)", str(layout.home / "mark"))
    ours = subprocess.Popen(command)
    other = subprocess.Popen([*command[:-1], "elsewhere"])

    try:
        assert leftovers(layout, [Program(name="x", command=command)]) == [ours.pid]
    finally:
        for process in (ours, other):
            process.kill()
            process.wait()


def test_dapr_yaml_says_only_what_the_dapr_cli_knows() -> None:
    """Names of the multi-app run file of the Dapr CLI; one that it does not know would be ignored without a word."""
    names = (
        "appID appDirPath appPort appProtocol appChannelAddress daprHTTPPort daprGRPCPort daprInternalGRPCPort "
        "metricsPort profilePort unixDomainSocket command configFilePath apiListenAddresses enableProfiling logLevel "
        "appMaxConcurrency placementHostAddress schedulerHostAddress resourcesPath resourcesPaths appSSL maxBodySize "
        "readBufferSize enableAppHealthCheck appHealthCheckPath appHealthProbeInterval appHealthProbeTimeout "
        "appHealthThreshold enableApiLogging runtimePath env daprdLogDestination appLogDestination"
    )
    known = set(names.split())
    document = yaml.safe_load((CHECKOUT / "dapr.yaml").read_text())

    assert set(document) == {"version", "common", "apps"}
    assert set(document["common"]) <= known
    for app in document["apps"]:
        assert set(app) <= known
        assert (CHECKOUT / app["configFilePath"]).is_file()
