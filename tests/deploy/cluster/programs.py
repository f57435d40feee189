"""Where the programs of the cluster are: engines of engines.toml, or a folder of programs that are there already."""

from __future__ import annotations

import os
from pathlib import Path

from runtime.engines import load_engines
from runtime.layout import layout_from_environment
from tests.deploy.cluster.machine import ClusterError


def program(engine: str, name: str) -> Path:
    """A program of an engine."""
    if given := os.environ.get("ISA_CLUSTER_PROGRAMS"):
        return Path(given) / engine / name
    found = load_engines()[engine].folder(layout_from_environment().cache) / "bin" / name
    if not found.exists():
        raise ClusterError(f"{name} is not built yet; `isa setup --cluster` builds it.")
    return found
