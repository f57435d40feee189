"""What ArgoCD is told: read by its own programs, and held against the charts, the projects and Terraform's contract."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from argocd.bootstrap.cluster_secret import Refused, cluster_secret
from argocd.bootstrap.cluster_secret import contract as annotated
from runtime.engines import load_engines
from runtime.layout import CHECKOUT
from runtime.processes import load_apps
from tests.deploy.rendering import CHARTS, CLOUDS, ENVIRONMENTS, GATEWAYS, Release, declared, manifests
from tests.deploy.schemas import conform
from tests.deploy.tools import documents, run, tool

GITOPS = CHECKOUT / "argocd"
CONFIG = GITOPS / "config"
OVERLAYS = ("dev", "staging", "prod", "local")
IN_CLUSTER = "https://kubernetes.default.svc"
CLUSTER_SCOPED = {
    "APIService", "ClusterIssuer", "ClusterRole", "ClusterRoleBinding", "ClusterSecretStore", "GatewayClass",
    "CustomResourceDefinition", "Namespace", "PersistentVolume", "PriorityClass", "StorageClass",
}  # fmt: skip
EXAMPLE = CHECKOUT / "tests" / "deploy" / "outputs.yaml"

Document = dict[str, Any]


# --- What there is ----------------------------------------------------------------------------------------------------


@cache
def overlay(name: str) -> list[Document]:
    """The objects of an overlay, as kustomize builds them."""
    text = run(tool("kustomize"), "build", GITOPS / "overlays" / name)
    return documents(text)


def of_kind(kind: str, overlay_name: str) -> dict[str, Document]:
    """The objects of a kind, by name."""
    return {each["metadata"]["name"]: each for each in overlay(overlay_name) if each["kind"] == kind}


def outputs(cloud: str, environment: str) -> Document:
    """What `terraform output -json` prints for an environment."""
    samples = yaml.safe_load(EXAMPLE.read_text())[cloud]
    own = {"cloud": cloud, "environment": environment, "secret_prefix": f"isa-{environment}-"}
    unannotated = {name: "x" for name, is_annotated in annotated().items() if not is_annotated}
    return {name: {"value": value, "sensitive": False} for name, value in {**unannotated, **samples, **own}.items()}


def secret_of(cloud: str, environment: str, gateway: str = "nginx") -> Document:
    """The Secret of a cluster."""
    if cloud == "local":
        secret: Document = yaml.safe_load((GITOPS / "bootstrap" / "local-cluster.yaml").read_text())
        secret["metadata"]["labels"]["gateway"] = gateway
        return secret
    return cluster_secret(outputs(cloud, environment), gateway)


@cache
def applications(overlay_name: str, cloud: str, gateway: str = "nginx") -> list[Document]:
    """What the ApplicationSets of an overlay make of one cluster, by the code of ArgoCD's controller."""
    environment = "dev" if overlay_name == "local" else overlay_name
    sets = [*of_kind("ApplicationSet", overlay_name).values(), *of_kind("AppProject", overlay_name).values()]
    given = yaml.safe_dump_all([*sets, secret_of(cloud, environment, gateway)])
    made = run(tool("appsets"), CHECKOUT, given=given)
    return documents(made)


def clusters() -> Iterator[tuple[str, str, str]]:
    """Overlay, cloud and gateway of every kind of cluster."""
    for environment in ENVIRONMENTS:
        for cloud in ("aws", "gcp", "azure"):
            yield environment, cloud, "nginx"
    for gateway in GATEWAYS:
        yield "prod", "aws", gateway
        yield "local", "local", gateway


CLUSTERS = sorted(set(clusters()))


def made_by(application: Document) -> str:
    """The ApplicationSet that an Application comes from."""
    name: str = application["metadata"]["annotations"]["isa-cloud.io/made-by"]
    return name


def every_application() -> Iterator[tuple[str, Document]]:
    """Every Application of every kind of cluster, with words for where."""
    for overlay_name, cloud, gateway in CLUSTERS:
        for application in applications(overlay_name, cloud, gateway):
            yield f"{overlay_name}/{cloud}/{gateway} {application['metadata']['name']}", application


# --- Overlays and settings --------------------------------------------------------------------------------------------


@pytest.mark.ac("phase-v:C2.1")
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_overlay_builds_and_is_valid(name: str) -> None:
    documents = overlay(name)

    verdicts = conform(yaml.safe_dump_all(documents))
    wrong = [f"{each['kind']} {each['name']}: {each['msg']}" for each in verdicts if each["status"] != "statusValid"]
    assert not wrong, "\n".join(wrong)
    assert {each["metadata"]["namespace"] for each in documents} == {"argocd"}
    text = yaml.safe_dump_all(documents)
    assert "placed" not in text, "argocd/placing does not reach every place of the repository or environment."


@pytest.mark.parametrize("name", OVERLAYS)
def test_one_file_says_which_repository_is_followed(name: str) -> None:
    folder = GITOPS / ("overlays/local" if name == "local" else "repository")
    repository = yaml.safe_load((folder / "repository.yaml").read_text())["data"]

    root = of_kind("Application", name)["root"]["spec"]["source"]
    assert (root["repoURL"], root["targetRevision"]) == (repository["url"], repository["revision"])
    assert root["path"] == f"argocd/overlays/{name}"
    for project in of_kind("AppProject", name).values():
        if project["metadata"]["name"] != "default":
            assert repository["url"] in project["spec"]["sourceRepos"], project["metadata"]["name"]
    for path in GITOPS.rglob("*.yaml"):
        if path.name != "repository.yaml":
            assert repository["url"] not in path.read_text(), f"{path} repeats the repository's address."


