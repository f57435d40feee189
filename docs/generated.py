"""Files that a program writes: pages of the reference, values of the charts."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def write_or_check(page: Path, text: Callable[[], str], *, by: str, about: str | None) -> None:
    """Write a page, or fail when what is committed is not what `python -m <by>` writes."""
    write_all_or_check(lambda: {page: text()}, by=by, about=about)


def write_all_or_check(pages: Callable[[], Mapping[Path, str]], *, by: str, about: str | None) -> None:
    """Write all pages of a program, or fail when one that is committed is not what `python -m <by>` writes."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="fail when a committed page differs; write nothing")
    is_check = parser.parse_args().check
    for page, text in pages().items():
        if not is_check:
            page.write_text(text)
        elif not page.exists() or page.read_text() != text:
            sys.exit(f"{page.relative_to(ROOT)} is stale: run `python -m {by}`.")
