"""What really runs: sidecars as the charts asked, images that need no rights, secrets that etcd cannot tell."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest

from tests.deploy.cluster import node, story
from tests.deploy.cluster.machine import ClusterError, logs, say

pytestmark = pytest.mark.usefixtures("deployed")


def pods(namespace: str = "isa-cloud") -> dict[str, Any]:
    """The running pods of services, by name."""
    found = node.kubectl().get("pods", namespace=namespace, selector="app.kubernetes.io/component=service")
    return {each["metadata"]["name"]: each for each in found if each["status"]["phase"] == "Running"}


def containers(pod: Any) -> dict[str, Any]:
    spec = pod["spec"]
    return {each["name"]: each for each in (*spec.get("initContainers", []), *spec["containers"])}


def test_the_injected_sidecar_is_what_the_chart_asked_for() -> None:
    assert len(pods()) >= 10
    for name, pod in pods().items():
        asked = {
            key.removeprefix("dapr.io/"): value
            for key, value in pod["metadata"]["annotations"].items()
            if key.startswith("dapr.io/")
        }
        sidecar = containers(pod).get("daprd")
        assert sidecar, f"{name} has no sidecar"
        resources = {"requests": {}, "limits": {}} | sidecar["resources"]
        assert resources["requests"] == {"cpu": asked["sidecar-cpu-request"], "memory": asked["sidecar-memory-request"]}
        assert resources["limits"] == {"cpu": asked["sidecar-cpu-limit"], "memory": asked["sidecar-memory-limit"]}
        arguments = sidecar["args"]
        value = dict(pairwise(arguments))
        assert value["--app-id"] == asked["app-id"] and value["--app-port"] == asked["app-port"]
        assert value["--config"] == asked["config"]
        assert "--enable-mtls" in arguments and "--enable-app-health-check" in arguments
        assert value["--dapr-block-shutdown-duration"] == asked["block-shutdown-duration"]
        tokens = {
            each["name"]: each["valueFrom"]["secretKeyRef"]["name"]
            for each in sidecar["env"]
            if each["name"] in ("DAPR_API_TOKEN", "APP_API_TOKEN")
        }
        assert tokens == {"DAPR_API_TOKEN": asked["api-token-secret"], "APP_API_TOKEN": asked["app-token-secret"]}


def test_sidecars_have_identities_from_sentry_and_listen_to_their_own_app_only() -> None:
    for name, pod in pods().items():
        sidecar = containers(pod)["daprd"]
        arguments = sidecar["args"]
        value = dict(pairwise(arguments))
        assert value["--dapr-listen-addresses"] == "127.0.0.1", name
        assert value["--sentry-address"].startswith("dapr-sentry.dapr-system"), name


def test_no_container_of_ours_has_rights_or_writes_to_its_root() -> None:
    for name, pod in pods().items():
        for container in containers(pod).values():
            security = {**pod["spec"].get("securityContext", {}), **container["securityContext"]}
            where = f"{name}/{container['name']}"
            assert security["runAsNonRoot"] is True, where
            assert security["readOnlyRootFilesystem"] is True, where
            assert security["allowPrivilegeEscalation"] is False, where
            assert security["capabilities"]["drop"] == ["ALL"], where
            assert security["seccompProfile"]["type"] == "RuntimeDefault", where


def test_rooms_run_as_65532_and_cannot_write_their_code() -> None:
    client = node.kubectl()
    name = next(name for name in pods() if name.startswith("tasks-"))
    execute = ("exec", name, "--namespace", "isa-cloud", "--container", "tasks", "--")

    assert client.run(*execute, "id", "-u").strip() == "65532"
    with pytest.raises(ClusterError, match="Read-only file system"):
        client.run(*execute, "touch", "/app/written")
    with pytest.raises(ClusterError, match="Read-only file system"):
        client.run(*execute, "touch", "/written")


def test_a_service_account_reads_its_own_secrets_and_no_other() -> None:
    client = node.kubectl()

    def may(account: str, secret: str) -> bool:
        said = client.run(
            "auth", "can-i", "get", f"secrets/{secret}", "--namespace", "isa-cloud",
            "--as", f"system:serviceaccount:isa-cloud:{account}", "--quiet",
        )  # fmt: skip
        return said == ""

    assert may("users", "users-master-key")
    with pytest.raises(ClusterError):
        may("tasks", "users-master-key")
    with pytest.raises(ClusterError):
        may("analytics", "postgres-analytics-owner")


def test_secrets_are_encrypted_before_etcd_has_them() -> None:
    stored = node.stored("/registry/secrets/isa-cloud/users-master-key")

    assert stored.startswith(b"k8s:enc:secretbox:v1:"), stored[:40]


def test_the_audit_log_says_who_changed_what_and_never_a_secret() -> None:
    entries = [json.loads(line) for line in (logs() / "audit.log").read_text().splitlines()[-20000:]]
    users = {entry["user"]["username"] for entry in entries}

    assert "system:serviceaccount:argocd:argocd-application-controller" in users
    about_secrets = [entry for entry in entries if entry.get("objectRef", {}).get("resource") == "secrets"]
    assert not any("requestObject" in entry or "responseObject" in entry for entry in about_secrets)


def test_the_story_holds_on_the_pods() -> None:
    told = story.inside("tests.deploy.cluster.story")

    assert "All of it held." in told
    say(told.strip().splitlines()[-1])
