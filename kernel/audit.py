"""The audit spool: a call leaves one record on local disk before its reply, then on `audit.recorded`.

A record is appended to a segment file before the call is answered, so it survives the SIGKILL of this
process; a group fsync every 50 ms means that a power loss can take the last 50 ms of records with it.
Delivery is at least once: after a crash, records that had been published may be published again, and their
`record_id` tells.

Space is bounded. Each organisation has a share; over it, its mutating calls are refused. Reads of an
organisation over its share go on in space that nobody else is owed: they are refused only when so little is
left that the share of the others would be touched. Nobody is served without a record.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import mmap
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import structlog

from isa.events import AuditEntry
from isa_common.errors import ResourceExhausted

PLATFORM = "platform"
"""Owner of records of no organisation: secret reads, refused workloads. No organisation id looks like it."""

RECORD_CAP = 4096
"""Bytes that a record may take on disk, and what a reservation sets aside."""

PARALLEL = 8
"""How many organisations are published at once."""

log = structlog.get_logger("kernel.audit")

Publish = Callable[[str, list[AuditEntry]], Awaitable[None]]


@dataclass(slots=True)
class Segment:
    """A file of records, one JSON line each, in space that was allocated before anything was promised."""

    path: Path
    fd: int = -1
    memory: mmap.mmap | None = None
    """The file in memory: what is written there is the kernel's, and needs no call to it."""
    size: int = 0
    pending: int = 0
    """Records in it that are not acknowledged."""
    is_dirty: bool = False
    is_syncing: bool = False

    def close(self) -> None:
        """Let go of the file."""
        if self.memory:
            self.memory.close()
            os.close(self.fd)
            self.memory = None


@dataclass(slots=True)
class Spooled:
    """A record on its way: its line, and the segment that holds it until it is acknowledged."""

    line: bytes
    segment: Segment


@dataclass(slots=True)
class Account:
    """What one organisation has in the spool."""

    held: int = 0
    """Bytes on disk and set aside."""
    queue: deque[Spooled] = field(default_factory=deque)
    pause: float = 0.0
    """Seconds of the current back-off; 0 while publishing works."""
    not_before: float = 0.0


class Slot:
    """Room for one record, set aside before the call runs. Write it or release it, once."""

    __slots__ = ("_is_open", "_org", "_spool")

    def __init__(self, spool: AuditSpool, org: str) -> None:
        self._spool = spool
        self._org = org
        self._is_open = True

    def write(self, entry: AuditEntry) -> None:
        """Append the record; it survives this process from here on."""
        if self._is_open:
            self._is_open = False
            self._spool._append(self._org, entry)

    def release(self) -> None:
        """Give the room back: the call leaves no record."""
        if self._is_open:
            self._is_open = False
            self._spool._free(self._org)


