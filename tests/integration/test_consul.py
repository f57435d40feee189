"""Apps that find each other by Consul: real sidecars and a replica of an adapter, beside the set under test."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from isa_common import Entry, Isa
from runtime.engines import Engines, load_engines
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout
from runtime.processes import Set, declare, load_apps
from runtime.secrets import ensure_tokens
from tests.conftest import Organisation, Stack

PORT_BASE = 21200
CONSUL_PORT = 18500
ADAPTER, CALLER = "loki-grpc", "postgres-grpc"
"""Who registers, and who looks for it: of the second only the sidecar is started."""


@asynccontextmanager
async def running(command: tuple[str, ...], environment: Mapping[str, str], log: Path) -> AsyncIterator[Any]:
    """A process that is asked to stop at the end, and killed when it does not."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            cwd=CHECKOUT,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        await stop(process)


async def stop(process: asyncio.subprocess.Process) -> None:
    """Ask a process to stop, and wait until it did."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), 45)
        except TimeoutError:
            process.kill()
            await process.wait()


class Catalogue:
    """What Consul knows."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"http://{address}/v1", timeout=5, trust_env=False)

    async def instances(self, app: str) -> list[dict[str, Any]]:
        """Every instance of an app, with its checks."""
        try:
            answer = await self.http.get(f"/health/service/{app}")
        except httpx.HTTPError:
            return []
        return list(answer.json()) if answer.is_success else []

    async def register(self, app: str, port: int) -> None:
        """Tell of a sidecar that did not register itself."""
        service = {"Name": app, "Address": "127.0.0.1", "Meta": {"DAPR_PORT": str(port)}}
        (await self.http.put("/agent/service/register", json=service)).raise_for_status()

    async def until(self, app: str, true: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The instances, once this is true of them."""
        async with asyncio.timeout(60):
            while not true(found := await self.instances(app)):
                await asyncio.sleep(0.2)
        return found


def states(instances: list[dict[str, Any]]) -> dict[str, str]:
    """Name and state of each check of the only instance."""
    return {c["Name"]: c["Status"] for instance in instances for c in instance["Checks"] if c["ServiceName"]}


def is_passing(instances: list[dict[str, Any]]) -> bool:
    return states(instances) == {"app": "passing", "sidecar": "passing"}


@pytest.fixture
def layout(tmp_path: Path, stack: Stack) -> Layout:
    layout = Layout(home=tmp_path, cache=stack.layout.cache, port_base=PORT_BASE)
    layout.make_folders()
    return layout


@pytest_asyncio.fixture
async def consul(layout: Layout) -> AsyncIterator[Catalogue]:
    """A Consul agent that keeps nothing."""
    binary = Engines(layout, load_engines()).binary("consul", "consul")
    assert binary.exists(), "Consul is not built yet: run `make setup-tests`."
    port = layout.port(CONSUL_PORT)
    command = (
        str(binary), "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1", f"-http-port={port}", "-grpc-port=-1",
        "-grpc-tls-port=-1", "-dns-port=-1", f"-server-port={port + 1}", f"-serf-lan-port={port + 2}",
        f"-serf-wan-port={port + 3}", "-log-level=warn",
    )  # fmt: skip
    catalogue = Catalogue(f"127.0.0.1:{port}")
    async with running(command, {}, layout.logs / "consul.log"):
        await catalogue.until("consul", bool)
        yield catalogue
        await catalogue.http.aclose()


@pytest.fixture
def declared(stack: Stack, layout: Layout, consul: Catalogue, monkeypatch: pytest.MonkeyPatch) -> Set:
    """The set of this layout, whose sidecars are told of Consul."""
    monkeypatch.setenv("ISA_CLOUD_CONSUL_ENABLED", "true")
    monkeypatch.setenv("ISA_CLOUD_CONSUL_PORT", str(layout.port(CONSUL_PORT)))
    apps = [app.name for app in load_apps()]
    return declare(layout, Engines(layout, load_engines()), stack.secrets, ensure_tokens(layout, apps))


@pytest.mark.ac("isa-cloud-prd:E7-US1:AC-1.1", "isa-cloud-prd:E7-US1:AC-1.2", "isa-cloud-prd:E7-US1:AC-1.3")
async def test_an_app_registers_is_found_is_checked_and_deregisters(
    stack: Stack, layout: Layout, consul: Catalogue, declared: Set, org: Organisation
) -> None:
    async with AsyncExitStack() as parts:

        async def start(name: str) -> asyncio.subprocess.Process:
            """A part of ours on the engines of the set under test."""
            part = declared.processes[name]
            schedulers = {layout.address("scheduler"): stack.layout.address("scheduler")}
            command = tuple(schedulers.get(word, word) for word in part.command)
            environment = {**part.environment, **own_engine_environment(stack.layout)}
            process: asyncio.subprocess.Process = await parts.enter_async_context(
                running(command, environment, layout.logs / f"{name}.log")
            )
            return process

        ports = {app.name: app.values for app in load_apps()}
        # The adapter asks `users` for the keys of people's tokens: the one of the set under test.
        await consul.register("users", stack.layout.port(ports["users"]["daprInternalGRPCPort"]))
        await start(f"{CALLER}-dapr")
        sidecar = await start(f"{ADAPTER}-dapr")
        adapter = await start(ADAPTER)

        # It registers at its start, where its sidecar's door is told too.
        (instance,) = await consul.until(ADAPTER, is_passing)
        assert instance["Service"]["Address"] == "127.0.0.1"
        assert instance["Service"]["Port"] == layout.port(ports[ADAPTER]["appPort"])
        assert instance["Service"]["Meta"]["DAPR_PORT"] == str(layout.port(ports[ADAPTER]["daprInternalGRPCPort"]))

        # Another sidecar finds it.
        through = f"127.0.0.1:{layout.port(ports[CALLER]['daprGRPCPort'])}"
        token = declared.processes[f"{CALLER}-dapr"].environment["DAPR_API_TOKEN"]
        async with Isa(through, token=org.token, sidecar=True, sidecar_token=token) as isa:
            await isa.logs.push([Entry("found by Consul", labels={"service": "shop"})])
            page = await isa.logs.query('{service="shop"}')
        assert [entry.line for entry in page.entries] == ["found by Consul"]

        # Its health is checked: without the app, nobody is sent there.
        await stop(adapter)
        await consul.until(ADAPTER, lambda found: states(found) == {"app": "critical", "sidecar": "passing"})

        # It deregisters when it stops.
        await stop(sidecar)
        assert await consul.instances(ADAPTER) == []
