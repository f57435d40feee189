"""Rules and dashboards speak of what there is: every metric of ours that they name, our programs export."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime.layout import CHECKOUT

OBSERVABILITY = CHECKOUT / "observability"
RULES = sorted((OBSERVABILITY / "rules").glob("*.yaml"))
TESTS = sorted((OBSERVABILITY / "tests").glob("*.yaml"))
DASHBOARDS = sorted((OBSERVABILITY / "dashboards").glob("*.json"))

OURS = re.compile(r"\bisa_[a-z0-9_]+")
RECORDED = re.compile(r"\bisa:[a-z0-9_:]+")
MADE = re.compile(r"""(?:Counter|Gauge|Histogram|counter|gauge|histogram)\(\s*"(isa_[a-z0-9_]+)\"""")
SUFFIXES = ("", "_total", "_bucket", "_sum", "_count")


def made() -> set[str]:
    """Names of the series that our programs export."""
    names = {
        name
        for folder in ("kernel", "services")
        for file in (CHECKOUT / folder).rglob("*.py")
        for name in MADE.findall(file.read_text())
    }
    return {name.removesuffix("_total") + suffix for name in names for suffix in SUFFIXES} | names


def rules(file: Path) -> Iterator[dict[str, Any]]:
    """The rules of a file."""
    for group in yaml.safe_load(file.read_text())["groups"]:
        yield from group["rules"]


def recorded() -> set[str]:
    """Names of the recorded series."""
    return {rule["record"] for file in RULES for rule in rules(file) if "record" in rule}


def alerts() -> dict[str, dict[str, Any]]:
    """Alerts by name."""
    return {rule["alert"]: rule for file in RULES for rule in rules(file) if "alert" in rule}


def expressions() -> Iterator[tuple[str, str]]:
    """Every expression, and where it stands."""
    for file in RULES:
        for rule in rules(file):
            yield f"{file.name}: {rule.get('alert') or rule['record']}", rule["expr"]
    for file in DASHBOARDS:
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}: {panel['title']}", target["expr"]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_what_an_expression_names_is_there(place: str, expression: str) -> None:
    assert not set(OURS.findall(expression)) - made(), place
    assert not set(RECORDED.findall(expression)) - recorded(), place


@pytest.mark.ac("phase-v:A3.4:1", "phase-v:A3.4:2", "phase-v:A3.4:3", "phase-v:A3.4:4", "phase-v:A3.4:5")
@pytest.mark.parametrize(
    ("alert", "threshold"),
    [
        ("ProcessorUseHigh", "> 0.8"),
        ("MemoryUseHigh", "> 0.8"),
        ("ErrorRateHigh", "> 0.01"),
        ("LatencyHigh", "> 0.5"),
        ("ConsumerLagHigh", "> 1000"),
        ("PoolNearlyOut", ">= 0.9"),
    ],
)
def test_the_alerts_that_were_asked_for_have_their_thresholds(alert: str, threshold: str) -> None:
    assert threshold in alerts()[alert]["expr"]


def test_every_alert_says_what_is_wrong_and_where_to_look() -> None:
    for name, rule in alerts().items():
        assert rule["labels"]["severity"] in ("page", "ticket"), name
        assert set(rule["annotations"]) == {"summary", "action"}, name


def test_every_alert_is_tested() -> None:
    tested = {
        case["alertname"]
        for file in TESTS
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case.get("exp_alerts")
    }

    assert tested == set(alerts())


@pytest.mark.ac("isa-cloud-prd:E7-US2:AC-2.3")
def test_a_dashboard_shows_calls_errors_and_latency_of_every_app() -> None:
    shown = [expression for place, expression in expressions() if place.startswith("rooms.json: ")]

    for name in ("isa_requests_total", "isa_request_duration_seconds_bucket"):
        assert any(name in expression and "service" in expression for expression in shown), name
    assert any("code" in expression for expression in shown)


@pytest.mark.ac("phase-v:A3.3:4")
def test_dashboards_are_what_grafana_takes() -> None:
    documents = [json.loads(file.read_text()) for file in DASHBOARDS]

    assert len({document["uid"] for document in documents}) == len(documents) == 4
    for document in documents:
        identifiers = [panel["id"] for panel in document["panels"]]
        assert len(identifiers) == len(set(identifiers))
        assert {panel["datasource"]["uid"] for panel in document["panels"]} == {"${datasource}"}


def test_a_metric_of_the_kernel_is_written_by_somebody() -> None:
    declared = re.findall(r"^([A-Z_]+) = prometheus_client\.", (CHECKOUT / "kernel/telemetry.py").read_text(), re.M)
    others = "\n".join(
        file.read_text()
        for folder in ("kernel", "services")
        for file in (CHECKOUT / folder).rglob("*.py")
        if file.name != "telemetry.py"
    )

    idle = [name for name in declared if not re.search(rf"\b{name}\.(?:labels|inc|set|set_function|observe)\(", others)]

    assert not idle, f"kernel/telemetry.py declares {', '.join(idle)}, and nothing ever writes it."
