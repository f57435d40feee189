"""The supervisor (supervisord): keeps processes up, restarts what dies, and answers for their state."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shlex
import signal
import sys
import xmlrpc.client
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]  # comes without types

from runtime.layout import CHECKOUT, Layout
from runtime.secrets import write_private

RUNNING = ("RUNNING", "STARTING")
LEFTOVERS_END_WITHIN = 40.0


class SupervisorError(Exception):
    """The supervisor could not be started or asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What supervisord has to know to run one process."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    stop_signal: str = "TERM"
    stop_seconds: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What the supervisor says of one process."""

    name: str
    state: str
    pid: int
    started_at: int
    description: str

    @property
    def is_up(self) -> bool:
        """Whether there is a process."""
        return self.state in RUNNING


class Supervisor:
    """The supervisord of one layout, reached over its Unix socket."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout

    @property
    def configuration(self) -> Path:
        """Where supervisord's configuration is written."""
        return self.layout.run / "supervisord.conf"

    def log(self, name: str) -> Path:
        """Where a program's output goes."""
        return self.layout.logs / f"{name}.log"

    async def is_running(self) -> bool:
        """Whether the supervisor answers."""
        if not self.layout.socket.exists():
            return False
        try:
            await self.call("supervisor.getState")
        except SupervisorError:
            return False
        return True

    async def call(self, method: str, *arguments: object) -> Any:
        """One XML-RPC call. Raises `xmlrpc.client.Fault` for what supervisord refuses."""

        def ask() -> Any:
            transport = SupervisorTransport(None, None, f"unix://{self.layout.socket}")
            try:
                with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                    target: Any = proxy
                    for name in method.split("."):
                        target = getattr(target, name)
                    return target(*arguments)
            finally:
                transport.close()

        try:
            return await asyncio.to_thread(ask)
        except (OSError, xmlrpc.client.ProtocolError) as error:
            raise SupervisorError(f"The supervisor does not answer at {self.layout.socket}: {error}") from error

    async def end_leftovers(self, programs: Sequence[Program]) -> None:
        """End what an earlier supervisor of this set left behind when it was killed."""
        left = await asyncio.to_thread(leftovers, self.layout, programs)
        for number, seconds in ((signal.SIGTERM, LEFTOVERS_END_WITHIN), (signal.SIGKILL, 5.0)):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            until = asyncio.get_running_loop().time() + seconds
            while left and asyncio.get_running_loop().time() < until:
                await asyncio.sleep(0.2)
                left = await asyncio.to_thread(leftovers, self.layout, programs)

    async def ensure(self, programs: Sequence[Program]) -> list[str]:
        """Have supervisord up with exactly these programs; returns those that ran and were stopped by a change."""
        text = render(self.layout, programs)
        write_private(self.configuration, text)
        if await self.is_running():
            return await self.take_changes()
        await self.end_leftovers(programs)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "supervisor.supervisord", "-c", str(self.configuration),
            cwd=CHECKOUT, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await process.communicate()
        for _ in range(100):
            if await self.is_running():
                return []
            await asyncio.sleep(0.1)
        raise SupervisorError(f"supervisord did not start: {output.decode(errors='replace').strip()}")

    async def take_changes(self) -> list[str]:
        """Make a running supervisord know added, changed and removed programs; returns what has to start again."""
        states = await self.states()
        [[added, changed, removed]] = await self.call("supervisor.reloadConfig")
        for name in [*changed, *removed]:
            await self.call("supervisor.stopProcessGroup", name)
            await self.call("supervisor.removeProcessGroup", name)
        for name in [*added, *changed]:
            await self.call("supervisor.addProcessGroup", name)
        return [name for name in changed if name in states and states[name].is_up]

    async def states(self) -> dict[str, State]:
        """The state of every program; empty when the supervisor is not there."""
        if not await self.is_running():
            return {}
        return {
            info["name"]: State(
                name=info["name"],
                state=info["statename"],
                pid=info["pid"],
                started_at=info["start"],
                description=info["description"],
            )
            for info in await self.call("supervisor.getAllProcessInfo")
        }

    async def start(self, name: str) -> None:
        """Start a program, unless it runs."""
        states = await self.states()
        if not states[name].is_up:
            await self.call("supervisor.startProcess", name, False)

    async def stop(self, name: str) -> None:
        """Stop a program and wait until it is gone."""
        states = await self.states()
        if name in states and states[name].state in (*RUNNING, "BACKOFF", "STOPPING"):
            try:
                await self.call("supervisor.stopProcess", name)
            except xmlrpc.client.Fault as fault:
                if fault.faultCode != 70:  # NOT_RUNNING: it went by itself
                    raise

    async def shutdown(self) -> None:
        """End the supervisor itself, after everything it runs."""
        if not await self.is_running():
            return
        await self.call("supervisor.shutdown")
        while await self.is_running():  # noqa: ASYNC110 - another process goes, which sets no event
            await asyncio.sleep(0.1)

    def last_lines(self, name: str, count: int = 20) -> list[str]:
        """The end of a program's log."""
        path = self.log(name)
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 64_000))
            return file.read().decode(errors="replace").splitlines()[-count:]


def leftovers(layout: Layout, programs: Sequence[Program]) -> list[int]:
    """Processes with exactly our command, which name our home or have our environment."""
    home = os.fsencode(layout.home)
    known = {tuple(os.fsencode(word) for word in program.command): program for program in programs}
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            command = tuple((process / "cmdline").read_bytes().removesuffix(b"\0").split(b"\0"))
            program = known.get(command)
            if program is None:
                continue
            ours = {os.fsencode(f"{name}={value}") for name, value in program.environment.items()}
            named = any(home in word for word in command)
            if named or (ours and ours <= set((process / "environ").read_bytes().split(b"\0"))):
                found.append(int(process.name))
    return found


def render(layout: Layout, programs: Iterable[Program]) -> str:
    """The configuration file of supervisord."""
    sections: dict[str, dict[str, str]] = {
        "unix_http_server": {"file": escaped(layout.socket), "chmod": "0700"},
        "supervisord": {
            "logfile": escaped(layout.logs / "supervisord.log"),
            "logfile_maxbytes": "5MB",
            "logfile_backups": "1",
            "pidfile": escaped(layout.run / "supervisord.pid"),
            "childlogdir": escaped(layout.logs),
            "directory": escaped(CHECKOUT),
            "identifier": "isa",
            **({"user": "root"} if os.geteuid() == 0 else {}),
        },
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
    }
    for program in programs:
        sections[f"program:{program.name}"] = {
            "command": escaped(shlex.join(program.command)),
            "directory": escaped(CHECKOUT),
            "environment": ",".join(f'{name}="{quoted(value)}"' for name, value in program.environment.items()),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "1",
            "startretries": "100",
            "stopsignal": program.stop_signal,
            "stopwaitsecs": str(program.stop_seconds),
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": escaped(layout.logs / f"{program.name}.log"),
            "stdout_logfile_maxbytes": "20MB",
            "stdout_logfile_backups": "1",
            **({"user": program.user} if program.user is not None else {}),
        }
    lines: list[str] = []
    for name, values in sections.items():
        lines.append(f"[{name}]")
        lines.extend(f"{key} = {value}" for key, value in values.items())
        lines.append("")
    return "\n".join(lines)


def escaped(value: object) -> str:
    """Double the percent signs: supervisord expands `%(name)s`."""
    return str(value).replace("%", "%%")


def quoted(value: str) -> str:
    """A value inside double quotes of supervisord's `environment`."""
    return escaped(value).replace("\\", "\\\\").replace('"', '\\"')
