"""Preferences of the caller: a small document with an ETag."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import Header, Response
from pydantic import Field, RootModel

from isa.events import OrgMemberRemoved
from isa_common import InvalidArgument, PreconditionFailed
from kernel import Body, Caller, Poison, get, on, org_id, patch, post, put, user_id
from services.users.domain.preferences import changed, check_document
from services.users.handlers.desk import RACES, Desk
from services.users.repository.preferences import Document

IfMatch = Annotated[str | None, Header(alias="if-match", max_length=200)]
NOTHING = '"0"'
"""ETag of a document that was never written."""


class Values(RootModel[dict[str, Any]]):
    """Preferences by name."""


class Batch(Body):
    """Names to set and names to remove, all or none."""

    put: dict[str, Any] = Field(default_factory=dict)
    remove: list[str] = Field(default_factory=list, max_length=200)


def etag_of(document: Document) -> str:
    """Return the ETag as HTTP has it."""
    return f'"{document.etag}"' if document.etag else NOTHING


class PreferenceRoutes:
    """Preferences of the caller."""

    desk: Desk

    @get("/v1/me/preferences", permission="preferences.read")
    async def get_preferences(self, caller: Caller, response: Response) -> dict[str, Any]:
        """Return the caller's preferences, with their ETag."""
        if not caller.user:
            raise InvalidArgument("Say whom you act for, in the headers isa-org and isa-user.", field="isa-user")
        document = await self.desk.preferences.read(self.desk.acting(caller))
        response.headers["etag"] = etag_of(document)
        return document.values

    @put("/v1/me/preferences", permission="preferences.write")
    async def put_preferences(
        self, caller: Caller, body: Values, response: Response, if_match: IfMatch = None
    ) -> dict[str, Any]:
        """Replace all preferences; with If-Match only those that have this ETag."""
        check_document(body.root)
        return await self._change(caller, lambda _: body.root, response, if_match)

    @patch("/v1/me/preferences", permission="preferences.write")
    async def patch_preferences(
        self, caller: Caller, body: Values, response: Response, if_match: IfMatch = None
    ) -> dict[str, Any]:
        """Set the named preferences, and remove those that are null; the others stay."""
        set_to = {name: value for name, value in body.root.items() if value is not None}
        gone = [name for name, value in body.root.items() if value is None]
        return await self._change(caller, lambda before: changed(before, set_to, gone), response, if_match)

    @post("/v1/me/preferences:batch", permission="preferences.write", idempotent=True)
    async def batch_preferences(
        self, caller: Caller, body: Batch, response: Response, if_match: IfMatch = None
    ) -> dict[str, Any]:
        """Set and remove several preferences in one transaction."""
        return await self._change(caller, lambda before: changed(before, body.put, body.remove), response, if_match)

    @on(OrgMemberRemoved)
    async def forget_preferences(self, caller: Caller, event: OrgMemberRemoved) -> None:
        """Delete the preferences of who left."""
        try:
            who = self.desk.as_user(org_id(event.org_id), user_id(event.member_id))
        except InvalidArgument as error:
            raise Poison(error.message) from error
        await self.desk.preferences.forget(who)

    async def _change(
        self,
        caller: Caller,
        change: Callable[[dict[str, Any]], dict[str, Any]],
        response: Response,
        if_match: str | None,
    ) -> dict[str, Any]:
        document = await self._retried(lambda: self._write(caller, change, if_match), is_free=if_match is None)
        response.headers["etag"] = etag_of(document)
        return document.values

    async def _write(
        self, caller: Caller, change: Callable[[dict[str, Any]], dict[str, Any]], if_match: str | None
    ) -> Document:
        before = await self.desk.preferences.read(caller)
        wanted = [tag.strip().removeprefix("W/") for tag in (if_match or "*").split(",")]
        if "*" not in wanted and etag_of(before) not in wanted:
            raise PreconditionFailed(
                "The preferences changed since they were read. Read them again, and retry with their ETag."
            )
        after = change(before.values)
        if after != before.values:
            await self.desk.preferences.write(caller, before, after)
        return await self.desk.preferences.read(caller)

    async def _retried(self, write: Callable[[], Awaitable[Document]], *, is_free: bool) -> Document:
        """Try again after a lost race, for a caller who named no ETag."""
        for _ in range(RACES - 1):
            try:
                return await write()
            except PreconditionFailed:
                if not is_free:
                    raise
        return await write()