@pytest.mark.parametrize("name", OVERLAYS)
def test_argocd_accepts_its_settings(name: str, tmp_path: Path) -> None:
    settings = tmp_path / "argocd-cm.yaml"
    settings.write_text(yaml.safe_dump(of_kind("ConfigMap", name)["argocd-cm"]))
    (secret := tmp_path / "argocd-secret.yaml").write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": "argocd-secret", "namespace": "argocd"},
                "data": {"oidc.clientSecret": "c2VjcmV0", "server.secretkey": "c2VjcmV0"},
            }
        )
    )

    said = argocd("admin", "settings", "validate", "--argocd-cm-path", settings, "--argocd-secret-path", secret)

    assert "❌" not in said and said.count("✅") >= 3, said


def test_bootstrap_installs_the_version_that_is_tested() -> None:
    (release,) = yaml.safe_load((GITOPS / "bootstrap/release/kustomization.yaml").read_text())["resources"]

    version = load_engines()["argocd"].version
    assert f"/v{version}/" in release, f"argocd/bootstrap/release installs {release}, and the tests run {version}."


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_a_person_applies_first_is_enough_for_the_root(name: str) -> None:
    first = [
        each for each in overlay(name) if each["metadata"].get("labels", {}).get("isa-cloud.io/bootstrap") == "true"
    ]

    named = {(each["kind"], each["metadata"]["name"]) for each in first}
    maps = {("ConfigMap", path.stem) for path in CONFIG.glob("argocd-*.yaml")}
    assert named == {("Application", "root"), ("AppProject", "gitops"), *maps}


def argocd(*arguments: str | Path) -> str:
    """Run ArgoCD's command line; it wants a cluster's address for what asks none."""
    nowhere = {
        "clusters": [{"name": "nowhere", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "nowhere", "context": {"cluster": "nowhere", "user": "nobody"}}],
        "users": [{"name": "nobody", "user": {}}],
        "current-context": "nowhere",
    }
    program = tool("argocd")
    address = program.parent / "nowhere.yaml"
    if not address.exists():
        address.write_text(yaml.safe_dump(nowhere))
    return run(program, *arguments, env={"ARGOCD_BINARY_NAME": "argocd", "KUBECONFIG": str(address)})


# --- Who may ----------------------------------------------------------------------------------------------------------


PEOPLE = {"d": "isa-cloud:developers", "o": "isa-cloud:operators", "v": "a-visitor"}
RIGHTS = [
    # action, resource, object, who may everywhere
    ("get", "applications", "apps/tasks", "dov"),
    ("get", "logs", "apps/tasks", "do"),
    ("get", "logs", "data/data", "o"),
    ("sync", "applications", "apps/tasks", "o"),
    ("sync", "applications", "data/data", "o"),
    ("sync", "applications", "platform/dapr", "o"),
    ("sync", "applications", "gitops/root", "o"),
    ("action/apps/Deployment/restart", "applications", "apps/tasks", "o"),
    ("action/argoproj.io/Rollout/abort", "applications", "apps/tasks", "o"),
    ("action/argoproj.io/Rollout/promote-full", "applications", "apps/tasks", "o"),
    ("update", "applications", "apps/tasks", "o"),
    ("update", "applications", "data/data", ""),
    ("delete", "applications", "apps/tasks", ""),
    ("delete", "applications", "data/data", ""),
    ("create", "applications", "apps/other", ""),
    ("override", "applications", "apps/tasks", ""),
    ("update", "projects", "apps", ""),
    ("delete", "applicationsets", "gitops/services", ""),
    ("update", "clusters", "in-cluster", ""),
    ("create", "repositories", "other", ""),
    ("create", "exec", "apps/tasks", ""),
]
IN_DEV = [
    ("sync", "applications", "apps/tasks", "do"),
    ("action/apps/Deployment/restart", "applications", "apps/tasks", "do"),
    ("action/argoproj.io/Rollout/abort", "applications", "apps/tasks", "do"),
    ("sync", "applications", "data/data", "o"),
    ("delete", "applications", "apps/tasks", ""),
]


@pytest.mark.ac("phase-v:C2.2")
@pytest.mark.parametrize(("name", "rights"), [("prod", RIGHTS), ("dev", IN_DEV)])
def test_roles_may_what_they_are_for_and_nothing_else(
    name: str, rights: list[tuple[str, str, str, str]], tmp_path: Path
) -> None:
    policy = tmp_path / "argocd-rbac-cm.yaml"
    policy.write_text(yaml.safe_dump(of_kind("ConfigMap", name)["argocd-rbac-cm"]))
    argocd("admin", "settings", "rbac", "validate", "--policy-file", policy)

    wrong = []
    for action, resource, thing, permitted in rights:
        for letter, person in PEOPLE.items():
            command = ["admin", "settings", "rbac", "can", person, action, resource, thing, "--policy-file", policy]
            may = answer_of(*command) == "Yes"
            if may != (letter in permitted):
                wrong.append(f"{person} {'may' if may else 'may not'} {action} {resource} {thing}")
    assert not wrong, "argocd/config/argocd-rbac-cm.yaml:\n" + "\n".join(wrong)
    admin = ["admin", "settings", "rbac", "can", "isa-cloud:admins", "delete", "applications", "apps/tasks"]
    assert answer_of(*admin, "--policy-file", policy) == "Yes"


