"""ArgoCD in the cluster, and the repository that it follows: a clone of this checkout, served by this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from runtime.layout import CHECKOUT
from tests.deploy.cluster import mirror, node
from tests.deploy.cluster.machine import NODE_ADDRESS, ClusterError, execute, say, start, state, wait_until
from tests.deploy.cluster.sources import module
from tests.deploy.tools import documents, tool

OURS = "git.argocd.svc.cluster.local"
CLUSTER = "local"
ARGOCD = "github.com/argoproj/argo-cd/v3@v3.2.11"
DAPR = "github.com/dapr/dapr@v1.18.2"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.4.0"
METRICS_SERVER = "sigs.k8s.io/metrics-server@v0.8.0"
HAD = ("dapr", "gateway-api", "metrics-server")
"""The components of argocd/platform whose charts and images can be had where only module proxies are reached."""
AUTHOR = {
    name: value
    for who in ("AUTHOR", "COMMITTER")
    for name, value in ((f"GIT_{who}_NAME", "deploy-test"), (f"GIT_{who}_EMAIL", "deploy-test@example.org"))
}

Change = Callable[[Path], None]


def serve() -> None:
    """Put every repository in place and serve it."""
    make_repositories()
    if not worktree().exists():
        clone_checkout()
    start("mirror", [sys.executable, "-m", "tests.deploy.cluster.mirror"], cwd=CHECKOUT)
    url = f"http://{NODE_ADDRESS}:{mirror.GIT_PORT}/isa-cloud.git"
    ask = ["git", "-c", f"http.extraHeader=Host: {OURS}", "ls-remote", url]
    wait_until("Git is not served", lambda: _succeeds(ask), within=30, of="mirror")


def _succeeds(command: list[str]) -> bool:
    try:
        execute(command, env={**os.environ, "no_proxy": "*", "NO_PROXY": "*"})
    except ClusterError:
        return False
    return True


def make_repositories() -> None:
    """Other people's: as their modules hold them, under the addresses that argocd/platform names."""
    crds = bare("github.com", "kubernetes-sigs/gateway-api")
    if not crds.exists():
        with tempfile.TemporaryDirectory() as folder:
            shutil.copytree(module(GATEWAY_API) / "config", Path(folder) / "config")
            git("init", "--quiet", "--initial-branch=main", cwd=Path(folder))
            git("add", ".", cwd=Path(folder))
            git("commit", "--quiet", "--message", "As in the module", cwd=Path(folder))
            git("tag", component("gateway-api")["source"]["targetRevision"], cwd=Path(folder))
            git("clone", "--quiet", "--bare", folder, str(crds), cwd=Path(folder))
    charts = {
        "dapr.github.io": ("helm-charts", module(DAPR) / "charts" / "dapr", "1.18.2"),
        "kubernetes-sigs.github.io": ("metrics-server", module(METRICS_SERVER) / "charts" / "metrics-server", "0.8.0"),
    }
    for host, (path, chart, application) in charts.items():
        folder = state() / "helm" / host / path
        if (folder / "index.yaml").exists():
            continue
        folder.mkdir(parents=True)
        version = component(chart.name)["source"]["targetRevision"]
        helm = tool("helm")
        execute([helm, "package", chart, "--version", version, "--app-version", application, "--destination", folder])
        execute([helm, "repo", "index", folder, "--url", f"https://{host}/{path}"])


def component(name: str) -> Any:
    """What argocd/platform says of one of other people's charts."""
    return yaml.safe_load((CHECKOUT / "argocd" / "platform" / f"{name}.yaml").read_text())


def bare(host: str, path: str) -> Path:
    return state() / "git" / host / path


def worktree() -> Path:
    """A clone with a working tree, from which changes are pushed."""
    return state() / "worktree"


def clone_checkout() -> None:
    """What is committed in this checkout, with this machine's own settings on top, as a fork would keep them."""
    served, prepared = bare(OURS, "isa-cloud.git"), state() / "prepared.git"
    for path in (worktree(), prepared):
        shutil.rmtree(path, ignore_errors=True)
    execute(["git", "clone", "--quiet", "--bare", CHECKOUT, prepared])
    git("symbolic-ref", "HEAD", "refs/heads/main", cwd=prepared)
    execute(["git", "clone", "--quiet", "--branch", "main", prepared, worktree()])
    push("Settings of one bare machine", settle)
    git("remote", "set-url", "origin", str(served), cwd=worktree())
    shutil.rmtree(served, ignore_errors=True)
    served.parent.mkdir(parents=True, exist_ok=True)
    prepared.rename(served)  # nobody sees it without the settings


