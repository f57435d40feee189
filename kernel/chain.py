"""What every call goes through, once, for gRPC and HTTP alike.

In this order: telemetry, errors, audit, deadline, auth, shares, the method. `Passage` is that order; the steps
themselves are methods of `Chain`. Audit stands outside auth, so that refused attempts are recorded too.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from contextlib import suppress
from contextvars import Token
from dataclasses import dataclass, field
from types import TracebackType

from prometheus_client import Counter, Histogram

from isa.events import AuditEntry
from isa_common import Cancelled, Code, Internal, IsaError, Unavailable
from kernel import telemetry
from kernel.audit import AuditSpool
from kernel.call import CORRELATION, CURRENT, Call
from kernel.errors import GONE, ErrorMap, ours
from kernel.identity import Identity
from kernel.shares import Account, Shares

PLATFORM = "platform"
"""Audit chain of what belongs to no organisation; outside the grammar of organisation ids."""
SWEEP = 0.02
"""Seconds between two looks at the deadlines of open calls."""
CORRELATION_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def correlation_of(metadata: Mapping[str, str]) -> str:
    """Return the correlation id that came in, when it is a sane one, else a new one."""
    given = metadata.get("isa-correlation-id") or metadata.get("x-correlation-id") or metadata.get("x-request-id") or ""
    if 8 <= len(given) <= 64 and CORRELATION_CHARACTERS.issuperset(given):
        return given
    return random_id()


def random_id() -> str:
    """Return 128 random bits in hexadecimal: unique, and no secret."""
    return f"{random.getrandbits(128):032x}"  # five times as fast as a UUID


@dataclass(slots=True, kw_only=True)
class Chain:
    """The steps of one process. `identity` is None until the room is ready; calls are refused until then."""

    service: str
    spool: AuditSpool
    identity: Identity | None = None
    default_timeout: float = 30.0
    errors: ErrorMap | None = None
    """The room's table of engine exceptions."""
    shares: Shares | None = None
    """What each organisation may use at once; None where calls are not limited."""
    open: set[Passage] = field(default_factory=set)
    """Calls that may be ended from outside: by their deadline, or because their caller is revoked."""
    _watch: asyncio.TimerHandle | None = None
    _requests: dict[tuple[str, Code], Counter] = field(default_factory=dict)
    _durations: dict[str, Histogram] = field(default_factory=dict)

    def __call__(self, call: Call) -> Passage:
        """Take a call through; IsaError comes out when it was refused or failed, and nothing else."""
        return Passage(self, call)

    def count(self, call: Call, code: Code, seconds: float) -> None:
        """Count and time a call that ended."""
        requests, durations = self._requests.get((call.name, code)), self._durations.get(call.name)
        if requests is None:
            requests = self._requests[call.name, code] = telemetry.REQUESTS.labels(self.service, call.name, code.name)
        if durations is None:
            durations = self._durations[call.name] = telemetry.DURATION.labels(self.service, call.name)
        requests.inc()
        durations.observe(seconds)
        if telemetry.LEVEL.is_debug:
            telemetry.log.debug("call", method=call.name, code=code.name, duration=round(seconds, 6))

    def record(self, call: Call, outcome: Code) -> None:
        """Record who tried what, and how it ended."""
        caller = call.caller
        if caller is None:
            if outcome is not Code.OK:
                telemetry.ANONYMOUS_REFUSALS.labels(self.service, outcome.name).inc()
            return
        refused = outcome in (Code.PERMISSION_DENIED, Code.UNAUTHENTICATED)
        if caller.workload and not refused and not call.rule.audit_always:
            if call.slot:
                call.slot.release()
            return
        slot = call.slot or self.spool.reserve(caller.org or PLATFORM, mutating=False)
        slot.write(
            AuditEntry(
                record_id=random_id(),
                at=call.started,
                user_id=caller.user,
                workload=caller.workload,
                service=self.service,
                action=call.name,
                resources=call.resources[:100],
                outcome=outcome.name,
                trace_id=call.trace_id,
                correlation_id=call.correlation_id,
            )
        )

    def deadline(self, passage: Passage) -> None:
        """End the call when its caller no longer waits."""
        self.open.add(passage)
        if self._watch is None:  # one timer for all: a timer each takes longer than the rest of a call's bookkeeping
            self._watch = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    def _sweep(self) -> None:
        now = time.monotonic()
        for passage in [*self.open]:
            if passage.deadline <= now:
                passage.end(TimeoutError())
        self._watch = asyncio.get_running_loop().call_later(SWEEP, self._sweep) if self.open else None

    async def auth(self, call: Call) -> None:
        """Find out who calls, reserve the place of the audit record, and check the permission."""
        if self.identity is None:
            raise Unavailable("This service is starting. Try again in a moment.")
        if call.rule.anonymous:
            return
        call.caller = await self.identity.caller(call.metadata)
        if not call.caller.workload or call.rule.audit_always:
            call.slot = self.spool.reserve(call.caller.org or PLATFORM, mutating=not call.rule.read_only)
        call.caller.require(call.rule.permission)

    async def share(self, call: Call) -> Account | None:
        """Let a call in while its organisation is within its share."""
        return await self.shares.enter(call.caller, is_stream=call.is_stream) if self.shares and call.caller else None

    def recheck(self) -> None:
        """End the open streams of callers whose tokens are no longer good; other calls are short, and may finish."""
        for passage in [*self.open]:
            passage.recheck()