def test_only_dev_adds_rights() -> None:
    settings = {name: of_kind("ConfigMap", name)["argocd-rbac-cm"]["data"] for name in OVERLAYS}

    assert settings["staging"] == settings["prod"] == settings["local"]
    assert settings["dev"].keys() - settings["prod"].keys() == {"policy.dev.csv"}


def answer_of(*arguments: str | Path) -> str:
    """What `argocd admin settings rbac can` answers; its No is an exit code."""
    argocd("version", "--client")  # writes the address that it wants
    program = tool("argocd")
    done = subprocess.run(
        [str(part) for part in (program, *arguments)],
        env={
            "ARGOCD_BINARY_NAME": "argocd",
            "KUBECONFIG": str(program.parent / "nowhere.yaml"),
            "HOME": "/nonexistent",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    answer = done.stdout.strip()
    assert answer in ("Yes", "No"), done.stdout + done.stderr
    return answer


# --- Health and differences -------------------------------------------------------------------------------------------


def application_set(
    *states: str, sync: str = "Synced", annotations: dict[str, str] | None = None, **status: Any
) -> Document:
    resources = [
        {"name": f"app{index}", "status": sync, "health": {"status": state}} for index, state in enumerate(states)
    ]
    return thing("argoproj.io/v1alpha1", "ApplicationSet", annotations, status={"resources": resources, **status})


def thing(version: str, kind: str, annotations: dict[str, str] | None = None, **rest: Any) -> Document:
    metadata = {"name": "it", "namespace": "argocd", "annotations": annotations or {}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **rest}


ERROR = {"type": "ErrorOccurred", "status": "True", "message": "no such annotation"}
DAPR = "dapr.io/v1alpha1"
PLACED = {"volume.kubernetes.io/selected-node": "a"}
STATES = [
    (thing("argoproj.io/v1alpha1", "Application", status={"health": {"status": "Healthy"}}), "Healthy", ""),
    (thing("argoproj.io/v1alpha1", "Application", status={"health": {"status": "Degraded"}}), "Degraded", ""),
    (thing("argoproj.io/v1alpha1", "Application", status={"health": {"status": "Missing"}}), "Missing", ""),
    (thing("argoproj.io/v1alpha1", "Application"), "Progressing", "Not looked at"),
    (application_set("Healthy", "Healthy"), "Healthy", "Every Application"),
    (application_set("Healthy", "Progressing"), "Progressing", "Waiting for app1"),
    (application_set("Healthy", sync="OutOfSync"), "Progressing", "Waiting for app0"),
    (application_set("Healthy", "Missing"), "Progressing", "Waiting for app1"),
    (application_set("Degraded", "Progressing", "Healthy"), "Degraded", "Degraded: app0"),
    (application_set("Healthy", conditions=[ERROR]), "Degraded", "no such annotation"),
    (application_set(), "Progressing", "No Application yet"),
    (application_set(annotations={"isa-cloud.io/may-be-empty": "true"}), "Healthy", "No Application"),
    (thing(DAPR, "Component", spec={"type": "pubsub.kafka"}, scopes=["tasks"]), "Healthy", "For tasks"),
    (thing(DAPR, "Component", spec={"type": "pubsub.kafka"}, scopes=[]), "Degraded", "every app"),
    (thing(DAPR, "Component", spec={"type": "pubsub.kafka"}), "Degraded", "every app"),
    (thing("v1", "PersistentVolumeClaim", status={"phase": "Bound"}), "Healthy", "Bound"),
    (thing("v1", "PersistentVolumeClaim", status={"phase": "Pending"}), "Healthy", "uses it first"),
    (thing("v1", "PersistentVolumeClaim", PLACED, status={"phase": "Pending"}), "Progressing", "being made"),
    (thing("v1", "PersistentVolumeClaim", status={"phase": "Lost"}), "Degraded", "gone"),
    (thing("dapr.io/v2alpha1", "Subscription", spec={"topic": "a"}, scopes=["audit"]), "Healthy", "For audit"),
    (thing("dapr.io/v2alpha1", "Subscription", spec={"topic": "a"}), "Degraded", "every app"),
    (thing(DAPR, "Configuration", spec={"accessControl": {"defaultAction": "deny"}}), "Healthy", ""),
    (thing(DAPR, "Configuration", spec={"accessControl": {"defaultAction": "allow"}}), "Degraded", "deny"),
    (thing(DAPR, "Resiliency", spec={"policies": {}}), "Healthy", ""),
    (
        thing("kafka.strimzi.io/v1", "KafkaNodePool", spec={"replicas": 3}, status={"nodeIds": [0, 1, 2]}),
        "Healthy",
        "3",
    ),
    (thing("kafka.strimzi.io/v1", "KafkaNodePool", spec={"replicas": 3}, status={"nodeIds": [0]}), "Progressing", ""),
    (thing("kafka.strimzi.io/v1", "KafkaNodePool", spec={"replicas": 3}), "Progressing", ""),
]


@pytest.mark.parametrize(("document", "status", "message"), STATES)
def test_health_is_told_from_what_an_object_says(document: Document, status: str, message: str, tmp_path: Path) -> None:
    (path := tmp_path / "it.yaml").write_text(yaml.safe_dump(document))

    said = argocd("admin", "settings", "resource-overrides", "health", path, *settings_of("prod", tmp_path))

    told = dict(line.split(": ", 1) for line in said.strip().splitlines() if ": " in line)
    assert told["STATUS"] == status, said
    assert message in told.get("MESSAGE", ""), said


def settings_of(name: str, folder: Path) -> list[str | Path]:
    """Arguments by which ArgoCD reads the settings of an overlay."""
    (path := folder / "argocd-cm.yaml").write_text(yaml.safe_dump(of_kind("ConfigMap", name)["argocd-cm"]))
    return ["--argocd-cm-path", path]


def test_every_kind_without_a_health_of_its_own_in_our_charts_is_told_one() -> None:
    settings = of_kind("ConfigMap", "prod")["argocd-cm"]["data"]

    for kind in ("Component", "Configuration", "Resiliency", "Subscription"):
        assert f"resource.customizations.health.dapr.io_{kind}" in settings, (
            f"argocd-cm says no health of Dapr's {kind}."
        )


@pytest.mark.parametrize("kind", ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"])
def test_an_authority_that_was_written_at_run_time_is_no_difference(kind: str, tmp_path: Path) -> None:
    hook = {"name": "a.b.c", "failurePolicy": "Fail", "clientConfig": {"caBundle": "Zm9v", "service": {"name": "s"}}}
    document = thing("admissionregistration.k8s.io/v1", kind, webhooks=[hook])
    (path := tmp_path / "it.yaml").write_text(yaml.safe_dump(document))

    said = argocd("admin", "settings", "resource-overrides", "ignore-differences", path, *settings_of("prod", tmp_path))

    assert "caBundle" in said and "failurePolicy" not in said.partition("Following fields are ignored")[2], said


# --- What is told to people -------------------------------------------------------------------------------------------


def state_of(*, phase: str = "Succeeded", sync: str = "Synced", health: str = "Healthy") -> Document:
    """An Application as the notifications controller sees it."""
    moment = "2026-11-02T10:00:00Z"
    operation = {
        "phase": phase,
        "startedAt": moment,
        "finishedAt": moment,
        "message": 'a "quoted" reason',
        "operation": {},
    }
    status = {
        "sync": {"status": sync, "revision": "0123abc"},
        "health": {"status": health, "lastTransitionTime": moment},
        "operationState": operation,
    }
    spec = {"project": "apps", "destination": {"server": IN_CLUSTER, "namespace": "isa-cloud"}}
    application = thing("argoproj.io/v1alpha1", "Application", spec=spec, status=status)
    application["metadata"]["name"] = "tasks-isa-prod"
    return application


MOMENTS = [
    ("on-sync-failed", state_of(phase="Failed"), True),
    ("on-sync-failed", state_of(phase="Error"), True),
    ("on-sync-failed", state_of(), False),
    ("on-sync-failed", state_of(phase="Running"), False),
    ("on-health-degraded", state_of(health="Degraded"), True),
    ("on-health-degraded", state_of(health="Progressing"), False),
    ("on-deployed", state_of(), True),
    ("on-deployed", state_of(health="Progressing"), False),
    ("on-deployed", state_of(sync="OutOfSync"), False),
    ("on-deployed", state_of(phase="Failed"), False),
]


def notifications(name: str, folder: Path, application: Document) -> tuple[list[str | Path], Path]:
    (path := folder / "application.yaml").write_text(yaml.safe_dump(application))
    (settings := folder / "settings.yaml").write_text(
        yaml.safe_dump(of_kind("ConfigMap", name)["argocd-notifications-cm"])
    )
    return ["--config-map", settings, "--secret", ":empty"], path


@pytest.mark.parametrize(("trigger", "application", "fires"), MOMENTS)
def test_people_hear_of_failures_breakage_and_deployments_only(
    trigger: str, application: Document, fires: bool, tmp_path: Path
) -> None:
    settings, path = notifications("prod", tmp_path, application)

    said = argocd("admin", "notifications", "trigger", "run", trigger, path, *settings)

    assert said.strip().splitlines()[-1].split()[-1] == str(fires).lower(), said


@pytest.mark.parametrize("name", ["prod", "local"])
@pytest.mark.parametrize("template", ["sync-failed", "health-degraded", "deployed"])
def test_a_notification_says_which_application_and_is_valid_json(template: str, name: str, tmp_path: Path) -> None:
    settings, path = notifications(name, tmp_path, state_of(phase="Failed", health="Degraded"))

    said = argocd(
        "admin", "notifications", "template", "notify", template, path, "--recipient", "console:stdout", *settings
    )

    told = next(each for each in yaml.safe_load_all(said[said.index("message:") :]) if each)
    link = yaml.safe_load(of_kind("ConfigMap", name)["argocd-notifications-cm"]["data"]["context"])["argocdUrl"]
    assert f"{link}/applications/tasks-isa-prod" in told["message"], told["message"]
    (attachment,) = yaml.safe_load(told["slack"]["attachments"])
    assert attachment["title"] == "tasks-isa-prod"
    assert yaml.safe_load(told["webhook"]["events"]["body"])["event"] == template


@pytest.mark.ac("phase-v:C2.2")
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_trigger_is_heard_by_somebody_once(name: str) -> None:
    settings = of_kind("ConfigMap", name)["argocd-notifications-cm"]["data"]
    triggers = {
        key.removeprefix("trigger."): yaml.safe_load(value)
        for key, value in settings.items()
        if key.startswith("trigger.")
    }

    (subscription,) = yaml.safe_load(settings["subscriptions"])
    assert set(subscription["triggers"]) == triggers.keys()
    for recipient in subscription["recipients"]:
        service = "service.webhook.events" if recipient == "events" else f"service.{recipient.partition(':')[0]}"
        assert service in settings, f"{name}: {recipient} has no {service}."
    for trigger, conditions in triggers.items():
        for condition in conditions:
            assert condition["oncePer"], f"{trigger} would repeat itself at every look."
            assert all(f"template.{each}" in settings for each in condition["send"]), trigger
    if name != "local":
        assert yaml.safe_load(settings["service.slack"]) == {"token": "$slack-token"}, "A token is no matter of git."
        url = of_kind("ConfigMap", name)["argocd-cm"]["data"]["url"]
        assert yaml.safe_load(settings["context"])["argocdUrl"] == url, (
            "argocd/access: links.yaml and oidc.yaml differ."
        )


# --- Applications -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("overlay_name", "cloud", "gateway"), CLUSTERS)
def test_every_service_is_an_application_of_each_cluster(overlay_name: str, cloud: str, gateway: str) -> None:
    made = applications(overlay_name, cloud, gateway)

    services = {each["metadata"]["labels"].get("isa-cloud.io/service") for each in made} - {None}
    assert services == {app.name for app in load_apps()}
    names = [each["metadata"]["name"] for each in made]
    assert len(set(names)) == len(names), "Two Applications share a name."
    empty = of_kind("ApplicationSet", overlay_name).keys() - {made_by(each) for each in made}
    assert not empty, f"{sorted(empty)} make no Application on {cloud}: the root would wait for them for ever."


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_cluster_gets_no_application_of_another_environment(environment: str) -> None:
    for other in ENVIRONMENTS:
        sets = [*of_kind("ApplicationSet", environment).values(), *of_kind("AppProject", environment).values()]
        made = run(tool("appsets"), CHECKOUT, given=yaml.safe_dump_all([*sets, secret_of("aws", other)]))
        assert bool(made.strip()) == (environment == other), f"{environment} deploys to a cluster of {other}."


@pytest.mark.ac("phase-v:C2.2")
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_application_set_has_its_safeties(name: str) -> None:
    for each in of_kind("ApplicationSet", name).values():
        where, spec = f"{name}: {each['metadata']['name']}", each["spec"]
        assert spec["goTemplate"] is True and spec["goTemplateOptions"] == ["missingkey=error"], where
        assert spec["syncPolicy"] == {"applicationsSync": "create-update", "preserveResourcesOnDeletion": True}, where
        assert "strategy" not in spec, f"{where}: RollingSync would switch self-heal off."
        assert spec["template"]["spec"]["syncPolicy"]["automated"]["allowEmpty"] is False, where
        assert each["metadata"]["annotations"]["argocd.argoproj.io/sync-options"] == "Prune=confirm", where


def test_every_application_heals_and_prunes_itself_within_bounds() -> None:
    wanted = {
        "ServerSideApply=true", "ApplyOutOfSyncOnly=true", "PruneLast=true", "FailOnSharedResource=true",
        "RespectIgnoreDifferences=true", "CreateNamespace=true",
    }  # fmt: skip
    for where, application in every_application():
        policy = application["spec"]["syncPolicy"]
        assert policy["automated"] == {"prune": True, "selfHeal": True}, where  # allowEmpty is false by its absence
        assert set(policy["syncOptions"]) == wanted, where
        assert 0 < policy["retry"]["limit"] <= 10 and policy["retry"]["backoff"]["maxDuration"], where
        assert "finalizers" not in application["metadata"], f"{where}: deleting it would delete what runs."
        assert application["spec"]["destination"]["server"] == IN_CLUSTER, where
        replicas = [each for each in application["spec"].get("ignoreDifferences", []) if each["kind"] == "Deployment"]
        if "isa-cloud.io/service" in application["metadata"]["labels"]:
            assert replicas == [{"group": "apps", "kind": "Deployment", "jsonPointers": ["/spec/replicas"]}], where


def test_every_values_file_that_is_named_exists_and_later_ones_win() -> None:
    for where, application in every_application():
        source = application["spec"]["source"]
        if "chart" in source or source["repoURL"].endswith("gateway-api"):
            continue
        folder = CHECKOUT / source["path"]
        if not (folder / "Chart.yaml").exists():
            assert (folder / "kustomization.yaml").exists(), (
                f"{where}: {source['path']} is neither chart nor kustomization."
            )
            continue
        files = source["helm"]["valueFiles"]
        missing = [file for file in files if not (folder / file).exists()]
        assert not missing, f"{where}: there is no {missing} beside {source['path']}."
        layers = ["derived", "values", "clouds", "gateways", "envs"]
        order = [layers.index(file.split("/")[1]) for file in files]
        assert order == sorted(order), f"{where}: {files} is not derived, values, clouds, gateways, envs."


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_charts_read_what_terraform_handed_over(cloud: str) -> None:
    names = [name for name, is_annotated in annotated().items() if is_annotated]
    camel = {re.sub(r"_(\w)", lambda found: found[1].upper(), name): name for name in names}
    given = outputs(cloud, "prod")

    for application in applications("prod", cloud):
        source = application["spec"]["source"]
        if "path" in source and "helm" in source:
            told = source["helm"]["valuesObject"]["global"]["platform"]
            assert told == {key: given[name]["value"] for key, name in camel.items()}, application["metadata"]["name"]


def test_every_output_that_a_component_wants_is_in_the_contract() -> None:
    for path in sorted((GITOPS / "platform").glob("*.yaml")):
        for cloud, differences in yaml.safe_load(path.read_text())["clouds"].items():
            for parameter, output in differences.get("outputs", {}).items():
                name = output.replace("-", "_")
                assert annotated().get(name), f"{path.name}, {cloud}, {parameter}: {name} is no annotation."


def test_a_component_says_so_when_an_annotation_is_missing() -> None:
    sets = [*of_kind("ApplicationSet", "prod").values(), *of_kind("AppProject", "prod").values()]
    secret = secret_of("aws", "prod")
    del secret["metadata"]["annotations"]["isa-cloud.io/storage-class"]

    with pytest.raises(AssertionError, match=r"dapr needs the annotation isa-cloud\.io/storage-class"):
        run(tool("appsets"), CHECKOUT, given=yaml.safe_dump_all([*sets, secret]))


def test_identities_of_terraform_are_those_of_the_accounts_that_pods_use() -> None:
    accounts = {
        name: f"{yaml.safe_load((GITOPS / 'platform' / f'{name}.yaml').read_text())['namespace']}[:/]{name}"
        for name in ("cert-manager", "external-dns", "external-secrets")
    }
    for cloud in ("aws", "gcp", "azure"):
        text = (CHECKOUT / "terraform/modules" / cloud / "identity/main.tf").read_text()
        for account in accounts.values():
            assert re.search(rf'"{account}"', text), f"terraform/modules/{cloud}/identity gives {account} no identity."


@pytest.mark.parametrize("path", sorted((GITOPS / "platform").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_component_is_pinned(path: Path) -> None:
    component = yaml.safe_load(path.read_text())

    assert component["component"] == path.stem
    source = component["source"]
    if "repoURL" in source:
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", source["targetRevision"]), f"{path.name}: pin one version."
    assert component["clouds"].keys() <= set(CLOUDS)
    assert component.get("gateway", "nginx") in GATEWAYS


# --- Projects ---------------------------------------------------------------------------------------------------------


@pytest.mark.ac("phase-v:C2.2", "phase-v:SEC2:1")
@pytest.mark.parametrize("name", OVERLAYS)
def test_no_project_permits_everything_of_anything(name: str) -> None:
    projects = of_kind("AppProject", name)
    assert projects.keys() == {"apps", "data", "default", "gitops", "platform"}

    for project in projects.values():
        where = f"{name}: project {project['metadata']['name']}"
        bounds = {
            key: value for key, value in project["spec"].items() if key != "syncWindows"
        }  # their times have stars
        assert "*" not in yaml.safe_dump(bounds), f"{where} has a star in it."
    assert not projects["default"]["spec"]["sourceRepos"] and not projects["default"]["spec"]["destinations"]
    for each in ("apps", "data"):
        assert projects[each]["spec"]["orphanedResources"]["warn"] is True, f"{name}: {each} says nothing of strays."
    for each in ("apps", "data", "gitops"):
        kinds = {entry["kind"] for entry in projects[each]["spec"]["namespaceResourceWhitelist"]}
        assert "Secret" not in kinds, f"{name}: {each} would deploy a Secret that somebody put into git."


def test_every_application_may_come_from_where_it_comes_and_go_where_it_goes() -> None:
    for overlay_name, cloud, gateway in CLUSTERS:
        projects = of_kind("AppProject", overlay_name)
        for application in applications(overlay_name, cloud, gateway):
            name, spec = application["metadata"]["name"], application["spec"]
            assert spec["project"] in projects, f"{name}: there is no project {spec['project']}."
            project = projects[spec["project"]]["spec"]
            assert spec["source"]["repoURL"] in project["sourceRepos"], (
                f"{name}: {spec['project']} has not this source."
            )
            destination = {key: spec["destination"][key] for key in ("server", "namespace")}
            assert destination in project["destinations"], f"{name}: {spec['project']} may not go to {destination}."


def test_every_source_and_destination_of_the_platform_is_used() -> None:
    used = [each["spec"] for _, each in every_application() if each["spec"]["project"] == "platform"]
    project = of_kind("AppProject", "prod")["platform"]["spec"]

    sources = set(project["sourceRepos"][1:]) - {each["source"]["repoURL"] for each in used}
    places = {each["namespace"] for each in project["destinations"]} - {
        each["destination"]["namespace"] for each in used
    }
    assert not sources and not places, f"argocd/projects/platform.yaml permits what nothing needs: {sources | places}."


@cache
def rendered() -> dict[str, dict[tuple[str, str], set[str]]]:
    """Project -> (group, kind) that our charts render -> releases that do, on every cloud and with every gateway."""
    found: dict[str, dict[tuple[str, str], set[str]]] = {"apps": {}, "data": {}}
    edges = [app.name for app in load_apps() if edge_of(app.name)]
    releases = [
        Release(chart="service", name=app.name, environment="prod", cloud=cloud)
        for app in load_apps()
        for cloud in CLOUDS
    ]
    releases += [
        Release(chart="service", name=name, environment="prod", cloud="aws", gateway=gateway)
        for name in edges
        for gateway in GATEWAYS
    ]
    for chart, declaration in declared().items():
        releases += [
            Release(chart=chart, name=chart, environment="prod", cloud=cloud, gateway=gateway)
            for cloud in declaration["clouds"]
            for gateway in (GATEWAYS if "gateways/<gateway>.yaml" in declaration["valueFiles"] else ["nginx"])
        ]
    for release in releases:
        project = "apps" if release.chart == "service" else declared()[release.chart]["appProject"]
        for document in manifests(release):
            group = document["apiVersion"].rpartition("/")[0]
            found[project].setdefault((group, document["kind"]), set()).add(str(release))
    for path in (GITOPS / "rollouts").glob("*.yaml"):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] != "Kustomization":
                found["apps"].setdefault(("argoproj.io", document["kind"]), set()).add("analysis")
    return found


def edge_of(service: str) -> Document:
    """What a service shows to the world."""
    values: Document = yaml.safe_load((CHARTS / "values" / f"{service}.yaml").read_text()) or {}
    return dict(values.get("edge") or {})


@pytest.mark.parametrize("name", ["apps", "data"])
def test_a_project_permits_each_kind_that_its_charts_render(name: str) -> None:
    project = of_kind("AppProject", "prod")[name]["spec"]
    lists = {True: "clusterResourceWhitelist", False: "namespaceResourceWhitelist"}

    for (group, kind), releases in rendered()[name].items():
        place = lists[kind in CLUSTER_SCOPED]
        assert {"group": group, "kind": kind} in project[place], (
            f"argocd/projects/{name}.yaml: add {{group: {group!r}, kind: {kind}}} to {place} for {sorted(releases)[0]}."
        )


@pytest.mark.parametrize("name", ["apps", "data"])
def test_a_project_permits_no_kind_that_nothing_renders(name: str) -> None:
    project = of_kind("AppProject", "prod")[name]["spec"]
    permitted = {
        (each["group"], each["kind"])
        for place in ("clusterResourceWhitelist", "namespaceResourceWhitelist")
        for each in project[place]
    }

    unused = permitted - rendered()[name].keys() - OPTIONAL
    assert not unused, f"argocd/projects/{name}.yaml permits {sorted(unused)}, which no chart renders."


OPTIONAL = {
    ("", "Namespace"),  # CreateNamespace makes it
    ("argoproj.io", "Rollout"),  # a canary is switched on by a service's values
    ("autoscaling.k8s.io", "VerticalPodAutoscaler"),
    ("configuration.konghq.com", "KongPlugin"),
    ("gateway.nginx.org", "AuthenticationFilter"),  # of gateways whose licence somebody has
    ("traefik.io", "Middleware"),
}


def test_a_namespace_is_held_to_one_level_of_pod_security() -> None:
    for overlay_name, cloud, gateway in CLUSTERS:
        levels: dict[str, set[str]] = {}
        for application in applications(overlay_name, cloud, gateway):
            managed = application["spec"]["syncPolicy"].get("managedNamespaceMetadata", {}).get("labels", {})
            if level := managed.get("pod-security.kubernetes.io/enforce"):
                levels.setdefault(application["spec"]["destination"]["namespace"], set()).add(level)
        torn = {namespace: sorted(found) for namespace, found in levels.items() if len(found) > 1}
        assert not torn, f"Applications would relabel a namespace in turns: {torn}."
        for namespace in ("isa-cloud", "isa-data", "dapr-system"):
            assert levels[namespace] == {"restricted"}


# --- Order and time ---------------------------------------------------------------------------------------------------


WAVES = {
    "platform-crds": -40, "platform-operators": -30, "platform-dapr": -25,
    "releases-data": -10, "releases-dapr": 0, "services": 10, "releases-edge": 20,
}  # fmt: skip


def wave_of(document: Document) -> int:
    """When the root applies it."""
    return int(document["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "0"))


@pytest.mark.parametrize("name", OVERLAYS)
def test_waves_are_in_order_and_settings_come_before_all(name: str) -> None:
    sets = of_kind("ApplicationSet", name)

    assert {each: wave_of(document) for each, document in sets.items()} == WAVES
    before = [wave_of(each) for kind in ("ConfigMap", "AppProject") for each in of_kind(kind, name).values()]
    assert max(before) < min(WAVES.values()), "A project or a setting would come after who needs it."
    parameters = of_kind("ConfigMap", name)["argocd-cmd-params-cm"]["data"]
    assert parameters["applicationsetcontroller.enable.progressive.syncs"] == "true", (
        "Without it an ApplicationSet does not notice that its Applications became healthy, and waves wait."
    )


@pytest.mark.parametrize("folder", ["platform", "releases"])
def test_every_file_names_a_wave_that_a_set_reads(folder: str) -> None:
    read = {str(wave) for name, wave in WAVES.items() if name.startswith(folder)}

    for path in sorted((GITOPS / folder).glob("*.yaml")):
        wave = yaml.safe_load(path.read_text())["wave"]
        assert wave in read, f"{folder}/{path.name}: no ApplicationSet reads wave {wave!r}; there are {sorted(read)}."


@pytest.mark.ac("phase-v:C2.2")
def test_production_alone_syncs_by_itself_in_working_hours_only() -> None:
    for name in OVERLAYS:
        for project, document in of_kind("AppProject", name).items():
            windows = document["spec"].get("syncWindows", [])
            if name != "prod" or project in ("default", "gitops"):
                assert not windows, f"{name}: {project} has sync windows."
                continue
            assert {each["kind"] for each in windows} == {"allow"}
            assert all(each["manualSync"] for each in windows), "At night a person may still roll back."
            assert all(each["clusters"] == [IN_CLUSTER] for each in windows)
            days = [
                day
                for each in windows
                for day in range(int(each["schedule"].split()[4][0]), int(each["schedule"][-1]) + 1)
            ]
            assert sorted(days) == [1, 2, 3, 4, 5], f"{project}: windows for the days {days}."
            hours = [(int(each["schedule"].split()[1]), int(each["duration"].removesuffix("h"))) for each in windows]
            assert all(start >= 8 and start + length <= 18 for start, length in hours)


def test_what_keeps_data_goes_only_by_a_persons_word() -> None:
    for chart in ("data", "messaging"):
        for release in [Release(chart=chart, name=chart, environment="prod", cloud="local")]:
            for document in manifests(release):
                if document["kind"] in ("StatefulSet", "Kafka", "KafkaNodePool", "KafkaTopic", "PersistentVolumeClaim"):
                    options = document["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-options", "")
                    name = f"{document['kind']} {document['metadata']['name']}"
                    assert "Prune=confirm" in options or "Prune=false" in options, (
                        f"charts/{chart}: {name} may be pruned."
                    )
                    assert "Delete=confirm" in options or "Delete=false" in options, (
                        f"charts/{chart}: {name} may be deleted."
                    )


# --- Canaries ---------------------------------------------------------------------------------------------------------


def test_a_canary_is_judged_by_series_that_are_recorded() -> None:
    recorded = {
        rule["record"]
        for path in (CHECKOUT / "observability/rules").glob("*.yaml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    (template,) = yaml.safe_load_all((GITOPS / "rollouts/analysis.yaml").read_text())

    for metric in template["spec"]["metrics"]:
        series = metric["provider"]["prometheus"]["query"].partition("{")[0]
        assert series in recorded, f"argocd/rollouts: {series} is recorded by no rule."
    rollout = (CHARTS / "service/templates/rollout.yaml").read_text()
    assert f"templateName: {template['metadata']['name']}" in rollout
    assert [each["name"] for each in template["spec"]["args"]] == re.findall(r"args: \[\{name: (\w+),", rollout)


# --- The hand-over from Terraform -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
def test_terraforms_outputs_become_the_secret_of_the_cluster(cloud: str) -> None:
    secret = cluster_secret(outputs(cloud, "staging"), "traefik")

    labels = secret["metadata"]["labels"]
    assert labels == {
        "argocd.argoproj.io/secret-type": "cluster", "environment": "staging", "cloud": cloud, "gateway": "traefik",
    }  # fmt: skip
    wanted = {f"isa-cloud.io/{name.replace('_', '-')}" for name, is_annotated in annotated().items() if is_annotated}
    assert secret["metadata"]["annotations"].keys() == wanted
    assert "isa-cloud.io/cluster-ca" not in wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"domain": None}, "domain is missing"),
        ({"extra": {"value": "x"}}, "extra is not in terraform/contract.yaml"),
        ({"redis_port": {"value": 6379}}, "redis_port is not a string: 6379"),
        ({"environment": {"value": "qa"}}, "environment 'qa' is none of charts/envs: dev, prod, staging"),
        ({"cloud": {"value": "hetzner"}}, "cloud 'hetzner' is none of charts/clouds"),
    ],
)
def test_a_hand_over_that_is_not_the_contract_is_refused(change: Document, message: str) -> None:
    handed = {name: value for name, value in {**outputs("aws", "prod"), **change}.items() if value is not None}

    with pytest.raises(Refused, match=re.escape(message)):
        cluster_secret(handed, "nginx")


def test_a_gateway_that_is_not_there_is_refused() -> None:
    with pytest.raises(Refused, match="gateway 'ingress' is none of charts/gateways: apisix, kong, nginx, traefik"):
        cluster_secret(outputs("aws", "prod"), "ingress")
