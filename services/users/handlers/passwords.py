"""Changing a password, and resetting a forgotten one."""

from __future__ import annotations

from datetime import timedelta

from fastapi import Request

from isa_common import InvalidArgument
from kernel import Body, Caller, View, Work, log, post
from services.users.domain.access import Limit, WrongPassword, digest, new_token
from services.users.domain.people import RESET_LIFE, ResetGone, refuse_personal_password, typed
from services.users.handlers.desk import Desk
from services.users.handlers.shapes import Email, Given, NewPassword
from services.users.repository.people import Login

RESETS = Limit(attempts=5, window=timedelta(hours=1))


class ChangePassword(Body):
    """The password as it is, and as it is to be."""

    current_password: Given
    new_password: NewPassword


class ForgotPassword(Body):
    """Whose password is forgotten."""

    email: Email


class ResetPassword(Body):
    """The token of a letter, and the new password."""

    token: Given
    password: NewPassword


class Asked(View):
    """What is said whether or not there is such an account."""

    message: str = "If this address has an account, a letter with a token is on its way. It is good for an hour."


def fitting(password: str, login: Login, *, field: str) -> str:
    """Refuse a new password that is the e-mail address."""
    try:
        refuse_personal_password(password, login.email_key)
    except ValueError as error:
        raise InvalidArgument(str(error), field=field) from None
    return password


class PasswordRoutes:
    """Changing a password, and resetting a forgotten one."""

    desk: Desk

    @post("/v1/password", permission="users.read", status=204)
    async def change_password(self, caller: Caller, body: ChangePassword, request: Request) -> None:
        """Change the caller's password. Every other session ends; this one goes on."""
        desk = self.desk
        desk.person(caller)
        login = await desk.people.login_of(caller)
        async with desk.attempt(request, account=login.email_key if login else caller.user) as attempt:
            if not await desk.is_right(login, typed(body.current_password), attempt) or login is None:
                raise WrongPassword("The current password is wrong.", field="current_password")
        new = await desk.hash(fitting(body.new_password, login, field="new_password"))

        async def change(work: Work) -> None:
            desk.people.save_password(work, login, new, at=desk.parts.clock())

        await desk.end_sessions(caller, but=caller.session, after=change)
        log.info("users.password_changed", org_id=caller.org, user_id=caller.user)

    @post("/v1/password/forgotten", anonymous=True, status=202)
    async def forgot_password(self, body: ForgotPassword, request: Request) -> Asked:
        """Ask for a letter with a token that resets a password. The answer never tells whether there is an account."""
        desk = self.desk
        await desk.count(request, account=body.email, kind="reset", limit=RESETS)
        desk.in_background(self._send_reset(body.email))
        return Asked()

    async def _send_reset(self, email: str) -> None:
        desk = self.desk
        login = await desk.people.login(email)
        if login is None:
            return
        caller = desk.as_user(login.org_id, login.user_id)
        member = await desk.people.member(caller, login.user_id)
        if member is None:
            return
        token = new_token("reset")
        async with desk.parts.work(caller) as work:
            desk.people.add_reset(work, login, digest(token), expires_at=desk.parts.clock() + RESET_LIFE)
        sent_by = await desk.mail.send(
            to=member.email,
            subject="Reset your password",
            text=f"Somebody, hopefully you, asked to reset your password.\n\nWithin an hour, use this token:\n"
            f"{desk.reset_url}{token}\n\nIf it was not you, ignore this letter: nothing has changed.\n",
        )
        log.info("users.reset_sent", org_id=login.org_id, user_id=login.user_id, sent_by=sent_by)

    @post("/v1/password/reset", anonymous=True, status=204)
    async def reset_password(self, body: ResetPassword, request: Request) -> None:
        """Set a new password with the token of a letter. Every session ends."""
        desk, token_hash = self.desk, digest(body.token)
        gone = ResetGone("This token is no longer good. Ask for a new letter.", field="token")
        async with desk.attempt(request, kind="reset-token"):
            login = await desk.people.reset(token_hash, at=desk.parts.clock())
            if login is None:
                raise gone
        fitting(body.password, login, field="password")
        new = await desk.hash(body.password)
        caller = desk.as_user(login.org_id, login.user_id)

        async def change(work: Work) -> None:
            at = desk.parts.clock()
            current = await desk.people.reset(token_hash, at=at)
            if current is None:  # used, in the meantime
                raise gone
            desk.people.end_reset(work, token_hash)
            desk.people.save_password(work, current, new, at=at)

        await desk.end_sessions(caller, after=change)
        await desk.forgive(login.email_key)
        log.info("users.password_reset", org_id=login.org_id, user_id=login.user_id)
