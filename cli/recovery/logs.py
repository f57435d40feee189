"""Loki of the set on this machine: its folder, copied while it is stopped. In a cloud its chunks are in a bucket."""

from __future__ import annotations

import shutil
from pathlib import Path

from cli.recovery.folder import Backup, RecoveryError, files

STORE = "logs"


def backup(folder: Path, root: Path) -> Backup:
    """Copy the folder of a Loki that is stopped."""
    backup = Backup.begin(root, STORE)
    copied = backup.folder / "loki"
    shutil.rmtree(copied, ignore_errors=True)
    shutil.copytree(folder, copied)
    backup.items = sum(1 for _ in files(copied))
    return backup.end()


def restore(root: Path, folder: Path) -> Backup:
    """Put the folder where Loki finds it at its start."""
    backup = Backup.open(root, STORE)
    if folder.exists() and any(folder.iterdir()):
        raise RecoveryError(f"{folder} is not empty: stop Loki and move its files away.")
    shutil.copytree(backup.folder / "loki", folder, dirs_exist_ok=True)
    return backup
