"""`isa`: run, look after and prove the set."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import typer

NOUNS = (
    "up",
    "down",
    "status",
    "logs",
    "restart",
    "env",
    "topics",
    "databases",
    "migrate",
    "demo",
    "audit",
    "events",
    "backup",
    "dr",
    "secrets",
)
GROUPS = frozenset(NOUNS[6:])
"""Nouns whose file imports much: each only when it is asked for, so that the others start at once."""

HELP = """
Run isA Cloud on this machine, without containers.

\b
    isa run            set up, start, tell a story against the real parts, stay up; Ctrl-C stops all
    isa start          the same set in the background
    isa status         what is up, and is it healthy
    isa logs -f tasks  what a part says
    isa stop           stop everything; the data stays

\b
ISA_HOME (default: .isa in the checkout) holds data, logs and secrets of this set.
ISA_CACHE (default: ~/.cache/isa) holds the engines, for all sets.
ISA_PORT_BASE moves every port: 15432 becomes BASE + 5432. With another
home and base, sets run side by side. A base up to 22000 stays clear of the
ports that the system gives to outgoing connections.
ISA_MAVEN_REPOSITORY, UV_DEFAULT_INDEX and GOPROXY name mirrors to fetch from.
"""


def build(asked: str = "") -> typer.Typer:
    """The command with every noun that is there; with a word that was asked, without the groups that it is not."""
    app = typer.Typer(help=HELP, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)
    is_command = bool(asked) and not asked.startswith("-")
    for noun in NOUNS:
        if is_command and noun in GROUPS and noun != asked:
            continue
        if importlib.util.find_spec(f"cli.{noun}") is not None:
            add(app, noun)
    return app


def add(app: typer.Typer, noun: str) -> None:
    """A noun file either registers its commands, or is a group of commands of its own."""
    module = importlib.import_module(f"cli.{noun}")
    if hasattr(module, "register"):
        module.register(app)
    else:
        app.add_typer(module.app, name=noun)


def main() -> None:
    """The console script."""
    build(sys.argv[1] if len(sys.argv) > 1 else "")()
