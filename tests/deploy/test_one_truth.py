"""Names, ports, topics, groups and scopes are declared once, and every file that repeats them says the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import derive
from cli.topics import DEAD_LETTER, manifest
from tests.architecture.tree import ROOT, TOPICS, dapr_apps, documents, subscriptions
from tests.deploy.rendering import CHARTS, CLOUDS, ENVIRONMENTS, GATEWAYS, Release, camel, manifests
from tests.deploy.tools import run, tool

EPHEMERAL = re.compile(r"\{uuid\}$")
ALIAS = re.compile(r"\$(\w+) := (\$?[\w.]*Values\.global[\w.]*|\$\w+\.[\w.]+)")
USE = re.compile(r"(\$?[\w.]*Values\.global|\$\w+)((?:\.\w+)+)")


def derived(name: str) -> dict[str, Any]:
    """Return a file of charts/derived."""
    found: dict[str, Any] = yaml.safe_load((derive.DERIVED / f"{name}.yaml").read_text())
    return found


@cache
def component_of(topic: str) -> str:
    """Return the component that a topic is subscribed to by, which is the one that it is published by."""
    (name,) = {each.component for each in subscriptions() if each.topic == topic}
    return name


@cache
def local_components() -> dict[str, dict[str, Any]]:
    """Return the Kafka components of the local set by name."""
    found = [each for _, each in documents("components/local") if each["kind"] == "Component"]
    return {each["metadata"]["name"]: each for each in found if each["spec"]["type"] == "pubsub.kafka"}


def group_of(app: str, component: str) -> str:
    """Return the group that an app reads a component by."""
    items = local_components()[component]["spec"]["metadata"]
    (template,) = (item["value"] for item in items if item["name"] == "consumerGroup")
    return str(template).replace("{appID}", app)


def publishers(topic: str) -> set[str]:
    """Return who writes a topic."""
    publisher = TOPICS[topic]["publisher"]
    return set(dapr_apps()) if publisher == "*" else {publisher}


def kafka(kind: str, environment: str = "prod") -> dict[str, dict[str, Any]]:
    """Return what charts/messaging makes of a kind, by name."""
    release = Release(chart="messaging", name="messaging", environment=environment, cloud="local")
    return {each["metadata"]["name"]: each for each in manifests(release) if each["kind"] == kind}


# What is derived


def test_what_is_derived_is_what_the_sources_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charts.derive", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, f"Run `make generate`, and commit charts/derived. {done.stderr.strip()}"


def test_each_app_has_derived_values_and_nothing_else_has() -> None:
    found = {path.stem for path in (derive.DERIVED / "services").iterdir()}

    strangers = found - dapr_apps().keys()
    assert not strangers, f"charts/derived/services: delete {sorted(strangers)}; dapr.yaml has no such app."


@pytest.mark.parametrize("app", dapr_apps())
def test_an_app_has_the_image_and_the_ports_of_compose(app: str) -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    service = derived(f"services/{app}")["service"]
    environment, build = services[f"{app}-pod"]["environment"], services[app]["build"]["args"]

    assert services[app]["image"].startswith(f"isa-cloud/{app}:"), (
        f"docker-compose.yml: the image of {app} is isa-cloud/{app}."
    )
    assert build["ROOM"] == service["package"], (
        f"docker-compose.yml builds {app} of another package than dapr.yaml runs."
    )
    assert environment["APP_PORT"] == str(service["port"]), (
        f"{app}: appPort of dapr.yaml and APP_PORT of compose differ."
    )
    assert environment["APP_PROTOCOL"] == service["protocol"]
    assert environment["HEALTH_PORT"] == str(service["metricsPort"]), (
        f"{app}: METRICS_PORT and compose's health port differ."
    )


# Topics, their users, and who asks for their lag


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_strimzi_has_every_topic_of_the_manifest_and_no_other(environment: str) -> None:
    found, wanted = kafka("KafkaTopic", environment), manifest("production")

    assert found.keys() == wanted.keys(), (
        f"charts/messaging differs by {sorted(found.keys() ^ wanted.keys())}: run `make generate`."
    )
    (pool,) = kafka("KafkaNodePool", environment).values()
    for name, topic in found.items():
        spec = topic["spec"]
        assert "topicName" not in spec, f"{name} is legal as an object's name."
        assert spec["partitions"] == wanted[name].partitions
        assert spec["replicas"] == min(wanted[name].replication_factor, pool["spec"]["replicas"])
        assert spec["config"]["min.insync.replicas"] <= spec["replicas"], f"{name}: nobody could write it."
        same = {key: value for key, value in wanted[name].config.items() if key != "min.insync.replicas"}
        assert {key: str(value) for key, value in spec["config"].items() if key != "min.insync.replicas"} == same


def test_a_single_broker_has_topics_as_wide_as_productions() -> None:
    """Else autoscalers, which go by derived partitions, would be tried on other topics than they meet."""
    schema = json.loads((CHARTS / "dapr-resources/values.schema.json").read_text())
    for environment in schema["properties"]["topics"]["properties"]["environment"]["enum"]:
        wide = {name: topic.partitions for name, topic in manifest(environment).items()}
        assert wide == {name: topic["partitions"] for name, topic in derived("topics")["topics"].items()}


def test_every_subscription_and_its_dead_letters_have_a_topic() -> None:
    wanted = manifest("production")

    for each in subscriptions():
        for topic in (each.topic, each.spec["deadLetterTopic"]):
            assert topic in wanted, f"{each.where}: schemas/avro/topics.yaml has no {topic}."
        assert each.spec["deadLetterTopic"] == each.topic + DEAD_LETTER, each.where


@pytest.mark.parametrize("component", local_components())
def test_a_component_is_open_to_exactly_who_publishes_or_subscribes_by_it(component: str) -> None:
    topics = [topic for topic in TOPICS if component_of(topic) == component]
    users = {app for topic in topics for app in publishers(topic)}
    users |= {each.app_id for each in subscriptions() if each.component == component}

    scopes = set(local_components()[component]["scopes"])

    assert scopes == users, f"components/local/{component}.yaml: scopes and use differ by {sorted(scopes ^ users)}."


@pytest.mark.parametrize("app", dapr_apps())
def test_a_service_may_do_on_kafka_what_it_declares_and_nothing_else(app: str) -> None:
    (user,) = (user for name, user in kafka("KafkaUser").items() if name == app)
    reads = {each.topic for each in subscriptions() if each.app_id == app}
    writes = {topic for topic in TOPICS if app in publishers(topic)} | {topic + DEAD_LETTER for topic in reads}
    groups = {group_of(app, each.component) for each in subscriptions() if each.app_id == app}

    granted = {
        (acl["resource"]["type"], acl["resource"]["patternType"], acl["resource"]["name"], operation)
        for acl in user["spec"]["authorization"]["acls"]
        for operation in acl["operations"]
        if operation != "Describe"
    }
    wanted = {("topic", "literal", topic, "Read") for topic in reads}
    wanted |= {("topic", "literal", topic, "Write") for topic in writes}
    wanted |= {("group", "literal", group, "Read") for group in groups if not EPHEMERAL.search(group)}
    wanted |= {("group", "prefix", EPHEMERAL.sub("", group), "Read") for group in groups if EPHEMERAL.search(group)}
    assert granted == wanted, f"{app}: charts/messaging differs by {sorted(granted ^ wanted)}: run `make generate`."


@pytest.mark.parametrize("app", dapr_apps())
def test_no_prefix_of_groups_reaches_into_another_services(app: str) -> None:
    prefixes = derived("topics")["users"][app]["groupPrefixes"]
    others = {other for other in dapr_apps() if other != app}

    for prefix in prefixes:
        caught = {other for other in others if f"{other}-".startswith(prefix)}
        assert not caught, f"{app} could read as {sorted(caught)}: rename one of the apps."


def test_kafkas_password_is_where_its_users_look_for_it() -> None:
    """Strimzi writes it, external-secrets copies it, and daprd, the room and KEDA refer to the copy."""
    release = Release(chart="dapr-resources", name="dapr-resources", environment="prod", cloud="local")
    secrets = {each["metadata"]["name"]: each for each in manifests(release) if each["kind"] == "ExternalSecret"}
    (role,) = kafka("Role").values()
    (binding,) = kafka("RoleBinding").values()
    (account,) = binding["subjects"]
    (store,) = (each for each in manifests(release) if each["kind"] == "SecretStore")

    assert {each["spec"]["data"][0]["remoteRef"]["key"] for each in secrets.values()} == set(
        role["rules"][0]["resourceNames"]
    )
    assert store["spec"]["provider"]["kubernetes"]["auth"]["serviceAccount"]["name"] == account["name"]
    for app in dapr_apps():
        (pod,) = (each for each in service_manifests(app) if each["kind"] == "Deployment")
        variable, _, place = pod["spec"]["template"]["metadata"]["annotations"]["dapr.io/env-from-secret"].partition(
            "="
        )
        name, _, key = place.partition(":")
        assert variable == "KAFKA_PASSWORD"
        assert name in secrets, f"charts/dapr-resources makes no Secret {name}, which the sidecar of {app} asks for."
        assert secrets[name]["spec"]["data"][0] | {"remoteRef": None} == {"secretKey": key, "remoteRef": None}
        for trigger in (each for each in service_manifests(app) if each["kind"] == "TriggerAuthentication"):
            for reference in trigger["spec"]["secretTargetRef"]:
                assert secrets[reference["name"]]["spec"]["data"][0]["secretKey"] == reference["key"]


def service_manifests(app: str) -> list[dict[str, Any]]:
    """Return what the chart of services makes of an app on a bare cluster in production."""
    return manifests(Release(chart="service", name=app, environment="prod", cloud="local"))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_the_namespace_has_room_for_every_service_at_its_most(environment: str) -> None:
    release = Release(chart="dapr-resources", name="dapr-resources", environment=environment, cloud="aws")
    (quota,) = (each["spec"]["hard"] for each in manifests(release) if each["kind"] == "ResourceQuota")

    needed = dict.fromkeys(quota, 0.0)
    for app in dapr_apps():
        found = {each["kind"]: each.get("spec") for each in manifests(replace(release, chart="service", name=app))}
        replicas = found.get("HorizontalPodAutoscaler", {}).get("maxReplicas")
        replicas = replicas or found.get("ScaledObject", {}).get("maxReplicaCount") or found["Deployment"]["replicas"]
        pods = replicas + 1  # one more while a version is replaced
        template = found["Deployment"]["template"]
        sidecar, (room,) = template["metadata"]["annotations"], template["spec"]["containers"]
        needed["pods"] += pods
        for name in needed.keys() - {"pods"}:
            kind, resource = name.split(".")
            needed[name] += pods * amount(room["resources"][kind][resource])
            needed[name] += pods * amount(sidecar[f"dapr.io/sidecar-{resource}-{kind.removesuffix('s')}"])
    for name, value in needed.items():
        assert value <= amount(quota[name]), (
            f"{environment}: services at their most take {value:g} of {name}, and charts/dapr-resources/values.yaml"
            f" lets the namespace have {quota[name]}."
        )


def amount(text: str) -> float:
    """Return a quantity of Kubernetes as a number."""
    number, unit = re.fullmatch(r"([0-9.]+)([a-zA-Z]*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "m": 0.001, "Mi": 2**20, "Gi": 2**30}[unit]


def test_terraform_takes_its_topics_from_the_derived_file() -> None:
    sources = {path: path.read_text() for path in (ROOT / "terraform").rglob("*.tf") if ".terraform" not in path.parts}
    repeated = {path: [topic for topic in TOPICS if f'"{topic}"' in text] for path, text in sources.items()}

    for path, topics in repeated.items():
        assert not topics, f"{path.relative_to(ROOT)}: take {topics} from charts/derived/topics.yaml."
    for cloud in ("gcp", "azure"):  # on AWS the job of charts/dapr-resources makes them
        text = sources[ROOT / "terraform/modules" / cloud / "environment/main.tf"]
        assert re.search(r'yamldecode\(file\("[^"]*/charts/derived/topics\.yaml"\)\)', text), (
            f"terraform/modules/{cloud}/environment: its topics are those of charts/derived/topics.yaml."
        )
        assert re.search(r"for_each\s*=\s*var\.topics", sources[ROOT / "terraform/modules" / cloud / "kafka/main.tf"])


# What environment, cloud and Terraform say, and what charts read


@cache
def contract() -> dict[str, dict[str, Any]]:
    """Return Terraform's outputs by name."""
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "terraform/contract.yaml").read_text())["outputs"]
    return found


