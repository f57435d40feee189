"""E-mails on their way: claimed, written with the help of other rooms, handed to the post, and ended."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from isa.events import NotificationSent
from isa_common import Aborted
from kernel import Caller, Parts, log
from services.notifications.domain.deliveries import Delivery, State, wait_after
from services.notifications.domain.letters import titles_wanted, write
from services.notifications.repository.addresses import Addresses, Titles
from services.notifications.repository.deliveries import LEASE, Deliveries
from services.notifications.repository.people import People
from services.notifications.repository.post import Post

AT_ONCE = 8
"""E-mails written side by side; no more than the rooms that are asked can bear."""

ATTEMPT_TIMEOUT = LEASE - timedelta(seconds=15)
"""How long an attempt may take, so that it ends before somebody else may begin one."""


class Mailer:
    """Sends what is due. A room that must be asked and is away delays a mail, and never loses it."""

    def __init__(
        self,
        parts: Parts,
        *,
        deliveries: Deliveries,
        people: People,
        addresses: Addresses,
        titles: Titles,
        post: Post,
        domain: str,
        give_up_after: timedelta,
    ) -> None:
        self._parts = parts
        self._deliveries = deliveries
        self._people = people
        self._addresses = addresses
        self._titles = titles
        self._post = post
        self._domain = domain
        self._give_up_after = give_up_after
        self._outcomes = parts.metrics.counter("isa_mails", "E-mails by what became of them.", ["outcome"])
        self._pending = parts.metrics.gauge("isa_mails_pending", "E-mails that wait to be sent.")
        self._running: asyncio.Task[int] | None = None
        self._is_wanted = self._is_stopping = False

    def wake(self) -> None:
        """Look for due mails soon; called after a commit that queued one."""
        self._is_wanted = True
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._until_done())

    async def stop(self) -> None:
        """Let the mails in flight end."""
        self._is_stopping = True
        if self._running is not None:
            await asyncio.gather(self._running, return_exceptions=True)

    async def sweep(self) -> int:
        """Attempt every mail that is due; return how many were attempted."""
        attempted = 0
        while due := await self._deliveries.claim(now=self._parts.clock(), limit=AT_ONCE):
            await asyncio.gather(*(self._attempt(delivery) for delivery in due))
            attempted += len(due)
            if self._is_stopping:  # the rest is in the database, and the next sweep takes it
                break
        self._pending.set(await self._deliveries.pending())
        return attempted

    async def _until_done(self) -> int:
        attempted = 0
        while self._is_wanted:
            self._is_wanted = False
            try:
                attempted += await self.sweep()
            except Exception as error:  # the job sweeps again
                log.warning("mail.sweep_failed", reason=str(error) or type(error).__name__)
        return attempted

    async def _attempt(self, delivery: Delivery) -> None:
        try:
            async with asyncio.timeout(ATTEMPT_TIMEOUT.total_seconds()):
                state, reason = await self._deliver(delivery)
        except Exception as error:
            await self._postpone(delivery, str(error) or type(error).__name__)
            return
        try:
            await self._end(delivery, state, reason)
        except Aborted:
            log.info("mail.raced", delivery_id=delivery.id)  # another replica ended it

    async def _deliver(self, delivery: Delivery) -> tuple[State, str]:
        caller = Caller(org=delivery.org_id, user=delivery.user_id, workload=self._parts.name)
        person = await self._addresses.person(caller)
        if person is None:
            await self._people.leave(caller, at=self._parts.clock())
            return State.SKIPPED, "They are no member any more."
        if not person.wants(delivery.kind):
            return State.SKIPPED, "They do not want such mail."
        titles = await self._titles.find(caller, titles_wanted(delivery))
        letter = write(delivery, person, titles, domain=self._domain)
        if letter is None:
            return State.SKIPPED, "There is nothing left to say."
        await self._post.send(letter)
        return State.SENT, ""

    async def _end(self, delivery: Delivery, state: State, reason: str) -> None:
        nobody = Caller(org=delivery.org_id, workload=self._parts.name)
        async with self._parts.work(nobody) as work:
            work.extend([self._deliveries.end(delivery, state, at=self._parts.clock(), reason=reason)])
            if state is State.SENT:
                work.emit(
                    NotificationSent(
                        aggregate_id=delivery.notification_id,
                        aggregate_version=2,
                        recipient_id=delivery.user_id,
                        channel="email",
                        kind=delivery.kind,
                        correlation_id=delivery.correlation_id,
                        causation_id=delivery.cause_id or None,
                    )
                )
        self._outcomes.labels(state.value).inc()
        log.info("mail.ended", delivery_id=delivery.id, state=state.value, kind=delivery.kind, reason=reason)

    async def _postpone(self, delivery: Delivery, reason: str) -> None:
        now = self._parts.clock()
        if now - delivery.created_at >= self._give_up_after:
            log.error("mail.given_up", delivery_id=delivery.id, attempts=delivery.attempts, reason=reason)
            await self._end(delivery, State.FAILED, reason)
            return
        until = now + wait_after(delivery.attempts)
        await self._deliveries.postpone(delivery, until=until, reason=reason)
        self._outcomes.labels("postponed").inc()
        log.warning(
            "mail.postponed",
            delivery_id=delivery.id,
            attempts=delivery.attempts,
            until=until.isoformat(),
            reason=reason,
        )
