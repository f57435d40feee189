"""The client: one object, its capabilities as attributes."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property, partial
from types import TracebackType
from typing import Self

from isa_common._cache import Cache
from isa_common._logs import Logs
from isa_common._objects import Objects
from isa_common._routed import Routed
from isa_common._sql import Sql
from isa_common._streams import Streams
from isa_common._transport import MetadataSource, TokenSource, Transport
from isa_common._usage import Usage
from isa_common._vectors import Vectors

_APP_IDS = {
    "cache": "redis-grpc",
    "sql": "postgres-grpc",
    "logs": "loki-grpc",
    "objects": "minio-grpc",
    "vectors": "qdrant-grpc",
    "streams": "nats-grpc",
}
"""Which app serves a capability, seen from a sidecar."""


class Isa:
    """The infrastructure API of isA Cloud, over a Dapr sidecar or straight at the adapters.

    Nothing is connected before the first call. Clients of one address share one channel.
    """

    def __init__(
        self,
        target: str | Mapping[str, str],
        *,
        token: str | TokenSource = "",
        sidecar: bool = False,
        sidecar_token: str = "",
        app_ids: Mapping[str, str] | None = None,
        timeout: timedelta = timedelta(seconds=10),
        connect_timeout: timedelta = timedelta(seconds=5),
        metadata: MetadataSource | None = None,
        root_certificate: bytes | None = None,
    ) -> None:
        """Prepare a client; `token` is a JWT, or a coroutine function that returns a fresh one.

        `target` is `host:port` of an adapter, or a mapping that has one a capability: `{"cache": "localhost:50055"}`.
        With `sidecar`, `target` is a sidecar's gRPC address and each capability is found by its app-id;
        `app_ids` replaces those of a set that names them otherwise. `metadata` gives what goes along with
        each call, such as `traceparent`. With `root_certificate` the connection is TLS.
        """
        connect = partial(
            Transport,
            token=token,
            timeout=timeout,
            connect_timeout=connect_timeout,
            metadata=metadata,
            app_ids={**_APP_IDS, **(app_ids or {})} if sidecar else None,
            sidecar_token=sidecar_token,
            root_certificate=root_certificate,
        )
        self._transport = connect(target) if isinstance(target, str) else Routed(target, connect)

    @cached_property
    def cache(self) -> Cache:
        """Values, counters, collections, messages, locks and limits of the caller."""
        return Cache(self._transport)

    @cached_property
    def sql(self) -> Sql:
        """SQL in the caller's own database."""
        return Sql(self._transport)

    @cached_property
    def vectors(self) -> Vectors:
        """Vectors of the caller's organisation."""
        return Vectors(self._transport)

    @cached_property
    def logs(self) -> Logs:
        """Log lines of the caller's organisation."""
        return Logs(self._transport)

    @cached_property
    def streams(self) -> Streams:
        """Messages, streams and key-value buckets of the caller's organisation."""
        return Streams(self._transport)

    @cached_property
    def usage(self) -> Usage:
        """What the caller's organisation uses of each engine."""
        return Usage(self._transport)

    @cached_property
    def objects(self) -> Objects:
        """Buckets and objects of the caller's organisation."""
        return Objects(self._transport)

    @property
    def reconnects(self) -> int:
        """How often the channel was replaced, for monitoring."""
        return self._transport.reconnects

    @property
    def outages(self) -> int:
        """How often the connection was lost, for monitoring; most need no new channel."""
        return self._transport.outages

    def is_channel_healthy(self) -> bool:
        """Tell whether the channel can carry calls; asks no network and changes nothing."""
        return self._transport.is_healthy

    async def health(self, capability: str, *, timeout: timedelta = timedelta(seconds=2)) -> bool:
        """Ask the service of a capability, such as `cache`, whether it serves; also behind a sidecar."""
        return await self._transport.health(capability, timeout=timeout)

    async def reconnect(self) -> None:
        """Replace the channel; calls in flight may end first."""
        await self._transport.reconnect()

    async def close(self) -> None:
        """Let go of the channel; a later call opens it again."""
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()
