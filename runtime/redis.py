"""Redis's configuration: synced each second, refuses writes when full, one login that cannot run the server."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from runtime.layout import Layout
from runtime.secrets import write_private

LOGIN = (
    "~* &* +@all -@dangerous -@admin +info +client|getname +client|id +client|reply +client|setname +client|tracking"
)
"""Everything but what lists, empties, copies, configures or stops the server (KEYS, FLUSHALL, CONFIG, SHUTDOWN...)."""


def configuration(layout: Layout) -> Path:
    """Where Redis's configuration is written."""
    return layout.run / "redis.conf"


def prepare(layout: Layout, secrets: Mapping[str, str]) -> None:
    """Write the configuration."""
    (layout.data / "redis").mkdir(exist_ok=True)
    write_private(
        configuration(layout),
        document(
            bind="127.0.0.1",
            port=layout.engine_port("redis"),
            folder=layout.data / "redis",
            password=secrets["redis-password"],
        ),
    )


def document(*, bind: str, port: int, folder: Path | str, password: str) -> str:
    """The configuration file."""
    return f"""\
bind {bind}
port {port}
dir {folder}
user default on #{hashlib.sha256(password.encode()).hexdigest()} {LOGIN}
maxmemory 512mb
maxmemory-policy noeviction
maxclients 1000
tcp-keepalive 60
appendonly yes
appendfsync everysec
save ""
set-proc-title no
"""
