"""The service chart says what dapr.yaml, compose, the components and the code of the rooms say."""

from __future__ import annotations

import json
import re
import subprocess
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import migrate
from cli.topics import manifest
from kernel.doors import Route
from runtime.engines import load_engines
from runtime.layout import CHECKOUT
from tests.architecture.tree import dapr_apps, documents, doors, handlers_class
from tests.deploy.rendering import CHARTS, CLOUDS, ENVIRONMENTS, Release, manifests, platform, render
from tests.deploy.tools import engines, run, tool

APPS = sorted(dapr_apps())
ADAPTERS = [app for app in APPS if app.endswith("-grpc")]
ROOMS = [app for app in APPS if app not in ADAPTERS]
GATEWAYS = sorted(path.stem for path in (CHARTS / "gateways").glob("*.yaml"))
NEGATIVE = sorted((CHARTS / "service" / "tests" / "negative").glob("*.yaml"))
COMMON = yaml.safe_load((CHECKOUT / "dapr.yaml").read_text())["common"]
EVERY_ADAPTER_SERVES = {"isa.usage.v1.Usage", "grpc.health.v1.Health"}
INTERNAL = (
    "/events/task.created",
    "/job/sweep",
    "/metrics",
    "/healthz",
    "/readyz",
    "/-/log-level",
    "/docs",
    "/openapi.json",
)

Manifest = dict[str, Any]


def release(app: str, environment: str = "prod", cloud: str = "aws", gateway: str = "apisix") -> Release:
    return Release(chart="service", name=app, environment=environment, cloud=cloud, gateway=gateway)


def of_kind(kind: str, *of: Release) -> list[Manifest]:
    return [each for one in of for each in manifests(one) if each["kind"] == kind]


def the(kind: str, of: Release) -> Manifest:
    (found,) = of_kind(kind, of)
    return found


def sidecar_annotations(app: str, **where: str) -> dict[str, str]:
    found: dict[str, str] = the("Deployment", release(app, **where))["spec"]["template"]["metadata"]["annotations"]
    return found


def pod(manifest: Manifest) -> Manifest:
    found: Manifest = manifest["spec"]["template"]["spec"]
    return found


def room(app: str, **where: str) -> Manifest:
    """Return the container of a service's room."""
    (found,) = pod(the("Deployment", release(app, **where)))["containers"]
    return typing.cast(Manifest, found)


@cache
def known_annotations() -> frozenset[str]:
    """Return the annotations that the injector of our version of Dapr reads."""
    dapr = load_engines()["dapr"]
    cache_of_modules = engines().layout.cache / "build" / "modules"
    found = json.loads(
        run(
            "go", "mod", "download", "-json", f"{dapr.pins['module']}@v{dapr.version}",
            env={"GOMODCACHE": str(cache_of_modules), "GOFLAGS": "-modcacherw", "GOTOOLCHAIN": "local"},
        )
    )  # fmt: skip
    source = Path(found["Dir"]) / "pkg" / "injector" / "annotations" / "annotations.go"
    return frozenset(re.findall(r'"(dapr\.io/[a-z0-9-]+)"', source.read_text()))


# The pod and its sidecar


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_annotation_is_one_that_the_injector_reads(cloud: str) -> None:
    used = {key for app in APPS for key in sidecar_annotations(app, cloud=cloud)}

    strangers = used - known_annotations()
    assert known_annotations() > {"dapr.io/enabled"}
    assert not strangers, f"charts/lib/templates/_dapr.tpl: Dapr's injector reads no {sorted(strangers)}."


