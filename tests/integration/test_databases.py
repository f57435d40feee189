"""`isa databases apply` on servers of this file's own: as a superuser, and as the lesser administrator of a cloud."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
import pytest_asyncio

from runtime import postgres
from runtime.layout import CHECKOUT
from runtime.postgres import databases_script
from runtime.secrets import DATABASES, ROLES
from tests.integration.private import Postgres

SECRETS = {
    "postgres-superuser": Postgres.PASSWORD,
    "postgres-tenants-admin": "tenants",
    **{f"postgres-{database}-{role}": f"{database} {role}'s" for database in DATABASES for role in ROLES},
}


@pytest_asyncio.fixture
async def server(tmp_path: Path) -> AsyncIterator[Postgres]:
    """An empty server with a superuser, `isa`, and an administrator as clouds have it, `manager`."""
    server = Postgres(tmp_path)
    await postgres.prepare(server.layout, server.engines, SECRETS)
    await server.start()
    superuser = await server.login()
    await superuser.execute(f"CREATE ROLE manager LOGIN CREATEDB CREATEROLE PASSWORD '{Postgres.PASSWORD}'")
    await superuser.close()
    yield server
    await server.end()
    postgres.remove(server.layout)


def apply(server: Postgres, folder: Path, *, user: str, secrets: dict[str, str] = SECRETS) -> str:
    """Run the command as a Job does, with a folder of secrets; return what it said."""
    for name, value in secrets.items():
        (folder / name).write_text(value)
    done = subprocess.run(
        [sys.executable, "-m", "cli", "databases", "apply", "--wait", "5"],
        cwd=CHECKOUT,
        env={
            **os.environ,
            "POSTGRES_HOST": "127.0.0.1",
            "POSTGRES_PORT": str(server.port),
            "POSTGRES_USER": user,
            "ISA_SECRETS_FILE": str(folder),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def login(server: Postgres, database: str, user: str, password: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(
        host="127.0.0.1", port=server.port, user=user, password=password, dbname=database, autocommit=True
    )


def privileges(server: Postgres) -> list[tuple[object, ...]]:
    """Who may what, of all roles, databases and schemas."""
    found: list[tuple[object, ...]] = []
    with login(server, "postgres", "isa", Postgres.PASSWORD) as superuser:
        found += superuser.execute(
            "SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolbypassrls FROM pg_roles"
            " WHERE rolname !~ '^pg_' ORDER BY 1"
        ).fetchall()
        found += superuser.execute(
            "SELECT datname, datdba::regrole::text, datacl::text FROM pg_database ORDER BY 1"
        ).fetchall()
    for database in DATABASES:
        with login(server, database, "isa", Postgres.PASSWORD) as superuser:
            found += superuser.execute("SELECT nspname, nspacl::text FROM pg_namespace ORDER BY 1").fetchall()
    return found


@pytest.mark.parametrize("user", ["isa", "manager"])
async def test_each_role_enters_its_own_database_and_no_other(server: Postgres, tmp_path: Path, user: str) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()

    said = apply(server, folder, user=user)

    assert f"{len(DATABASES)} and {1 + len(DATABASES) * len(ROLES)} of them new" in said
    for database, other in zip(DATABASES, [*DATABASES[1:], DATABASES[0]], strict=True):
        with login(server, database, f"{database}_owner", SECRETS[f"postgres-{database}-owner"]) as owner:
            owner.execute("CREATE TABLE plants (id int)")
        for role in ("app", "system"):
            with login(server, database, f"{database}_{role}", SECRETS[f"postgres-{database}-{role}"]) as app:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    app.execute("CREATE TABLE more_plants (id int)")
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    app.execute("SELECT * FROM plants")
            with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
                login(server, other, f"{database}_{role}", SECRETS[f"postgres-{database}-{role}"])
    with login(server, "postgres", "isa_tenants", SECRETS["postgres-tenants-admin"]) as tenants:
        tenants.execute("CREATE ROLE org_1 LOGIN PASSWORD 'x'")
        tenants.execute("CREATE DATABASE org_1")


@pytest.mark.parametrize("user", ["isa", "manager"])
async def test_it_may_run_again_and_makes_the_passwords_those_of_the_secrets(
    server: Postgres, tmp_path: Path, user: str
) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    apply(server, folder, user=user)
    before = privileges(server)

    said = apply(server, folder, user=user, secrets={**SECRETS, "postgres-tasks-app": "another"})

    assert "0 and 0 of them new" in said
    assert privileges(server) == before
    login(server, "tasks", "tasks_app", "another").close()
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(server, "tasks", "tasks_app", SECRETS["postgres-tasks-app"])


async def test_a_superuser_makes_what_the_set_without_containers_has(server: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    psql = str(postgres.binaries(server.engines) / "bin" / "psql")
    command = [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(server.port), "-U", "isa",
               "-d", "postgres", "-f", "-"]  # fmt: skip
    environment = {"PGPASSWORD": Postgres.PASSWORD}
    script = databases_script(SECRETS)
    await postgres.run(command, who=postgres.account(), folder=Path("/"), given=script, environment=environment)
    before = privileges(server)

    said = apply(server, folder, user="isa")

    assert "0 and 0 of them new" in said
    assert privileges(server) == before


async def test_what_a_lesser_administrator_may_not_close_is_named(server: Postgres, tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()

    said = apply(server, folder, user="manager")

    assert re.findall(r"every login may enter (\w+)", said) == ["postgres", "template1"]


def test_an_absent_secret_is_named_before_anything_is_done(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli", "databases", "apply"],
        cwd=CHECKOUT,
        env={**os.environ, "ISA_SECRETS_FILE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "postgres-tasks-owner" in done.stderr
