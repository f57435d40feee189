"""Output bindings: what the outside world is reached by, where it is configured."""

from __future__ import annotations

from collections.abc import Mapping

from dapr.proto.runtime.v1 import binding_pb2, metadata_pb2

from kernel.dapr.sidecar import Sidecar, translated


class Bindings:
    """The output bindings of this app."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def has(self, name: str) -> bool:
        """Tell whether a binding is configured."""
        async with translated("The sidecar"):
            answer = await self._sidecar.stub.GetMetadata(
                metadata_pb2.GetMetadataRequest(), timeout=5.0, metadata=self._sidecar.metadata
            )
        return any(component.name == name for component in answer.registered_components)

    async def invoke(self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]) -> bytes:
        """Invoke an operation of a binding, and return what it answers."""
        request = binding_pb2.InvokeBindingRequest(name=name, operation=operation, data=data, metadata=dict(metadata))
        async with translated(f"The binding {name}"):
            answer = await self._sidecar.stub.InvokeBinding(request, timeout=30.0, metadata=self._sidecar.metadata)
        return bytes(answer.data)
