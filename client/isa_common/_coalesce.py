"""Calls that are made at the same time, sent as one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

from isa_common.errors import IsaError, MessageTooLarge

Req = TypeVar("Req")
Res = TypeVar("Res")
_Group = tuple[asyncio.AbstractEventLoop, timedelta | None]

_ALONE: Any = object()
"""Tells the only call of a tick to go out by itself."""


class Coalescer(Generic[Req, Res]):
    """Sends the calls of one tick of the loop as batches, and a lonely one as it is.

    `await coalescer(request)` is the call. Calls of one timeout share a batch, so that each keeps its own deadline.
    A batch goes on when some of its waiters go away, and one that is too large for a message goes out in parts.
    """

    def __init__(
        self,
        one: Callable[[Req, timedelta | None], Awaitable[Res]],
        many: Callable[[list[Req], timedelta | None], Awaitable[Sequence[Res | IsaError]]],
        *,
        most: int = 256,
    ) -> None:
        """Prepare for calls; `many` answers in the order of its requests."""
        self._one = one
        self._many = many
        self._most = most
        self._waiting: dict[_Group, list[tuple[Req, asyncio.Future[Res]]]] = {}
        self._sending: set[asyncio.Task[None]] = set()

    async def __call__(self, request: Req, timeout: timedelta | None = None) -> Res:
        """Make the call; raises what concerns this request alone."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Res] = loop.create_future()
        group = (loop, timeout)
        together = self._waiting.get(group)
        if together is None:
            together = self._waiting[group] = []
            loop.call_soon(self._send, group)
        together.append((request, waiter))
        answer = await waiter
        if answer is _ALONE:
            return await self._one(request, timeout)
        return answer

    def _send(self, group: _Group) -> None:
        """Send what came together in this tick."""
        calls = [call for call in self._waiting.pop(group) if not call[1].done()]
        for start in range(0, len(calls), self._most):
            together = calls[start : start + self._most]
            if len(together) == 1:
                together[0][1].set_result(_ALONE)
                continue
            task = asyncio.ensure_future(self._batch(together, group[1]))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _batch(self, calls: list[tuple[Req, asyncio.Future[Res]]], timeout: timedelta | None) -> None:
        answers: Sequence[Res | BaseException]
        try:
            answers = await self._many([request for request, _ in calls], timeout)
            assert len(answers) == len(calls), "a batch answers each of its requests"
        except asyncio.CancelledError:
            for _, waiter in calls:
                waiter.cancel()
            raise
        except MessageTooLarge as error:
            if len(calls) > 1:
                half = len(calls) // 2
                await asyncio.gather(self._batch(calls[:half], timeout), self._batch(calls[half:], timeout))
                return
            answers = [error]
        except Exception as error:
            answers = [copy.copy(error) for _ in calls]  # one traceback each
        for (_, waiter), answer in zip(calls, answers, strict=True):
            if waiter.done():
                continue
            if isinstance(answer, BaseException):
                waiter.set_exception(answer)
            else:
                waiter.set_result(answer)
