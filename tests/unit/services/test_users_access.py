"""Sessions, credentials, scopes and attempts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from isa_common import InvalidArgument
from kernel.caller import grants
from services.users.domain.access import (
    Credential,
    Limit,
    Session,
    SessionEnded,
    TooManyAttempts,
    WrongClient,
    clean_device,
    digest,
    matches,
    narrow,
    new_token,
)

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def session() -> Session:
    return Session(
        id="session-a",
        org_id="org-a",
        user_id="user-a",
        scopes=(),
        device="curl",
        version=1,
        created_at=NOW,
        used_at=NOW,
        expires_at=NOW + timedelta(days=30),
    )


def credential() -> Credential:
    return Credential(
        id="client-a",
        org_id="org-a",
        user_id="user-a",
        name="Importer",
        scopes=("tasks.read",),
        version=0,
        created_at=NOW,
    )


def test_each_token_of_a_session_is_a_new_version() -> None:
    later = session().refreshed(at=NOW + timedelta(hours=1))

    assert (later.version, later.used_at) == (2, NOW + timedelta(hours=1))


def test_a_session_that_is_over_gives_no_token() -> None:
    with pytest.raises(SessionEnded):
        session().refreshed(at=NOW + timedelta(days=30))
    with pytest.raises(SessionEnded):
        session().revoked(at=NOW).refreshed(at=NOW)


def test_ending_a_session_twice_changes_nothing() -> None:
    ended = session().revoked(at=NOW)

    assert ended.revoked(at=NOW + timedelta(hours=1)) is ended


def test_a_session_has_a_live_token_for_as_long_as_one_lives() -> None:
    life = timedelta(minutes=10)

    assert session().may_have_a_live_token(life, at=NOW + timedelta(minutes=9))
    assert not session().may_have_a_live_token(life, at=NOW + timedelta(minutes=10))
    assert not session().revoked(at=NOW).may_have_a_live_token(life, at=NOW)


def test_a_revoked_credential_gives_no_token() -> None:
    assert credential().used(at=NOW).version == 1
    with pytest.raises(WrongClient):
        credential().revoked(at=NOW).used(at=NOW)


def test_a_secret_is_known_by_its_digest_only() -> None:
    token = new_token("refresh")

    assert token.startswith("isa_refresh_")
    assert token != new_token("refresh")
    assert token not in digest(token)
    assert matches(token, digest(token))
    assert not matches(token + "x", digest(token))
    assert not matches(token, "")


@pytest.mark.parametrize(
    ("wanted", "held", "got"),
    [
        (["tasks.read"], ["tasks.write"], ("tasks.read",)),
        (["tasks.write", "tasks.read", "tasks.read"], ["*.admin"], ("tasks.read", "tasks.write")),
        ([], ["tasks.read"], ()),
    ],
)
def test_scopes_narrow(wanted: list[str], held: list[str], got: tuple[str, ...]) -> None:
    assert narrow(wanted, held, grants=grants) == got


@pytest.mark.parametrize("wanted", ["tasks.admin", "users.read", "tasks", "tasks.", ".read", "*.read", "tasks.fly", ""])
def test_scopes_never_widen(wanted: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        narrow([wanted], ["tasks.write"], grants=grants)

    assert caught.value.field == "scopes"


def test_one_attempt_too_many_says_how_long_to_wait() -> None:
    limit = Limit(attempts=3, window=timedelta(minutes=15))
    ends_at = NOW + timedelta(minutes=4)

    limit.check(3, ends_at, at=NOW)
    with pytest.raises(TooManyAttempts) as caught:
        limit.check(4, ends_at, at=NOW)

    assert caught.value.retry_after == timedelta(minutes=4)


def test_a_device_is_short_and_printable() -> None:
    assert clean_device(None) == ""
    assert clean_device("curl/8\x1b[31m\r\n") == "curl/8[31m"
    assert len(clean_device("x" * 500)) == 120
