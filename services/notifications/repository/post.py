"""The post: how a letter leaves, by Dapr's SMTP binding where it is configured, else into a folder."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Protocol

from services.notifications.domain.letters import Letter

ASK_EVERY = timedelta(minutes=1)
"""How long it is taken for granted that the binding is there, or is not: the sidecar may start again with another."""


class Binding(Protocol):
    """What the post needs of Dapr's output bindings."""

    async def has(self, name: str) -> bool:
        """Tell whether a binding is configured."""

    async def invoke(self, name: str, operation: str, data: bytes, metadata: Mapping[str, str]) -> bytes:
        """Invoke an operation of a binding."""


class Post:
    """Sends letters."""

    def __init__(
        self, bindings: Binding, *, binding: str, sink: Path, sender: Address, clock: Callable[[], datetime]
    ) -> None:
        self._bindings = bindings
        self._binding = binding
        self._sink = sink
        self._sender = sender
        self._clock = clock
        self._has_binding = False
        self._asked_at: datetime | None = None

    async def send(self, letter: Letter) -> None:
        """Send a letter; when it returns, it has been handed over."""
        now = self._clock()
        if self._asked_at is None or now - self._asked_at > ASK_EVERY:
            self._has_binding = await self._bindings.has(self._binding)
            self._asked_at = now
        if self._has_binding:
            await self._bindings.invoke(self._binding, "create", letter.html.encode(), self._metadata(letter))
        else:
            await asyncio.to_thread(_store, self._sink, letter.message_id, self._message(letter))

    def _metadata(self, letter: Letter) -> dict[str, str]:
        # The binding sets no Message-ID; the letter's foot shows it.
        return {
            "emailFrom": self._sender.addr_spec,
            "emailTo": letter.to_address,
            "subject": letter.subject,
        }

    def _message(self, letter: Letter) -> bytes:
        message = EmailMessage(policy=SMTP)
        message["From"] = self._sender
        message["To"] = Address(letter.to_name, addr_spec=letter.to_address)
        message["Subject"] = letter.subject
        message["Date"] = self._clock()
        message["Message-ID"] = letter.message_id
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        message.add_alternative(letter.html, subtype="html")
        return message.as_bytes()


def _store(sink: Path, message_id: str, content: bytes) -> None:
    """Put a mail into the folder, whole or not at all; a second copy takes the place of the first."""
    sink.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = message_id.strip("<>").partition("@")[0]
    with tempfile.NamedTemporaryFile(dir=sink, prefix=f".{name}-", delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(sink / f"{name}.eml")
