"""A Kubernetes node on the bare machine, from etcd to kube-proxy; and all of it gone again."""

from __future__ import annotations

import contextlib
import json
import shutil
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.cluster import machine, pki
from tests.deploy.cluster.kubectl import Kubectl
from tests.deploy.cluster.machine import (
    NODE_ADDRESS,
    POD_GATEWAY,
    POD_LINK,
    POD_RANGE,
    RUN,
    SERVICE_API,
    SERVICE_DNS,
    SERVICE_RANGE,
    SOCKET,
    ClusterError,
    execute,
    say,
    start,
    state,
    wait_until,
)
from tests.deploy.cluster.programs import program

NODE = "isa-node"
SERVER = f"https://{NODE_ADDRESS}:6443"
ETCD = "http://127.0.0.1:12379"
MAX_PODS = 250
RESOLVED_BY_US = ("github.com", "dapr.github.io", "kubernetes-sigs.github.io")
"""Names that pods and ArgoCD ask for and this machine answers, where there is no internet."""


def kubeconfig() -> Path:
    return state() / "pki" / "admin.kubeconfig"


def kubectl() -> Kubectl:
    """The cluster's administrator."""
    return Kubectl(program("kubernetes", "kubectl"), kubeconfig())


def up() -> None:
    """Start what does not run, and wait until a node is ready."""
    machine.install_packages()
    began = time.monotonic()
    machine.prepare_network()
    make_certificates()
    start_control_plane()
    start_containerd()
    start_node()
    client = kubectl()
    took = wait_until("The node is not ready", lambda: is_ready(client), within=180, of="kubelet")
    say(f"The node is ready: {time.monotonic() - began:.0f} s in all, {took:.0f} s of them for the kubelet.")


def make_certificates() -> None:
    folder = state() / "pki"
    authority = pki.Authority(folder, "ca")
    front = pki.Authority(folder, "front-proxy-ca")
    authority.create()
    front.create()
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
    authority.issue(
        "apiserver", user="kube-apiserver", hosts=[*names, "localhost", "127.0.0.1", NODE_ADDRESS, SERVICE_API]
    )
    authority.issue("apiserver-kubelet", user="kube-apiserver-kubelet-client", groups=["system:masters"])
    front.issue("front-proxy", user="front-proxy-client")
    authority.issue("kubelet-server", user=f"system:node:{NODE}", groups=["system:nodes"], hosts=[NODE, NODE_ADDRESS])
    authority.issue("mirror", user="mirror", hosts=[*RESOLVED_BY_US, NODE_ADDRESS])
    pki.create_service_account_key(folder)
    pki.create_encryption(folder / "encryption.yaml")
    for name, user, groups in (
        ("admin", "isa-admin", ["system:masters"]),
        ("controller-manager", "system:kube-controller-manager", []),
        ("scheduler", "system:kube-scheduler", []),
        ("kubelet", f"system:node:{NODE}", ["system:nodes"]),
        ("kube-proxy", "system:kube-proxy", []),
    ):
        client = authority.issue(name, user=user, groups=groups)
        pki.write_kubeconfig(folder / f"{name}.kubeconfig", SERVER, authority, client)


