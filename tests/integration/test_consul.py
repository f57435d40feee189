"""Apps that find each other by Consul: real sidecars and a replica of an adapter, beside the set under test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from isa_common import Entry, Isa
from runtime.engines import Engines, load_engines
from runtime.layout import Layout
from tests.conftest import Organisation, Stack
from tests.integration.replicas import APPS, layout_beside, replicas, running, stop

CONSUL_PORT = 18500
ADAPTER, CALLER = "loki-grpc", "postgres-grpc"
"""Who registers, and who looks for it: of the second only the sidecar is started."""

Instances = list[dict[str, Any]]


class Catalogue:
    """What Consul knows."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(base_url=f"http://{address}/v1", timeout=5, trust_env=False)

    async def instances(self, app: str) -> Instances:
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

    async def until(self, app: str, true: Callable[[Instances], bool]) -> Instances:
        """The instances, once this is true of them."""
        async with asyncio.timeout(60):
            while not true(found := await self.instances(app)):
                await asyncio.sleep(0.2)
        return found


def states(instances: Instances) -> dict[str, str]:
    """Name and state of each check of the only instance."""
    return {c["Name"]: c["Status"] for instance in instances for c in instance["Checks"] if c["ServiceName"]}


@pytest.fixture
def layout(tmp_path: Path, stack: Stack) -> Layout:
    return layout_beside(stack, tmp_path)


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


@pytest.mark.ac("isa-cloud-prd:E7-US1:AC-1.1", "isa-cloud-prd:E7-US1:AC-1.2", "isa-cloud-prd:E7-US1:AC-1.3")
async def test_an_app_registers_is_found_is_checked_and_deregisters(
    stack: Stack, layout: Layout, consul: Catalogue, org: Organisation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISA_CLOUD_CONSUL_ENABLED", "true")
    monkeypatch.setenv("ISA_CLOUD_CONSUL_PORT", str(layout.port(CONSUL_PORT)))
    async with replicas(stack, layout) as ours:
        # The adapter asks `users` for the keys of people's tokens: the one of the set under test.
        await consul.register("users", stack.layout.port(APPS["users"]["daprInternalGRPCPort"]))
        await ours.start(f"{CALLER}-dapr")
        sidecar = await ours.start(f"{ADAPTER}-dapr")
        adapter = await ours.start(ADAPTER)

        # It registers at its start, and says where its sidecar answers.
        both_pass = {"app": "passing", "sidecar": "passing"}
        (instance,) = await consul.until(ADAPTER, lambda found: states(found) == both_pass)
        assert instance["Service"]["Address"] == "127.0.0.1"
        assert instance["Service"]["Port"] == ours.port(ADAPTER, "appPort")
        assert instance["Service"]["Meta"]["DAPR_PORT"] == str(ours.port(ADAPTER, "daprInternalGRPCPort"))

        # Another sidecar finds it.
        address, token = ours.sidecar(CALLER)
        async with Isa(address, token=org.token, sidecar=True, sidecar_token=token) as isa:
            await isa.logs.push([Entry("found by Consul", labels={"service": "shop"})])
            page = await isa.logs.query('{service="shop"}')
        assert [entry.line for entry in page.entries] == ["found by Consul"]

        # Its health is checked: without the app, nobody is sent there.
        await stop(adapter)
        await consul.until(ADAPTER, lambda found: states(found) == {"app": "critical", "sidecar": "passing"})

        # It deregisters when it stops.
        await stop(sidecar)
        assert await consul.instances(ADAPTER) == []