@pytest.mark.parametrize("app", APPS)
def test_a_sidecar_is_told_what_dapr_yaml_tells_it(app: str) -> None:
    told, declared = sidecar_annotations(app), dapr_apps()[app].values

    wanted = {
        "dapr.io/app-id": app,
        "dapr.io/config": app,
        "dapr.io/app-port": str(declared["appPort"]),
        "dapr.io/app-protocol": declared["appProtocol"],
        "dapr.io/max-body-size": COMMON["maxBodySize"],
        "dapr.io/read-buffer-size": COMMON["readBufferSize"],
        "dapr.io/enable-app-health-check": str(COMMON["enableAppHealthCheck"]).lower(),
        "dapr.io/app-health-check-path": COMMON["appHealthCheckPath"],
        "dapr.io/app-health-probe-interval": str(COMMON["appHealthProbeInterval"]),
        "dapr.io/app-health-probe-timeout": str(COMMON["appHealthProbeTimeout"]),
        "dapr.io/app-health-threshold": str(COMMON["appHealthThreshold"]),
        "dapr.io/sidecar-listen-addresses": COMMON["apiListenAddresses"],
        "dapr.io/placement-host-address": COMMON["placementHostAddress"].strip(),
    }
    wrong = {key: (told.get(key), value) for key, value in wanted.items() if told.get(key) != value}
    assert not wrong, f"charts/lib/templates/_dapr.tpl and dapr.yaml differ (chart, dapr.yaml): {wrong}"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("app", APPS)
def test_a_sidecar_has_requests_and_limits_of_both_kinds(app: str, environment: str) -> None:
    told = sidecar_annotations(app, environment=environment)

    absent = [
        name
        for what in ("cpu", "memory")
        for bound in ("request", "limit")
        if not told.get(name := f"dapr.io/sidecar-{what}-{bound}")
    ]
    assert not absent, f"{app}: {absent} are missing; without a request no autoscaler can reckon."


@pytest.mark.ac("phase-v:REL1:3")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
@pytest.mark.parametrize("app", APPS)
def test_a_pod_is_given_the_time_that_stopping_takes(app: str, environment: str) -> None:
    deployment = the("Deployment", release(app, environment=environment))
    (container,) = pod(deployment)["containers"]
    told = sidecar_annotations(app, environment=environment)
    env = {each["name"]: each.get("value") for each in container["env"]}

    needed = (
        container["lifecycle"]["preStop"]["sleep"]["seconds"]
        + int(env["ISA_DRAIN_SECONDS"])
        + int(told["dapr.io/block-shutdown-duration"].removesuffix("s"))
        + int(told["dapr.io/graceful-shutdown-seconds"])
    )
    given = pod(deployment)["terminationGracePeriodSeconds"]
    assert given >= needed, f"{app}: terminationGracePeriodSeconds {given} is less than the {needed} s of stopping."
    patience = container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"]
    assert patience > int(env["ISA_DRAIN_SECONDS"]), f"{app}: the liveness probe kills a room that drains."


@pytest.mark.parametrize("app", APPS)
def test_probes_ask_where_the_room_answers(app: str) -> None:
    compose = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"][f"{app}-pod"]
    port = int(compose["environment"]["HEALTH_PORT"])

    container = room(app)
    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        asked = container[probe]["httpGet"]
        assert asked == {"path": path, "port": port}, f"{app} {probe}: asks {asked}, the room answers at {port}."


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("app", APPS)
def test_every_pod_may_run_where_pods_are_restricted(app: str, cloud: str) -> None:
    for workload in of_kind("Deployment", release(app, cloud=cloud)) + of_kind("Job", release(app, cloud=cloud)):
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False, f"{app}: the room needs no token of Kubernetes."
        assert spec["enableServiceLinks"] is False, f"{app}: POSTGRES_PORT would be what Kubernetes makes of it."
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 65532
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], container["name"]
            assert security["capabilities"] == {"drop": ["ALL"]}, container["name"]
            assert set(container["resources"]) == {"requests", "limits"}, container["name"]


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("app", APPS)
def test_a_room_is_given_no_variable_that_the_code_does_not_read(app: str, cloud: str) -> None:
    page = (CHECKOUT / "docs" / "reference" / "configuration.md").read_text()
    known = set(re.findall(r"`([A-Z][A-Z0-9_]+)`", page)) | {"POD_IP"}  # for POSTGRES_ADVERTISE

    given = {each["name"] for each in room(app, cloud=cloud)["env"]}
    assert given <= known, (
        f"charts/service: no room reads {sorted(given - known)}; see docs/reference/configuration.md."
    )


# How many


