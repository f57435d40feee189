"""Prometheus itself reads our configuration and tests our alerts; no set is needed."""

from __future__ import annotations

import subprocess

import pytest

from runtime.engines import Engines, load_engines
from runtime.layout import CHECKOUT, layout_from_environment

OBSERVABILITY = CHECKOUT / "observability"


@pytest.fixture
def promtool() -> str:
    binary = Engines(layout_from_environment(), load_engines()).binary("prometheus", "promtool")
    assert binary.exists(), "promtool is not built yet: run `make setup-tests`."
    return str(binary)


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    done = subprocess.run(
        [promtool, "check", "config", OBSERVABILITY / "prometheus.yaml"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.ac("phase-v:A:5")
def test_every_alert_fires_when_it_should(promtool: str) -> None:
    cases = sorted((OBSERVABILITY / "tests").glob("*.yaml"))

    done = subprocess.run([promtool, "test", "rules", *cases], capture_output=True, text=True, check=False)

    assert cases
    assert done.returncode == 0, done.stdout + done.stderr
