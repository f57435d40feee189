"""Every chart renders, the same with Helm 3 and Helm 4, into what a strict API server takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from tests.deploy.rendering import (
    CHARTS,
    CLOUDS,
    ENVIRONMENTS,
    GATEWAYS,
    Release,
    charts,
    declared,
    helm,
    releases,
    render,
)
from tests.deploy.schemas import conform
from tests.deploy.tools import run, tool

HERE = Path(__file__).resolve().parent
WRONG = sorted((HERE / "negative").glob("*.yaml"))
PLACES = [(environment, cloud) for environment in ENVIRONMENTS for cloud in CLOUDS]


def of(environment: str, cloud: str) -> list[Release]:
    """Return the releases of one place."""
    return [each for each in releases() if (each.environment, each.cloud) == (environment, cloud)]


def lines(text: str) -> list[str]:
    """Return the lines of a text without the empty ones, of which Helm 4 writes more."""
    return [line for line in text.splitlines() if line.strip()]


def assert_conform(wanted: list[Release]) -> None:
    """Fail with what kubeconform finds in the manifests of these releases."""
    found = conform("\n---\n".join(render(release) for release in wanted))
    wrong = [each for each in found if each["status"] not in {"statusValid", "statusEmpty"}]
    said = [f"{each['kind']} {each['name']}: {each['status']} {each['msg']}" for each in wrong]
    assert len(found) > len(wanted)
    assert not wrong, "\n".join(said)


def test_every_chart_is_released() -> None:
    unreleased = set(charts()) - {"service"} - set(declared())

    assert not unreleased, f"argocd/releases has no file for the charts {sorted(unreleased)}."


@pytest.mark.parametrize("chart", charts())
@pytest.mark.parametrize("version", ["helm", "helm4"])
def test_charts_are_clean_to_lint(version: str, chart: str) -> None:
    release = next(each for each in releases() if each.chart == chart)

    helm(release, "lint", "--strict", "--quiet", CHARTS / chart, version=version)


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_manifests_are_what_a_strict_api_server_takes(environment: str, cloud: str) -> None:
    assert_conform(of(environment, cloud))


@pytest.mark.parametrize("gateway", GATEWAYS)
def test_every_gateway_gets_what_a_strict_api_server_takes(gateway: str) -> None:
    at_the_edge = [each for each in of("prod", "aws") if each.chart in {"edge", "service"}]

    assert_conform([replace(each, gateway=gateway) for each in at_the_edge])


@pytest.mark.parametrize(("environment", "cloud"), PLACES)
def test_helm_4_renders_what_helm_3_renders(environment: str, cloud: str) -> None:
    for release in of(environment, cloud):
        by_3, by_4 = (lines(render(release, version=version)) for version in ("helm", "helm4"))
        assert by_3 == by_4, f"Helm 3 and 4 differ for {release}."


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
