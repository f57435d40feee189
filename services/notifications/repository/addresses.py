"""Addresses and titles: asked of the rooms that own them, and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from isa_common import NotFound
from kernel import Caller
from services.notifications.domain.letters import Person

WANTS_MAIL = "notifications.mail"
"""Preference of a user that stops all e-mail when it is false."""
WANTS_DIGEST = "notifications.digest"
"""Preference of a user that stops the digest when it is false."""


class Invoke(Protocol):
    """What this needs of service invocation."""

    async def get(self, app_id: str, path: str, *, caller: Caller | None = None) -> Any:
        """Return the JSON that a GET of another room's path answers."""


class Addresses:
    """What `users` knows of people."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke

    async def person(self, caller: Caller) -> Person | None:
        """Return the person that the caller acts for; None when they are no member any more."""
        try:
            found = await self._invoke.get("users", f"/v1/users/{caller.user}", caller=caller)
        except NotFound:
            return None
        wishes = await self._invoke.get("users", "/v1/me/preferences", caller=caller)
        return Person(
            name=str(found["name"]),
            email=str(found["email"]),
            wants_mail=wishes.get(WANTS_MAIL) is not False,
            wants_digest=wishes.get(WANTS_DIGEST) is not False,
        )


class Titles:
    """What `tasks` knows of tasks."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke

    async def find(self, caller: Caller, task_ids: Iterable[str]) -> dict[str, str]:
        """Return the titles of the tasks that still exist."""
        titles: dict[str, str] = {}
        for task in task_ids:
            try:
                found = await self._invoke.get("tasks", f"/v1/tasks/{task}", caller=caller)
            except NotFound:
                continue
            titles[task] = str(found["title"])
        return titles
