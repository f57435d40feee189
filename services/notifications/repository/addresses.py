"""Addresses and titles: asked of the rooms that own them, and kept nowhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from isa_common import NotFound
from kernel import Caller
from services.notifications.domain.letters import Person


class Invoke(Protocol):
    """What this needs of service invocation."""

    async def get(self, app_id: str, path: str, *, caller: Caller | None = None) -> Any:
        """Return the JSON that a GET of another room's path answers."""


class Addresses:
    """What `users` knows of people."""

    def __init__(self, invoke: Invoke) -> None:
        self._invoke = invoke

    async def person(self, caller: Caller, user: str) -> Person | None:
        """Return a person; None when they are no member any more."""
        try:
            found = await self._invoke.get("users", f"/v1/users/{user}", caller=caller)
            wishes = await self._wishes(caller, user)
        except NotFound:
            return None
        return Person(
            name=str(found.get("name", "")),
            email=str(found["email"]),
            wants_mail=bool(wishes.get("mail", True)),
            wants_digest=bool(wishes.get("digest", True)),
        )

    async def _wishes(self, caller: Caller, user: str) -> dict[str, Any]:
        found = await self._invoke.get("users", f"/v1/users/{user}/preferences", caller=caller)
        return found if isinstance(found, dict) else {}


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
