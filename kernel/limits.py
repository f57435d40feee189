"""What this process may use: the limits of its control group, else the machine itself."""

from __future__ import annotations

import os
from pathlib import Path

import prometheus_client

GROUP = Path("/sys/fs/cgroup")
MEMORY = prometheus_client.Gauge("isa_memory_limit_bytes", "Memory that this process may use.")
CPU = prometheus_client.Gauge("isa_cpu_limit_cores", "Cores that this process may use; one that runs Python uses one.")


def measure() -> None:
    """Set both gauges; once, at start."""
    MEMORY.set(memory_limit())
    CPU.set(cpu_limit())


def memory_limit(group: Path = GROUP) -> int:
    """Bytes that the group may use, or that the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read(group / "memory.max")
    return min(machine, int(limit)) if limit.isdigit() else machine


def cpu_limit(group: Path = GROUP) -> float:
    """Cores that the group may use, at most one."""
    quota, _, period = _read(group / "cpu.max").partition(" ")
    return min(1.0, int(quota) / int(period)) if quota.isdigit() and period.isdigit() else 1.0


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
