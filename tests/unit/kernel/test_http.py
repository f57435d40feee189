"""HTTP rooms: what goes wrong is told as problem+json, and never more than the caller may know."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import Field, field_validator

from isa_common import (
    Aborted,
    AlreadyExists,
    Code,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    PreconditionFailed,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from kernel import telemetry
from kernel.caller import Caller
from kernel.doors import delete, get, patch, post, put
from kernel.http import Body, Health, View, http_app, operations
from tests.unit.fakes import FakeSpool, Issuer, bearer

TOKEN = "app-token"  # the sidecar's
ERRORS: dict[str, Exception] = {
    "invalid": InvalidArgument("The title is empty.", field="title"),
    "missing": NotFound("No such task.", task_id="task-1"),
    "taken": AlreadyExists("There is one."),
    "lost": Aborted("Somebody was faster."),
    "stale": PreconditionFailed("Read it again."),
    "wrong": FailedPrecondition("It is done."),
    "busy": ResourceExhausted("Too many.", retry_after=timedelta(seconds=2.6)),
    "busy-soon": ResourceExhausted("Too many.", retry_after=timedelta(milliseconds=20)),
    "away": Unavailable("Not ready."),
    "login": Unauthenticated("Wrong password."),
    "never": Unimplemented("Not offered."),
    "bug": RuntimeError("postgres://isa:hunter2@db"),
    "slow": TimeoutError(),
}


class Item(Body):
    """A line."""

    label: str = Field(min_length=2)


class CreateTask(Body):
    """A new task."""

    title: str = Field(max_length=10)
    priority: int = 0
    items: list[Item] = Field(default_factory=list)

    @field_validator("title")
    @classmethod
    def _not_blank(cls, title: str) -> str:
        if not title.strip():
            raise ValueError("Give it a title")
        return title


class TaskView(View):
    """A task."""

    id: str
    title: str


class Handlers:
    """Tasks, for a test."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    @post("/v1/tasks", permission="tasks.write", status=201)
    async def create_task(
        self,
        caller: Caller,
        body: CreateTask,
        response: Response,
        idempotency_key: Annotated[str | None, Header()] = None,
    ) -> TaskView:
        """Create a task."""
        self.calls.append((caller, body, idempotency_key))
        response.headers["etag"] = '"1"'
        return TaskView(id="task-1", title=body.title)

    @get("/v1/tasks", permission="tasks.read")
    async def list_tasks(
        self,
        caller: Caller,
        page_size: Annotated[int, Query(ge=1, le=100)] = 50,
        if_none_match: Annotated[int | None, Header()] = None,
    ) -> list[TaskView]:
        """List tasks."""
        return []

    @get("/v1/orgs/{org}/tasks/{task_id}", permission="tasks.read")
    async def get_task(self, caller: Caller, org: str, task_id: str) -> TaskView:
        """Get a task."""
        return TaskView(id=task_id, title="t")

    @put("/v1/errors/{name}", permission="tasks.write")
    async def fail(self, caller: Caller, name: str) -> TaskView:
        """Fail."""
        raise ERRORS[name]

    @post("/v1/uploads", permission="tasks.write", max_body=100)
    async def upload(self, caller: Caller, request: Request) -> int:
        """Take bytes as they come."""
        return len(await request.body())

    @patch("/v1/json", permission="tasks.write", max_body=100)
    async def take(self, caller: Caller, body: dict[str, str]) -> int:
        """Take JSON."""
        return len(body)

    @delete("/v1/tasks/{task_id}", permission="tasks.write", status=204)
    async def delete_task(self, caller: Caller, task_id: str) -> None:
        """Delete a task."""

    @get("/v1/export", permission="tasks.read")
    async def export(self, caller: Caller) -> Response:
        """Stream."""

        async def lines() -> AsyncIterator[bytes]:
            yield b"one\n"
            yield b"two\n"

        return StreamingResponse(lines(), media_type="text/plain")

    @post("/v1/login", anonymous=True)
    async def login(self, body: Item) -> TaskView:
        """Log in."""
        return TaskView(id="session-1", title=body.label)


