"""Who did what is kept, found, and shows when somebody changes it; on the real parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from unittest.mock import patch

import httpx
import psycopg
import pytest

from cli import audit
from tests.conftest import Organisation, SignUp, Stack

Rows = list[dict[str, Any]]


async def until(check: Callable[[], Awaitable[Any]], *, seconds: float = 20.0) -> Any:
    """Return what a check gives once it gives something."""
    end = time.monotonic() + seconds
    while True:
        if found := await check():
            return found
        assert time.monotonic() < end, f"It did not happen within {seconds} s."
        await asyncio.sleep(0.1)


async def records(org: Organisation, **wanted: str) -> Rows:
    """Return the newest records that meet conditions."""
    answer = await org.client("audit").get("/v1/audit", params={"limit": "500", **wanted})
    assert answer.status_code == 200, answer.text
    found: Rows = answer.json()["records"]
    return found


async def create_task(org: Organisation, title: str = "Water the plants", **headers: str) -> str:
    """Create a task and return its id."""
    answer = await org.client("tasks").post("/v1/tasks", json={"title": title}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.mark.ac("phase-v:A1.3:4", "phase-v:A1.4:1", "phase-v:SEC4:1")
async def test_a_call_and_its_event_are_recorded_under_one_correlation_id(org: Organisation) -> None:
    correlation = uuid.uuid4().hex
    task = await create_task(org, **{"x-correlation-id": correlation})

    async def both() -> Rows:
        found = await records(org, correlation_id=correlation)
        return found if {"call", "event"} <= {item["kind"] for item in found if task in item["resources"]} else []

    found = await until(both)

    call = next(item for item in found if item["kind"] == "call")
    event = next(item for item in found if item["action"] == "task.created")
    assert (call["action"], call["outcome"], call["service"]) == ("POST /v1/tasks", "OK", "tasks")
    assert call["user_id"] == event["user_id"] == org.user_id
    assert call["trace_id"]
    assert call["resources"] == [task]


@pytest.mark.ac("phase-v:SEC4:1")
async def test_reads_and_refusals_are_recorded_too(organisation: SignUp) -> None:
    alice, bob = await organisation("Alice"), await organisation("Bob")
    task = await create_task(alice)
    await bob.client("tasks").get(f"/v1/tasks/{task}")

    async def refused() -> Rows:
        return await records(bob, resource=task)

    found = await until(refused)

    assert [(item["action"], item["outcome"]) for item in found] == [("GET /v1/tasks/{task_id}", "NOT_FOUND")]
    assert all(item["user_id"] != bob.user_id for item in await records(alice))


async def test_pages_follow_one_another_without_gap_or_repeat(org: Organisation) -> None:
    for number in range(5):
        await create_task(org, f"Task {number}")

    async def enough() -> bool:
        return len(await records(org, action="task.created")) == 5

    await until(enough)
    seen, cursor = [], ""
    while True:
        params = {"limit": "2", "action": "task.created", "cursor": cursor}
        page = (await org.client("audit").get("/v1/audit", params=params)).json()
        seen += [item["seq"] for item in page["records"]]
        if not (cursor := page["next_cursor"]):
            break

    assert len(seen) == 5
    assert seen == sorted(set(seen), reverse=True)


@pytest.mark.ac("isa-cloud-prd:E6-US2:AC-2.3")
async def test_a_text_finds_the_organisations_own_records_only(organisation: SignUp) -> None:
    alice, bob = await organisation("Alice"), await organisation("Bob")
    task = await create_task(alice)
    inject = [f'{task}" or "', '{service="audit"}', "`", '"}) | json | line_format "', "\\", task + '\n{org_id="x"}']

    async def search(org: Organisation, text: str) -> Rows:
        answer = await org.client("audit").get("/v1/audit/search", params={"q": text})
        assert answer.status_code == 200, answer.text
        lines: Rows = answer.json()["lines"]
        return lines

    async def shipped() -> Rows:
        return await search(alice, task)

    found = await until(shipped)

    assert all(task in item["resources"] for item in found)
    assert [item for item in await search(bob, task) if item["kind"] == "event"] == []
    for text in inject:
        assert [item for item in await search(bob, text) if task in item["resources"]] == []


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"from": "2026-01-01T00:00:00"}, "from"),
        ({"cursor": "next"}, "cursor"),
        ({"limit": "0"}, "limit"),
        ({"kind": "rumour"}, "kind"),
        ({"from": "2026-02-30T00:00:00Z"}, "from"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told_its_field(
    org: Organisation, params: dict[str, str], field: str
) -> None:
    answer = await org.client("audit").get("/v1/audit", params=params)

    assert answer.status_code in (400, 422)
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["errors"][0]["field"]


async def test_the_audit_is_for_owners_and_admins_with_a_token(http: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=http["audit"]) as client:
        for path in ("/v1/audit", "/v1/audit/search?q=x", "/v1/audit/verify"):
            answer = await client.get(path)
            assert answer.status_code == 401, path
            assert "WWW-Authenticate" in answer.headers


@contextlib.asynccontextmanager
async def superuser(stack: Stack) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Log in past every rule, as somebody who has the machine would."""
    connection = await psycopg.AsyncConnection.connect(
        host="127.0.0.1",
        port=stack.layout.engine_port("postgres"),
        user="isa",
        password=stack.secrets["postgres-superuser"],
        dbname="audit",
        autocommit=True,
    )
    async with connection:
        await connection.execute("SET session_replication_role = replica")  # no trigger fires
        yield connection


