"""Several addresses behind one client: each capability at its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from datetime import timedelta
from typing import Any

from isa_common._contract import Method
from isa_common._transport import Transport
from isa_common.errors import InvalidArgument


class Routed(Transport):
    """Calls the methods of a capability at the address that it is served at."""

    def __init__(self, addresses: Mapping[str, str], connect: Callable[[str], Transport]) -> None:
        self._transports = {capability: connect(address) for capability, address in addresses.items()}

    def _of(self, capability: str) -> Transport:
        try:
            return self._transports[capability]
        except KeyError:
            raise InvalidArgument(f"The target has no address for {capability}.", field="target") from None

    @property
    def _used(self) -> list[Transport]:
        return [each for each in self._transports.values() if each.is_connected]

    @property
    def is_connected(self) -> bool:
        """Whether a channel is held."""
        return bool(self._used)

    @property
    def is_healthy(self) -> bool:
        """Whether every channel that was used can carry calls."""
        return bool(self._used) and all(each.is_healthy for each in self._used)

    @property
    def reconnects(self) -> int:
        """How often a channel was replaced."""
        return sum(each.reconnects for each in self._transports.values())

    @property
    def outages(self) -> int:
        """How often a connection was lost."""
        return sum(each.outages for each in self._transports.values())

    async def reconnect(self) -> None:
        """Replace every channel that was used."""
        for each in self._used:
            await each.reconnect()

    async def close(self) -> None:
        """Let go of every channel."""
        for each in self._transports.values():
            await each.close()

    async def health(self, capability: str, *, timeout: timedelta) -> bool:
        """Ask whether the service of a capability serves."""
        return await self._of(capability).health(capability, timeout=timeout)

    async def unary(self, method: Method, request: Any, **options: Any) -> Any:
        """Call a method with one answer."""
        return await self._of(method.capability).unary(method, request, **options)

    async def collect(self, method: Method, requests: AsyncIterator[Any], **options: Any) -> Any:
        """Call a method that takes many requests."""
        return await self._of(method.capability).collect(method, requests, **options)

    async def stream(self, method: Method, request: Any, **options: Any) -> AsyncIterator[Any]:
        """Call a method with many answers."""
        async with aclosing(self._of(method.capability).stream(method, request, **options)) as answers:  # type: ignore[type-var]  # a generator
            async for answer in answers:
                yield answer

    async def duplex(self, method: Method, requests: AsyncIterator[Any], **options: Any) -> AsyncIterator[Any]:
        """Call a method with many requests and many answers."""
        async with aclosing(self._of(method.capability).duplex(method, requests, **options)) as answers:  # type: ignore[type-var]  # a generator
            async for answer in answers:
                yield answer
