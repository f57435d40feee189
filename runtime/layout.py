"""Where the set lives on this machine: folders and ports."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent

ENGINE_PORTS = {
    "postgres": 15432,
    "kafka": 19092,
    "kafka-controller": 19093,
    "registry": 18081,
    "registry-management": 19000,
    "loki": 13100,
    "loki-grpc": 13101,
    "redis": 16379,
    "nats": 14222,
    "nats-monitor": 18222,
    "minio": 19010,
    "scheduler": 15006,
    "scheduler-etcd": 12379,
    "scheduler-etcd-peer": 12380,
    "scheduler-health": 18080,
    "scheduler-metrics": 18090,
}

SOCKET_PATH_LIMIT = 100
"""A Unix socket's path may have 107 bytes; supervisord needs a few for a temporary name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The folders and ports of one set; two sets with different ones run side by side."""

    home: Path
    cache: Path
    port_base: int | None = None

    def port(self, declared: int) -> int:
        """The port that is really used: the declared one, or its last four digits above ISA_PORT_BASE."""
        return declared if self.port_base is None else self.port_base + declared % 10000

    def address(self, engine: str) -> str:
        """`127.0.0.1:port` of an engine's door."""
        return f"127.0.0.1:{self.engine_port(engine)}"

    def engine_port(self, engine: str) -> int:
        """The port of an engine's door."""
        return self.port(ENGINE_PORTS[engine])

    @property
    def data(self) -> Path:
        """What must survive: one folder a part."""
        return self.home / "data"

    @property
    def logs(self) -> Path:
        """One file a part."""
        return self.home / "logs"

    @property
    def run(self) -> Path:
        """Generated configuration, sockets, tokens; for this user alone."""
        return self.home / "run"

    @property
    def secrets(self) -> Path:
        """The file behind the local secret store."""
        return self.home / "secrets.json"

    @property
    def socket(self) -> Path:
        """The supervisor's socket: in the run folder, or in a short private folder when that path is too long."""
        inside = self.run / "supervisor.sock"
        if len(os.fsencode(inside)) <= SOCKET_PATH_LIMIT:
            return inside
        digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"isa-{os.geteuid()}-{digest}" / "s.sock"

    def make_folders(self) -> None:
        """Create the folders; what holds secrets is for this user alone."""
        self.home.mkdir(parents=True, exist_ok=True)
        for folder, mode in ((self.data, 0o711), (self.logs, 0o755), (self.run, 0o700), (self.socket.parent, 0o700)):
            folder.mkdir(exist_ok=True)
            folder.chmod(mode)


def layout_from_environment() -> Layout:
    """The layout that ISA_HOME, ISA_CACHE and ISA_PORT_BASE ask for."""
    base = os.environ.get("ISA_PORT_BASE", "").strip()
    if base and not (base.isdigit() and 1024 <= int(base) <= 55535):
        raise SystemExit(f"ISA_PORT_BASE must be a number from 1024 to 55535, not {base!r}.")
    return Layout(
        home=Path(os.environ.get("ISA_HOME") or CHECKOUT / ".isa").expanduser().absolute(),
        cache=Path(os.environ.get("ISA_CACHE") or "~/.cache/isa").expanduser().absolute(),
        port_base=int(base) if base else None,
    )
