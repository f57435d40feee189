"""Who is plugged into whom."""

from __future__ import annotations

import hashlib
from datetime import timedelta

from pydantic import Field

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.nats.broker import Broker, Limits
from services.adapters.nats.codec import Tokens
from services.adapters.nats.connection import Connection
from services.adapters.nats.repository import ERRORS, Streams


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with NATS_."""

    url: str = "nats://127.0.0.1:14222"
    """Where NATS answers; several servers of one cluster between commas."""
    user: str = "isa"
    """The login of this adapter; its password is the secret `nats-password`."""
    timeout: Seconds = timedelta(seconds=5)
    """How long NATS may take to connect, and for an answer about streams and consumers."""
    heartbeat: Seconds = timedelta(seconds=5)
    """How often a connection that looks alive is asked whether it is."""
    streams: int = Field(100, gt=0)
    """Streams and buckets that an organisation may have."""
    consumers: int = Field(500, gt=0)
    """Consumers that it may have, over all its streams."""
    stream_bytes: int = Field(64 << 20, gt=0)
    """Bytes that a stream or bucket keeps when nobody says how many."""
    stream_bytes_most: int = Field(10 << 30, gt=0)
    """Bytes that a stream or bucket may be made for."""
    replicas: int = Field(1, ge=1, le=5)
    """Servers of a cluster that keep each stream; production: 3."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together."""

    async def password() -> str:
        return await parts.secrets.get("nats-password")

    async def key() -> bytes:
        """What tokens are sealed with: the same in every replica, and never the password itself."""
        return hashlib.sha256(b"isa.streams.v1 tokens\0" + (await password()).encode()).digest()

    broker = Broker(
        connection=Connection(
            settings.url,
            user=settings.user,
            password=password,
            timeout=settings.timeout,
            heartbeat=settings.heartbeat,
        ),
        tokens=Tokens(),
        shares=parts.shares,
        limits=Limits(
            streams=settings.streams,
            consumers=settings.consumers,
            stream_bytes=settings.stream_bytes,
            stream_bytes_most=settings.stream_bytes_most,
            replicas=settings.replicas,
        ),
    )
    return Adapter(service="isa.streams.v1.Streams", implementation=Streams(broker, key=key), errors=ERRORS)