def start_control_plane() -> None:
    folder, data = state() / "pki", state() / "etcd"
    start(
        "etcd",
        [
            program("etcd", "server"), "--name=isa", f"--data-dir={data}", f"--listen-client-urls={ETCD}",
            f"--advertise-client-urls={ETCD}", "--listen-peer-urls=http://127.0.0.1:12380", "--unsafe-no-fsync",
            "--quota-backend-bytes=4294967296", "--log-level=warn",
        ],
    )  # fmt: skip
    write(folder / "audit.yaml", yaml.safe_dump(audit_policy()))
    start(
        "kube-apiserver",
        [
            program("kubernetes", "kube-apiserver"),
            f"--etcd-servers={ETCD}",
            f"--bind-address={NODE_ADDRESS}",
            f"--advertise-address={NODE_ADDRESS}",
            f"--service-cluster-ip-range={SERVICE_RANGE}",
            "--authorization-mode=Node,RBAC",
            "--allow-privileged=true",
            "--anonymous-auth=false",
            "--enable-admission-plugins=NodeRestriction",
            f"--client-ca-file={folder}/ca.crt",
            f"--tls-cert-file={folder}/apiserver.crt",
            f"--tls-private-key-file={folder}/apiserver.key",
            f"--kubelet-certificate-authority={folder}/ca.crt",
            f"--kubelet-client-certificate={folder}/apiserver-kubelet.crt",
            f"--kubelet-client-key={folder}/apiserver-kubelet.key",
            "--kubelet-preferred-address-types=InternalIP",
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
            f"--service-account-key-file={folder}/service-accounts.pub",
            f"--service-account-signing-key-file={folder}/service-accounts.key",
            f"--requestheader-client-ca-file={folder}/front-proxy-ca.crt",
            "--requestheader-allowed-names=front-proxy-client",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-username-headers=X-Remote-User",
            f"--proxy-client-cert-file={folder}/front-proxy.crt",
            f"--proxy-client-key-file={folder}/front-proxy.key",
            f"--encryption-provider-config={folder}/encryption.yaml",
            f"--audit-policy-file={folder}/audit.yaml",
            f"--audit-log-path={machine.logs()}/audit.log",
            "--audit-log-maxsize=50",
            "--audit-log-maxbackup=1",
            "--profiling=false",
        ],
    )
    wait_until("The API server is not ready", is_serving, within=120, of="kube-apiserver")
    start(
        "kube-controller-manager",
        [
            program("kubernetes", "kube-controller-manager"),
            f"--kubeconfig={folder}/controller-manager.kubeconfig",
            f"--authentication-kubeconfig={folder}/controller-manager.kubeconfig",
            f"--authorization-kubeconfig={folder}/controller-manager.kubeconfig",
            "--bind-address=127.0.0.1",
            f"--service-account-private-key-file={folder}/service-accounts.key",
            f"--root-ca-file={folder}/ca.crt",
            f"--cluster-signing-cert-file={folder}/ca.crt",
            f"--cluster-signing-key-file={folder}/ca.key",
            f"--cluster-cidr={POD_RANGE}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--profiling=false",
        ],
    )
    start(
        "kube-scheduler",
        [
            program("kubernetes", "kube-scheduler"),
            f"--kubeconfig={folder}/scheduler.kubeconfig",
            f"--authentication-kubeconfig={folder}/scheduler.kubeconfig",
            f"--authorization-kubeconfig={folder}/scheduler.kubeconfig",
            "--bind-address=127.0.0.1",
            "--leader-elect=false",
            "--profiling=false",
        ],
    )


