"""What an organisation may use of an engine at once, and what it used: nobody fills what all share.

Each organisation has a share of open calls, of open streams, of items a second and of stored bytes. The first three
are counted in this process; stored bytes are asked of the adapter. Our own workloads that act for an organisation
use its share; those that act for nobody have none.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import prometheus_client

from isa_common import ResourceExhausted
from kernel import telemetry
from kernel.call import CURRENT, Call
from kernel.caller import Caller

REFUSED = prometheus_client.Counter("isa_share_refused_total", "Calls refused because of a share.", ["share"])
ACCOUNTS = prometheus_client.Gauge("isa_share_organisations", "Organisations that are remembered.")

REMEMBERED = 10_000
"""Organisations whose account is kept while they do nothing; the longest idle ones are forgotten first."""
FRESH = 10.0
"""Seconds for which a measurement of stored bytes is taken as it is."""
UNHINDERED = 8
"""Open calls of an organisation that need no turnstile."""
AGAIN = timedelta(milliseconds=100)
"""When to come back for a place among the open calls: others end all the time."""
STREAM_AGAIN = timedelta(seconds=1)

Stored = Callable[[str], Awaitable[int]]
"""Measures the bytes that an organisation holds on the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The share of every organisation."""

    calls: int = 256
    streams: int = 64
    rate: float = 10_000.0
    burst: float = 50_000.0
    bytes: int = 10 << 30


@dataclass(slots=True)
class Account:
    """What one organisation uses, and used since it was first seen."""

    tokens: float
    """Items that it may do at once; below zero after a batch that was larger than the burst."""
    at: float
    """When `tokens` was true, monotonic."""
    open_calls: int = 0
    open_streams: int = 0
    calls: int = 0
    errors: int = 0
    items: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    stored: int | None = None
    """Bytes, as last measured."""
    growing: int = 0
    """Bytes that calls which are still open were let in with."""
    grown: int = 0
    """Bytes of calls that ended since that measurement began."""
    measured_at: float = float("-inf")
    measuring: asyncio.Task[None] | None = None

    @property
    def estimate(self) -> int:
        """Bytes that it holds, or will when its open calls are done."""
        return (self.stored or 0) + self.growing + self.grown


class Turnstile:
    """Lets the calls of busy organisations in by turns, one each time the event loop goes round.

    gRPC accepts one call a round, in the order in which they came. A crowd that is let in no faster waits here, where
    others pass it, and not at the door, where nobody can.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    async def wait(self, org: str) -> None:
        """Return when it is this call's turn."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(self._turn, loop)
        turn = loop.create_future()
        self._waiting.setdefault(org, deque()).append(turn)
        await turn

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        org, queue = self._waiting.popitem(last=False)
        turn = queue.popleft()
        if not turn.done():  # its caller is still there
            turn.set_result(None)
        if queue:
            self._waiting[org] = queue
        if self._waiting:
            loop.call_soon(self._turn, loop)


class Shares:
    """The accounts of all organisations in this process."""

    def __init__(self, limits: Limits | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits or Limits()
        self.stored: Stored | None = None
        """How the engine is asked; None where it stores nothing that grows."""
        self._clock = clock
        self._accounts: OrderedDict[str, Account] = OrderedDict()
        self._turnstile = Turnstile()

    async def enter(self, caller: Caller, *, is_stream: bool = False) -> Account | None:
        """Let a call in, or refuse it; None for who has no share. What was let in leaves by `leave`."""
        if not caller.org:
            return None
        account = self.account(caller.org)
        if account.open_calls >= UNHINDERED:
            await self._turnstile.wait(caller.org)
        limits = self.limits
        if is_stream:
            if account.open_streams >= limits.streams:
                raise self._refusal(account, "streams", limits.streams, STREAM_AGAIN)
        elif account.open_calls >= limits.calls:
            raise self._refusal(account, "calls", limits.calls, AGAIN)
        self._take(account, 1)
        if is_stream:
            account.open_streams += 1
        else:
            account.open_calls += 1
        return account

    def leave(self, account: Account, call: Call, *, is_error: bool) -> None:
        """Give back the place of a call that ended."""
        account.calls += 1
        account.errors += is_error
        account.growing -= call.grows
        account.grown += call.grows
        if call.is_stream:
            account.open_streams -= 1
        else:
            account.open_calls -= 1

    def spend(self, caller: Caller, items: int) -> None:
        """Let the further items of a batch in, beside the one that its call is, or refuse them all."""
        if caller.org and items > 0:
            self._take(self.account(caller.org), items)

    async def room(self, caller: Caller, size: int) -> None:
        """Let the call at hand store `size` bytes more, or refuse it."""
        if not caller.org or self.stored is None:
            return
        account, most = self.account(caller.org), self.limits.bytes
        if account.stored is None:
            await self._measured(caller.org, account)
        elif self._clock() - account.measured_at > FRESH:
            self._measure(caller.org, account)  # beside the call, which goes by the estimate
        if account.estimate + size > most:
            await self._measured(caller.org, account)
            if account.estimate + size > most:
                raise self._refusal(account, "bytes", most, None)
        if call := CURRENT.get():
            account.growing += size
            call.grows += size
        else:
            account.grown += size

    async def stored_by(self, org: str) -> int | None:
        """Bytes that an organisation holds, at most some seconds old; None where the engine does not tell."""
        if self.stored is None:
            return None
        account = self.account(org)
        if account.stored is None or self._clock() - account.measured_at > FRESH:
            await self._measured(org, account)
        return account.stored

    def account(self, org: str) -> Account:
        """The account of an organisation, made when it is not known."""
        account = self._accounts.get(org)
        if account is None:
            account = self._accounts[org] = Account(self.limits.burst, self._clock())
            self._forget()
            ACCOUNTS.set(len(self._accounts))
        else:
            self._accounts.move_to_end(org)
        return account

    def _forget(self) -> None:
        """Drop the account that was idle longest, when there are too many; one in use stays."""
        if len(self._accounts) <= REMEMBERED:
            return
        for org, account in self._accounts.items():
            if not (account.open_calls or account.open_streams or account.measuring):
                del self._accounts[org]
                return

    def _take(self, account: Account, items: int) -> None:
        limits, now = self.limits, self._clock()
        tokens = min(limits.burst, account.tokens + (now - account.at) * limits.rate)
        account.tokens, account.at = tokens, now
        wanted = min(items, limits.burst)  # what is larger than the burst is let in after a rest, and leaves a debt
        if tokens < wanted:
            pause = timedelta(seconds=(wanted - tokens) / limits.rate, milliseconds=1)
            raise self._refusal(account, "rate", limits.rate, pause)
        account.tokens = tokens - items
        account.items += items

    def _refusal(self, account: Account, share: str, limit: float, retry_after: timedelta | None) -> ResourceExhausted:
        account.refused[share] = account.refused.get(share, 0) + 1
        REFUSED.labels(share).inc()
        return ResourceExhausted(
            SENTENCES[share].format(limit=f"{limit:.0f}"),
            retry_after=retry_after,
            share=share,
            limit=f"{limit:.0f}",
        )

    async def _measured(self, org: str, account: Account) -> None:
        """Return after a measurement that began now or later."""
        if account.measuring is not None:
            await asyncio.wait([account.measuring])
        await asyncio.shield(self._measure(org, account))

    def _measure(self, org: str, account: Account) -> asyncio.Task[None]:
        """Measure, one at a time an organisation."""
        if account.measuring is None:
            account.measuring = asyncio.create_task(self._ask(org, account))
            account.measuring.add_done_callback(_noted)
        return account.measuring

    async def _ask(self, org: str, account: Account) -> None:
        assert self.stored is not None, "only engines that tell are asked"
        before = account.grown
        account.measured_at = self._clock()  # also of an attempt that fails: an engine in need is not asked more often
        try:
            account.stored = await self.stored(org)
            account.grown -= before
        finally:
            account.measuring = None


SENTENCES = {
    "calls": "This organisation has {limit} calls open here, as many as it may.",
    "streams": "This organisation has {limit} streams open here, as many as it may.",
    "rate": "This organisation calls more often than {limit} times a second.",
    "bytes": "This organisation may store {limit} bytes here. Delete something first.",
}


def _noted(measurement: asyncio.Task[None]) -> None:
    if not measurement.cancelled() and (error := measurement.exception()):
        telemetry.log.warning("share.unmeasured", reason=str(error) or type(error).__name__)