def test_nothing_is_scaled_by_two() -> None:
    for app in APPS:
        for environment in ENVIRONMENTS:
            one = release(app, environment=environment)
            scalers = of_kind("HorizontalPodAutoscaler", one) + of_kind("ScaledObject", one)
            assert len(scalers) <= 1, f"{app}: an autoscaler and KEDA fight over its replicas."
            replicas = the("Deployment", one)["spec"].get("replicas")
            assert bool(scalers) == (replicas is None), f"{app}: replicas and an autoscaler fight at every sync."


@pytest.mark.ac("phase-v:C3.2")
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_vpa_leaves_alone_what_an_autoscaler_goes_by(environment: str) -> None:
    for app in APPS:
        one = release(app, environment=environment)
        vpa = the("VerticalPodAutoscaler", one)
        (own,) = [each for each in vpa["spec"]["resourcePolicy"]["containerPolicies"] if each["containerName"] == app]
        text = json.dumps(of_kind("HorizontalPodAutoscaler", one) + of_kind("ScaledObject", one))
        by = {what for what in ("cpu", "memory") if f'"{what}"' in text}
        is_off = vpa["spec"]["updatePolicy"]["updateMode"] == "Off"
        assert is_off or not by & set(own.get("controlledResources", [])), f"{app}: two go by the same resource."


@pytest.mark.ac("phase-v:C3.1")
def test_services_that_answer_have_two_to_ten_replicas_at_70_per_cent() -> None:
    for app in APPS:
        for scaler in of_kind("HorizontalPodAutoscaler", release(app)):
            spec = scaler["spec"]
            assert (spec["minReplicas"], spec["maxReplicas"]) == (2, 10), app
            metric = spec["metrics"][0]["containerResource"]
            assert metric["container"] == app and metric["target"]["averageUtilization"] == 70, app


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_node_can_be_drained_and_leaves_a_pod_standing(environment: str) -> None:
    for app in APPS:
        one = release(app, environment=environment)
        scalers = of_kind("HorizontalPodAutoscaler", one) + of_kind("ScaledObject", one)
        least = [each["spec"].get("minReplicas") or each["spec"].get("minReplicaCount") for each in scalers]
        minimum = least[0] if least else the("Deployment", one)["spec"]["replicas"]
        budgets = of_kind("PodDisruptionBudget", one)
        assert bool(budgets) == (minimum > 1), f"{app}: one pod and a budget is a node that nobody can drain."
        assert all(0 < each["spec"]["minAvailable"] < minimum for each in budgets), app


@pytest.mark.parametrize("cloud", CLOUDS)
def test_keda_asks_for_the_lag_of_every_group_and_topic_that_a_consumer_subscribes_to(cloud: str) -> None:
    consumers = {app: one for app in APPS for one in of_kind("ScaledObject", release(app, cloud=cloud))}
    assert consumers, "No service scales by lag."
    for app, scaler in consumers.items():
        triggers = [each["metadata"] for each in scaler["spec"]["triggers"] if each["type"] == "kafka"]
        asked = {(each["topic"], each["consumerGroup"]) for each in triggers}
        subscribed = {
            (each["spec"]["topic"], group(each["spec"]["pubsubname"], app))
            for _, each in documents("components/local")
            if each["kind"] == "Subscription" and app in each["scopes"] and each["spec"]["pubsubname"] != "control"
        }
        assert asked == subscribed, f"{app}: KEDA and the subscriptions differ by {sorted(asked ^ subscribed)}."
        assert all(isinstance(each["lagThreshold"], str) for each in triggers), "KEDA takes no number there."
        fewest = min(manifest("production")[topic].partitions for topic, _ in subscribed)
        assert scaler["spec"]["maxReplicaCount"] <= fewest, f"{app}: more replicas than partitions stand idle."


def group(component: str, app: str) -> str:
    """Return the consumer group that a component gives to an app."""
    components = [each for _, each in documents("components/local") if each["kind"] == "Component"]
    (found,) = [each for each in components if each["metadata"]["name"] == component]
    (value,) = [item["value"] for item in found["spec"]["metadata"] if item["name"] == "consumerGroup"]
    return str(value).replace("{appID}", app)


