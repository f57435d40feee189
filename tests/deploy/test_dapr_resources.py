"""Sidecars in a cluster find what they find locally, but for what a cluster changes, and that is named here."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from psycopg.conninfo import conninfo_to_dict

from tests.architecture.tree import ROOT, dapr_apps, documents
from tests.deploy.rendering import CLOUDS, Release, manifests
from tests.deploy.tools import engines, run, tool

Document = dict[str, Any]

LOGIN = {"brokers", "authType", "saslMechanism", "saslUsername", "saslPassword"}
CHANGED = {
    "aws": {"brokers", "authType", "region"},
    "gcp": LOGIN,
    "azure": LOGIN | {"version"},
    "local": LOGIN | {"caCert"},
}
"""Metadata of a Kafka component that a cluster of a cloud has otherwise than components/local."""
NOT_OF_THE_COMPONENT = {"pubsub": set(), "state": {"keyPrefix", "primaryEncryptionKey"}, "secretstores": set()}
"""Metadata that daprd itself reads, whatever the component, by the building block."""
OF_THE_AWS_PROFILE = {"region"}
"""Metadata of every component with the built-in profile `aws`; its list is generated, and not in metadata.yaml."""


def rendered(cloud: str, kind: str) -> dict[str, Document]:
    """Return what the chart makes of a kind for production on a cloud, by name."""
    release = Release(chart="dapr-resources", name="dapr-resources", environment="prod", cloud=cloud)
    return {each["metadata"]["name"]: each for each in manifests(release) if each["kind"] == kind}


@cache
def declared(kind: str, folder: str = "components/local") -> dict[str, Document]:
    """Return what the local set has of a kind, by name."""
    return {each["metadata"]["name"]: each for _, each in documents(folder) if each["kind"] == kind}


def metadata(component: Document) -> dict[str, Document]:
    """Return the metadata of a component by name, each with where its value comes from."""
    items = component["spec"]["metadata"]
    found = {item["name"]: {key: value for key, value in item.items() if key != "name"} for item in items}
    assert len(found) == len(items), f"{component['metadata']['name']}: a name twice."
    return found


@cache
def known_metadata(kind: str, version: str) -> set[str]:
    """Return the metadata that a component of this daprd takes."""
    block, _, name = kind.partition(".")
    folder = engines().folder("dapr-metadata") / "components-contrib"
    assert folder.is_dir(), "What Dapr's components take is not there yet: run `make setup-tests`."
    for path in folder.rglob("metadata.yaml"):
        said = yaml.safe_load(path.read_text())
        if (said["type"], said["name"], said["version"]) == (block, name, version):
            profiles = [*said.get("authenticationProfiles", []), *said.get("builtinAuthenticationProfiles", [])]
            lists = [said.get("metadata", []), *(profile["metadata"] for profile in profiles)]
            of_aws = (
                OF_THE_AWS_PROFILE
                if any(profile["name"] == "aws" for profile in said.get("builtinAuthenticationProfiles", []))
                else set()
            )
            return {field["name"] for fields in lists for field in fields} | NOT_OF_THE_COMPONENT[block] | of_aws
    raise AssertionError(f"runtime/engines.toml: dapr-metadata has no metadata.yaml of {kind} {version}.")


def test_the_metadata_is_that_of_the_daprd_that_we_pin() -> None:
    pins = (ROOT / "runtime/go/dapr/go.mod").read_text()

    (built,) = re.findall(r"dapr/components-contrib v(\S+)", pins)

    assert engines().engines["dapr-metadata"].version == built, f"runtime/engines.toml: dapr-metadata must be {built}."


@pytest.mark.parametrize("cloud", CLOUDS)
def test_components_are_those_of_the_local_set(cloud: str) -> None:
    found, local = rendered(cloud, "Component"), declared("Component")

    assert found.keys() == local.keys()
    for name in local.keys() - {"secrets"}:
        ours, theirs = metadata(local[name]), metadata(found[name])
        differ = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        wanted = CHANGED[cloud] if local[name]["spec"]["type"] == "pubsub.kafka" else set()
        assert differ == wanted, (
            f"{name} on {cloud}: {sorted(differ ^ wanted)} differ from components/local/{name}.yaml."
        )
        assert found[name]["scopes"] == local[name]["scopes"], f"{name}: its apps are those of components/local."
        assert {**found[name]["spec"], "metadata": None} == {**local[name]["spec"], "metadata": None}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_components_have_no_metadata_that_this_daprd_does_not_know(cloud: str) -> None:
    for name, component in rendered(cloud, "Component").items():
        kind, version = component["spec"]["type"], component["spec"]["version"]
        strange = metadata(component).keys() - known_metadata(kind, version)
        assert not strange, f"{name} on {cloud}: {kind} takes no {sorted(strange)}; daprd would ignore it."


def test_a_wrong_name_of_metadata_would_be_found() -> None:
    assert "consumerGroup" in known_metadata("pubsub.kafka", "v1")
    assert "consumerGroups" not in known_metadata("pubsub.kafka", "v1")


@pytest.mark.ac("phase-v:SEC3:2")
@pytest.mark.parametrize("cloud", CLOUDS)
def test_kafka_is_reached_by_tls_with_a_login(cloud: str) -> None:
    kafka = [each for each in rendered(cloud, "Component").values() if each["spec"]["type"] == "pubsub.kafka"]

    assert len(kafka) == 3
    for component in kafka:
        items = metadata(component)
        assert items["authType"]["value"] in {"password", "awsiam"}, "authType none switches TLS off, and says nothing."
        assert not items.keys() & {"disableTls", "skipVerify"}
        if items["authType"]["value"] == "password":
            assert items["saslMechanism"]["value"] in {"PLAINTEXT", "SHA-512"}, "Dapr takes an unknown word as PLAIN."


def test_event_hubs_is_spoken_to_as_it_wants() -> None:
    items = metadata(rendered("azure", "Component")["events"])

    assert items["saslUsername"]["value"] == "$ConnectionString"
    assert items["version"]["value"] == "1.0.0"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_everything_is_scoped_to_apps_that_exist(cloud: str) -> None:
    for kind in ("Component", "Subscription", "Resiliency"):
        for name, document in rendered(cloud, kind).items():
            assert document.get("scopes"), f"{kind} {name} is for everybody: name the apps that use it."
            strangers = set(document["scopes"]) - dapr_apps().keys()
            assert not strangers, f"{kind} {name}: {sorted(strangers)} is no app of dapr.yaml."
    assert set(rendered(cloud, "Component")["secrets"]["scopes"]) == dapr_apps().keys()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_no_component_carries_a_secret_in_its_text(cloud: str) -> None:
    for name, component in rendered(cloud, "Component").items():
        for key, item in metadata(component).items():
            if re.search(r"password|secret|key$|connectionString|caCert", key, re.IGNORECASE):
                assert item.keys() <= {"secretKeyRef", "envRef"}, f"{name}: {key} must come from a Secret."


@pytest.mark.parametrize("cloud", CLOUDS)
def test_every_secret_that_is_referred_to_comes_from_somewhere(cloud: str) -> None:
    stored = rendered(cloud, "ExternalSecret").keys()
    by_hand = set(yaml.safe_load((ROOT / "charts/derived/dapr.yaml").read_text())["dapr"]["secrets"])
    there = stored | (by_hand if cloud == "local" else set())

    for name, component in rendered(cloud, "Component").items():
        for item in metadata(component).values():
            if "secretKeyRef" in item:
                reference = item["secretKeyRef"]
                assert reference["name"] in there, f"{name} on {cloud}: nobody makes {reference['name']}."
                assert reference["key"] == reference["name"], "A Secret's one key has its own name."
                assert component["auth"]["secretStore"] == "secrets"
    for app, configuration in rendered(cloud, "Configuration").items():
        (allowed,) = (each for each in configuration["spec"]["secrets"]["scopes"] if each["storeName"] == "secrets")
        missing = set(allowed["allowedSecrets"]) - there
        assert not missing, f"{app} on {cloud}: nobody makes {sorted(missing)}."


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_every_external_secret_is_an_entry_that_terraform_makes(cloud: str) -> None:
    declared_names = yaml.safe_load((ROOT / "terraform/secrets.yaml").read_text())
    own = {key: set(declared_names[key].get(cloud, [])) for key in ("not_on", "also_on")}
    entries = set(declared_names["names"]) - own["not_on"] | own["also_on"]

    for name, secret in rendered(cloud, "ExternalSecret").items():
        spec = secret["spec"]
        (data,) = spec["data"]
        entry = data["remoteRef"]["key"].removeprefix("isa-prod-")
        assert entry in entries, f"terraform/secrets.yaml makes no {entry} on {cloud}, which {name} asks for."
        assert spec["target"]["deletionPolicy"] == "Retain"
        assert spec["secretStoreRef"] == {"kind": "SecretStore", "name": "cloud"}
        if "template" not in spec["target"]:
            assert (data["secretKey"], spec["target"]["name"]) == (name, name)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_owners_of_databases_can_log_in_to_migrate(cloud: str) -> None:
    wanted = {f"postgres-{path.parent.name}-owner" for path in (ROOT / "services").glob("*/migrations")}
    by_hand = yaml.safe_load((ROOT / "charts/derived/dapr.yaml").read_text())["dapr"]["secrets"]

    found = by_hand if cloud == "local" else rendered(cloud, "ExternalSecret")

    assert wanted <= set(found)


@pytest.mark.parametrize(("cloud", "mode"), [("aws", "require"), ("gcp", "require"), ("azure", "verify-full")])
def test_the_connection_of_preferences_is_the_local_one_with_tls(cloud: str, mode: str) -> None:
    from runtime.layout import layout_from_environment
    from runtime.secrets import preferences_connection

    secret = rendered(cloud, "ExternalSecret")["preferences-connection-string"]

    text = secret["spec"]["target"]["template"]["data"]["preferences-connection-string"]
    here = dict(part.split("=", 1) for part in preferences_connection(layout_from_environment(), "p").split())
    there = dict(part.split("=", 1) for part in re.sub(r"\{\{.*?\}\}", "p", text).replace("'", "").split())
    assert here.keys() == there.keys()
    assert {key for key in here if here[key] != there[key]} == {"host", "port", "sslmode"}
    assert there["sslmode"] == mode


@pytest.mark.parametrize("password", ["plain", "it's", "back\\slash", "two words", "'", "\\'", "a=b"])
def test_any_password_survives_in_the_connection_of_preferences(password: str, tmp_path: Path) -> None:
    """By Helm, whose templates have the functions that external-secrets' have; read as libpq reads it."""
    secret = rendered("gcp", "ExternalSecret")["preferences-connection-string"]
    text = secret["spec"]["target"]["template"]["data"]["preferences-connection-string"]
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("{apiVersion: v2, name: connection, version: 0.1.0}")
    line = text.replace("{{ .password", "{{ .Values.password")
    (tmp_path / "templates/connection.yaml").write_text(f"text: |\n  {line}\n")

    made = run(
        tool("helm"), "template", "connection", tmp_path, "--values", "-", given=yaml.safe_dump({"password": password})
    )

    assert conninfo_to_dict(yaml.safe_load(made)["text"].strip())["password"] == password


