"""Who is plugged into whom."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field
from pydantic_settings import SettingsConfigDict

from kernel import Adapter, Parts, RoomSettings, Seconds
from services.adapters.redis.connection import Redis
from services.adapters.redis.messages import Channels
from services.adapters.redis.repository import ERRORS, Cache
from services.adapters.redis.scripts import ALL


class Settings(RoomSettings):
    """What an operator may change; names in the environment begin with REDIS_."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    host: str = Field("127.0.0.1", validation_alias=AliasChoices("REDIS_HOST", "ISA_CLOUD_REDIS_HOST"))
    """Where Redis answers."""
    port: int = Field(16379, validation_alias=AliasChoices("REDIS_PORT", "ISA_CLOUD_REDIS_PORT"))
    """Its port."""
    tls: bool = False
    """Whether it is spoken to over TLS, as clouds' caches are."""
    tls_ca: Path | None = None
    """File with the certificate authority that Redis is trusted by; none: those that the machine trusts."""
    timeout: Seconds = timedelta(seconds=2)
    """How long Redis may say nothing before the connection is given up."""


def create_app(settings: Settings, parts: Parts) -> Adapter:
    """Put the adapter together; the password is read for each connection that is made."""

    async def password() -> str:
        return await parts.secrets.get("redis-password")

    tls = ssl.create_default_context(cafile=settings.tls_ca) if settings.tls else None

    def connect(on_push: Callable[[list[Any]], None], on_lost: Callable[[], None]) -> Redis:
        return Redis(
            settings.host,
            settings.port,
            name="isa-cache-messages",
            password=password,
            timeout=settings.timeout,
            tls=tls,
            on_push=on_push,
            on_lost=on_lost,
        )

    redis = Redis(
        settings.host,
        settings.port,
        name="isa-cache",
        password=password,
        timeout=settings.timeout,
        tls=tls,
        scripts=ALL,
    )
    cache = Cache(redis, Channels(connect), parts)
    return Adapter(service="isa.cache.v1.Cache", implementation=cache, errors=ERRORS)
