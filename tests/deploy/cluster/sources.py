"""Other people's manifests and charts, as their Go modules hold them."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from tests.deploy.cluster.machine import execute


@cache
def module(name: str) -> Path:
    """The folder of `module@version`, downloaded when it is not there."""
    env = {**os.environ, "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GONOSUMDB": "sigs.k8s.io/metrics-server"}
    return Path(json.loads(execute(["go", "mod", "download", "-json", name], env=env))["Dir"])
