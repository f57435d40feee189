"""A plain class behind a contract: all four kinds of calls, the chain around each, and starts that are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc

from isa.policy.v1 import policy_pb2
from isa_common import Aborted, Internal, NotFound
from kernel.call import Call
from kernel.caller import Caller
from kernel.rpc.binding import Unbindable, bind, python_name, rule_of, service_named
from kernel.rpc.callbacks import Delivered
from kernel.rpc.server import Adapter, RpcServer

KINDS = {"One": (False, False), "Many": (False, True), "Sum": (True, False), "Chat": (True, True)}


def contract(name: str, methods: dict[str, tuple[bool, bool]], *, permission: str | None = "words.read") -> str:
    """Put a service into the pool of contracts."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{name}.proto", package=name, syntax="proto3", dependency=["isa/policy/v1/policy.proto"]
    )
    word = file.message_type.add(name="Word")
    for number, field in enumerate(("text", "org_id", "user_id"), 1):
        word.field.add(name=field, number=number, type=9, label=1)
    service = file.service.add(name="Words")
    for method, (client, server) in methods.items():
        added = service.method.add(
            name=method, input_type=f".{name}.Word", output_type=f".{name}.Word",
            client_streaming=client, server_streaming=server,
        )  # fmt: skip
        if permission is not None:
            added.options.Extensions[policy_pb2.rule].permission = permission
        added.options.idempotency_level = descriptor_pb2.MethodOptions.IDEMPOTENT
    descriptor_pool.Default().Add(file)
    return f"{name}.Words"


WORDS = contract("test.words", KINDS)
Word = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("test.words.Word"))


class Words:
    """A service of all four kinds."""

    async def one(self, caller: Caller, request: Word) -> Word:
        match request.text:
            case "missing":
                error = NotFound("No such word.", field="text", retry_after=timedelta(seconds=2), word="missing")
                error.request_id = "request-1"
                raise error
            case "lost":
                raise Aborted("Somebody was faster.")
            case "slow":
                await asyncio.sleep(60)
        return Word(text=f"{caller.user} said {request.text}")

    async def many(self, caller: Caller, request: Word) -> AsyncIterator[Word]:
        for letter in request.text:
            yield Word(text=letter)
        if request.text == "forever":
            await asyncio.sleep(60)

    async def sum(self, caller: Caller, requests: AsyncIterator[Word]) -> Word:
        return Word(text="".join([word.text async for word in requests]))

    async def chat(self, caller: Caller, requests: AsyncIterator[Word]) -> AsyncIterator[Word]:
        async for word in requests:
            yield Word(text=word.text.upper())


