"""Tasks, as their users meet them: over HTTP, against the running set."""

from __future__ import annotations

import asyncio
import json
import shlex
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from tests.conftest import PASSWORD, Organisation, SignUp, Stack

EXAMPLES = Path(__file__).parents[2] / "examples"
TODO = (EXAMPLES / "spoke-and-bean-todo.txt").read_bytes()
CALENDAR = (EXAMPLES / "spoke-and-bean-workshop.ics").read_bytes()


@pytest.fixture
def tasks(org: Organisation) -> httpx.AsyncClient:
    """The owner's client of tasks."""
    return org.client("tasks")


@pytest.fixture
async def database(stack: Stack) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """The room's database, past all its services."""
    connection = await psycopg.AsyncConnection.connect(
        host="127.0.0.1",
        port=stack.layout.engine_port("postgres"),
        user="isa",
        password=stack.secrets["postgres-superuser"],
        dbname="tasks",
        autocommit=True,
    )
    yield connection
    await connection.close()


async def given_task(tasks: httpx.AsyncClient, **fields: object) -> dict[str, Any]:
    """Create a task."""
    answer = await tasks.post("/v1/tasks", json={"title": "Order tubes", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def given_member(owner: Organisation) -> tuple[str, httpx.AsyncClient]:
    """Invite somebody who joins; return the id and a client of tasks."""
    address = f"member-{uuid.uuid4().hex[:12]}@example.org"
    invited = await owner.client("users").post("/v1/org/invitations", json={"email": address, "role": "member"})
    assert invited.status_code == 201, invited.text
    body = {"token": invited.json()["token"], "name": "Hanna", "password": PASSWORD}
    joined = await owner.client("users").post("/v1/invitations/accept", json=body)
    assert joined.status_code == 201, joined.text
    headers = {"authorization": f"Bearer {joined.json()['access_token']}"}
    return joined.json()["user"]["id"], httpx.AsyncClient(base_url=owner.urls["tasks"], headers=headers, timeout=30)


async def eventually(ask: Callable[[], Awaitable[object]], *, within: float = 20.0, every: float = 0.1) -> object:
    """Return the first answer that is true; fail when there is none in time."""
    until = asyncio.get_running_loop().time() + within
    while not (found := await ask()):
        assert asyncio.get_running_loop().time() < until, "it did not come true in time"
        await asyncio.sleep(every)
    return found


async def events_of(database: psycopg.AsyncConnection[Any], *keys: str) -> Counter[str]:
    """Return how many events of each topic were committed for some aggregates."""
    rows = await database.execute("SELECT topic FROM outbox WHERE key = ANY(%s)", [list(keys)])
    return Counter(topic for (topic,) in await rows.fetchall())


def problem(answer: httpx.Response, status: int, *, field: str | None = None, says: str = "") -> dict[str, Any]:
    """Return the problem that an answer tells of."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["status"] == status
    assert body["request_id"]
    assert says in body["detail"], body
    if field is not None:
        assert field in [error["field"] for error in body["errors"]], body
    return body


async def test_a_created_task_can_be_read_and_its_event_is_published(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    answer = await tasks.post(
        "/v1/tasks",
        json={
            "title": "  Order tubes ",
            "notes": "28 mm\nPresta",
            "priority": "B",
            "due_at": "2026-12-01T10:00:00+01:00",
            "start_at": "2026-11-30",
            "tags": ["stock", "stock"],
            "projects": ["Shop"],
            "contexts": ["desk"],
            "recurrence": "+1w",
        },
    )

    made = answer.json()
    assert answer.status_code == 201
    assert answer.headers["etag"] == '"1"'
    assert answer.headers["location"] == f"/v1/tasks/{made['id']}"
    assert (made["title"], made["due_at"], made["start_at"]) == ("Order tubes", "2026-12-01T09:00:00Z", "2026-11-30")
    assert (made["tags"], made["status"], made["version"]) == (["stock"], "open", 1)
    assert (await tasks.get(f"/v1/tasks/{made['id']}")).json() == made

    async def published() -> bool:
        rows = await database.execute(
            "SELECT topic FROM outbox WHERE key = %s AND published_at IS NOT NULL", [made["id"]]
        )
        return await rows.fetchall() == [("task.created",)]

    await eventually(published)


async def test_each_change_is_one_version_and_one_event(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}"

    changed = await tasks.patch(path, json={"title": "Order tyres", "due_at": "2026-12-24"})
    same = await tasks.patch(path, json={"title": "Order tyres"})
    done = await tasks.post(f"{path}/complete")
    reopened = await tasks.post(f"{path}/reopen")
    emptied = await tasks.patch(path, json={"due_at": None, "notes": None})
    deleted = await tasks.delete(path)

    versions = [answer.json()["version"] for answer in (changed, same, done, reopened, emptied)]
    assert versions == [2, 2, 3, 4, 5]
    assert changed.json()["due_at"] == "2026-12-24"
    assert done.json()["done_at"] is not None
    assert reopened.json()["done_at"] is None
    assert emptied.json()["due_at"] is None
    assert deleted.status_code == 204
    problem(await tasks.get(path), 404)
    assert await events_of(database, made["id"]) == {
        "task.created": 1,
        "task.updated": 3,
        "task.completed": 1,
        "task.deleted": 1,
    }


@pytest.mark.parametrize(
    ("body", "field", "says"),
    [
        ({}, "title", "needed"),
        ({"title": " "}, "title", "empty"),
        ({"title": None}, "title", ""),
        ({"title": "x" * 501}, "title", "501 characters"),
        ({"title": "a\x00b"}, "title", "U+0000"),
        ({"title": "a", "due_at": "2025-02-30"}, "due_at", "February 2025 has 28 days"),
        ({"title": "a", "due_at": "2026-12-01T10:00:00"}, "due_at", "offset"),
        ({"title": "a", "due_at": 20261201}, "due_at", "text"),
        ({"title": "a", "colour": "red"}, "colour", "no such field"),
        ({"title": "a", "priority": "b"}, "priority", "A (highest)"),
        ({"title": "a", "tags": "one"}, "tags", ""),
        ({"title": "a", "assignee": "hanna"}, "assignee", "id of a user"),
        ({"title": "a", "notes": "n" * 10_001}, "notes", "10,001"),
        ({"title": "a", "org_id": "org-other"}, "org_id", "no such field"),
    ],
)
async def test_a_bad_task_is_refused_by_field_and_nothing_is_written(
    tasks: httpx.AsyncClient, body: dict[str, Any], field: str, says: str
) -> None:
    problem(await tasks.post("/v1/tasks", json=body), 422, field=field, says=says)

    assert (await tasks.get("/v1/tasks")).json() == {"tasks": [], "next_cursor": None}


async def test_a_title_of_two_megabytes_is_refused_and_nothing_is_written(tasks: httpx.AsyncClient) -> None:
    problem(await tasks.post("/v1/tasks", json={"title": "x" * 2_000_000}), 413, says="Send less")

    assert (await tasks.get("/v1/tasks")).json()["tasks"] == []


@pytest.mark.parametrize("content", [b"{", b'{"title": "a\xff"}', b'{"title": "\\ud800"}', b"[]", b'"a"', b"null", b""])
async def test_a_body_that_is_no_task_is_refused(tasks: httpx.AsyncClient, content: bytes) -> None:
    answer = await tasks.post("/v1/tasks", content=content, headers={"content-type": "application/json"})

    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["code"] == "INVALID_ARGUMENT"


async def test_without_a_good_token_nothing_is_told(http: dict[str, str], tasks: httpx.AsyncClient) -> None:
    made = await given_task(tasks)

    for headers in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic YTpi"}):
        async with httpx.AsyncClient(base_url=http["tasks"], headers=headers) as nobody:
            problem(await nobody.get(f"/v1/tasks/{made['id']}"), 401)
            problem(await nobody.post("/v1/tasks", json={"tite": "a"}), 401)


async def test_another_organisation_s_task_is_as_unknown_as_one_that_never_was(organisation: SignUp) -> None:
    ours, theirs = await organisation("Ours"), await organisation("Theirs")
    made = await given_task(ours.client("tasks"))
    stranger = theirs.client("tasks")
    path, unknown = f"/v1/tasks/{made['id']}", f"/v1/tasks/task-{'a' * 26}"

    for method, suffix, body in (
        ("GET", "", None),
        ("PATCH", "", {"title": "mine"}),
        ("DELETE", "", None),
        ("POST", "/complete", None),
        ("POST", "/reopen", None),
        ("GET", "/reminders", None),
        ("PUT", "/reminders", {"remind_at": []}),
        ("POST", "/reminders", {"remind_at": "2027-01-01T00:00:00Z"}),
        ("DELETE", "/reminders/reminder-a", None),
    ):
        first = problem(await stranger.request(method, path + suffix, json=body), 404)
        second = problem(await stranger.request(method, unknown + suffix, json=body), 404)
        assert first["detail"].replace(made["id"], "") == second["detail"].replace(unknown.split("/")[-1], "")

    assert (await stranger.get("/v1/tasks")).json()["tasks"] == []
    assert (await ours.client("tasks").get(path)).json() == made


async def test_a_stale_etag_changes_nothing(tasks: httpx.AsyncClient) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}"
    assert (await tasks.patch(path, json={"priority": "A"}, headers={"if-match": '"1"'})).headers["etag"] == '"2"'

    stale = {"if-match": '"1"'}
    problem(await tasks.patch(path, json={"title": "late"}, headers=stale), 412, field="If-Match", says='"2"')
    problem(await tasks.post(f"{path}/complete", headers=stale), 412, field="If-Match")
    problem(await tasks.delete(path, headers=stale), 412, field="If-Match")
    problem(await tasks.patch(path, json={"title": "late"}, headers={"if-match": "2"}), 400, field="If-Match")

    assert (await tasks.get(path)).json()["title"] == "Order tubes"
    assert (await tasks.get(path, headers={"if-none-match": '"2"'})).status_code == 304
    assert (await tasks.delete(path, headers={"if-match": '"2"'})).status_code == 204


async def test_of_many_changes_with_the_same_etag_one_happens(tasks: httpx.AsyncClient) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}"

    answers = await asyncio.gather(
        *(tasks.patch(path, json={"title": f"t{n}"}, headers={"if-match": '"1"'}) for n in range(6))
    )

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    assert (await tasks.get(path)).json()["version"] == 2


async def test_changes_without_an_etag_all_happen(tasks: httpx.AsyncClient) -> None:
    made = await given_task(tasks)

    answers = await asyncio.gather(
        *(tasks.patch(f"/v1/tasks/{made['id']}", json={field: "C" if field == "priority" else "x"})
          for field in ("title", "notes", "priority", "recurrence"))
    )  # fmt: skip

    assert {answer.status_code for answer in answers} == {200}
    after = (await tasks.get(f"/v1/tasks/{made['id']}")).json()
    assert (after["title"], after["notes"], after["priority"], after["recurrence"]) == ("x", "x", "C", "x")
    assert after["version"] == 5


async def test_a_repeated_request_with_the_same_key_has_one_effect(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    headers = {"idempotency-key": str(uuid.uuid4())}

    answers = await asyncio.gather(
        *(tasks.post("/v1/tasks", json={"title": "Once", "tags": ["a"]}, headers=headers) for _ in range(8))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert {answer.headers["etag"] for answer in answers} == {'"1"'}
    listed = (await tasks.get("/v1/tasks")).json()["tasks"]
    assert len(listed) == 1
    assert await events_of(database, listed[0]["id"]) == {"task.created": 1}


async def test_a_key_of_another_request_is_refused(tasks: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "the-key"}
    made = await given_task(tasks)
    assert (await tasks.post("/v1/tasks", json={"title": "One"}, headers=headers)).status_code == 201

    problem(await tasks.post("/v1/tasks", json={"title": "Two"}, headers=headers), 409, field="Idempotency-Key")
    answer = await tasks.post(f"/v1/tasks/{made['id']}/complete", headers=headers)
    problem(answer, 409, field="Idempotency-Key")
    problem(await tasks.post("/v1/tasks", json={"title": "Two"}, headers={"idempotency-key": "a b"}), 422)

    listed = (await tasks.get("/v1/tasks")).json()["tasks"]
    assert sorted((task["title"], task["status"]) for task in listed) == [("One", "open"), ("Order tubes", "open")]


async def test_keys_belong_to_their_user(organisation: SignUp) -> None:
    headers = {"idempotency-key": "the-key"}
    first, second = await organisation(), await organisation()

    for one, title in ((first, "One"), (second, "Two")):
        answer = await one.client("tasks").post("/v1/tasks", json={"title": title}, headers=headers)
        assert (answer.status_code, answer.json()["title"]) == (201, title)
        assert "idempotent-replayed" not in answer.headers


async def test_completing_and_reopening_happen_once_a_key(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}"
    first, second = {"idempotency-key": "complete-1"}, {"idempotency-key": "reopen-1"}

    done = await asyncio.gather(*(tasks.post(f"{path}/complete", headers=first) for _ in range(4)))
    reopened = await tasks.post(f"{path}/reopen", headers=second)
    again = await tasks.post(f"{path}/complete", headers=first)

    assert len({answer.text for answer in [*done, again]}) == 1
    assert again.headers["idempotent-replayed"] == "true"
    assert (await tasks.get(path)).json() == reopened.json()
    assert await events_of(database, made["id"]) == {"task.created": 1, "task.completed": 1, "task.updated": 1}
    problem(await tasks.post(f"{path}/reopen"), 409, says="already open")


async def test_a_list_is_filtered_and_its_pages_are_stable(tasks: httpx.AsyncClient) -> None:
    for number in range(12):
        await given_task(
            tasks,
            title=f"Bike {number} 100%" if number % 2 else f"bean_{number}",
            due_at=f"2026-12-{number + 1:02}" if number % 3 else None,
            projects=["Even"] if number % 2 == 0 else [],
        )
    first = (await tasks.get("/v1/tasks")).json()["tasks"]
    await tasks.post(f"/v1/tasks/{first[0]['id']}/complete")

    async def titles(**query: str | int) -> list[str]:
        answer = await tasks.get("/v1/tasks", params=query)
        assert answer.status_code == 200, answer.text
        return [task["title"] for task in answer.json()["tasks"]]

    assert len(await titles(status="open")) == 11
    assert await titles(status="done") == [first[0]["title"]]
    assert len(await titles(q="bike")) == 6
    assert await titles(q="% 3") == ["Bike 3 100%"]
    assert await titles(q="n_4") == ["bean_4"]
    assert len(await titles(project="Even")) == 6
    assert await titles(due_before="2026-12-03", sort="due_at") == ["Bike 1 100%"]
    assert await titles(due_after="2026-12-11T00:00:00Z", due_before="2026-12-12") == ["bean_10"]

    for sort in ("-created_at", "created_at", "due_at"):
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = (await tasks.get("/v1/tasks", params={"sort": sort, "limit": 5, **cursor})).json()
            seen += [task["id"] for task in page["tasks"]]
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
            if len(seen) == 5:  # what comes and goes meanwhile neither repeats nor hides what stays
                extra = await given_task(tasks, title="meanwhile", due_at="2026-11-30")
                await tasks.delete(f"/v1/tasks/{extra['id']}")
        assert len(seen) == len(set(seen)) == 12


@pytest.mark.parametrize(
    ("query", "status", "field"),
    [
        ({"stauts": "open"}, 422, "stauts"),
        ({"status": "opened"}, 422, "status"),
        ({"limit": "0"}, 422, "limit"),
        ({"limit": "201"}, 422, "limit"),
        ({"due_before": "2025-02-30"}, 422, "due_before"),
        ({"q": "\x00"}, 422, "q"),
        ({"cursor": "nonsense"}, 400, "cursor"),
        ({"cursor": "W10"}, 400, "cursor"),
        ({"sort": "title"}, 422, "sort"),
    ],
)
async def test_a_bad_question_is_refused_by_field(
    tasks: httpx.AsyncClient, query: dict[str, str], status: int, field: str
) -> None:
    problem(await tasks.get("/v1/tasks", params=query), status, field=field)


async def test_a_cursor_keeps_to_its_list(tasks: httpx.AsyncClient) -> None:
    for _ in range(2):
        await given_task(tasks)
    cursor = (await tasks.get("/v1/tasks", params={"limit": 1})).json()["next_cursor"]

    answer = await tasks.get("/v1/tasks", params={"limit": 1, "cursor": cursor, "status": "open"})

    problem(answer, 400, field="cursor", says="another list")


@pytest.mark.ac("phase-v:A2.4:1", "phase-v:A2.4:4")
async def test_a_reminder_fires_once_at_its_time(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}/reminders"
    at = datetime.now(UTC) + timedelta(seconds=1.5)

    put = await tasks.put(path, json={"remind_at": [at.isoformat()]})

    (reminder,) = put.json()["reminders"]
    assert reminder["state"] == "waiting"

    async def fired() -> Any:
        (found,) = (await tasks.get(path)).json()["reminders"]
        return found if found["state"] == "fired" else None

    found: Any = await eventually(fired, within=8)
    assert timedelta(0) <= datetime.fromisoformat(found["fired_at"]) - at < timedelta(seconds=3)
    assert await events_of(database, reminder["id"]) == {"reminder.triggered": 1}


@pytest.mark.ac("phase-v:A2.4:1")
async def test_a_reminder_whose_job_was_lost_is_fired_by_the_sweep(
    stack: Stack, tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}/reminders"
    at = datetime.now(UTC) + timedelta(seconds=3)
    (reminder,) = (await tasks.put(path, json={"remind_at": [at.isoformat()]})).json()["reminders"]
    await eventually(lambda: _is_armed(database, reminder["id"]), within=3)

    words = shlex.split(stack.isa("env", "tasks").stdout)
    env = dict(word.split("=", 1) for word in words if "=" in word)
    async with httpx.AsyncClient(headers={"dapr-api-token": env["DAPR_API_TOKEN"]}) as sidecar:
        lost = await sidecar.delete(f"http://127.0.0.1:{env['DAPR_HTTP_PORT']}/v1.0/jobs/{reminder['id']}")
    assert lost.is_success, lost.text

    async def fired() -> bool:
        return bool((await tasks.get(path)).json()["reminders"][0]["state"] == "fired")

    await eventually(fired, within=45, every=0.5)
    assert await events_of(database, reminder["id"]) == {"reminder.triggered": 1}


async def _is_armed(database: psycopg.AsyncConnection[Any], reminder_id: str) -> bool:
    rows = await database.execute("SELECT 1 FROM reminders WHERE id = %s AND armed_at IS NOT NULL", [reminder_id])
    return await rows.fetchone() is not None


async def test_reminders_are_set_as_a_whole_or_one_by_one(tasks: httpx.AsyncClient) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}/reminders"
    first, second = "2027-01-01T08:00:00Z", "2027-01-02T08:00:00Z"

    put = (await tasks.put(path, json={"remind_at": [second, first, first]})).json()["reminders"]
    assert [each["remind_at"] for each in put] == [first, second]
    kept = (await tasks.put(path, json={"remind_at": [second]})).json()["reminders"]
    assert [each["id"] for each in kept] == [put[1]["id"]]
    key = {"idempotency-key": "one-more"}
    added = [await tasks.post(path, json={"remind_at": first}, headers=key) for _ in range(2)]
    assert added[0].json() == added[1].json()
    assert (await tasks.delete(f"{path}/{put[1]['id']}")).status_code == 204
    assert [each["id"] for each in (await tasks.get(path)).json()["reminders"]] == [added[0].json()["id"]]

    problem(
        await tasks.put(path, json={"remind_at": ["2020-01-01T00:00:00Z"]}), 400, field="remind_at[0]", says="passed"
    )
    problem(await tasks.put(path, json={"remind_at": ["2027-02-30T00:00:00Z"]}), 422, field="remind_at[0]")
    problem(await tasks.put(path, json={"remind_at": [f"2027-01-{n + 1:02}T00:00:00Z" for n in range(21)]}), 422)
    problem(await tasks.delete(f"{path}/reminder-unknown"), 404)


async def test_nobody_is_reminded_of_what_is_done(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    made = await given_task(tasks)
    path = f"/v1/tasks/{made['id']}"
    soon = (datetime.now(UTC) + timedelta(seconds=2)).isoformat()
    (later_one,) = (await tasks.put(f"{path}/reminders", json={"remind_at": ["2027-01-01T08:00:00Z"]})).json()[
        "reminders"
    ]
    soon_one = (await tasks.post(f"{path}/reminders", json={"remind_at": soon})).json()

    await tasks.post(f"{path}/complete")
    states = {each["id"]: each["state"] for each in (await tasks.get(f"{path}/reminders")).json()["reminders"]}
    assert states == {later_one["id"]: "cancelled", soon_one["id"]: "cancelled"}
    problem(await tasks.post(f"{path}/reminders", json={"remind_at": "2027-01-01T09:00:00Z"}), 409, says="reopen")
    await asyncio.sleep(2.5)
    assert await events_of(database, soon_one["id"]) == {}

    await tasks.post(f"{path}/reopen")
    states = {each["id"]: each["state"] for each in (await tasks.get(f"{path}/reminders")).json()["reminders"]}
    assert states == {later_one["id"]: "waiting", soon_one["id"]: "cancelled"}


async def test_only_members_are_assigned_and_who_leaves_is_unassigned(
    org: Organisation, organisation: SignUp, database: psycopg.AsyncConnection[Any]
) -> None:
    tasks = org.client("tasks")
    stranger = await organisation("Elsewhere")
    member, client = await given_member(org)

    problem(await tasks.post("/v1/tasks", json={"title": "a", "assignee": stranger.user_id}), 400, field="assignee")
    made = await given_task(tasks, assignee=member)
    mine = await given_task(tasks, assignee=org.user_id)
    assert (await client.get("/v1/tasks", params={"assignee": member})).json()["tasks"] == [made]
    reminder = await client.post(f"/v1/tasks/{made['id']}/reminders", json={"remind_at": "2027-01-01T08:00:00Z"})
    assert reminder.status_code == 201, reminder.text
    await client.aclose()

    removed = await org.client("users").delete(f"/v1/org/members/{member}")
    assert removed.status_code == 204, removed.text

    async def unassigned() -> Any:
        found = (await tasks.get(f"/v1/tasks/{made['id']}")).json()
        return found if found["assignee"] is None else None

    found: Any = await eventually(unassigned)
    assert found["version"] == 2
    assert await events_of(database, made["id"]) == {"task.created": 1, "task.updated": 1}
    assert (await tasks.get(f"/v1/tasks/{made['id']}/reminders")).json()["reminders"] == []
    assert (await tasks.get(f"/v1/tasks/{mine['id']}")).json() == mine


async def test_a_viewer_reads_and_does_not_write(org: Organisation) -> None:
    member, client = await given_member(org)
    made = await given_task(org.client("tasks"))
    changed = await org.client("users").patch(f"/v1/org/members/{member}", json={"role": "viewer"})
    assert changed.is_success, changed.text

    async def refused() -> bool:
        return (await client.post("/v1/tasks", json={"title": "a"})).status_code in (401, 403)

    await eventually(refused)
    assert (await org.client("tasks").get(f"/v1/tasks/{made['id']}")).json() == made
    await client.aclose()


def lines_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the lines of an import's report."""
    assert answer.status_code == 200, answer.text
    lines: list[dict[str, Any]] = answer.json()["lines"]
    return lines


async def test_a_todo_file_is_imported_with_a_report_a_line(
    tasks: httpx.AsyncClient, database: psycopg.AsyncConnection[Any]
) -> None:
    answer = await tasks.post("/v1/tasks/import", content=TODO, headers={"content-type": "text/plain; charset=utf-8"})

    lines = lines_of(answer)
    assert [line["line"] for line in lines] == list(range(1, len(TODO.splitlines()) + 1))
    counts = Counter(line["outcome"] for line in lines)
    assert {name: answer.json()[name] for name in counts} == counts
    assert counts["taken"] >= 290
    assert counts["refused"] >= 10
    assert all(line["reason"] for line in lines if line["outcome"] in ("refused", "already_there"))
    ids = [line["task_id"] for line in lines if line["outcome"] == "taken"]
    one = (await tasks.get(f"/v1/tasks/{ids[0]}")).json()
    assert one["title"] == "Pay the rent for the shop before the landlord calls again"
    assert (one["priority"], one["recurrence"], one["due_at"]) == ("A", "+1m", "2026-12-01")
    assert (one["projects"], one["contexts"]) == (["Shop"], ["bank"])
    assert one["created_at"].startswith("2026-11-16")
    done = [task for task in await everything(tasks) if task["status"] == "done"]
    assert all(task["version"] == 2 and task["done_at"] for task in done)
    assert await events_of(database, *ids) == {"task.created": len(ids), "task.completed": len(done)}

    again = lines_of(await tasks.post("/v1/tasks/import", content=TODO, headers={"content-type": "text/plain"}))

    assert {line["outcome"] for line in again} == {"already_there", "refused", "skipped"}
    assert [line["task_id"] for line in again if "task_id" in line] == ids
    assert len(await everything(tasks)) == len(ids)


async def everything(tasks: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Return all tasks of the caller's organisation."""
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await tasks.get("/v1/tasks", params={"limit": 200, **cursor})).json()
        found += page["tasks"]
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def test_a_calendar_is_imported_and_its_alarms_become_reminders(tasks: httpx.AsyncClient) -> None:
    answer = await tasks.post("/v1/tasks/import", content=CALENDAR, headers={"content-type": "text/calendar"})

    lines = lines_of(answer)
    by_text = {line["text"]: line for line in lines}
    taken = by_text["Water filter, espresso machine"]
    task = (await tasks.get(f"/v1/tasks/{taken['task_id']}")).json()
    assert (task["recurrence"], task["tags"]) == ("FREQ=MONTHLY;INTERVAL=3", ["Coffee bar"])
    reminders = (await tasks.get(f"/v1/tasks/{taken['task_id']}/reminders")).json()["reminders"]
    assert [each["state"] for each in reminders] == ["waiting"]
    assert "does not exist" in by_text["SUMMARY:Glazier brings the mirror"]["reason"]
    assert "END:VTODO" in by_text["SUMMARY:Cut off in the middle of an upl"]["reason"]
    assert answer.json()["taken"] >= 60

    again = await tasks.post("/v1/tasks/import", content=CALENDAR, headers={"content-type": "text/calendar"})
    assert again.json()["taken"] == 0


async def test_imports_of_the_same_file_at_once_take_each_line_once(tasks: httpx.AsyncClient) -> None:
    file = "\n".join(f"Job {number} +Shop" for number in range(250)).encode()

    answers = await asyncio.gather(
        *(tasks.post("/v1/tasks/import", content=file, headers={"content-type": "text/plain"}) for _ in range(4))
    )

    assert sum(answer.json()["taken"] for answer in answers) == 250
    assert sum(answer.json()["already_there"] for answer in answers) == 750
    assert Counter(task["title"] for task in await everything(tasks)).most_common(1)[0][1] == 1


async def test_an_import_that_was_cut_off_goes_on_where_it_was(tasks: httpx.AsyncClient) -> None:
    lines = [f"Job {number}" for number in range(30)]
    part = "\n".join(lines[:17])
    await tasks.post("/v1/tasks/import", content=part, headers={"content-type": "text/plain"})

    whole = await tasks.post("/v1/tasks/import", content="\n".join(lines), headers={"content-type": "text/plain"})

    assert (whole.json()["taken"], whole.json()["already_there"]) == (13, 17)


async def test_a_deleted_task_is_not_brought_back_by_its_file(tasks: httpx.AsyncClient) -> None:
    (line,) = lines_of(
        await tasks.post("/v1/tasks/import", content=b"Buy milk", headers={"content-type": "text/plain"})
    )
    await tasks.delete(f"/v1/tasks/{line['task_id']}")

    (again,) = lines_of(
        await tasks.post("/v1/tasks/import", content=b"Buy milk", headers={"content-type": "text/plain"})
    )

    assert (again["outcome"], again["reason"]) == ("already_there", "It was imported before, and deleted since.")
    assert await everything(tasks) == []


@pytest.mark.parametrize(
    ("content", "content_type", "status", "says"),
    [
        (b"hello", "text/calendar", 400, "no calendar"),
        (b"hello", "application/pdf", 400, "text/calendar"),
        ("hello".encode("utf-16"), "text/plain", 400, "UTF-16"),
        (b"hello", "text/plain; charset=iso-8859-1", 400, "utf-8"),
        (b"x\n" * 20_000, "text/plain", 400, "more than 10,000"),
        (b"x" * (5 * 1024 * 1024 + 1), "text/plain", 413, "5242880"),
    ],
)
async def test_a_file_of_another_kind_is_refused_whole(
    tasks: httpx.AsyncClient, content: bytes, content_type: str, status: int, says: str
) -> None:
    answer = await tasks.post("/v1/tasks/import", content=content, headers={"content-type": content_type})

    problem(answer, status, says=says)
    assert await everything(tasks) == []


async def test_the_api_describes_itself(http: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=http["tasks"]) as anyone:
        found = json.loads((await anyone.get("/openapi.json")).content)

    assert {"/v1/tasks", "/v1/tasks/{task_id}", "/v1/tasks/import"} <= set(found["paths"])
    created = found["paths"]["/v1/tasks"]["post"]
    assert "201" in created["responses"]
    assert {parameter["name"] for parameter in created["parameters"]} == {"idempotency-key"}
