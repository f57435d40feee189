"""Preferences: a small document of one user, kept as one value a name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from isa_common import InvalidArgument

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
MOST = 100
VALUE_BYTES = 8 << 10
DOCUMENT_BYTES = 64 << 10


def check_name(name: str) -> None:
    """Refuse what is not a preference's name."""
    if not NAME.fullmatch(name):
        raise InvalidArgument(
            "A preference's name has 1 to 64 of a-z, 0-9, `.`, `_` and `-`, and begins with a letter or digit.",
            field=f"{name:.70}",
        )


def check_document(document: Mapping[str, object]) -> None:
    """Refuse a document whose names, values or size are beyond the limits."""
    if len(document) > MOST:
        raise InvalidArgument(f"A user has at most {MOST} preferences.", field="preferences")
    total = 0
    for name, value in document.items():
        check_name(name)
        size = len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
        if size > VALUE_BYTES:
            raise InvalidArgument(f"A preference has at most {VALUE_BYTES >> 10} KiB.", field=name)
        total += size
    if total > DOCUMENT_BYTES:
        raise InvalidArgument(f"All preferences have at most {DOCUMENT_BYTES >> 10} KiB.", field="preferences")


def changed(document: Mapping[str, object], put: Mapping[str, object], remove: Iterable[str]) -> dict[str, object]:
    """Return a document after some names were set and others removed; a name in both is a mistake."""
    gone = set(remove)
    if both := gone & put.keys():
        raise InvalidArgument("A name is put or removed, not both.", field=min(both))
    after = {name: value for name, value in document.items() if name not in gone} | dict(put)
    check_document(after)
    return after
