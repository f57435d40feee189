"""`isa migrate`: bring the databases of the rooms to the schema of their code.

A deploy step with the owner's credentials, not a service. Every room has plain revisions in
`services/<room>/migrations/versions`; what Alembic wants beside them (env.py, ini) is here, once for all.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import sqlalchemy
import typer
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import OperationalError

from runtime.environment import engine_environment, postgres_options
from runtime.layout import layout_from_environment
from runtime.secrets import load_secrets

SERVICES = Path(__file__).resolve().parent.parent / "services"
OWNER = "postgres-{room}-owner"
"""Name of the owner's password in the secret store."""
LOCK = 7_221_001
"""Advisory lock of a migration: two deploys of one room take turns."""


class MigrationFailed(typer.Exit):
    """A room could not be migrated; what it says has been printed."""

    def __init__(self) -> None:
        super().__init__(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """A room that has a database of its own, and the revisions of its schema."""

    name: str
    migrations: Path

    @property
    def scripts(self) -> ScriptDirectory:
        """Its revisions, as Alembic reads them."""
        return ScriptDirectory(self.migrations, version_locations=[self.migrations / "versions"])

    @property
    def head(self) -> str:
        """The last of its revisions."""
        return self.scripts.get_current_head() or "nothing"


def rooms(services: Path = SERVICES) -> dict[str, Room]:
    """Find the rooms that have revisions, by name."""
    found = sorted(services.glob("*/migrations/versions"))
    return {each.parts[-3]: Room(name=each.parts[-3], migrations=each.parent) for each in found}


def chosen(names: list[str], services: Path = SERVICES) -> list[Room]:
    """Return the named rooms, or all of them; refuse a name that is none."""
    known = rooms(services)
    if unknown := [name for name in names if name not in known]:
        raise typer.BadParameter(f"{', '.join(unknown)} has no migrations; known: {', '.join(known) or 'none'}.")
    return [known[name] for name in names] if names else list(known.values())


def url(room: str) -> URL:
    """Say where the owner of a room's database logs in: ISA_MIGRATE_URL_<ROOM>, else by the secrets of this set."""
    if given := os.environ.get(f"ISA_MIGRATE_URL_{room.upper().replace('-', '_')}"):
        return make_url(given).set(drivername="postgresql+psycopg")
    environment = engine_environment(layout_from_environment())
    secrets = load_secrets(Path(environment["ISA_SECRETS_FILE"]))
    name = OWNER.format(room=room)
    if name not in secrets:
        typer.echo(
            f"{room}: {environment['ISA_SECRETS_FILE']} has no {name}. Start the set once (`make start`), "
            f"or set ISA_MIGRATE_URL_{room.upper()}.",
            err=True,
        )
        raise MigrationFailed
    return URL.create(
        "postgresql+psycopg",
        username=f"{room}_owner",
        password=secrets[name],
        host=environment["POSTGRES_HOST"],
        port=int(environment["POSTGRES_PORT"]),
        database=room,
        query=postgres_options(),
    )


@contextmanager
def connected(room: Room) -> Iterator[Connection]:
    """Log in as the owner of a room's database, or say in one line why not."""
    engine = sqlalchemy.create_engine(
        url(room.name), poolclass=sqlalchemy.NullPool, connect_args={"connect_timeout": 10}
    )
    try:
        connection = engine.connect()
    except OperationalError as error:
        typer.echo(f"{room.name}: {str(error.orig).strip()}", err=True)
        raise MigrationFailed from error
    with connection:
        yield connection


def current(connection: Connection) -> str | None:
    """Read the revision that a database is at; None for an empty one."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(room: Room, connection: Connection | None) -> None:
    """Run the missing revisions, each in a transaction of its own; without a connection, print their SQL instead."""
    scripts = room.scripts
    with EnvironmentContext(
        Config(),
        scripts,
        fn=lambda revision, _: scripts._upgrade_revs("head", revision),  # what alembic.command.upgrade does
        as_sql=connection is None,
        destination_rev="head",
    ) as environment:
        if connection is None:
            environment.configure(dialect_name="postgresql", literal_binds=True)
        else:
            environment.configure(connection=connection, transaction_per_migration=True)
        with environment.begin_transaction():
            environment.run_migrations()


def migrate_room(room: Room) -> tuple[str | None, str | None]:
    """Bring one room to its head under the lock; return the revisions before and after."""
    with connected(room) as connection:
        connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({LOCK})"))
        connection.commit()
        before = current(connection)
        connection.commit()
        upgrade(room, connection)
        connection.commit()
        return before, current(connection)


def status_of(room: Room) -> str:
    """Tell in one line how far a room's database is."""
    with connected(room) as connection:
        at = current(connection)
    missing = len(list(room.scripts.iterate_revisions("head", at or "base")))
    state = "up to date" if missing == 0 else f"{missing} to run, head is {room.head}"
    return f"{room.name:<16} {at or 'empty':<32} {state}"


def migrate(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ROOM...]|status", help="Rooms to migrate, all when none; or `status`."),
    ] = None,
    *,
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL from an empty database, and run nothing.")] = False,
) -> None:
    """Bring the databases of the rooms to the schema of their code."""
    words = list(names or [])
    if words[:1] == ["status"]:
        for room in chosen(words[1:]):
            typer.echo(status_of(room))
        return
    for room in chosen(words):
        if sql:
            typer.echo(f"-- {room.name}")
            upgrade(room, None)
            continue
        before, after = migrate_room(room)
        moved = f"{before or 'empty'} -> {after}" if before != after else f"{after}, nothing to do"
        typer.echo(f"{room.name:<16} {moved}")


def register(app: typer.Typer) -> None:
    """Add `isa migrate`."""
    app.command("migrate")(migrate)
