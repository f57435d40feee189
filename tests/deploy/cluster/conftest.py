"""Leave the real cluster to `make deploy-test`; bring it up once for all of its tests, and take it down again."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.deploy.cluster import stages

collect_ignore_glob = [] if os.environ.get("ISA_DEPLOY_TEST") else ["test_*.py"]


@pytest.fixture(scope="session")
def node() -> Iterator[None]:
    """A node with images, DNS, volumes, and every definition; gone at the end unless ISA_DEPLOY_KEEP is set."""
    try:
        stages.run("up", "images", "addons", "definitions")
        yield
    finally:
        if not os.environ.get("ISA_DEPLOY_KEEP"):
            stages.run("down")


@pytest.fixture(scope="session")
def deployed(node: None) -> None:
    """Everything that git says, running."""
    stages.run("argocd", "secrets", "begin", "wait")
