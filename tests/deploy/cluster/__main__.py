"""`python -m tests.deploy.cluster STAGE...`: a real Kubernetes on the bare machine, one stage at a time."""

from __future__ import annotations

import argparse
import time

from tests.deploy.cluster import addons, admission, gitops, images, node
from tests.deploy.cluster.machine import ClusterError, say


def main() -> None:
    stages = {
        "up": node.up,
        "images": images.make_and_import,
        "addons": addons.install,
        "definitions": admission.install_definitions,
        "dry-run": admission.check_everything,
        "argocd": gitops.install,
        "secrets": gitops.make_secrets,
        "begin": gitops.begin,
        "reset": node.reset,
        "down": node.down,
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=stages, metavar="STAGE", help=", ".join(stages))
    for name in parser.parse_args().stages:
        began = time.monotonic()
        try:
            stages[name]()
        except ClusterError as error:
            raise SystemExit(f"{name}: {error}") from None
        say(f"{name}: {time.monotonic() - began:.0f} s.")


if __name__ == "__main__":
    main()
