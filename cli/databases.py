"""`isa databases apply`: a database a room, with the roles of its owner, its app and its system work.

A deploy step with the administrator's login, before `isa migrate`. A cloud's administrator is no superuser, so this
asks for nothing that only a superuser may; what it may not close itself, it names.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated

import psycopg
import typer
from psycopg.sql import SQL, Identifier, Literal

from runtime.environment import engine_environment, postgres_options
from runtime.layout import layout_from_environment
from runtime.secrets import DATABASES, ROLES, load_secrets

TENANTS = "isa_tenants"
"""Who makes organisations' databases and logins, in the adapter."""
SECRETS = {TENANTS: "postgres-tenants-admin"} | {
    f"{database}_{role}": f"postgres-{database}-{role}" for database in DATABASES for role in ROLES
}
"""Role -> the secret that is its password."""
SHARED = ("postgres", "template1")
"""Databases that every login may enter by default; they show the names of all organisations' logins."""

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The rooms' databases and their roles.")


class Administrator:
    """The login that makes databases and roles: a superuser, or whoever a cloud gives instead."""

    def __init__(self, login: psycopg.Connection[tuple[object, ...]]) -> None:
        self._login = login
        self.is_superuser = self._asked("SELECT rolsuper FROM pg_roles WHERE rolname = current_user") is True

    def _asked(self, query: str, *values: object) -> object:
        found = self._login.execute(query.encode(), values).fetchone()
        return found[0] if found else None

    def has_role(self, name: str) -> bool:
        """Tell whether a role is there."""
        return self._asked("SELECT true FROM pg_roles WHERE rolname = %s", name) is True

    def has_database(self, name: str) -> bool:
        """Tell whether a database is there."""
        return self._asked("SELECT true FROM pg_database WHERE datname = %s", name) is True

    def ensure_role(self, name: str, password: str) -> bool:
        """Make a role that logs in by this password and has no other privilege; tell whether it is new.

        The server is sent what it keeps, never the password: statements end up in its log.
        """
        is_new = not self.has_role(name)
        if is_new:
            self._login.execute(SQL("CREATE ROLE {}").format(Identifier(name)))
        verifier = self._login.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
        powers = "CREATEDB CREATEROLE" if name == TENANTS else "NOCREATEDB NOCREATEROLE"
        if self.is_superuser:  # nobody else may even say it
            powers += " NOSUPERUSER NOBYPASSRLS"
        change = SQL("ALTER ROLE {} LOGIN {} PASSWORD {}")
        self._login.execute(change.format(Identifier(name), SQL(powers), Literal(verifier)))
        if self._asked("SELECT rolsuper OR rolbypassrls FROM pg_roles WHERE rolname = %s", name):
            raise typer.BadParameter(f"The role {name} is there and may pass row security: take that from it first.")
        return is_new

    def ensure_database(self, name: str) -> bool:
        """Make a database that its owner owns, and that only its three roles may enter; tell whether it is new."""
        owner, *users = (Identifier(f"{name}_{role}") for role in ROLES)
        database = Identifier(name)
        if not self.is_superuser:  # to give it to its owner, and to say who may enter
            self._login.execute(SQL("GRANT {} TO CURRENT_USER WITH INHERIT TRUE, SET TRUE").format(owner))
        is_new = not self.has_database(name)
        if is_new:
            self._login.execute(SQL("CREATE DATABASE {} OWNER {}").format(database, owner))
        self._login.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        self._login.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}, {}").format(database, *users))
        return is_new

    def close_shared(self) -> list[str]:
        """Take the shared databases from everybody but who needs them; return those that are not ours to close."""
        for name in SHARED:
            self._login.execute(SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(Identifier(name)))
        if not self._asked("SELECT has_database_privilege(%s, 'postgres', 'CONNECT')", TENANTS):
            self._login.execute(SQL("GRANT CONNECT ON DATABASE postgres TO {}").format(Identifier(TENANTS)))
        query = "SELECT has_database_privilege('public', %s, 'CONNECT')"
        return [name for name in SHARED if self._asked(query, name)]


def close_schema(login: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    """Give a room's schema to its owner, and the use of it to its other roles."""
    owner, *users = (Identifier(f"{name}_{role}") for role in ROLES)
    login.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    login.execute(SQL("GRANT ALL ON SCHEMA public TO {}").format(owner))
    login.execute(SQL("GRANT USAGE ON SCHEMA public TO {}, {}").format(*users))


def connected(database: str, secrets: dict[str, str], until: float = 0.0) -> psycopg.Connection[tuple[object, ...]]:
    """Log in as the administrator; until a moment of the monotonic clock, wait for a server that does not answer."""
    environment = engine_environment(layout_from_environment())
    while True:
        try:
            return psycopg.connect(
                host=environment["POSTGRES_HOST"],
                port=environment["POSTGRES_PORT"],
                user=os.environ.get("POSTGRES_USER", "isa"),
                password=secrets["postgres-superuser"],
                dbname=database,
                autocommit=True,
                connect_timeout=10,
                options="-c client_min_messages=error",  # what could not be revoked is looked up and said by us
                **postgres_options(),  # type: ignore[arg-type]  # words of libpq
            )
        except psycopg.OperationalError as error:
            if time.monotonic() > until:
                typer.echo(f"PostgreSQL: {str(error).strip()}", err=True)
                raise typer.Exit(1) from error
            time.sleep(1)


@app.callback()
def databases() -> None:
    """The rooms' databases and their roles."""


@app.command("apply")
def apply(
    *, wait: Annotated[float, typer.Option(help="Seconds to wait for a server that does not answer.")] = 60.0
) -> None:
    """Make every room's database and roles, with the passwords of the secrets; what is right already stays."""
    path = Path(engine_environment(layout_from_environment())["ISA_SECRETS_FILE"])
    secrets = load_secrets(path)
    if missing := sorted({"postgres-superuser", *SECRETS.values()} - secrets.keys()):
        typer.echo(f"{path} has no {', '.join(missing)}.", err=True)
        raise typer.Exit(1)
    with connected("postgres", secrets, time.monotonic() + wait) as login:
        administrator = Administrator(login)
        roles = sum(administrator.ensure_role(name, secrets[secret]) for name, secret in SECRETS.items())
        made = sum(administrator.ensure_database(name) for name in DATABASES)
        left_open = administrator.close_shared()
    for name in DATABASES:
        with connected(name, secrets) as login:
            close_schema(login, name)
    for name in left_open:
        typer.echo(
            f"warning: every login may enter {name} and read the names of all logins: its owner alone may close it."
        )
    typer.echo(f"{len(DATABASES)} databases and {len(SECRETS)} roles are as declared, {made} and {roles} of them new.")
