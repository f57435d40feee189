"""`isa restart`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.display import console, perform
from runtime.layout import layout_from_environment
from runtime.progress import Progress
from runtime.start import open_runtime


def restart(
    part: Annotated[str, typer.Argument(help="A part as `isa status` names it: tasks, tasks-dapr, kafka...")],
) -> None:
    """Stop one part and start it again; the others stay up and reconnect."""

    async def work() -> None:
        progress = Progress(console)
        runtime = await open_runtime(layout_from_environment(), progress)
        await runtime.restart(part, Progress(console))

    perform(work())


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(restart)
