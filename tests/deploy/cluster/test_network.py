"""Who reaches whom when NetworkPolicies are enforced: what the charts allow, and nothing beside."""

from __future__ import annotations

import pytest

from tests.deploy.cluster import node
from tests.deploy.cluster.machine import ClusterError

pytestmark = pytest.mark.usefixtures("deployed")
ASK = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=3).close()"


def pod_of(service: str) -> str:
    found = node.kubectl().get("pods", namespace="isa-cloud", selector=f"app.kubernetes.io/name={service}")
    return str(next(each["metadata"]["name"] for each in found if each["status"]["phase"] == "Running"))


def reaches(service: str, host: str, port: int) -> bool:
    """Whether a service's own container can open a connection."""
    try:
        node.kubectl().run(
            "exec", pod_of(service), "--namespace", "isa-cloud", "--container", service, "--",
            "python", "-c", ASK, host, str(port),
        )  # fmt: skip
    except ClusterError as error:
        assert "timed out" in str(error) or "TimeoutError" in str(error), error
        return False
    return True


@pytest.mark.parametrize(
    ("service", "host", "port"),
    [
        ("postgres-grpc", "postgres.isa-data", 5432),
        ("redis-grpc", "redis.isa-data", 6379),
        ("nats-grpc", "nats.isa-data", 4222),
        ("loki-grpc", "loki.isa-data", 3100),
        ("tasks", "kafka.isa-data", 9092),
        ("tasks", "registry.isa-data", 8080),
    ],
)
def test_a_service_reaches_its_engines(service: str, host: str, port: int) -> None:
    assert reaches(service, host, port), f"the NetworkPolicies of {service} and of {host} do not let it"


@pytest.mark.parametrize(
    ("service", "host", "port"),
    [
        ("tasks", "postgres.isa-data", 5432),
        ("tasks", "redis.isa-data", 6379),
        ("redis-grpc", "postgres.isa-data", 5432),
        ("analytics", "users.isa-cloud", 8001),
        ("analytics", "argocd-server.argocd", 443),
        ("users", "loki.isa-data", 3100),
    ],
)
def test_a_service_reaches_nothing_else(service: str, host: str, port: int) -> None:
    assert not reaches(service, host, port), f"a NetworkPolicy lets {service} reach {host}:{port}"