@pytest.mark.parametrize("cloud", CLOUDS)
def test_configurations_say_what_the_local_ones_say(cloud: str) -> None:
    found, local = rendered(cloud, "Configuration"), declared("Configuration", "components/local/config")

    assert found.keys() == local.keys() == dapr_apps().keys()
    for app, configuration in found.items():
        spec, wanted = dict(configuration["spec"]), dict(local[app]["spec"])
        assert "nameResolution" not in spec, "A cluster resolves names by Kubernetes, which is Dapr's default."
        assert spec.pop("tracing")["samplingRate"] == "0.1"
        store, built_in = spec.pop("secrets")["scopes"]
        assert [store] == wanted["secrets"]["scopes"], f"{app}: its secrets are those of components/local/config."
        assert built_in == {"storeName": "kubernetes", "defaultAccess": "deny"}
        spec.pop("accessControl")
        for other in ("nameResolution", "tracing", "secrets"):
            wanted.pop(other)
        assert spec == wanted


@pytest.mark.ac("phase-v:SEC1:2")
@pytest.mark.parametrize("app", dapr_apps())
def test_who_may_invoke_an_app_is_who_may_in_compose(app: str) -> None:
    wanted = declared("Configuration", "compose/access")[f"{app}-access"]["spec"]["accessControl"]
    found = rendered("aws", "Configuration")[app]["spec"]["accessControl"]

    assert found["defaultAction"] == "deny"
    there = [{**policy, "namespace": "isa-cloud"} for policy in wanted.get("policies", [])]
    assert {**wanted, **({"policies": there} if there else {})} == found, f"compose/access/{app}.yaml differs."


