"""Secrets of a development set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from runtime.layout import Layout
from runtime.postgres import databases_script
from runtime.secrets import DATABASES, ensure_secrets, ensure_tokens


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(home=tmp_path, cache=tmp_path)
    layout.make_folders()
    return layout


def test_secrets_are_generated_once(layout: Layout) -> None:
    first = ensure_secrets(layout, ["tasks"])

    second = ensure_secrets(layout, ["tasks", "users"])

    assert {name: second[name] for name in first} == first
    assert second["workload-client-users"]


def test_only_the_owner_reads_the_file(layout: Layout) -> None:
    ensure_secrets(layout, [])
    ensure_tokens(layout, ["tasks"])

    assert layout.secrets.stat().st_mode & 0o777 == 0o600
    assert (layout.run / "tokens.json").stat().st_mode & 0o777 == 0o600


def test_the_workload_keys_are_a_pair(layout: Layout) -> None:
    ensure_secrets(layout, [])
    secrets = json.loads(layout.secrets.read_text())

    private = load_pem_private_key(secrets["workload-signing-private"].encode(), None)
    public = load_pem_public_key(secrets["workload-signing-public"].encode())

    assert private.public_key() == public


def test_a_lost_public_key_is_not_replaced_by_a_strangers(layout: Layout) -> None:
    secrets = ensure_secrets(layout, [])
    del secrets["workload-signing-public"]
    layout.secrets.write_text(json.dumps(secrets))

    assert "workload-signing-public" not in ensure_secrets(layout, [])


def test_the_state_store_follows_the_port(layout: Layout) -> None:
    moved = Layout(home=layout.home, cache=layout.cache, port_base=20000)
    ensure_secrets(layout, [])

    assert "port=25432" in ensure_secrets(moved, [])["preferences-connection-string"]


def test_the_encryption_key_has_32_bytes(layout: Layout) -> None:
    assert len(bytes.fromhex(ensure_secrets(layout, [])["preferences-encryption-key"])) == 32


def test_each_database_is_closed_to_the_roles_of_others(layout: Layout) -> None:
    script = databases_script(ensure_secrets(layout, []))

    for database in DATABASES:
        assert f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;" in script
        assert f"GRANT CONNECT ON DATABASE {database} TO {database}_app, {database}_system;" in script
    assert "NOSUPERUSER NOBYPASSRLS" in script
