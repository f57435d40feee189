"""Pages of the reference that a program writes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(page: Path, text: Callable[[], str], *, by: str, about: str | None) -> None:
    """Write a page, or fail when what is committed is not what `python -m <by>` writes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when the committed page differs; write nothing")
    if not parser.parse_args().check:
        page.write_text(text())
    elif not page.exists() or page.read_text() != text():
        sys.exit(f"{page.relative_to(ROOT)} is stale: run `python -m {by}`.")
