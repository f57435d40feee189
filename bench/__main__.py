"""`python -m bench pipeline`, `tasks` or `adapters`: each starts a set of its own and stops it."""

from __future__ import annotations

import argparse

import uvloop

from bench import adapters, load, pipeline


def main() -> None:
    """Read what to measure."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pipes = commands.add_parser("pipeline", help="committed events a second, beside Dapr's outbox and FastStream")
    pipes.add_argument("--events", type=int, default=1000, help="tasks a round (default 1000)")
    pipes.add_argument("--rounds", type=int, default=5, help="rounds; the first is thrown away (default 5)")
    pipes.add_argument("--outbox-events", type=int, default=10, help="events of Dapr's outbox, about one a second")
    tasks = commands.add_parser("tasks", help="latency of the tasks API and delay to the effect, open loop")
    tasks.add_argument("--rate", type=int, default=100, help="tasks a second (default 100)")
    tasks.add_argument("--users", type=int, default=1000, help="users, a connection each (default 1000)")
    tasks.add_argument("--seconds", type=int, default=30)
    apis = commands.add_parser("adapters", help="the infrastructure API beside the engines' own clients")
    apis.add_argument("--rounds", type=int, default=5, help="rounds; one more is thrown away (default 5)")
    apis.add_argument("only", nargs="*", help=f"some of {', '.join(adapters.PARTS)} (default all)")
    given = parser.parse_args()
    if given.command == "pipeline":
        uvloop.run(pipeline.run(events=given.events, rounds=given.rounds, outbox_events=given.outbox_events))
    elif given.command == "adapters":
        uvloop.run(adapters.run(rounds=given.rounds, only=given.only))
    else:
        uvloop.run(load.run(rate=given.rate, users=given.users, seconds=given.seconds))


if __name__ == "__main__":
    main()
