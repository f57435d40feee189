"""Every manifest of every environment and cloud before a real API server: CEL, defaulting, pod security."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import yaml

from tests.deploy import rendering, schemas
from tests.deploy.cluster import node
from tests.deploy.cluster.machine import ClusterError, execute, say, state

WARNING = re.compile(r"^Warning: .*", re.MULTILINE)


def install_definitions() -> None:
    """Every CustomResourceDefinition that a manifest of ours needs, and wait until the API server serves them."""
    began = time.monotonic()
    found = schemas.custom_resource_definitions()
    client = node.kubectl()
    client.apply(found)
    client.run("wait", "--for=condition=Established", "crd", "--all", "--timeout=120s", timeout=150)
    say(f"{len(found)} definitions are served: {time.monotonic() - began:.0f} s.")


def check_everything() -> dict[str, int]:
    """Server-side dry-run of all releases, whose refusals and warnings are failures; manifests by environment."""
    began = time.monotonic()
    client = node.kubectl()
    releases = list(rendering.releases())
    for namespace in sorted({each.namespace for each in releases}):
        if client.find("namespace", namespace) is None:
            client.run("create", "namespace", namespace)
    restrict(client)
    counts: dict[str, int] = {}
    refused: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        for release, number, problems in pool.map(check, releases):
            counts[f"{release.environment}-{release.cloud}"] = (
                counts.get(f"{release.environment}-{release.cloud}", 0) + number
            )
            refused += [f"{release}: {problem}" for problem in problems]
    if refused:
        raise ClusterError(f"The API server refuses, of {sum(counts.values())} manifests:\n" + "\n".join(refused))
    say(f"{sum(counts.values())} manifests of {len(releases)} releases admitted: {time.monotonic() - began:.0f} s.")
    return counts


def restrict(client: Any) -> None:
    """Ask for warnings of what the namespaces of production would refuse, which are failures here."""
    for namespace in ("isa-cloud", "isa-data"):
        client.run(
            "label", "namespace", namespace, "--overwrite", "pod-security.kubernetes.io/warn=restricted",
            "pod-security.kubernetes.io/enforce=restricted",
        )  # fmt: skip


def check(release: rendering.Release) -> tuple[rendering.Release, int, list[str]]:
    documents = rendering.manifests(release)
    for document in documents:
        metadata = document["metadata"]
        if document["kind"] not in CLUSTER_WIDE:
            metadata.setdefault("namespace", release.namespace)
    try:
        said = apply_strictly(documents, str(release))
    except ClusterError as error:
        return (
            release,
            len(documents),
            [line for line in str(error).splitlines()[1:] if "serverside-applied" not in line],
        )
    return release, len(documents), WARNING.findall(said)


def apply_strictly(documents: list[dict[str, Any]], name: str) -> str:
    """Server-side dry-run; what was said, warnings too."""
    folder = state() / "dry-run"
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(yaml.dump_all(documents, Dumper=yaml.CSafeDumper))
    client = node.kubectl()
    command = [client.program, "--kubeconfig", client.kubeconfig, "apply", "--server-side", "--force-conflicts"]
    command += ["--dry-run=server", "--validate=strict", "--filename", path]
    return execute(["sh", "-c", '"$@" 2>&1', "sh", *command], timeout=300)


CLUSTER_WIDE = frozenset(
    {"Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "ClusterSecretStore", "GatewayClass",
     "StorageClass", "PriorityClass", "ClusterIssuer"}
)  # fmt: skip
