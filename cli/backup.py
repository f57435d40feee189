"""`isa backup`: write what the stores hold to a folder, check it, bring it back."""

from __future__ import annotations

import os
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from cli.display import console, perform
from cli.recovery import postgres
from cli.recovery.folder import Backup, RecoveryError
from cli.recovery.place import place_of
from cli.recovery.whole import (
    CONTENT,
    REMOTE,
    STORES,
    Restore,
    back_up,
    back_up_remote,
    chosen,
    compare,
    quiet,
    restore_remote,
)
from runtime.layout import layout_from_environment
from runtime.start import StartError, runtime_as_it_is

PASSPHRASE = "ISA_BACKUP_PASSPHRASE"  # noqa: S105 -- a variable's name
T = TypeVar("T")

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Backups of the stores, and what becomes of them.")
Folder = Annotated[Path, typer.Argument(help="The folder of the backups; a folder a store below it.")]
Only = Annotated[list[str] | None, typer.Option("--only", help="This store; may be repeated. Default: all.")]
Remote = Annotated[
    bool,
    typer.Option("--remote", help="The engines that the environment names, such as a cluster's, by network alone."),
]


def attempt(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what people can do something about ends as a message."""

    async def guarded() -> T:
        try:
            return await work
        except RecoveryError as error:
            raise StartError(str(error)) from error

    return perform(guarded())


def say(store: str, text: str) -> None:
    """Print what happens to a store."""
    console.print(f"{store:<14} {text}", highlight=False)


def passphrase_for(stores: list[str]) -> str:
    """Return what the secrets are encrypted with; refuse to go on without."""
    given = os.environ.get(PASSPHRASE, "")
    if "configuration" in stores and not given:
        raise RecoveryError(f"Set {PASSPHRASE}, and keep it where the backups are not.")
    return given


@app.command("create")
def create(folder: Folder, *, only: Only = None, remote: Remote = False) -> None:
    """Write a backup of a set that runs. What Kafka and the objects have there already is not read again."""

    async def work() -> None:
        stores = chosen(only or [], REMOTE if remote else STORES)
        layout = layout_from_environment()
        if not remote:
            await back_up(runtime_as_it_is(layout), folder, stores, passphrase_for(stores), say)
            return
        for store in stores:
            made = await back_up_remote(place_of(layout), folder, store)
            say(store, f"{made.items} items in {made.seconds:.1f} s")

    attempt(work())


@app.command("log")
def log(folder: Folder) -> None:
    """Receive PostgreSQL's write-ahead log into the folder until Ctrl-C, so that any moment can be restored."""

    async def work() -> None:
        async with postgres.log_kept(runtime_as_it_is(layout_from_environment()), folder) as ended:
            say("postgres", f"the log is received into {folder / postgres.LOG}")
            await ended
        raise RecoveryError("PostgreSQL went away: start this again once it is back, or nothing later can be restored.")

    attempt(work())


@app.command("restore")
def restore(
    folder: Folder,
    *,
    only: Only = None,
    remote: Remote = False,
    until: Annotated[
        datetime | None, typer.Option(help="PostgreSQL as it was at this moment, UTC; default: the end of its log.")
    ] = None,
) -> None:
    """Bring stores back that are empty, in a set that is stopped, and leave it stopped. Backups are checked first."""

    async def work() -> None:
        stores = chosen(only or [], REMOTE if remote else STORES)
        layout = layout_from_environment()
        if remote:
            for store in stores:
                made = await restore_remote(place_of(layout), folder, store)
                say(store, f"{made.items} items are back")
            return
        for store in stores:
            Backup.open(folder, store)
        if await runtime_as_it_is(layout).supervisor.is_running():
            raise RecoveryError("The set is running: `isa stop` first.")
        moment = until.replace(tzinfo=until.tzinfo or UTC) if until else None
        restored = Restore(layout, folder, stores, say)
        runtime = await restored.files(until=moment, passphrase=passphrase_for(stores))
        try:
            await restored.engines(runtime)
            say("kafka", f"{await restored.republish(runtime)} events will be published again from the outboxes")
        finally:
            await runtime.stop(quiet())
        console.print("`isa start` starts the set.", highlight=False)

    attempt(work())


@app.command("check")
def check(
    folder: Folder,
    *,
    only: Only = None,
    max_age: Annotated[int, typer.Option(help="Minutes since a backup began, at most; default: any age.")] = 0,
) -> None:
    """Hold every file against its hash, and the backup's age against what may be lost. Default: all that are there."""

    async def work() -> None:
        there = [store for store in STORES if (folder / store).exists()]
        if not there:
            raise RecoveryError(f"{folder} has no backup.")
        for store in chosen(only or there):
            found = Backup.open(folder, store)
            age = datetime.now(UTC) - found.began
            if max_age and age > timedelta(minutes=max_age):
                raise RecoveryError(f"The backup of {store} began {age} ago, and {max_age} minutes may be lost.")
            say(store, f"{found.items} items of {found.began:%Y-%m-%d %H:%M:%S} UTC, as they were written")

    attempt(work())


@app.command("compare")
def compared(
    folder: Folder, other: Annotated[Path, typer.Argument(help="Another folder of backups.")], *, only: Only = None
) -> None:
    """Hold one backup against another, item by item; fail when something is missing or differs."""

    async def work() -> dict[str, list[str]]:
        both = [store for store in CONTENT if (folder / store).exists() and (other / store).exists()]
        return compare(folder, other, chosen(only or both))

    found = attempt(work())
    for store, faults in found.items():
        say(store, f"{len(faults)} differences" if faults else "the same")
        for fault in faults[:10]:
            console.print(f"  {fault}", highlight=False, markup=False, soft_wrap=True)
    raise typer.Exit(1 if any(found.values()) or not found else 0)
