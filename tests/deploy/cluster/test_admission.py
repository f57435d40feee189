"""Every manifest of every environment and cloud before a real API server, which refuses what is wrong."""

from __future__ import annotations

import pytest
import yaml

from tests.deploy import rendering
from tests.deploy.cluster import admission
from tests.deploy.cluster import node as machine
from tests.deploy.cluster.machine import ClusterError

pytestmark = pytest.mark.usefixtures("node")


def test_every_manifest_of_every_environment_is_admitted() -> None:
    counts = admission.check_everything()

    assert counts.keys() == {f"{each}-{cloud}" for each in rendering.ENVIRONMENTS for cloud in rendering.CLOUDS}
    assert min(counts.values()) > 200


WRONG = {
    "an expression of the definition (CEL)": """
        apiVersion: gateway.networking.k8s.io/v1
        kind: HTTPRoute
        metadata: {name: wrong, namespace: isa-cloud}
        spec:
          rules:
            - matches: [{path: {type: PathPrefix, value: no-slash}}]
              backendRefs: [{name: users, port: 80}]
        """,
    "an unknown field": """
        apiVersion: dapr.io/v1alpha1
        kind: Component
        metadata: {name: wrong, namespace: isa-cloud}
        spec: {type: state.redis, version: v1, metadata: [], scopez: [users]}
        """,
    "PodSecurity": """
        apiVersion: v1
        kind: Pod
        metadata: {name: wrong, namespace: isa-cloud}
        spec: {containers: [{name: wrong, image: "busybox:1.37.0-musl", securityContext: {privileged: true}}]}
        """,
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused(what: str) -> None:
    with pytest.raises(ClusterError):
        admission.apply_strictly(list(yaml.safe_load_all(WRONG[what])), "wrong")
    assert machine.kubectl().find("component", "wrong", namespace="isa-cloud") is None
