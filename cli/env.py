"""`isa env`."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.display import perform
from runtime.environment import own_engine_environment
from runtime.layout import layout_from_environment
from runtime.processes import as_shell
from runtime.start import StartError, runtime_as_it_is


def env(
    part: Annotated[str, typer.Argument(help="A part; without one, the addresses of the engines.")] = "",
) -> None:
    """Print the environment of a part.

    To run one by hand: env $(isa env tasks) python -m kernel services.tasks
    """

    async def work() -> None:
        layout = layout_from_environment()
        if not part:
            typer.echo(as_shell(own_engine_environment(layout)))
            return
        runtime = runtime_as_it_is(layout)
        if part not in runtime.set.processes:
            raise StartError(f"There is no part {part!r}. The parts: {', '.join(runtime.set.processes)}.")
        typer.echo(as_shell(runtime.set.processes[part].environment))

    perform(work())


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(env)