def test_retries_and_subscriptions_are_those_of_the_local_set() -> None:
    for kind in ("Resiliency", "Subscription"):
        found, local = rendered("aws", kind), declared(kind)
        assert found.keys() == local.keys()
        for name, document in found.items():
            assert document["spec"] == local[name]["spec"], f"{kind} {name} differs from components/local."
            assert document["apiVersion"] == local[name]["apiVersion"]
            assert document["scopes"] == local[name].get("scopes", document["scopes"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_topics_are_made_by_the_job_only_where_nobody_else_declares_them(cloud: str) -> None:
    (job,) = rendered(cloud, "Job").values()
    pod = job["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    environment = {item["name"] for item in container["env"]}

    assert ("--schemas-only" in container["command"]) == (cloud != "aws")
    assert ("KAFKA_BROKERS" in environment) == (cloud == "aws")
    assert "dapr.io/enabled" not in pod["metadata"].get("annotations", {})
    assert "/users:" in container["image"]


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_namespace_denies_what_nobody_allows(cloud: str) -> None:
    (namespace,) = rendered(cloud, "Namespace").values()
    policy = rendered(cloud, "NetworkPolicy")["default-deny"]["spec"]

    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    assert "Prune=confirm" in namespace["metadata"]["annotations"]["argocd.argoproj.io/sync-options"]
    assert policy == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
