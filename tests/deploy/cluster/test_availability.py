"""Nothing accepted is lost, and nobody notices: a rolling update and a drained node under load."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.deploy.cluster import node, story
from tests.deploy.cluster.machine import say

pytestmark = pytest.mark.usefixtures("deployed")


def under_load(seconds: float, meanwhile: Callable[[], None]) -> dict[str, Any]:
    """Create tasks for some seconds while something happens; what the load found."""
    found: dict[str, Any] = {}

    def load() -> None:
        found.update(json.loads(story.inside("tests.deploy.cluster.load", str(seconds))))

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(5)
    meanwhile()
    thread.join()
    return found


def test_a_rolling_update_under_load_fails_no_request() -> None:
    client = node.kubectl()

    def roll() -> None:
        for service in ("tasks", "postgres-grpc"):
            client.run("rollout", "restart", f"deployment/{service}", "--namespace", "isa-cloud")
            client.rolled_out("deployment", service, namespace="isa-cloud")

    found = under_load(90, roll)

    say(f"Rolling update of tasks and postgres-grpc: {found}")
    assert found["failed"] == 0, found["failures"]
    assert found["there"] == found["accepted"] > 100


def test_a_drained_node_loses_nothing_that_was_accepted() -> None:
    client = node.kubectl()
    drained: dict[str, float] = {}

    def drain() -> None:
        began = time.monotonic()
        client.run(
            "drain", node.NODE, "--ignore-daemonsets", "--delete-emptydir-data",
            "--pod-selector", "app.kubernetes.io/part-of=isa-cloud",
            "--timeout=300s", timeout=320,
        )  # fmt: skip
        drained["out"] = time.monotonic() - began
        client.run("uncordon", node.NODE)

    try:
        found = under_load(20, drain)
    finally:
        client.run("uncordon", node.NODE)
    began = time.monotonic()
    for namespace in ("isa-data", "isa-cloud"):
        for deployment in client.get("deployments", namespace=namespace):
            client.rolled_out("deployment", deployment["metadata"]["name"], namespace=namespace)

    back = time.monotonic() - began
    say(f"Drain: empty after {drained['out']:.0f} s, all back {back:.0f} s after the load; {found}")
    assert found["there"] >= found["accepted"], "an accepted task is gone"
    assert "All of it held." in story.inside("tests.deploy.cluster.story")
