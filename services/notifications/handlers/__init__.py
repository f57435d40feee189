"""What comes in: events that concern somebody, questions about one's inbox, and the times of digest and post."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated

from fastapi import Query

from isa.events import (
    Event,
    OrgMemberAdded,
    ReminderTriggered,
    TaskCompleted,
    TaskCreated,
    TaskDeleted,
    TaskUpdated,
    UserRegistered,
)
from isa_common import InvalidArgument, IsaError, NotFound, Statement
from kernel import Body, Caller, Parts, View, get, job, log, on_batch, post
from services.notifications.domain.digests import may_run, schedule
from services.notifications.domain.notices import TEXTS, Notice, is_notice_id, joined, welcome
from services.notifications.domain.watches import Watch, watched_task
from services.notifications.handlers.digests import DigestRuns, put_in_inbox
from services.notifications.handlers.mail import Mailer
from services.notifications.repository.deliveries import Deliveries
from services.notifications.repository.inboxes import Inboxes, Item
from services.notifications.repository.people import Digests, People
from services.notifications.repository.watches import Watches

THE_END = (datetime(9999, 1, 1, tzinfo=UTC), "")
KEEP_CLOSED_TASKS = timedelta(days=400)


class Notification(View):
    """One notice in an inbox."""

    id: str
    kind: str
    """The topic that caused it, or `digest`."""
    text: str
    subject_id: str
    """What it is about: a task, a user, or the day of a digest."""
    actor_id: str
    """Who did it; empty when nobody did."""
    data: dict[str, object]
    at: datetime
    read_at: datetime | None
    mail: str | None
    """How far its e-mail has come: pending, sent, skipped or failed; null when it has none."""


class NotificationPage(View):
    """A page of an inbox, latest first."""

    notifications: list[Notification]
    next_cursor: str | None
    """Give it as `cursor` to read on; null at the end."""
    unread: int


class Unread(View):
    """How many notices wait."""

    unread: int


class ReadAll(Body):
    """Which notices to mark as read."""

    until: datetime | None = None
    """The latest of them; default: all there are now."""


class Marked(View):
    """What was marked as read."""

    marked: int


class RunDigest(Body):
    """How to run the digest."""

    force: bool = False
    """Send it to those too who got today's."""


class DigestOutcome(View):
    """What a run of the digest did, in users."""

    day: date
    sent: int
    had_one: int
    """They got the digest of this day before."""
    nothing: int
    """Nothing waits for them, or they want none."""


