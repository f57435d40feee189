"""The environment that the set's processes and commands find their engines by."""

from __future__ import annotations

import os

from runtime.layout import Layout


def engine_environment(layout: Layout) -> dict[str, str]:
    """Addresses of the engines; a variable that is set already wins, so that containers use the same commands."""
    own = own_engine_environment(layout)
    return {name: os.environ.get(name, value) for name, value in own.items()}


def own_engine_environment(layout: Layout) -> dict[str, str]:
    """Addresses of the engines that this layout starts."""
    return {
        "KAFKA_BROKERS": layout.address("kafka"),
        "REGISTRY_URL": f"http://{layout.address('registry')}/apis/ccompat/v7",
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": str(layout.engine_port("postgres")),
        "LOKI_URL": f"http://{layout.address('loki')}",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(layout.engine_port("redis")),
        "NATS_URL": f"nats://{layout.address('nats')}",
        "MINIO_URL": f"http://{layout.address('minio')}",
        "MINIO_PUBLIC_URL": f"http://{layout.address('minio')}",
        "QDRANT_FOLDER": str(layout.data / "qdrant"),
        "ISA_SECRETS_FILE": str(layout.secrets),
    }


def postgres_options() -> dict[str, str]:
    """How the commands speak to PostgreSQL, in libpq's words; what is not said is libpq's default."""
    names = {"POSTGRES_SSLMODE": "sslmode", "POSTGRES_SSLROOTCERT": "sslrootcert"}
    return {word: os.environ[name] for name, word in names.items() if os.environ.get(name)}
