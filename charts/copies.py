"""What charts carry and others keep: Helm and ArgoCD take files of the chart's own folder only, and no links out of it.

`python -m charts.copies` copies; `--check` fails when a copy differs. Edit the source.
"""

from __future__ import annotations

from pathlib import Path

from docs.generated import write_all_or_check

ROOT = Path(__file__).resolve().parents[1]
COPIES = {
    "charts/data/files": ["compose/kafka-is-ready.sh"],
    "charts/observability/files": ["observability/alertmanager.yaml", "observability/collector.yaml"],
    "charts/observability/files/rules": ["observability/rules/*.yaml"],
    "charts/observability/files/dashboards": ["observability/dashboards/*.json"],
}
"""Folder of a chart -> what is copied into it."""


def copies() -> dict[Path, str]:
    """Return every copy with its text."""
    found = {}
    for folder, patterns in COPIES.items():
        for source in (path for pattern in patterns for path in sorted(ROOT.glob(pattern))):
            found[ROOT / folder / source.name] = source.read_text()
    return found


def orphans() -> list[Path]:
    """Return files among the copies that have no source any more."""
    made = copies()
    return [path for folder in COPIES for path in (ROOT / folder).iterdir() if path.is_file() and path not in made]


if __name__ == "__main__":
    for path in copies():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_all_or_check(copies, by="charts.copies", about=__doc__)
