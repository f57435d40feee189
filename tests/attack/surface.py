"""What can be called: every RPC of every contract, and the requests for it, made from the descriptors.

A contract that gains an RPC is attacked without a line here. A contract that gains a text whose name `values.py` does
not know fails the suite until somebody says what the text is.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

import isa
from isa.policy.v1 import policy_pb2

DEEPEST = 7
"""Messages within messages; filters hold filters without end."""
MOST = 80
"""Requests that are made for one RPC."""


@dataclass(frozen=True, slots=True)
class Rpc:
    """One method of a contract."""

    method: MethodDescriptor

    @property
    def name(self) -> str:
        """`isa.cache.v1.Cache/Get`, as the audit has it."""
        return f"{self.method.containing_service.full_name}/{self.method.name}"

    @property
    def package(self) -> str:
        """`isa.cache.v1`."""
        return str(self.method.containing_service.file.package)

    @property
    def capability(self) -> str:
        """`cache`."""
        return self.package.split(".")[1]

    @property
    def permission(self) -> str:
        """`cache.read`."""
        return str(self.method.GetOptions().Extensions[policy_pb2.rule].permission)

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return bool(self.method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS)


@functools.cache
def rpcs() -> tuple[Rpc, ...]:
    """Return every RPC of every contract, in the order of their files."""
    found: list[Rpc] = []
    for module in pkgutil.walk_packages(isa.__path__, "isa."):
        if module.name.endswith("_pb2"):
            services = importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()
            found += [Rpc(method) for service in services for method in service.methods]
    return tuple(found)


class Values:
    """What the fields of requests hold: by full name, by capability and name, or by name alone."""

    def __init__(self, known: Mapping[str, Sequence[object]], numbers: Mapping[str, int]) -> None:
        self._known = known
        self._numbers = numbers

    def of(self, field: FieldDescriptor) -> Sequence[object]:
        """The values of a text; the first is the usual one."""
        capability = field.file.package.split(".")[1]
        for name in (field.full_name, f"{capability}.{field.name}", field.name):
            if name in self._known:
                return self._known[name]
        raise LookupError(f"Say in tests/attack/values.py what {field.full_name} may hold.")

    def number(self, field: FieldDescriptor, usual: int) -> int:
        """A number that makes sense, or seconds of a duration."""
        return self._numbers.get(field.name, usual)


def requests(rpc: Rpc, values: Values) -> Iterator[list[Message]]:
    """Yield requests of an RPC: one with the usual values, then one for each other choice, of all depths.

    Each is a list, the messages of a call: a stream of requests sends one of each kind, in the contract's order.
    """
    descriptor = rpc.method.input_type
    if rpc.method.client_streaming:
        kinds: dict[str | None, Message] = {}
        for message in _messages(descriptor, values, 0):
            kinds.setdefault(message.WhichOneof(descriptor.oneofs[0].name), message)
        yield list(kinds.values())
        return
    for count, message in enumerate(_messages(descriptor, values, 0)):
        if count == MOST:
            return
        yield [message]


def _messages(descriptor: Descriptor, values: Values, depth: int) -> Iterator[Message]:
    slots = list(_slots(descriptor, values, depth))
    yield _filled(descriptor, [options[0] for options in slots if options])
    for at, options in enumerate(slots):
        for option in options[1:]:
            others = [other[0] for place, other in enumerate(slots) if place != at and other]
            yield _filled(descriptor, [*others, option])


Option = tuple[FieldDescriptor, Any]


def _slots(descriptor: Descriptor, values: Values, depth: int) -> Iterator[list[Option]]:
    """For each field, or each choice between fields, what it may be set to."""
    if depth > DEEPEST:
        return
    for oneof in descriptor.oneofs:
        if len(oneof.fields) > 1:
            yield [option for field in oneof.fields for option in _options(field, values, depth)]
    for field in descriptor.fields:
        if field.containing_oneof is None or len(field.containing_oneof.fields) == 1:
            yield _options(field, values, depth)


def _options(field: FieldDescriptor, values: Values, depth: int) -> list[Option]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        entry = kind.fields_by_name
        keys, inner = _plain(entry["key"], values, depth), _plain(entry["value"], values, depth)
        return [(field, {keys[0]: value}) for value in inner]
    return [(field, [value] if field.is_repeated else value) for value in _plain(field, values, depth)]


_NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32, FieldDescriptor.CPPTYPE_UINT64,
}  # fmt: skip
_FRACTIONS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}


def _plain(field: FieldDescriptor, values: Values, depth: int) -> list[Any]:
    """The values of one element of a field."""
    if field.message_type is not None:
        name = field.message_type.full_name
        if name == "google.protobuf.Duration":
            return [field.message_type._concrete_class(seconds=values.number(field, 3600))]
        if name == "google.protobuf.Timestamp":
            return [field.message_type._concrete_class(seconds=1_700_000_000)]
        return list(_messages(field.message_type, values, depth + 1))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return list(values.of(field))
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return [value.number for value in field.enum_type.values if value.number]
    if field.cpp_type in _NUMBERS:
        return [values.number(field, 1)]
    if field.cpp_type in _FRACTIONS:
        return [0.5]
    return [False]


def _filled(descriptor: Descriptor, options: Sequence[Option]) -> Message:
    message = GetMessageClass(descriptor)()
    for field, value in options:
        if isinstance(value, dict):
            place = getattr(message, field.name)
            for key, inner in value.items():
                if isinstance(inner, Message):
                    place[key].CopyFrom(inner)
                else:
                    place[key] = inner
        elif field.is_repeated:
            getattr(message, field.name).extend(value)
        elif isinstance(value, Message):
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


Put = Callable[[str | bytes], None]


def texts(message: Message) -> Iterator[tuple[str, bool, Put]]:
    """Yield each text of a message and of what is inside: its path, whether it is bytes, and what replaces it."""
    for field in message.DESCRIPTOR.fields:
        value, kind = getattr(message, field.name), field.message_type
        is_choice = field.containing_oneof is not None
        if (field.is_repeated and not value) or (
            (kind is not None or is_choice) and not field.is_repeated and not message.HasField(field.name)
        ):
            continue
        if kind is not None and kind.GetOptions().map_entry:
            yield from _map_texts(field, value)
        elif kind is not None:
            for inner in value if field.is_repeated else [value]:
                for path, is_bytes, put in texts(inner):
                    yield f"{field.name}.{path}", is_bytes, put
        elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
            yield field.name, field.type == FieldDescriptor.TYPE_BYTES, functools.partial(_put, message, field)


def _map_texts(field: FieldDescriptor, entries: Any) -> Iterator[tuple[str, bool, Put]]:
    inner = field.message_type.fields_by_name["value"]
    if inner.message_type is not None:
        for value in list(entries.values()):
            for path, is_bytes, put in texts(value):
                yield f"{field.name}.{path}", is_bytes, put

    def rename(text: str | bytes) -> None:
        (key,) = entries
        if inner.message_type is not None:
            kept = type(entries[key])()
            kept.CopyFrom(entries[key])
            del entries[key]
            entries[text].CopyFrom(kept)
        else:
            entries[text] = entries.pop(key)

    if field.message_type.fields_by_name["key"].cpp_type == FieldDescriptor.CPPTYPE_STRING:
        yield f"{field.name}.key", False, rename


def _put(message: Message, field: FieldDescriptor, text: str | bytes) -> None:
    if field.is_repeated:
        getattr(message, field.name)[0] = text
    else:
        setattr(message, field.name, text)