# Who reaches whom


def access(app: str) -> set[str]:
    """Return who may invoke an app, by compose."""
    spec = yaml.safe_load((CHECKOUT / "compose" / "access" / f"{app}.yaml").read_text())["spec"]["accessControl"]
    return {policy["appId"] for policy in spec.get("policies", [])}


def pods_of(peers: list[Manifest]) -> set[str]:
    """Return the services among the peers of a rule that are in the same namespace."""
    return {
        each["podSelector"]["matchLabels"]["app.kubernetes.io/name"]
        for each in peers
        if "podSelector" in each and "namespaceSelector" not in each
    }


def spaces_of(peers: list[Manifest]) -> set[str]:
    return {
        each["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]
        for each in peers
        if "namespaceSelector" in each
    }


def edges(app: str, direction: str, cloud: str = "local") -> set[tuple[str, int]]:
    """Return (service, namespace or `anywhere`, port) of what a service's policy lets in or out."""
    (policy,) = [
        each for each in of_kind("NetworkPolicy", release(app, cloud=cloud)) if each["metadata"]["name"] == app
    ]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], f"{app}: both ways are denied but for what is named."
    found = set()
    for rule in policy["spec"][direction]:
        peers = rule.get("from", rule.get("to"))
        names = pods_of(peers) | spaces_of(peers) if peers else {"anywhere"}
        names |= {"private" for each in peers or [] if each.get("ipBlock", {}).get("cidr") == "10.0.0.0/8"}
        found |= {(name, port["port"]) for name in names for port in rule["ports"]}
    return found


@pytest.mark.ac("phase-v:SEC1:1", "phase-v:C1.4")
@pytest.mark.parametrize("app", APPS)
def test_exactly_those_come_in_who_must(app: str) -> None:
    declared = dapr_apps()[app].values
    metrics = int(declared.get("env", {}).get("METRICS_PORT", declared["appPort"]))
    wanted = {(caller, 50002) for caller in access(app)}
    wanted |= {("observability", metrics), ("observability", 9090), ("edge", declared["appPort"])}
    if app == "postgres-grpc":  # its replicas pass calls of a transaction to the one that began it
        wanted.add((app, declared["appPort"]))

    found = edges(app, "ingress")
    assert found == wanted, f"{app}: policy and compose/access differ by {sorted(found ^ wanted)}."


@pytest.mark.parametrize("app", APPS)
def test_a_service_goes_out_to_exactly_what_it_uses(app: str) -> None:
    wanted = {("kube-system", 53), ("dapr-system", 50001), ("dapr-system", 6500), ("private", 443), ("private", 6443)}
    wanted |= {(other, 50002) for other in APPS if app in access(other)}
    wanted |= {("isa-kafka", 9093), ("isa-data", 8080)}  # events, and their schemas
    if app in ROOMS:
        wanted.add(("dapr-system", 50006))  # the kernel's clean-up is a job
    own = {"postgres": 5432, "redis": 6379, "nats": 4222, "minio": 9000, "qdrant": 6333, "loki": 3100}
    engine = dapr_apps()[app].package.rpartition(".")[2]
    if app in ADAPTERS:
        wanted.add(("isa-data", own[engine]))
    kept = [
        each for _, each in documents("components") if each["kind"] == "Component" and app in each.get("scopes", [])
    ]
    if any(each["spec"]["type"] == "state.postgresql" for each in kept):
        wanted.add(("isa-data", own["postgres"]))
    if any(each["spec"]["type"] == "bindings.smtp" for each in kept):
        wanted |= {("anywhere", 465), ("anywhere", 587)}
    if app == "postgres-grpc":
        wanted.add((app, dapr_apps()[app].values["appPort"]))

    found = edges(app, "egress")
    assert found == wanted, f"{app}: its policy differs by {sorted(found ^ wanted)} from what the code uses."


