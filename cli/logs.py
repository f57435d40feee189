"""`isa logs`."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli.display import perform
from runtime.layout import Layout, layout_from_environment
from runtime.start import StartError, runtime_as_it_is

POLL_SECONDS = 0.3


def logs(
    parts: Annotated[list[str] | None, typer.Argument(help="Parts as `isa status` names them; all when none.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and print what comes.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", help="How many of the last lines to print first.")] = 50,
) -> None:
    """Print the last lines of parts' logs."""
    layout = layout_from_environment()
    perform(show(layout, parts or [], lines=lines, follow=follow))


async def show(layout: Layout, parts: list[str], *, lines: int, follow: bool) -> None:
    """Print the ends of the logs, then what is added to them."""
    supervisor = runtime_as_it_is(layout).supervisor
    names = parts or sorted(path.stem for path in layout.logs.glob("*.log"))
    for name in names:
        if not supervisor.log(name).exists():
            known = ", ".join(sorted(path.stem for path in layout.logs.glob("*.log"))) or "none yet"
            raise StartError(f"There is no log of {name!r}. There are: {known}.")
    prefix = len(names) > 1
    where: dict[Path, int] = {}
    for name in names:
        path = supervisor.log(name)
        where[path] = path.stat().st_size
        for line in supervisor.last_lines(name, lines):
            typer.echo(f"{name} | {line}" if prefix else line)
    while follow:
        await asyncio.sleep(POLL_SECONDS)
        for path, position in where.items():
            size = path.stat().st_size if path.exists() else 0
            if size < position:  # rotated
                position = 0
            if size > position:
                with path.open("rb") as file:
                    file.seek(position)
                    added = file.read(size - position)
                whole = added[: added.rfind(b"\n") + 1]
                where[path] = position + len(whole)
                for line in whole.decode(errors="replace").splitlines():
                    typer.echo(f"{path.stem} | {line}" if prefix else line)


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(logs)
