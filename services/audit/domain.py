"""A chain of records: each carries the hash of the one before, so that no link can be changed unseen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

GENESIS = "0" * 64
"""What the first record of a chain names as the hash before it."""

PLATFORM = "platform"
"""The chain of what belongs to no organisation; no organisation id looks like it."""


class Kind(StrEnum):
    """What a record tells of."""

    EVENT = "event"
    CALL = "call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """What happened, before it has a place in a chain."""

    record_id: str
    kind: Kind
    at: datetime
    user_id: str
    workload: str = ""
    service: str = ""
    action: str
    """Topic of an event; RPC or route of a call."""
    resources: tuple[str, ...] = ()
    outcome: str
    trace_id: str = ""
    correlation_id: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Payload of an event, as JSON has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The end of a chain."""

    seq: int = 0
    hash: str = GENESIS


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A fact and its place in the chain of its organisation."""

    org_id: str
    seq: int
    fact: Fact
    prev_hash: str
    hash: str


def canonical(org_id: str, seq: int, fact: Fact) -> bytes:
    """Return the one byte form of a record: JSON, keys sorted, no spaces, UTC to the microsecond."""
    content = {
        "org_id": org_id,
        "seq": seq,
        "record_id": fact.record_id,
        "kind": fact.kind.value,
        "at": fact.at.astimezone(UTC).isoformat(timespec="microseconds"),
        "user_id": fact.user_id,
        "workload": fact.workload,
        "service": fact.service,
        "action": fact.action,
        "resources": list(fact.resources),
        "outcome": fact.outcome,
        "trace_id": fact.trace_id,
        "correlation_id": fact.correlation_id,
        "detail": dict(fact.detail),
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def link(prev_hash: str, org_id: str, seq: int, fact: Fact) -> str:
    """Return the hash of a record: SHA-256 of the hash before it and its canonical form, as hex."""
    return hashlib.sha256(bytes.fromhex(prev_hash) + canonical(org_id, seq, fact)).hexdigest()


def chained(org_id: str, head: Head, facts: Iterable[Fact]) -> list[Record]:
    """Return facts as the next records of a chain."""
    records: list[Record] = []
    seq, last = head.seq, head.hash
    for fact in facts:
        seq += 1
        digest = link(last, org_id, seq, fact)
        records.append(Record(org_id=org_id, seq=seq, fact=fact, prev_hash=last, hash=digest))
        last = digest
    return records


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """The first place where a chain does not hold."""

    seq: int
    record_id: str = ""
    """Empty when the record is not there."""
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What checking a chain found."""

    org_id: str
    records: int
    head: Head
    anchored_seq: int
    """Last record whose hash was found in the log store, and the same; 0 when none was looked up."""
    broken: Break | None

    @property
    def is_intact(self) -> bool:
        """Tell whether every link holds."""
        return self.broken is None


class Check:
    """Walks a chain from its first record and remembers the first break."""

    def __init__(self, org_id: str, *, anchors: Mapping[int, str] | None = None) -> None:
        self._org_id = org_id
        self._anchors = dict(anchors or {})
        self._records = 0
        self._head = Head()
        self._anchored = 0
        self._broken: Break | None = None

    def add(self, record: Record) -> None:
        """Check the next record, in the order of `seq`."""
        self._records += 1
        reason = self._fault(record)
        if reason and self._broken is None:
            is_gap = record.seq > self._head.seq + 1
            self._broken = Break(
                seq=self._head.seq + 1 if is_gap else record.seq,
                record_id="" if is_gap else record.fact.record_id,
                reason=reason,
            )
        if reason is None and record.seq in self._anchors:
            self._anchored = record.seq
        self._head = Head(seq=record.seq, hash=record.hash)

    def _fault(self, record: Record) -> str | None:
        expected = self._head.seq + 1
        if record.seq > expected:
            missing = f"{expected}" if record.seq == expected + 1 else f"{expected} to {record.seq - 1}"
            return f"missing: {missing}"
        if record.org_id != self._org_id:
            return "changed: it belongs to another organisation"
        if record.seq < expected:
            return "repeated: its number was there before"
        if link(record.prev_hash, self._org_id, record.seq, record.fact) != record.hash:
            return "changed: its content does not have its hash"
        if record.prev_hash != self._head.hash:
            return "moved: it does not follow the record before it"
        if self._anchors.get(record.seq, record.hash) != record.hash:
            return "rewritten: the log store has another hash for it"
        return None

    def verdict(self, head: Head | None) -> Verdict:
        """Return what was found, once the end of the chain is known; None: the chain has no head at all."""
        return Verdict(
            org_id=self._org_id,
            records=self._records,
            head=self._head,
            anchored_seq=self._anchored,
            broken=self._broken or self._end_fault(head or Head()),
        )

    def _end_fault(self, head: Head) -> Break | None:
        last = self._head.seq
        if head.seq > last:
            return Break(seq=last + 1, reason=f"cut off: the chain had {head.seq} records")
        if head.seq < last:
            return Break(seq=head.seq + 1, reason=f"added: the chain has {head.seq} records")
        if head.hash != self._head.hash:
            return Break(seq=last, reason="changed: the head of the chain is another")
        if self._anchors and max(self._anchors) > last:
            return Break(seq=last + 1, reason=f"cut off: the log store knows {max(self._anchors)} records")
        return None
