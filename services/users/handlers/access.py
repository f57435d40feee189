"""Signing up, logging in, staying in and leaving."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import Header, Request, Response

from isa.events import OrgCreated, OrgMemberAdded, UserAuthenticated, UserRegistered
from isa_common import Aborted, AlreadyExists
from kernel import Body, Caller, View, delete, get, log, post
from services.users.domain.access import (
    NoSuchSession,
    Session,
    SessionEnded,
    WrongPassword,
    clean_device,
    digest,
    new_token,
)
from services.users.domain.people import EmailTaken, Member, Org, Role, typed
from services.users.handlers.desk import Desk
from services.users.handlers.shapes import (
    Email,
    Given,
    LoggedIn,
    Name,
    NewPassword,
    OrgView,
    SignedUp,
    Tokens,
    UserView,
)

UserAgent = Annotated[str | None, Header(alias="user-agent", include_in_schema=False)]


class SignUp(Body):
    """A new organisation with its first user."""

    organisation: Name
    name: Name
    email: Email
    password: NewPassword


class Login(Body):
    """An e-mail address and its password."""

    email: Given
    password: Given


class Refresh(Body):
    """A refresh token that was not used yet."""

    refresh_token: Given


class SessionView(View):
    """A place where somebody is logged in."""

    id: str
    device: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    is_current: bool


class Sessions(View):
    """Where somebody is logged in."""

    sessions: list[SessionView]


def no_store(response: Response) -> None:
    """Keep tokens out of caches."""
    response.headers["cache-control"] = "no-store"


class AccessRoutes:
    """Signing up, logging in, staying in and leaving."""

    desk: Desk

    @post("/v1/signup", anonymous=True, status=201)
    async def sign_up(
        self, body: SignUp, request: Request, response: Response, user_agent: UserAgent = None
    ) -> SignedUp:
        """Make an organisation and its owner, and log the owner in."""
        no_store(response)
        desk, at = self.desk, self.desk.parts.clock()
        org = Org(id=desk.parts.new_id("org"), name=body.organisation, version=2, created_at=at)
        owner = Member(
            id=desk.parts.new_id("user"),
            org_id=org.id,
            name=body.name,
            email=body.email,
            role=Role.OWNER,
            version=1,
            created_at=at,
        )
        session = desk.new_session(owner, device=clean_device(user_agent), at=at)
        refresh_token = new_token("refresh")
        async with desk.attempt(request, kind="signup"):
            if await desk.people.login(body.email):
                raise EmailTaken("This e-mail address has an account. Log in, or reset its password.", field="email")
            password_hash = await desk.hash(body.password)
            try:
                async with desk.parts.work(desk.as_user(org.id, owner.id)) as work:
                    desk.people.add_org(work, org)
                    desk.people.add_member(work, owner, password_hash)
                    desk.proofs.add_session(work, session, digest(refresh_token))
                    work.emit(OrgCreated(aggregate_id=org.id, aggregate_version=1, owner_id=owner.id))
                    work.emit(
                        OrgMemberAdded(aggregate_id=org.id, aggregate_version=2, member_id=owner.id, role=owner.role)
                    )
                    work.emit(UserRegistered(aggregate_id=owner.id, aggregate_version=1, role=owner.role))
                    work.emit(UserAuthenticated(aggregate_id=session.id, aggregate_version=1, method="password"))
            except AlreadyExists:
                raise EmailTaken(
                    "This e-mail address has an account. Log in, or reset its password.", field="email"
                ) from None
        log.info("users.signed_up", org_id=org.id, user_id=owner.id)
        tokens = await self._tokens(owner, session, refresh_token, at=at)
        return SignedUp(**tokens.model_dump(), user=UserView.of(owner), org=OrgView.model_validate(org))

    @post("/v1/login", anonymous=True)
    async def log_in(self, body: Login, request: Request, response: Response, user_agent: UserAgent = None) -> LoggedIn:
        """Log in with e-mail address and password."""
        no_store(response)
        member, tokens = await self.by_password(request, body.email, body.password, device=user_agent)
        return LoggedIn(**tokens.model_dump(), user=UserView.of(member))

    @post("/v1/refresh", anonymous=True)
    async def refresh(self, body: Refresh, response: Response) -> Tokens:
        """Take a refresh token for the next pair. One that was used before ends its session: somebody copied it."""
        no_store(response)
        return await self.by_refresh_token(body.refresh_token)

    @post("/v1/logout", permission="users.read", status=204)
    async def log_out(self, caller: Caller) -> None:
        """End the session of this token."""
        await self.end_session(self.desk.person(caller), caller.session)

    @get("/v1/sessions", permission="users.read")
    async def list_sessions(self, caller: Caller) -> Sessions:
        """Say where the caller is logged in."""
        desk = self.desk
        found = await desk.proofs.sessions(desk.person(caller), at=desk.parts.clock())
        return Sessions(
            sessions=[
                SessionView(
                    id=session.id,
                    device=session.device,
                    created_at=session.created_at,
                    used_at=session.used_at,
                    expires_at=session.expires_at,
                    is_current=session.id == caller.session,
                )
                for session in found
            ]
        )

    @delete("/v1/sessions/{session_id}", permission="users.read", status=204)
    async def end_session(self, caller: Caller, session_id: str) -> None:
        """Log out one place; its tokens are refused everywhere within a second."""
        desk = self.desk
        desk.person(caller)

        async def end() -> None:
            session = await desk.proofs.session(caller, session_id)
            if session is None:
                raise NoSuchSession("You have no such session.", session_id=session_id)
            if session.revoked_at is None:
                async with desk.parts.work(caller) as work:
                    desk.end_session(work, session, at=desk.parts.clock())

        await desk.raced(end)

    @delete("/v1/sessions", permission="users.read", status=204)
    async def end_other_sessions(self, caller: Caller) -> None:
        """Log out everywhere but here."""
        await self.desk.end_sessions(self.desk.person(caller), but=caller.session)

    async def by_password(
        self, request: Request, email: str, password: str, *, device: str | None, scopes: tuple[str, ...] = ()
    ) -> tuple[Member, Tokens]:
        """Log in with a password, or refuse with one sentence whatever is wrong."""
        desk, at = self.desk, self.desk.parts.clock()
        wrong = WrongPassword("The e-mail address or the password is wrong.")
        async with desk.attempt(request, account=email) as attempt:
            login = await desk.people.login(email)
            shown = typed(password)
            if not await desk.is_right(login, shown, attempt) or login is None:
                raise wrong
            caller = desk.as_user(login.org_id, login.user_id)
            member = (await desk.member(caller)).active()
            narrowed = desk.narrowed(scopes, held=desk.permissions(member.role))
            session = desk.new_session(member, device=clean_device(device), scopes=narrowed, at=at)
            refresh_token = new_token("refresh")
            again = await desk.hash(shown) if desk.passwords.is_outdated(login.password_hash) else ""
            try:
                async with desk.parts.work(caller) as work:
                    if again:
                        desk.people.save_password(work, login, again, at=at)
                    else:
                        desk.people.hold_password(work, login)
                    desk.proofs.add_session(work, session, digest(refresh_token))
                    work.emit(UserAuthenticated(aggregate_id=session.id, aggregate_version=1, method="password"))
            except Aborted:  # the password was changed while it was compared
                raise wrong from None
        return member, await self._tokens(member, session, refresh_token, at=at)

    async def by_refresh_token(self, token: str) -> Tokens:
        """Rotate a refresh token; a second use revokes the session."""
        desk, used, new = self.desk, digest(token), new_token("refresh")

        async def rotate() -> Tokens:
            at = desk.parts.clock()
            presented = await desk.proofs.presented(used)
            if presented is None:
                raise SessionEnded("This session is over. Log in again.")
            session = presented.session
            caller = desk.as_user(session.org_id, session.user_id)
            if presented.was_used:
                if session.revoked_at is None:
                    async with desk.parts.work(caller) as work:
                        desk.end_session(work, session, at=at)
                    log.warning("users.refresh_token_reused", org_id=session.org_id, session_id=session.id)
                raise SessionEnded("This refresh token was used before, so its session was ended. Log in again.")
            refreshed = session.refreshed(at=at)
            member = await desk.people.member(caller, session.user_id)
            if member is None:
                raise SessionEnded("This session is over. Log in again.")
            member.active()
            async with desk.parts.work(caller) as work:
                desk.proofs.rotate(work, refreshed, used=used, new=digest(new))
                work.emit(
                    UserAuthenticated(aggregate_id=session.id, aggregate_version=refreshed.version, method="refresh")
                )
            return await self._tokens(member, refreshed, new, at=at)

        return await desk.raced(rotate)

    async def _tokens(self, member: Member, session: Session, refresh_token: str, *, at: datetime) -> Tokens:
        access = await self.desk.access_token(member, proof=session.id, scopes=session.scopes, at=at)
        return Tokens(
            access_token=access,
            expires_in=int(self.desk.issuer.life.total_seconds()),
            refresh_token=refresh_token,
            scope=" ".join(session.scopes),
        )
