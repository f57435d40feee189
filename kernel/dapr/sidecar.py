"""The channel to this process's own sidecar, and Dapr's status codes as our errors."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import httpx
from dapr.proto.runtime.v1.dapr_pb2_grpc import DaprStub

from isa_common import (
    Aborted,
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from kernel import telemetry

ERRORS: dict[grpc.StatusCode, type[IsaError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.ABORTED: Aborted,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
}
OPTIONS = [
    ("grpc.max_receive_message_length", 16 << 20),
    ("grpc.max_send_message_length", 16 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
]


@asynccontextmanager
async def translated(what: str) -> AsyncIterator[None]:
    """Raise our own errors for what the sidecar answers to `what`, such as "The state store"."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        cls = ERRORS.get(error.code(), Internal)
        telemetry.log.warning("dapr.failed", what=what, code=error.code().name, detail=error.details())
        raise cls(f"{what} could not do this now ({error.code().name}).") from error


class Sidecar:
    """This process's daprd: the stub of its API, and whether it is there."""

    def __init__(self, *, host: str, grpc_port: int, http_port: int, token: str) -> None:
        self._address = f"{host}:{grpc_port}"
        self._health = f"http://{host}:{http_port}/v1.0/healthz/outbound"
        self._token = token
        self._channel: grpc.aio.Channel | None = None
        self._stub: DaprStub | None = None

    @property
    def stub(self) -> DaprStub:
        """Dapr's API; the channel is made on first use."""
        if self._stub is None:
            self._channel = grpc.aio.insecure_channel(self._address, options=OPTIONS)
            self._stub = DaprStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        return self._stub

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """What each call carries: the API token, and the present trace."""
        carried = list(telemetry.outgoing().items())
        return [*carried, ("dapr-api-token", self._token)] if self._token else carried

    async def wait(self, *, at_most: float = 60.0) -> None:
        """Return when the sidecar's components are ready; Unavailable when that takes too long."""
        until = time.monotonic() + at_most
        async with httpx.AsyncClient(timeout=2.0) as client:
            while True:
                try:
                    if (await client.get(self._health)).is_success:
                        return
                except httpx.HTTPError:
                    pass
                if time.monotonic() > until:
                    raise Unavailable(f"The Dapr sidecar at {self._address} is not ready after {at_most:.0f} s.")
                await asyncio.sleep(0.1)

    async def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            await self._channel.close()
            self._channel = self._stub = None
