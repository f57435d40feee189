"""`isa stop` and `isa down`."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from cli.display import console, perform
from runtime import postgres
from runtime.layout import Layout, layout_from_environment
from runtime.progress import Progress
from runtime.start import StartError, runtime_as_it_is


def stop() -> None:
    """Stop everything, in the order that loses nothing. The data stays for the next start."""
    layout = layout_from_environment()
    perform(runtime_as_it_is(layout).stop(Progress(console)))


def down(
    wipe: Annotated[bool, typer.Option("--wipe", help="Also delete data, logs and secrets of this set.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before deleting.")] = False,
) -> None:
    """Stop everything; with --wipe, also forget everything (the engines in the cache stay)."""
    layout = layout_from_environment()
    if wipe and not yes:
        typer.confirm(f"Delete all data of the set in {layout.home}?", abort=True)
    perform(runtime_as_it_is(layout).stop(Progress(console)))
    if wipe:
        perform(forget(layout))


async def forget(layout: Layout) -> None:
    """Delete what this set wrote, and nothing else that may be in its folder."""
    if await runtime_as_it_is(layout).supervisor.is_running():
        raise StartError("The set is still running.")
    postgres.remove(layout)
    for folder in (layout.data, layout.logs, layout.run):
        shutil.rmtree(folder, ignore_errors=True)
    layout.secrets.unlink(missing_ok=True)
    console.print(f"Deleted the data, logs and secrets in {layout.home}.", highlight=False)


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(stop)
    app.command()(down)
