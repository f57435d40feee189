"""Dapr's blocks: what goes to the sidecar, and its answers as our errors."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import grpc
import httpx
import pytest
from dapr.proto.runtime.v1 import pubsub_pb2, secret_pb2, state_pb2

from isa_common import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    IsaError,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from kernel.call import CORRELATION
from kernel.caller import Caller
from kernel.dapr.bindings import Bindings
from kernel.dapr.invoke import Invoke
from kernel.dapr.jobs import Jobs
from kernel.dapr.pubsub import PubSub, component_of
from kernel.dapr.secrets import Secrets
from kernel.dapr.sidecar import Sidecar
from kernel.dapr.state import Put, Remove, State, Versioned, packed, unpacked
from kernel.events import Record

NOTHING = grpc.aio.Metadata()


def refusal(code: grpc.StatusCode, details: str = "redis at 10.0.0.7 said no") -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, NOTHING, NOTHING, details)


class FakeSidecar:
    """A sidecar that answers what the test laid out, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, Any]] = []
        self.metadata = [("dapr-api-token", "t")]

    @property
    def stub(self) -> Any:
        return self

    def __getattr__(self, method: str) -> Callable[..., Any]:
        async def call(request: Any, *, timeout: float, metadata: Any) -> Any:
            assert timeout > 0
            assert metadata == self.metadata
            self.asked.append((method, request))
            answer = self.answers.get(method)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


@pytest.fixture
def sidecar() -> Any:
    return FakeSidecar()


def record(number: int) -> Record:
    return Record(
        event_id=f"event-{number}",
        topic="task.created",
        key=f"task-{number}",
        payload=b"\x00\xff",
        headers={"ce_id": "1"},
    )


async def test_records_are_published_raw_with_their_key_and_headers(sidecar: FakeSidecar) -> None:
    sidecar.answers["BulkPublishEvent"] = pubsub_pb2.BulkPublishResponse()

    assert await PubSub(sidecar).publish("task.created", [record(1), record(2)]) == set()  # type: ignore[arg-type]

    [(_, request)] = sidecar.asked
    assert (request.pubsub_name, request.topic, dict(request.metadata)) == (
        "events",
        "task.created",
        {"rawPayload": "true"},
    )
    assert [entry.event for entry in request.entries] == [b"\x00\xff"] * 2
    assert dict(request.entries[1].metadata) == {"ce_id": "1", "partitionKey": "task-2"}


async def test_what_the_broker_did_not_take_is_told_by_event(sidecar: FakeSidecar) -> None:
    failed = pubsub_pb2.BulkPublishResponseFailedEntry(entry_id="1", error="no")
    sidecar.answers["BulkPublishEvent"] = pubsub_pb2.BulkPublishResponse(failedEntries=[failed])

    failed_ids = await PubSub(sidecar).publish("task.created", [record(1), record(2)])  # type: ignore[arg-type]

    assert failed_ids == {"event-2"}


@pytest.mark.parametrize(
    ("topic", "component"),
    [
        ("task.created", "events"),
        ("task.created.dlq", "events"),
        ("audit.recorded", "audit"),
        ("audit.recorded.dlq", "audit"),
        ("control.changed", "control"),
    ],
)
def test_each_topic_has_its_component(topic: str, component: str) -> None:
    assert component_of(topic) == component


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.ABORTED, Aborted),
        (grpc.StatusCode.PERMISSION_DENIED, PermissionDenied),
        (grpc.StatusCode.UNKNOWN, Internal),
    ],
)
async def test_the_sidecars_refusals_are_ours_and_name_no_engine(
    sidecar: FakeSidecar, code: grpc.StatusCode, expected: type[IsaError]
) -> None:
    sidecar.answers["BulkPublishEvent"] = refusal(code)

    with pytest.raises(expected) as refused:
        await PubSub(sidecar).publish("task.created", [record(1)])  # type: ignore[arg-type]

    assert "10.0.0.7" not in str(refused.value)


@pytest.fixture
def state(sidecar: Any) -> State:
    return State(sidecar)


async def test_a_value_comes_with_its_etag(sidecar: FakeSidecar, state: State) -> None:
    sidecar.answers["GetState"] = state_pb2.GetStateResponse(data=packed({"a": 1}), etag="7")
    assert await state.get("k") == Versioned({"a": 1}, "7")

    sidecar.answers["GetState"] = state_pb2.GetStateResponse()
    assert await state.get("k") == Versioned(None, "")


