"""Typed values as bytes and back: dataclasses, pydantic models, and whatever else pydantic can check."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

import msgpack
from pydantic import TypeAdapter
from pydantic_core import to_jsonable_python

T = TypeVar("T")
Format = Literal["msgpack", "json"]


class Codec(Generic[T]):
    """Writes and reads values of one type. JSON is for readers in other languages; bytes need msgpack there."""

    def __init__(self, kind: type[T], form: Format = "msgpack") -> None:
        self._adapter: TypeAdapter[T] = TypeAdapter(kind)
        self._form = form

    def encode(self, value: T) -> bytes:
        """The value as bytes."""
        if self._form == "json":
            return self._adapter.dump_json(value)
        packed: bytes = msgpack.packb(self._adapter.dump_python(value), default=_plain)
        return packed

    def decode(self, data: bytes) -> T:
        """The value that was written; ValueError when these bytes are none of this type."""
        if self._form == "json":
            return self._adapter.validate_json(data)
        try:
            plain = msgpack.unpackb(data, strict_map_key=False)
        except (msgpack.exceptions.UnpackException, ValueError, RecursionError) as error:
            raise ValueError("These bytes are no msgpack.") from error
        return self._adapter.validate_python(plain)


def _plain(value: Any) -> Any:
    """What msgpack has no form for, in one that pydantic reads back."""
    if isinstance(value, set | frozenset):
        return list(value)
    return str(value) if isinstance(value, int) else to_jsonable_python(value)  # an integer beyond 64 bits
