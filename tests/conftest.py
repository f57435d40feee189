"""What every test may rely on: a set of its own, real, started once and shared by all workers.

The set has its own ports (from 20000) and its own folder (`.isa/test`), so that it runs beside a started one. The first
test that needs it starts it; the session that started it stops it. `ISA_TEST_KEEP=1` leaves it up for the next run;
`ISA_TEST_HOME=.isa ISA_TEST_PORT_BASE=0` means the set of `make start`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from filelock import FileLock
from hypothesis import settings

from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout
from runtime.processes import load_apps
from runtime.start import runtime_as_it_is

HOME = Path(os.environ.get("ISA_TEST_HOME", CHECKOUT / ".isa" / "test")).absolute()
PORT_BASE = int(os.environ.get("ISA_TEST_PORT_BASE", "20000"))
STARTED = HOME / "started-by-tests"
"""Holds the id of the session that started the set, which is the one that stops it."""
SESSION = "ISA_TEST_SESSION"
PASSWORD = "a long enough passphrase 42"


@dataclass(frozen=True)
class Stack:
    """The set under test."""

    layout: Layout

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which `isa` means this set."""
        return {
            **os.environ,
            "ISA_HOME": str(self.layout.home),
            "ISA_PORT_BASE": str(self.layout.port_base or ""),
            **own_engine_environment(self.layout),
        }

    @property
    def secrets(self) -> dict[str, str]:
        """The set's own secrets, to look at engines past the services."""
        found: dict[str, str] = json.loads(self.layout.secrets.read_text())
        return found

    @property
    def http(self) -> dict[str, str]:
        """Base URL of each HTTP room, by app-id."""
        return {
            app.name: f"http://127.0.0.1:{self.layout.port(int(app.values['appPort']))}"
            for app in load_apps()
            if not app.is_grpc
        }

    async def pid(self, part: str) -> int:
        """Process id of a part, as the supervisor has it."""
        found = {status.name: status.pid for status in await runtime_as_it_is(self.layout).status()}
        pid = found[part]
        assert pid, f"{part} is not up"
        return pid

    def isa(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the `isa` command against this set."""
        done = subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            pytest.fail(f"isa {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done


settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))  # `default` looks at other examples each time


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that names what a test proves."""
    os.environ.setdefault(SESSION, uuid.uuid4().hex)  # workers inherit it
    config.addinivalue_line(
        "markers",
        "ac(*ids): the acceptance criteria that the test proves, see docs/reference/requirements.md",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the set that this session started, once all workers are done."""
    if hasattr(session.config, "workerinput") or os.environ.get("ISA_TEST_KEEP"):
        return
    if not STARTED.exists() or STARTED.read_text() != os.environ[SESSION]:
        return
    STARTED.unlink()
    the_stack().isa("stop", check=False)


def the_stack() -> Stack:
    """Return the set under test, running or not."""
    cache = Path(os.environ.get("ISA_CACHE", "~/.cache/isa")).expanduser()
    return Stack(Layout(home=HOME, cache=cache, port_base=PORT_BASE or None))


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The running set."""
    HOME.mkdir(parents=True, exist_ok=True)
    stack = the_stack()
    with FileLock(HOME / "start.lock"):
        if stack.isa("status", check=False).returncode != 0:
            if PORT_BASE:  # the set of `make start` is not ours to stop
                STARTED.write_text(os.environ[SESSION])
            stack.isa("start")
    return stack


@pytest.fixture(scope="session")
def http(stack: Stack) -> dict[str, str]:
    """Base URL of each HTTP room, by app-id."""
    return stack.http


@dataclass(frozen=True)
class Organisation:
    """An organisation that signed up, and its owner's clients."""

    org_id: str
    user_id: str
    email: str
    token: str
    urls: dict[str, str]
    clients: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    def client(self, room: str) -> httpx.AsyncClient:
        """Return the owner's client of a room."""
        if room not in self.clients:
            headers = {"authorization": f"Bearer {self.token}"}
            self.clients[room] = httpx.AsyncClient(base_url=self.urls[room], headers=headers, timeout=30)
        return self.clients[room]

    async def close(self) -> None:
        """Close the clients."""
        for client in self.clients.values():
            await client.aclose()


async def sign_up(urls: dict[str, str], name: str = "Test") -> Organisation:
    """Sign an organisation up."""
    email = f"owner-{uuid.uuid4().hex[:12]}@example.org"
    async with httpx.AsyncClient(base_url=urls["users"], timeout=30) as client:
        body = {"organisation": name, "name": "Olga Owner", "email": email, "password": PASSWORD}
        answer = await client.post("/v1/signup", json=body)
    assert answer.status_code == 201, answer.text
    made = answer.json()
    return Organisation(made["org"]["id"], made["user"]["id"], email, made["access_token"], urls)


SignUp = Callable[..., Awaitable[Organisation]]


@pytest_asyncio.fixture
async def organisation(http: dict[str, str]) -> AsyncIterator[SignUp]:
    """Return what signs organisations up; their clients are closed after the test."""
    made: list[Organisation] = []

    async def sign(name: str = "Test") -> Organisation:
        made.append(await sign_up(http, name))
        return made[-1]

    yield sign
    for one in made:
        await one.close()


@pytest_asyncio.fixture
async def org(organisation: SignUp) -> Organisation:
    """A fresh organisation with its owner."""
    return await organisation()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what kills parts of the set after everything else."""
    items.sort(key=lambda item: "chaos" in item.path.parts)
