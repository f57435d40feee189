"""The order of a start: each part begins when all that it needs is healthy."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest
from rich.console import Console

from runtime import start as module
from runtime.layout import Layout
from runtime.processes import Process, Set, Step
from runtime.progress import Progress
from runtime.start import Runtime, Start, StartError
from runtime.supervisor import State, Supervisor


class FakeSupervisor(Supervisor):
    """Starts nothing; remembers the order."""

    def __init__(self, layout: Layout, *, dies: str = "") -> None:
        super().__init__(layout)
        self.started: list[str] = []
        self.dies = dies

    async def start(self, name: str) -> None:
        self.started.append(name)

    async def states(self) -> dict[str, State]:
        return {
            name: State(
                name=name, state="FATAL" if name == self.dies else "RUNNING", pid=1, started_at=0, description=""
            )
            for name in self.started
        }


class FakeRuntime:
    """What a start needs of the runtime."""

    def __init__(self, layout: Layout, declared: Set, supervisor: FakeSupervisor) -> None:
        self.layout, self.set, self.supervisor = layout, declared, supervisor


def process(name: str, *needs: str, healthy: Callable[[], Awaitable[bool]] | None = None, absent: str = "") -> Process:
    async def yes() -> bool:
        return True

    return Process(
        name=name,
        does="",
        kind="engine",
        command=("x",),
        ports=(1,),
        healthy=healthy or yes,
        needs=needs,
        absent=absent,
    )


async def started(tmp_path: Path, processes: list[Process], steps: list[Step], *, dies: str = "") -> FakeSupervisor:
    layout = Layout(home=tmp_path, cache=tmp_path)
    layout.make_folders()
    supervisor = FakeSupervisor(layout, dies=dies)
    declared = Set(processes={p.name: p for p in processes}, steps={s.name: s for s in steps})
    runtime = cast(Runtime, FakeRuntime(layout, declared, supervisor))
    names = [*declared.processes, *declared.steps]
    await Start(runtime, names, Progress(Console(file=io.StringIO()))).run()
    return supervisor


async def test_a_part_waits_for_the_health_of_what_it_needs(tmp_path: Path) -> None:
    supervisor_order: list[str] = []
    answers = iter([False, False, True])

    async def slowly() -> bool:
        supervisor_order.append("probe")
        return next(answers)

    async def tables() -> None:
        supervisor_order.append("migrate")

    supervisor = await started(
        tmp_path,
        [process("tasks", "migrate"), process("postgres", healthy=slowly)],
        [Step(name="migrate", does="", needs=("postgres",), run=tables)],
    )

    assert supervisor_order == ["probe", "probe", "probe", "migrate"]
    assert supervisor.started == ["postgres", "tasks"]


async def test_a_part_that_is_not_there_does_not_hold_the_others(tmp_path: Path) -> None:
    supervisor = await started(tmp_path, [process("users", absent="no app.py"), process("tasks", "users")], [])

    assert supervisor.started == ["tasks"]


async def test_a_part_that_dies_ends_the_start_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(parents=True)
    (tmp_path / "logs" / "kafka.log").write_text("disk is full\n")

    async def never() -> bool:
        return False

    with pytest.raises(StartError) as refused:
        await started(tmp_path, [process("kafka", healthy=never), process("tasks", "kafka")], [], dies="kafka")

    assert "disk is full" in str(refused.value)
    assert str(tmp_path / "logs" / "kafka.log") in str(refused.value)


async def test_a_step_that_fails_says_where_its_log_is(tmp_path: Path) -> None:
    step = Step(name="migrate", does="", needs=(), command=(sys.executable, "-c", "raise SystemExit('no table')"))

    with pytest.raises(StartError, match=r"exit code 1(.|\n)*no table"):
        await started(tmp_path, [], [step])


async def test_a_part_that_never_is_healthy_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HEALTHY_WITHIN", 0.05)

    async def never() -> bool:
        await asyncio.sleep(0)
        return False

    with pytest.raises(StartError, match="was not healthy within"):
        await started(tmp_path, [process("loki", healthy=never)], [])
