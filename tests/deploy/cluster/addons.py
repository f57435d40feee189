"""What every cluster has beside its nodes: DNS, volumes, metrics, and whoever enforces NetworkPolicies."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.cluster import node
from tests.deploy.cluster.machine import NODE_ADDRESS, POD_RANGE, ClusterError, execute, say, state

MANIFESTS = Path(__file__).resolve().parent / "manifests"
QUEUE = "100"


def install() -> None:
    client = node.kubectl()
    names = f"{NODE_ADDRESS} {' '.join(node.RESOLVED_BY_US)}"
    client.apply((MANIFESTS / "coredns.yaml").read_text().replace("MIRRORED", names))
    volumes = state() / "volumes"
    volumes.mkdir(exist_ok=True)
    client.apply((MANIFESTS / "local-path.yaml").read_text().replace("VOLUMES", str(volumes)))
    client.rolled_out("deployment", "coredns", namespace="kube-system")
    client.rolled_out("deployment", "local-path-provisioner", namespace="local-path-storage")
    enforce_network_policies()
    say("DNS, volumes and the enforcement of NetworkPolicies are there.")


def enforce_network_policies() -> None:
    """Hand the first packet of each connection from or to a pod to kube-network-policies.

    Its own nftables rules need a kernel with NFT_QUEUE; these say the same by iptables, which every kernel can. What
    the node itself sends (the kubelet's probes, the API server's calls) is not asked about, as upstream has it.
    """
    node.kubectl().apply((MANIFESTS / "network-policies.yaml").read_text())
    node.kubectl().rolled_out("daemonset", "kube-network-policies", namespace="kube-system")
    for rule in (
        ["-m", "owner", "--uid-owner", "0", "-j", "ACCEPT"],
        ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"],
        ["-s", POD_RANGE, "-j", "NFQUEUE", "--queue-num", QUEUE],
        ["-d", POD_RANGE, "-j", "NFQUEUE", "--queue-num", QUEUE],
    ):
        try:
            execute(["iptables", "-t", "mangle", "-C", "POSTROUTING", *rule])
        except ClusterError:
            execute(["iptables", "-t", "mangle", "-A", "POSTROUTING", *rule])
