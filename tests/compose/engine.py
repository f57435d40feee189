"""The container engine: the one that is there, or one of our own that is stopped again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REGISTRY = "https://registry-1.docker.io/v2/"
SOCKET = Path("/run/isa-compose/docker.sock")
EMPTY_TABLES = {"filter": "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n", "nat": "*nat\nCOMMIT\n", "raw": "*raw\nCOMMIT\n"}


class ComposeTestError(Exception):
    """Compose-test cannot run here; the message says what is missing."""


def say(text: str) -> None:
    """Progress, with the time of day."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
    sys.stdout.flush()


def is_registry_reached() -> bool:
    """Whether images can be pulled; a refusal for want of a token is an answer."""
    try:
        urllib.request.urlopen(REGISTRY, timeout=10)
    except urllib.error.HTTPError as error:
        return error.code == 401
    except OSError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Docker:
    """Runs the docker command line against one engine."""

    client: str
    compose_command: Sequence[str]
    host: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        own = {"DOCKER_HOST": self.host} if self.host else {}
        return {**os.environ, "DOCKER_BUILDKIT": "1", **own, **self.environment}

    def run(self, *arguments: str, given: bytes | None = None, timeout: float = 600) -> str:
        """Run `docker ...`; CalledProcessError with what it said when it fails."""
        return execute([self.client, *arguments], env=self.env, given=given, timeout=timeout)

    def compose(self, *arguments: str, timeout: float = 900) -> str:
        """Run `docker compose ...`."""
        return execute([*self.compose_command, *arguments], env=self.env, timeout=timeout)

    def images(self) -> set[str]:
        return set(self.run("images", "--format", "{{.Repository}}:{{.Tag}}").split())

    def containers(self, project: str) -> list[dict[str, object]]:
        """What `docker inspect` says of every container of a project, ended ones too."""
        ids = self.run("ps", "-aq", "--filter", f"label=com.docker.compose.project={project}").split()
        found: list[dict[str, object]] = json.loads(self.run("inspect", *ids)) if ids else []
        return found


def execute(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, given: bytes | None = None, timeout: float = 600
) -> str:
    """Run to the end and return what was printed; an error that carries the last lines otherwise."""
    done = subprocess.run(
        command, env=env, input=given, stdin=None if given is not None else subprocess.DEVNULL,
        capture_output=True, timeout=timeout, check=False,
    )  # fmt: skip
    output = done.stdout.decode(errors="replace")
    if done.returncode != 0:
        last = (output + done.stderr.decode(errors="replace")).strip()[-4000:]
        raise ComposeTestError(f"`{' '.join(command)}` ended with {done.returncode}:\n{last}")
    return output


@contextmanager
def own_engine(folder: Path, compose: Path) -> Iterator[Docker]:
    """A Docker engine of our own below `folder`, stopped by its pid at the end. Root only."""
    if os.geteuid() != 0:
        raise ComposeTestError(
            "No image registry is reached from here, so stand-in images have to be made, and that needs root: "
            "a Docker engine of its own, and debootstrap. Run `sudo make compose-test`, or try again where "
            f"{REGISTRY} answers."
        )
    install_packages()
    with network_as_it_was(), running_engine(folder, compose) as docker:
        yield docker


@contextmanager
def network_as_it_was() -> Iterator[None]:
    """Docker turns forwarding on and lays rules and chains; afterwards all is as before."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    before = forwarding.read_text()
    rules = "".join(execute(["iptables-save", "-t", table]) or empty for table, empty in EMPTY_TABLES.items())
    try:
        yield
    finally:
        execute(["iptables-restore"], given=rules.encode())
        forwarding.write_text(before)


@contextmanager
def running_engine(folder: Path, compose: Path) -> Iterator[Docker]:
    """dockerd, from its start to its end."""
    run = SOCKET.parent
    run.mkdir(parents=True, exist_ok=True)
    log = folder / "dockerd.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            ["/usr/sbin/dockerd", "--data-root", str(folder / "docker"), "--exec-root", str(run / "exec"),
             "--pidfile", str(run / "docker.pid"), "--host", f"unix://{SOCKET}", "--storage-driver", "overlay2",
             "--bridge", "none"],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    docker = Docker(client="/usr/bin/docker", compose_command=[str(compose)], host=f"unix://{SOCKET}")
    try:
        wait_for(docker, process, log)
        yield docker
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        say(f"The Docker engine that this test started (pid {process.pid}) has stopped.")


def wait_for(docker: Docker, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(60):
        if process.poll() is not None:
            raise ComposeTestError(f"dockerd ended with {process.returncode}; its log is {log}.")
        try:
            docker.run("version", timeout=10)
        except (ComposeTestError, subprocess.TimeoutExpired):
            time.sleep(0.5)
        else:
            return
    raise ComposeTestError(f"dockerd does not answer; its log is {log}.")


def install_packages() -> None:
    """Debian's Docker engine and debootstrap, when they are not there."""
    if Path("/usr/sbin/dockerd").exists() and Path("/usr/bin/docker").exists() and shutil.which("debootstrap"):
        return
    if not shutil.which("apt-get"):
        raise ComposeTestError(
            "dockerd and debootstrap are not installed, and there is no apt-get to install them with."
        )
    say("Installing docker.io and debootstrap from Debian.")
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    execute(["apt-get", "update", "-qq"], env=env)
    execute(
        ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "docker.io", "debootstrap", "iptables"], env=env
    )
