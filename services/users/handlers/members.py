"""Organisations, members and invitations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import Field

from isa.events import (
    ControlChanged,
    OrgMemberAdded,
    OrgMemberRemoved,
    OrgMemberRoleChanged,
    UserAuthenticated,
    UserRegistered,
)
from isa_common import AlreadyExists, FailedPrecondition, NotFound
from kernel import Body, Caller, View, delete, get, patch, post, put
from kernel.http import InvalidRequest
from services.users.domain.access import clean_device, digest, new_token
from services.users.domain.people import (
    INVITATION_LIFE,
    AlreadyInvited,
    AlreadyMember,
    EmailTaken,
    Invitation,
    InvitationGone,
    Member,
    Org,
    Role,
    highest,
    may_invite,
    refuse_personal_password,
)
from services.users.handlers.access import UserAgent, no_store
from services.users.handlers.desk import Desk
from services.users.handlers.shapes import Email, Given, LoggedIn, Name, NewPassword, OrgView, UserView


class Invite(Body):
    """Who is to join, as what."""

    email: Email
    role: Role = Role.MEMBER


class Accept(Body):
    """The token of an invitation, and what the new member is called and logs in with."""

    token: Given
    name: Name
    password: NewPassword


class ChangeRole(Body):
    """What a member is to be."""

    role: Role


class Rename(Body):
    """What somebody is to be called."""

    name: Name


class InvitationView(View):
    """An open invitation."""

    id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime


class NewInvitation(InvitationView):
    """An invitation with its token, which is shown once: whoever has it, joins."""

    token: str
    sent_by: str
    """email, sink (a folder, on a set without mail) or nowhere: then hand the token over yourself."""


class Invitations(View):
    """Open invitations."""

    invitations: list[InvitationView]


class Members(View):
    """A page of members."""

    members: list[UserView]
    next: str | None = Field(description="Give it as `after` for the next page; absent on the last.")


class Me(View):
    """The caller, as the services see them."""

    user: UserView
    org: OrgView
    scopes: list[str]
    proof: str
    """Session or credential that the token belongs to."""


class MemberRoutes:
    """Organisations, members and invitations."""

    desk: Desk

    @get("/v1/me", permission="users.read")
    async def me(self, caller: Caller) -> Me:
        """Say who the caller is."""
        member = await self._member(caller, caller.user)
        org = await self._org(caller)
        return Me(
            user=UserView.of(member),
            org=OrgView.model_validate(org),
            scopes=sorted(caller.scopes),
            proof=caller.session,
        )

    @patch("/v1/me", permission="users.read")
    async def rename_me(self, caller: Caller, body: Rename) -> UserView:
        """Change what the caller is called."""
        self.desk.person(caller)
        async with self.desk.parts.work(caller) as work:
            self.desk.people.save_name(work, caller.user, body.name)
        return UserView.of(await self._member(caller, caller.user))

    @get("/v1/users/{user_id}", permission="users.read")
    async def get_user(self, caller: Caller, user_id: str) -> UserView:
        """Return a user of the caller's organisation."""
        return UserView.of(await self._member(caller, user_id))

    @get("/v1/org", permission="users.read")
    async def get_org(self, caller: Caller) -> OrgView:
        """Return the caller's organisation."""
        return OrgView.model_validate(await self._org(caller))

    @get("/v1/org/members", permission="users.read")
    async def list_members(
        self,
        caller: Caller,
        after: Annotated[str, Query(max_length=40)] = "",
        limit: Annotated[int, Query(ge=1, le=500)] = 100,
    ) -> Members:
        """List the members of the caller's organisation, in the order of their ids."""
        found = await self.desk.people.members(self.desk.acting(caller), after=after, limit=limit + 1)
        page = found[:limit]
        return Members(members=[UserView.of(each) for each in page], next=page[-1].id if len(found) > limit else None)

    @post("/v1/org/invitations", permission="users.admin", status=201)
    async def invite(self, caller: Caller, body: Invite, response: Response) -> NewInvitation:
        """Invite somebody. The token is returned and mailed; it works once, within seven days."""
        no_store(response)
        desk, at = self.desk, self.desk.parts.clock()
        may_invite(body.role, by=highest(caller.roles))
        login = await desk.people.login(body.email)
        if login and login.org_id == caller.org:
            raise AlreadyMember("This address is a member already.", field="email", user_id=login.user_id)
        await desk.count_invitation(caller)
        token = new_token("invitation")
        invitation = Invitation(
            id=desk.parts.new_id("invitation"),
            org_id=caller.org,
            email=body.email,
            role=body.role,
            invited_by=caller.user,
            created_at=at,
            expires_at=at + INVITATION_LIFE,
        )
        try:
            async with desk.parts.work(caller) as work:
                desk.people.add_invitation(work, invitation, digest(token))
        except AlreadyExists:
            raise AlreadyInvited(
                "This address has an open invitation. Take that back first, to send another.", field="email"
            ) from None
        org = await self._org(caller)
        sent_by = await desk.sent(
            to=invitation.email,
            subject=f"You are invited to {org.name}",
            text=f"You are invited to {org.name} as {invitation.role}.\n\nAccept within seven days with this token:\n"
            f"{desk.invitation_url}{token}\n\nIf you did not expect this, ignore it.\n",
        )
        return NewInvitation(**InvitationView.model_validate(invitation).model_dump(), token=token, sent_by=sent_by)

    @get("/v1/org/invitations", permission="users.admin")
    async def list_invitations(self, caller: Caller) -> Invitations:
        """List open invitations."""
        found = await self.desk.people.invitations(caller, at=self.desk.parts.clock())
        return Invitations(invitations=[InvitationView.model_validate(each) for each in found])

    @delete("/v1/org/invitations/{invitation_id}", permission="users.admin", status=204)
    async def take_back_invitation(self, caller: Caller, invitation_id: str) -> None:
        """Take an invitation back; its token no longer works."""
        if not any(each.id == invitation_id for each in (await self.list_invitations(caller)).invitations):
            raise InvitationGone("There is no such open invitation.", invitation_id=invitation_id)
        async with self.desk.parts.work(caller) as work:
            self.desk.people.end_invitation(work, invitation_id)

    @post("/v1/invitations/accept", anonymous=True, status=201)
    async def accept(
        self, body: Accept, request: Request, response: Response, user_agent: UserAgent = None
    ) -> LoggedIn:
        """Join an organisation with the token of an invitation, and log in."""
        no_store(response)
        desk = self.desk
        refresh_token, password_hash = new_token("refresh"), ""

        async def join() -> LoggedIn:
            nonlocal password_hash
            at = desk.parts.clock()
            invitation = await desk.people.invitation(digest(body.token))
            if invitation is None:
                raise InvitationGone("This invitation is no longer good. Ask for a new one.", field="token")
            member = invitation.accepted(desk.parts.new_id("user"), body.name, at=at)
            _refuse_personal(body.password, member.email)
            caller = desk.as_user(member.org_id, member.id)
            org = await self._org(caller)
            session = desk.new_session(member, device=clean_device(user_agent), at=at)
            password_hash = password_hash or await desk.hash(body.password)
            try:
                async with desk.parts.work(caller) as work:
                    desk.people.end_invitation(work, invitation.id)
                    desk.people.count_change(work, org)
                    desk.people.add_member(work, member, password_hash)
                    desk.proofs.add_session(work, session, digest(refresh_token))
                    work.emit(
                        OrgMemberAdded(
                            aggregate_id=org.id,
                            aggregate_version=org.version + 1,
                            member_id=member.id,
                            role=member.role,
                        )
                    )
                    work.emit(UserRegistered(aggregate_id=member.id, aggregate_version=1, role=member.role))
                    work.emit(UserAuthenticated(aggregate_id=session.id, aggregate_version=1, method="password"))
            except AlreadyExists:
                raise EmailTaken("This e-mail address has an account in another organisation.", field="token") from None
            return LoggedIn(
                access_token=await desk.access_token(member, proof=session.id, scopes=(), at=at),
                expires_in=int(desk.issuer.life.total_seconds()),
                refresh_token=refresh_token,
                user=UserView.of(member),
            )

        async with desk.attempt(request, kind="accept"):
            return await desk.raced(join)

    @patch("/v1/org/members/{user_id}", permission="users.admin")
    async def change_role(self, caller: Caller, user_id: str, body: ChangeRole) -> UserView:
        """Give a member another role; tokens with the old one are refused everywhere within a second."""
        desk = self.desk
        desk.person(caller)

        async def change() -> Member:
            at = desk.parts.clock()
            org, before = await self._org(caller), await self._member(caller, user_id)
            if before.role is body.role:
                return before
            acting = await self._role_of(caller)
            after = before.with_role(body.role, by=acting, owners=await desk.people.owners(caller))
            async with desk.parts.work(caller) as work:
                desk.people.count_change(work, org)
                desk.people.save(work, after)
                work.emit(
                    OrgMemberRoleChanged(
                        aggregate_id=org.id,
                        aggregate_version=org.version + 1,
                        member_id=after.id,
                        role=after.role,
                        previous_role=before.role,
                    )
                )
                work.emit(
                    ControlChanged(
                        aggregate_id=after.id,
                        aggregate_version=after.version,
                        kind="user",
                        state="suspended" if after.suspended_at else "active",
                        not_before=at,
                    )
                )
            return after

        return UserView.of(await desk.raced(change))

    @put("/v1/org/members/{user_id}/suspension", permission="users.admin")
    async def suspend(self, caller: Caller, user_id: str) -> UserView:
        """Refuse a member's tokens and log-ins everywhere within a second, and keep the account."""
        return await self._suspend(caller, user_id, at=self.desk.parts.clock())

    @delete("/v1/org/members/{user_id}/suspension", permission="users.admin")
    async def lift_suspension(self, caller: Caller, user_id: str) -> UserView:
        """Let a suspended member in again."""
        return await self._suspend(caller, user_id, at=None)

    @delete("/v1/org/members/{user_id}", permission="users.admin", status=204)
    async def remove_member(self, caller: Caller, user_id: str) -> None:
        """Remove a member with all that proves who they are; the e-mail address is free again."""
        self.desk.person(caller)
        await self._remove(caller, user_id)

    @post("/v1/org/leave", permission="users.read", status=204)
    async def leave(self, caller: Caller) -> None:
        """Leave the organisation, which deletes the caller's account. The last owner cannot."""
        self.desk.person(caller)
        await self._remove(caller, caller.user)

    async def _suspend(self, caller: Caller, user_id: str, *, at: datetime | None) -> UserView:
        desk = self.desk
        if desk.person(caller).user == user_id:
            raise FailedPrecondition("Nobody suspends themselves: ask another owner or admin.", field="user_id")

        async def suspend() -> Member:
            before = await self._member(caller, user_id)
            if (before.suspended_at is None) is (at is None):
                return before
            after = before.suspended(by=await self._role_of(caller), at=at)
            state = "active" if at is None else "suspended"
            async with desk.parts.work(caller) as work:
                desk.people.save(work, after)
                work.emit(
                    ControlChanged(aggregate_id=after.id, aggregate_version=after.version, kind="user", state=state)
                )
            return after

        return UserView.of(await desk.raced(suspend))

    async def _remove(self, caller: Caller, user_id: str) -> None:
        desk = self.desk

        async def remove() -> None:
            org, before = await self._org(caller), await self._member(caller, user_id)
            acting = await self._role_of(caller)
            gone = before.removed(by=acting, owners=await desk.people.owners(caller))
            async with desk.parts.work(caller) as work:
                desk.people.count_change(work, org)
                desk.people.remove(work, gone)
                work.emit(OrgMemberRemoved(aggregate_id=org.id, aggregate_version=org.version + 1, member_id=gone.id))
                work.emit(
                    ControlChanged(aggregate_id=gone.id, aggregate_version=gone.version, kind="user", state="deleted")
                )

        await desk.raced(remove)

    async def _org(self, caller: Caller) -> Org:
        org = await self.desk.people.org(self.desk.acting(caller))
        if org is None:
            raise NotFound("There is no such organisation.")
        return org

    async def _member(self, caller: Caller, user_id: str) -> Member:
        member = await self.desk.people.member(self.desk.acting(caller), user_id)
        if member is None:
            raise NotFound("Your organisation has no such user.", user_id=f"{user_id:.40}")
        return member

    async def _role_of(self, caller: Caller) -> Role:
        """Return the caller's role as it is now, which counts more than what the token says."""
        return (await self._member(caller, caller.user)).role


def _refuse_personal(password: str, email: str) -> None:
    try:
        refuse_personal_password(password, email)
    except ValueError as error:
        raise InvalidRequest([{"field": "password", "message": str(error)}]) from None
