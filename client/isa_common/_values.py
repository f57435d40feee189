"""Python values to the wire form of `isa.sql.v1`, and back by PostgreSQL's name of the type."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from isa_common.errors import InvalidArgument

Decoder = Callable[[Any], Any]

_SAFE = 2**63
"""Integers beyond 64 bits travel as strings: many JSON readers would round them."""


def encode(params: Sequence[object]) -> bytes:
    """The parameters of a statement, as a JSON array."""
    if not params:
        return b""
    return json.dumps(
        [_wire(value, f"params[{index}]") for index, value in enumerate(params)],
        ensure_ascii=False,
        allow_nan=False,
        separators=(",", ":"),
    ).encode()


def _wire(value: object, field: str) -> object:
    kind = type(value)
    if value is None or kind is str or kind is bool:
        return value
    if kind is int:
        return value if -_SAFE <= value < _SAFE else str(value)  # type: ignore[operator]  # kind is int
    match value:
        case float():
            if math.isfinite(value):
                return float(value)
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case Enum():
            return _wire(value.value, field)
        case bool() | str():
            return value
        case int():
            return _wire(int(value), field)
        case datetime():
            if value.tzinfo is None:
                return value.isoformat()
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case date() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case bytes() | bytearray() | memoryview():
            return base64.b64encode(value).decode("ascii")
        case Mapping():
            return {str(key): _wire(item, f"{field}.{key}") for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [_wire(item, f"{field}[{index}]") for index, item in enumerate(value)]
    raise InvalidArgument(f"A {kind.__name__} has no wire form; give text, a number, a date or JSON.", field=field)


def _timestamp(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return text  # infinity, or a year that Python's datetime cannot hold


def _date(text: str) -> date | str:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return text


def _time(text: str) -> time | str:
    try:
        return time.fromisoformat(text)
    except ValueError:
        return text  # 24:00:00


_DECODERS: dict[str, Decoder] = {
    "int8": int,
    "numeric": Decimal,
    "float4": float,
    "float8": float,
    "timestamptz": _timestamp,
    "timestamp": _timestamp,
    "date": _date,
    "time": _time,
    "timetz": _time,
    "bytea": base64.b64decode,
}


_QUICK: dict[str, Decoder] = {
    **_DECODERS,
    "timestamptz": datetime.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
}
"""The same for whole columns: in C, and only for what Python can hold."""


def decoder(type_name: str) -> Callable[[Sequence[Any]], Sequence[Any]] | None:
    """What turns a column of that type from the wire into Python's values; None when they are Python's already."""
    name = type_name.removesuffix("[]")
    each = _DECODERS.get(name)
    if each is None:
        return None
    if name != type_name:
        return lambda column: _elements(column, each)
    quick = _QUICK[name]

    def decode(column: Sequence[Any]) -> Sequence[Any]:
        try:
            return list(map(quick, column))
        except (TypeError, ValueError):  # NULL, infinity, or a year that Python's datetime cannot hold
            return _elements(column, each)

    return decode


def _elements(items: Sequence[Any], each: Decoder) -> list[Any]:
    return [None if item is None else _elements(item, each) if isinstance(item, list) else each(item) for item in items]


_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def copy_line(row: Sequence[object], number: int) -> str:
    """A row in the text format of PostgreSQL's COPY: lists as arrays, mappings as JSON."""
    return "\t".join(
        "\\N" if value is None else _text(value, f"rows[{number}][{index}]").translate(_ESCAPES)
        for index, value in enumerate(row)
    )


def _text(value: object, field: str) -> str:
    match value:
        case str() if "\0" in value:
            raise InvalidArgument("Text with NUL characters cannot be stored.", field=field)
        case Enum():
            return _text(value.value, field)
        case str():
            return value
        case bool():
            return "t" if value else "f"
        case bytes() | bytearray() | memoryview():
            return f"\\x{bytes(value).hex()}"
        case Mapping():
            return json.dumps(_wire(value, field), ensure_ascii=False, allow_nan=False)
        case list() | tuple():
            return "{" + ",".join(_item(item, field) for item in value) + "}"
    return str(_wire(value, field))


def _item(value: object, field: str) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list | tuple):
        return _text(value, field)
    return '"' + _text(value, field).replace("\\", "\\\\").replace('"', '\\"') + '"'
