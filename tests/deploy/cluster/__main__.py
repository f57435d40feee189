"""`python -m tests.deploy.cluster STAGE...`: a real Kubernetes on the bare machine, one stage at a time."""

from __future__ import annotations

import argparse

from tests.deploy.cluster import stages
from tests.deploy.cluster.machine import ClusterError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stages", nargs="+", choices=stages.STAGES, metavar="STAGE", help=", ".join(stages.STAGES))
    for name in parser.parse_args().stages:
        try:
            stages.run(name)
        except ClusterError as error:
            raise SystemExit(f"{name}: {error}") from None


if __name__ == "__main__":
    main()