@pytest.fixture
async def chain(org: Organisation) -> Rows:
    """Return the records of an organisation with a dozen of them, all in the log store, and nothing on its way."""
    for number in range(4):
        await create_task(org, f"Task {number}")
    await until_shipped(org, 10)  # each question is a record, too
    sizes: list[int] = []

    async def quiet() -> Rows:
        found = await rows_of(org)
        sizes.append(len(found))
        return found if len(sizes) > 15 and len(set(sizes[-15:])) == 1 else []

    return list(await until(quiet))


STACK: dict[str, Stack] = {}


@pytest.fixture(autouse=True)
def remember(stack: Stack) -> None:
    STACK["stack"] = stack


async def rows_of(org: Organisation) -> Rows:
    """Return an organisation's records as they are stored, oldest first."""
    async with superuser(STACK["stack"]) as connection:
        found = await connection.execute(
            "SELECT seq, record_id, hash FROM audit_records WHERE org_id = %s ORDER BY seq", [org.org_id]
        )
        return [{"seq": row[0], "record_id": row[1], "hash": row[2]} for row in await found.fetchall()]


def verdict(stack: Stack, org_id: str) -> dict[str, Any]:
    """Return what `isa audit verify` finds of one chain, without the start of a process."""
    with patch.dict(os.environ, stack.environment):
        (found,) = audit.from_database(org_id)
    return audit.as_object(found)


CHANGE = "UPDATE audit_records SET user_id = 'user-mallory' WHERE org_id = %(org)s AND seq = 5"
DELETE = "DELETE FROM audit_records WHERE org_id = %(org)s AND seq = 5"
SWAP = """
UPDATE audit_records AS a SET seq = -b.seq FROM audit_records AS b
WHERE a.org_id = %(org)s AND b.org_id = %(org)s AND (a.seq, b.seq) IN ((5, 6), (6, 5));
UPDATE audit_records SET seq = -seq WHERE org_id = %(org)s AND seq < 0
"""
CUT = "DELETE FROM audit_records WHERE org_id = %(org)s AND seq > 8"
CUT_WITH_HEAD = """
DELETE FROM audit_records WHERE org_id = %(org)s AND seq > 8;
UPDATE audit_chains SET seq = 8, shipped_seq = 8, hash = r.hash FROM audit_records AS r
WHERE audit_chains.org_id = %(org)s AND r.org_id = %(org)s AND r.seq = 8
"""
FORGET = "DELETE FROM audit_chains WHERE org_id = %(org)s"


