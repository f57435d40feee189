"""How the machines that do the same to an adapter and to the service in memory are run."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

BOUNDS = settings(
    max_examples=25,
    stateful_step_count=30,
    deadline=None,
    database=None,
    derandomize=True,  # the same steps at every run; raise max_examples by hand to look further
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def run_beside(machine: Any, adapter: Any) -> None:
    """Run a machine that has the adapter as its `engine`, on one `loop`."""
    with asyncio.Runner() as runner:
        machine.loop, machine.engine = runner.get_loop(), adapter
        runner.run(adapter.start())
        run_state_machine_as_test(machine, settings=BOUNDS)
        runner.run(adapter.stop())
