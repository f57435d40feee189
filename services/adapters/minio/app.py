"""Who is plugged into whom."""

from __future__ import annotations

from datetime import timedelta

from pydantic import Field

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.minio.buckets import Buckets
from services.adapters.minio.budget import Budget
from services.adapters.minio.repository import ERRORS, Objects
from services.adapters.minio.store import Store


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with MINIO_."""

    url: str = "http://127.0.0.1:19010"
    """Where the S3 API answers."""
    public_url: str = ""
    """Where it answers whoever holds a presigned URL. Empty: at the same address."""
    region: str = "us-east-1"
    """The region that signatures name."""
    role: str = "arn:aws:iam::000000000000:role/isa-objects"
    """Whose sessions sign URLs, by AssumeRole at the store; MinIO takes any well-formed name."""
    timeout: Seconds = timedelta(seconds=30)
    """How long the store, or a client in the middle of an upload, may stay silent."""
    memory: int = Field(192 << 20, ge=64 << 20)
    """Bytes of unfinished parts that uploads may hold at a time; more of them wait."""
    memory_each: int = Field(64 << 20, ge=32 << 20)
    """Of them, for one organisation."""
    part_timeout: Seconds = timedelta(minutes=5)
    """How long a client may take to send 8 MiB of an upload."""
    buckets: int = Field(100, gt=0)
    """Buckets that an organisation may have."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together; the keys are read when it starts."""
    store = Store(
        settings.url,
        public_url=settings.public_url or settings.url,
        region=settings.region,
        role=settings.role,
        timeout=settings.timeout,
        secret=parts.secrets.get,
    )
    objects = Objects(
        store,
        Buckets(store, most=settings.buckets),
        parts.shares,
        budget=Budget(settings.memory, each=settings.memory_each),
        idle=settings.timeout,
        slowest=settings.part_timeout,
    )
    return Adapter(service="isa.objects.v1.Objects", implementation=objects, errors=ERRORS)
