"""How the runtime's commands show things, and how they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from runtime.engines import EngineError
from runtime.start import StartError, Status
from runtime.supervisor import SupervisorError

T = TypeVar("T")

STATES = {"healthy": "green", "starting": "yellow", "restarting": "yellow", "stopped": "dim", "absent": "dim"}

console = Console()
errors = Console(stderr=True)


def perform(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work; what people can do something about ends as a message, not as a traceback."""
    try:
        return asyncio.run(work)
    except (EngineError, StartError, SupervisorError) as error:
        errors.print(str(error), style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None


def status_table(parts: Iterable[Status]) -> Table:
    """Part, state, pid, port and memory."""
    table = Table(box=None, pad_edge=False)
    for name in ("part", "state"):
        table.add_column(name)
    for name in ("pid", "port", "memory"):
        table.add_column(name, justify="right")
    table.add_column("what it is", style="dim")
    total = 0
    for part in parts:
        style = STATES.get(part.state, "bold red")
        total += part.memory
        table.add_row(
            part.name,
            f"[{style}]{part.state}[/{style}]",
            str(part.pid or ""),
            str(part.port),
            f"{part.memory / 1e6:.0f} MB" if part.memory else "",
            part.does,
        )
    table.add_section()
    table.add_row("all", "", "", "", f"{total / 1e6:.0f} MB", "")
    return table