class Chain:
    """Remembers calls; the caller is whom the metadata names."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.ended: list[str] = []

    @asynccontextmanager
    async def __call__(self, call: Call) -> AsyncIterator[None]:
        self.calls.append(call)
        call.caller = Caller(org="org-a", user=call.metadata.get("user", "nobody"))
        try:
            yield
        except ValueError:
            raise Internal("Something went wrong.") from None
        finally:
            self.ended.append(call.name)


@pytest.fixture
def chain() -> Chain:
    return Chain()


@pytest_asyncio.fixture
async def server(chain: Chain) -> AsyncIterator[RpcServer]:
    delivered: list[tuple[str, list[Delivered]]] = []

    async def deliver(topic: str, entries: list[Delivered]) -> list[str]:
        delivered.append((topic, entries))
        if topic == "broken":
            raise RuntimeError
        return ["SUCCESS" if entry.payload else "RETRY" for entry in entries]

    server = RpcServer("127.0.0.1:0", chain=chain, app_api_token="shown by the sidecar", deliver=deliver)
    server.add(Adapter(service=WORDS, implementation=Words()))
    await server.start()
    yield server
    await server.stop(timedelta(0))


@pytest_asyncio.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield channel


def stub(channel: grpc.aio.Channel, method: str):
    client, streams = KINDS[method]
    kind = f"{'stream' if client else 'unary'}_{'stream' if streams else 'unary'}"
    return getattr(channel, kind)(
        f"/{WORDS}/{method}", request_serializer=Word.SerializeToString, response_deserializer=Word.FromString
    )


async def test_a_unary_call_reaches_the_method_with_its_caller(channel: grpc.aio.Channel, chain: Chain) -> None:
    answer = await stub(channel, "One")(Word(text="hello"), metadata=(("user", "user-1"),), timeout=5)

    assert answer.text == "user-1 said hello"
    (call,) = chain.calls
    assert (call.name, call.rule.permission, call.rule.idempotent) == (f"{WORDS}/One", "words.read", True)
    assert call.timeout is not None  # what is left of the five seconds
    assert not call.is_stream


async def test_a_server_stream_a_client_stream_and_a_conversation_go_through_the_chain(
    channel: grpc.aio.Channel, chain: Chain
) -> None:
    async def words() -> AsyncIterator[Word]:
        for text in ("a", "b"):
            yield Word(text=text)

    assert [answer.text async for answer in stub(channel, "Many")(Word(text="xyz"))] == ["x", "y", "z"]
    assert (await stub(channel, "Sum")(words())).text == "ab"
    assert [answer.text async for answer in stub(channel, "Chat")(words())] == ["A", "B"]
    assert chain.ended == [f"{WORDS}/{method}" for method in ("Many", "Sum", "Chat")]
    assert all(call.is_stream and call.timeout is None for call in chain.calls)


async def test_an_error_carries_its_reason_details_field_pause_and_request(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(channel, "One")(Word(text="missing"))

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert caught.value.details() == "No such word."
    status = Status.FromString(dict(caught.value.trailing_metadata())["grpc-status-details-bin"])
    info, retry, bad, asked = ErrorInfo(), RetryInfo(), BadRequest(), RequestInfo()
    for detail in status.details:
        for message in (info, retry, bad, asked):
            detail.Unpack(message)
    assert (info.reason, info.domain, dict(info.metadata)) == ("NOT_FOUND", "isa.cloud", {"word": "missing"})
    assert retry.retry_delay.seconds == 2
    assert bad.field_violations[0].field == "text"
    assert asked.request_id == "request-1"


@pytest.mark.parametrize("field", ["org_id", "user_id"])
async def test_a_request_that_names_another_tenant_is_refused(channel: grpc.aio.Channel, field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(channel, "One")(Word(text="hello", **{field: "org-other"}), metadata=(("user", "user-1"),))

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_request_may_repeat_who_calls(channel: grpc.aio.Channel) -> None:
    request = Word(text="hello", org_id="org-a", user_id="user-1")

    assert (await stub(channel, "One")(request, metadata=(("user", "user-1"),))).text == "user-1 said hello"


async def test_each_message_of_a_stream_is_checked_for_its_tenant(channel: grpc.aio.Channel) -> None:
    async def words() -> AsyncIterator[Word]:
        yield Word(text="mine")
        yield Word(text="theirs", org_id="org-other")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub(channel, "Sum")(words())

    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_drain_ends_streams_that_have_no_end_and_lets_others_finish(
    server: RpcServer, channel: grpc.aio.Channel
) -> None:
    stream = stub(channel, "Many")(Word(text="forever"))
    received = [(await stream.read()).text for _ in "forever"]

    began = asyncio.get_running_loop().time()
    await server.stop(timedelta(seconds=20))

    assert received == list("forever")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert asyncio.get_running_loop().time() - began < 5


def test_a_method_without_a_rule_stops_the_start(chain: Chain) -> None:
    service = service_named(contract("test.unruled", {"One": (False, False)}, permission=None))

    with pytest.raises(Unbindable, match="has no rule"):
        bind(service, Words(), chain)


def test_a_permission_of_no_known_form_stops_the_start(chain: Chain) -> None:
    service = service_named(contract("test.misruled", {"One": (False, False)}, permission="everything"))

    with pytest.raises(Unbindable, match="everything"):
        bind(service, Words(), chain)


def test_a_missing_method_stops_the_start(chain: Chain) -> None:
    with pytest.raises(Unbindable, match=r"object\.one is missing"):
        bind(service_named(WORDS), object(), chain)


def test_a_method_of_another_kind_stops_the_start(chain: Chain) -> None:
    class Wrong(Words):
        async def many(self, caller: Caller, request: Word) -> Word:
            return Word()

    with pytest.raises(Unbindable, match="async generator"):
        bind(service_named(WORDS), Wrong(), chain)


def test_a_method_that_forgets_its_caller_stops_the_start(chain: Chain) -> None:
    class Wrong(Words):
        async def one(self, request: Word) -> Word:
            return Word()

    with pytest.raises(Unbindable, match="caller, request"):
        bind(service_named(WORDS), Wrong(), chain)


def test_an_unknown_contract_stops_the_start() -> None:
    with pytest.raises(Unbindable, match="No contract"):
        service_named("isa.nowhere.v1.Nothing")


def test_names_and_rules_come_from_the_contract() -> None:
    assert python_name("ExecuteBatch") == "execute_batch"
    rules = {method.name: rule_of(method) for method in service_named("isa.sql.v1.Sql").methods}
    assert rules["Query"].read_only and rules["Query"].idempotent
    assert not rules["ExecuteBatch"].idempotent
    assert rules["Execute"].permission == "sql.write"


async def test_health_says_serving_only_when_ready(server: RpcServer, channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)

    before = await health.Check(health_pb2.HealthCheckRequest(service=WORDS))
    await server.ready()
    after = await health.Check(health_pb2.HealthCheckRequest())

    assert before.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert after.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_batch_of_events_is_answered_entry_by_entry_to_our_own_sidecar_alone(
    channel: grpc.aio.Channel,
) -> None:
    from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc

    app = appcallback_pb2_grpc.AppCallbackStub(channel)
    entries = [
        appcallback_pb2.TopicEventBulkRequestEntry(entry_id="0", bytes=b"x", metadata={"__key": "k"}),
        appcallback_pb2.TopicEventBulkRequestEntry(entry_id="1"),
    ]
    batch = appcallback_pb2.TopicEventBulkRequest(topic="control.changed", entries=entries)
    token = ("dapr-api-token", "shown by the sidecar")

    answer = await app.OnBulkTopicEvent(batch, metadata=(token,))
    assert [(entry.entry_id, entry.status) for entry in answer.statuses] == [("0", 0), ("1", 1)]

    batch.topic = "broken"
    answer = await app.OnBulkTopicEvent(batch, metadata=(token,))
    assert [entry.status for entry in answer.statuses] == [1, 1]

    for metadata in ((), (("dapr-api-token", "guessed"),), (token, ("dapr-caller-app-id", "tasks"))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await app.OnBulkTopicEvent(batch, metadata=metadata)
        assert caught.value.code() in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)


async def test_metadata_and_messages_over_the_limits_are_refused(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as too_much:
        await stub(channel, "One")(Word(text="x"), metadata=(("user", "u" * 40_000),))
    with pytest.raises(grpc.aio.AioRpcError) as too_big:
        await stub(channel, "One")(Word(text="x" * (17 << 20)))

    assert too_much.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert too_big.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_port_in_use_is_said_so(server: RpcServer, chain: Chain) -> None:
    with pytest.raises((OSError, RuntimeError)):
        RpcServer(f"127.0.0.1:{server.port}", chain=chain)
