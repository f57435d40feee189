"""The keyring: who makes the first key, what rotation publishes and when it signs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from isa_common import AlreadyExists, Result, Sql, Statement, Unavailable
from services.users.domain.keys import Algorithm
from services.users.repository.keys import COLUMNS, REFRESH, Keyring

MASTER = bytes(range(32))
LIFE = timedelta(minutes=10)
NAMES = COLUMNS.split(", ")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 21, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


class FakeTable:
    """The table signing_keys, as far as a keyring uses it; a generation is there once."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    async def query(self, sql: str, *params: object) -> list[dict[str, Any]]:
        return sorted(self.rows, key=lambda row: row["generation"])

    async def execute_batch(self, statements: Sequence[Statement]) -> list[Result]:
        insert, update = statements
        new = dict(zip(NAMES, (*insert.params, None), strict=True))
        if any(row["generation"] == new["generation"] for row in self.rows):
            raise AlreadyExists("Taken.")
        kid, end = update.params
        assert isinstance(end, datetime)
        for row in self.rows:
            row["expires_at"] = min(row["expires_at"] or end, end)
        assert kid == new["kid"]
        self.rows.append(new)
        return [Result(1), Result(len(self.rows) - 1)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def table() -> FakeTable:
    return FakeTable()


def keyring(table: FakeTable, clock: Clock, algorithm: Algorithm = "EdDSA") -> Keyring:
    async def master() -> bytes:
        return MASTER

    return Keyring(
        cast(Sql, table),
        master=master,
        clock=clock,
        algorithm=algorithm,
        token_life=LIFE,
        publish_before=timedelta(minutes=2),
    )


async def kids(ring: Keyring) -> list[str]:
    keys = (await ring.published())["keys"]
    return [key["kid"] for key in cast(list[dict[str, str]], keys)]


async def test_the_first_key_is_made_when_it_is_wanted_and_signs_at_once(table: FakeTable, clock: Clock) -> None:
    ring = keyring(table, clock)

    key, private = await ring.signer()

    assert await kids(ring) == [key.kid]
    assert b"PRIVATE KEY" in private
    assert b"PRIVATE KEY" not in table.rows[0]["sealed_private"]
    assert (await keyring(table, clock).signer())[0] == key


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_until_its_tokens_end(
    table: FakeTable, clock: Clock
) -> None:
    ring, other_replica = keyring(table, clock), keyring(table, clock)
    old, _ = await ring.signer()
    await other_replica.signer()

    new = await ring.rotate()

    clock.now += timedelta(seconds=2)
    assert await kids(other_replica) == [old.kid, new.kid]
    assert (await ring.signer())[0].kid == old.kid
    clock.now += timedelta(minutes=2)
    assert (await ring.signer())[0].kid == new.kid
    assert (await other_replica.signer())[0].kid == new.kid
    clock.now += LIFE - timedelta(seconds=5)
    assert await kids(ring) == [old.kid, new.kid]
    clock.now += REFRESH + timedelta(seconds=10)
    assert await kids(ring) == [new.kid]


async def test_a_compromised_key_is_withdrawn_at_once(table: FakeTable, clock: Clock) -> None:
    ring = keyring(table, clock)
    old, _ = await ring.signer()

    new = await ring.rotate(compromised=True)

    assert await kids(ring) == [new.kid]
    assert (await ring.signer())[0].kid == new.kid != old.kid


async def test_two_replicas_that_make_a_key_at_once_make_one(table: FakeTable, clock: Clock) -> None:
    late, early = keyring(table, clock), keyring(table, clock)

    class Racing(FakeTable):
        """Lets somebody else be first, once."""

        async def execute_batch(self, statements: Sequence[Statement]) -> list[Result]:
            if not table.rows:
                await early.rotate(at_once=True)
            return await table.execute_batch(statements)

        async def query(self, sql: str, *params: object) -> list[dict[str, Any]]:
            return await table.query(sql, *params)

    late._sql = cast(Sql, Racing())

    key, _ = await late.signer()

    assert [row["kid"] for row in table.rows] == [key.kid]


async def test_while_the_database_is_away_the_known_keys_go_on_for_a_while(table: FakeTable, clock: Clock) -> None:
    ring = keyring(table, clock)
    key, _ = await ring.signer()

    async def away(sql: str, *params: object) -> list[dict[str, Any]]:
        raise Unavailable("Not reached.")

    table.query = away  # type: ignore[method-assign]  # an outage
    clock.now += timedelta(minutes=9)
    assert await kids(ring) == [key.kid]
    assert (await ring.signer())[0] == key
    clock.now += timedelta(minutes=2)
    with pytest.raises(Unavailable):
        await ring.published()


async def test_another_algorithm_makes_another_key(table: FakeTable, clock: Clock) -> None:
    old, _ = await keyring(table, clock).signer()

    new, _ = await keyring(table, clock, "RS256").signer()

    assert (old.algorithm, new.algorithm) == ("EdDSA", "RS256")
    assert await kids(keyring(table, clock)) == [old.kid, new.kid]
