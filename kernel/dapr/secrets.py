"""Secrets come from Dapr's secret store, each within the scope of its app; every read is audited."""

from __future__ import annotations

from collections.abc import Callable

from dapr.proto.runtime.v1 import secret_pb2

from isa_common import FailedPrecondition
from kernel.dapr.sidecar import Sidecar, translated

STORE = "secrets"


class Secrets:
    """The secret store, as this app may see it."""

    def __init__(self, sidecar: Sidecar, *, on_read: Callable[[str, str], None]) -> None:
        self._sidecar = sidecar
        self._on_read = on_read

    async def get(self, name: str) -> str:
        """Return a secret; PermissionDenied outside the app's scope."""
        outcome = "UNKNOWN"
        try:
            async with translated(f"The secret {name}"):
                request = secret_pb2.GetSecretRequest(store_name=STORE, key=name)
                answer = await self._sidecar.stub.GetSecret(request, timeout=10.0, metadata=self._sidecar.metadata)
            outcome = "OK"
        finally:
            self._on_read(name, outcome)
        if name not in answer.data:
            raise FailedPrecondition(f"The secret store has no secret {name}.", secret_name=name)
        return str(answer.data[name])
