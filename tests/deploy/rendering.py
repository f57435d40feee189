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
from tests.deploy.tools import run, tool

CHARTS = CHECKOUT / "charts"
ENVIRONMENTS = ("dev", "staging", "prod")
CLOUDS = ("aws", "gcp", "azure", "local")
NAMESPACES = {
    "service": "isa-cloud",
    "dapr-resources": "isa-cloud",
    "data": "isa-data",
    "messaging": "isa-kafka",
    "observability": "observability",
    "edge": "edge",
    "dr": "isa-data",
}
"""Chart -> the namespace that argocd/ releases it into."""
DERIVED = {"dapr-resources": "dapr", "messaging": "topics"}
"""Chart -> its file in charts/derived."""
GATEWAY = "nginx"


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """One Helm release."""

    chart: str
    name: str
    environment: str
    cloud: str
    gateway: str = GATEWAY

    def __str__(self) -> str:
        return f"{self.name}-{self.environment}-{self.cloud}"

    @property
    def values(self) -> list[Path]:
        """Its values files; later ones win."""
        if self.chart == "service":
            first = [CHARTS / "derived" / "services" / f"{self.name}.yaml", CHARTS / "values" / f"{self.name}.yaml"]
        else:
            first = [CHARTS / "derived" / f"{DERIVED[self.chart]}.yaml"] if self.chart in DERIVED else []
        own = CHARTS / "envs" / self.environment
        last = [own / f"{self.name}.yaml", own / "image-tags" / f"{self.name}.yaml"] if self.chart == "service" else []
        gateway = [CHARTS / "gateways" / f"{self.gateway}.yaml"] if self.chart in {"service", "edge"} else []
        return [*first, CHARTS / "clouds" / f"{self.cloud}.yaml", *gateway, own / "environment.yaml", *last]


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
                for name in services if chart == "service" else [chart]:
                    yield Release(chart=chart, name=name, environment=environment, cloud=cloud)


def platform(cloud: str, environment: str) -> dict[str, str]:
    """What Terraform would hand over: a value for each annotated output of the contract, of the form it has there."""
    contract = yaml.safe_load((CHECKOUT / "terraform" / "contract.yaml").read_text())["outputs"]
    given = {
        "cloud": cloud,
        "region": "eu-central-1",
        "environment": environment,
        "domain": "example.com",
        "kafka_brokers": "broker-1.example.com:9098,broker-2.example.com:9098",
        "postgres_host": "postgres.example.com",
        "postgres_port": "5432",
        "redis_host": "redis.example.com",
        "redis_port": "6379",
        "object_store_endpoint": "https://store.example.com",
        "secret_prefix": f"isa-{environment}-",
    }
    return {
        camel(name): given.get(name, f"{name.replace('_', '-')}-of-{cloud}")
        for name, output in contract.items()
        if output["annotation"]
    }


def camel(name: str) -> str:
    """`kafka_brokers` as `kafkaBrokers`."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def render(release: Release, *, helm: str = "helm", extra: tuple[str, ...] = ()) -> str:
    """The manifests of a release, as text."""
    values = [part for path in release.values for part in ("--values", str(path))]
    given = {} if release.cloud == "local" else {"global": {"platform": platform(release.cloud, release.environment)}}
    return run(
        tool(helm), "template", release.name, CHARTS / release.chart, "--namespace", NAMESPACES[release.chart],
        "--kube-version", "1.34.0", *values, "--values", "-", *extra, given=yaml.safe_dump(given),
    )  # fmt: skip


@cache
def manifests(release: Release) -> list[dict[str, Any]]:
    """The manifests of a release."""
    return [document for document in yaml.load_all(render(release), Loader=yaml.CSafeLoader) if document]
