"""What every call goes through, once, for gRPC and HTTP alike.

In this order: telemetry, errors, audit, deadline, auth, shares, the method.
Audit stands outside auth, so that refused attempts are recorded too. An interceptor is a context manager around a
`Call`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from isa.events import AuditEntry
from isa_common import Code, Internal, IsaError, Unavailable
from kernel import telemetry
from kernel.audit import AuditSpool
from kernel.call import CORRELATION, CURRENT, Call
from kernel.errors import GONE, ErrorMap, ours
from kernel.identity import Identity
from kernel.shares import Shares

PLATFORM = "platform"
"""Audit chain of what belongs to no organisation; outside the grammar of organisation ids."""
CORRELATION_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")


def correlation_of(metadata: Mapping[str, str]) -> str:
    """Return the correlation id that came in, when it is a sane one, else a new one."""
    given = metadata.get("isa-correlation-id") or metadata.get("x-correlation-id") or metadata.get("x-request-id") or ""
    if 8 <= len(given) <= 64 and CORRELATION_CHARACTERS.issuperset(given):
        return given
    return uuid.uuid4().hex


@dataclass(slots=True, kw_only=True)
class Chain:
    """The interceptors of one process. `identity` is None until the room is ready; calls are refused until then."""

    service: str
    spool: AuditSpool
    identity: Identity | None = None
    default_timeout: float = 30.0
    errors: ErrorMap | None = None
    """The room's table of engine exceptions."""
    shares: Shares | None = None
    """What each organisation may use at once; None where calls are not limited."""

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        """Take a call through; IsaError comes out when it was refused or failed, and nothing else."""
        call.correlation_id = correlation_of(call.metadata)
        correlation, current = CORRELATION.set(call.correlation_id), CURRENT.set(call)
        try:
            async with self.telemetry(call), self.translated(call), self.audit(call), self.deadline(call):
                await self.auth(call)
                with self.shared(call):
                    yield
        finally:
            CURRENT.reset(current)
            CORRELATION.reset(correlation)

    @asynccontextmanager
    async def telemetry(self, call: Call) -> AsyncIterator[None]:
        """Trace, count and time the call."""
        began = time.perf_counter()
        code = Code.OK
        with telemetry.span(call.name, metadata=call.metadata) as span:
            call.trace_id = telemetry.trace_id(span)
            try:
                yield
            except IsaError as error:
                code = error.code
                error.request_id = call.correlation_id
                telemetry.failed(span, code.name)
                raise
            except GONE:
                code = Code.CANCELLED
                raise
            finally:
                took = time.perf_counter() - began
                telemetry.REQUESTS.labels(self.service, call.name, code.name).inc()
                telemetry.DURATION.labels(self.service, call.name).observe(took)
                telemetry.log.debug("call", method=call.name, code=code.name, duration=round(took, 6))

    @asynccontextmanager
    async def translated(self, call: Call) -> AsyncIterator[None]:
        """Turn whatever goes wrong into our own errors; what nobody foresaw is logged whole and told as INTERNAL."""
        try:
            yield
        except IsaError:
            raise
        except BaseException as error:
            if isinstance(error, GONE):
                raise  # the server ends the call; the record of it is in the audit already
            known = ours(error, self.errors or {})
            if isinstance(known, Internal):
                telemetry.log.error("call.failed", method=call.name, exc_info=error)
            raise known from error

    @asynccontextmanager
    async def audit(self, call: Call) -> AsyncIterator[None]:
        """Record who tried what, and how it ended."""
        outcome = Code.OK
        try:
            yield
        except BaseException as error:
            outcome = ours(error, self.errors or {}).code
            raise
        finally:
            self._record(call, outcome)

    def _record(self, call: Call, outcome: Code) -> None:
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
                record_id=str(uuid.uuid4()),
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

    @asynccontextmanager
    async def deadline(self, call: Call) -> AsyncIterator[None]:
        """End the call when its caller no longer waits."""
        timeout = call.timeout
        if timeout is None and not call.is_stream:
            timeout = self.default_timeout
        async with asyncio.timeout(timeout):
            yield

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

    @contextmanager
    def shared(self, call: Call) -> Iterator[None]:
        """Let the call in while its organisation is within its share, and count it."""
        if self.shares is None or call.caller is None:
            yield
            return
        account = self.shares.enter(call.caller, is_stream=call.is_stream)
        is_error = True
        try:
            yield
            is_error = False
        finally:
            if account:
                self.shares.leave(account, call, is_error=is_error)
