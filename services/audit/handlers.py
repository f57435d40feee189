"""What comes in: everything that happens, and questions about it."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import Query

from isa.events import (
    AuditRecorded,
    ControlChanged,
    Event,
    NotificationSent,
    OrgCreated,
    OrgMemberAdded,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    ReminderTriggered,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
    UserAuthenticated,
    UserRegistered,
)
from isa_common import DeadlineExceeded, InvalidArgument, IsaError, Unavailable
from kernel import Caller, Parts, View, get, job, log, on_batch
from services.audit.domain import Kind
from services.audit.projections import chain_of, facts
from services.audit.repository import Chains, Kept, Wanted

LONGEST_SEARCH = timedelta(days=30)
SHIP_AFTER = 1.0
"""Seconds that new records gather before they are copied to the log store."""


class RecordView(View):
    """One record of the audit."""

    seq: int
    """Its place in the chain of the organisation, from 1."""
    record_id: str
    kind: Kind
    at: datetime
    """When it happened."""
    recorded_at: datetime
    """When it was written here."""
    user_id: str
    workload: str
    """Which of our own programs called; empty for a person's token."""
    service: str
    """Room that was called; empty for an event."""
    action: str
    """Topic of an event; RPC or route of a call."""
    resources: list[str]
    outcome: str
    """gRPC status code."""
    trace_id: str
    correlation_id: str
    detail: dict[str, Any]
    prev_hash: str
    hash: str


class RecordsView(View):
    """A page of records, newest first."""

    records: list[RecordView]
    next_cursor: str
    """Give it as `cursor` for the next page; empty on the last one."""


class LineView(View):
    """A record as the log store holds it."""

    seq: int
    record_id: str
    kind: Kind
    at: datetime
    user_id: str
    action: str
    resources: list[str]
    outcome: str
    trace_id: str
    correlation_id: str


class LinesView(View):
    """A page of lines, newest first."""

    lines: list[LineView]
    next_cursor: str


class VerdictView(View):
    """What checking the organisation's chain found."""

    org_id: str
    is_intact: bool
    records: int
    head_seq: int
    head_hash: str
    anchored_seq: int
    """Newest record whose hash the log store confirms; 0: it confirmed none."""
    broken_seq: int | None
    """First place where the chain does not hold."""
    broken_record_id: str | None
    reason: str | None


