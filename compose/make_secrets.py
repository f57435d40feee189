"""Generate the set's secrets at its first start, and hand each container its own part. What exists is never changed."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from runtime.layout import Layout, layout_from_environment
from runtime.postgres import databases_script
from runtime.processes import load_apps
from runtime.secrets import ensure_secrets, ensure_tokens, write_private

STATES = Path("/rooms")
POSTGRES = Path("/run/isa/postgres")
REGISTRY = Path("/run/isa/registry")


def make_secrets() -> None:
    """Fill the volumes that this container has mounted."""
    layout = layout_from_environment()
    layout.run.mkdir(parents=True, exist_ok=True, mode=0o700)
    apps = [app.name for app in load_apps()]
    secrets = ensure_secrets(layout, apps)
    secrets["preferences-connection-string"] = (
        f"host=postgres port=5432 user=preferences_owner password={secrets['postgres-preferences-owner']} "
        "dbname=preferences sslmode=disable application_name=preferences"
    )
    write_private(layout.secrets, json.dumps(secrets, indent=2, sort_keys=True))
    hand_out_tokens(layout, ensure_tokens(layout, apps))
    write_private(POSTGRES / "password", secrets["postgres-superuser"])
    write_private(POSTGRES / "pgpass", f"*:*:*:isa:{secrets['postgres-superuser']}")
    write_private(POSTGRES / "databases.sql", databases_script(secrets))
    write_private(
        REGISTRY / "registry.properties", f"apicurio.datasource.password={secrets['postgres-registry-owner']}"
    )
    sys.stdout.write(f"{len(secrets)} secrets, tokens of {len(apps)} rooms.\n")


def hand_out_tokens(layout: Layout, tokens: Mapping[str, Mapping[str, str]]) -> None:
    """A room and its sidecar share two tokens, which no other room sees."""
    folder = layout.home / "tokens"
    folder.mkdir(exist_ok=True, mode=0o700)
    for app, pair in tokens.items():
        text = "".join(f"export {name}={value}\n" for name, value in pair.items())
        write_private(folder / f"{app}.env", text)
        write_private(STATES / app / "token.env", text)
        (STATES / app / "spool").mkdir(exist_ok=True, mode=0o700)


if __name__ == "__main__":
    make_secrets()
