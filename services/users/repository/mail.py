"""Letters: by the SMTP binding where it is configured, else into a folder, else nowhere and the log says so."""

from __future__ import annotations

import asyncio
import html
import uuid
from email.message import EmailMessage
from pathlib import Path

from kernel import log
from kernel.dapr.bindings import Bindings

BINDING = "email"


class Mail:
    """Sends a letter. Neither its reader nor its text is ever logged."""

    def __init__(self, bindings: Bindings, *, sink: Path | None) -> None:
        self._bindings = bindings
        self._sink = sink

    async def send(self, *, to: str, subject: str, text: str) -> str:
        """Send a letter; return how: email, sink or nowhere."""
        if await self._bindings.has(BINDING):
            body = f"<pre>{html.escape(text)}</pre>"
            metadata = {"emailTo": to, "subject": subject}
            await self._bindings.invoke(BINDING, "create", body.encode(), metadata)
            return "email"
        if self._sink is None:
            log.warning("users.mail.nowhere", reason="neither the binding `email` nor USERS_MAIL_SINK is configured")
            return "nowhere"
        letter = EmailMessage()
        letter["To"], letter["Subject"] = to, subject
        letter.set_content(text)
        await asyncio.to_thread(self._write, self._sink, letter)
        return "sink"

    def _write(self, folder: Path, letter: EmailMessage) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / f"{uuid.uuid4().hex}.eml").write_bytes(bytes(letter))