def admitted(app: str, port: int) -> list[str]:
    """Return the engines of charts/data that let a service in at a port."""
    data = manifests(Release(chart="data", name="data", environment="prod", cloud="local"))
    workloads = [each["spec"]["template"] for each in data if each["kind"] in {"Deployment", "StatefulSet"}]
    found = []
    for policy in (each for each in data if each["kind"] == "NetworkPolicy"):
        labels = policy["spec"]["podSelector"].get("matchLabels", {})
        pods = [each for each in workloads if labels and labels.items() <= each["metadata"]["labels"].items()]
        numbers = {
            named["name"]: named["containerPort"]
            for each in pods
            for container in each["spec"]["containers"]
            for named in container.get("ports", [])
        }
        for rule in policy["spec"].get("ingress", []):
            opened = {numbers.get(each["port"], each["port"]) for each in rule["ports"]}
            named = [peer.get("podSelector", {}).get("matchExpressions") for peer in rule["from"] if is_ours(peer)]
            if port in opened and any(expressions is None or app in expressions[0]["values"] for expressions in named):
                found.append(policy["metadata"]["name"])
    return found


def is_ours(peer: Manifest) -> bool:
    """Tell whether a peer is of the services' namespace."""
    labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
    return bool(labels.get("kubernetes.io/metadata.name") == "isa-cloud")


@pytest.mark.parametrize("app", APPS)
def test_engines_let_in_whom_services_send_out(app: str) -> None:
    for space, port in edges(app, "egress"):
        if space == "isa-data":
            assert admitted(app, port), (
                f"{app} goes out to {port} of isa-data, and no policy of charts/data lets it in."
            )


def test_engines_let_migrations_in() -> None:
    for name in migrate.rooms():
        assert admitted(f"{name}-migration", 5432) == ["postgres"], f"charts/data lets no {name}-migration in."


def test_dapr_s_pods_listen_where_policies_let_through() -> None:
    known_annotations()  # fetches the module
    dapr = load_engines()["dapr"]
    charts = engines().layout.cache / "build" / "modules" / dapr.pins["module"]
    charts = charts.with_name(f"{charts.name}@v{dapr.version}") / "charts" / "dapr" / "charts"

    for name, app, port in (
        ("dapr_sentry", "dapr-sentry", 50001),
        ("dapr_operator", "dapr-operator", 6500),
        ("dapr_scheduler", "dapr-scheduler-server", 50006),
    ):
        text = "".join(path.read_text() for path in (charts / name / "templates").glob("*.yaml"))
        assert f"app: {app}" in text and re.search(rf"containerPort: {port}\b", text), f"{app} is no pod at {port}."


@pytest.mark.ac("phase-v:SEC2:1", "phase-v:SEC2:2")
@pytest.mark.parametrize("app", APPS)
def test_an_account_may_read_what_its_sidecar_hands_out_and_nothing_else(app: str) -> None:
    role = the("Role", release(app))
    configuration = yaml.safe_load((CHECKOUT / dapr_apps()[app].values["configFilePath"]).read_text())["spec"]
    wanted = {name for store in configuration["secrets"]["scopes"] for name in store["allowedSecrets"]}
    for _, each in documents("components"):
        if each["kind"] == "Component" and app in each.get("scopes", []):
            wanted |= {item["secretKeyRef"]["name"] for item in each["spec"]["metadata"] if "secretKeyRef" in item}

    (rule,) = role["rules"]
    assert rule["verbs"] == ["get"] and rule["resources"] == ["secrets"]
    assert set(rule["resourceNames"]) == wanted, f"{app}: {sorted(set(rule['resourceNames']) ^ wanted)}"


# Migrations


def test_every_room_with_revisions_has_its_migration_and_nobody_else() -> None:
    found = {
        job["spec"]["template"]["spec"]["containers"][0]["command"][-1] for job in of_kind("Job", *map(release, APPS))
    }

    assert found == migrate.rooms().keys()


