"""The data chart is what docker-compose.yml runs, in a cluster; its engines take the configuration they are given."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from runtime import nats, redis
from runtime.layout import CHECKOUT
from runtime.secrets import DATABASES, ROLES
from tests.deploy.rendering import CHARTS, CLOUDS, ENVIRONMENTS, Release, helm, manifests
from tests.deploy.tools import documents, engines, run
from tests.integration.private import PATIENCE, Program, free_port

COMPOSE: dict[str, Any] = yaml.safe_load((CHECKOUT / "docker-compose.yml").read_text())["services"]
VALUES: dict[str, Any] = yaml.safe_load((CHARTS / "data" / "values.yaml").read_text())
SHARED = ("postgres", "redis", "kafka", "registry", "nats", "loki", "minio")
"""Engines that compose runs too; there, Qdrant runs inside its adapter."""
WITH_KAFKA = ("--set", "global.kafka.auth=none")
PLACES = [(environment, cloud) for environment in ENVIRONMENTS for cloud in CLOUDS]
EDGE = {"minio"}
"""What is reached from outside: presigned addresses of objects."""


def release(environment: str = "dev", cloud: str = "local") -> Release:
    return Release(chart="data", name="data", environment=environment, cloud=cloud)


@cache
def rendered(environment: str = "dev", cloud: str = "local") -> list[dict[str, Any]]:
    """The manifests of a place, with the broker that a bare cluster without Strimzi has."""
    if cloud != "local":
        return manifests(release(environment, cloud))
    chart = CHARTS / "data"
    text = helm(release(environment, cloud), "template", "data", chart, "--namespace", "isa-data", *WITH_KAFKA)
    return documents(text)


def of(documents: list[dict[str, Any]], kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in documents if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every pod that the chart makes."""
    for each in documents:
        if each["kind"] in {"StatefulSet", "Deployment", "Job"}:
            yield each["metadata"]["name"], each["spec"]["template"]["spec"]


def container(name: str) -> dict[str, Any]:
    (found,) = [pod["containers"][0] for each, pod in pods(rendered()) if each == name]
    return found


def environment_of(name: str) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(name)["env"] if "value" in each}


def file_of(documents: list[dict[str, Any]], name: str, file: str) -> str:
    text: str = of(documents, "ConfigMap", name)["data"][file]
    return text


@pytest.mark.parametrize("name", SHARED)
def test_images_are_those_of_compose(name: str) -> None:
    assert VALUES[name]["image"] == COMPOSE[name]["image"], f"charts/data/values.yaml and docker-compose.yml: {name}"


def test_qdrants_server_is_of_an_age_with_its_client() -> None:
    client = re.search(r"qdrant-client==1\.(\d+)\.", (CHECKOUT / "pyproject.toml").read_text())
    server = re.fullmatch(r"qdrant/qdrant:v1\.(\d+)\.\d+-unprivileged", VALUES["qdrant"]["image"])

    assert client and server
    assert abs(int(client[1]) - int(server[1])) <= 1, "A client speaks to servers one minor version away at most."


def test_postgres_is_configured_as_in_compose() -> None:
    ours, theirs = environment_of("postgres"), COMPOSE["postgres"]["environment"]

    assert container("postgres")["args"] == COMPOSE["postgres"]["command"]
    assert ours == {**theirs, "POSTGRES_PASSWORD_FILE": "/run/isa/postgres/postgres-superuser"}


def test_kafka_is_configured_as_in_compose() -> None:
    """Its listeners are the cluster's, and a fresh disk has a folder that is no topic."""
    own = {
        "KAFKA_LISTENERS",
        "KAFKA_ADVERTISED_LISTENERS",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP",
        "KAFKA_LOG_DIRS",
        "KAFKA_HEAP_OPTS",
    }
    ours, theirs = environment_of("kafka"), COMPOSE["kafka"]["environment"]

    assert {name: value for name, value in ours.items() if name not in own} == {
        name: value for name, value in theirs.items() if name not in own
    }
    assert ours["KAFKA_ADVERTISED_LISTENERS"] == "INTERNAL://kafka.isa-data:9092"
    assert ours["KAFKA_HEAP_OPTS"] in theirs["KAFKA_HEAP_OPTS"]
    probe = CHECKOUT / "compose" / "kafka-is-ready.sh"
    assert file_of(rendered(), "kafka", probe.name) == probe.read_text(), f"Copy {probe} to charts/data/files."


def test_the_registry_is_configured_as_in_compose() -> None:
    own = {"APICURIO_DATASOURCE_URL", "SMALLRYE_CONFIG_LOCATIONS"}
    ours, theirs = environment_of("registry"), COMPOSE["registry"]["environment"]

    assert {name: value for name, value in ours.items() if name not in own} == {
        name: value for name, value in theirs.items() if name not in own
    }
    assert ours["APICURIO_DATASOURCE_URL"] == "jdbc:postgresql://postgres.isa-data:5432/registry?sslmode=disable"