class Handlers:
    """Who did what, to what, when, and how it ended, in a chain that shows every later change."""

    def __init__(self, parts: Parts, chains: Chains) -> None:
        self._parts = parts
        self._chains = chains
        self._new: set[str] = set()
        self._wake = asyncio.Event()
        self._shipping: asyncio.Task[None] | None = None
        self._recorded = parts.metrics.counter("isa_audit_records", "Records added to the chains.", ["kind"])
        self._shipped = parts.metrics.counter("isa_audit_lines_shipped", "Records copied to the log store.")

    async def start(self) -> None:
        """Begin to copy new records to the log store."""
        self._shipping = asyncio.create_task(self._ship_forever(), name="audit-shipping")

    async def stop(self) -> None:
        """Stop copying; the sweep of the next start takes what is left."""
        if self._shipping:
            self._shipping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._shipping

    @on_batch(
        TaskCreated,
        TaskUpdated,
        TaskCompleted,
        TaskDeleted,
        UserRegistered,
        UserAuthenticated,
        NotificationSent,
        ReminderTriggered,
        OrgCreated,
        OrgMemberAdded,
        OrgMemberRemoved,
        OrgMemberRoleChanged,
        ControlChanged,
        AuditRecorded,
    )
    async def record(self, caller: Caller, events: list[Event]) -> None:
        """Add what happened in one organisation to its chain, each event and each call once."""
        org_id = chain_of(caller.org)
        found = facts(events, self._parts.audit.trace_of)
        if not found:
            return
        if added := await self._chains.append(org_id, found):
            self._recorded.labels(found[0].kind.value).inc(added)
            self._new.add(org_id)
            self._wake.set()

    @job("ship-left", schedule="*/30 * * * * *")
    async def ship_left(self, data: dict[str, object]) -> None:
        """Copy what a crash or an outage of the log store left behind."""
        if left := await self._chains.to_ship():
            self._new.update(left)
            self._wake.set()

    async def _ship_forever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(SHIP_AFTER)  # records of a burst go together
            self._wake.clear()
            orgs, self._new = self._new, set()
            await self._ship(sorted(orgs))

    async def _ship(self, orgs: list[str]) -> None:
        for number, org_id in enumerate(orgs):
            try:
                self._shipped.inc(await self._chains.ship(org_id))
            except (Unavailable, DeadlineExceeded) as error:  # the sweep comes back to all of them
                log.warning("audit.shipping_delayed", chains=len(orgs) - number, reason=error.message)
                return
            except IsaError as error:
                log.error("audit.shipping_failed", org_id=org_id, reason=error.message)

    @get("/v1/audit", permission="audit.read")
    async def find(
        self,
        caller: Caller,
        user: Annotated[str | None, Query(description="Who did it.")] = None,
        action: Annotated[str | None, Query(description="Topic, RPC or route, whole.")] = None,
        outcome: Annotated[str | None, Query(description="gRPC status code, such as PERMISSION_DENIED.")] = None,
        kind: Annotated[Kind | None, Query(description="event or call.")] = None,
        resource: Annotated[str | None, Query(description="Id of what it was about.")] = None,
        correlation_id: Annotated[str | None, Query(description="One request and all that it set off.")] = None,
        trace_id: Annotated[str | None, Query(description="W3C trace id.")] = None,
        since: Annotated[datetime | None, Query(alias="from", description="Not before; with a time zone.")] = None,
        until: Annotated[datetime | None, Query(alias="to", description="Before; with a time zone.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str, Query(description="`next_cursor` of the page before.")] = "",
    ) -> RecordsView:
        """Records of the organisation that meet all given conditions, newest first."""
        wanted = Wanted(
            user_id=user,
            action=action,
            outcome=outcome,
            kind=kind,
            resource=resource,
            correlation_id=correlation_id,
            trace_id=trace_id,
            since=aware(since, "from"),
            until=aware(until, "to"),
        )
        found = await self._chains.find(caller.org, wanted, before=place(cursor), limit=limit + 1)
        page = found[:limit]
        return RecordsView(
            records=[view(item) for item in page],
            next_cursor=str(page[-1].record.seq) if len(found) > limit else "",
        )

    @get("/v1/audit/search", permission="audit.read")
    async def search(
        self,
        caller: Caller,
        q: Annotated[str, Query(min_length=1, max_length=500, description="Text, as it stands in the record.")],
        since: Annotated[datetime | None, Query(alias="from", description="Default: 7 days before the end.")] = None,
        until: Annotated[datetime | None, Query(alias="to", description="Default: now.")] = None,
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        cursor: Annotated[str, Query(description="`next_cursor` of the page before.")] = "",
    ) -> LinesView:
        """Records of the organisation that hold a text anywhere, newest first, by when they were written."""
        end = aware(until, "to") or self._parts.clock() + timedelta(seconds=5)
        start = aware(since, "from") or end - timedelta(days=7)
        if not timedelta(0) < end - start <= LONGEST_SEARCH:
            raise InvalidArgument(
                f"Search at most {LONGEST_SEARCH.days} days, from the earlier to the later.", field="from"
            )
        lines, next_cursor = await self._chains.search(caller.org, q, start=start, end=end, limit=limit, cursor=cursor)
        names = LineView.model_fields
        views = [LineView.model_validate({name: item[name] for name in names}) for item in lines]
        return LinesView(lines=views, next_cursor=next_cursor)

    @get("/v1/audit/verify", permission="audit.read")
    async def verify(self, caller: Caller) -> VerdictView:
        """Check the organisation's chain, record by record, and its end against the log store."""
        verdict = await self._chains.verify(caller.org, now=self._parts.clock())
        broken = verdict.broken
        if broken:
            log.error("audit.chain_broken", org_id=caller.org, seq=broken.seq, reason=broken.reason)
        return VerdictView(
            org_id=caller.org,
            is_intact=verdict.is_intact,
            records=verdict.records,
            head_seq=verdict.head.seq,
            head_hash=verdict.head.hash,
            anchored_seq=verdict.anchored_seq,
            broken_seq=broken.seq if broken else None,
            broken_record_id=broken.record_id if broken else None,
            reason=broken.reason if broken else None,
        )


def view(item: Kept) -> RecordView:
    """Return a record as readers see it."""
    record, fact = item.record, item.record.fact
    return RecordView(
        seq=record.seq,
        record_id=fact.record_id,
        kind=fact.kind,
        at=fact.at,
        recorded_at=item.recorded_at,
        user_id=fact.user_id,
        workload=fact.workload,
        service=fact.service,
        action=fact.action,
        resources=list(fact.resources),
        outcome=fact.outcome,
        trace_id=fact.trace_id,
        correlation_id=fact.correlation_id,
        detail=dict(fact.detail),
        prev_hash=record.prev_hash,
        hash=record.hash,
    )


def place(cursor: str) -> int | None:
    """Return where a page begins, or refuse a cursor that is none of ours."""
    if not cursor:
        return None
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 18):
        raise InvalidArgument("The cursor is none that an answer gave.", field="cursor")
    return int(cursor)


def aware(moment: datetime | None, field: str) -> datetime | None:
    """Return a moment, or refuse one without a time zone."""
    if moment is not None and moment.tzinfo is None:
        raise InvalidArgument("A time needs its zone, such as 2026-03-01T12:00:00Z.", field=field)
    return moment
