"""The `isa.streams.v1.Streams` service on NATS."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nats.errors import Error

from isa_common import Unavailable
from kernel import ErrorMap
from services.adapters.nats.broker import Broker
from services.adapters.nats.buckets import Buckets
from services.adapters.nats.consumers import Consumers
from services.adapters.nats.messages import Messages


class Streams(Messages, Buckets, Consumers):
    """Messages, streams, consumers and buckets of a caller's organisation, in NATS."""

    def __init__(self, broker: Broker, *, key: Callable[[], Awaitable[bytes]]) -> None:
        self._broker = broker
        self._key = key

    async def start(self) -> None:
        """Begin to connect."""
        self._broker.tokens.use(await self._key())
        await self._broker.connection.start()

    async def stop(self) -> None:
        """Let go of NATS."""
        await self._broker.connection.stop()


def _away(_: BaseException) -> Unavailable:
    return Unavailable("The broker went away in the middle of the call.")


ERRORS: ErrorMap = {Error: _away, OSError: _away}
