"""`isa dr`: practise a disaster on a set of its own, and say what it cost."""

from __future__ import annotations

import dataclasses
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from cli.display import console, errors, perform
from cli.recovery.drill import RPO, RTO, Report, drill
from cli.recovery.folder import RecoveryError
from cli.recovery.whole import chosen
from runtime.layout import CHECKOUT, Layout, layout_from_environment
from runtime.progress import Part, Progress
from runtime.start import StartError

PORT_BASE = 22600

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Practise the loss of everything.")


@app.callback()
def dr() -> None:
    """Keep `drill` a command of its own."""


@app.command("drill")
def practise(
    *,
    only: Annotated[list[str] | None, typer.Option("--only", help="Lose this store alone; may be repeated.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the set up, with its backups, to look at.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
    home: Annotated[Path, typer.Option(help="Folder of the drill's set; must not exist.")] = CHECKOUT
    / ".isa"
    / "drill",
    port_base: Annotated[int, typer.Option(help="Where its ports begin.")] = PORT_BASE,
) -> None:
    """Start a set of its own, fill every store, back it up, destroy it, restore it, and compare what is there.

    A started set is not touched. Fails when something that was backed up is lost, or a target is missed.
    """
    layout = Layout(home=home.absolute(), cache=layout_from_environment().cache, port_base=port_base)
    report: list[Report] = []

    async def work() -> None:
        try:
            stores = chosen(only or [])
            if layout.home.exists():
                raise RecoveryError(f"{layout.home} is there from before. Stop what runs there, and delete it.")
            progress = Progress(errors if as_json else console)
            parts: dict[str, Part] = {}

            def say(part: str, text: str) -> None:
                if part not in parts:
                    parts[part] = progress.part(part, "")
                parts[part].say(text)

            report.append(await drill(layout, stores, say, keep=keep))
        except RecoveryError as error:
            raise StartError(str(error)) from error

    perform(work())
    if as_json:
        print(json.dumps(as_object(report[0]), indent=1))
    else:
        show(report[0])
    raise typer.Exit(0 if report[0].is_good else 1)


def show(report: Report) -> None:
    """Print a line a store and a line a check."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("store", "backup"):
        table.add_column(heading)
    for heading in ("items", "since", "restored", "lost", "RPO", "RTO"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for row in report.rows:
        table.add_row(
            row.store,
            row.method,
            str(row.items),
            str(row.recent),
            str(row.restored),
            str(row.lost),
            span(row.rpo),
            span(row.rto),
            "[green]held[/]" if row.is_good else "[bold red]failed[/]",
        )
    console.print(table)
    console.print(
        "since: written after the backup, which may be lost; RPO: how old the oldest lost item was.", soft_wrap=True
    )
    for row in report.rows:
        for fault in row.faults[:5]:
            console.print(f"[red]{row.store}[/]: {fault}", soft_wrap=True)
    for what, fault in report.checks.items():
        console.print(f"[red]not true: {what}: {fault}[/]" if fault else f"[green]true[/]: {what}", soft_wrap=True)
    console.print(f"{report.republished} events were published again from the rooms' outboxes.")
    console.print(
        f"RPO: target {span(RPO)}, worst {span(max((row.rpo for row in report.rows), default=timedelta()))}. "
        f"RTO: target {span(RTO)}, all of it {span(report.rto)}."
    )


def span(value: timedelta) -> str:
    """Return `4 h`, or seconds with one digit."""
    hours, rest = divmod(value, timedelta(hours=1))
    return f"{hours} h" if hours and not rest else f"{value.total_seconds():.1f} s"


def as_object(report: Report) -> dict[str, Any]:
    """Return a report as JSON has it; times are seconds."""
    rows = [
        {
            **dataclasses.asdict(row),
            "rpo": row.rpo.total_seconds(),
            "rto": row.rto.total_seconds(),
            "is_good": row.is_good,
        }
        for row in report.rows
    ]
    return {
        "is_good": report.is_good,
        "stores": rows,
        "checks": report.checks,
        "republished": report.republished,
        "rto": report.rto.total_seconds(),
        "targets": {"rpo": RPO.total_seconds(), "rto": RTO.total_seconds()},
    }
