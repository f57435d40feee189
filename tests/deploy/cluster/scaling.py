"""KEDA and Argo Rollouts from their modules, kwok's nodes, and what scales when there is something to do."""

from __future__ import annotations

from typing import Any

import yaml

from tests.deploy.cluster import node
from tests.deploy.cluster.machine import execute, say, start, state
from tests.deploy.cluster.programs import program
from tests.deploy.cluster.sources import module
from tests.deploy.tools import tool

KEDA = "github.com/kedacore/keda/v2@v2.21.0"
KWOK = "sigs.k8s.io/kwok@v0.8.0"
STAGES = ("node/fast", "node/heartbeat-with-lease", "pod/fast")
ROLLOUTS = "github.com/argoproj/argo-rollouts@v1.10.1"


def install_keda() -> None:
    """The operator and its metrics server; its admission webhooks stay out, as nothing else is tested by them."""
    client = node.kubectl()
    text = execute([tool("kustomize"), "build", module(KEDA) / "config" / "default"])
    documents = [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]
    kept = [each for each in documents if "admission" not in each["metadata"]["name"]]
    for each in kept:
        if each["kind"] == "Deployment":
            is_operator = each["metadata"]["name"] == "keda-operator"
            settle(each, "ghcr.io/kedacore/keda:2.21.0", "/operator" if is_operator else "/adapter")
    client.apply([each for each in kept if each["kind"] in ("Namespace", "CustomResourceDefinition")])
    client.apply([each for each in kept if each["kind"] not in ("Namespace", "CustomResourceDefinition")])
    for name in ("keda-operator", "keda-metrics-apiserver"):
        client.rolled_out("deployment", name, namespace="keda")
    say("KEDA runs.")


def install_rollouts() -> None:
    """The controller of canaries."""
    client = node.kubectl()
    if client.find("namespace", "argo-rollouts") is None:
        client.run("create", "namespace", "argo-rollouts")
    documents = list(yaml.safe_load_all((module(ROLLOUTS) / "manifests" / "install.yaml").read_text()))
    for each in documents:
        if each["kind"] == "Deployment":
            settle(each, "quay.io/argoproj/argo-rollouts:v1.10.1", "/rollouts-controller")
        if "namespace" not in each["metadata"] and each["kind"] in (
            "Deployment",
            "Service",
            "ServiceAccount",
            "ConfigMap",
            "Secret",
        ):
            each["metadata"]["namespace"] = "argo-rollouts"
    client.apply(documents)
    client.rolled_out("deployment", "argo-rollouts", namespace="argo-rollouts")
    say("Argo Rollouts runs.")


def settle(deployment: dict[str, Any], image: str, command: str) -> None:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container |= {"image": image, "imagePullPolicy": "IfNotPresent", "command": [command]}
    container["resources"] = {"requests": {"cpu": "20m", "memory": "64Mi"}}


def add_fake_nodes(number: int = 10) -> None:
    """Nodes that only say that they run pods; a taint keeps real pods off them."""
    stages = [
        path.read_text()
        for folder in STAGES
        for path in sorted((module(KWOK) / "kustomize/stage" / folder).glob("*.yaml"))
    ]
    configuration = state() / "kwok.yaml"
    configuration.write_text("\n---\n".join(text for text in stages if "kind: Stage" in text))
    command = [program("kwok", "kwok"), f"--kubeconfig={node.kubeconfig()}", f"--config={configuration}"]
    start("kwok", [*command, "--manage-nodes-with-label-selector=type=kwok", "--cidr=10.250.0.0/16"], cwd=state())
    node.kubectl().apply([fake_node(index) for index in range(number)])


def fake_node(index: int) -> dict[str, Any]:
    name = f"fake-{index:02d}"
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {"type": "kwok", "kubernetes.io/hostname": name},
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": {"taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]},
        "status": {
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "250"},
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "250"},
        },
    }
