"""A plain async class becomes a gRPC service by its descriptor, and every call goes through the one chain."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, suppress
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from isa.policy.v1 import policy_pb2
from isa_common import Internal, InvalidArgument, IsaError, PermissionDenied, Unavailable
from kernel.call import Call, Rule
from kernel.caller import Caller
from kernel.rpc.status import refuse

ChainOf = Callable[[Call], AbstractAsyncContextManager[None]]
Check = Callable[[Caller, Message], None]

ARRIVAL = 0.05
"""Seconds that what a refused caller is sending gets to arrive."""
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_END = object()
_PERMISSION = re.compile(r"[a-z]+\.(read|write|admin)")


class Unbindable(Exception):
    """A service and its class do not fit; the server does not start."""


def python_name(method: str) -> str:
    """The class's name of a method: ExecuteBatch is execute_batch."""
    return _WORD.sub("_", method).lower()


def service_named(full_name: str) -> ServiceDescriptor:
    """Find a service in the pool of generated contracts, such as `isa.sql.v1.Sql`."""
    try:
        return descriptor_pool.Default().FindServiceByName(full_name)
    except KeyError:
        raise Unbindable(f"No contract is loaded for {full_name}: import its generated module.") from None


def rule_of(method: MethodDescriptor) -> Rule:
    """What the contract says of a method; Unbindable when it says nothing."""
    options: MethodOptions = method.GetOptions()
    if not options.HasExtension(policy_pb2.rule):
        raise Unbindable(f"{method.full_name} has no rule: say its permission in the .proto.")
    rule = options.Extensions[policy_pb2.rule]
    if not _PERMISSION.fullmatch(rule.permission):
        raise Unbindable(f"{method.full_name} has the permission {rule.permission!r}: not <capability>.<level>.")
    return Rule(
        permission=rule.permission,
        read_only=options.idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
        idempotent=options.idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN,
        audit_always=rule.audit == policy_pb2.AUDIT_ALWAYS,
    )


def bind(
    service: ServiceDescriptor, implementation: object, chain: ChainOf, draining: asyncio.Event | None = None
) -> grpc.GenericRpcHandler:
    """The handlers of a service; Unbindable when a method has no rule, or no implementation of its kind.

    Once `draining` is set, streams without a deadline end with Unavailable.
    """
    draining = draining or asyncio.Event()
    handlers = {
        method.name: _handler(service, method, _implementation(method, implementation), chain, draining)
        for method in service.methods
    }
    return grpc.method_handlers_generic_handler(service.full_name, handlers)


def _implementation(method: MethodDescriptor, implementation: object) -> Callable[..., Any]:
    where = f"{type(implementation).__name__}.{python_name(method.name)}"
    found = getattr(implementation, python_name(method.name), None)
    if found is None:
        raise Unbindable(f"{where} is missing: {method.full_name} has no implementation.")
    is_right = inspect.isasyncgenfunction if method.server_streaming else inspect.iscoroutinefunction
    if not is_right(found):
        kind = "an async generator" if method.server_streaming else "a coroutine function"
        raise Unbindable(f"{where} must be {kind}, as {method.full_name} is.")
    names = list(inspect.signature(found).parameters)
    if len(names) != 2 or names[0] != "caller":
        raise Unbindable(f"{where} must take (caller, request), in this order.")
    bound: Callable[..., Any] = found
    return bound


def _handler(
    service: ServiceDescriptor,
    method: MethodDescriptor,
    function: Callable[..., Any],
    chain: ChainOf,
    draining: asyncio.Event,
) -> grpc.RpcMethodHandler:
    name, rule = f"{service.full_name}/{method.name}", rule_of(method)
    is_stream = bool(method.client_streaming or method.server_streaming)
    read = _reader(method)

    def call_of(context: grpc.aio.ServicerContext) -> Call:
        metadata = {key: value for key, value in context.invocation_metadata() if isinstance(value, str)}
        return Call(
            name=name,
            rule=rule,
            metadata=metadata,
            timeout=context.time_remaining(),
            transport="grpc",
            is_stream=is_stream,
        )

    async def answer_one(request: Any, context: grpc.aio.ServicerContext) -> Any:
        call = call_of(context)
        try:
            async with chain(call):
                caller = _caller(call)
                return await function(caller, read(caller, request))
        except IsaError as error:
            await _refuse(context, error, request)

    async def answer_many(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        call = call_of(context)
        try:
            async with chain(call):
                caller = _caller(call)
                answers = function(caller, read(caller, request))
                async with aclosing(answers if call.timeout is not None else _until(draining, answers)) as open_answers:
                    async for response in open_answers:
                        yield response
        except IsaError as error:
            await _refuse(context, error, request)

    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[method.client_streaming, method.server_streaming]
    return make(
        answer_many if method.server_streaming else answer_one,
        request_deserializer=None,  # read inside the chain: nobody learns how to ask without being allowed to
        response_serializer=GetMessageClass(method.output_type).SerializeToString,
    )


async def _until(draining: asyncio.Event, answers: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """Pass answers on until the server drains: whoever waits without end is asked to connect anew."""
    drained = asyncio.ensure_future(draining.wait())
    try:
        async with aclosing(answers):
            while True:
                following = asyncio.ensure_future(anext(answers, _END))
                try:
                    await asyncio.wait({following, drained}, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    if not following.done():
                        following.cancel()
                        with suppress(asyncio.CancelledError):
                            await following
                if following.cancelled():
                    raise Unavailable("This replica is stopping: connect again.", retry_after=timedelta(seconds=1))
                response = following.result()
                if response is _END:
                    return
                yield response
    finally:
        drained.cancel()


def _caller(call: Call) -> Caller:
    if call.caller is None:
        raise Internal("Something went wrong on our side.")  # every method of a contract has a permission
    return call.caller


def _tenant_check(method: MethodDescriptor) -> Check | None:
    """What refuses a request that names another tenant; None for messages that have no field for one."""
    fields = method.input_type.fields_by_name
    names = [
        name for name in ("org_id", "user_id") if name in fields and fields[name].type == FieldDescriptor.TYPE_STRING
    ]
    if not names:
        return None

    def check(caller: Caller, request: Message) -> None:
        for name in names:
            given = getattr(request, name)
            if given and given != (caller.org if name == "org_id" else caller.user):
                raise PermissionDenied(f"Leave out {name}: it comes from your token.", field=name)

    return check


def _reader(method: MethodDescriptor) -> Callable[[Caller, Any], Any]:
    """What makes a method's request of bytes, or its requests of a stream of them, and refuses those of others."""
    parse, check = GetMessageClass(method.input_type).FromString, _tenant_check(method)

    def read(caller: Caller, data: bytes) -> Message:
        try:
            request = parse(data)
        except DecodeError:
            raise InvalidArgument(f"The request is no {method.input_type.full_name}.") from None
        if check:
            check(caller, request)
        return request

    async def read_all(caller: Caller, stream: AsyncIterator[bytes]) -> AsyncIterator[Message]:
        async for data in stream:
            yield read(caller, data)

    return read_all if method.client_streaming else read


async def _refuse(context: grpc.aio.ServicerContext, error: IsaError, request: Any) -> None:
    """End a call with an error, once what its caller was sending has arrived.

    A send that fails because the call has ended makes grpc.aio's client say INTERNAL in place of the error.
    """
    if not isinstance(request, bytes):
        with suppress(Exception):  # the time is up, or the stream broke
            async with asyncio.timeout(ARRIVAL):
                async for _ in request:
                    pass
    await refuse(context, error)
