"""The gRPC server of an adapter: limits, health, Dapr's callbacks, and a drain."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import grpc
from dapr.proto.runtime.v1 import appcallback_pb2_grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from kernel.errors import ErrorMap
from kernel.rpc.binding import ChainOf, bind, service_named
from kernel.rpc.callbacks import Deliver, EventCallback, HealthCallback

MESSAGE_LIMIT = 16 << 20
"""Bytes of one request or answer."""
METADATA_LIMIT = 16 << 10
"""Bytes of a call's metadata; a token with every scope is below 4 KiB."""
STREAMS_LIMIT = 512
"""Calls at a time on one connection; more wait."""
LISTENERS = 8
"""Servers that share the port: each accepts one call at a time, in the order of their arrival, so that one server
lets everybody wait behind whoever sends a crowd of calls."""

_OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    ("grpc.max_metadata_size", METADATA_LIMIT),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT),
    ("grpc.max_concurrent_streams", STREAMS_LIMIT),
    ("grpc.so_reuseport", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 10_000),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What an adapter's `create_app` returns: a contract, who serves it, and how its engine fails."""

    service: str
    """The contract's full name, such as `isa.sql.v1.Sql`."""
    implementation: object
    """One async method an RPC, `(caller, request)`; may have `async start()` and `async stop()`."""
    errors: ErrorMap = field(default_factory=dict)


class Generic:
    """A server that finds generated services by name alone, as it finds ours.

    Generated code registers each method too; grpc.aio then waits for all of them anew at every call, 20 us of it.
    """

    def __init__(self, server: grpc.aio.Server) -> None:
        self.add_generic_rpc_handlers = server.add_generic_rpc_handlers

    def add_registered_method_handlers(self, *_: object) -> None:
        """Leave it."""


class RpcServer:
    """One grpc.aio server. Bind adapters, start, say when it is ready, and stop with a drain."""

    def __init__(
        self,
        address: str,
        *,
        chain: ChainOf,
        app_api_token: str = "",
        deliver: Deliver | None = None,
    ) -> None:
        self._chain = chain
        self._is_live = False
        self._draining = asyncio.Event()
        self._services: list[str] = [""]
        self._health = health.aio.HealthServicer()
        self._servers = [grpc.aio.server(options=_OPTIONS) for _ in range(LISTENERS)]
        host, _, port = address.rpartition(":")
        _refuse_a_port_in_use(host, int(port))
        self.port = int(port)
        """The port that is listened on; of use when the address asked for port 0."""
        callbacks = EventCallback(deliver, app_api_token=app_api_token)
        for server in self._servers:
            services: Any = Generic(server)
            health_pb2_grpc.add_HealthServicer_to_server(self._health, services)
            appcallback_pb2_grpc.add_AppCallbackHealthCheckServicer_to_server(  # type: ignore[no-untyped-call]  # generated
                HealthCallback(lambda: self._is_live), services
            )
            appcallback_pb2_grpc.add_AppCallbackServicer_to_server(  # type: ignore[no-untyped-call]  # generated
                callbacks, services
            )
            self.port = server.add_insecure_port(f"{host}:{self.port}")

    def add(self, adapter: Adapter) -> None:
        """Bind an adapter; Unbindable when its class and its contract do not fit."""
        service = service_named(adapter.service)
        handler = bind(service, adapter.implementation, self._chain, self._draining)
        for server in self._servers:
            server.add_generic_rpc_handlers((handler,))
        self._services.append(service.full_name)

    async def start(self) -> None:
        """Listen: events may come from now on, and calls reach the chain; health waits for `ready`."""
        await self._set(is_serving=False)
        for server in self._servers:
            await server.start()
        self._is_live = True

    async def ready(self, *, is_serving: bool = True) -> None:
        """Tell probes whether to send calls."""
        await self._set(is_serving=is_serving)

    async def stop(self, drain: timedelta = timedelta(seconds=30)) -> None:
        """Say NOT_SERVING, take no new calls, end streams that have no end, and give the other calls time."""
        self._is_live = False
        self._draining.set()
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(*(server.stop(drain.total_seconds()) for server in self._servers))

    async def wait(self) -> None:
        """Return when the server has stopped."""
        await asyncio.gather(*(server.wait_for_termination() for server in self._servers))

    async def _set(self, *, is_serving: bool) -> None:
        statuses = health_pb2.HealthCheckResponse
        value = statuses.SERVING if is_serving else statuses.NOT_SERVING
        for service in self._services:
            await self._health.set(service, value)


def _refuse_a_port_in_use(host: str, port: int) -> None:
    """Raise OSError when another process listens: servers that share a port would share it with that one too."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), port))
        except OSError as error:
            raise OSError(f"{host}:{port} is in use, or is no address of this machine.") from error
