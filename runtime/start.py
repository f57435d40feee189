"""Start and stop the set: in the order of health, as parallel as health allows."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from filelock import FileLock, Timeout
from rich.console import Console

from runtime import memory, ports
from runtime.engines import Engines, acquire, load_engines
from runtime.environment import own_engine_environment
from runtime.kafka import KafkaError
from runtime.layout import CHECKOUT, Layout
from runtime.postgres import PostgresError
from runtime.processes import Process, Set, Step, declare, load_apps
from runtime.progress import Part, Progress
from runtime.secrets import ensure_secrets, ensure_tokens
from runtime.supervisor import Supervisor, SupervisorError

HEALTHY_WITHIN = 180.0
FAILURES_ALLOWED = 3
LAST_LINES = 20
OTHER_BASES = (20000, 21200)
PASSING_SECONDS = 15


class StartError(Exception):
    """A part could not be started; the message has its last words and where to read on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """One line of the status table."""

    name: str
    kind: str
    does: str
    state: str
    pid: int | None
    port: int
    memory: int

    @property
    def is_healthy(self) -> bool:
        """Whether it serves."""
        return self.state == "healthy"


class Runtime:
    """The set of one layout on this machine."""

    def __init__(self, layout: Layout, engines: Engines) -> None:
        self.layout = layout
        self.engines = engines
        layout.make_folders()
        app_ids = [app.name for app in load_apps()]
        self.secrets = ensure_secrets(layout, app_ids)
        self.tokens = ensure_tokens(layout, app_ids)
        self.set: Set = declare(layout, engines, self.secrets, self.tokens)
        self.supervisor = Supervisor(layout)

    async def start(self, names: Sequence[str], progress: Progress, *, alone: bool = False) -> None:
        """Start these parts and what they need (everything when none is named)."""
        unknown = [name for name in names if name not in self.set.processes and name not in self.set.steps]
        if unknown:
            raise StartError(f"There is no part {unknown[0]!r}. The parts: {', '.join(self.set.processes)}.")
        everything = [*self.set.processes, *self.set.steps]
        wanted = list(names) if alone else self.set.with_needs(list(names) or everything)
        async with self.lock():
            await self._start(wanted, progress)

    async def _start(self, wanted: list[str], progress: Progress) -> None:
        changed = await self.supervisor.ensure([process.program for process in self.set.processes.values()])
        wanted += [name for name in changed if name not in wanted]
        await self.check_ports(wanted)
        await Start(self, wanted, progress).run()

    async def check_ports(self, names: Iterable[str]) -> None:
        """Refuse before anything starts when another program holds one of our ports."""
        states = await self.supervisor.states()
        wanted = [
            (process, port)
            for process in (self.set.processes[name] for name in names if name in self.set.processes)
            if not process.absent and not states[process.name].is_up
            for port in process.ports
        ]
        for _ in range(PASSING_SECONDS):
            taken = [(process, port) for process, port in wanted if not ports.is_free(port)]
            if not taken:
                return
            if any(ports.listening_inodes(port) for _, port in taken):
                break
            await asyncio.sleep(1)  # an outgoing connection has the port by chance, and will not keep it
        if not any(state.is_up for state in states.values()):
            await self.supervisor.shutdown()
        lines = [f"  port {port} of {process.name} is held by {ports.owner(port)}" for process, port in taken]
        raise StartError(
            "\n".join(
                [
                    "Ports that the set needs are taken:",
                    *lines,
                    f"Stop those programs, or move the whole set: ISA_PORT_BASE={self.other_base()} isa start",
                ]
            )
        )

    def other_base(self) -> int:
        """A base that this set does not use, below the ports that the system gives to outgoing connections."""
        first, second = OTHER_BASES
        return second if self.layout.port_base == first else first

    async def stop(self, progress: Progress | None = None) -> None:
        """Stop everything, dependents first, each with the time it needs to lose nothing."""
        async with self.lock():
            states = await self.supervisor.states()
            if not states:
                await self.supervisor.end_leftovers([process.program for process in self.set.processes.values()])
                return
            up = [name for name, state in states.items() if state.state not in ("STOPPED", "EXITED", "FATAL")]
            progress = progress or Progress(Console(quiet=True))
            part = progress.part("stop", "the set")
            with progress.show("Stopping the set"):
                for kind in ("app", "sidecar", "engine"):
                    names = [
                        name for name in up if name in self.set.processes and self.set.processes[name].kind == kind
                    ]
                    if names:
                        part.say(f"stopping {', '.join(names)}")
                    if "registry" in names:  # it holds connections of PostgreSQL
                        await self.supervisor.stop("registry")
                    await asyncio.gather(*(self.supervisor.stop(name) for name in names))
                await self.supervisor.shutdown()
                part.done("stopped")

    async def restart(self, name: str, progress: Progress) -> None:
        """Stop one part and start it again; what needs it stays up and reconnects."""
        if name not in self.set.processes:
            raise StartError(f"There is no part {name!r}. The parts: {', '.join(self.set.processes)}.")
        process = self.set.processes[name]
        companion = [f"{name}-dapr"] if process.kind == "app" else []
        async with self.lock():  # around both: two restarts at a time would each stop what the other waits for
            if await self.supervisor.is_running():
                await self.supervisor.stop(name)
            await self._start([*companion, name], progress)

    async def status(self) -> list[Status]:
        """Every part as it is now, asked and probed."""
        states = await self.supervisor.states()

        async def one(process: Process) -> Status:
            state = states.get(process.name)
            up = state is not None and state.is_up
            if process.absent and not up:
                word = "absent"
            elif state is None or state.state == "STOPPED":
                word = "stopped"
            elif not up:
                word = {"FATAL": "failed", "BACKOFF": "restarting", "EXITED": "exited"}.get(
                    state.state, state.state.lower()
                )
            else:
                word = "healthy" if await process.healthy() else "starting"
            pid = state.pid if state is not None and up else None
            return Status(
                name=process.name,
                kind=process.kind,
                does=process.does,
                state=word,
                pid=pid,
                port=process.ports[0],
                memory=0,
            )

        found = await asyncio.gather(*(one(process) for process in self.set.processes.values()))
        return await asyncio.to_thread(weighed, found)

    @asynccontextmanager
    async def lock(self) -> AsyncIterator[None]:
        """One start or stop at a time."""
        lock = FileLock(self.layout.run / "lock", thread_local=False)
        for _ in range(600):
            try:
                lock.acquire(timeout=0)
                break
            except Timeout:
                await asyncio.sleep(0.5)
        else:
            raise StartError(f"Another command holds {self.layout.run / 'lock'}.")
        try:
            yield
        finally:
            lock.release()