class Passage:
    """The way of one call through the chain, as a context: in by the steps, and out by them in reverse."""

    __slots__ = (
        "_account",
        "_began",
        "_call",
        "_cause",
        "_chain",
        "_correlation",
        "_current",
        "_span",
        "_task",
    )

    def __init__(self, chain: Chain, call: Call) -> None:
        self._chain = chain
        self._call = call
        self._account: Account | None = None
        self._cause: BaseException | None = None

    async def __aenter__(self) -> None:
        chain, call = self._chain, self._call
        call.correlation_id = correlation_of(call.metadata)
        self._correlation: Token[str] = CORRELATION.set(call.correlation_id)
        self._current: Token[Call | None] = CURRENT.set(call)
        self._span = telemetry.begin(call)
        self._began = time.monotonic()
        self._task = asyncio.current_task()
        try:
            chain.deadline(self)
            await chain.auth(call)
            self._account = await chain.share(call)
        except BaseException as error:
            if told := self._left(error):
                raise told from error
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if told := self._left(error):
            raise told from error

    @property
    def deadline(self) -> float:
        """When it must have ended, monotonic."""
        call = self._call
        if call.timeout is not None:
            return self._began + call.timeout
        return float("inf") if call.is_stream else self._began + self._chain.default_timeout

    def end(self, cause: BaseException) -> None:
        """End the call from outside, as if it had raised the cause."""
        if self._cause is None and self._task:
            self._cause = cause
            self._task.cancel()

    def recheck(self) -> None:
        """End the call when its caller's token is no longer good."""
        if self._chain.identity and self._call.caller and self._call.is_stream:
            try:
                self._chain.identity.recheck(self._call.caller)
            except IsaError as error:
                self.end(error)

    def _left(self, raised: BaseException | None) -> IsaError | None:
        """Take the steps back; return what the caller is told in place of what was raised."""
        chain, call, error = self._chain, self._call, raised
        chain.open.discard(self)
        if self._cause and self._task and not self._task.uncancel() and isinstance(raised, GONE):
            error = self._cause
        failure = ours(error, chain.errors or {}) if error else None
        if isinstance(failure, Cancelled) and time.monotonic() + SWEEP > self.deadline:
            failure = ours(TimeoutError(), {})  # gRPC saw the deadline first
        if self._account and chain.shares:
            chain.shares.leave(self._account, call, is_error=failure is not None)
        try:
            chain.record(call, failure.code if failure else Code.OK)
        except IsaError as unrecorded:  # nobody is answered without a record
            failure = error = unrecorded
        if isinstance(failure, Internal) and failure is not error:  # what nobody foresaw is logged whole
            telemetry.log.error("call.failed", method=call.name, exc_info=error)
        code = failure.code if failure else Code.OK
        chain.count(call, code, time.monotonic() - self._began)
        is_gone = isinstance(error, GONE)
        if failure and not is_gone:
            failure.request_id = call.correlation_id
        if self._span:
            self._span.end(code.name if failure and not is_gone else "")
        with suppress(ValueError):  # a stream that was left to the garbage collector ends in another context
            CURRENT.reset(self._current)
            CORRELATION.reset(self._correlation)
        return None if failure is raised or is_gone else failure
