"""Who watches the set: Prometheus takes the rules, each alert fires and keeps quiet, and reaches who it should."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import copies
from runtime.engines import load_engines
from runtime.layout import CHECKOUT
from tests.deploy.rendering import CHARTS, Release, manifests
from tests.deploy.tools import run, tool
from tests.unit.observability.test_observability import DASHBOARDS, RULES, TESTS, alerts, expressions, made, recorded

OBSERVABILITY = CHECKOUT / "observability"
OTHERS = {
    "up": "Prometheus",
    "ALERTS": "Prometheus",
    "process_cpu_seconds_total": "the Python client",
    "process_resident_memory_bytes": "the Python client",
    "process_open_fds": "the Python client",
    "process_max_fds": "the Python client",
    "container_cpu_usage_seconds_total": "cAdvisor",
    "container_memory_working_set_bytes": "cAdvisor",
    "kubelet_volume_stats_used_bytes": "the kubelet",
    "kubelet_volume_stats_capacity_bytes": "the kubelet",
    "kube_cronjob_status_last_successful_time": "kube-state-metrics",
    "kube_deployment_spec_replicas": "kube-state-metrics",
    "kube_deployment_status_replicas_available": "kube-state-metrics",
    "kube_horizontalpodautoscaler_spec_max_replicas": "kube-state-metrics",
    "kube_horizontalpodautoscaler_status_current_replicas": "kube-state-metrics",
    "kube_job_status_failed": "kube-state-metrics",
    "kube_pod_container_resource_limits": "kube-state-metrics",
    "kube_pod_container_status_restarts_total": "kube-state-metrics",
    "dapr_component_pubsub_ingress_bulk_event_count": "daprd",
    "dapr_resiliency_activations_total": "daprd",
}
"""Series that others export, and who."""
WORDS = re.compile(r"\b(?:and|or|unless|by|without|on|ignoring|group_left|group_right|bool|offset)\b")
VARIABLES = ("service", "topic", "namespace")
"""Of dashboards, beside the data source."""


def metrics(expression: str) -> set[str]:
    """Names of the series in an expression."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return set(re.findall(r"(?<![\w.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", WORDS.sub(" ", bare)))


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every case about an alert, and the file that it is in."""
    for file in TESTS:
        for test in yaml.safe_load(file.read_text())["tests"]:
            for case in test.get("alert_rule_test", []):
                yield file.name, case


def release(environment: str) -> Release:
    return Release(chart="observability", name="observability", environment=environment, cloud="aws")


def rendered(environment: str) -> list[dict[str, Any]]:
    return manifests(release(environment))


def test_prometheus_takes_its_configuration_and_every_rule() -> None:
    run(tool("promtool"), "check", "config", OBSERVABILITY / "prometheus.yaml")
    run(tool("promtool"), "check", "rules", *RULES)


@pytest.mark.ac("phase-v:A:5")
def test_every_alert_fires_when_it_should() -> None:
    assert TESTS
    run(tool("promtool"), "test", "rules", *TESTS)


@pytest.mark.parametrize("alert", sorted(alerts()))
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_keeps_quiet(alert: str) -> None:
    found = [bool(case.get("exp_alerts")) for _, case in cases() if case["alertname"] == alert]

    assert True in found, f"observability/tests has no case in which {alert} fires."
    assert False in found, f"observability/tests has no case in which {alert} keeps quiet: add it to quiet.yaml."


def test_the_quiet_set_has_a_figure_for_every_alert() -> None:
    """Otherwise an alert keeps quiet there because there is nothing to look at."""
    (test,) = yaml.safe_load((OBSERVABILITY / "tests" / "quiet.yaml").read_text())["tests"]
    given = {re.split(r"[{\s]", series["series"])[0] for series in test["input_series"]}
    quiet = {case["alertname"] for case in test["alert_rule_test"]}
    sources = {rule["record"]: metrics(rule["expr"]) for file in RULES for rule in rules_of(file) if "record" in rule}

    def base(names: set[str]) -> set[str]:
        return {each for name in names for each in (base(sources[name]) if name in sources else {name})}

    for name in quiet:
        missing = base(metrics(alerts()[name]["expr"])) - given
        assert not missing, f"quiet.yaml gives {name} no {', '.join(missing)}."
    assert not given - {each for rule in alerts().values() for each in base(metrics(rule["expr"]))}


def rules_of(file: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


@pytest.mark.parametrize(("place", "expression"), list(expressions()))
def test_every_expression_names_series_that_somebody_exports(place: str, expression: str) -> None:
    unknown = metrics(expression) - made() - recorded() - OTHERS.keys()

    assert not unknown, (
        f"{place} names {', '.join(sorted(unknown))}: no code of ours exports it, nor anybody of OTHERS."
    )


def test_every_query_of_a_dashboard_is_promql(tmp_path: Path) -> None:
    queries = []
    for place, expression in expressions():
        text = re.sub(rf"\$(?:{'|'.join(VARIABLES)})\b", ".*", expression)
        assert "$" not in text, f"{place}: {text} has a variable that VARIABLES does not know."
        queries.append({"record": "a:b", "expr": text, "labels": {"place": re.sub(r"[^\w]", "_", place)}})
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": queries}]}))

    run(tool("promtool"), "check", "rules", "--lint=none", file)


def test_dashboards_have_names_of_their_own_and_take_their_source_from_a_variable() -> None:
    documents = {file.name: json.loads(file.read_text()) for file in DASHBOARDS}

    for key in ("uid", "title"):
        assert len({each[key] for each in documents.values()}) == len(documents), f"Two dashboards share their {key}."
    for name, document in documents.items():
        variables = {each["name"]: each for each in document["templating"]["list"]}
        assert variables["datasource"]["query"] == "prometheus", name
        assert set(uids(document)) == {"${datasource}"}, f"{name}: a panel names a data source of somebody's own."
        assert variables.keys() - {"datasource"} <= set(VARIABLES), name
        places = [tuple(panel["gridPos"].values()) for panel in document["panels"]]
        assert len(places) == len(set(places)), f"{name}: two panels stand in one place."


def uids(part: object) -> Iterator[str]:
    """The data sources that a dashboard names."""
    if isinstance(part, list):
        for each in part:
            yield from uids(each)
    if isinstance(part, dict):
        if isinstance(part.get("datasource"), dict):
            yield part["datasource"]["uid"]
        for each in part.values():
            yield from uids(each)


@pytest.mark.ac("phase-v:C:5")
def test_production_has_a_dashboard_of_rooms_events_pools_and_autoscalers() -> None:
    shown = {name for place, text in expressions() if place.startswith("production.json") for name in metrics(text)}

    wanted = {
        "isa:requests:rate5m", "isa:failures:ratio5m", "isa:latency:p95_5m",
        "isa:consumer_lag:records", "isa:pool:used_ratio",
        "kube_horizontalpodautoscaler_status_current_replicas", "container_memory_working_set_bytes", "ALERTS",
    }  # fmt: skip
    assert wanted <= shown


def test_copies_in_charts_are_what_they_are_copied_from() -> None:
    for path, text in copies.copies().items():
        place = path.relative_to(CHECKOUT)
        assert path.exists() and path.read_text() == text, f"{place} is stale: run `make generate`."
    assert not copies.orphans(), "Files that have no source any more: delete them."


@pytest.mark.parametrize("environment", ["dev", "prod"])
def test_the_chart_brings_every_rule_and_dashboard_as_it_is(environment: str) -> None:
    documents = rendered(environment)
    found = {each["metadata"]["name"]: each for each in documents}

    for file in RULES:
        assert found[f"isa-{file.stem}"]["spec"] == yaml.safe_load(file.read_text()), file.name
    for file in DASHBOARDS:
        made = found[f"isa-dashboard-{file.stem}"]
        assert made["data"] == {file.name: file.read_text()}
        assert made["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert sum(each["kind"] == "PrometheusRule" for each in documents) == len(RULES)


@pytest.fixture(params=["dev", "staging", "prod"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """An environment, and the file that Alertmanager gets there."""
    (given,) = [
        each for each in rendered(request.param) if each["metadata"]["name"] == "alertmanager" and "data" in each
    ]
    file = tmp_path / "alertmanager.yaml"
    file.write_text(given["data"]["alertmanager.yaml"])
    return request.param, file


def test_alertmanager_takes_its_configuration(place: tuple[str, Path]) -> None:
    run(tool("amtool"), "check-config", place[1])


def test_every_alert_reaches_who_it_should(place: tuple[str, Path]) -> None:
    environment, file = place
    pages = "page" if environment == "prod" else "ticket"
    wanted = {
        name: (rule["labels"]["severity"], {"page": pages, "ticket": "ticket"}) for name, rule in alerts().items()
    }

    for name, (severity, receivers) in wanted.items():
        assert receiver(file, alertname=name, severity=severity, service="tasks") == receivers[severity], name


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"alertname": "KubePodCrashLooping", "severity": "warning"}, "ticket"),
        ({"alertname": "KubePersistentVolumeFillingUp", "severity": "critical"}, "page"),
        ({"alertname": "Watchdog", "severity": "none"}, "nobody"),
        ({"alertname": "InfoInhibitor", "severity": "info"}, "nobody"),
        ({"alertname": "OfSomebodyElse"}, "ticket"),
    ],
)
def test_what_others_rules_say_is_heard_too(labels: dict[str, str], wanted: str) -> None:
    assert receiver(OBSERVABILITY / "alertmanager.yaml", **labels) == wanted


def receiver(file: Path, **labels: str) -> str:
    """Who hears of an alert."""
    matchers = [f"{name}={value}" for name, value in labels.items()]
    return run(tool("amtool"), "config", "routes", "test", f"--config.file={file}", *matchers).strip()


def test_receivers_are_told_how_by_files_that_the_chart_mounts() -> None:
    text = (OBSERVABILITY / "alertmanager.yaml").read_text()
    files = re.findall(r"(?:_file): (\S+)", text)
    (manager,) = [each for each in rendered("prod") if each["kind"] == "StatefulSet"]
    mounts = [each["mountPath"] for each in manager["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]]

    assert files and all(any(file.startswith(f"{mount}/") for mount in mounts) for file in files)
    assert not re.search(r"https?://hooks|routing_key: |api_url: ", text), "A secret belongs into a file."
    keys = {Path(file).name for file in files}
    assert keys == set(re.findall(r"--from-literal=([a-z-]+)=", (CHARTS / "observability" / "README.md").read_text()))


def test_prometheus_tells_the_alertmanager_that_the_chart_has() -> None:
    platform = yaml.safe_load((CHECKOUT / "argocd" / "platform" / "prometheus.yaml").read_text())["helm"]
    (told,) = platform["prometheus"]["prometheusSpec"]["alertingEndpoints"]
    (service,) = [each for each in rendered("prod") if each["kind"] == "Service"]

    assert platform["alertmanager"] == {"enabled": False}, "There would be two."
    assert (told["namespace"], told["name"]) == (release("prod").namespace, service["metadata"]["name"])
    assert told["port"] in {port["name"] for port in service["spec"]["ports"]}


def test_alertmanager_is_of_the_version_that_looked_at_its_configuration() -> None:
    image = yaml.safe_load((CHARTS / "observability" / "values.yaml").read_text())["alertmanager"]["image"]

    assert image == f"quay.io/prometheus/alertmanager:v{load_engines()['amtool'].version}"
