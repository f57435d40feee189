"""People: what a name, an e-mail address and a password may be, and who may change whom."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.users.domain.people import (
    Invitation,
    InvitationGone,
    LastOwner,
    Member,
    OnlyOwners,
    Role,
    clean_email,
    clean_name,
    clean_password,
    email_key,
    highest,
    may_invite,
    refuse_personal_password,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def member(role: Role = Role.MEMBER) -> Member:
    return Member(id="user-a", org_id="org-a", name="Ada", email="ada@a.example", role=role, version=1, created_at=NOW)


@pytest.mark.parametrize(
    "text",
    [
        "ada@example.com",
        "a.b+c@sub.example.co",
        "ünï@bücher.example",
        "  ada@example.com ",
        "a@b.cd",
        "o'hara@example.com",
    ],
)
def test_an_email_address_is_taken_as_people_write_it(text: str) -> None:
    assert clean_email(text) == text.strip()


@pytest.mark.parametrize(
    "text",
    [
        "", "ada", "ada@", "@example.com", "ada@example", "ada@@example.com", "a da@example.com", "ada@exam ple.com",
        ".ada@example.com", "ada.@example.com", "a..b@example.com", "ada@-example.com", "ada@example-.com",
        "ada@127.0.0.1", "ada@example.com\nbcc: x@y.zz", "ada@exa_mple.com", "x" * 65 + "@example.com",
        "a@" + "b" * 250 + ".com", "ada\u200b@example.com",
    ],
)  # fmt: skip
def test_what_is_no_email_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="e-mail"):
        clean_email(text)


def test_case_and_unicode_form_make_no_second_address() -> None:
    assert email_key("Ada@Example.COM") == email_key("ada@example.com")
    assert email_key("stra\u00dfe@example.com") == email_key("STRASSE@example.com")
    assert email_key("\uff46ull@example.com") == email_key("full@example.com")


@given(st.text(max_size=80))
def test_a_key_is_the_key_of_itself(text: str) -> None:
    assert email_key(email_key(text)) == email_key(text)


def test_a_name_is_one_line_without_invisible_characters() -> None:
    assert clean_name("  Ada \t Lovelace ") == "Ada Lovelace"
    for bad in ("", "   ", "x" * 101, "A\u202eda", "A\x00da"):
        with pytest.raises(ValueError, match="name"):
            clean_name(bad)


@pytest.mark.parametrize("text", ["short", "1234567890", "aaaaaaaaaaaa", "PASSWORD123", "x" * 129, ""])
def test_a_password_that_is_too_easy_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="password"):
        clean_password(text)


def test_a_password_has_one_unicode_form() -> None:
    assert clean_password("cafe\u0301 au lait") == clean_password("café au lait")


@pytest.mark.parametrize("text", ["ada.lovelace@a.example", "Ada.Lovelace"])
def test_a_password_is_not_the_email_address(text: str) -> None:
    with pytest.raises(ValueError, match="e-mail"):
        refuse_personal_password(text, "ada.lovelace@a.example")


def test_the_last_owner_stays() -> None:
    owner = member(Role.OWNER)

    with pytest.raises(LastOwner):
        owner.removed(by=Role.OWNER, owners=1)
    with pytest.raises(LastOwner):
        owner.with_role(Role.MEMBER, by=Role.OWNER, owners=1)

    assert owner.removed(by=Role.OWNER, owners=2).version == 2
    assert owner.with_role(Role.ADMIN, by=Role.OWNER, owners=2).role is Role.ADMIN


@pytest.mark.parametrize("by", [Role.ADMIN, Role.MEMBER, Role.VIEWER])
def test_only_owners_make_unmake_and_remove_owners(by: Role) -> None:
    with pytest.raises(OnlyOwners):
        member().with_role(Role.OWNER, by=by, owners=1)
    with pytest.raises(OnlyOwners):
        member(Role.OWNER).with_role(Role.MEMBER, by=by, owners=2)
    with pytest.raises(OnlyOwners):
        member(Role.OWNER).removed(by=by, owners=2)
    with pytest.raises(OnlyOwners):
        may_invite(Role.OWNER, by=by)


def test_a_change_of_role_is_a_new_version() -> None:
    changed = member().with_role(Role.VIEWER, by=Role.ADMIN, owners=1)

    assert (changed.role, changed.version) == (Role.VIEWER, 2)


def test_an_invitation_is_good_until_it_ends() -> None:
    invitation = Invitation(
        id="invitation-a",
        org_id="org-a",
        email="bob@a.example",
        role=Role.VIEWER,
        invited_by="user-a",
        created_at=NOW,
        expires_at=NOW + timedelta(days=7),
    )

    joined = invitation.accepted("user-b", "Bob", at=NOW + timedelta(days=6))

    assert (joined.org_id, joined.email, joined.role, joined.version) == ("org-a", "bob@a.example", Role.VIEWER, 1)
    with pytest.raises(InvitationGone):
        invitation.accepted("user-b", "Bob", at=NOW + timedelta(days=7))


def test_the_highest_role_counts() -> None:
    assert highest(["viewer", "owner"]) is Role.OWNER
    assert highest([]) is Role.VIEWER
    assert highest(["no-such-role"]) is Role.VIEWER