class AuditSpool:
    """A bounded queue of audit records on local disk, published in batches of one organisation."""

    def __init__(
        self,
        folder: Path,
        *,
        service: str,
        publish: Publish,
        capacity_bytes: int = 64 << 20,
        share: float = 0.25,
        fsync_every: timedelta = timedelta(milliseconds=50),
        publish_every: timedelta = timedelta(milliseconds=500),
        batch_entries: int = 200,
        batch_bytes: int = 256 << 10,
        segment_bytes: int = 1 << 20,
        drain: timedelta = timedelta(seconds=10),
        publish_timeout: timedelta = timedelta(seconds=10),
    ) -> None:
        self._home = folder
        self._service = service
        self._publish = publish
        self._capacity = capacity_bytes
        self._share = int(capacity_bytes * share)
        self._fsync_every = fsync_every.total_seconds()
        self._publish_every = publish_every.total_seconds()
        self._batch_entries = batch_entries
        self._batch_bytes = batch_bytes
        self._segment_bytes = segment_bytes
        self._drain = drain.total_seconds()
        self._publish_timeout = publish_timeout.total_seconds()

        self._accounts: dict[str, Account] = {}
        self._held = 0
        self._waiting = 0
        self._slots = 0
        self._segment: Segment | None = None
        self._written: list[Segment] = []
        self._serial = 0
        self._folder: Path | None = None
        self._locks: dict[Path, int] = {}
        self._is_failing = False
        self._retry_disk_at = 0.0
        self._publishing = asyncio.Semaphore(PARALLEL)
        self._wake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        """How many records are not published yet."""
        return self._waiting

    @property
    def held_bytes(self) -> int:
        """How much of the capacity is taken, reservations included."""
        return self._held

    async def start(self) -> None:
        """Take over what killed predecessors left, and begin to publish."""
        self._home.mkdir(parents=True, exist_ok=True)
        self._folder = self._home / f"{time.time_ns():020d}-{os.getpid()}"
        self._folder.mkdir()
        self._lock(self._folder)
        for left in sorted(path for path in self._home.iterdir() if path.is_dir() and path != self._folder):
            if self._lock(left):
                await asyncio.to_thread(self._adopt, left)
        self._tasks = [
            asyncio.create_task(self._sync_forever(), name="audit-spool-sync"),
            asyncio.create_task(self._publish_forever(), name="audit-spool-publish"),
        ]
        if self._waiting:
            log.info("audit.spool.replayed", records=self._waiting)
            self._wake.set()

    async def stop(self) -> None:
        """Publish what can be published within the drain, and leave the rest on disk for the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain):
                while self._waiting and await self._publish_round(is_last=True):
                    pass
        await self._sync()
        if self._waiting:
            log.warning("audit.spool.left", records=self._waiting)
        self._close()

    def reserve(self, org: str, *, mutating: bool) -> Slot:
        """Set room for one record aside, or refuse the call before anything is done."""
        account = self._accounts.get(org)
        is_over = account is not None and account.held + RECORD_CAP > self._share
        limit = self._capacity - self._share if is_over else self._capacity
        if (is_over and mutating) or self._held + RECORD_CAP > limit or not self._has_room(mutating=mutating):
            raise ResourceExhausted(
                "The audit cannot keep up with this organisation's calls. Try again in a moment.",
                retry_after=timedelta(seconds=1),
                limit="audit.spool",
            )
        if account is None:
            account = self._accounts[org] = Account()
        account.held += RECORD_CAP
        self._held += RECORD_CAP
        self._slots += 1
        return Slot(self, org)

    def _has_room(self, *, mutating: bool) -> bool:
        """Tell whether the disk holds a line for every slot that is out and one more."""
        segment = self._segment
        need = (self._slots + 1) * RECORD_CAP
        if segment and segment.size + need <= self._segment_bytes and not (self._is_failing and mutating):
            return True
        if self._is_failing and time.monotonic() < self._retry_disk_at:
            return False
        try:
            self._segment = self._next_segment(max(self._segment_bytes, need))
        except OSError as error:
            log.error("audit.spool.disk_refused", error=str(error))
            self._fail()
            return False
        self._is_failing = False
        self._retire(segment)
        return True

    def _fail(self) -> None:
        """Take no change from here on, until a new segment can be made."""
        self._is_failing = True
        self._retry_disk_at = time.monotonic() + 1.0

    def _next_segment(self, size: int) -> Segment:
        assert self._folder is not None, "start() comes first"
        self._serial += 1
        path = self._folder / f"{self._serial:010d}.jsonl"
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
            return Segment(path, fd, mmap.mmap(fd, size))
        except OSError:
            os.close(fd)
            path.unlink(missing_ok=True)
            raise

    def _append(self, org: str, entry: AuditEntry) -> None:
        line = encode(org, entry)
        account = self._accounts[org]
        segment, size = self._segment, len(line)
        assert segment is not None and segment.memory is not None, "a slot came from reserve()"
        account.held += size - RECORD_CAP
        self._held += size - RECORD_CAP
        self._slots -= 1
        segment.memory[segment.size : segment.size + size] = line
        segment.size += size
        segment.pending += 1
        if not segment.is_dirty:
            segment.is_dirty = True
            self._written.append(segment)
        account.queue.append(Spooled(line, segment))
        self._waiting += 1
        self._wake.set()

    def _free(self, org: str) -> None:
        self._slots -= 1
        self._give_back(org, RECORD_CAP)

    def _give_back(self, org: str, size: int) -> None:
        account = self._accounts[org]
        account.held -= size
        self._held -= size
        if not account.held and not account.queue:
            del self._accounts[org]

    async def _sync_forever(self) -> None:
        while True:
            await asyncio.sleep(self._fsync_every)
            await self._sync()

    async def _sync(self) -> None:
        """Bring everything that was written to the platter, in one go."""
        if not (segments := self._written):
            return
        self._written = []
        for segment in segments:
            segment.is_dirty, segment.is_syncing = False, True
        try:
            await asyncio.to_thread(sync_files, [segment.fd for segment in segments])
        except OSError as error:
            log.error("audit.spool.sync_failed", error=str(error))
            self._fail()
        for segment in segments:
            segment.is_syncing = False
            if segment is not self._segment:
                self._retire(segment)

    async def _publish_forever(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._publish_every)
            while await self._publish_round() and self._has_full_batch():
                pass
            if not self._waiting:
                self._wake.clear()

    def _has_full_batch(self) -> bool:
        return any(len(account.queue) >= self._batch_entries for account in self._accounts.values())

    async def _publish_round(self, *, is_last: bool = False) -> bool:
        """Publish one batch of each organisation that has one, and tell whether any was taken."""
        now = time.monotonic()
        orgs = [
            org for org, account in self._accounts.items() if account.queue and (is_last or account.not_before <= now)
        ]
        return any(await asyncio.gather(*(self._publish_batch(org) for org in orgs)))

    async def _publish_batch(self, org: str) -> bool:
        account = self._accounts[org]
        batch: list[Spooled] = []
        size = 0
        for item in account.queue:
            size += len(item.line)
            if batch and (len(batch) == self._batch_entries or size > self._batch_bytes):
                break
            batch.append(item)
        try:
            async with self._publishing, asyncio.timeout(self._publish_timeout):
                await self._publish(org, [decode(item.line)[1] for item in batch])
        except Exception as error:
            account.pause = min(max(account.pause * 2, self._publish_every), 5.0)
            account.not_before = time.monotonic() + account.pause
            log.warning("audit.spool.publish_failed", org_id=org, records=len(batch), error=repr(error))
            return False
        account.pause = 0.0
        for item in batch:
            account.queue.popleft()
            item.segment.pending -= 1
        for segment in {id(item.segment): item.segment for item in batch}.values():
            self._retire(segment)
        self._waiting -= len(batch)
        self._give_back(org, sum(len(item.line) for item in batch))
        return True

    def _retire(self, segment: Segment | None) -> None:
        """Remove a segment once everything in it is acknowledged, and its folder with the last one."""
        if segment is None or segment.pending or segment.is_dirty or segment.is_syncing:
            return
        if segment is self._segment:
            if self._slots or segment.size < self._segment_bytes // 4:
                return
            self._segment = None
        segment.close()
        segment.path.unlink(missing_ok=True)
        if (folder := segment.path.parent) != self._folder and not any(folder.iterdir()):
            self._unlock(folder)

    def _adopt(self, folder: Path) -> None:
        """Read what a predecessor left; a torn line, its last words, is skipped."""
        for path in sorted(folder.glob("*.jsonl")):
            segment = Segment(path)
            for line in path.read_bytes().rstrip(b"\0").splitlines(keepends=True):
                try:
                    org, _ = decode(line)
                except (ValueError, KeyError, TypeError):
                    log.warning("audit.spool.torn_line", segment=str(path), bytes=len(line))
                    continue
                segment.pending += 1
                account = self._accounts.setdefault(org, Account())
                account.queue.append(Spooled(line, segment))
                account.held += len(line)
                self._held += len(line)
                self._waiting += 1
            if not segment.pending:
                path.unlink()
        if not any(folder.iterdir()):
            self._unlock(folder)

    def _lock(self, folder: Path) -> bool:
        """Tell whether a folder is nobody else's, and make it ours until this process ends."""
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._locks[folder] = fd
        return True

    def _unlock(self, folder: Path) -> None:
        with contextlib.suppress(OSError):  # what is not empty stays for the next start
            folder.rmdir()
        if (fd := self._locks.pop(folder, None)) is not None:
            os.close(fd)

    def _close(self) -> None:
        segments = {id(item.segment): item.segment for account in self._accounts.values() for item in account.queue}
        if self._segment and not self._segment.pending:
            self._segment.path.unlink(missing_ok=True)
        for segment in [*segments.values(), *([self._segment] if self._segment else [])]:
            segment.close()
        self._segment = None
        for folder in list(self._locks):
            self._unlock(folder)


