"""The facts of a method, as its contract states them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

Kind = Literal["unary_unary", "unary_stream", "stream_unary", "stream_stream"]
_KINDS: dict[tuple[bool, bool], Kind] = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}
"""By whether requests and whether answers are many; gRPC's names."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: where it is, how its messages are read and written, and whether it may be repeated."""

    path: str
    capability: str
    kind: Kind
    is_idempotent: bool
    serialize: Callable[[Any], bytes]
    deserialize: Callable[[bytes], Any]


def methods(service: ServiceDescriptor, *, capability: str) -> dict[str, Method]:
    """The methods of a service, by name."""
    return {name: method(service, name, capability=capability) for name in service.methods_by_name}


def method(service: ServiceDescriptor, name: str, *, capability: str) -> Method:
    """Read a method's facts from its descriptor."""
    descriptor: MethodDescriptor = service.methods_by_name[name]
    options: MethodOptions = descriptor.GetOptions()
    response: type[Message] = GetMessageClass(descriptor.output_type)
    request: type[Message] = GetMessageClass(descriptor.input_type)
    return Method(
        path=f"/{service.full_name}/{descriptor.name}",
        capability=capability,
        kind=_KINDS[descriptor.client_streaming, descriptor.server_streaming],
        is_idempotent=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        serialize=request.SerializeToString,
        deserialize=response.FromString,
    )
