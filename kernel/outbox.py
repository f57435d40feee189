"""The outbox: an event commits in the transaction of its business row, and a relay publishes it after.

A row is born leased to the process that commits it, which publishes it at once. What a crash left is claimed by whoever
sweeps after the lease has ended. At least once on the wire; consumers have the inbox.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

from isa_common import IsaError, Sql, Statement
from kernel import telemetry
from kernel.events import Record

BATCH = 200
BATCH_BYTES = 4 << 20
"""A batch ends with the record that takes it over this: far below what the sidecar takes in a message."""
LEASE = timedelta(seconds=15)
SWEEP_EVERY = 2.0
MARK_EVERY = 0.1
MEASURE_EVERY = 10.0
KEEP = timedelta(days=1)
"""How long a published row stays, as evidence."""

INSERT = """
INSERT INTO outbox (event_id, topic, key, payload, headers, leased_until, lease)
SELECT event_id, topic, key, payload, headers, now() + make_interval(secs => $6), $7
FROM unnest($1::text[], $2::text[], $3::text[], $4::bytea[], $5::jsonb[])
     AS row (event_id, topic, key, payload, headers)
"""
CLAIM = """
UPDATE outbox SET leased_until = now() + make_interval(secs => $2), lease = $1
WHERE event_id IN (
    SELECT event_id FROM outbox WHERE published_at IS NULL AND leased_until < now()
    ORDER BY position LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING position, event_id, topic, key, payload, headers
"""
MARK = "UPDATE outbox SET published_at = now() WHERE event_id = ANY($1::text[])"
YIELD = (
    "UPDATE outbox SET leased_until = now() WHERE event_id = ANY($1::text[]) AND lease = $2 AND published_at IS NULL"
)
MEASURE = """
SELECT count(*) AS pending, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest
FROM (SELECT created_at FROM outbox WHERE published_at IS NULL LIMIT 10000) AS waiting
"""
CLEAN = """
DELETE FROM outbox WHERE event_id IN (
    SELECT event_id FROM outbox WHERE published_at < now() - make_interval(secs => $1) LIMIT 5000
)
"""

Publish = Callable[[str, Sequence[Record]], Awaitable[set[str]]]


class Outbox:
    """The outbox of one room and its relay. `sql` is the room's system login."""

    def __init__(self, sql: Sql, publish: Publish) -> None:
        self._sql = sql
        self._publish = publish
        self._lease = uuid.uuid4().hex
        self._waiting = asyncio.Queue[Record]()
        self._published: list[str] = []
        """Ids that the broker has and the table does not say so yet."""
        self._held: set[str] = set()
        """Ids of everything in hand, so that the sweep does not take it a second time."""
        self._tasks: list[asyncio.Task[None]] = []
        self._marking = asyncio.Lock()
        self._is_stopping = False
        self._has_failed = False
        """Records were given back since the last sweep."""

    def statement(self, records: Sequence[Record]) -> Statement:
        """Return the statement that commits records with the caller's own rows."""
        return Statement(
            INSERT,
            [record.event_id for record in records],
            [record.topic for record in records],
            [record.key for record in records],
            [record.payload for record in records],
            [record.headers for record in records],
            LEASE.total_seconds(),
            self._lease,
            expect_rows=len(records),
        )

    def wake(self, records: Sequence[Record]) -> None:
        """Publish what has just been committed."""
        for record in records:
            if record.event_id not in self._held:
                self._held.add(record.event_id)
                self._waiting.put_nowait(record)

    async def start(self) -> None:
        """Start the relay, the marking, the sweep and the measuring."""
        loops = (self._relay, self._mark, self._sweep, self._measure)
        self._tasks = [asyncio.create_task(loop()) for loop in loops]

    async def stop(self, *, at_most: float = 10.0) -> None:
        """Publish what is in hand, and stop; what stays is swept by the next process."""
        self._is_stopping = True
        try:
            async with asyncio.timeout(at_most):
                await self._waiting.join()
                await self._mark_published()
        except TimeoutError:
            telemetry.log.warning("outbox.left", records=self._waiting.qsize())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def clean(self) -> int:
        """Delete rows that were published long ago; return how many."""
        deleted = 0
        while (done := (await self._sql.execute(CLEAN, KEEP.total_seconds())).affected) > 0:
            deleted += done
        return deleted

    async def _relay(self) -> None:
        """Publish what waits: what has gathered meanwhile goes together, one batch after the other, for order."""
        while True:
            batch = [await self._waiting.get()]
            size = len(batch[0].payload)
            while len(batch) < BATCH and size < BATCH_BYTES and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
                size += len(batch[-1].payload)
            by_topic: dict[str, list[Record]] = {}
            for record in batch:
                by_topic.setdefault(record.topic, []).append(record)
            try:
                await asyncio.gather(*(self._deliver(topic, records) for topic, records in by_topic.items()))
            finally:
                for _ in batch:
                    self._waiting.task_done()

    async def _deliver(self, topic: str, records: Sequence[Record]) -> None:
        """Publish a topic's records; one topic's trouble is not another's."""
        try:
            failed = await self._publish(topic, records)
            self._published += [record.event_id for record in records if record.event_id not in failed]
        except IsaError as error:
            telemetry.log.warning("outbox.waiting", topic=topic, records=len(records), reason=error.message)
            await self._give_back(records)
        except Exception:
            telemetry.log.exception("outbox.failed", topic=topic, records=len(records))
            await self._give_back(records)
        else:
            if failed:
                await self._give_back([record for record in records if record.event_id in failed])

    async def _mark(self) -> None:
        """Say in the table what was published, a few times a second; what a crash leaves unmarked is sent again."""
        while True:
            await asyncio.sleep(MARK_EVERY)
            await self._mark_published()

    async def _mark_published(self) -> None:
        async with self._marking:  # stopping waits for what is being marked
            done, self._published = self._published, []
            if not done:
                return
            try:
                await self._sql.execute(MARK, done)
            except Exception as error:
                telemetry.log.warning("outbox.unmarked", records=len(done), reason=str(error))
                self._published += done
            else:
                self._held.difference_update(done)

    async def _give_back(self, records: Sequence[Record]) -> None:
        """Let the sweep have them; when not even that works, the lease ends by itself."""
        self._has_failed = True
        ids = [record.event_id for record in records]
        self._held.difference_update(ids)
        try:
            await self._sql.execute(YIELD, ids, self._lease)
        except Exception as error:
            telemetry.log.warning("outbox.lease_kept", records=len(records), reason=str(error))

    async def _sweep(self) -> None:
        while not self._is_stopping:
            try:
                if self._has_failed:
                    self._has_failed = False
                    await asyncio.sleep(SWEEP_EVERY)
                found = await self._sql.execute(CLAIM, self._lease, LEASE.total_seconds(), BATCH)
                rows = sorted(found.rows, key=lambda row: row["position"])
                self.wake(
                    [
                        Record(
                            event_id=row["event_id"],
                            topic=row["topic"],
                            key=row["key"],
                            payload=row["payload"],
                            headers=row["headers"],
                        )
                        for row in rows
                    ]
                )
                if rows:
                    telemetry.log.info("outbox.swept", records=len(rows))
                    continue
            except IsaError as error:
                telemetry.log.warning("outbox.sweep_failed", reason=error.message)
            except Exception:
                telemetry.log.exception("outbox.sweep_failed")
            await asyncio.sleep(SWEEP_EVERY)

    async def _measure(self) -> None:
        while True:
            began = time.monotonic()
            try:
                row = (await self._sql.query(MEASURE))[0]
                telemetry.OUTBOX_PENDING.set(row["pending"])
                telemetry.OUTBOX_OLDEST.set(row["oldest"])
            except Exception as error:
                telemetry.log.debug("outbox.unmeasured", reason=str(error))
            await asyncio.sleep(max(0.0, MEASURE_EVERY - (time.monotonic() - began)))