def audit_policy() -> dict[str, Any]:
    """Who changed what; never what a Secret holds."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "configmaps"]}]},
            {"level": "None", "verbs": ["get", "list", "watch"]},
            {"level": "Metadata"},
        ],
    }


def start_containerd() -> None:
    folder = state() / "containerd"
    folder.mkdir(parents=True, exist_ok=True)
    network = state() / "cni"
    network.mkdir(exist_ok=True)
    write(network / "10-isa.conflist", json.dumps(pod_network()))
    cri: dict[str, Any] = {
        "sandbox_image": "isa.local/pause:1",
        "restrict_oom_score_adj": True,
        "cni": {"bin_dir": "/usr/lib/cni", "conf_dir": str(network)},
        "containerd": {"runtimes": {"runc": {"runtime_type": "io.containerd.runc.v2"}}},
    }
    configuration = {
        "version": 2,
        "root": str(folder),
        "state": str(RUN / "containerd"),
        "oom_score": 0,
        "grpc": {"address": str(SOCKET)},
        "disabled_plugins": ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"],
        "plugins": {"io.containerd.grpc.v1.cri": cri},
    }
    path = state() / "containerd.toml"
    write(path, toml(configuration))
    start("containerd", ["/usr/bin/containerd", "--config", path])
    wait_until("containerd does not answer", is_containerd_serving, within=60, of="containerd")


def pod_network() -> dict[str, Any]:
    """Debian's bridge plugin; a pod reaches itself through its own service, too."""
    return {
        "cniVersion": "0.4.0",
        "name": "isa",
        "plugins": [
            {
                "type": "bridge",
                "bridge": POD_LINK,
                "isDefaultGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(RUN / "addresses"),
                    "ranges": [[{"subnet": POD_RANGE, "gateway": POD_GATEWAY}]],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def toml(document: dict[str, Any], prefix: str = "") -> str:
    """As much of TOML as containerd's configuration needs."""
    plain = {key: value for key, value in document.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in plain.items()]
    for key, value in document.items():
        if isinstance(value, dict):
            name = f"{prefix}{json.dumps(key)}"
            lines += [f"[{name}]", toml(value, name + ".")]
    return "\n".join(lines)


def start_node() -> None:
    folder = state() / "pki"
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_ADDRESS,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(folder / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(folder / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(folder / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        "cgroupDriver": "cgroupfs",
        "failSwapOn": False,
        "clusterDNS": [SERVICE_DNS],
        "clusterDomain": "cluster.local",
        "maxPods": MAX_PODS,
        "podLogsDir": str(state() / "pods"),
        "volumePluginDir": str(state() / "kubelet" / "volume-plugins"),
        "healthzBindAddress": "127.0.0.1",
        "registerWithTaints": [],
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi"},  # a disk that others fill must not cost the images
        "serializeImagePulls": False,
        "shutdownGracePeriod": "0s",
        "resolvConf": str(state() / "resolv.conf"),
    }
    write(state() / "resolv.conf", "")
    write(state() / "kubelet.yaml", yaml.safe_dump(kubelet))
    start(
        "kubelet",
        [
            program("kubernetes", "kubelet"),
            f"--config={state()}/kubelet.yaml",
            f"--kubeconfig={folder}/kubelet.kubeconfig",
            f"--root-dir={state()}/kubelet",
            f"--hostname-override={NODE}",
            f"--node-ip={NODE_ADDRESS}",
            f"--cert-dir={state()}/kubelet/pki",
        ],
    )
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_RANGE,
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "hostnameOverride": NODE,
        "bindAddress": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        "nodePortAddresses": [f"{NODE_ADDRESS}/32"],
        "conntrack": {"maxPerCore": 0},
    }
    write(state() / "kube-proxy.yaml", yaml.safe_dump(proxy))
    start("kube-proxy", [program("kubernetes", "kube-proxy"), f"--config={state()}/kube-proxy.yaml"])


def write(path: Path, text: str) -> None:
    """Only where it changes: kube-proxy ends when its file is touched."""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def is_serving() -> bool:
    folder = state() / "pki"
    context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    context.load_cert_chain(folder / "admin.crt", folder / "admin.key")
    with contextlib.suppress(OSError):
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        return bool(opener.open(f"{SERVER}/readyz", timeout=5).status == 200)
    return False


def is_containerd_serving() -> bool:
    with contextlib.suppress(ClusterError):
        return bool(ctr("version"))
    return False


def is_ready(client: Kubectl) -> bool:
    with contextlib.suppress(ClusterError):
        conditions = client.get("node", NODE)["status"]["conditions"]
        return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return False


def ctr(*arguments: str | Path, timeout: float = 900) -> str:
    """Containerd's own client, in the namespace of the kubelet."""
    return execute(["/usr/bin/ctr", "--address", SOCKET, "--namespace", "k8s.io", *arguments], timeout=timeout)


def reset() -> None:
    """`down`, but what containerd has of images stays, for whoever tries the same again and again."""
    down(keep_images=True)


def down(*, keep_images: bool = False) -> None:
    """Stop everything that this cluster started and leave the machine as it was found."""
    began = time.monotonic()
    note_network_namespaces()
    for name in ("kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler"):
        machine.stop(name)
    machine.stop("containerd")
    shims = machine.kill_shims()
    for process in machine.running():
        process.stop()
    mounts = machine.unmount_all()
    machine.remove_network_namespaces()
    machine.restore_network()
    machine.remove_cgroups()
    shutil.rmtree(RUN, ignore_errors=True)
    for path in state().iterdir() if state().exists() else []:
        if keep_images and path.name in ("containerd", "programs"):
            continue
        if path.name != "programs":
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    machine.remove_log_links()
    say(f"The cluster is gone: {shims} containers ended, {mounts} mounts undone, {time.monotonic() - began:.0f} s.")


def note_network_namespaces() -> None:
    """Which namespaces belong to this cluster's pods, while containerd can still say it."""
    found: list[str] = []
    with contextlib.suppress(ClusterError, json.JSONDecodeError):
        for container in ctr("containers", "ls", "-q").split():
            for namespace in json.loads(ctr("containers", "info", container))["Spec"]["linux"]["namespaces"]:
                found += [namespace["path"]] if "/netns/" in namespace.get("path", "") else []
    if found:
        (RUN / "namespaces.json").write_text(json.dumps(sorted(set(found))))


def stored(key: str) -> bytes:
    """What etcd holds under a key, past the API server."""
    import base64

    encode = lambda text: base64.b64encode(text.encode()).decode()  # noqa: E731
    request = urllib.request.Request(
        f"{ETCD}/v3/kv/range", data=json.dumps({"key": encode(key)}).encode(), method="POST"
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    found = json.load(opener.open(request, timeout=10)).get("kvs", [])
    return base64.b64decode(found[0]["value"]) if found else b""
