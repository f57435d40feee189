"""A backup of one store: its files, what it says of itself, and whether it is still what was written."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"
FORMAT = 1
CHUNK = 1 << 20


class RecoveryError(Exception):
    """A backup or a restore could not be made; the message says what to do."""


class Damaged(RecoveryError):
    """A backup is not what was written."""


@dataclass(slots=True)
class Backup:
    """The backup of one store in a folder of its own."""

    folder: Path
    items: int = 0
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    ended: datetime | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    """What a restore needs beside the files."""

    @classmethod
    def begin(cls, root: Path, store: str) -> Backup:
        """Begin one, or add to the one that is there; until it ends it is none."""
        folder = root / store
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        (folder / MANIFEST).unlink(missing_ok=True)
        return cls(folder)

    @classmethod
    def open(cls, root: Path, store: str) -> Backup:
        """Read a backup that ended, and check each of its files."""
        folder = root / store
        try:
            said = json.loads((folder / MANIFEST).read_text())
        except FileNotFoundError:
            raise Damaged(f"{folder} has no {MANIFEST}: the backup did not end. Take an older one.") from None
        except ValueError:
            raise Damaged(f"{folder / MANIFEST} is no JSON. Take an older backup.") from None
        if said.get("format") != FORMAT:
            raise Damaged(f"{folder / MANIFEST} is of format {said.get('format')!r}, not {FORMAT}.")
        check(folder, said["files"])
        began, ended = (datetime.fromisoformat(said[name]) for name in ("began", "ended"))
        return cls(folder, items=said["items"], began=began, ended=ended, facts=said["facts"])

    def end(self) -> Backup:
        """Write what the backup says of itself, last."""
        self.ended = datetime.now(UTC)
        said = {
            "format": FORMAT,
            "began": self.began.isoformat(),
            "ended": self.ended.isoformat(),
            "items": self.items,
            "facts": self.facts,
            "files": {name: facts_of(self.folder / name) for name in files(self.folder)},
        }
        partial = self.folder / f"{MANIFEST}.partial"
        partial.write_text(json.dumps(said, indent=1, sort_keys=True))
        partial.replace(self.folder / MANIFEST)
        return self

    @property
    def seconds(self) -> float:
        """How long it took."""
        return ((self.ended or datetime.now(UTC)) - self.began).total_seconds()


def files(folder: Path) -> Iterator[str]:
    """Yield the names of all files below a folder but its manifest."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / MANIFEST:
            yield str(path.relative_to(folder))


def facts_of(path: Path) -> dict[str, Any]:
    """Return size and hash of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            digest.update(part)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def check(folder: Path, declared: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse a folder whose files are not those that were declared."""
    found = {name for name in files(folder) if name != f"{MANIFEST}.partial"}
    if missing := sorted(declared.keys() - found):
        raise Damaged(f"{folder} lacks {missing[0]} and {len(missing) - 1} more. Take an older backup.")
    for name, facts in declared.items():
        if facts_of(folder / name) != dict(facts):
            raise Damaged(f"{folder / name} is not what was written. Take an older backup.")


def write_lines(path: Path, rows: Iterator[Mapping[str, Any]]) -> int:
    """Write rows as lines of JSON; return how many."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        for row in rows:
            file.write(line_of(row))
            count += 1
    return count


def line_of(row: Mapping[str, Any]) -> str:
    """Return a row as its file has it."""
    return json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file of JSON lines."""
    with path.open() as file:
        for line in file:
            yield json.loads(line)
