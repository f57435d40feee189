"""Who is plugged into whom in notifications."""

from __future__ import annotations

import os
from datetime import time, timedelta
from email.headerregistry import Address
from pathlib import Path

from pydantic import Field

from kernel import Parts, RoomSettings, Seconds
from services.notifications.handlers import Handlers
from services.notifications.handlers.digests import DigestRuns
from services.notifications.handlers.mail import Mailer
from services.notifications.repository.addresses import Addresses, Titles
from services.notifications.repository.deliveries import Deliveries
from services.notifications.repository.inboxes import Inboxes
from services.notifications.repository.people import Digests, People
from services.notifications.repository.post import Post
from services.notifications.repository.watches import Watches


class Settings(RoomSettings):
    """What an operator may change, as NOTIFICATIONS_<NAME>."""

    page_size: int = Field(50, ge=1, le=200)
    """Notices a page, when the caller does not say."""
    digest_at: time = time(7)
    """Time of the daily digest, UTC."""
    keep: Seconds = timedelta(days=90)
    """How long notices, and e-mails that ended, are kept."""
    mail_binding: str = "email"
    """Dapr's SMTP binding; mail leaves by it where it is configured."""
    mail_sink: Path = Field(default_factory=lambda: Path(os.environ.get("ISA_HOME", ".isa")) / "data" / "mail")
    """Folder for mail where it is not; one .eml a mail."""
    mail_from: str = "isa@localhost"
    """Sender's address; its domain is that of the Message-IDs."""
    mail_give_up_after: Seconds = timedelta(days=3)
    """How long a mail is tried."""


def create_app(settings: Settings, parts: Parts) -> Handlers:
    """Build the room."""
    sender = Address("isA Cloud", addr_spec=settings.mail_from)
    inboxes = Inboxes(parts.sql)
    watches = Watches(parts.sql)
    people = People(parts.sql)
    digests = Digests(parts.sql)
    deliveries = Deliveries(parts.sql)
    addresses = Addresses(parts.invoke)
    mailer = Mailer(
        parts,
        deliveries=deliveries,
        people=people,
        addresses=addresses,
        titles=Titles(parts.invoke),
        post=Post(
            parts.bindings,
            binding=settings.mail_binding,
            sink=settings.mail_sink,
            sender=sender,
            clock=parts.clock,
        ),
        domain=sender.domain,
        give_up_after=settings.mail_give_up_after,
    )
    return Handlers(
        parts,
        inboxes=inboxes,
        watches=watches,
        people=people,
        digests=digests,
        deliveries=deliveries,
        mailer=mailer,
        digest_runs=DigestRuns(
            parts,
            people=people,
            digests=digests,
            watches=watches,
            inboxes=inboxes,
            addresses=addresses,
            wake=mailer.wake,
        ),
        page_size=settings.page_size,
        digest_at=settings.digest_at,
        keep=settings.keep,
    )
