"""Print ArgoCD's Secret of a cluster from what Terraform handed over.

    terraform -chdir=terraform/live/aws/prod output -json > outputs.json
    python argocd/bootstrap/cluster_secret.py outputs.json | kubectl apply -f -

Labels say which ApplicationSets take the cluster, annotations become the charts' `global.platform`. The names are
those of terraform/contract.yaml: one that is missing or unknown is refused, because a chart would miss it much later.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
IN_CLUSTER = "https://kubernetes.default.svc"
"""Every cluster runs an ArgoCD of its own: a mistake, or an outage, stays in one environment."""


class Refused(Exception):
    """What was handed over is not what the contract says; the message names each difference."""


def contract() -> dict[str, bool]:
    """Name of an output -> whether it becomes an annotation."""
    outputs = yaml.safe_load((ROOT / "terraform/contract.yaml").read_text())["outputs"]
    return {name: output["annotation"] for name, output in outputs.items()}


def cluster_secret(outputs: Mapping[str, Any], gateway: str) -> dict[str, Any]:
    """Return the Secret of the cluster that `terraform output -json` describes."""
    names = contract()
    problems = [f"{name} is missing" for name in names if name not in outputs]
    problems += [f"{name} is not in terraform/contract.yaml" for name in outputs if name not in names]
    values = {name: outputs[name].get("value") for name in names if name in outputs}
    problems += [f"{name} is not a string: {value!r}" for name, value in values.items() if not isinstance(value, str)]
    for name, folder in (("environment", "charts/envs"), ("cloud", "charts/clouds")):
        known = {path.stem for path in (ROOT / folder).iterdir()}
        if isinstance(values.get(name), str) and values[name] not in known:
            problems.append(f"{name} {values[name]!r} is none of {folder}: {', '.join(sorted(known))}")
    gateways = sorted(path.stem for path in (ROOT / "charts/gateways").glob("*.yaml"))
    if gateway not in gateways:
        problems.append(f"gateway {gateway!r} is none of charts/gateways: {', '.join(gateways)}")
    if problems:
        raise Refused("\n".join(problems))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"cluster-{values['cluster_name']}",
            "namespace": "argocd",
            "labels": {
                "argocd.argoproj.io/secret-type": "cluster",
                "environment": values["environment"],
                "cloud": values["cloud"],
                "gateway": gateway,
            },
            "annotations": {
                f"isa-cloud.io/{name.replace('_', '-')}": values[name] for name, annotated in names.items() if annotated
            },
        },
        "stringData": {
            "name": values["cluster_name"],
            "server": IN_CLUSTER,
            "config": json.dumps({"tlsClientConfig": {"insecure": False}}),
        },
    }


def main() -> None:
    """Read outputs, print the Secret."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "outputs",
        nargs="?",
        type=argparse.FileType(),
        default=sys.stdin,
        help="`terraform output -json`; without it: standard input",
    )
    parser.add_argument("--gateway", default="nginx", help="which of charts/gateways answers at the edge (nginx)")
    arguments = parser.parse_args()
    try:
        secret = cluster_secret(json.load(arguments.outputs), arguments.gateway)
    except json.JSONDecodeError as error:
        sys.exit(f"That is not the output of `terraform output -json`: {error}")
    except Refused as refused:
        sys.exit(f"Refused:\n{refused}")
    yaml.safe_dump(secret, sys.stdout, sort_keys=False, width=10_000)


if __name__ == "__main__":
    main()