def test_minio_is_configured_as_in_compose() -> None:
    ours, theirs = environment_of("minio"), COMPOSE["minio"]["environment"]

    assert container("minio")["args"] == COMPOSE["minio"]["command"]
    assert {name: ours[name] for name in ("MINIO_BROWSER", "MINIO_UPDATE")} == {
        name: theirs[name] for name in ("MINIO_BROWSER", "MINIO_UPDATE")
    }


def test_redis_is_configured_as_everywhere() -> None:
    documents = rendered()
    wanted = redis.document(bind="*", port=6379, folder="/data", password="").splitlines()

    found = file_of(documents, "redis", "redis.conf").splitlines()

    assert found == [line for line in wanted if not line.startswith("user ")]
    assert file_of(documents, "redis", "login") == redis.LOGIN


def test_nats_is_configured_as_everywhere() -> None:
    wanted = nats.document(listen="0.0.0.0:4222", monitor="0.0.0.0:8222", folder="/data", password="PASSWORD")

    found = file_of(rendered(), "nats", "nats.conf")

    assert found == wanted.replace("server_name: isa", "server_name: $SERVER").replace('"PASSWORD"', "$PASSWORD")


def test_loki_is_configured_as_in_compose() -> None:
    found = yaml.safe_load(file_of(rendered(), "loki", "loki.yaml"))

    assert found == yaml.safe_load((CHECKOUT / "compose" / "loki.yaml").read_text())


@pytest.mark.parametrize("cloud", CLOUDS)
def test_loki_takes_its_configuration(cloud: str, tmp_path: Path) -> None:
    file = tmp_path / "loki.yaml"
    file.write_text(file_of(rendered("prod", cloud), "loki", "loki.yaml"))

    run(engines().binary("loki", "loki"), "-verify-config", f"-config.file={file}", cwd=tmp_path)


async def test_redis_starts_by_the_charts_script_and_its_probe_finds_it_ready(tmp_path: Path) -> None:
    port, password, documents = free_port(), "a password", rendered()
    (tmp_path / "redis-password").write_text(password)
    for name, text in of(documents, "ConfigMap", "redis")["data"].items():
        moved = re.sub(r"/etc/isa|/run/isa/redis|/tmp|/data", str(tmp_path), text).replace("6379", str(port))
        (tmp_path / ("started.conf" if name == "redis.conf" else name)).write_text(moved)
    script = tmp_path / "start.sh"  # both files have one name, in two folders
    script.write_text(script.read_text().replace(f"include {tmp_path}/redis.conf", f"include {tmp_path}/started.conf"))
    server = Program("bash", str(script), env={"PATH": f"{engines().redis.parent}:{os.environ['PATH']}"})

    await server.start()
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                probe = await asyncio.create_subprocess_exec("bash", str(tmp_path / "is-ready.sh"), stderr=-3)
                if await probe.wait() == 0:
                    break
                await asyncio.sleep(0.05)
        (tmp_path / "redis-password").write_text("another")
        refused = await asyncio.create_subprocess_exec("bash", str(tmp_path / "is-ready.sh"))
        assert await refused.wait() != 0, "The probe would take any answer for PONG."
    finally:
        await server.end()


async def test_three_servers_of_nats_become_one_cluster_that_keeps_streams(tmp_path: Path) -> None:
    """With a password of the form that NATS would take for a number."""
    password, documents = "12e45678", rendered("prod")
    text = file_of(documents, "nats", "nats.conf")
    given = container_of(documents, "nats")["env"]
    ports = {name: [free_port() for _ in range(3)] for name in ("4222", "8222", "6222")}
    servers = []
    for number in range(3):
        mine = re.sub(r"0\.0\.0\.0:(\d+)", lambda found, n=number: f"127.0.0.1:{ports[found[1]][n]}", text)
        file = tmp_path / f"{number}.conf"
        file.write_text(mine.replace("/data", str(tmp_path / f"data-{number}")))
        environment = {"SERVER": f"nats-{number}"}
        for each in given:
            if "value" in each:
                value = each["value"].replace("$(GIVEN)", password)
                found = re.search(r"nats-(\d)\.nats-pods\.isa-data\.svc:6222", value)
                if found:
                    value = value.replace(found[0], f"127.0.0.1:{ports['6222'][int(found[1])]}")
                environment[each["name"]] = value
        program = str(engines().binary("nats", "nats-server"))
        servers.append(Program(program, "--config", str(file), env=environment, log=tmp_path / f"{number}.log"))

    try:
        for server in servers:
            await server.start()
        async with httpx.AsyncClient() as client, asyncio.timeout(PATIENCE):
            for port in ports["8222"]:
                while not await agrees(client, port):
                    await asyncio.sleep(0.1)
    finally:
        for server in servers:
            await server.end()


