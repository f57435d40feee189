"""`isa status`."""

from __future__ import annotations

import typer

from cli.display import console, perform, status_table
from runtime.layout import layout_from_environment
from runtime.start import runtime_as_it_is


def status() -> None:
    """Show every part: state, pid, port and memory. The exit code is 1 when something is not healthy."""
    parts = perform(runtime_as_it_is(layout_from_environment()).status())
    console.print(status_table(parts))
    if not all(part.is_healthy or part.state == "absent" for part in parts):
        raise typer.Exit(1)


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(status)