@pytest.mark.parametrize("app", sorted(migrate.rooms()))
def test_a_migration_logs_in_as_the_owner_of_its_database(app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pod(the("Job", release(app)))["containers"]
    for each in container["env"]:
        if "value" in each:
            monkeypatch.setenv(each["name"], each["value"])

    found = migrate.url(app)

    assert (found.username, found.database, found.host) == (
        f"{app}_owner",
        app,
        platform("aws", "prod")["postgresHost"],
    )
    assert found.password is None, "The password comes by PGPASSWORD, and stands in no address."
    assert found.query == {"sslmode": "require"}
    secrets = [each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each]
    assert secrets == [migrate.OWNER.format(room=app)], f"{app}: a migration is given its own secret and no other."


# The edge


def routes_of(app: str) -> list[Route]:
    """Return the HTTP routes of a room."""
    found = [door for _, door in doors(handlers_class(app)) if isinstance(door, Route)]
    assert found, f"{app} has no routes."
    return found


def matches(app: str, gateway: str = "apisix") -> Iterator[tuple[str, str, str]]:
    """Yield (route, type, path) of what a service shows at the edge."""
    for route in of_kind("HTTPRoute", release(app, gateway=gateway)):
        for rule in route["spec"]["rules"]:
            for match in rule["matches"]:
                yield route["metadata"]["name"].rpartition("-")[2], match["path"]["type"], match["path"]["value"]


def taken(app: str, path: str) -> str | None:
    """Return the route that the edge sends a path by: an exact match goes before a prefix."""
    found = list(matches(app))
    for kind, how, value in sorted(found, key=lambda each: (each[1] != "Exact", -len(each[2]))):
        if path == value or (how == "PathPrefix" and path.startswith(f"{value}/")):
            return kind
    return None


@pytest.mark.ac("phase-v:SEC1:3")
@pytest.mark.parametrize("app", ROOMS)
def test_the_edge_serves_every_route_of_a_room_and_asks_for_tokens_where_the_room_does(app: str) -> None:
    for route in routes_of(app):
        path = re.sub(r"\{[a-z_]+\}", "x-1", route.path)
        wanted = "open" if route.rule.anonymous else "protected"
        assert taken(app, path) == wanted, (
            f"charts/values/{app}.yaml: {route.method} {route.path} belongs to edge.{wanted}."
        )


@pytest.mark.parametrize("app", ROOMS)
def test_the_edge_serves_nothing_that_the_room_does_not(app: str) -> None:
    paths = [re.sub(r"\{[a-z_]+\}", "x-1", route.path) for route in routes_of(app)]
    idle = [value for _, _, value in matches(app) if not any(f"{path}/".startswith(f"{value}/") for path in paths)]

    assert not idle, f"charts/values/{app}.yaml: the room has nothing at {idle}."
    assert not [path for path in INTERNAL if taken(app, path)], "What is for the sidecar and the cluster stays inside."


def test_no_two_rooms_share_a_path_at_the_edge() -> None:
    seen: dict[str, str] = {}
    for app in ROOMS:
        for _, _, value in matches(app):
            assert value not in seen, f"{value} is of {seen[value]} and {app}."
            seen[value] = app


def test_the_edge_serves_every_grpc_service_of_the_contracts() -> None:
    declared = {
        f"{re.search(r'^package ([a-z0-9.]+);', text, re.M)[1]}.{name}"  # type: ignore[index]
        for path in (CHECKOUT / "schemas" / "proto").rglob("*.proto")
        for text in [path.read_text()]
        for name in re.findall(r"^service (\w+)", text, re.M)
    }
    shown = [
        match["method"]["service"]
        for app in APPS
        for route in of_kind("GRPCRoute", release(app))
        for match in route["spec"]["rules"][0]["matches"]
        if "headers" not in match
    ]

    assert sorted(shown) == sorted(declared - EVERY_ADAPTER_SERVES), (
        "edge.grpc of charts/values and schemas/proto differ."
    )


@pytest.mark.ac("phase-v:SEC1:4")
@pytest.mark.parametrize("gateway", GATEWAYS)
@pytest.mark.parametrize("app", APPS)
def test_what_a_route_asks_of_its_gateway_exists(app: str, gateway: str) -> None:
    found = manifests(release(app, gateway=gateway))
    names = {(each["apiVersion"].partition("/")[0], each["kind"], each["metadata"]["name"]) for each in found}
    routes = [each for each in found if each["kind"] in {"HTTPRoute", "GRPCRoute"}]
    assert routes, f"{app} is not at the edge of {gateway}."

    for route in routes:
        asked = [
            (each["extensionRef"]["group"], each["extensionRef"]["kind"], each["extensionRef"]["name"])
            for rule in route["spec"]["rules"]
            for each in rule.get("filters", [])
        ]
        plugins = route["metadata"]["annotations"].get("konghq.com/plugins")
        asked += [("configuration.konghq.com", "KongPlugin", name) for name in plugins.split(",")] if plugins else []
        limited = [
            target["name"]
            for each in found
            if each["kind"] == "RateLimitPolicy"
            for target in each["spec"]["targetRefs"]
            if target["kind"] == route["kind"]
        ]
        assert set(asked) <= names, f"{app} at {gateway}: {set(asked) - names} is nowhere."
        assert asked or route["metadata"]["name"] in limited, (
            f"{app} at {gateway}: nothing limits {route['metadata']['name']}."
        )


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_a_change_of_gateway_changes_the_edge_and_nothing_else(gateway: str) -> None:
    def without_edge(which: str) -> list[Manifest]:
        kept = ("v1", "apps/v1", "batch/v1", "policy/v1", "autoscaling/v2", "networking.k8s.io/v1", "keda.sh/v1alpha1")
        return [each for each in manifests(release("users", gateway=which)) if each["apiVersion"] in kept]

    assert without_edge(gateway) == without_edge("apisix")


# The files


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_wrong_values_are_refused_in_words_that_say_what_to_change(path: Path) -> None:
    reason, service = (line.removeprefix("# ") for line in path.read_text().splitlines()[:2])
    one = release(service.removeprefix("service: "))
    values = [part for each in (*one.values, path) for part in ("--values", str(each))]
    platform = CHARTS / "service" / "tests" / "values" / "platform.yaml"

    done = subprocess.run(
        [str(tool("helm")), "template", one.name, str(CHARTS / "service"), "--values", str(platform), *values],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode != 0, f"{path.name} should be refused: {reason}"
    assert reason in done.stderr, done.stderr


def test_negative_values_are_refused_for_nothing_but_what_they_say() -> None:
    assert len(NEGATIVE) >= 15
    for app in {line.splitlines()[1].removeprefix("# service: ") for line in map(Path.read_text, NEGATIVE)}:
        assert render(release(app)), "What every negative file is laid over renders by itself."


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_service_has_its_files_in_every_environment(environment: str) -> None:
    folder = CHARTS / "envs" / environment

    assert sorted(path.stem for path in (CHARTS / "values").glob("*.yaml")) == APPS
    assert {path.stem for path in folder.glob("*.yaml")} == {*APPS, "environment"}
    assert sorted(path.stem for path in (folder / "image-tags").glob("*.yaml")) == APPS
    assert yaml.safe_load((folder / "environment.yaml").read_text()).keys() == {"global"}
    for app in APPS:
        tag = yaml.safe_load((folder / "image-tags" / f"{app}.yaml").read_text())
        assert tag.keys() == {"image"} and tag["image"].keys() <= {"tag", "digest"}, (
            f"{environment}/image-tags/{app}.yaml"
        )


def test_a_number_that_two_charts_have_is_the_same() -> None:
    data = yaml.safe_load((CHARTS / "data" / "values.yaml").read_text())
    ranges = yaml.safe_load((CHARTS / "service" / "values.yaml").read_text())["privateRanges"]
    env = yaml.safe_load((CHARTS / "values" / "users.yaml").read_text())["env"]

    assert json.loads(env["USERS_TRUSTED_PROXIES"]) == ranges, "Pods of the gateway have private addresses."
    for environment in ENVIRONMENTS:
        given = {each["name"]: each.get("value") for each in room("nats-grpc", environment=environment)["env"]}
        servers = data["nats"]["replicas"][environment]
        assert int(given.get("NATS_REPLICAS", "1")) == servers, (
            f"charts/envs/{environment}/nats-grpc.yaml: NATS_REPLICAS."
        )
