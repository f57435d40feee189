"""Every chart renders, the same with Helm 3 and Helm 4, into what a strict API server takes."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.deploy.rendering import CHARTS, CLOUDS, ENVIRONMENTS, NAMESPACES, Release, charts, releases, render
from tests.deploy.schemas import conform
from tests.deploy.tools import run, tool

HERE = Path(__file__).resolve().parent
WRONG = sorted((HERE / "negative").glob("*.yaml"))
PLACES = [(environment, cloud) for environment in ENVIRONMENTS for cloud in CLOUDS]


def of(environment: str, cloud: str) -> list[Release]:
    """Return the releases of one place."""
    return [each for each in releases() if (each.environment, each.cloud) == (environment, cloud)]


def test_every_chart_has_its_namespace() -> None:
    assert set(charts()) == set(NAMESPACES), "tests/deploy/rendering.py: NAMESPACES names the charts and where they go."


@pytest.mark.parametrize("chart", charts())
@pytest.mark.parametrize("helm", ["helm", "helm4"])
def test_charts_are_clean_to_lint(helm: str, chart: str) -> None:
    release = next(each for each in releases() if each.chart == chart and each.cloud == "aws")
    values = [part for path in release.values for part in ("--values", str(path))]

    run(tool(helm), "lint", "--strict", "--quiet", CHARTS / chart, *values)


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_manifests_are_what_a_strict_api_server_takes(environment: str, cloud: str) -> None:
    text = "\n---\n".join(render(release) for release in of(environment, cloud))

    found = conform(text)

    assert found
    wrong = [f"{each['kind']} {each['name']}: {each['msg']}" for each in found if each["status"] != "statusValid"]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_helm_4_renders_what_helm_3_renders(environment: str, cloud: str) -> None:
    for release in of(environment, cloud):
        assert render(release, helm="helm4") == render(release), f"Helm 3 and 4 differ for {release}."


@pytest.mark.parametrize("path", WRONG, ids=lambda path: path.stem)
def test_what_is_wrong_is_found(path: Path) -> None:
    wanted = path.read_text().splitlines()[0].removeprefix("# ")

    (found,) = conform(path.read_text())

    assert found["status"] == "statusInvalid", f"{path.name} should be refused: {found}"
    assert wanted in found["msg"], found["msg"]


def test_there_are_wrong_manifests_to_find() -> None:
    kinds = {yaml.safe_load(path.read_text())["kind"] for path in WRONG}

    assert kinds >= {"Service", "Component", "Application", "ScaledObject", "KafkaTopic", "ExternalSecret", "HTTPRoute"}


@pytest.mark.parametrize("chart", [name for name in charts() if (CHARTS / name / "tests").is_dir()])
def test_charts_pass_their_own_tests(chart: str) -> None:
    run(tool("helm-unittest"), "--strict", CHARTS / chart)