def weighed(parts: Iterable[Status]) -> list[Status]:
    """The same parts with the memory they hold; done after the probes, whose clocks it would use up."""
    family = memory.children()
    return [replace(part, memory=memory.held(part.pid, family)) if part.pid else part for part in parts]


class Start:
    """One start: a task for each part, which begins when all that it needs is done."""

    def __init__(self, runtime: Runtime, names: Sequence[str], progress: Progress) -> None:
        self.runtime = runtime
        self.names = list(names)
        self.progress = progress
        self.done = {name: asyncio.Event() for name in names}

    async def run(self) -> None:
        """Start everything; the first failure stops the start."""
        parts = {name: self.progress.part(name, self.part(name).does) for name in self.names}
        with self.progress.show("Starting the set"):
            try:
                async with asyncio.TaskGroup() as tasks:
                    for name in self.names:
                        tasks.create_task(self.one(name, parts[name]))
            except* (StartError, SupervisorError, PostgresError, KafkaError) as errors:
                raise StartError(str(errors.exceptions[0])) from None

    def part(self, name: str) -> Process | Step:
        """The process or step of this name."""
        return self.runtime.set.processes.get(name) or self.runtime.set.steps[name]

    async def one(self, name: str, part: Part) -> None:
        """Wait for what this part needs, then start it."""
        declared = self.part(name)
        for need in declared.needs:
            if need in self.done:
                await self.done[need].wait()
        try:
            if declared.absent:
                part.done(f"skipped: {declared.absent}")
            elif isinstance(declared, Process):
                await self.process(declared, part)
            else:
                await self.step(declared, part)
        except (StartError, SupervisorError, PostgresError, KafkaError) as error:
            part.failed(str(error).splitlines()[0])
            raise
        self.done[name].set()

    async def process(self, process: Process, part: Part) -> None:
        """Start a process and wait until it is healthy."""
        part.begin("preparing")
        if process.prepare is not None:
            await process.prepare()
        part.say("starting")
        supervisor = self.runtime.supervisor
        await supervisor.start(process.name)
        starts = set[int]()
        loop = asyncio.get_running_loop()
        until = loop.time() + HEALTHY_WITHIN
        while not await process.healthy():
            state = (await supervisor.states())[process.name]
            starts.add(state.started_at)
            if state.state == "FATAL" or len(starts) > FAILURES_ALLOWED:
                raise StartError(self.last_words(process.name, "stops as soon as it is started"))
            if loop.time() > until:
                raise StartError(self.last_words(process.name, f"was not healthy within {HEALTHY_WITHIN:.0f} s"))
            part.say("waiting to be healthy")
            await asyncio.sleep(0.2)
        part.done("healthy")

    async def step(self, step: Step, part: Part) -> None:
        """Do something once; its output goes to its own log."""
        part.begin("working")
        if step.run is not None:
            await step.run()
        else:
            log = self.runtime.supervisor.log(step.name)
            with log.open("wb") as output:
                process = await asyncio.create_subprocess_exec(
                    *step.command,
                    cwd=CHECKOUT,
                    env={**os.environ, **own_engine_environment(self.runtime.layout)},
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                )
                try:
                    code = await process.wait()
                finally:
                    if process.returncode is None:
                        with contextlib.suppress(ProcessLookupError):
                            process.terminate()
            if code != 0:
                raise StartError(self.last_words(step.name, f"ended with exit code {code}"))
        part.done("done")

    def last_words(self, name: str, what: str) -> str:
        """What people need to find out why a part did not start."""
        supervisor = self.runtime.supervisor
        lines = supervisor.last_lines(name, LAST_LINES)
        return "\n".join(
            [
                f"{name} {what}. The end of its log:",
                *(f"  {line}" for line in lines),
                f"All of it: {supervisor.log(name)}",
            ]
        )


async def open_runtime(layout: Layout, progress: Progress) -> Runtime:
    """The runtime with its engines in the cache; the first time, this takes minutes."""
    return Runtime(layout, await acquire(layout, progress))


def runtime_as_it_is(layout: Layout) -> Runtime:
    """The runtime for commands that only look or stop; fetches nothing."""
    return Runtime(layout, Engines(layout, load_engines()))
