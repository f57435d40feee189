"""The story of `isa demo` against the services in the pods: run by `inside()`, where the cluster's names resolve."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

from cli.demo import tell_story
from runtime.layout import CHECKOUT
from runtime.processes import load_apps
from tests.deploy.cluster.machine import RUN, SERVICE_DNS, ClusterError, state

ENGINES = {
    "KAFKA_BROKERS": "kafka.isa-data:9092",
    "REGISTRY_URL": "http://registry.isa-data:8080/apis/ccompat/v7",
    "POSTGRES_HOST": "postgres.isa-data",
    "POSTGRES_PORT": "5432",
}


def urls() -> dict[str, str]:
    """Where each HTTP room answers, by its Service."""
    return {app.name: f"http://{app.name}.isa-cloud:{app.values['appPort']}" for app in load_apps() if not app.is_grpc}


def inside(*module: str, timeout: float = 600, environment: Mapping[str, str] | None = None) -> str:
    """Run a Python module on this machine, with the cluster's DNS for it alone; what it printed."""
    names = RUN / "resolv.conf"
    names.write_text(f"nameserver {SERVICE_DNS}\nsearch svc.cluster.local\noptions ndots:5\n")
    command = ["unshare", "--mount", "sh", "-c", f'mount --bind {names} /etc/resolv.conf && exec "$@"', "sh"]
    home = {"ISA_HOME": str(state() / "secrets"), "NO_PROXY": "*", "no_proxy": "*", "COLUMNS": "160"}
    done = subprocess.run(
        [*command, sys.executable, "-m", *module], cwd=CHECKOUT,
        env={**os.environ, **ENGINES, **home, **(environment or {})},
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ClusterError(f"{' '.join(module)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


def tell() -> None:
    """Tell the story, and show it."""
    sys.stdout.write(inside("tests.deploy.cluster.story"))


if __name__ == "__main__":
    tell_story(urls())
