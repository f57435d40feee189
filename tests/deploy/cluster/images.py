"""The images of the cluster, made on this machine where no registry is reached, and handed to containerd."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.layout import layout_from_environment
from tests.compose.__main__ import compose_document
from tests.compose.__main__ import images as compose_images
from tests.compose.engine import Docker, own_engine
from tests.compose.standins import compose_binary, engines, make_images
from tests.deploy.cluster.machine import SOCKET, ClusterError, execute, say, state
from tests.deploy.cluster.programs import program
from tests.deploy.tools import tool

DOCKERFILES = Path(__file__).resolve().parent / "images"
BASE = "python:3.11.14-slim-bookworm"
REGISTRY = "ghcr.io/isa-cloud"
RELEASE, NEXT_RELEASE = "0.1.0", "0.1.1"
DAPR = "1.18.2"
ARGOCD = "v3.2.11"
CTR = ("/usr/bin/ctr", "--address", str(SOCKET), "--namespace", "k8s.io")


@dataclass(frozen=True)
class Image:
    """One image: its Dockerfile, and the programs that are put into its `bin`."""

    dockerfile: str
    programs: Mapping[str, Path] = field(default_factory=dict)
    arguments: Mapping[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    def context(self) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(DOCKERFILES / f"{self.dockerfile}.Dockerfile", "Dockerfile")
            for name in ("empty", "bin"):
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            for name, path in self.programs.items():
                tar.add(path.resolve(), f"bin/{name}")
            if self.dockerfile == "program":
                entry = tarfile.TarInfo("bin/entrypoint")
                entry.type, entry.linkname = tarfile.SYMTYPE, next(iter(self.programs))
                tar.addfile(entry)
        return buffer.getvalue()


def of_programs(engine: str, *programs: str, names: tuple[str, ...], renamed: str = "") -> Image:
    return Image("program", {renamed or name: program(engine, name) for name in programs}, names=names)


def platform_images() -> list[Image]:
    """What runs beside our rooms and engines, by the names that upstream's manifests give it."""
    dapr = {name: program("dapr-control", name) for name in ("operator", "injector", "sentry", "placement")}
    runtime = engines(layout_from_environment())
    dapr |= {name: runtime.binary("dapr", name) for name in ("daprd", "scheduler")}
    argocd = {
        "argocd": tool("argocd"),
        "helm": tool("helm"),
        "kustomize": tool("kustomize"),
    }
    return [
        Image("pause", names=("isa.local/pause:1",)),
        *(Image("program", {name: path}, names=(f"ghcr.io/dapr/{name}:{DAPR}",)) for name, path in dapr.items()),
        Image("redis", names=("public.ecr.aws/docker/library/redis:8.2.2-alpine",)),
        Image("argocd", argocd, {"BASE": BASE}, names=(f"quay.io/argoproj/argocd:{ARGOCD}",)),
        of_programs("coredns", "coredns", names=("registry.k8s.io/coredns/coredns:v1.12.4",)),
        of_programs(
            "local-path", "local-path-provisioner", names=("docker.io/rancher/local-path-provisioner:v0.0.30",)
        ),
        of_programs(
            "metrics-server", "metrics-server", names=("registry.k8s.io/metrics-server/metrics-server:v0.8.0",),
        ),
        of_programs(
            "network-policies", "cmd", renamed="kube-network-policies",
            names=("registry.k8s.io/networking/kube-network-policies:v0.8.0",),
        ),
        of_programs("keda", "operator", "adapter", names=("ghcr.io/kedacore/keda:2.21.0",)),
        of_programs("rollouts", "rollouts-controller", names=("quay.io/argoproj/argo-rollouts:v1.10.1",)),
    ]  # fmt: skip


def aliases() -> dict[str, str]:
    """Our rooms' images, which compose-test makes, by the name that the charts give them."""
    found = compose_images(compose_document())
    named = {room.rpartition(".")[2]: image for image, room in found.items() if room}
    return {f"{REGISTRY}/{image.split('/')[1].split(':')[0]}:{RELEASE}": image for image in named.values()}


def make_and_import() -> None:
    """Make what is missing and hand it to containerd; the second time only what changed."""
    layout = layout_from_environment()
    found = engines(layout)
    began = time.monotonic()
    with own_engine(layout.cache / "compose", compose_binary(layout, found)) as docker:
        wanted = compose_images(compose_document())
        make_images(docker, layout, found, wanted)
        names = [name for name in wanted if not name.startswith(("python:", "isa-cloud/"))]
        for image in platform_images():
            names += make(docker, image)
        for alias, image in aliases().items():
            docker.run("tag", image, alias)
            names.append(alias)
            if alias.startswith(f"{REGISTRY}/tasks:"):
                arguments = {"FROM": alias, "RELEASE": NEXT_RELEASE}
                names += make(docker, Image("release", {}, arguments, (f"{REGISTRY}/tasks:{NEXT_RELEASE}",)))
        say(f"{len(names)} images are made: {time.monotonic() - began:.0f} s.")
        hand_over(docker, names)


def make(docker: Docker, image: Image) -> list[str]:
    tags = [word for name in image.names for word in ("--tag", name)]
    arguments = [word for name, value in image.arguments.items() for word in ("--build-arg", f"{name}={value}")]
    docker.run("build", "--network", "host", *arguments, *tags, "-", given=image.context(), timeout=1800)
    return list(image.names)


def hand_over(docker: Docker, names: list[str]) -> None:
    """Import into containerd what it does not have yet under that name."""
    path = state() / "containerd" / "isa-imported.json"
    known: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
    ids = {name: docker.run("inspect", "--format", "{{.Id}}", name).strip() for name in names}
    there = set(execute([*CTR, "images", "ls", "-q"]).split())
    missing = [name for name in names if known.get(name) != ids[name] or canonical(name) not in there]
    if not missing:
        return
    began = time.monotonic()
    with subprocess.Popen([docker.client, "save", *missing], env=docker.env, stdout=subprocess.PIPE) as saved:
        done = subprocess.run([*CTR, "images", "import", "-"], stdin=saved.stdout, capture_output=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"containerd did not take the images:\n{done.stderr.decode()[-2000:]}")
    path.write_text(json.dumps(known | ids, indent=1))
    size = execute(["du", "-sm", state() / "containerd"]).split()[0]
    say(f"{len(missing)} images are in containerd ({size} MB): {time.monotonic() - began:.0f} s.")


def canonical(name: str) -> str:
    """An image's whole name: `redis:8` is docker.io/library/redis:8."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first else f"docker.io/{name}"
