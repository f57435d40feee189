"""`isa secrets kubernetes`: each Secret that the charts read, where they read it, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli import secrets
from runtime.layout import CHECKOUT

Printed = dict[tuple[str, str], dict[str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISA_HOME", str(tmp_path))
    monkeypatch.delenv("SMTP_PASSWORD", raising=False)
    return tmp_path


def printed(*options: str) -> Printed:
    answer = CliRunner().invoke(secrets.app, ["kubernetes", *options])
    assert answer.exit_code == 0, answer.output
    documents: list[Any] = list(yaml.safe_load_all(answer.stdout))
    return {
        (document["metadata"]["namespace"], document["metadata"]["name"]): document["stringData"]
        for document in documents
        if document["kind"] == "Secret"
    }


@pytest.mark.usefixtures("home")
def test_every_secret_that_a_sidecar_or_a_migration_reads_is_in_the_services_namespace() -> None:
    found = {name for namespace, name in printed() if namespace == "isa-cloud"}
    derived = yaml.safe_load((CHECKOUT / "charts" / "derived" / "dapr.yaml").read_text())["dapr"]

    wanted = {
        *derived["secrets"],
        *(f"{app}-{side}-api-token" for app in derived["apps"] for side in ("app", "dapr")),
    }
    assert wanted <= found, f"cli/secrets.py makes no {', '.join(sorted(wanted - found))}"
    assert not {name for name in found if name.startswith("postgres-superuser")}, "services do not read it"


@pytest.mark.usefixtures("home")
def test_the_engines_read_their_own_and_nothing_of_a_service() -> None:
    found = {name for namespace, name in printed() if namespace == "isa-data"}

    assert {"postgres-superuser", "postgres-registry-owner", "redis-password", "nats-password"} <= found
    assert not {name for name in found if name.startswith(("workload-", "users-", "preferences-"))}


@pytest.mark.usefixtures("home")
def test_a_value_is_the_same_in_both_namespaces_and_the_second_time() -> None:
    first = printed()

    assert printed() == first
    assert first["isa-cloud", "redis-password"] == first["isa-data", "redis-password"]
    assert first["isa-cloud", "tasks-dapr-api-token"] != first["isa-cloud", "users-dapr-api-token"]


@pytest.mark.usefixtures("home")
def test_a_secret_has_the_key_of_its_own_name() -> None:
    for (_, name), values in printed().items():
        assert set(values) == ({"token"} if name.endswith("-api-token") else {name})


@pytest.mark.usefixtures("home")
def test_sidecars_find_postgresql_where_it_is_said_to_be() -> None:
    found = printed("--postgres", "db.example.org:6432", "--sslmode", "require")
    connection = found["isa-cloud", "preferences-connection-string"]["preferences-connection-string"]

    assert "host=db.example.org port=6432 " in connection and "sslmode=require" in connection
    assert found["isa-data", "postgres-preferences-owner"]["postgres-preferences-owner"] in connection
