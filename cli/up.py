"""`isa run`, `isa start` and `isa setup`."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
import time
from typing import Annotated

import typer
from rich.live import Live

from cli.display import console, perform, status_table
from runtime.engines import acquire
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout, layout_from_environment
from runtime.processes import load_apps
from runtime.progress import Progress
from runtime.start import Runtime, StartError, Status, open_runtime

REFRESH_SECONDS = 2.0


def setup(
    tests: Annotated[bool, typer.Option("--tests", help="Also what only the tests run: promtool, helm, ...")] = False,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also the Kubernetes that `make deploy-test` starts.")
    ] = False,
) -> None:
    """Fetch and build the engines into the cache, and start nothing."""
    groups = [name for name, wanted in (("tests", tests or cluster), ("cluster", cluster)) if wanted]
    perform(acquire(layout_from_environment(), Progress(console), groups))


def start(
    parts: Annotated[
        list[str] | None, typer.Argument(help="Parts to start with what they need; everything when none.")
    ] = None,
    only: Annotated[str, typer.Option(help="The same as a list: --only postgres,kafka")] = "",
    alone: Annotated[bool, typer.Option("--alone", help="Exactly these parts, without what they need.")] = False,
) -> None:
    """Start the set in the background and return when all of it is healthy."""
    names = [*(parts or []), *(name for name in only.split(",") if name)]

    async def work() -> None:
        began = time.monotonic()
        runtime = await open_runtime(layout_from_environment(), Progress(console))
        try:
            await runtime.start(names, Progress(console), alone=alone)
        except StartError as error:
            raise StartError(f"{error}\nWhat did start stays up: `isa status` shows it, `isa stop` ends it.") from error
        console.print(f"Started in {time.monotonic() - began:.0f} s. `isa status` shows the parts, `isa stop` ends it.")

    perform(work())


def run(
    story: Annotated[bool, typer.Option(help="Tell the story against the started set.")] = True,
) -> None:
    """Set up, start, tell the story, then stay up with a table of the parts. Ctrl-C stops all of it."""
    perform(stay(layout_from_environment(), story=story))


async def stay(layout: Layout, *, story: bool) -> None:
    """The life of `isa run`: everything it started is stopped on every way out."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if not interrupted:
            interrupted = True
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)
    runtime: Runtime | None = None
    try:
        began = time.monotonic()
        runtime = await open_runtime(layout, Progress(console))
        await runtime.start([], Progress(console))
        console.print(f"All parts are healthy after {time.monotonic() - began:.0f} s.\n", highlight=False)
        if story and importlib.util.find_spec("cli.demo") is not None:
            await tell_story(layout)
        await watch(runtime)
    except asyncio.CancelledError:
        if not interrupted:
            raise
    finally:
        if runtime is not None:
            console.print("\nStopping everything; the data stays.", highlight=False)
            await asyncio.shield(asyncio.ensure_future(runtime.stop(Progress(console))))


async def tell_story(layout: Layout) -> None:
    """`isa demo` in its own process; a failing story is told, and does not stop the set."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", "demo", cwd=CHECKOUT, env={**os.environ, **own_engine_environment(layout)}
    )
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        raise
    if code != 0:
        console.print(f"The story ended with exit code {code}; `isa logs` tells more.", style="red")


async def watch(runtime: Runtime) -> None:
    """The table of the parts, until it is cancelled; without a terminal, once."""
    addresses(runtime.layout)
    parts = await runtime.status()
    if not console.is_terminal:
        console.print(status_table(parts))
        console.print("Running. Ctrl-C (or SIGTERM) stops everything.", highlight=False)
        await tell_changes(runtime, parts)
        return
    with Live(console=console, auto_refresh=False) as live:
        while True:
            live.update(status_table(parts), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)
            parts = await runtime.status()


async def tell_changes(runtime: Runtime, before: list[Status]) -> None:
    """A line for each part whose state or pid changed."""
    known = {part.name: (part.state, part.pid) for part in before}
    while True:
        await asyncio.sleep(REFRESH_SECONDS)
        for part in await runtime.status():
            if known[part.name] != (part.state, part.pid):
                known[part.name] = (part.state, part.pid)
                console.print(f"{part.name} is {part.state} (pid {part.pid})", highlight=False)


def addresses(layout: Layout) -> None:
    """Where to go from here."""
    console.print("Addresses to try:")
    for app in load_apps():
        if not app.is_grpc:
            url = f"http://127.0.0.1:{layout.port(app.values['appPort'])}/docs"
            console.print(f"  {app.name:<14} {url}", highlight=False)
    for app in load_apps():
        if app.is_grpc:
            address = f"127.0.0.1:{layout.port(app.values['appPort'])}   (gRPC; examples/quickstart.py)"
            console.print(f"  {app.name:<14} {address}", highlight=False)
    others = {
        "registry": f"http://{layout.address('registry')}/apis/ccompat/v7/subjects",
        "kafka": f"{layout.address('kafka')}   (isa topics)",
        "postgres": f"{layout.address('postgres')}   (isa env)",
    }
    for name, address in others.items():
        console.print(f"  {name:<14} {address}", highlight=False)
    console.print()


def register(app: typer.Typer) -> None:
    """Add this noun to `isa`."""
    app.command()(run)
    app.command()(start)
    app.command()(setup)