@pytest.mark.ac("phase-v:SEC4:1")
@pytest.mark.parametrize(
    ("tamper", "seq", "reason"),
    [
        (CHANGE, 5, "changed"),
        (DELETE, 5, "missing"),
        (SWAP, 5, "changed"),
        (CUT, 9, "cut off"),
        (CUT_WITH_HEAD, 9, "cut off"),
        (FORGET, 1, "added"),
    ],
    ids=["changed", "deleted", "reordered", "truncated", "truncated with its head", "head deleted"],
)
async def test_whoever_changes_the_database_is_found_out(
    stack: Stack, org: Organisation, chain: Rows, tamper: str, seq: int, reason: str
) -> None:
    assert verdict(stack, org.org_id)["is_intact"]
    async with superuser(stack) as connection:
        copies = {
            table: await (await connection.execute(f"SELECT * FROM {table} WHERE org_id = %s", [org.org_id])).fetchall()
            for table in ("audit_records", "audit_chains")
        }
        try:
            for statement in tamper.split(";"):
                await connection.execute(statement, {"org": org.org_id})

            found = verdict(stack, org.org_id)
            if reason == "missing":
                told = stack.isa("audit", "verify", "--org", org.org_id, check=False)
                assert told.returncode == 1
                assert "broken at 5" in told.stdout
        finally:
            await put_back(connection, org.org_id, copies)

    assert not found["is_intact"]
    assert found["broken_seq"] == seq
    assert found["reason"].startswith(reason)
    assert verdict(stack, org.org_id)["is_intact"], "The chain holds again, once all is as it was."


async def until_shipped(org: Organisation, number: int) -> None:
    """Wait until the log store has a chain's end."""

    async def shipped() -> bool:
        answer = await org.client("audit").get("/v1/audit/verify")
        return int(answer.json()["anchored_seq"]) >= number

    await until(shipped, seconds=60)


async def put_back(connection: psycopg.AsyncConnection[Any], org_id: str, copies: dict[str, list[Any]]) -> None:
    """Make the tables what they were, so that the set can be used on."""
    for table, rows in copies.items():
        await connection.execute(f"DELETE FROM {table} WHERE org_id = %s", [org_id])
        for row in rows:
            values = [json.dumps(value) if isinstance(value, dict | list) else value for value in row]
            marks = ", ".join(["%s"] * len(values))
            await connection.execute(f"INSERT INTO {table} VALUES ({marks})", values)


async def test_the_rooms_own_logins_cannot_change_a_record(stack: Stack, org: Organisation, chain: Rows) -> None:
    for role in ("app", "system", "owner"):
        connection = await psycopg.AsyncConnection.connect(
            host="127.0.0.1",
            port=stack.layout.engine_port("postgres"),
            user=f"audit_{role}",
            password=stack.secrets[f"postgres-audit-{role}"],
            dbname="audit",
            autocommit=True,
        )
        async with connection:
            await connection.execute("SELECT set_config('isa.org', %s, false)", [org.org_id])
            for statement in (CHANGE, DELETE, "TRUNCATE audit_records", "DELETE FROM audit_chains"):
                with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
                    await connection.execute(statement, {"org": org.org_id})

    assert (await rows_of(org))[: len(chain)] == chain


@pytest.mark.ac("phase-v:A2.5:4")
async def test_reading_a_secret_is_recorded_on_the_platforms_chain(stack: Stack) -> None:
    async with superuser(stack) as connection:
        found = await connection.execute(
            "SELECT resources, workload FROM audit_records WHERE org_id = 'platform' AND action = 'secret.read'"
        )
        rows = await found.fetchall()

    assert "workload-client-audit" in {name for resources, _ in rows for name in resources}
    assert {workload for _, workload in rows} >= {"users", "tasks", "audit", "postgres-grpc"}
    assert verdict(stack, "platform")["is_intact"]


async def test_all_chains_of_the_set_hold(stack: Stack, org: Organisation) -> None:
    done = stack.isa("audit", "verify", "--token", org.token, "--url", stack.http["audit"])

    assert "intact" in done.stdout
    assert org.org_id[:20] in done.stdout
