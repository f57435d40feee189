"""The stages of a real cluster, each of which can run alone, in this order."""

from __future__ import annotations

import time

from tests.deploy.cluster import addons, admission, gitops, images, node, scaling, story
from tests.deploy.cluster.machine import say

STAGES = {
    "up": node.up,
    "images": images.make_and_import,
    "addons": addons.install,
    "definitions": admission.install_definitions,
    "dry-run": admission.check_everything,
    "argocd": gitops.install,
    "secrets": gitops.make_secrets,
    "begin": gitops.begin,
    "wait": gitops.wait_for_everything,
    "keda": scaling.install_keda,
    "rollouts": scaling.install_rollouts,
    "story": story.tell,
    "reset": node.reset,
    "down": node.down,
}


def run(*names: str) -> None:
    """Run stages, saying how long each took."""
    for name in names:
        began = time.monotonic()
        STAGES[name]()
        say(f"{name}: {time.monotonic() - began:.0f} s.")