def settle(tree: Path) -> None:
    """What this one machine has not: other people's charts and images, Strimzi's operator, Qdrant's server."""
    for path in (tree / "argocd" / "platform").glob("*.yaml"):
        if path.stem not in HAD:
            path.unlink()
    edit(tree / "argocd" / "platform" / "metrics-server.yaml", local_metrics_server)
    for release in ("messaging", "edge", "observability", "dr"):
        (tree / "argocd" / "releases" / f"{release}.yaml").unlink(missing_ok=True)
    edit(tree / "charts" / "clouds" / "local.yaml", local_cloud)
    edit(tree / "charts" / "data" / "values.yaml", local_data)
    edit(tree / "charts" / "dapr-resources" / "values.yaml", local_topics)
    edit(tree / "charts" / "service" / "values.yaml", local_service)
    (tree / "charts" / "derived" / "services" / "qdrant-grpc.yaml").unlink()
    for path in (tree / "charts" / "values").glob("*.yaml"):
        edit(path, local_room)


def local_metrics_server(document: Any) -> None:
    document["clouds"]["local"]["helm"]["args"] = ["--kubelet-insecure-tls"]


def local_cloud(document: Any) -> None:
    document["global"]["kafka"] = {"auth": "none", "tls": False}
    document["global"]["platform"]["kafkaBrokers"] = "kafka.isa-data:9092"


def local_data(document: Any) -> None:
    document["qdrant"]["enabled"] = False
    for engine in document.values():
        if isinstance(engine, dict) and "resources" in engine:
            engine["resources"]["requests"]["cpu"] = "20m"


def local_topics(document: Any) -> None:
    document["topics"]["environment"] = "single-broker"


def local_service(document: Any) -> None:
    document["resources"]["cpu"]["request"] = document["sidecar"]["cpu"]["request"] = "20m"


def local_room(document: Any) -> None:
    document.pop("edge", None)  # no gateway's controller is here, and a route that none accepts is never healthy
    document.get("resources", {}).get("cpu", {})["request"] = "20m"


def edit(path: Path, change: Callable[[Any], None]) -> None:
    """Change a YAML file."""
    document = yaml.safe_load(path.read_text()) or {}
    change(document)
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def push(message: str, change: Change) -> str:
    """Commit a change and push it; the new revision."""
    change(worktree())
    git("add", "--all", cwd=worktree())
    git("commit", "--quiet", "--message", message, cwd=worktree())
    git("push", "--quiet", "origin", "main", cwd=worktree())
    return revision()


def revert() -> str:
    """Take the last commit back by another one, as people roll back."""
    git("revert", "--no-edit", "HEAD", cwd=worktree())
    git("push", "--quiet", "origin", "main", cwd=worktree())
    return revision()


def revision() -> str:
    return git("rev-parse", "HEAD", cwd=worktree()).strip()


def git(*arguments: str, cwd: Path) -> str:
    return execute(["git", *arguments], cwd=cwd, env={**os.environ, **AUTHOR})


def install() -> None:
    """ArgoCD by argocd/bootstrap of the clone, the cluster's Secret, and the one Application that brings the others."""
    serve()
    client = node.kubectl()
    client.apply((worktree() / "argocd" / "bootstrap" / "namespace.yaml").read_text())
    client.apply(reachable_services())
    documents = [relaxed(each) for each in bootstrap() if (each["kind"], each["metadata"]["name"]) not in LEFT_OUT]
    crds = [each for each in documents if each["kind"] == "CustomResourceDefinition"]
    client.apply(crds)
    client.apply([each for each in documents if each not in crds])
    client.apply([certificates()])
    wait_for_argocd()


def wait_for_argocd() -> None:
    for kind, name in PARTS:
        node.kubectl().rolled_out(kind, name, namespace="argocd")


PARTS = (
    ("deployment", "argocd-redis"),
    ("deployment", "argocd-repo-server"),
    ("deployment", "argocd-applicationset-controller"),
    ("deployment", "argocd-notifications-controller"),
    ("deployment", "argocd-server"),
    ("statefulset", "argocd-application-controller"),
)


LEFT_OUT = {
    ("Deployment", "argocd-dex-server"),
    ("Service", "argocd-dex-server"),
    ("NetworkPolicy", "argocd-dex-server-network-policy"),
}
"""Dex's image cannot be had, and nobody signs in here."""


