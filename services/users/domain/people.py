"""Organisations, their members and who may change whom."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from isa_common import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied

NAME_LENGTH = 100
EMAIL_LENGTH = 254
PASSWORD_LENGTH = (10, 128)
INVITATION_LIFE = timedelta(days=7)
RESET_LIFE = timedelta(hours=1)
_LOCAL = re.compile(r"[^\s@<>()\[\],;:\\\"]{1,64}")
_LABEL = re.compile(r"[^\W_](?:[^\W_]|-){0,61}[^\W_]|[^\W_]")
_WELL_KNOWN = frozenset(
    [
        "1234567890",
        "12345678910",
        "0123456789",
        "0987654321",
        "1q2w3e4r5t",
        "qwertyuiop",
        "password12",
        "password123",
        "passw0rd123",
        "letmein123",
        "iloveyou123",
        "administrator",
        "changemechangeme",
        "qwerty12345",
        "qwerty123456",
        "abcdefghij",
        "1111111111",
        "0000000000",
        "welcome123",
        "adminadmin",
        "passwordpassword",
        "correcthorse",
    ]
)


class Role(StrEnum):
    """What a member may do; roles.yaml says which permissions each has."""

    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class EmailTaken(AlreadyExists):
    """An e-mail address is one user of one organisation."""


class LastOwner(FailedPrecondition):
    """An organisation always has an owner."""


class OnlyOwners(PermissionDenied):
    """Owners are made and unmade by owners."""


class Suspended(PermissionDenied):
    """A suspended member gets no token until the suspension is lifted."""


class AlreadyMember(AlreadyExists):
    """Nobody joins twice."""


class AlreadyInvited(AlreadyExists):
    """One open invitation an e-mail address."""


class InvitationGone(NotFound):
    """Accepted, taken back, expired, or never made: which of them is nobody's business."""


class ResetGone(NotFound):
    """Used, expired, or never asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Org:
    """An organisation. Its version counts what happened to it and to its membership."""

    id: str
    name: str
    version: int
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A user, who belongs to one organisation."""

    id: str
    org_id: str
    name: str
    email: str
    role: Role
    version: int
    created_at: datetime
    suspended_at: datetime | None = None

    def active(self) -> Member:
        """Return the member, or refuse one who is suspended."""
        if self.suspended_at is not None:
            raise Suspended("This account is suspended. Its organisation's owner can lift that.")
        return self

    def suspended(self, *, by: Role, at: datetime | None) -> Member:
        """Return the member suspended since a moment, or with None no longer; only owners touch owners."""
        if self.role is Role.OWNER and by is not Role.OWNER:
            raise OnlyOwners("Only an owner suspends an owner.")
        return replace(self, suspended_at=at, version=self.version + 1)

    def with_role(self, role: Role, *, by: Role, owners: int) -> Member:
        """Return the member with another role, or refuse: only owners touch owners, and one stays."""
        if Role.OWNER in (role, self.role) and by is not Role.OWNER:
            raise OnlyOwners("Only an owner makes or unmakes an owner.")
        if self.role is Role.OWNER and role is not Role.OWNER:
            keep_an_owner(owners)
        return replace(self, role=role, version=self.version + 1)

    def removed(self, *, by: Role, owners: int) -> Member:
        """Return what a removed member was last, or refuse: only owners remove owners, and one stays."""
        if self.role is Role.OWNER:
            if by is not Role.OWNER:
                raise OnlyOwners("Only an owner removes an owner.")
            keep_an_owner(owners)
        return replace(self, version=self.version + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """A promise that whoever holds its token, and gives a password, becomes a member."""

    id: str
    org_id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime

    def accepted(self, user_id: str, name: str, *, at: datetime) -> Member:
        """Return the member that it becomes, or refuse when it is too late."""
        if at >= self.expires_at:
            raise InvitationGone("This invitation is no longer good. Ask for a new one.")
        return Member(
            id=user_id,
            org_id=self.org_id,
            name=name,
            email=self.email,
            role=self.role,
            version=1,
            created_at=at,
        )


def keep_an_owner(owners: int) -> None:
    """Refuse to take away the last owner."""
    if owners <= 1:
        raise LastOwner("This is the last owner. Make another member an owner first.")


def may_invite(role: Role, *, by: Role) -> None:
    """Refuse an invitation to a role that the inviter may not give."""
    if role is Role.OWNER and by is not Role.OWNER:
        raise OnlyOwners("Only an owner invites an owner.")


def highest(roles: Iterable[str]) -> Role:
    """Return the highest of a caller's roles."""
    held = set(roles)
    return next((role for role in Role if role in held), Role.VIEWER)


def clean_name(text: str) -> str:
    """Return a name in one line; ValueError says what is wrong with it."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    if not name:
        raise ValueError("A name is needed.")
    if len(name) > NAME_LENGTH:
        raise ValueError(f"A name has at most {NAME_LENGTH} characters.")
    if any(unicodedata.category(each) in ("Cc", "Cf", "Co", "Cs", "Cn") for each in name):
        raise ValueError("A name has no control or invisible characters.")
    return name


def clean_email(text: str) -> str:
    """Return an e-mail address as people write it; ValueError says what is wrong with it."""
    email = unicodedata.normalize("NFC", text.strip())
    if len(email) > EMAIL_LENGTH:
        raise ValueError(f"An e-mail address has at most {EMAIL_LENGTH} characters.")
    local, at, domain = email.rpartition("@")
    labels = domain.split(".")
    if not at or not _LOCAL.fullmatch(local) or local.startswith(".") or local.endswith(".") or ".." in local:
        raise ValueError("This is not an e-mail address: write it like name@example.com.")
    if len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels) or labels[-1].isdigit():
        raise ValueError("This e-mail address has no domain: write it like name@example.com.")
    if any(unicodedata.category(each).startswith("C") for each in email):
        raise ValueError("An e-mail address has no control or invisible characters.")
    return email


def email_key(email: str) -> str:
    """Return what makes two spellings one address: case and Unicode form do not."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", email).casefold()).strip()


def typed(text: str) -> str:
    """Return a password in one Unicode form: what two keyboards make of one word is one password."""
    return unicodedata.normalize("NFKC", text)


def clean_password(text: str) -> str:
    """Return a new password in one Unicode form; ValueError says why it is too easy or too long."""
    password = typed(text)
    shortest, longest = PASSWORD_LENGTH
    if len(password) < shortest:
        raise ValueError(f"A password has at least {shortest} characters; a few words are easy to remember.")
    if len(password) > longest:
        raise ValueError(f"A password has at most {longest} characters.")
    if password.casefold() in _WELL_KNOWN or len(set(password)) < 4:
        raise ValueError("This password is one of the first that anybody would try. Choose another.")
    return password


def refuse_personal_password(password: str, email: str) -> None:
    """Refuse a password that is the e-mail address or its first part; ValueError."""
    key = email_key(email)
    if password.casefold() in (key, key.partition("@")[0]):
        raise ValueError("A password is not the e-mail address. Choose another.")
