"""The desk: what counts as an attempt, how many passwords are compared at once, and races."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.requests import Request

from isa_common import Aborted, ResourceExhausted, Unavailable
from kernel import Caller, InvalidArgument, PermissionDenied
from services.users.domain.access import Limit, TooManyAttempts, WrongPassword
from services.users.domain.keys import Passwords
from services.users.handlers.desk import RACES, Desk, Limits

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
LIMIT = Limit(attempts=3, window=timedelta(minutes=15))


class FakeThrottles:
    """Counts in memory."""

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}

    async def check(self, limits: Mapping[str, Limit], *, at: datetime) -> set[str]:
        for subject, limit in limits.items():
            limit.check(self.attempts.get(subject, 0) + 1, at + limit.window, at=at)
        return limits.keys() & self.attempts.keys()

    async def count(self, limits: Mapping[str, Limit], *, at: datetime, refuse: bool) -> None:
        for subject in limits:
            self.attempts[subject] = self.attempts.get(subject, 0) + 1

    async def forget(self, subject: str) -> None:
        del self.attempts[subject]


class SlowPasswords:
    """Takes its time, and notes how many compare at once."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def verify(self, kept: str | None, password: str) -> bool:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self._lock:
            self.now -= 1
        return password == "right"


def desk(**changes: Any) -> Desk:
    async def master() -> bytes:
        return bytes(32)

    nothing: Any = None
    made: dict[str, Any] = {
        "parts": SimpleNamespace(name="users", clock=lambda: NOW),
        "people": nothing,
        "proofs": nothing,
        "throttles": FakeThrottles(),
        "keyring": nothing,
        "preferences": nothing,
        "mail": nothing,
        "issuer": nothing,
        "passwords": cast(Passwords, SlowPasswords()),
        "limits": Limits(account=LIMIT, address=Limit(attempts=100, window=LIMIT.window)),
        "note_attempt": lambda kind, outcome: None,
        "master": master,
        "trusted_proxies": frozenset({ip_network("10.0.0.1"), ip_network("10.0.0.2"), ip_network("172.16.0.0/12")}),
        "session_life": timedelta(days=30),
        "hashes_at_once": 2,
        "hashes_waiting": 50,
        "reset_url": "",
        "invitation_url": "",
    }
    return Desk(**made | changes)


def request(peer: str = "192.0.2.7", forwarded: str = "") -> Request:
    headers = [(b"x-forwarded-for", forwarded.encode())] if forwarded else []
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers, "client": (peer, 1)})


async def fail(desk: Desk, error: Exception) -> None:
    with pytest.raises(type(error)):
        async with desk.attempt(request(), account="ada@a.example"):
            raise error


async def test_a_wrong_password_is_counted_and_the_fourth_is_not_compared() -> None:
    room = desk()
    for _ in range(3):
        await fail(room, WrongPassword("no"))

    with pytest.raises(TooManyAttempts):
        async with room.attempt(request(), account="ADA@a.example"):
            pytest.fail("must not be tried")


async def test_our_own_failure_is_nobodys_attempt() -> None:
    room = desk()
    for _ in range(10):
        await fail(room, Unavailable("the database is away"))

    assert cast(FakeThrottles, room.throttles).attempts == {}


async def test_success_forgets_the_account_and_not_the_address() -> None:
    room = desk()
    await fail(room, WrongPassword("no"))

    async with room.attempt(request(), account="ada@a.example"):
        pass

    assert [key.split(":")[:2] for key in cast(FakeThrottles, room.throttles).attempts] == [["login", "by"]]


async def test_nobodys_address_or_account_is_kept() -> None:
    room = desk()
    await fail(room, WrongPassword("no"))

    assert not any("ada" in key or "192" in key for key in cast(FakeThrottles, room.throttles).attempts)


async def test_passwords_are_compared_two_at_once_and_off_the_loop() -> None:
    room = desk()
    passwords = cast(SlowPasswords, room.passwords)

    async with room.attempt(request()) as attempt:
        answers = await asyncio.gather(*(room.is_right(None, word, attempt) for word in ("right", "wrong") * 6))

    assert answers == [True, False] * 6
    assert passwords.most == 2


async def test_guesses_that_wait_are_not_compared_once_the_share_is_used() -> None:
    room = desk(hashes_at_once=1)
    compared = 0

    async def guess() -> None:
        nonlocal compared
        async with room.attempt(request(), account="ada@a.example") as attempt:
            await room.is_right(None, "wrong", attempt)
            compared += 1
            raise WrongPassword("no")

    await asyncio.gather(*(guess() for _ in range(12)), return_exceptions=True)

    assert 3 <= compared <= 4


async def test_too_many_who_wait_are_sent_away() -> None:
    room = desk(hashes_waiting=3)

    async with room.attempt(request()) as attempt:
        answers = await asyncio.gather(
            *(room.is_right(None, "right", attempt) for _ in range(6)), return_exceptions=True
        )

    assert answers[:3] == [True] * 3
    assert all(isinstance(answer, ResourceExhausted) and answer.retry_after for answer in answers[3:])


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", "", "192.0.2.7"),
        ("192.0.2.7", "198.51.100.1", "192.0.2.7"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "203.0.113.9, 198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "", "10.0.0.1"),
        ("172.20.3.4", "198.51.100.1", "198.51.100.1"),
        ("2001:db8::7", "198.51.100.1", "2001:db8::7"),
        ("unknown", "198.51.100.1", "unknown"),
    ],
)
def test_only_a_trusted_proxy_says_who_calls(peer: str, forwarded: str, address: str) -> None:
    assert desk().address(request(peer, forwarded)) == address


def test_a_program_is_no_person() -> None:
    person, program = Caller(org="org-a", session="session-a"), Caller(org="org-a", session="client-a")

    assert desk().person(person) is person
    with pytest.raises(PermissionDenied):
        desk().person(program)
    with pytest.raises(PermissionDenied):
        desk().person(Caller(org="org-a", workload="tasks"))
    with pytest.raises(InvalidArgument):
        desk().acting(Caller(workload="tasks"))


async def test_a_lost_race_is_run_again_and_given_up_at_last() -> None:
    tries = 0

    async def change() -> str:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise Aborted("lost")
        return "done"

    async def hopeless() -> None:
        nonlocal tries
        tries += 1
        raise Aborted("lost")

    assert await desk().raced(change) == "done"
    tries = 0
    with pytest.raises(Aborted):
        await desk().raced(hopeless)
    assert tries == RACES
