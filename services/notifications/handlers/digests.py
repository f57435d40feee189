"""The daily digest: what waits for each user, once a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

from isa.events import NotificationSent
from isa_common import Aborted, IsaError
from kernel import Caller, Parts, log
from services.notifications.domain.digests import HORIZON, Waiting, digest
from services.notifications.domain.notices import Notice
from services.notifications.repository.addresses import Addresses
from services.notifications.repository.inboxes import Inboxes
from services.notifications.repository.people import Digests, People
from services.notifications.repository.watches import Watches

PAGE = 200
"""Users, or organisations, that are looked at together."""
ATTEMPTS = 3
AT_ONCE = 8
"""Users that are asked after side by side."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What one run of an organisation's digest did, in users."""

    sent: int = 0
    had_one: int = 0
    """They got the digest of this day before."""
    nothing: int = 0
    """Nothing waits for them, or they want none."""


class DigestRuns:
    """Sends digests."""

    def __init__(
        self,
        parts: Parts,
        *,
        people: People,
        digests: Digests,
        watches: Watches,
        inboxes: Inboxes,
        addresses: Addresses,
        wake: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._people = people
        self._digests = digests
        self._watches = watches
        self._inboxes = inboxes
        self._addresses = addresses
        self._wake = wake

    async def run(self, caller: Caller, day: date, *, force: bool = False) -> Outcome:
        """Send the digest of a day to the users of one organisation; once each, unless forced."""
        outcome = Outcome()
        after = ""
        while users := await self._people.members(caller, after=after, limit=PAGE):
            await self._retried(caller, users, day, force=force, outcome=outcome)
            after = users[-1]
        await self._digests.finish(caller, day)
        if outcome.sent:
            self._wake()
        log.info(
            "digest.run",
            day=day.isoformat(),
            sent=outcome.sent,
            had_one=outcome.had_one,
            nothing=outcome.nothing,
        )
        return outcome

    async def run_missing(self, now: datetime, *, at: time) -> int:
        """Send today's digest in every organisation that was there when it was due and has none; return how many."""
        due = datetime.combine(now.date(), at, tzinfo=UTC)
        if now < due:
            return 0
        ran, after = 0, ""
        while orgs := await self._digests.missing(now.date(), since=due, after=after, limit=PAGE):
            for org in orgs:
                try:
                    await self.run(Caller(org=org, workload=self._parts.name), now.date())
                    ran += 1
                except IsaError as error:  # the next sweep tries it again; the others need not wait
                    log.warning("digest.failed", org_id=org, reason=error.message)
            after = orgs[-1]
        return ran

    async def _retried(self, caller: Caller, users: Sequence[str], day: date, *, force: bool, outcome: Outcome) -> None:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                sent, had_one = await self._send(caller, users, day, force=force)
            except Aborted:
                if attempt == ATTEMPTS:
                    raise
            else:
                outcome.sent += sent
                outcome.had_one += had_one
                outcome.nothing += len(users) - sent - had_one
                return

    async def _send(self, caller: Caller, users: Sequence[str], day: date, *, force: bool) -> tuple[int, int]:
        runs = await self._digests.runs(caller, users, day)
        wanted = [user for user in users if force or user not in runs]
        if not wanted:
            return 0, len(users)
        now = self._parts.clock()
        unread = await self._digests.unread(caller, wanted)
        due = await self._watches.due(caller, wanted, before=now + HORIZON)
        gate = asyncio.Semaphore(AT_ONCE)

        async def of(user: str) -> Notice | None:
            tasks, total = due.get(user, ([], 0))
            waiting = Waiting(unread=unread.get(user, {}), due=tasks, due_total=total)
            if waiting.is_nothing:
                return None
            async with gate:
                if not await self._wants_digest(caller, user):
                    return None
            return digest(user, day, waiting, run=runs.get(user, 0) + 1)

        notices = [notice for notice in await asyncio.gather(*map(of, wanted)) if notice]
        if notices:
            async with self._parts.work(caller) as work:
                told = {notice.recipient_id: runs.get(notice.recipient_id, 0) + 1 for notice in notices}
                work.extend([self._digests.run(caller, told, day), *self._inboxes.put(caller, notices, at=now)])
                for notice in notices:
                    work.emit(put_in_inbox(notice))
        return len(notices), len(users) - len(wanted)

    async def _wants_digest(self, caller: Caller, user: str) -> bool:
        acting = Caller(org=caller.org, user=user, workload=self._parts.name)
        try:
            person = await self._addresses.person(acting)
        except IsaError as error:  # the inbox need not wait for `users`; before the e-mail leaves, it is asked again
            log.warning("digest.unasked", recipient_id=user, reason=error.message)
            return True
        if person is None:
            await self._people.leave(acting, at=self._parts.clock())
            return False
        return person.wants_digest


def put_in_inbox(notice: Notice) -> NotificationSent:
    """The event that tells of a notice in an inbox."""
    return NotificationSent(
        aggregate_id=notice.id,
        recipient_id=notice.recipient_id,
        channel="inbox",
        kind=notice.kind,
        correlation_id=notice.correlation_id,
        causation_id=notice.cause_id or None,
    )
