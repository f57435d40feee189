"""Who is plugged into whom."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import Field

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.qdrant.embedded import Embedded
from services.adapters.qdrant.repository import Vectors


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with QDRANT_."""

    url: str = ""
    """A Qdrant server; empty: the embedded engine."""
    key_secret: str = ""
    """Name of the secret that holds the server's API key; empty: it wants none."""
    timeout: Seconds = timedelta(seconds=30)
    """How long a server may take for one answer."""
    folder: Path = Path(".isa/data/qdrant")
    """Where the embedded engine keeps its collections; one replica a folder."""
    workers: int = Field(2, ge=1, le=64)
    """Processes with the embedded engine; each does one call at a time."""
    open_shards: int = Field(128, ge=1)
    """Collections that all workers together keep open."""
    collections: int = Field(100, ge=1)
    """Collections that an organisation may have."""
    spare: int = Field(256 << 20, ge=0)
    """Bytes of the disk that the embedded engine leaves free."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together."""
    if settings.url:
        from services.adapters.qdrant.server import Server  # a large library, of use only here

        backend: Embedded | Server = Server(
            settings.url,
            secret=parts.secrets.get,
            key=settings.key_secret,
            timeout=settings.timeout,
            collections=settings.collections,
        )
    else:
        backend = Embedded(
            settings.folder,
            workers=settings.workers,
            open_shards=settings.open_shards,
            collections=settings.collections,
            spare=settings.spare,
        )
    return Adapter(service="isa.vectors.v1.Vectors", implementation=Vectors(backend, parts), errors=backend.ERRORS)