class Handlers:
    """An inbox for each user, e-mail for what cannot wait, and a digest a day for the rest."""

    def __init__(
        self,
        parts: Parts,
        *,
        inboxes: Inboxes,
        watches: Watches,
        people: People,
        digests: Digests,
        deliveries: Deliveries,
        mailer: Mailer,
        digest_runs: DigestRuns,
        page_size: int,
        digest_at: time,
        keep: timedelta,
    ) -> None:
        self._parts = parts
        self._inboxes = inboxes
        self._watches = watches
        self._people = people
        self._digests = digests
        self._deliveries = deliveries
        self._mailer = mailer
        self._digest_runs = digest_runs
        self._page_size = page_size
        self._digest_at = digest_at
        self._keep = keep

    async def start(self) -> None:
        """Set the time of the digest; the sweep sends it late where the scheduler is not there yet."""
        try:
            await self._parts.jobs.schedule("daily-digest", schedule=schedule(self._digest_at))
        except IsaError as error:
            log.warning("digest.unscheduled", reason=error.message)

    async def stop(self) -> None:
        """Let the mails in flight end."""
        await self._mailer.stop()

    @on_batch(
        TaskCreated,
        TaskUpdated,
        TaskCompleted,
        TaskDeleted,
        ReminderTriggered,
        UserRegistered,
        OrgMemberAdded,
    )
    async def tell(self, caller: Caller, events: list[Event]) -> None:
        """Tell those whom the events of one organisation concern."""
        notices: list[Notice] = []

        async def effects(fresh: list[Event]) -> list[Statement]:
            now = self._parts.clock()
            watches, found = await self._watch(caller, fresh)
            found += await self._greet(caller, fresh)
            notices[:] = await self._inboxes.unknown(caller, found)
            return [
                *self._people.add(caller, _roles(fresh), at=now),
                *self._watches.save(caller, watches),
                *self._inboxes.put(caller, notices, at=now),
            ]

        def emit(_fresh: list[Event]) -> list[Event]:
            return [put_in_inbox(notice) for notice in notices]

        if await self._parts.inbox.apply(caller, events, effects, emit=emit) and any(n.is_mailed for n in notices):
            self._mailer.wake()

    @get("/v1/notifications", permission="notifications.read")
    async def list_notifications(
        self,
        caller: Caller,
        unread: Annotated[bool, Query(description="Only those that were not read.")] = False,
        limit: Annotated[int | None, Query(ge=1, le=200)] = None,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> NotificationPage:
        """The caller's own notices, latest first."""
        size = limit or self._page_size
        before = _place(cursor) if cursor else THE_END
        items = await self._inboxes.page(caller, before=before, only_unread=unread, limit=size + 1)
        page = items[:size]
        return NotificationPage(
            notifications=[_view(item) for item in page],
            next_cursor=_cursor(page[-1]) if len(items) > size else None,
            unread=await self._inboxes.unread(caller),
        )

    @get("/v1/notifications/unread", permission="notifications.read")
    async def count_unread(self, caller: Caller) -> Unread:
        """How many of the caller's notices were not read."""
        return Unread(unread=await self._inboxes.unread(caller))

    @post("/v1/notifications/read", permission="notifications.write", idempotent=True)
    async def mark_all_read(self, caller: Caller, body: ReadAll | None = None) -> Marked:
        """Mark the caller's notices as read."""
        now = self._parts.clock()
        until = body.until if body and body.until else now
        if until.tzinfo is None:
            raise InvalidArgument("A time needs its zone, as in 2026-01-31T08:00:00Z.", field="until")
        return Marked(marked=await self._inboxes.read_all(caller, until=until, at=now))

    @post("/v1/notifications/{notification_id}/read", permission="notifications.write", idempotent=True)
    async def mark_read(self, caller: Caller, notification_id: str) -> Notification:
        """Mark one of the caller's notices as read; the first time counts."""
        if not is_notice_id(notification_id):
            raise NotFound("There is no such notification in your inbox.")
        return _view(await self._inboxes.read(caller, notification_id, at=self._parts.clock()))

    @post("/v1/digests/run", permission="notifications.write", idempotent=True)
    async def run_digest(self, caller: Caller, body: RunDigest | None = None) -> DigestOutcome:
        """Send today's digest to the caller's organisation now; once a day to each user, unless forced."""
        may_run(caller.roles)
        day = self._parts.clock().date()
        outcome = await self._digest_runs.run(caller, day, force=bool(body and body.force))
        return DigestOutcome(day=day, sent=outcome.sent, had_one=outcome.had_one, nothing=outcome.nothing)

    @job("daily-digest")
    async def daily_digest(self, name: str, data: dict[str, object]) -> None:
        """Send the digest of today in every organisation."""
        ran = await self._digest_runs.run_missing(self._parts.clock(), at=self._digest_at)
        log.info("digest.day", job=name, organisations=ran)

    @job("post", schedule="*/15 * * * * *")
    async def sweep(self, data: dict[str, object]) -> None:
        """Send the e-mails that are due, and the digests that were missed while nothing ran."""
        await self._mailer.sweep()
        await self._digest_runs.run_missing(self._parts.clock() - timedelta(minutes=5), at=self._digest_at)

    @job("tidy", schedule="0 30 3 * * *")
    async def tidy(self, data: dict[str, object]) -> None:
        """Forget what is old."""
        now = self._parts.clock()
        log.info(
            "notifications.tidied",
            notifications=await self._inboxes.clean(before=now - self._keep),
            deliveries=await self._deliveries.clean(before=now - self._keep),
            digests=await self._digests.clean(before=(now - self._keep).date()),
            tasks=await self._watches.clean(before=now - KEEP_CLOSED_TASKS),
        )

    async def _watch(self, caller: Caller, events: list[Event]) -> tuple[list[Watch], list[Notice]]:
        about = [(task, event) for event in events if (task := watched_task(event))]
        known = await self._watches.find(caller, [task for task, _ in about])
        before = dict(known)
        notices: list[Notice] = []
        for task, event in about:
            known[task], told = known[task].see(event)
            notices += told
        return [watch for task, watch in known.items() if watch != before[task]], notices

    async def _greet(self, caller: Caller, events: list[Event]) -> list[Notice]:
        notices = [welcome(event) for event in events if isinstance(event, UserRegistered)]
        added = [event for event in events if isinstance(event, OrgMemberAdded) and event.role != "owner"]
        owners = await self._people.owners(caller) if added else []
        return notices + [notice for event in added for notice in joined(event, owners=owners)]


def _roles(events: list[Event]) -> dict[str, str]:
    roles: dict[str, str] = {}
    for event in events:
        match event:
            case UserRegistered():
                roles[event.aggregate_id] = event.role
            case OrgMemberAdded():
                roles[event.member_id] = event.role
    return roles


def _view(item: Item) -> Notification:
    return Notification(
        id=item.id,
        kind=item.kind,
        text=TEXTS.get(item.kind, "Something happened that concerns you."),
        subject_id=item.subject_id,
        actor_id=item.actor_id,
        data=item.data,
        at=item.at,
        read_at=item.read_at,
        mail=item.mail,
    )


def _cursor(item: Item) -> str:
    return base64.urlsafe_b64encode(f"{item.at.isoformat()} {item.id}".encode()).decode().rstrip("=")


def _place(cursor: str) -> tuple[datetime, str]:
    """Where a cursor points to; it is ours, so a person only ever gets it wrong by hand."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
        at, _, notice = text.partition(" ")
        place = datetime.fromisoformat(at)
        if place.tzinfo is None or not is_notice_id(notice):
            raise ValueError
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise InvalidArgument(
            "That is no cursor of this list: give `next_cursor` as it came.", field="cursor"
        ) from None
    return place, notice
