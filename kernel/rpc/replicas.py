"""Calls that another replica of this app must answer: passed on to it, with the token that they came with."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from isa_common import DeadlineExceeded, Unavailable
from isa_common._contract import method
from isa_common._transport import Transport
from kernel import telemetry
from kernel.call import CURRENT, Call
from kernel.rpc.binding import service_named

ACTING = ("isa-org", "isa-user")
CONNECT = timedelta(seconds=2)
PROBE = timedelta(seconds=2)
_HEALTH = method(health_pb2.DESCRIPTOR.services_by_name["Health"], "Check", capability="health")


class Replicas:
    """The other replicas, by address. They check the caller's token as if the call had come to them."""

    def __init__(self, service: str) -> None:
        self._service = service_named(service)
        self._transports: dict[str, Transport] = {}

    async def ask(self, address: str, name: str, request: Message) -> Any:
        """Have a replica answer the call at hand; Unavailable when it does not."""
        call = _call()
        timeout = None
        if call.timeout is not None:
            timeout = timedelta(seconds=call.timeout) - (datetime.now(UTC) - call.started)
        return await self._transport(address).unary(
            method(self._service, name, capability="replicas"),
            request,
            timeout=timeout,
            acting={key: call.metadata[key] for key in ACTING if key in call.metadata},
        )

    async def is_there(self, address: str) -> bool:
        """Tell whether a replica answers."""
        try:
            await self._transport(address).unary(_HEALTH, health_pb2.HealthCheckRequest(), timeout=PROBE)
        except (Unavailable, DeadlineExceeded):
            return False
        return True

    async def stop(self) -> None:
        """Close the connections."""
        for transport in self._transports.values():
            await transport.close()

    def _transport(self, address: str) -> Transport:
        if address not in self._transports:
            self._transports[address] = Transport(
                address, token=_token, connect_timeout=CONNECT, metadata=telemetry.outgoing
            )
        return self._transports[address]


def _call() -> Call:
    call = CURRENT.get()
    assert call is not None, "only calls are passed on"
    return call


async def _token() -> str:
    return _call().metadata.get("authorization", "").partition(" ")[2]
