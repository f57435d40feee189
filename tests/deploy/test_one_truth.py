"""Names, ports, topics, groups and scopes are declared once, and every file that repeats them says the same."""

from __future__ import annotations

import subprocess
import sys

from charts import derive
from tests.architecture.tree import ROOT, dapr_apps


def test_what_is_derived_is_what_the_sources_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "charts.derive", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, f"{done.stderr.strip()} Or run `make generate`, and commit charts/derived."


def test_each_app_has_derived_values_and_nothing_else_has() -> None:
    found = {path.stem for path in (derive.DERIVED / "services").iterdir()}

    strangers = found - dapr_apps().keys()
    assert not strangers, f"charts/derived/services: delete {sorted(strangers)}; dapr.yaml has no such app."