def container_of(documents: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found: dict[str, Any] = of(documents, "StatefulSet", name)["spec"]["template"]["spec"]["containers"][0]
    return found


async def agrees(client: httpx.AsyncClient, port: int) -> bool:
    """Whether a server knows a leader and two peers that are current."""
    try:
        answer = await client.get(f"http://127.0.0.1:{port}/jsz")
    except httpx.HTTPError:
        return False
    cluster = answer.json().get("meta_cluster", {})
    return bool(cluster.get("leader")) and cluster.get("cluster_size") == 3


def test_the_job_gets_every_secret_that_databases_need() -> None:
    job = next(each for each in rendered() if each["kind"] == "Job")
    wanted = {"postgres-superuser", "postgres-tenants-admin"}
    wanted |= {f"postgres-{database}-{role}" for database in DATABASES for role in ROLES}

    (volume,) = [each for each in job["spec"]["template"]["spec"]["volumes"] if each["name"] == "secrets"]

    found = [source["secret"]["name"] for source in volume["projected"]["sources"]]
    assert sorted(found) == sorted(wanted), (
        "charts/data/templates/secrets.yaml names the databases of runtime/secrets.py."
    )


def secrets_of(part: object) -> Iterator[str]:
    """The Secrets that a pod names, wherever it does."""
    if isinstance(part, list):
        for each in part:
            yield from secrets_of(each)
    if isinstance(part, dict):
        for name, value in part.items():
            if name in {"secret", "secretKeyRef"}:
                yield value.get("secretName") or value["name"]
            else:
                yield from secrets_of(value)


@pytest.mark.parametrize(("environment", "cloud"), [place for place in PLACES if place[1] != "local"])
def test_every_secret_that_a_pod_mounts_comes_from_the_cloud(environment: str, cloud: str) -> None:
    documents = rendered(environment, cloud)
    made = {each["spec"]["target"]["name"] for each in documents if each["kind"] == "ExternalSecret"}
    needed = {name for _, pod in pods(documents) for name in secrets_of(pod)}

    assert needed
    assert needed <= made, "charts/data/templates/secrets.yaml: a Secret is used and nobody makes it."


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_pods_are_restricted_and_bounded(environment: str, cloud: str) -> None:
    for name, pod in pods(rendered(environment, cloud)):
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False, name
        for each in pod["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert set(each["resources"]["limits"]) == set(each["resources"]["requests"]) == {"cpu", "memory"}, name
            mounted = {volume["name"] for volume in pod["volumes"]} | {"data"}
            assert {mount["name"] for mount in each["volumeMounts"]} <= mounted, name
            if not name.startswith("databases-"):
                assert {"startupProbe", "readinessProbe", "livenessProbe"} <= each.keys(), name


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_every_engine_has_its_own_policy_and_a_budget_when_there_are_more(environment: str, cloud: str) -> None:
    documents = rendered(environment, cloud)
    policies = {each["metadata"]["name"] for each in documents if each["kind"] == "NetworkPolicy"}
    budgets = {each["metadata"]["name"] for each in documents if each["kind"] == "PodDisruptionBudget"}
    sets = [each for each in documents if each["kind"] in {"StatefulSet", "Deployment"}]

    names = {each["metadata"]["name"] for each in sets}

    assert policies == {*names, "databases", "default-deny"}
    assert budgets == {each["metadata"]["name"] for each in sets if each["spec"]["replicas"] > 1}
    assert of(documents, "NetworkPolicy", "default-deny")["spec"]["podSelector"] == {}


@pytest.mark.parametrize("engine", ["postgres", "redis", "nats", "minio", "qdrant", "loki"])
def test_exactly_the_services_that_use_an_engine_may_reach_it(engine: str) -> None:
    values = {path.stem: yaml.safe_load(path.read_text()) or {} for path in (CHARTS / "values").glob("*.yaml")}
    users = {name for name, given in values.items() if engine in given.get("engines", [])}
    if engine == "postgres":
        users |= {f"{path.parent.name}-migration" for path in (CHECKOUT / "services").glob("*/migrations")}

    rules = of(rendered(), "NetworkPolicy", engine)["spec"]["ingress"]

    admitted = {
        name
        for rule in rules
        for peer in rule["from"]
        if peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "isa-cloud"
        for name in peer["podSelector"]["matchExpressions"][0]["values"]
    }
    assert admitted == users, f"charts/data/templates/{engine}.yaml and charts/values say different users."
    is_open = any("edge" in str(rule) for rule in rules)
    assert is_open == (engine in EDGE)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_addresses_that_services_are_told_are_those_of_the_chart(cloud: str) -> None:
    given = yaml.safe_load((CHARTS / "clouds" / f"{cloud}.yaml").read_text())["global"]
    addresses = list(given["engines"].values())
    if cloud == "local":
        platform = given["platform"]
        addresses += [f"tcp://{platform[f'{name}Host']}:{platform[f'{name}Port']}" for name in ("postgres", "redis")]
    served = {
        (each["metadata"]["name"], port["port"])
        for each in rendered("dev", cloud)
        if each["kind"] == "Service"
        for port in each["spec"]["ports"]
    }

    for address in addresses:
        url = httpx.URL(address)
        assert (url.host.removesuffix(".isa-data"), url.port) in served, f"Nobody serves {address}."