async def test_many_values_come_for_every_key_that_was_asked(sidecar: FakeSidecar, state: State) -> None:
    item = state_pb2.BulkStateItem(key="a", data=packed(1), etag="7")
    sidecar.answers["GetBulkState"] = state_pb2.GetBulkStateResponse(items=[item])

    assert await state.get_many(["a", "b"]) == {"a": Versioned(1, "7"), "b": Versioned(None, "")}


async def test_a_value_that_the_store_cannot_read_is_not_told_as_none(sidecar: FakeSidecar, state: State) -> None:
    item = state_pb2.BulkStateItem(key="a", error="cipher: message authentication failed")
    sidecar.answers["GetBulkState"] = state_pb2.GetBulkStateResponse(items=[item])

    with pytest.raises(Internal):
        await state.get_many(["a"])


async def test_writes_go_in_one_transaction_with_their_etags(sidecar: FakeSidecar, state: State) -> None:
    await state.transact([Put("a", {"x": 1}, "7"), Put("b", 2), Remove("c", "8")])

    [(_, request)] = sidecar.asked
    kinds = [(item.operationType, item.request.key, item.request.etag.value) for item in request.operations]
    assert kinds == [("upsert", "a", "7"), ("upsert", "b", ""), ("delete", "c", "8")]
    assert not request.operations[1].request.HasField("etag")
    assert unpacked(request.operations[0].request.value) == {"x": 1}


@pytest.mark.parametrize(
    "answer",
    [
        refusal(grpc.StatusCode.ABORTED),
        refusal(grpc.StatusCode.INTERNAL, "possible etag mismatch. error from state store"),
        refusal(grpc.StatusCode.INTERNAL, "ETag: stale"),
    ],
)
async def test_a_stale_etag_is_told_as_one(sidecar: FakeSidecar, state: State, answer: Exception) -> None:
    sidecar.answers["ExecuteStateTransaction"] = answer

    with pytest.raises(PreconditionFailed):
        await state.put("a", 1, etag="7")
    with pytest.raises(PreconditionFailed):
        await state.delete("a", etag="7")


async def test_another_failure_of_the_store_is_no_stale_etag(sidecar: FakeSidecar, state: State) -> None:
    sidecar.answers["ExecuteStateTransaction"] = refusal(grpc.StatusCode.INTERNAL, "disk full")

    with pytest.raises(Internal):
        await state.put("a", 1, etag="7")


async def test_every_read_of_a_secret_is_noted_whatever_came_of_it(sidecar: Any) -> None:
    reads: list[tuple[str, str]] = []
    secrets = Secrets(sidecar, on_read=lambda name, outcome: reads.append((name, outcome)))

    sidecar.answers["GetSecret"] = secret_pb2.GetSecretResponse(data={"key": "value\n"})
    assert await secrets.get("key") == "value\n"
    with pytest.raises(FailedPrecondition):
        await secrets.get("other")
    sidecar.answers["GetSecret"] = refusal(grpc.StatusCode.PERMISSION_DENIED)
    with pytest.raises(PermissionDenied):
        await secrets.get("key")

    assert [name for name, _ in reads] == ["key", "other", "key"]
    assert reads[0][1] == "OK"
    assert reads[2][1] != "OK"


async def test_a_job_is_scheduled_over_the_one_of_its_name(sidecar: Any) -> None:
    jobs = Jobs(sidecar)

    await jobs.schedule("reminder-1", datetime(2026, 3, 1, 12, tzinfo=UTC), data={"n": 1})
    await jobs.schedule("daily", schedule="0 0 7 * * *")

    once, daily = (request for _, request in sidecar.asked)
    assert once.overwrite
    assert (once.job.name, once.job.due_time, once.job.data.value) == (
        "reminder-1",
        "2026-03-01T12:00:00+00:00",
        b'{"n":1}',
    )
    assert (daily.job.schedule, daily.job.HasField("due_time")) == ("0 0 7 * * *", False)


async def test_a_job_that_is_not_there_is_deleted_all_the_same(sidecar: Any) -> None:
    sidecar.answers["DeleteJob"] = refusal(grpc.StatusCode.NOT_FOUND)
    await Jobs(sidecar).delete("reminder-1")

    sidecar.answers["DeleteJob"] = refusal(grpc.StatusCode.UNAVAILABLE)
    with pytest.raises(Unavailable):
        await Jobs(sidecar).delete("reminder-1")


