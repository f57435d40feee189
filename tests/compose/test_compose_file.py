"""docker-compose.yml says the same as dapr.yaml, its probes can work, and it holds no secret. Needs no Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.topics import manifest
from runtime.engines import load_engines
from runtime.kafka import properties
from runtime.layout import CHECKOUT, layout_from_environment
from runtime.loki import document as loki_document
from runtime.processes import App, load_apps

COMPOSE = CHECKOUT / "docker-compose.yml"
VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::?[-+]([^}]*))?\}")
ONE_SHOTS = {"prepare", "secrets", "databases", "migrations", "topics"}
AT = "127.0.0.1:9095"
DISTROLESS = ("daprio/", "grafana/loki", "jaegertracing/", "nats:")
"""Images without a shell: what is not in the image cannot probe it."""

DOCUMENT: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())
SERVICES: dict[str, dict[str, Any]] = DOCUMENT["services"]
ROOMS = {app.name: app for app in load_apps()}


def default_of(text: str) -> str:
    """The text with every variable at its default."""
    return VARIABLE.sub(lambda match: match[2] or "", text)


def depends_on(service: str) -> dict[str, str]:
    found: dict[str, dict[str, str]] = SERVICES[service].get("depends_on", {})
    return {name: condition["condition"] for name, condition in found.items()}


@pytest.mark.ac("phase-v:B1.1:1", "phase-v:B3.2:1", "phase-v:B3.2:2")
@pytest.mark.parametrize("app", ROOMS.values(), ids=ROOMS)
def test_every_app_is_a_pod_a_room_and_a_sidecar_with_the_ports_of_dapr_yaml(app: App) -> None:
    pod, room, sidecar = (SERVICES[name] for name in (f"{app.name}-pod", app.name, f"{app.name}-dapr"))

    assert room["network_mode"] == sidecar["network_mode"] == f"service:{app.name}-pod"
    assert pod["networks"]["default"]["aliases"] == [app.name]
    for container in (pod, room, sidecar):
        environment = container["environment"]
        assert environment["APP_ID"] == app.name
        assert environment["APP_PORT"] == str(app.values["appPort"])
        assert environment["APP_PROTOCOL"] == app.values["appProtocol"]
        assert environment["DAPR_HTTP_PORT"] == str(app.values["daprHTTPPort"])
        assert environment["DAPR_GRPC_PORT"] == str(app.values["daprGRPCPort"])
        assert environment["DAPR_INTERNAL_GRPC_PORT"] == str(app.values["daprInternalGRPCPort"])
        assert environment["DAPR_METRICS_PORT"] == str(app.values["metricsPort"])
        assert environment.get("METRICS_PORT") == app.values["env"].get("METRICS_PORT")
    assert pod["environment"]["HEALTH_PORT"] == app.values["env"].get("METRICS_PORT", str(app.values["appPort"]))
    assert room["build"]["args"]["ROOM"] == app.command[-1]
    assert [default_of(port) for port in pod["ports"]] == [f"127.0.0.1:{app.values['appPort']}:{app.values['appPort']}"]


@pytest.mark.ac("phase-v:B3.2:3")
def test_a_sidecar_asks_its_room_and_the_pod_asks_both() -> None:
    assert "--enable-app-health-check" in (CHECKOUT / "compose" / "sidecar.sh").read_text()
    for room in ROOMS:
        check = " ".join(SERVICES[f"{room}-pod"]["healthcheck"]["test"])
        assert "$$HEALTH_PORT/readyz" in check and "$$DAPR_HTTP_PORT/v1.0/healthz" in check


def test_sidecars_have_identities_and_deny_by_default() -> None:
    script = (CHECKOUT / "compose" / "sidecar.sh").read_text()
    assert "--enable-mtls" in script and '--config "/compose/access/$APP_ID.yaml"' in script
    assert "sentry-auth:/run/isa/sentry" in SERVICES["sentry"]["volumes"]
    for room in ROOMS:
        access = yaml.safe_load((CHECKOUT / "compose" / "access" / f"{room}.yaml").read_text())["spec"]["accessControl"]
        assert access["defaultAction"] == "deny"
        assert {policy["appId"] for policy in access.get("policies", [])} <= ROOMS.keys() - {room}
        assert not any("sentry-auth" in volume for volume in SERVICES[f"{room}-dapr"]["volumes"])


def test_there_is_no_pod_without_an_app() -> None:
    assert {name.removesuffix("-pod") for name in SERVICES if name.endswith("-pod")} == set(ROOMS)


@pytest.mark.ac("phase-v:B3.2:2")
def test_the_sidecar_is_told_what_the_dapr_cli_would_tell_it() -> None:
    script = (CHECKOUT / "compose" / "sidecar.sh").read_text()
    common = yaml.safe_load((CHECKOUT / "dapr.yaml").read_text())["common"]

    for flag, name in {
        "--dapr-listen-addresses": "apiListenAddresses",
        "--max-body-size": "maxBodySize",
        "--read-buffer-size": "readBufferSize",
        "--app-health-check-path": "appHealthCheckPath",
        "--app-health-probe-interval": "appHealthProbeInterval",
        "--app-health-probe-timeout": "appHealthProbeTimeout",
        "--app-health-threshold": "appHealthThreshold",
    }.items():
        assert f"{flag} {common[name]} " in script, name
    for path in common["resourcesPaths"]:
        assert f"--resources-path /{path}" in script


@pytest.mark.ac("phase-v:B1.2:3")
@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_a_health_check_that_can_work_or_runs_once(service: str) -> None:
    declared = SERVICES[service]
    if service in ONE_SHOTS:
        assert declared["restart"] == "no"
        return
    assert declared["restart"] == "unless-stopped"
    check = declared["healthcheck"]
    assert check["timeout"] and check["interval"] and check["retries"]
    if declared["image"].startswith(DISTROLESS):
        assert check["test"][:2] == ["CMD", "/tools/busybox"]
    if "/tools/busybox" in check["test"]:
        assert "tools:/tools:ro" in declared["volumes"]


@pytest.mark.ac("phase-v:B1.2:4")
def test_what_a_service_waits_for_is_there_and_can_be_waited_for() -> None:
    for service in SERVICES:
        for other, condition in depends_on(service).items():
            expected = "service_completed_successfully" if other in ONE_SHOTS else "service_healthy"
            assert condition == expected, f"{service} waits for {other}"
            profiles = SERVICES[other].get("profiles", [])
            assert not profiles or profiles == SERVICES[service].get("profiles"), f"{service} waits for {other}"


@pytest.mark.ac("phase-v:B1.2:4")
def test_the_order_of_the_start_is_engines_then_set_up_then_rooms() -> None:
    assert {"secrets", "postgres"} <= depends_on("databases").keys()
    assert "databases" in depends_on("migrations").keys() & depends_on("registry").keys()
    assert {"kafka", "registry"} <= depends_on("topics").keys()
    for room in ROOMS:
        assert {"secrets", "migrations", "topics", "scheduler"} <= depends_on(f"{room}-pod").keys()


@pytest.mark.ac("phase-v:B1.4:1")
def test_no_secret_is_in_the_file_and_every_variable_is_explained() -> None:
    text = COMPOSE.read_text()
    example = (CHECKOUT / ".env.example").read_text()
    names = {match[1] for match in VARIABLE.finditer(text)} - {"COMPOSE_PROJECT_NAME"}
    explained = dict(line.split("=", 1) for line in example.splitlines() if line and not line.startswith("#"))

    assert names == set(explained)
    for match in VARIABLE.finditer(text):
        if match[2] is not None and ":+" not in match[0]:
            assert explained[match[1]] == match[2], f".env.example and docker-compose.yml differ in {match[1]}"
    for service, declared in SERVICES.items():
        for name, value in (declared.get("environment") or {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|API_KEY", name) and not name.endswith("_FILE"):
                assert default_of(str(value)) == "", f"{service}: {name}"


def test_images_are_pinned() -> None:
    for service, declared in SERVICES.items():
        name, _, tag = default_of(declared["image"]).rpartition(":")
        assert name and re.search(r"\d+[.-]\d+", tag), f"{service}: {declared['image']}"


def test_engines_have_the_versions_that_the_native_runtime_has() -> None:
    engines = load_engines()
    versions = {image.rpartition(":")[0]: image.rpartition(":")[2] for image in (s["image"] for s in SERVICES.values())}

    assert versions["apache/kafka"] == engines["kafka"].version
    assert versions["apicurio/apicurio-registry"] == engines["registry"].version
    assert versions["grafana/loki"] == engines["loki"].version
    assert versions["nats"] == engines["nats"].version
    for program in ("daprd", "scheduler", "sentry"):
        assert versions[f"daprio/{program}"] == engines["dapr"].version


@pytest.mark.ac("phase-v:B2.1:1")
def test_kafka_has_the_settings_that_the_native_runtime_gives_it() -> None:
    own = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in SERVICES["kafka"]["environment"].items()
    }
    of_its_place = {"controller.quorum.voters", "listeners", "advertised.listeners", "log.dirs"}
    native = dict(line.split("=", 1) for line in properties(layout_from_environment()).splitlines() if "=" in line)

    assert {name: own.get(name) for name in native if name not in of_its_place} == {
        name: value for name, value in native.items() if name not in of_its_place
    }
    assert own["auto.create.topics.enable"] == "false"


def test_loki_has_the_settings_that_the_native_runtime_gives_it() -> None:
    own = yaml.safe_load((CHECKOUT / "compose" / "loki.yaml").read_text())
    layout = layout_from_environment()
    native = loki_document(layout).replace(str(layout.data / "loki"), "/loki").replace(layout.address("loki-grpc"), AT)
    expected = yaml.safe_load(native)
    expected["server"] |= {"http_listen_port": 3100, "grpc_listen_port": 9095}
    del expected["server"]["http_listen_address"], expected["server"]["grpc_listen_address"]

    assert own == expected


def test_redis_and_nats_are_configured_by_the_native_runtime() -> None:
    script = (CHECKOUT / "compose" / "make_secrets.py").read_text()

    assert "redis.document(" in script and "nats.document(" in script
    assert SERVICES["redis"]["command"] == ["redis-server", "/run/isa/redis/redis.conf"]
    assert SERVICES["nats"]["command"] == ["--config", "/run/isa/nats/nats.conf"]


@pytest.mark.ac("phase-v:B1.3:1", "phase-v:B1.3:2", "phase-v:B1.3:3")
def test_data_is_in_named_volumes_and_mounted_files_exist() -> None:
    declared = set(DOCUMENT["volumes"])
    used = set()
    for service, of in SERVICES.items():
        for volume in of.get("volumes", []):
            source = default_of(volume).split(":")[0]
            if source.startswith("."):
                assert (CHECKOUT / source).exists(), f"{service}: {source}"
            elif not source.startswith("/"):
                used.add(source)
    assert used == declared
    assert "postgres:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]
    assert "kafka:/var/lib/kafka/data" in SERVICES["kafka"]["volumes"]
    assert "qdrant:/var/lib/qdrant" in SERVICES["qdrant-grpc"]["volumes"]
    for engine in ("scheduler", "redis", "nats", "minio"):
        assert f"{engine}:/data" in SERVICES[engine]["volumes"]
    for room in ROOMS:
        assert f"{room}-state:/var/lib/isa" in SERVICES[room]["volumes"], "the audit spool outlives its container"


@pytest.mark.ac("phase-v:B1.2:2")
def test_ports_are_published_on_loopback_only_and_never_twice() -> None:
    published = [default_of(port) for of in SERVICES.values() for port in of.get("ports", [])]

    assert all(port.startswith("127.0.0.1:") for port in published)
    numbers = [int(port.split(":")[1]) for port in published]
    assert len(numbers) == len(set(numbers))
    assert len({number % 10000 for number in numbers}) == len(numbers), "ISA_PORT_BASE would make two the same"


def test_a_script_that_a_container_runs_is_mounted_and_there() -> None:
    for service, of in SERVICES.items():
        words = [*of.get("entrypoint", []), *of.get("command", []), *of.get("healthcheck", {}).get("test", [])]
        for script in (word for word in words if word.startswith("/compose/")):
            assert "./compose:/compose:ro" in of["volumes"], service
            assert (CHECKOUT / script.lstrip("/")).is_file(), f"{service}: {script}"


def test_our_containers_are_unprivileged() -> None:
    for service, of in SERVICES.items():
        if of["image"].startswith(("isa-cloud/", "daprio/", "busybox", "grafana/loki", "redis:", "nats:", "minio/")):
            assert of["cap_drop"] == ["ALL"] and of["read_only"] is True, service
            assert of["security_opt"] == ["no-new-privileges:true"], service
        if service != "prepare" and not of.get("profiles"):
            assert of.get("user", "") not in ("root", "0", "0:0"), service


@pytest.mark.ac("phase-v:B1.4:3")
def test_databases_are_made_by_the_script_of_the_native_runtime() -> None:
    assert "databases_script(secrets)" in (CHECKOUT / "compose" / "make_secrets.py").read_text()
    assert "/run/isa/postgres/databases.sql" in SERVICES["databases"]["command"]


@pytest.mark.ac("phase-v:B1.4:2")
def test_development_can_be_more_talkative_and_trace_everything() -> None:
    room = SERVICES["tasks"]["environment"]

    assert room["LOG_LEVEL"] == "${LOG_LEVEL:-INFO}"
    assert default_of(room["OTEL_TRACES_SAMPLER_ARG"]) == "1"
    assert SERVICES["tasks-dapr"]["environment"]["DAPR_LOG_LEVEL"] == "${DAPR_LOG_LEVEL:-info}"


@pytest.mark.ac("phase-v:B1.4:4")
def test_topics_are_those_of_the_manifest() -> None:
    assert SERVICES["topics"]["command"] == ["sh", "/compose/patiently.sh", "isa", "topics", "apply"]
    primary = [name for name in manifest("local") if name.startswith(("task.", "user.", "notification.", "reminder."))]
    assert len([name for name in primary if not name.endswith(".dlq")]) == 8


def test_prometheus_scrapes_every_room_and_sidecar() -> None:
    jobs = {
        job["job_name"]: {target for group in job["static_configs"] for target in group["targets"]}
        for job in yaml.safe_load((CHECKOUT / "compose" / "prometheus.yaml").read_text())["scrape_configs"]
    }

    assert jobs["rooms"] == {
        f"{app.name}:{app.values['env'].get('METRICS_PORT', app.values['appPort'])}" for app in ROOMS.values()
    }
    assert jobs["sidecars"] == {f"{app.name}:{app.values['metricsPort']}" for app in ROOMS.values()}


@pytest.mark.ac("phase-v:B1.1:2")
def test_observability_and_logs_are_profiles() -> None:
    profiles = {name: of["profiles"] for name, of in SERVICES.items() if "profiles" in of}

    assert profiles == {
        **{name: ["observability"] for name in ("prometheus", "grafana", "jaeger")},
        **{name: ["elk"] for name in ("elasticsearch", "kibana", "filebeat")},
    }


def test_the_image_is_built_from_what_runs_and_nothing_else() -> None:
    lines = Path(CHECKOUT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}

    code = {"runtime", "schemas", "client", "kernel", "services", "cli"}
    assert "*" in lines
    assert kept == code | {"pyproject.toml", "uv.lock", "README.md", "dapr.yaml"}
