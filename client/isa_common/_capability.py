"""What every capability does alike: whom it acts for, and how its methods are called."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from datetime import timedelta
from typing import Any, ClassVar, Protocol, Self

from google.protobuf.message import Message

from isa_common._contract import Method
from isa_common._transport import Transport


class Acting(Protocol):
    """Whom a workload acts for; the kernel's `Caller` is one."""

    @property
    def org(self) -> str:
        """The organisation's id."""

    @property
    def user(self) -> str:
        """The person's id, or nothing."""


def acting(caller: Acting | None, org: str, user: str) -> dict[str, str]:
    """The metadata that say whom a workload acts for."""
    if caller is not None:
        org, user = caller.org, caller.user
    return {name: value for name, value in (("isa-org", org), ("isa-user", user)) if value}


class Capability:
    """The methods of one service, called for one caller."""

    _methods: ClassVar[Mapping[str, Method]]

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        self._transport = transport
        self._acting = acting_for

    def acting_for(self, caller: Acting | None = None, *, org: str = "", user: str = "") -> Self:
        """Return the same, acting for an organisation; only our own workloads may."""
        return type(self)(self._transport, acting_for=acting(caller, org, user))

    def _call(self, name: str, request: Message, timeout: timedelta | None) -> Awaitable[Any]:
        return self._unary(self._methods[name], request, timeout)

    def _unary(self, method: Method, request: Message, timeout: timedelta | None) -> Awaitable[Any]:
        return self._transport.unary(method, request, timeout=timeout, acting=self._acting)

    def _stream(self, name: str, request: Message, timeout: timedelta | None) -> AsyncIterator[Any]:
        return self._transport.stream(self._methods[name], request, timeout=timeout, acting=self._acting)