def merged(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Return two layers of values as Helm lays the second over the first."""
    both = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            both[key] = merged(first[key], second[key])
    return both


def globals_of(environment: str, cloud: str, gateway: str) -> dict[str, Any]:
    """Return `global` as a chart gets it: cloud, gateway, environment and, of a real cloud, Terraform's outputs."""
    files = (f"clouds/{cloud}.yaml", f"gateways/{gateway}.yaml", f"envs/{environment}/environment.yaml")
    given: dict[str, Any] = {}
    for file in files:
        given = merged(given, yaml.safe_load((CHARTS / file).read_text()).get("global", {}))
    if cloud != "local":
        assert "platform" not in given, f"{files[0]}: what Terraform says of {cloud} is not repeated here."
        given["platform"] = {camel(name): "" for name, output in contract().items() if output["annotation"]}
    return given


@cache
def used_globals() -> dict[tuple[str, ...], Path]:
    """Return every path below `global` that a template reads, with one file that does."""
    found: dict[tuple[str, ...], Path] = {}
    for path in sorted(CHARTS.glob("*/templates/**/*")):
        if path.suffix in {".yaml", ".tpl"}:
            found.update(dict.fromkeys(uses(path.read_text()), path))
    return found


def uses(text: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths below `global` that a template reads, by whatever variable."""
    places: dict[str, tuple[str, ...]] = {}
    for name, value in ALIAS.findall(text):
        root, *rest = value.split(".")
        if ".global" in value:
            places[name] = (
                tuple(value.partition(".global")[2].strip(".").split(".")) if not value.endswith("global") else ()
            )
        elif root[1:] in places:
            places[name] = (*places[root[1:]], *rest)
    for root, rest in USE.findall(text):
        path = tuple(rest.strip(".").split("."))
        if root.endswith("global"):
            yield path
        elif root[1:] in places:
            yield (*places[root[1:]], *path)


def at(value: Any, path: tuple[str, ...]) -> bool:
    """Tell whether a path leads somewhere."""
    for name in path:
        if not isinstance(value, dict) or name not in value:
            return False
        value = value[name]
    return True


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value that is no map."""
    if not isinstance(value, dict):
        yield path
        return
    for name, inner in value.items():
        yield from leaves(inner, (*path, name))


def test_templates_are_read_as_helm_reads_them() -> None:
    text = (
        "{{- $g := .Values.global }}{{ $g.cloud }}{{ $root.Values.global.kafka.tls }}"
        "{{- $p := $g.platform }}{{ $p.domain | quote }}"
    )

    assert set(uses(text)) == {("cloud",), ("kafka", "tls"), ("platform",), ("platform", "domain")}


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_global_that_a_chart_reads_is_given(environment: str, cloud: str) -> None:
    for gateway in GATEWAYS:
        given = globals_of(environment, cloud, gateway)
        for path, where in used_globals().items():
            assert at(given, path), (
                f"{where.relative_to(ROOT)} reads global.{'.'.join(path)}: give it in charts/clouds/{cloud}.yaml, in"
                f" charts/envs/{environment}/environment.yaml, or as an output in terraform/contract.yaml."
            )


def test_every_global_that_is_given_is_read_by_a_chart() -> None:
    given = {
        path for cloud in CLOUDS for path in leaves(globals_of("prod", cloud, GATEWAYS[0])) if path[0] != "platform"
    }

    unread = {".".join(path) for path in given - used_globals().keys()}
    assert not unread, (
        f"No chart reads global.{', global.'.join(sorted(unread))}: take them out of charts/clouds and charts/envs."
    )


def test_a_bare_cluster_says_what_terraform_says_of_a_cloud() -> None:
    local = yaml.safe_load((CHARTS / "clouds/local.yaml").read_text())["global"]["platform"]

    wanted = {camel(name) for name, output in contract().items() if output["annotation"]}
    assert local.keys() == wanted, f"charts/clouds/local.yaml: platform differs by {sorted(local.keys() ^ wanted)}."


def test_every_output_that_is_handed_over_is_used() -> None:
    by_charts = {path[1] for path in used_globals() if path[0] == "platform" and len(path) > 1}
    platform = [yaml.safe_load(path.read_text()) for path in (ROOT / "argocd/platform").glob("*.yaml")]
    by_operators = {
        name
        for each in platform
        for cloud in each["clouds"].values()
        for name in (cloud or {}).get("outputs", {}).values()
    }
    of_the_secret = {"cloud", "environment", "cluster_name"}  # its labels and name: argocd/bootstrap/cluster_secret.py

    unused = [
        name
        for name, output in contract().items()
        if output["annotation"]
        and name not in of_the_secret
        and camel(name) not in by_charts
        and name.replace("_", "-") not in by_operators
    ]
    assert not unused, f"terraform/contract.yaml: nothing reads {unused}; use them, or say `annotation: false`."


def test_operators_ask_for_outputs_that_are_handed_over() -> None:
    known = {name.replace("_", "-") for name, output in contract().items() if output["annotation"]}

    for path in (ROOT / "argocd/platform").glob("*.yaml"):
        for cloud, settings in yaml.safe_load(path.read_text())["clouds"].items():
            strange = set((settings or {}).get("outputs", {}).values()) - known
            assert not strange, (
                f"{path.relative_to(ROOT)}, {cloud}: terraform/contract.yaml hands over no {sorted(strange)}."
            )


@pytest.mark.parametrize("file", ["services.yaml", "releases/any/releases.yaml"])
def test_applicationsets_name_the_annotations_as_charts_read_them(file: str, tmp_path: Path) -> None:
    patch = yaml.safe_load((ROOT / "argocd/appsets" / file).read_text())["spec"]["templatePatch"]
    (expression,) = re.findall(r"set \$platform \((.*?)\) \$value", patch)
    names = [name for name, output in contract().items() if output["annotation"]]
    annotations = {f"isa-cloud.io/{name.replace('_', '-')}": "" for name in names}

    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: names, version: 0.1.0}")
    (tmp_path / "templates/names.yaml").write_text(
        f"names:\n{{{{- range $name, $value := .Values.annotations }}}}\n- {{{{ {expression} }}}}\n{{{{- end }}}}\n"
    )
    text = run(
        tool("helm"), "template", "names", tmp_path, "--values", "-", given=yaml.safe_dump({"annotations": annotations})
    )

    assert set(yaml.safe_load(text)["names"]) == {camel(name) for name in names}, (
        f"argocd/appsets/{file}: templatePatch."
    )
