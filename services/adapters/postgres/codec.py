"""Values between JSON and PostgreSQL, by the wire form that `isa.sql.v1` fixes.

Whatever has no plain form of its own in JSON travels as PostgreSQL's text: nothing is rounded, no type is unknown.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import orjson

from isa_common import InvalidArgument

Decode = Callable[[str], Any]
Encode = Callable[[Any], Any]
Column = Callable[[Sequence[str | None]], list[Any]]
"""Makes JSON's values of a whole column."""


class Unfit(ValueError):
    """A value that its parameter's type does not take; says what would fit."""


@dataclass(frozen=True, slots=True)
class TypeFacts:
    """What the catalog says of a type."""

    oid: int
    name: str
    element: int = 0
    """OID of an array's elements."""
    delimiter: str = ","


def _timestamptz(text: str) -> str:
    """`2026-11-21 01:44:07.1+00` is `2026-11-21T01:44:07.1Z`; infinity and years before Christ stay as they are."""
    return f"{text[:-3].replace(' ', 'T', 1)}Z" if text.endswith("+00") else text


def _timestamptz_column(texts: Sequence[str | None]) -> list[Any]:
    """The same for a column, at once where all of it is as usual."""
    if None not in texts:
        whole = "\n".join(cast("Sequence[str]", texts)) + "\n"
        if whole.count(" ") == whole.count("+00\n") == len(texts):
            return whole.replace(" ", "T").replace("+00\n", "Z\n").split("\n")[:-1]
    return [None if text is None else _timestamptz(text) for text in texts]


def _timestamp(text: str) -> str:
    return text if text.endswith("BC") else text.replace(" ", "T", 1)


def _json_column(texts: Sequence[str | None]) -> list[Any]:
    if None not in texts:
        return list(map(orjson.Fragment, cast("Sequence[str]", texts)))
    return [None if text is None else orjson.Fragment(text) for text in texts]


def _float(text: str) -> float | str:
    number = float(text)
    return number if math.isfinite(number) else text


def _bytea(text: str) -> str:
    return base64.b64encode(bytes.fromhex(text[2:])).decode("ascii")


def _json(text: str) -> orjson.Fragment:
    return orjson.Fragment(text)


DECODERS: dict[str, Decode] = {
    "bool": lambda text: text == "t",
    "int2": int,
    "int4": int,
    "oid": int,
    "float4": _float,
    "float8": _float,
    "bytea": _bytea,
    "json": _json,
    "jsonb": _json,
    "timestamptz": _timestamptz,
    "timestamp": _timestamp,
}
"""From PostgreSQL's text to what JSON holds; a type that is not here keeps its text."""

COLUMNS: dict[str, Column] = {"timestamptz": _timestamptz_column, "json": _json_column, "jsonb": _json_column}
"""The same for whole columns of the types that are met most."""

NATIVE = frozenset({"bool", "int2", "int4", "oid", "text", "varchar", "bpchar", "name", "void"})
"""Types that the driver reads and writes in binary, as Python values that are JSON's too."""