async def test_a_binding_is_used_where_it_is_configured(sidecar: Any) -> None:
    sidecar.answers["GetMetadata"] = SimpleNamespace(registered_components=[SimpleNamespace(name="email")])
    sidecar.answers["InvokeBinding"] = SimpleNamespace(data=b"sent")
    bindings = Bindings(sidecar)

    assert await bindings.has("email")
    assert not await bindings.has("sms")
    assert await bindings.invoke("email", "create", b"Hello.", {"emailTo": "a@b.example"}) == b"sent"


def invoke_with(handler: Callable[[httpx.Request], httpx.Response], monkeypatch: pytest.MonkeyPatch) -> Invoke:
    async def token() -> str:
        return "workload-token"

    invoke = Invoke(base_url="http://sidecar", api_token="t", token=token)
    client = httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://sidecar")
    monkeypatch.setattr(invoke, "_client", client)
    return invoke


async def test_another_room_is_called_as_ourselves_for_the_caller(
    monkeypatch: pytest.MonkeyPatch, alice: Caller
) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"ok": True})

    invoke = invoke_with(handler, monkeypatch)
    correlation = CORRELATION.set("correlation-1")
    try:
        assert await invoke.post("users", "/v1/x", json={"a": 1}, caller=alice) == {"ok": True}
        await invoke.get("users", "/keys", anonymous=True)
    finally:
        CORRELATION.reset(correlation)

    first, second = seen
    assert first.url.path == "/v1.0/invoke/users/method/v1/x"
    assert first.headers["authorization"] == "Bearer workload-token"
    assert (first.headers["isa-org"], first.headers["isa-user"]) == ("org-a", "user-alice")
    assert first.headers["isa-correlation-id"] == "correlation-1"
    assert "authorization" not in second.headers


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (404, {"detail": "No such user."}, NotFound),
        (401, {"detail": "Who?"}, Unauthenticated),
        (403, {"detail": "No."}, PermissionDenied),
        (409, {"detail": "Taken."}, Aborted),
        (412, {"detail": "Stale."}, FailedPrecondition),
        (429, {"detail": "Slowly."}, ResourceExhausted),
        (503, {"detail": "Starting."}, Unavailable),
        (502, {}, Unavailable),
        (418, {}, Internal),
        (500, {"errorCode": "ERR_DIRECT_INVOKE", "message": "no host at 10.0.0.7"}, Unavailable),
        (403, {"errorCode": "ERR_DIRECT_INVOKE", "message": "acl"}, Unavailable),
        (500, [], Unavailable),
    ],
)
async def test_another_rooms_refusal_is_ours(
    monkeypatch: pytest.MonkeyPatch, status: int, body: object, expected: type[IsaError]
) -> None:
    invoke = invoke_with(lambda _: httpx.Response(status, json=body), monkeypatch)

    with pytest.raises(expected) as refused:
        await invoke.get("users", "/v1/x")

    assert "10.0.0.7" not in str(refused.value)


@pytest.mark.parametrize(
    "headers", [{"content-type": "application/json"}, {"content-type": "application/problem+json"}]
)
async def test_an_answer_that_is_no_json_is_told_by_its_status(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    invoke = invoke_with(lambda _: httpx.Response(503, content=b"<html>", headers=headers), monkeypatch)

    with pytest.raises(Unavailable):
        await invoke.get("users", "/v1/x")


@pytest.mark.parametrize(
    ("failure", "expected"), [(httpx.ReadTimeout("slow"), DeadlineExceeded), (httpx.ConnectError("no"), Unavailable)]
)
async def test_a_room_that_is_not_reached_is_told_so(
    monkeypatch: pytest.MonkeyPatch, failure: Exception, expected: type[IsaError]
) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise failure

    with pytest.raises(expected):
        await invoke_with(handler, monkeypatch).get("users", "/v1/x")


def test_calls_to_the_sidecar_carry_its_token_where_there_is_one() -> None:
    with_token = Sidecar(host="127.0.0.1", grpc_port=1, http_port=2, token="t")
    without = Sidecar(host="127.0.0.1", grpc_port=1, http_port=2, token="")

    assert ("dapr-api-token", "t") in with_token.metadata
    assert not any(name == "dapr-api-token" for name, _ in without.metadata)


async def test_an_answer_keeps_the_code_reason_and_details_that_its_room_gave_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = {"detail": "Taken.", "code": "ALREADY_EXISTS", "reason": "ADDRESS_TAKEN", "details": {"address": "a@b"}}
    invoke = invoke_with(lambda _: httpx.Response(409, json=body), monkeypatch)

    with pytest.raises(AlreadyExists, match="Taken") as refused:
        await invoke.get("users", "/v1/x")

    assert (refused.value.reason, refused.value.details) == ("ADDRESS_TAKEN", {"address": "a@b"})