def encode(org: str, entry: AuditEntry) -> bytes:
    """Return the line of a record; a list of resources that does not fit is cut, and says so."""
    record: dict[str, Any] = {
        "org": org,
        "record_id": entry.record_id,
        "at": entry.at,
        "user_id": entry.user_id,
        "workload": entry.workload,
        "service": entry.service,
        "action": entry.action,
        "resources": entry.resources,
        "outcome": entry.outcome,
        "trace_id": entry.trace_id,
        "correlation_id": entry.correlation_id,
    }  # spelled out: dataclasses.asdict takes longer than the rest of a call's way through the kernel
    line = orjson.dumps(record) + b"\n"
    if len(line) <= RECORD_CAP:
        return line
    for name in ("user_id", "workload", "service", "action", "outcome", "trace_id", "correlation_id"):
        record[name] = record[name][:200]
    resources: list[str] = record["resources"]
    kept: list[str] = []
    room = RECORD_CAP - len(orjson.dumps({**record, "resources": []})) - 64
    for resource in resources:
        room -= len(orjson.dumps(resource)) + 1
        if room < 0:
            break
        kept.append(resource)
    return orjson.dumps({**record, "resources": [*kept, f"and {len(resources) - len(kept)} more"]}) + b"\n"


def decode(line: bytes) -> tuple[str, AuditEntry]:
    """Return the organisation and the record of a line; a torn line is a ValueError."""
    if not line.endswith(b"\n"):
        raise ValueError("The line has no end.")
    record = orjson.loads(line)
    org = record.pop("org")
    return org, AuditEntry(**{**record, "at": datetime.fromisoformat(record["at"])})


def sync_files(fds: list[int]) -> None:
    """Flush files to disk."""
    for fd in fds:
        os.fdatasync(fd)
