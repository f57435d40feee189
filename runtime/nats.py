"""NATS's configuration: JetStream that syncs before it acknowledges, one login, nothing on other interfaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from runtime.layout import Layout
from runtime.secrets import write_private


def configuration(layout: Layout) -> Path:
    """Where NATS's configuration is written."""
    return layout.run / "nats.conf"


def prepare(layout: Layout, secrets: Mapping[str, str]) -> None:
    """Write the configuration."""
    write_private(
        configuration(layout),
        document(
            listen=layout.address("nats"),
            monitor=layout.address("nats-monitor"),
            folder=layout.data / "nats",
            password=secrets["nats-password"],
        ),
    )


def document(*, listen: str, monitor: str, folder: Path | str, password: str) -> str:
    """The configuration file."""
    return f"""\
server_name: isa
listen: "{listen}"
http: "{monitor}"
max_payload: 8MB
max_pending: 64MB
write_deadline: "10s"
authorization {{
  user: isa
  password: "{password}"
}}
jetstream {{
  store_dir: "{folder}"
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: 256GB # streams reserve what they may hold; what organisations store is bounded by their shares
}}
"""
