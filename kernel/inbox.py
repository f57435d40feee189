"""The inbox: the id of an event is a unique row that commits with the event's effect, so the effect happens once.

It holds when two consumers are given the same record at the same time, as a rebalance does: one of them commits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from isa_common import Aborted, AlreadyExists, Sql, Statement
from kernel import telemetry
from kernel.caller import Caller

if TYPE_CHECKING:
    from isa.events import Event
    from kernel.work import Work

ATTEMPTS = 5
KEEP = timedelta(days=14)
"""How long an id is remembered: longer than a topic keeps its records, so that no replay finds it forgotten."""

ACCEPT = """
INSERT INTO inbox (event_id, consumer) SELECT event_id, $2 FROM unnest($1::text[]) AS event_id ON CONFLICT DO NOTHING
"""
SEEN = "SELECT event_id FROM inbox WHERE consumer = $2 AND event_id = ANY($1::text[])"
CLEAN = """
DELETE FROM inbox WHERE (event_id, consumer) IN (
    SELECT event_id, consumer FROM inbox WHERE seen_at < now() - make_interval(secs => $1) LIMIT 5000
)
"""

Effects = Callable[[list["Event"]], Awaitable[Sequence[Statement]]]
Emits = Callable[[list["Event"]], Sequence["Event"]]


class Inbox:
    """The inbox of one room."""

    def __init__(self, room: str, sql: Sql, begin: Callable[[Caller], Work]) -> None:
        self._room = room
        self._sql = sql
        self._begin = begin

    async def apply(
        self,
        caller: Caller,
        events: Sequence[Event],
        effects: Effects,
        *,
        emit: Emits | None = None,
        consumer: str = "",
    ) -> list[Event]:
        """Commit the effects of the events that were not seen before; return those events.

        `effects` returns the statements of the events it is given; `emit` the events that they cause. Both may be asked
        again, with fewer events, when another consumer was faster. After `ATTEMPTS` lost races it raises Aborted, and
        the events come again.
        """
        name = consumer or self._room
        fresh = list({event.event_id: event for event in events}.values())
        if not fresh:
            return []
        for attempt in range(ATTEMPTS):
            try:
                async with self._begin(caller) as work:
                    work.add(ACCEPT, [event.event_id for event in fresh], name, expect_rows=len(fresh))
                    work.extend(await effects(fresh))
                    for caused in emit(fresh) if emit else ():
                        work.emit(caused)
            except (Aborted, AlreadyExists):
                rows = await self._sql.acting_for(caller).query(SEEN, [event.event_id for event in fresh], name)
                seen = {row["event_id"] for row in rows}
                telemetry.log.debug("inbox.raced", consumer=name, seen=len(seen), attempt=attempt)
                fresh = [event for event in fresh if event.event_id not in seen]
                if not fresh:
                    return []
            else:
                return fresh
        raise Aborted(f"{name} lost {ATTEMPTS} races for the same rows.")

    async def clean(self) -> int:
        """Delete ids that no replay can bring again; return how many."""
        deleted = 0
        while (done := (await self._sql.execute(CLEAN, KEEP.total_seconds())).affected) > 0:
            deleted += done
        return deleted
