"""dapr.yaml, compose and components name the same apps, ports and parts."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from tests.architecture.tree import ROOT, dapr_apps, documents, name_of, rooms

PORT_FIELDS = ("appPort", "daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort")


def compose() -> dict[str, Any]:
    """Return the services of docker-compose.yml."""
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return services


def app_id_of(package: str) -> str:
    """Return the app-id of a room by its package."""
    words = package.split(".")
    return f"{words[-1]}-grpc" if "adapters" in words else words[-1]


def test_every_room_is_an_app_and_every_app_a_room() -> None:
    packages = {".".join(path.relative_to(ROOT).parts) for path in rooms()}
    declared = {app.package for app in dapr_apps().values()}

    assert packages == declared, f"dapr.yaml and services/ differ by {sorted(packages ^ declared)}."
    for app in dapr_apps().values():
        assert app.app_id == app_id_of(app.package), f"dapr.yaml: {app.package} must be {app_id_of(app.package)}."


def test_no_two_parts_share_a_port_even_when_all_are_moved() -> None:
    from runtime.layout import ENGINE_PORTS

    ports = [(port, name) for name, port in ENGINE_PORTS.items()]
    ports += [(app.values[field], f"{app.app_id} {field}") for app in dapr_apps().values() for field in PORT_FIELDS]
    taken: dict[int, str] = {}
    for port, name in ports:
        assert port % 10_000 not in taken, f"{name} and {taken[port % 10_000]} both end in {port % 10_000}."
        taken[port % 10_000] = name


@pytest.mark.parametrize("app_id", dapr_apps())
def test_every_app_has_its_configuration_with_scoped_secrets(app_id: str) -> None:
    path = ROOT / dapr_apps()[app_id].values["configFilePath"]
    spec = yaml.safe_load(path.read_text())["spec"]

    stores = spec["secrets"]["scopes"]
    assert all(store["defaultAccess"] == "deny" for store in stores), f"{name_of(path)}: secrets are denied by default."
    allowed = {name for store in stores for name in store.get("allowedSecrets", [])}
    others = {f"workload-client-{other}" for other in dapr_apps() if other != app_id}
    if app_id != "users":
        assert not allowed & others, f"{name_of(path)}: {sorted(allowed & others)} belongs to another app."
        assert "workload-signing-private" not in allowed, f"{name_of(path)}: only users signs for workloads."
    features = {feature["name"]: feature["enabled"] for feature in spec.get("features", [])}
    assert features.get("HotReload") is False, (
        f"{name_of(path)}: switch HotReload off; a subscription reloaded in flight stops delivering, and says nothing."
    )
    assert spec["nameResolution"]["configuration"]["cleanupInterval"] == "-1", (
        f"{name_of(path)}: without cleanupInterval -1 name resolution kills every sidecar after an hour."
    )


@pytest.mark.ac("phase-v:B3.1:1", "phase-v:B3.1:2", "phase-v:B3.1:4")
def test_every_component_is_scoped_to_apps_that_exist() -> None:
    components = [(path, doc) for path, doc in documents("components") if doc["kind"] == "Component"]

    for path, document in components:
        strangers = set(document.get("scopes", [])) - dapr_apps().keys()
        assert not strangers, f"{name_of(path)}: {sorted(strangers)} is no app of dapr.yaml."
    kinds = {document["spec"]["type"].partition(".")[0] for _, document in components}
    assert kinds >= {"pubsub", "state", "secretstores"}


def test_inbound_events_are_retried_without_end() -> None:
    (spec,) = [doc["spec"] for _, doc in documents("components/local") if doc["kind"] == "Resiliency"]
    retries, targets = spec["policies"]["retries"], spec["targets"]["components"]

    for component in ("events", "audit", "control"):
        policy = retries[targets[component]["inbound"]["retry"]]
        assert policy["maxRetries"] == -1, (
            f"{component}: an outage must never send a good event to a dead-letter topic."
        )
        assert policy["maxInterval"] == "5s", f"{component}: at most 5 s between two tries."
    adapters = [app for app in dapr_apps() if app.endswith("-grpc")]
    assert not set(adapters) & spec["targets"].get("apps", {}).keys(), (
        "A Dapr policy on a gRPC adapter repeats NOT_FOUND and opens one breaker for all tenants: isa-common retries."
    )


@pytest.mark.ac("phase-v:B1.1:1")
@pytest.mark.parametrize("app_id", dapr_apps())
def test_every_app_has_its_pod_room_and_sidecar_in_compose(app_id: str) -> None:
    services = compose()

    for name in (app_id, f"{app_id}-dapr"):
        assert name in services, f"docker-compose.yml has no {name}."
    sidecar = services[f"{app_id}-dapr"]
    assert sidecar.get("network_mode", "").startswith("service:"), f"{app_id}-dapr must share its room's network."


@pytest.mark.ac("phase-v:B1.2:3", "phase-v:B1.2:4")
def test_every_lasting_compose_service_is_probed_and_waits_by_health() -> None:
    services = compose()
    once = {name for name, service in services.items() if service.get("restart") == "no"}
    core = {name: service for name, service in services.items() if not service.get("profiles") and name not in once}

    # A room is probed by its pod, whose network it shares.
    unprobed = [
        name
        for name, service in core.items()
        if "healthcheck" not in service and "healthcheck" not in services.get(f"{name}-pod", {})
    ]
    assert not unprobed, f"docker-compose.yml: {unprobed} have no health check."
    for name, service in core.items():
        for other, condition in (service.get("depends_on") or {}).items():
            wanted = {"service_completed_successfully"} if other in once else {"service_healthy", "service_started"}
            assert condition["condition"] in wanted, f"{name} waits for {other} by {condition['condition']}."
