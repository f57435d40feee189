"""What a measurement is made of: CPU of every process from /proc, percentiles, and a table."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

TICK = os.sysconf("SC_CLK_TCK")
console = Console(highlight=False, width=120)


def children(pid: int) -> list[int]:
    """Return a process and everything below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process and of what is below it; 0 when it is gone."""
    total = 0.0
    try:
        for each in children(pid):
            stat = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            total += (int(stat[11]) + int(stat[12])) / TICK
    except (FileNotFoundError, ProcessLookupError):
        return total
    return total


@dataclass(slots=True)
class Cpu:
    """CPU of named processes between two moments."""

    pids: Mapping[str, int]
    began: dict[str, float] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to count."""
        self.began = {name: cpu_seconds(pid) for name, pid in self.pids.items()}

    def per_operation(self, operations: int) -> dict[str, float]:
        """Return microseconds of CPU an operation, by process, since the start."""
        return {
            name: (cpu_seconds(pid) - self.began[name]) / operations * 1e6
            for name, pid in self.pids.items()
            if name in self.began
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table."""
    made = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for position, heading in enumerate(headings):
        made.add_column(heading, justify="right" if position else "left", overflow="fold")
    for row in rows:
        made.add_row(*row)
    console.print(made)


def cpu_line(costs: Mapping[str, float]) -> str:
    """Return CPU per event in one line, the dearest first."""
    shown = sorted(((cost, name) for name, cost in costs.items() if cost >= 1), reverse=True)
    return ", ".join(f"{name} {cost:.0f}" for cost, name in shown)
