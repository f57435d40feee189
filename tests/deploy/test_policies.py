"""Policy scanners read what we ship; what they find and we keep has its reason beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.layout import CHECKOUT
from tests.deploy.rendering import releases, render
from tests.deploy.tools import documents, run, tool

HERE = Path(__file__).resolve().parent
EXCEPTIONS: dict[str, dict[str, str]] = yaml.safe_load((HERE / "exceptions.yaml").read_text())
"""Check -> {resource, as `Kind.namespace.name` with `*` -> why it stays}."""


def findings(*arguments: str | Path) -> list[dict[str, Any]]:
    """Return what checkov finds; it reads nothing from a network."""
    said = run("sh", "-c", '"$@" || true', "-", tool("checkov"), "--skip-download", "--quiet", "-o", "json", *arguments)
    reports = json.loads(said)
    reports = reports if isinstance(reports, list) else [reports]
    assert all(report.get("summary", report)["parsing_errors"] == 0 for report in reports), reports
    return [finding for report in reports for finding in report["results"]["failed_checks"]]


def kept(finding: dict[str, Any]) -> bool:
    """Say whether a finding has its reason in exceptions.yaml."""
    return any(Path(finding["resource"]).match(pattern) for pattern in EXCEPTIONS.get(finding["check_id"], {}))


def told(found: Iterable[dict[str, Any]]) -> str:
    """Return findings as lines that say what to change."""
    lines = {f"{each['check_id']} {each['resource']}: {each['check_name']}" for each in found}
    return "\n".join([*sorted(lines), "Mend it, or give the reason in tests/deploy/exceptions.yaml."])


def test_manifests_of_production_pass_the_scanner(tmp_path: Path) -> None:
    for release in releases():
        if release.environment == "prod":
            rendered = documents(render(release))
            for document in rendered:
                document["metadata"].setdefault("namespace", release.namespace)
            (tmp_path / f"{release}.yaml").write_text(yaml.safe_dump_all(rendered))

    found = [each for each in findings("--framework", "kubernetes", "-d", tmp_path) if not kept(each)]

    assert not found, told(found)


def test_dockerfile_and_workflows_pass_the_scanner() -> None:
    arguments = ["--framework", "dockerfile", "github_actions", "-f", CHECKOUT / "Dockerfile"]
    workflows = sorted((CHECKOUT / ".github" / "workflows").glob("*.yaml"))

    found = [each for each in findings(*arguments, *workflows) if not kept(each)]

    assert not found, told(found)


@pytest.mark.parametrize("cloud", ["aws", "gcp", "azure"])
@pytest.mark.parametrize("part", ["bootstrap", "modules"])
def test_terraform_passes_the_scanner(part: str, cloud: str) -> None:
    found = findings("--framework", "terraform", "-d", CHECKOUT / "terraform" / part / cloud)

    assert not found, told(found)


def test_dockerfile_is_well_made() -> None:
    run(Path(sys.executable).parent / "hadolint", CHECKOUT / "Dockerfile")


def test_every_exception_has_a_reason() -> None:
    bare = [check for check, places in EXCEPTIONS.items() if not all(len(why.split()) > 3 for why in places.values())]

    assert not bare, f"tests/deploy/exceptions.yaml: say why {bare} stay."