def bootstrap() -> list[dict[str, Any]]:
    """What argocd/bootstrap installs, with the release's manifests from its module in place of its address."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "argocd"
        shutil.copytree(worktree() / "argocd", tree)
        edit(
            tree / "bootstrap" / "release" / "kustomization.yaml", lambda each: each.update(resources=["install.yaml"])
        )
        shutil.copy(module(ARGOCD) / "manifests" / "install.yaml", tree / "bootstrap" / "release" / "install.yaml")
        text = execute([tool("kustomize"), "build", tree / "bootstrap"])
    return documents(text)


def relaxed(document: dict[str, Any]) -> dict[str, Any]:
    """Images are here already; and two cores have no time for a container that asks for none."""
    pod = document.get("spec", {}).get("template", {}).get("spec", {}) if "spec" in document else {}
    for container in [*pod.get("containers", []), *pod.get("initContainers", [])]:
        container["imagePullPolicy"] = "IfNotPresent"
    return document


def reachable_services() -> list[dict[str, Any]]:
    """This machine's git and its listener, under the names that argocd/overlays/local gives them."""
    documents: list[dict[str, Any]] = []
    for name, port in (("git", mirror.GIT_PORT), ("notifications", mirror.LISTENER_PORT)):
        metadata = {"name": name, "namespace": "argocd"}
        documents += [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": metadata,
                "spec": {"ports": [{"name": "http", "port": 80, "targetPort": port}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": [NODE_ADDRESS], "conditions": {"ready": True}}],
            },
        ]
    return documents


def certificates() -> dict[str, Any]:
    """Whom ArgoCD believes to be the hosts that this machine stands in for."""
    authority = (state() / "pki" / "ca.crt").read_text()
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "argocd-tls-certs-cm", "namespace": "argocd"},
        "data": dict.fromkeys(node.RESOLVED_BY_US, authority),
    }


def make_secrets() -> None:
    """What a cloud's secret store would bring, by the command that users of a bare cluster have."""
    environment = {**os.environ, "ISA_HOME": str(state() / "secrets")}
    printed = execute([sys.executable, "-m", "cli", "secrets", "kubernetes"], env=environment, cwd=CHECKOUT)
    node.kubectl().apply(printed)


def begin() -> None:
    """Hand the cluster over to git: its Secret, and the root application with the project that it belongs to."""
    client = node.kubectl()
    client.apply((worktree() / "argocd" / "bootstrap" / "local-cluster.yaml").read_text())
    overlay = execute([tool("kustomize"), "build", worktree() / "argocd" / "overlays" / "local"])
    documents = [each for each in yaml.safe_load_all(overlay) if each]
    client.apply(
        [each for each in documents if each["kind"] == "ConfigMap" and each["metadata"].get("namespace") == "argocd"]
    )
    client.run("rollout", "restart", "deployment,statefulset", "--namespace", "argocd")
    wait_for_argocd()
    client.apply(
        [each for each in documents if each["metadata"].get("labels", {}).get("isa-cloud.io/bootstrap") == "true"]
    )


def applications() -> dict[str, Mapping[str, Any]]:
    return {
        each["metadata"]["name"]: each for each in node.kubectl().get("applications.argoproj.io", namespace="argocd")
    }


def told(application: Mapping[str, Any]) -> str:
    """Whether it is what git says, and whether it works; a word each."""
    status = application.get("status", {})
    return f"{status.get('sync', {}).get('status', '?')}/{status.get('health', {}).get('status', '?')}"


def wait_for(names: list[str], *, within: float, at: str = "") -> dict[str, float]:
    """Wait until applications are synced and healthy, saying each step; seconds by name."""
    began = time.monotonic()
    done: dict[str, float] = {}
    last: dict[str, str] = {}
    while missing := [name for name in names if name not in done]:
        found = applications()
        for name in sorted({*found, *missing}):
            state_of = told(found[name]) if name in found else "not there"
            if last.get(name) != state_of:
                last[name] = state_of
                say(f"  {name}: {state_of}")
            synced = not at or found.get(name, {}).get("status", {}).get("sync", {}).get("revision") == at
            if name in missing and state_of == "Synced/Healthy" and synced:
                done[name] = time.monotonic() - began
        if time.monotonic() - began > within:
            raise ClusterError(f"Not synced and healthy within {within:.0f} s: {why(found, missing)}")
        time.sleep(2)
    return done


def wait_for_everything() -> None:
    """Until all that git says runs; where it takes longest is said as it goes."""
    services = [path.stem for path in sorted((worktree() / "charts" / "derived" / "services").glob("*.yaml"))]
    releases = [path.stem for path in sorted((worktree() / "argocd" / "releases").glob("*.yaml"))]
    components = [path.stem for path in sorted((worktree() / "argocd" / "platform").glob("*.yaml"))]
    took = wait_for([f"{name}-{CLUSTER}" for name in (*components, *releases, *services)], within=1200)
    say(f"{len(took)} applications are synced and healthy, the last after {max(took.values()):.0f} s.")


def why(found: Mapping[str, Mapping[str, Any]], names: list[str]) -> str:
    lines = []
    for name in names:
        application = found.get(name)
        if application is None:
            lines.append(f"{name} does not exist")
            continue
        status = application.get("status", {})
        conditions = [each["message"] for each in status.get("conditions", [])]
        operation = status.get("operationState", {}).get("message", "")
        unwell = [
            " ".join([each["kind"], each["name"], *map(str, each.get("health", {}).values())])
            for each in status.get("resources", [])
            if each.get("status") != "Synced" or each.get("health", {}).get("status", "Healthy") != "Healthy"
        ]
        lines.append(f"{name} is {told(application)}. {operation} {conditions} {unwell}")
    return "\n".join(lines)[:6000]


def digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
