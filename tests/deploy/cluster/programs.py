"""Where the programs of the cluster are: engines of engines.toml, which `isa setup --cluster` builds."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.cluster.machine import ClusterError
from tests.deploy.tools import engines


def program(engine: str, name: str) -> Path:
    """A program of an engine."""
    found = engines().binary(engine, name)
    if not found.exists():
        raise ClusterError(f"{name} is not built yet; `isa setup --cluster` builds it.")
    return found
