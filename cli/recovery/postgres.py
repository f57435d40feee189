"""PostgreSQL of the set on this machine: a base backup, the write-ahead log as it is written, and any moment after.

Managed databases of a cloud have the same under other names; what is here proves that the set survives it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from cli.recovery.folder import Backup, RecoveryError
from runtime import postgres
from runtime.start import Runtime

STORE = "postgres"
LOG = "wal"
"""Folder beside the base backup with the write-ahead log."""
RESTORED_LOG = "isa_wal"
SETTINGS = ("restore_command", "recovery_target_time", "recovery_target_action", "hot_standby")
PATIENCE = 60.0
OUTBOX = """
    SELECT FROM information_schema.columns
    WHERE table_schema = 'public' AND table_name = 'outbox' AND column_name = 'published_at'
"""
"""Finds a room's outbox; the registry has a table of the same name."""


def programs(runtime: Runtime) -> Path:
    """Return the folder of PostgreSQL's programs."""
    return postgres.binaries(runtime.engines) / "bin"


def login(runtime: Runtime) -> dict[str, str]:
    """Return the environment in which PostgreSQL's programs reach the server as its superuser."""
    return {
        "PGHOST": "127.0.0.1",
        "PGPORT": str(runtime.layout.engine_port("postgres")),
        "PGUSER": "isa",
        "PGPASSWORD": runtime.secrets["postgres-superuser"],
        "PGCONNECT_TIMEOUT": "10",
        "PATH": "/usr/bin:/bin",
        "LC_ALL": "C",
    }


async def backup(runtime: Runtime, root: Path) -> Backup:
    """Write a base backup."""
    backup = Backup.begin(root, STORE)
    base = backup.folder / "base"
    shutil.rmtree(base, ignore_errors=True)
    process = await asyncio.create_subprocess_exec(
        str(programs(runtime) / "pg_basebackup"), "-D", str(base), "--checkpoint=fast", "--wal-method=stream",
        "--manifest-checksums=SHA256", "--no-password",
        env=login(runtime), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RecoveryError(f"pg_basebackup failed:\n{output.decode(errors='replace').strip()}")
    backup.items = sum(count for count, _ in digests(runtime).values())
    return backup.end()


@asynccontextmanager
async def log_kept(runtime: Runtime, root: Path) -> AsyncIterator[asyncio.Task[int]]:
    """Receive the write-ahead log as it is written, every piece synced; yields what ends when the server goes."""
    folder = root / LOG
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    process = await asyncio.create_subprocess_exec(
        str(programs(runtime) / "pg_receivewal"), "-D", str(folder), "--synchronous", "--no-loop", "--no-password",
        env=login(runtime), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    drained = asyncio.ensure_future(process.stderr.read())
    try:
        async with asyncio.timeout(PATIENCE):
            while not any(folder.iterdir()):
                if process.returncode is not None:
                    raise RecoveryError(f"pg_receivewal failed:\n{(await drained).decode(errors='replace').strip()}")
                await asyncio.sleep(0.1)
        yield asyncio.ensure_future(process.wait())
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        drained.cancel()


def restore(runtime: Runtime, root: Path, *, until: datetime | None = None) -> Backup:
    """Put the base backup in place, to be rolled forward at the next start: to a moment, else to the end of the log."""
    backup = Backup.open(root, STORE)
    data = postgres.data_folder(runtime.layout)
    if (data / "PG_VERSION").exists():
        raise RecoveryError(f"{data} has a cluster already: stop the set and move it away.")
    if until and backup.ended and until < backup.ended:
        raise RecoveryError(f"The base backup ended at {backup.ended:%H:%M:%S}, after {until:%H:%M:%S}: take an older.")
    shutil.rmtree(data, ignore_errors=True)
    data.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(backup.folder / "base", data)
    data.chmod(0o700)
    log = root / LOG
    shutil.copytree(log, data / RESTORED_LOG) if log.exists() else (data / RESTORED_LOG).mkdir()
    (data / "recovery.signal").touch()
    lines = [
        f'restore_command = \'cp {RESTORED_LOG}/%f "%p" || cp {RESTORED_LOG}/%f.partial "%p"\'',
        "recovery_target_action = 'promote'",
        "hot_standby = 'off'",  # it answers when it is writable, not before
        *([f"recovery_target_time = '{until.isoformat()}'"] if until else []),
    ]
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("\n".join(lines) + "\n")
    who = postgres.account()
    if who.name is not None:
        for path in (data, *data.rglob("*")):
            os.chown(path, who.uid, who.gid, follow_symlinks=False)
    return backup


def recovered(runtime: Runtime) -> None:
    """Forget how the running server was restored."""
    with connected(runtime, "postgres") as connection:
        for name in SETTINGS:
            connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
    shutil.rmtree(postgres.data_folder(runtime.layout) / RESTORED_LOG)


@contextmanager
def connected(runtime: Runtime, database: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """Log in to a database as the superuser."""
    with psycopg.connect(
        host="127.0.0.1",
        port=runtime.layout.engine_port("postgres"),
        user="isa",
        password=runtime.secrets["postgres-superuser"],
        dbname=database,
        autocommit=True,
        connect_timeout=10,
    ) as connection:
        yield connection


def databases(runtime: Runtime) -> list[str]:
    """Return every database that holds something."""
    with connected(runtime, "postgres") as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY datname")
        return [name for (name,) in found]


def digests(runtime: Runtime) -> dict[str, tuple[int, str]]:
    """Return rows and a hash over all of them, by `database.schema.table`."""
    found: dict[str, tuple[int, str]] = {}
    for database in databases(runtime):
        with connected(runtime, database) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables "
                "WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1, 2"
            ).fetchall()
            for schema, table in tables:
                query = sql.SQL("SELECT md5(t::text) AS digest FROM {} AS t ORDER BY 1").format(
                    sql.Identifier(schema, table)
                )
                digest, count = hashlib.sha256(), 0
                for (row,) in connection.execute(query):
                    digest.update(row.encode())
                    count += 1
                found[f"{database}.{schema}.{table}"] = (count, digest.hexdigest())
    return found


def republish(runtime: Runtime, since: datetime) -> int:
    """Have every event published again that went out after a moment: the restored Kafka may lack it, consumers know it.

    Returns how many. The rooms' relays do it when they run.
    """
    count = 0
    for database in databases(runtime):
        with connected(runtime, database) as connection:
            if connection.execute(OUTBOX).fetchone() is None:
                continue
            done = connection.execute("UPDATE outbox SET published_at = NULL WHERE published_at > %s", (since,))
            count += done.rowcount
    return count


def differences(before: Mapping[str, tuple[int, str]], after: Mapping[str, tuple[int, str]]) -> list[str]:
    """Return what differs between the tables of two moments, a sentence each."""
    lost = [f"the table {name} is not there" for name in sorted(before.keys() - after.keys())]
    new = [f"the table {name} was not there" for name in sorted(after.keys() - before.keys())]
    changed = [
        f"{name} has {after[name][0]} rows, was {before[name][0]}"
        if after[name][0] != before[name][0]
        else f"{name} has other rows than it had"
        for name in sorted(before.keys() & after.keys())
        if before[name] != after[name]
    ]
    return [*lost, *new, *changed]
