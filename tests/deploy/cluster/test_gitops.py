"""What a real ArgoCD does with a real repository: deploy what is pushed, mend what is edited, ask before data goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.cluster import gitops, mirror, node
from tests.deploy.cluster.images import NEXT_RELEASE, RELEASE
from tests.deploy.cluster.machine import say, wait_until

pytestmark = pytest.mark.usefixtures("deployed")
TAGS = Path("charts/envs/dev/image-tags/tasks.yaml")


def image_of(service: str) -> str:
    deployment = node.kubectl().get("deployment", service, namespace="isa-cloud")
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"])


def tag(release: str) -> Callable[[Path], None]:
    def change(tree: Path) -> None:
        (tree / TAGS).write_text(yaml.safe_dump({"image": {"tag": release}}))

    return change


def until(what: str, is_true: Callable[[], Any], within: float = 180) -> float:
    return wait_until(what, is_true, within=within)


def test_every_application_is_synced_and_healthy() -> None:
    told = {name: gitops.told(application) for name, application in gitops.applications().items()}

    assert {name: state for name, state in told.items() if state != "Synced/Healthy"} == {}


def test_waves_came_in_their_order() -> None:
    def first(name: str) -> str:
        history = gitops.applications()[f"{name}-{gitops.CLUSTER}"]["status"]["history"]
        return str(history[0]["deployedAt"])

    order = [first(name) for name in ("gateway-api", "dapr", "data", "dapr-resources", "tasks")]
    assert order == sorted(order), f"first deployed at {order}"


def test_what_is_pushed_is_deployed_and_what_is_reverted_is_rolled_back() -> None:
    assert image_of("tasks").endswith(f":{RELEASE}")
    began = time.monotonic()
    revision = gitops.push(f"Release tasks {NEXT_RELEASE}", tag(NEXT_RELEASE))
    try:
        until("The push is not applied", lambda: image_of("tasks").endswith(f":{NEXT_RELEASE}"))
        node.kubectl().rolled_out("deployment", "tasks", namespace="isa-cloud")
        say(f"git push -> deployed: {time.monotonic() - began:.0f} s.")
        until("ArgoCD does not say so", lambda: gitops.told(gitops.applications()["tasks-local"]) == "Synced/Healthy")
        until("No notification", lambda: any(revision in str(each["said"]) for each in mirror.heard()), within=90)
    finally:
        began = time.monotonic()
        gitops.revert()
    until("The revert is not applied", lambda: image_of("tasks").endswith(f":{RELEASE}"))
    node.kubectl().rolled_out("deployment", "tasks", namespace="isa-cloud")
    say(f"git revert -> rolled back: {time.monotonic() - began:.0f} s.")


def test_what_is_edited_by_hand_comes_back() -> None:
    client = node.kubectl()

    def grace() -> int:
        deployment = client.get("deployment", "redis-grpc", namespace="isa-cloud")
        return int(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])

    before = grace()
    patch = '{"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 300}}}}'
    client.run("patch", "deployment", "redis-grpc", "--namespace", "isa-cloud", "--type", "merge", "--patch", patch)
    assert before != 300
    took = until("The edit stays", lambda: grace() == before)
    say(f"self-heal of an edited Deployment: {took:.0f} s.")

    client.run("delete", "deployment", "nats-grpc", "--namespace", "isa-cloud")
    took = until("The Deployment stays away", lambda: client.find("deployment", "nats-grpc", namespace="isa-cloud"))
    say(f"self-heal of a deleted Deployment: {took:.0f} s.")
    client.rolled_out("deployment", "nats-grpc", namespace="isa-cloud")


def test_where_data_lives_nothing_is_pruned_without_a_person() -> None:
    def without_redis(tree: Path) -> None:
        gitops.edit(tree / "charts" / "data" / "values.yaml", lambda values: values["redis"].update(enabled=False))

    client = node.kubectl()
    revision = gitops.push("Do without Redis", without_redis)

    def asks() -> bool:
        return "Waiting for pruning confirmation" in said()

    def said() -> str:
        operation = gitops.applications()["data-local"]["status"].get("operationState", {})
        is_this = operation.get("syncResult", {}).get("revision") == revision
        return str(operation.get("message", "")) if is_this else ""

    try:
        until("ArgoCD does not come to prune it", asks)
        say(f"Guarded prune: {said()}")
        assert "StatefulSet/redis" in said()
        assert client.get("statefulset", "redis", namespace="isa-data")["status"]["readyReplicas"] == 1
    finally:
        gitops.revert()
        end = '{"status": {"operationState": {"phase": "Terminating"}}}'  # as `argocd app terminate-op` does
        client.run("patch", "application", "data-local", "--namespace", "argocd", "--type", "merge", "--patch", end)
    until("data is not in order again", lambda: gitops.told(gitops.applications()["data-local"]) == "Synced/Healthy")


def test_a_broken_push_is_refused_and_said() -> None:
    def break_it(tree: Path) -> None:
        path = tree / "charts" / "envs" / "dev" / "nats-grpc.yaml"
        path.write_text("scaling: {class: unheard-of}\n")

    before = node.kubectl().get("deployment", "nats-grpc", namespace="isa-cloud")["metadata"]["generation"]
    gitops.push("Break a service's values", break_it)
    try:
        until(
            "ArgoCD does not complain",
            lambda: gitops.applications()["nats-grpc-local"]["status"]["sync"]["status"] == "Unknown",
            within=300,  # for three minutes ArgoCD takes it for a passing trouble of its repository server
        )
        after = node.kubectl().get("deployment", "nats-grpc", namespace="isa-cloud")
        assert after["metadata"]["generation"] == before, "what runs was touched"
    finally:
        gitops.revert()
    until(
        "nats-grpc is not in order", lambda: gitops.told(gitops.applications()["nats-grpc-local"]) == "Synced/Healthy"
    )
