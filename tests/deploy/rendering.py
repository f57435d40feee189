"""The charts as ArgoCD renders them: every release of every environment on every cloud."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from runtime.layout import CHECKOUT
from runtime.processes import load_apps
from tests.deploy.tools import documents, run, tool

CHARTS = CHECKOUT / "charts"
ENVIRONMENTS = ("dev", "staging", "prod")
CLOUDS = ("aws", "gcp", "azure", "local")
GITOPS = CHECKOUT / "argocd"
GATEWAYS = ("apisix", "kong", "nginx", "traefik")


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One Helm release."""

    chart: str
    name: str
    environment: str
    cloud: str
    gateway: str = "nginx"

    def __str__(self) -> str:
        return f"{self.name}-{self.environment}-{self.cloud}"

    @property
    def namespace(self) -> str:
        """Where it goes."""
        return "isa-cloud" if self.chart == "service" else str(declared()[self.chart]["namespace"])

    @property
    def values(self) -> list[Path]:
        """Its values files, as its ApplicationSet lists them; later ones win."""
        words = {"<cloud>": self.cloud, "<environment>": self.environment, "<gateway>": self.gateway}
        files = service_values(self.name) if self.chart == "service" else declared()[self.chart]["valueFiles"]
        for word, value in words.items():
            files = [file.replace(word, value) for file in files]
        return [CHARTS / file for file in files]


@cache
def declared() -> dict[str, dict[str, Any]]:
    """Chart -> the release of it that argocd/releases declares."""
    found = [yaml.safe_load(path.read_text()) for path in sorted((GITOPS / "releases").glob("*.yaml"))]
    return {each["chart"].removeprefix("charts/"): each for each in found if each["chart"].startswith("charts/")}


@cache
def service_values(name: str) -> list[str]:
    """The values files that the ApplicationSet of the services lists, with our words for its expressions."""
    template = yaml.safe_load((GITOPS / "appsets" / "services.yaml").read_text())["spec"]["template"]
    words = {
        "{{ .service.name }}": name,
        "{{ .metadata.labels.cloud }}": "<cloud>",
        "{{ .metadata.labels.gateway }}": "<gateway>",
        "{{ .metadata.labels.environment }}": "<environment>",
    }
    files = [file.removeprefix("../") for file in template["spec"]["source"]["helm"]["valueFiles"]]
    for word, ours in words.items():
        files = [file.replace(word, ours) for file in files]
    return files


def charts() -> list[str]:
    """The charts that are released; the library is none."""
    found = sorted(path.parent.name for path in CHARTS.glob("*/Chart.yaml"))
    return [name for name in found if name != "lib"]


def releases() -> Iterator[Release]:
    """Every release there is."""
    services = [app.name for app in load_apps()]
    for environment in ENVIRONMENTS:
        for cloud in CLOUDS:
            for chart in charts():
                if chart != "service" and cloud not in declared()[chart]["clouds"]:
                    continue
                for name in services if chart == "service" else [chart]:
                    yield Release(chart=chart, name=name, environment=environment, cloud=cloud)


def platform(cloud: str, environment: str) -> dict[str, str]:
    """What Terraform would hand over: each annotated output of the contract."""
    contract = yaml.safe_load((CHECKOUT / "terraform" / "contract.yaml").read_text())["outputs"]
    samples = yaml.safe_load((Path(__file__).parent / "outputs.yaml").read_text())[cloud]
    given = {**samples, "cloud": cloud, "environment": environment, "secret_prefix": f"isa-{environment}-"}
    wanted = {name for name, output in contract.items() if output["annotation"]}
    assert given.keys() == wanted, f"outputs.yaml and contract.yaml differ for {cloud} by {given.keys() ^ wanted}."
    return {camel(name): value for name, value in given.items()}


def camel(name: str) -> str:
    """`kafka_brokers` as `kafkaBrokers`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def helm(release: Release, *command: str | Path, version: str = "helm") -> str:
    """Run a command of Helm with the values of a release."""
    values = [part for path in release.values for part in ("--values", str(path))]
    given = {} if release.cloud == "local" else {"global": {"platform": platform(release.cloud, release.environment)}}
    return run(tool(version), *command, *values, "--values", "-", given=yaml.safe_dump(given))


@cache
def render(release: Release, *, version: str = "helm") -> str:
    """The manifests of a release, as text."""
    place = ["--namespace", release.namespace, "--kube-version", "1.34.0"]
    return helm(release, "template", release.name, CHARTS / release.chart, *place, version=version)


@cache
def manifests(release: Release) -> list[dict[str, Any]]:
    """The manifests of a release."""
    return documents(render(release))
