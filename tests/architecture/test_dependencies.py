"""Dependencies point down, and each foreign library has one owner."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.architecture.tree import ROOT, imports, name_of, sources

OWNERS = {
    "aiobotocore": ["services/adapters/minio/", "cli/recovery/objects.py"],
    "aiohttp": ["services/adapters/minio/"],
    "alembic": ["cli/migrate.py", "services/*/migrations/"],
    "argon2": ["services/users/domain/"],
    "asyncpg": ["services/adapters/postgres/"],
    "botocore": ["services/adapters/minio/", "cli/recovery/objects.py", "kernel/kafka.py"],
    "confluent_kafka": ["cli/", "kernel/lag.py"],
    "dapr": ["kernel/dapr/", "kernel/rpc/"],
    "fastapi": ["kernel/", "services/*/handlers"],
    "fastavro": ["kernel/avro.py"],
    "filelock": ["runtime/"],
    "google.protobuf": ["client/isa_common/", "kernel/rpc/", "kernel/dapr/", "services/adapters/"],
    "grpc": ["client/isa_common/_transport.py", "kernel/rpc/", "kernel/dapr/"],
    "grpc_health": ["kernel/rpc/"],
    "grpc_tools": ["schemas/generate.py"],
    "hiredis": ["services/adapters/redis/", "cli/recovery/redis.py"],
    "httpx": [
        "cli/",
        "kernel/avro.py",
        "kernel/dapr/",
        "runtime/",
        "schemas/compatibility.py",
        "services/adapters/loki/",
    ],
    "icalendar": ["services/tasks/domain/"],
    "jwt": ["kernel/identity.py", "services/users/domain/"],
    "msgpack": ["client/isa_common/_typed.py"],
    "nats": ["services/adapters/nats/", "cli/recovery/streams.py"],
    "opentelemetry": ["kernel/telemetry.py", "kernel/delivery.py"],
    "pgparse": ["services/adapters/postgres/"],
    "prometheus_client": ["kernel/"],
    "psycopg": ["cli/"],
    "pydantic_settings": ["kernel/settings.py", "services/*/app.py", "services/adapters/*/app.py"],
    "qdrant_client": ["services/adapters/qdrant/"],
    "qdrant_edge": ["services/adapters/qdrant/"],
    "rich": ["cli/", "runtime/"],
    "sqlalchemy": ["cli/migrate.py", "client/isa_common/repository.py"],
    "starlette": ["kernel/", "services/*/handlers"],
    "structlog": ["kernel/audit.py", "kernel/telemetry.py"],
    "supervisor": ["runtime/"],
    "typer": ["cli/"],
    "uvicorn": ["kernel/process.py"],
    "websockets": ["services/adapters/loki/"],
}
"""Where a library may be imported: a file, a folder, or a beginning of either with * for one name."""


def is_owned(path: str, owner: str) -> bool:
    """Tell whether a path is an owner's, or below it."""
    wanted, parts = owner.rstrip("/").split("/"), path.split("/")
    if len(parts) < len(wanted):
        return False
    pairs = list(zip(parts, wanted, strict=False))
    *folders, (last, pattern) = pairs
    return all(part == want or want == "*" for part, want in folders) and (
        last == pattern or pattern == "*" or last == f"{pattern}.py"
    )


@pytest.mark.parametrize("library", OWNERS)
def test_a_foreign_library_has_one_owner(library: str) -> None:
    users = [
        name_of(path)
        for path in sources()
        if any(module == library or module.startswith(f"{library}.") for module in imports(path))
    ]

    strangers = [user for user in users if not any(is_owned(user, owner) for owner in OWNERS[library])]

    assert not strangers, (
        f"{library} is imported in {', '.join(strangers)}; its owner is {' or '.join(OWNERS[library])}. "
        "Ask the owner for what is needed, or let it take one more thing upon itself."
    )


def test_layers_and_rooms_are_kept_apart() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, (
        f"{done.stdout[-3000:]}\nMove what both need down a layer, or reach another room by an event or invocation."
    )


def test_every_module_opens_with_future_annotations_and_a_docstring() -> None:
    bare = [
        name_of(path)
        for path in sources()
        if path.name != "__main__.py"
        and (text := path.read_text()).strip()
        and not (
            text.startswith(('"""', "# ")) and ("from __future__ import annotations" in text or is_text_only(text))
        )
    ]

    assert not bare, f"Begin {', '.join(bare)} with a docstring and `from __future__ import annotations`."


def is_text_only(text: str) -> bool:
    """Tell whether a module is a docstring and nothing else."""
    return text.strip().startswith('"""') and text.strip().endswith('"""') and text.count('"""') == 2


def test_the_kernel_names_no_room() -> None:
    naming = [
        name_of(path) for path in sources() if "kernel" in path.parts for m in imports(path) if m.startswith("services")
    ]

    assert not naming, f"{naming} import a room: the kernel takes what a third room needs, and knows none."
