"""`isa migrate` on a real database: it says what it did, repeats without harm, and two at once take turns."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from cli import migrate
from tests.conftest import Stack


@pytest.mark.ac("platform:R3.5")
def test_every_room_is_at_its_newest_schema(stack: Stack) -> None:
    lines = stack.isa("migrate", "status").stdout.splitlines()

    assert {line.split()[0] for line in lines} >= set(migrate.rooms())
    assert all(line.endswith("up to date") for line in lines), lines


async def test_two_at_once_take_turns_and_change_nothing(stack: Stack) -> None:
    head = migrate.rooms()["users"].head

    done = await asyncio.gather(*(asyncio.to_thread(stack.isa, "migrate", "users") for _ in range(2)))

    assert [each.stdout.split(maxsplit=1)[1].strip() for each in done] == [f"{head}, nothing to do"] * 2


def test_an_unknown_room_is_named(stack: Stack) -> None:
    done = stack.isa("migrate", "plums", check=False)

    assert done.returncode != 0
    assert "plums has no migrations" in " ".join(done.stderr.split())


@pytest.mark.parametrize("room", sorted(migrate.rooms()))
def test_business_tables_are_bound_to_the_organisation_of_the_transaction(stack: Stack, room: str) -> None:
    with psycopg.connect(
        host="127.0.0.1",
        port=stack.layout.engine_port("postgres"),
        user=f"{room}_owner",
        password=stack.secrets[f"postgres-{room}-owner"],
        dbname=room,
    ) as connection:
        found = connection.execute(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity FROM pg_class c"
            " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'org_id'"
            " WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        readable = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
            " AND relname IN ('throttles', 'signing_keys') AND has_table_privilege(%s, oid, 'SELECT')",
            (f"{room}_app",),
        ).fetchall()

    open_to_all = sorted(name for name, is_bound in found if not is_bound)
    assert open_to_all == []
    assert readable == []
