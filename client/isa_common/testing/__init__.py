"""The same interface in memory, for tests: no engine, no network, the same errors.

async with FakeIsa() as isa:
    await isa.cache.set("k", b"v")

Two clients of one `FakeCloud` see each other's data only where the real services would let them.
"""

from __future__ import annotations

import importlib
import importlib.util
from datetime import timedelta

from isa_common._client import Isa
from isa_common.errors import Unimplemented
from isa_common.testing._transport import Caller, MemoryTransport

__all__ = ["FakeCloud", "FakeIsa"]


class FakeCloud:
    """All capabilities in memory, for any number of organisations and people."""

    def __init__(self) -> None:
        self._services: dict[str, object] = {}

    def isa(self, org: str = "org-fake", user: str = "user-fake", *, workload: str = "") -> FakeIsa:
        """A client of a person; of one of our own programs when `workload` names it, with or without an `org`."""
        return FakeIsa(self, org=org, user=user, workload=workload)

    def service(self, capability: str) -> object:
        """The service of a capability, made when it is first asked for."""
        if capability not in self._services:
            name = f"isa_common.testing._{capability}"
            if importlib.util.find_spec(name) is None:
                raise Unimplemented(f"The cloud in memory has no {capability}.")
            self._services[capability] = getattr(importlib.import_module(name), f"Memory{capability.title()}")()
        return self._services[capability]


class FakeIsa(Isa):
    """A client of a cloud in memory: its own one when none is given."""

    def __init__(
        self,
        cloud: FakeCloud | None = None,
        *,
        org: str = "org-fake",
        user: str = "user-fake",
        workload: str = "",
        timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        super().__init__("unix:memory")
        caller = Caller(org=org, user=user, workload=workload)
        self._transport = MemoryTransport((cloud or FakeCloud()).service, caller, timeout=timeout)