@pytest.fixture
def room() -> Handlers:
    return Handlers()


@pytest.fixture
async def client(room: Handlers, issuer: Issuer, spool: FakeSpool) -> AsyncIterator[httpx.AsyncClient]:
    app = http_app(room, title="tasks", chain=issuer.chain(spool), max_body=1000)
    health = Health()
    health.is_started = True
    operations(app, health, token=TOKEN)
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://tasks") as client:
        yield client


@pytest.fixture
def member(issuer: Issuer) -> dict[str, str]:
    return bearer(issuer.token())


def problem_of(response: httpx.Response, status: int) -> dict[str, Any]:
    """Return the problem of an answer, after checking what all problems have."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["detail"]
    assert body["title"]
    assert body["type"].startswith("urn:isa:problem:")
    assert body["code"] in Code.__members__
    assert body["request_id"]
    assert body["request_id"] == response.headers["isa-correlation-id"]
    return body


async def test_a_good_request_reaches_its_handler(
    client: httpx.AsyncClient, room: Handlers, member: dict[str, str], alice: Caller
) -> None:
    response = await client.post(
        "/v1/tasks", json={"title": "Milk"}, headers={**member, "idempotency-key": "k-1", "x-request-id": "request-1"}
    )

    assert response.status_code == 201
    assert response.json() == {"id": "task-1", "title": "Milk"}
    assert response.headers["etag"] == '"1"'
    assert response.headers["isa-correlation-id"] == "request-1"
    assert room.calls == [(alice, CreateTask(title="Milk"), "k-1")]


async def test_validation_names_each_field_and_its_fix(
    client: httpx.AsyncClient, room: Handlers, member: dict[str, str]
) -> None:
    body = {"title": " ", "priority": "high", "items": [{"label": "ok"}, {"label": "x"}], "titel": "Milk"}

    response = await client.post("/v1/tasks", json=body, headers=member)

    problem = problem_of(response, 422)
    errors = {error["field"]: error["message"] for error in problem["errors"]}
    assert errors == {
        "title": "Give it a title.",
        "priority": "Input should be a valid integer, unable to parse string as an integer.",
        "items[1].label": "String should have at least 2 characters.",
        "titel": "There is no such field; leave it out or correct its name.",
    }
    assert room.calls == []


async def test_a_missing_field_is_named(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    problem = problem_of(await client.post("/v1/tasks", json={}, headers=member), 422)

    assert problem["errors"] == [{"field": "title", "message": "This field is needed."}]
    assert problem["code"] == "INVALID_ARGUMENT"


async def test_an_answer_repeats_nothing_that_was_sent(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    response = await client.post("/v1/tasks", json={"title": ["hunter2"]}, headers=member)

    problem_of(response, 422)
    assert "hunter2" not in response.text


@pytest.mark.parametrize("content", [b"{", b"nonsense", b'{"title": }', b"\xff\xfe", b'"\xff"', b"[" * 900])
async def test_what_is_no_json_is_told_so(client: httpx.AsyncClient, member: dict[str, str], content: bytes) -> None:
    headers = {**member, "content-type": "application/json"}

    response = await client.post("/v1/tasks", content=content, headers=headers)

    problem_of(response, response.status_code)
    assert response.status_code in (400, 422)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"1"])
async def test_a_body_of_another_shape_is_refused(
    client: httpx.AsyncClient, member: dict[str, str], content: bytes
) -> None:
    headers = {**member, "content-type": "application/json"}

    problem = problem_of(await client.post("/v1/tasks", content=content, headers=headers), 422)

    assert problem["errors"][0]["field"] == "body"


@pytest.mark.parametrize(
    ("path", "headers", "field"),
    [
        ("/v1/tasks?page_size=0", {}, "page_size"),
        ("/v1/tasks?page_size=many", {}, "page_size"),
        ("/v1/tasks", {"if-none-match": "x"}, "if-none-match"),
    ],
)
async def test_query_and_header_parameters_are_checked_too(
    client: httpx.AsyncClient, member: dict[str, str], path: str, headers: dict[str, str], field: str
) -> None:
    problem = problem_of(await client.get(path, headers={**member, **headers}), 422)

    assert [error["field"] for error in problem["errors"]] == [field]
    assert problem["title"].startswith("The request does not have the shape")


async def test_without_a_token_nobody_learns_what_a_body_should_be(client: httpx.AsyncClient, room: Handlers) -> None:
    response = await client.post("/v1/tasks", json={"wrong": 1})

    problem = problem_of(response, 401)
    assert response.headers["www-authenticate"].startswith('Bearer realm="isa"')
    assert "errors" not in problem
    assert room.calls == []


async def test_a_bad_token_is_told_in_the_same_way(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/tasks", headers=bearer("rubbish"))

    problem_of(response, 401)
    assert 'error="invalid_token"' in response.headers["www-authenticate"]


async def test_without_the_permission_nobody_learns_it_either(client: httpx.AsyncClient, issuer: Issuer) -> None:
    headers = bearer(issuer.token(roles=["viewer"]))

    problem = problem_of(await client.post("/v1/tasks", json={"wrong": 1}, headers=headers), 403)

    assert problem["details"] == {"permission": "tasks.write"}


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("invalid", 400, "INVALID_ARGUMENT"),
        ("missing", 404, "NOT_FOUND"),
        ("taken", 409, "ALREADY_EXISTS"),
        ("lost", 409, "ABORTED"),
        ("stale", 412, "FAILED_PRECONDITION"),
        ("wrong", 409, "FAILED_PRECONDITION"),
        ("busy", 429, "RESOURCE_EXHAUSTED"),
        ("away", 503, "UNAVAILABLE"),
        ("login", 401, "UNAUTHENTICATED"),
        ("never", 501, "UNIMPLEMENTED"),
        ("bug", 500, "INTERNAL"),
        ("slow", 504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_each_error_has_its_status(
    client: httpx.AsyncClient, member: dict[str, str], name: str, status: int, code: str
) -> None:
    problem = problem_of(await client.put(f"/v1/errors/{name}", headers=member), status)

    assert problem["code"] == code
    assert "hunter2" not in str(problem)


async def test_an_error_names_its_field_and_details(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    invalid = problem_of(await client.put("/v1/errors/invalid", headers=member), 400)
    missing = problem_of(await client.put("/v1/errors/missing", headers=member), 404)
    stale = problem_of(await client.put("/v1/errors/stale", headers=member), 412)

    assert invalid["errors"] == [{"field": "title", "message": "The title is empty."}]
    assert missing["details"] == {"task_id": "task-1"}
    assert stale["reason"] == "PRECONDITION_FAILED"


@pytest.mark.parametrize(("name", "seconds"), [("busy", "3"), ("busy-soon", "1")])
async def test_whoever_must_wait_is_told_how_long(
    client: httpx.AsyncClient, member: dict[str, str], name: str, seconds: str
) -> None:
    response = await client.put(f"/v1/errors/{name}", headers=member)

    assert response.headers["retry-after"] == seconds


async def test_a_body_over_the_cap_is_refused_by_its_length(
    client: httpx.AsyncClient, member: dict[str, str], room: Handlers
) -> None:
    problem = problem_of(await client.post("/v1/tasks", json={"title": "x" * 2000}, headers=member), 413)

    assert problem["details"] == {"limit": "1000"}
    assert room.calls == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/uploads"), ("PATCH", "/v1/json"), ("POST", "/v1/tasks")])
async def test_a_body_over_the_cap_is_refused_while_it_streams(
    client: httpx.AsyncClient, member: dict[str, str], method: str, path: str
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(10_000):
            yield b"x" * 60
        raise AssertionError("It was read to its end.")

    headers = {**member, "content-type": "application/json"}

    problem_of(await client.request(method, path, content=endless(), headers=headers), 413)


async def test_a_route_has_its_own_cap(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    fits = await client.post("/v1/uploads", content=b"x" * 100, headers=member)
    over = await client.post("/v1/uploads", content=b"x" * 101, headers=member)

    assert fits.json() == 100
    problem_of(over, 413)


async def test_an_unknown_path_is_a_problem_too(client: httpx.AsyncClient) -> None:
    problem = problem_of(await client.get("/v1/nothing"), 404)

    assert problem["code"] == "NOT_FOUND"


async def test_a_method_that_is_not_served_names_those_that_are(client: httpx.AsyncClient) -> None:
    response = await client.delete("/v1/orgs/org-a/tasks/task-1")

    problem_of(response, 405)
    assert response.headers["allow"] == "GET"


async def test_path_parameters_are_what_the_call_is_about(
    client: httpx.AsyncClient, member: dict[str, str], spool: FakeSpool
) -> None:
    await client.get("/v1/orgs/org-a/tasks/task-7", headers=member)

    [(org, record)] = spool.records
    assert org == "org-a"
    assert record.action == "GET /v1/orgs/{org}/tasks/{task_id}"
    assert record.resources == ["org-a", "task-7"]


async def test_a_refused_body_leaves_a_record(
    client: httpx.AsyncClient, member: dict[str, str], spool: FakeSpool
) -> None:
    await client.post("/v1/tasks", json={}, headers=member)

    assert spool.outcomes() == ["INVALID_ARGUMENT"]


async def test_an_empty_answer_has_no_body(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    response = await client.delete("/v1/tasks/task-1", headers=member)

    assert response.status_code == 204
    assert response.content == b""


async def test_an_answer_may_stream(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    response = await client.get("/v1/export", headers=member)

    assert response.text == "one\ntwo\n"
    assert response.headers["isa-correlation-id"]


async def test_an_anonymous_route_wants_no_token(client: httpx.AsyncClient, spool: FakeSpool) -> None:
    assert (await client.post("/v1/login", json={"label": "alice"})).status_code == 200
    problem_of(await client.post("/v1/login", json={}), 422)
    assert spool.records == []


async def test_the_api_describes_itself_with_its_tokens(client: httpx.AsyncClient) -> None:
    described = (await client.get("/openapi.json")).json()
    create = described["paths"]["/v1/tasks"]["post"]

    assert described["info"]["description"] == "Tasks, for a test."
    assert described["components"]["securitySchemes"]["HTTPBearer"]["scheme"] == "bearer"
    assert create["summary"] == "Create a task."
    assert create["security"] == [{"HTTPBearer": []}]
    assert "security" not in described["paths"]["/v1/login"]["post"]
    assert "caller" not in str(create["parameters"])
    assert (await client.get("/docs")).status_code == 200


async def test_health_tells_started_from_ready(client: httpx.AsyncClient) -> None:
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/readyz")).status_code == 503


async def test_metrics_are_served(client: httpx.AsyncClient, member: dict[str, str]) -> None:
    await client.get("/v1/tasks", headers=member)

    assert 'isa_requests_total{code="OK",method="GET /v1/tasks"' in (await client.get("/metrics")).text


@pytest.mark.parametrize(
    "headers",
    [{}, {"dapr-api-token": "wrong"}, {"dapr-api-token": ""}, {"dapr-api-token": TOKEN, "dapr-caller-app-id": "x"}],
)
async def test_the_log_level_is_not_everybodys(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    problem_of(await client.put("/-/log-level", content="DEBUG", headers=headers), 403)


async def test_an_operator_changes_the_log_level_of_a_running_process(client: httpx.AsyncClient) -> None:
    headers = {"dapr-api-token": TOKEN}
    before = telemetry.LEVEL.name

    changed = await client.put("/-/log-level", content="warning\n", headers=headers)
    wrong = await client.put("/-/log-level", content="LOUD", headers=headers)
    asked = await client.get("/-/log-level", headers=headers)
    telemetry.LEVEL.set(before)

    assert changed.text == asked.text == "WARNING"
    assert problem_of(wrong, 400)["errors"][0]["field"] == "body"


async def test_without_an_app_token_nothing_passes_for_the_sidecar(issuer: Issuer, spool: FakeSpool) -> None:
    app = http_app(Handlers(), title="tasks", chain=issuer.chain(spool), max_body=1000)
    operations(app, Health(), token="")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://tasks") as client:
        response = await client.get("/-/log-level", headers={"dapr-api-token": ""})

    problem_of(response, 403)
