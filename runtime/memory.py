"""How much memory a process and its children hold."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path


def children() -> dict[int, list[int]]:
    """The children of every process."""
    found: dict[int, list[int]] = defaultdict(list)
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (process / "stat").read_text().rsplit(")", 1)[1].split()
                found[int(fields[1])].append(int(process.name))
    return found


def held(pid: int, family: dict[int, list[int]]) -> int:
    """Bytes of a process and all below it, where what they share counts once."""
    return own(pid) + sum(held(child, family) for child in family.get(pid, []))


def own(pid: int) -> int:
    """The proportional set size, else the resident set size, in bytes."""
    for name, word in (("smaps_rollup", "Pss:"), ("status", "VmRSS:")):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.startswith(word):
                    return int(line.split()[1]) * 1024
    return 0
