"""Autoscaling on real pods: by processor, by Kafka's lag; and a thousand pods that only claim to run."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from tests.deploy.cluster import gitops, node, scaling, story
from tests.deploy.cluster.machine import say, wait_until

pytestmark = pytest.mark.usefixtures("deployed")
FAKE_PODS = 1000


def replicas(name: str) -> int:
    return int(node.kubectl().get("deployment", name, namespace="isa-cloud")["spec"].get("replicas", 1))


def test_the_autoscaler_reads_the_rooms_container_and_adds_replicas_under_load() -> None:
    found: dict[str, Any] = {}
    before = replicas("tasks")
    thread = threading.Thread(target=lambda: found.update(json.loads(story.inside("tests.deploy.cluster.load", "75"))))
    thread.start()
    took = wait_until("The autoscaler adds nothing", lambda: replicas("tasks") > before, within=120)
    scaler = node.kubectl().get("hpa", "tasks", namespace="isa-cloud")
    thread.join()

    metric = scaler["status"]["currentMetrics"][0]
    assert metric["type"] == "ContainerResource" and metric["containerResource"]["container"] == "tasks"
    say(f"HPA: tasks {before} -> {replicas('tasks')}, the first step after {took:.0f} s of load; {found}")
    assert found["failed"] == 0, found["failures"]
    assert gitops.told(gitops.applications()["tasks-local"]).startswith("Synced"), "self-heal fights the autoscaler"


def test_keda_scales_a_consumer_by_the_lag_of_its_group() -> None:
    client = node.kubectl()
    scaled = client.get("scaledobject", "analytics", namespace="isa-cloud")
    conditions = {each["type"]: each["status"] for each in scaled["status"]["conditions"]}
    assert conditions["Ready"] == "True", conditions
    story.inside("tests.deploy.cluster.lag", "task.created", "4")
    before = replicas("analytics")

    story.inside("tests.deploy.cluster.lag", "--flood", "task.created", "20000")
    took = wait_until("KEDA adds nothing", lambda: replicas("analytics") > before, within=120)

    say(f"KEDA: analytics {before} -> {replicas('analytics')} {took:.0f} s after the flood.")
    limit = scaled["spec"]["maxReplicaCount"]
    assert replicas("analytics") <= limit


def test_a_thousand_fake_pods_are_scheduled() -> None:
    client = node.kubectl()
    scaling.add_fake_nodes()
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "crowd", "namespace": "default"},
        "spec": {
            "replicas": FAKE_PODS,
            "selector": {"matchLabels": {"app": "crowd"}},
            "template": {
                "metadata": {"labels": {"app": "crowd"}},
                "spec": {
                    "nodeSelector": {"type": "kwok"},
                    "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                    "containers": [{"name": "crowd", "image": "fake"}],
                },
            },
        },
    }
    began = time.monotonic()
    client.apply([deployment])
    try:
        client.rolled_out("deployment", "crowd", namespace="default", within=300)
        say(f"{FAKE_PODS} fake pods are ready after {time.monotonic() - began:.0f} s.")
        started = client.get("deployment", "tasks", namespace="isa-cloud")
        assert started["status"]["readyReplicas"] >= 1
    finally:
        client.run("delete", "deployment", "crowd", "--namespace", "default", "--wait=false")
        client.run("delete", "node", "--selector", "type=kwok", "--wait=false")
