"""What people see while parts are fetched, built and started: a live table, or plain lines without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

PLAIN_INTERVAL = 15.0
"""Seconds between two plain lines of one part that is only getting on with the same thing."""

STYLES = {"working": "cyan", "waiting": "dim", "done": "green", "failed": "bold red"}


@dataclass(slots=True)
class Part:
    """One line of the display."""

    name: str
    does: str
    progress: Progress
    text: str = ""
    state: str = "waiting"
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None
    said: tuple[str, float] = ("", 0.0)

    @property
    def seconds(self) -> float:
        """How long this part has taken, or took."""
        return (self.ended or time.monotonic()) - self.began

    def begin(self, text: str) -> None:
        """Start this part's clock."""
        self.began = time.monotonic()
        self.say(text)

    def say(self, text: str) -> None:
        """What this part is doing now; what stands before the first digit names the stage."""
        self.state, self.text = "working", text
        self.progress.changed(self)

    def done(self, text: str = "ready") -> None:
        """This part is finished."""
        self.state, self.text, self.ended = "done", text, time.monotonic()
        self.progress.changed(self)

    def failed(self, text: str) -> None:
        """This part cannot go on."""
        self.state, self.text, self.ended = "failed", text, time.monotonic()
        self.progress.changed(self)


class Progress:
    """The display of all parts; use `show` around the work."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self.parts: list[Part] = []
        self._live: Live | None = None

    def part(self, name: str, does: str) -> Part:
        """Add a line."""
        part = Part(name, does, self)
        self.parts.append(part)
        return part

    @contextmanager
    def show(self, title: str) -> Iterator[None]:
        """Display the parts until the work inside is over."""
        if not self.console.is_terminal:
            self.console.print(title, highlight=False)
            yield
            return
        with Live(console=self.console, refresh_per_second=4, get_renderable=lambda: self._table(title)) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def changed(self, part: Part) -> None:
        """Print a plain line, unless a table shows it or it was said just now."""
        if self._live is not None or self.console.is_terminal:
            return
        stage = part.state + part.text.rstrip("0123456789.:/,% MBs")
        head = stage.split(" ", 1)[0] if part.state == "working" else stage
        now = time.monotonic()
        if part.said[0] == head and now - part.said[1] < PLAIN_INTERVAL:
            return
        part.said = (head, now)
        line = f"{time.strftime('%H:%M:%S')}  {part.name:<22} {clock(part.seconds)}  {part.text}"
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _table(self, title: str) -> Table:
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        for name in ("part", "what it is", "now", "time"):
            table.add_column(name, overflow="fold")
        for part in self.parts:
            style = STYLES[part.state]
            seconds = clock(part.seconds) if part.state != "waiting" else ""
            table.add_row(part.name, Text(part.does, style="dim"), Text(part.text, style=style), seconds)
        return table


def clock(seconds: float) -> str:
    """`01:23`."""
    return f"{int(seconds) // 60:02d}:{int(seconds) % 60:02d}"
