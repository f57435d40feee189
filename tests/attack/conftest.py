"""The attackers' view of the running set, and the table of what they got."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import Any

import pytest
import pytest_asyncio

from isa_common import Isa
from isa_common._client import _APP_IDS
from runtime.processes import app_address
from tests.attack.calls import Tally, Wire
from tests.attack.credentials import Signer, signer
from tests.attack.surface import Rpc, rpcs
from tests.conftest import Stack

PER_ENGINE = ("isa.usage.v1",)
"""Contracts that every adapter serves."""


def engine_of(capability: str) -> str:
    """`redis` for `cache`."""
    return _APP_IDS[capability].removesuffix("-grpc")


def served(capability: str) -> list[Rpc]:
    """Every RPC that the adapter of a capability serves."""
    return [rpc for rpc in rpcs() if rpc.capability == capability or rpc.package in PER_ENGINE]


@pytest.fixture
def tally(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> AsyncIterator[Tally]:
    """What a test counts for its engine; a test with a parameter `capability` has one."""
    tally = Tally(engine_of(request.getfixturevalue("capability")))
    yield tally
    record_property("attack", json.dumps(asdict(tally)))


@pytest.fixture
def address(stack: Stack, capability: str) -> str:
    """Where the adapter of a capability listens."""
    return app_address(stack.layout, _APP_IDS[capability])


@pytest_asyncio.fixture
async def wire(address: str) -> AsyncIterator[Wire]:
    """A connection to the adapter."""
    wire = Wire(address)
    yield wire
    await wire.close()


@pytest_asyncio.fixture
async def signing(stack: Stack) -> Signer:
    """The set's own keys."""
    return await signer(stack)


@pytest_asyncio.fixture
async def isa_of(address: str) -> AsyncIterator[Callable[[str], Isa]]:
    """Makes a client from a token; closed after the test."""
    clients: list[Isa] = []

    def make(token: str) -> Isa:
        clients.append(Isa(address, token=token))
        return clients[-1]

    yield make
    for client in clients:
        await client.close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tried on each engine, and what came of it."""
    total: dict[str, Tally] = {}
    floods: list[dict[str, float]] = []
    for reports in terminalreporter.stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "attack" and getattr(report, "when", "") == "teardown":
                    _add(total, json.loads(value))
                if name == "flood" and getattr(report, "when", "") == "call":
                    floods.append(json.loads(value))
    if not total and not floods:
        return
    terminalreporter.section("attack: two tenants, every RPC")
    line = "{:<10} {:>8} {:>14} {:>10} {:>16}"
    terminalreporter.write_line(line.format("engine", "cases", "bytes leaked", "INTERNAL", "audited"))
    for tally in sorted(total.values(), key=lambda each: each.engine):
        share = f"{tally.audited} of {tally.calls}"
        terminalreporter.write_line(
            line.format(tally.engine, tally.cases, tally.leaked_bytes, len(tally.faults), share)
        )
    for flood in floods:
        ratio = flood["flooded"] / flood["quiet"]
        terminalreporter.write_line(
            f"a neighbour's p99 beside a flooding tenant: {flood['flooded']:.1f} ms, {ratio:.2f} x its quiet "
            f"{flood['quiet']:.1f} ms (wanted: at most 2 x, on a machine that does nothing else)"
        )


def _add(total: dict[str, Tally], given: dict[str, Any]) -> None:
    tally = total.setdefault(given["engine"], Tally(given["engine"]))
    for name in ("cases", "leaked_bytes", "calls", "audited", "faults", "leaks"):
        setattr(tally, name, getattr(tally, name) + given[name])
