"""What the routes of people and proofs take and give."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo

from kernel import View
from services.users.domain.people import (
    Member,
    Role,
    clean_email,
    clean_name,
    clean_password,
    refuse_personal_password,
)


def _fitting_password(password: str, info: ValidationInfo) -> str:
    cleaned = clean_password(password)
    if email := info.data.get("email"):
        refuse_personal_password(cleaned, email)
    return cleaned


Email = Annotated[str, Field(max_length=1024), AfterValidator(clean_email)]
Name = Annotated[str, Field(max_length=1024), AfterValidator(clean_name)]
NewPassword = Annotated[str, Field(max_length=4096), AfterValidator(_fitting_password)]
Given = Annotated[str, Field(min_length=1, max_length=4096)]
"""A password or token as somebody shows it: compared, and never judged."""


class Tokens(View):
    """Proof of who somebody is, as OAuth 2 has it."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 -- a name, not a secret
    expires_in: int
    """Seconds that the access token is good for."""
    refresh_token: str
    """Works once: it gives the next access token and the next refresh token."""
    scope: str = ""


class UserView(View):
    """A user, as members of the same organisation see them."""

    id: str
    org_id: str
    name: str
    email: str
    role: Role
    created_at: datetime
    suspended_at: datetime | None

    @staticmethod
    def of(member: Member) -> UserView:
        """Show a member."""
        return UserView.model_validate(member)


class LoggedIn(Tokens):
    """Tokens, and whose they are."""

    user: UserView


class OrgView(View):
    """An organisation."""

    id: str
    name: str
    created_at: datetime


class SignedUp(LoggedIn):
    """A new organisation, its owner, and the owner's tokens."""

    org: OrgView
