"""Leave the real cluster to `make deploy-test`; bring it up once for all of its tests, and take it down again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.deploy.cluster import stages

IS_UP = bool(os.environ.get("ISA_DEPLOY_IS_UP"))
"""The cluster runs already and stays: for whoever works on one test."""
collect_ignore_glob = [] if os.environ.get("ISA_DEPLOY_TEST") else ["test_*.py"]


@pytest.fixture(scope="session")
def node() -> Iterator[None]:
    """A node with images, DNS, volumes, and every definition; gone at the end."""
    if IS_UP:
        yield
        return
    try:
        stages.run("up", "images", "addons", "definitions")
        yield
    finally:
        stages.run("down")


@pytest.fixture(scope="session")
def deployed(node: None) -> None:
    """Everything that git says, running."""
    if not IS_UP:
        stages.run("argocd", "secrets", "keda", "begin", "wait")
