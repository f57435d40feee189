"""Client credentials: what programs log in with."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Response
from pydantic import Field

from isa.events import UserAuthenticated
from kernel import Body, Caller, View, delete, get, post
from services.users.domain.access import Credential, NoSuchCredential, WrongClient, digest, matches, new_token
from services.users.handlers.access import no_store
from services.users.handlers.desk import Desk
from services.users.handlers.shapes import Name


class NewCredential(Body):
    """A program that is to log in."""

    name: Name
    scopes: Annotated[list[Annotated[str, Field(max_length=64)]], Field(min_length=1, max_length=50)]
    """What it may do, such as tasks.read; never more than who makes it."""


class CredentialView(View):
    """A program's credential."""

    client_id: str
    name: str
    scopes: list[str]
    user_id: str
    """Whom it acts as: who made it."""
    created_at: datetime
    used_at: datetime | None

    @staticmethod
    def of(credential: Credential) -> CredentialView:
        """Show a credential."""
        return CredentialView(
            client_id=credential.id,
            name=credential.name,
            scopes=list(credential.scopes),
            user_id=credential.user_id,
            created_at=credential.created_at,
            used_at=credential.used_at,
        )


class MadeCredential(CredentialView):
    """A credential with its secret, which is shown once."""

    client_secret: str


class Credentials(View):
    """The credentials of an organisation."""

    credentials: list[CredentialView]


class CredentialRoutes:
    """Client credentials: what programs log in with."""

    desk: Desk

    @post("/v1/credentials", permission="users.write", status=201)
    async def create_credential(self, caller: Caller, body: NewCredential, response: Response) -> MadeCredential:
        """Make a credential for a program. Its secret is shown here and never again."""
        no_store(response)
        desk = self.desk
        member = await desk.member(desk.person(caller))
        secret = new_token("secret")
        credential = Credential(
            id=desk.parts.new_id("client"),
            org_id=caller.org,
            user_id=caller.user,
            name=body.name,
            scopes=desk.narrowed(body.scopes, held=desk.permissions(member.role)),
            version=0,
            created_at=desk.parts.clock(),
        )
        async with desk.parts.work(caller) as work:
            desk.proofs.add_credential(work, credential, digest(secret))
        return MadeCredential(**CredentialView.of(credential).model_dump(), client_secret=secret)

    @get("/v1/credentials", permission="users.write")
    async def list_credentials(self, caller: Caller) -> Credentials:
        """List the organisation's credentials."""
        found = await self.desk.proofs.credentials(caller)
        return Credentials(credentials=[CredentialView.of(each) for each in found])

    @delete("/v1/credentials/{client_id}", permission="users.write", status=204)
    async def revoke_credential(self, caller: Caller, client_id: str) -> None:
        """Revoke a credential; its tokens are refused everywhere within a second."""
        desk = self.desk
        desk.person(caller)

        async def end() -> None:
            credential = await desk.proofs.credential(caller, client_id)
            if credential is None:
                raise NoSuchCredential("Your organisation has no such credential.", client_id=f"{client_id:.40}")
            if credential.revoked_at is None:
                async with desk.parts.work(caller) as work:
                    desk.end_credential(work, credential, at=desk.parts.clock())

        await desk.raced(end)

    async def by_client_secret(
        self, client_id: str, secret: str, scopes: tuple[str, ...]
    ) -> tuple[str, tuple[str, ...]]:
        """Return an access token of a program, and its scopes."""
        desk = self.desk
        wrong = WrongClient("The client id or its secret is wrong.")

        async def issue() -> tuple[str, tuple[str, ...]]:
            at = desk.parts.clock()
            found = await desk.proofs.credential_and_hash(client_id)
            if not matches(secret, found[1] if found else "") or found is None:
                raise wrong
            credential = found[0].used(at=at)
            caller = desk.as_user(credential.org_id, credential.user_id)
            member = await desk.people.member(caller, credential.user_id)
            if member is None:
                raise wrong
            member.active()
            narrowed = desk.narrowed(scopes, held=credential.scopes) if scopes else credential.scopes
            async with desk.parts.work(caller) as work:
                desk.proofs.save_credential(work, credential)
                work.emit(
                    UserAuthenticated(
                        aggregate_id=credential.id,
                        aggregate_version=credential.version,
                        method="client_credentials",
                    )
                )
            return await desk.access_token(member, proof=credential.id, scopes=narrowed, at=at), narrowed

        return await desk.raced(issue)
