"""Where the chains live: PostgreSQL is the truth, the log store holds a searchable copy of it."""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from isa_common import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    Direction,
    Entry,
    Logs,
    Row,
    Sql,
    Statement,
    Unavailable,
)
from services.audit.domain import GENESIS, PLATFORM, Check, Fact, Head, Kind, Record, Verdict, chained
from services.audit.projections import line, lines_of, search_query

ATTEMPTS = 8
CHUNK = 1000
"""Records a transaction."""
SHIP = 500
"""Lines a push."""
HEADS = 10_000
"""Chains whose end is remembered."""
ANCHORS = 1000
"""Newest lines of the log store that a check compares with the chain."""
ANCHORS_SINCE = (timedelta(hours=1), timedelta(days=1), timedelta(days=28))

COLUMNS = """
seq, record_id, kind, at, user_id, workload, service, action, resources, outcome, trace_id, correlation_id,
detail, prev_hash, hash, recorded_at
"""
KNOWN = """
SELECT coalesce((SELECT seq FROM audit_chains WHERE org_id = $1), 0) AS seq,
       coalesce((SELECT hash FROM audit_chains WHERE org_id = $1), $2) AS hash,
       ARRAY(SELECT record_id FROM audit_records WHERE org_id = $1 AND record_id = ANY($3::text[])) AS known
"""
BEGIN = "INSERT INTO audit_chains (org_id, seq, hash) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
ADVANCE = "UPDATE audit_chains SET seq = $2, hash = $3 WHERE org_id = $1 AND seq = $4 AND hash = $5"
APPEND = """
INSERT INTO audit_records (
    org_id, seq, record_id, kind, at, user_id, workload, service, action, resources, outcome, trace_id,
    correlation_id, detail, prev_hash, hash
)
SELECT $1, seq, record_id, kind, at, user_id, workload, service, action, resources, outcome, trace_id,
       correlation_id, detail, prev_hash, hash
FROM jsonb_to_recordset($2::jsonb) AS record (
    seq bigint, record_id text, kind text, at timestamptz, user_id text, workload text, service text,
    action text, resources jsonb, outcome text, trace_id text, correlation_id text, detail jsonb,
    prev_hash text, hash text
)
"""
TO_SHIP = f"""
SELECT {COLUMNS} FROM audit_records
WHERE org_id = $1 AND seq > (SELECT shipped_seq FROM audit_chains WHERE org_id = $1)
ORDER BY seq LIMIT $2
"""  # noqa: S608 -- a constant of ours
SHIPPED = "UPDATE audit_chains SET shipped_seq = $2 WHERE org_id = $1 AND shipped_seq < $2"
LEFT = "SELECT org_id FROM audit_chains WHERE shipped_seq < seq"
CHAIN = f"SELECT {COLUMNS} FROM audit_records WHERE org_id = $1 AND seq <= $2 ORDER BY seq"  # noqa: S608
HEAD = """
SELECT (SELECT seq FROM audit_chains WHERE org_id = $1) AS seq,
       (SELECT hash FROM audit_chains WHERE org_id = $1) AS hash,
       (SELECT coalesce(max(seq), 0) FROM audit_records WHERE org_id = $1) AS last
"""
FIND = f"""
SELECT {COLUMNS} FROM audit_records
WHERE org_id = $1
  AND ($2::bigint IS NULL OR seq < $2)
  AND ($3::text IS NULL OR user_id = $3)
  AND ($4::text IS NULL OR action = $4)
  AND ($5::text IS NULL OR outcome = $5)
  AND ($6::text IS NULL OR kind = $6)
  AND ($7::jsonb IS NULL OR resources @> $7::jsonb)
  AND ($8::text IS NULL OR correlation_id = $8)
  AND ($9::text IS NULL OR trace_id = $9)
  AND ($10::timestamptz IS NULL OR at >= $10)
  AND ($11::timestamptz IS NULL OR at < $11)
ORDER BY seq DESC LIMIT $12
"""  # noqa: S608 -- a constant of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records a reader asks for; what is None is not asked."""

    user_id: str | None = None
    action: str | None = None
    outcome: str | None = None
    kind: Kind | None = None
    resource: str | None = None
    correlation_id: str | None = None
    trace_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A record and when it was written."""

    record: Record
    recorded_at: datetime


class Chains:
    """The chains of all organisations, each reached only as that organisation."""

    def __init__(self, sql: Sql, logs: Logs) -> None:
        self._sql = sql
        self._logs = logs
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._heads: OrderedDict[str, Head] = OrderedDict()
        """Where chains ended when this process last added to them; a guess, which the compare-and-set checks."""

    def _of(self, org_id: str) -> Sql:
        """Return the login of one chain: the app's, bound to the organisation, or the system's for none."""
        return self._sql if org_id == PLATFORM else self._sql.acting_for(org=org_id)

    async def append(self, org_id: str, facts: Sequence[Fact]) -> int:
        """Add the facts that the chain does not hold yet, in their order; return how many there were.

        The chain is its own inbox: a fact's id is unique in it for ever, and the head moves by
        compare-and-set, so replays and replicas that race leave one record each.
        """
        lock = self._locks.setdefault(org_id, asyncio.Lock())
        added = 0
        async with lock:  # tasks of this process take turns; replicas race, and the loser reads again
            for start in range(0, len(facts), CHUNK):
                added += await self._append(org_id, facts[start : start + CHUNK])
        return added

    async def _append(self, org_id: str, facts: Sequence[Fact]) -> int:
        sql = self._of(org_id)
        for attempt in range(ATTEMPTS):
            head, known = self._heads.pop(org_id, None), set[str]()
            if head is None:
                row = (await sql.query(KNOWN, org_id, GENESIS, [fact.record_id for fact in facts]))[0]
                head, known = Head(seq=row["seq"], hash=row["hash"]), set(row["known"])
            records = chained(org_id, head, [fact for fact in facts if fact.record_id not in known])
            if not records:
                return 0
            try:
                await sql.execute_batch(statements(org_id, head, records))
            except (Aborted, AlreadyExists):
                await asyncio.sleep(0.005 * 2**attempt)
            else:
                self._remember(org_id, Head(seq=records[-1].seq, hash=records[-1].hash))
                return len(records)
        raise Aborted(f"The chain of {org_id} moved {ATTEMPTS} times while records were added.")

    def _remember(self, org_id: str, head: Head) -> None:
        self._heads[org_id] = head
        if len(self._heads) > HEADS:
            self._heads.popitem(last=False)

    async def ship(self, org_id: str) -> int:
        """Copy what is new in a chain to the log store; return how many lines that were."""
        sql = self._of(org_id)
        shipped = 0
        while True:
            records = [kept(org_id, row).record for row in await sql.query(TO_SHIP, org_id, SHIP)]
            if not records:
                return shipped
            # A line's time is that of its arrival: the store refuses what is much older than its newest.
            await self._logs.push([Entry(line(record), labels={"kind": record.fact.kind.value}) for record in records])
            await sql.execute(SHIPPED, org_id, records[-1].seq)
            shipped += len(records)
            if len(records) < SHIP:
                return shipped

    async def to_ship(self) -> list[str]:
        """Return the chains that have lines to ship."""
        return [row["org_id"] for row in await self._sql.query(LEFT)]

    async def find(self, org_id: str, wanted: Wanted, *, before: int | None, limit: int) -> list[Kept]:
        """Return records of one organisation, newest first."""
        rows = await self._of(org_id).query(
            FIND,
            org_id,
            before,
            wanted.user_id,
            wanted.action,
            wanted.outcome,
            wanted.kind.value if wanted.kind else None,
            [wanted.resource] if wanted.resource else None,
            wanted.correlation_id,
            wanted.trace_id,
            wanted.since,
            wanted.until,
            limit,
        )
        return [kept(org_id, row) for row in rows]

    async def search(
        self, org_id: str, text: str, *, start: datetime, end: datetime, limit: int, cursor: str
    ) -> tuple[list[dict[str, object]], str]:
        """Return lines of one organisation that hold a text, newest first, and where the next page begins."""
        page = await self._logs.query(search_query(org_id, text), start=start, end=end, limit=limit, cursor=cursor)
        found = lines_of(entry.line for entry in page.entries)
        # A line that was shipped twice, around a crash, is one line.
        mine = {item["seq"]: item for item in found if item["org_id"] == org_id}
        return [mine[seq] for seq in sorted(mine, reverse=True)], page.next_cursor

    async def verify(self, org_id: str, *, now: datetime, is_anchored: bool = True) -> Verdict:
        """Walk one chain from its beginning and compare its end with what the log store knows."""
        anchors = await self.anchors(org_id, now=now) if is_anchored else {}
        row = (await self._of(org_id).query(HEAD, org_id))[0]
        head = None if row["seq"] is None else Head(seq=row["seq"], hash=row["hash"])
        check = Check(org_id, anchors=anchors)
        async for record in self.records(org_id, limit=row["last"]):  # what is added from here on is not looked at
            check.add(record)
        return check.verdict(head)

    async def records(self, org_id: str, *, limit: int) -> AsyncIterator[Record]:
        """Return the records of a chain from its beginning."""
        async for row in self._of(org_id).stream(CHAIN, org_id, limit):
            yield kept(org_id, row).record

    async def anchors(self, org_id: str, *, now: datetime) -> dict[int, str]:
        """Return the hashes of the newest records that the log store holds, by number; none while it is away."""
        try:
            for since in ANCHORS_SINCE:  # the newest matter, and a wide range is slow to search
                page = await self._logs.query(
                    search_query(org_id, ""),
                    start=now - since,
                    end=now + timedelta(seconds=5),
                    limit=ANCHORS,
                    direction=Direction.BACKWARD,
                )
                lines = lines_of(entry.line for entry in page.entries)
                if found := {item["seq"]: item["hash"] for item in lines if item["org_id"] == org_id}:
                    return found
        except (Unavailable, DeadlineExceeded):
            pass
        return {}


def statements(org_id: str, head: Head, records: Sequence[Record]) -> list[Statement]:
    """Return what moves the head and adds the records, all or none."""
    last = records[-1]
    if head.seq == 0:
        move = Statement(BEGIN, org_id, last.seq, last.hash, expect_rows=1)
    else:
        move = Statement(ADVANCE, org_id, last.seq, last.hash, head.seq, head.hash, expect_rows=1)
    return [move, Statement(APPEND, org_id, [as_row(record) for record in records], expect_rows=len(records))]


def as_row(record: Record) -> dict[str, object]:
    """Return a record as the columns of its row."""
    fact = record.fact
    return {
        "seq": record.seq,
        "record_id": fact.record_id,
        "kind": fact.kind.value,
        "at": fact.at,
        "user_id": fact.user_id,
        "workload": fact.workload,
        "service": fact.service,
        "action": fact.action,
        "resources": list(fact.resources),
        "outcome": fact.outcome,
        "trace_id": fact.trace_id,
        "correlation_id": fact.correlation_id,
        "detail": dict(fact.detail),
        "prev_hash": record.prev_hash,
        "hash": record.hash,
    }


def kept(org_id: str, row: Row) -> Kept:
    """Return a row as a record, and when it was written."""
    return Kept(record=record_of(org_id, row), recorded_at=row["recorded_at"])


def record_of(org_id: str, row: Row | Mapping[str, Any]) -> Record:
    """Return a row as a record."""
    fact = Fact(
        record_id=row["record_id"],
        kind=Kind(row["kind"]),
        at=row["at"],
        user_id=row["user_id"],
        workload=row["workload"],
        service=row["service"],
        action=row["action"],
        resources=tuple(row["resources"]),
        outcome=row["outcome"],
        trace_id=row["trace_id"],
        correlation_id=row["correlation_id"],
        detail=row["detail"],
    )
    return Record(org_id=org_id, seq=row["seq"], fact=fact, prev_hash=row["prev_hash"], hash=row["hash"])