def parse_params(params: bytes, field: str) -> list[Any]:
    """The parameters of a statement, from their JSON array."""
    if not params:
        return []
    try:
        values = json.loads(params, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise InvalidArgument("The parameters are not valid JSON.", field=field) from None
    if not isinstance(values, list):
        raise InvalidArgument("The parameters must be a JSON array, one value a parameter.", field=field)
    return values


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _kind(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "text"
        case list():
            return "an array"
    return "an object"


def _to_bool(value: object) -> bool:
    if isinstance(value, bool):
        return value
    raise Unfit(f"takes true or false, not {_kind(value)}")


def _to_integer(bits: int, *, is_signed: bool = True) -> Encode:
    lowest, highest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if is_signed else (0, 2**bits - 1)

    def encode(value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise Unfit("takes a whole number") from None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool):
            raise Unfit(f"takes a whole number, not {_kind(value)}")
        if not lowest <= value <= highest:
            raise Unfit(f"takes a whole number from {lowest} to {highest}")
        return value

    return encode


def _to_text(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"takes text, not {_kind(value)}; write $1::int8 or the like to give it another type")
    if "\0" in value:
        raise Unfit("takes text without NUL characters, which PostgreSQL cannot store")
    return value


def _to_bytea(value: object) -> str:
    if not isinstance(value, str):
        raise Unfit(f"takes base64, not {_kind(value)}")
    try:
        return "\\x" + base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        raise Unfit("takes base64 (standard alphabet, padded)") from None


def _to_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _to_other(value: object) -> str:
    """Text of a type that PostgreSQL reads itself: numeric, dates, uuid, ranges, enums, ..."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise Unfit(f"takes text, not {_kind(value)}")
    return value if isinstance(value, str) else repr(value)


_to_int8 = _to_integer(64)

ENCODERS: dict[str, Encode] = {
    "bool": _to_bool,
    "int2": _to_integer(16),
    "int4": _to_integer(32),
    "oid": _to_integer(32, is_signed=False),
    "int8": lambda value: str(_to_int8(value)),
    "text": _to_text,
    "varchar": _to_text,
    "bpchar": _to_text,
    "name": _to_text,
    "bytea": _to_bytea,
    "json": _to_json,
    "jsonb": _to_json,
}
"""From JSON to what the driver takes: Python values for NATIVE types, PostgreSQL's text for the others."""


class Catalog:
    """The types of one database, as far as they were met."""

    def __init__(self) -> None:
        self._types: dict[int, TypeFacts] = {}

    def __contains__(self, oid: int) -> bool:
        return oid in self._types

    def add(self, facts: TypeFacts) -> None:
        """Remember a type."""
        self._types[facts.oid] = facts

    def name(self, oid: int) -> str:
        """PostgreSQL's name of a type, an array's as `text[]`."""
        facts = self._types.get(oid)
        return facts.name if facts is not None else "unknown"

    def decoder(self, oid: int) -> Decode:
        """What reads the type's text."""
        facts = self._types.get(oid)
        if facts is None:
            return str
        if facts.element:
            each, delimiter = self.decoder(facts.element), facts.delimiter
            return lambda text: read_array(text, each, delimiter)
        return DECODERS.get(facts.name, str)

    def column(self, oid: int) -> Column | None:
        """What makes JSON's values of a column of the type; None when its values are JSON's already."""
        facts = self._types.get(oid)
        if facts is None or (not facts.element and facts.name not in DECODERS):
            return None
        if facts.name in NATIVE:
            return None
        if facts.name in COLUMNS:
            return COLUMNS[facts.name]
        decode = self.decoder(oid)
        return lambda texts: [None if text is None else decode(text) for text in texts]

    def encoder(self, oid: int) -> Encode:
        """What makes a parameter of the type from JSON."""
        facts = self._types.get(oid)
        if facts is None:
            return _to_other
        if facts.element:
            each, delimiter = self.encoder(facts.element), facts.delimiter
            return lambda value: write_array(value, each, delimiter)
        return ENCODERS.get(facts.name, _to_other)


def encode_params(values: Sequence[Any], encoders: Sequence[Encode], field: str) -> list[Any]:
    """The arguments for the driver; InvalidArgument names the parameter that does not fit."""
    if len(values) != len(encoders):
        raise InvalidArgument(
            f"The statement takes {len(encoders)} parameters and was given {len(values)}.", field=field
        )
    arguments = []
    for index, (value, encode) in enumerate(zip(values, encoders, strict=True)):
        try:
            arguments.append(None if value is None else encode(value))
        except Unfit as unfit:
            raise InvalidArgument(f"Parameter ${index + 1} {unfit}.", field=f"{field}[{index}]") from None
    return arguments


def read_array(text: str, each: Decode, delimiter: str = ",") -> list[Any]:
    """An array from PostgreSQL's text, nested as deep as it is."""
    start = text.index("{")  # [2:4]={...} says where its indexes begin, which JSON cannot say
    if '"' not in text and "\\" not in text and text.count("{") == 1:
        inner = text[start + 1 : -1]
        if not inner:
            return []
        return [None if item == "NULL" else each(item) for item in inner.split(delimiter)]
    items, _ = _read_items(text, start + 1, each, delimiter)
    return items


def _read_items(text: str, at: int, each: Decode, delimiter: str) -> tuple[list[Any], int]:
    items: list[Any] = []
    while True:
        match text[at]:
            case "}":
                return items, at + 1
            case "{":
                inner, at = _read_items(text, at + 1, each, delimiter)
                items.append(inner)
            case '"':
                end, parts, begin = at + 1, [], at + 1
                while text[end] != '"':
                    if text[end] == "\\":
                        parts.append(text[begin:end])
                        begin, end = end + 1, end + 1
                    end += 1
                parts.append(text[begin:end])
                items.append(each("".join(parts)))
                at = end + 1
            case _:
                end = at
                while text[end] not in (delimiter, "}"):
                    end += 1
                word = text[at:end]
                items.append(None if word == "NULL" else each(word))
                at = end
        if text[at] == delimiter:
            at += 1


def write_array(value: object, each: Encode, delimiter: str = ",") -> str:
    """PostgreSQL's text of an array; its own text is taken as it is."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Unfit(f"takes an array, not {_kind(value)}")
    return "{" + delimiter.join(_write_item(item, each, delimiter) for item in value) + "}"


def _write_item(item: object, each: Encode, delimiter: str) -> str:
    if item is None:
        return "NULL"
    if isinstance(item, list) and each not in (_to_json,):
        return write_array(item, each, delimiter)
    written = each(item)
    if isinstance(written, bool):
        return "t" if written else "f"
    if isinstance(written, int):
        return str(written)
    return '"' + str(written).replace("\\", "\\\\").replace('"', '\\"') + '"'
