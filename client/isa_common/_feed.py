"""Calls that do not end by themselves: what they bring, taken one by one."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from types import TracebackType
from typing import Generic, Self, TypeVar

from isa_common.errors import DeadlineExceeded, Unavailable

Item = TypeVar("Item")
Response = TypeVar("Response")

_AHEAD = 1024
"""Items that wait for who reads them; with more, or with more bytes, the service is asked to wait."""
_AHEAD_BYTES = 4 << 20
_BEGIN = 10
"""Seconds until the first answer of a call that does not end by itself."""


class Feed(Generic[Item, Response]):
    """Answers of a call that does not end by itself: `async with` waits until it began, `async for` takes what comes.

    Waiting for an item may be cancelled; nothing is lost by that.
    """

    _heals = False
    """Whether it is called again when the service was away."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._began = asyncio.Event()
        self._error: BaseException | None = None
        self._reader: asyncio.Task[None] | None = None

    def _call(self) -> AsyncIterator[Response]:
        """Begin the call."""
        raise NotImplementedError

    def _take(self, response: Response) -> Iterable[Item]:
        """The items of an answer."""
        raise NotImplementedError

    def _weigh(self, item: Item) -> int:
        """The bytes of an item."""
        raise NotImplementedError

    def _lost(self) -> None:
        """Note that the service was away."""

    def _ended(self) -> None:
        """Note that nothing more comes."""

    async def aclose(self) -> None:
        """End the call."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def __aenter__(self) -> Self:
        try:
            await self._begin()
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[Item]:
        is_own = self._reader is None
        try:
            while True:
                try:
                    item = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield item
        finally:
            if is_own:
                await self.aclose()

    async def __anext__(self) -> Item:
        await self._begin()
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._reader is None or self._reader.done():
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._size -= self._weigh(item)
        self._changed.set()  # the reader may go on
        return item

    async def _begin(self) -> None:
        """Begin the call, if that is not done, and wait until it is answered."""
        if self._began.is_set():
            return
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(_BEGIN):
                await self._began.wait()
        except TimeoutError:
            raise DeadlineExceeded("The service did not begin to answer in time.") from None
        if self._error is not None:
            raise self._error

    async def _read(self) -> None:
        try:
            while True:
                try:
                    async for response in self._call():
                        for item in self._take(response):
                            self._items.append(item)
                            self._size += self._weigh(item)
                        self._began.set()
                        self._changed.set()
                        while len(self._items) > _AHEAD or self._size > _AHEAD_BYTES:
                            self._changed.clear()
                            await self._changed.wait()
                except Unavailable:
                    if not self._heals or not self._began.is_set():
                        raise
                    self._lost()
                    await asyncio.sleep(random.uniform(0.1, 0.3))
                else:
                    return
        except Exception as error:
            self._error = error
        finally:
            self._ended()
            self._began.set()
            self._changed.set()
