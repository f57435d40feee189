"""Who listens, reads, watches, consumes and responds."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from types import TracebackType
from typing import Self

from isa.streams.v1 import streams_pb2 as pb
from isa_common._feed import Feed
from isa_common._stream_values import Delivery, KeyEntry, Message, Settle, delivery_of, entry_of, message_of
from isa_common._transport import error_of
from isa_common.errors import Unavailable

_log = logging.getLogger("isa_common.streams")


class Subscription(Feed[Message, pb.SubscribeResponse]):
    """Messages as they are published. It goes on when the service was away; messages of that time are missing."""

    _heals = True

    def __init__(self, call: Callable[[], AsyncIterator[pb.SubscribeResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one
        self.dropped = 0
        """Messages that were left out because they were read too slowly."""
        self.interruptions = 0
        """How often the service or its broker was away."""

    def _take(self, response: pb.SubscribeResponse) -> Iterable[Message]:
        self.dropped += response.dropped
        self.interruptions += response.interrupted
        return map(message_of, response.messages)

    def _weigh(self, item: Message) -> int:
        return len(item.data)

    def _lost(self) -> None:
        self.interruptions += 1


class Replay(Feed[Message, pb.ReplayResponse]):
    """Messages of a stream in order."""

    def __init__(self, call: Callable[[], AsyncIterator[pb.ReplayResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one

    def _take(self, response: pb.ReplayResponse) -> Iterable[Message]:
        return map(message_of, response.messages)

    def _weigh(self, item: Message) -> int:
        return len(item.data)


class Watch(Feed[KeyEntry, pb.WatchResponse]):
    """Current values of a bucket, then its changes."""

    def __init__(self, call: Callable[[], AsyncIterator[pb.WatchResponse]]) -> None:
        super().__init__()
        self._call = call  # type: ignore[method-assign]  # the call of this one
        self._current = 0
        """Current values that were not returned yet, as far as they are known."""
        self._is_current_known = False

    @property
    def is_current(self) -> bool:
        """Whether every current value was returned: what comes now is new."""
        return self._is_current_known and self._current <= 0

    async def current(self) -> list[KeyEntry]:
        """Return the current values; what `async for` gives afterwards is new."""
        values: list[KeyEntry] = []
        await self._begin()
        while not self.is_current:
            if self._items:
                values.append(await self.__anext__())
            elif self._error is not None:
                raise self._error
            else:
                self._changed.clear()
                await self._changed.wait()
        return values

    async def __anext__(self) -> KeyEntry:
        entry = await super().__anext__()
        self._current -= 1
        return entry

    def _take(self, response: pb.WatchResponse) -> Iterable[KeyEntry]:
        if not self._is_current_known:
            self._current += len(response.entries)
            self._is_current_known = response.current_done
        return map(entry_of, response.entries)

    def _weigh(self, item: KeyEntry) -> int:
        return len(item.value)


class Consumption(Feed[Delivery, pb.ConsumeResponse]):
    """Messages of a consumer. It goes on when the service was away: what is not settled comes again."""

    _heals = True

    def __init__(
        self,
        call: Callable[[AsyncIterator[pb.ConsumeRequest]], AsyncIterator[pb.ConsumeResponse]],
        opening: pb.ConsumeRequest,
        settle: Settle,
    ) -> None:
        super().__init__()
        self._duplex = call
        self._opening = opening
        self._settle_alone = settle
        self._settlements: deque[pb.Settlement] = deque()
        self._said = asyncio.Event()
        self._is_closing = False
        self._calls = 0
        self._confirming: dict[bytes, asyncio.Future[None]] = {}

    async def aclose(self) -> None:
        """Send what was settled, and end the call."""
        self._is_closing = True
        self._items.clear()
        self._changed.set()
        self._said.set()
        if self._reader is not None:
            await asyncio.wait([self._reader], timeout=5)
        await super().aclose()

    def _call(self) -> AsyncIterator[pb.ConsumeResponse]:
        self._calls += 1
        self._said.set()
        return self._duplex(self._requests(self._calls))

    async def _requests(self, call: int) -> AsyncIterator[pb.ConsumeRequest]:
        yield self._opening
        while True:
            await self._said.wait()
            if call != self._calls:  # what is said now is for the call that came after
                return
            self._said.clear()
            while self._settlements:
                some = [self._settlements.popleft() for _ in range(min(len(self._settlements), 1000))]
                yield pb.ConsumeRequest(settle=pb.SettleRequest(settlements=some))
            if self._is_closing:
                return

    def _take(self, response: pb.ConsumeResponse) -> Iterable[Delivery]:
        for outcome in response.settled:
            waiting = self._confirming.pop(outcome.ack_token, None)
            if waiting is not None and not waiting.done():
                if outcome.HasField("error"):
                    waiting.set_exception(error_of(outcome.error))
                else:
                    waiting.set_result(None)
        if self._is_closing:
            return ()
        return (delivery_of(each, self._settle) for each in response.deliveries)

    def _weigh(self, item: Delivery) -> int:
        return 0  # `max_in_flight` is its bound, and what is settled must be read in time

    def _lost(self) -> None:
        self._calls += 1  # what is said from now on waits for the next call
        self._ended()
        if self._is_closing:
            raise Unavailable("The service went away before it took all that was settled.")

    def _ended(self) -> None:
        for waiting in self._confirming.values():
            if not waiting.done():
                waiting.set_exception(self._error or Unavailable("The service went away before it confirmed."))
        self._confirming.clear()

    async def _settle(self, settlement: pb.Settlement) -> None:
        if self._is_closing or self._error is not None:  # too late for this call
            await self._settle_alone(settlement)
            return
        confirmed = None
        if settlement.confirm:
            confirmed = self._confirming[settlement.ack_token] = asyncio.get_running_loop().create_future()
        self._settlements.append(settlement)
        self._said.set()
        if confirmed is not None:
            await confirmed


class Responder:
    """Answers requests while it is open: each message goes to the handler, and what that returns goes back."""

    def __init__(
        self,
        subscription: Subscription,
        handler: Callable[[Message], Awaitable[bytes]],
        reply: Callable[[Message, bytes], Awaitable[None]],
        *,
        at_once: int,
    ) -> None:
        self._subscription = subscription
        self._handler = handler
        self._reply = reply
        self._places = asyncio.Semaphore(at_once)
        self._running: set[asyncio.Task[None]] = set()
        self._server: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self._subscription.__aenter__()
        self._server = asyncio.create_task(self._serve())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Take no more requests, and finish those at hand."""
        await self._subscription.aclose()
        if self._running:
            await asyncio.wait(self._running)
        if self._server is not None:
            await asyncio.wait([self._server])
            if kind is None:
                self._server.result()

    async def wait(self) -> None:
        """Return when it was closed; raise what ended it."""
        assert self._server is not None, "opened before it is waited for"
        await asyncio.shield(self._server)

    async def _serve(self) -> None:
        async for message in self._subscription:
            await self._places.acquire()
            task = asyncio.create_task(self._answer(message))
            self._running.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._places.release()

    async def _answer(self, message: Message) -> None:
        try:
            answer = await self._handler(message)
            if message.reply_token:
                await self._reply(message, answer)
        except Exception:
            _log.exception("A handler failed; who asked gets no answer.")
