"""How the client behaves when the other side does not: on a real server here, whose answers a test writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import grpc
import pytest
import pytest_asyncio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from isa.sql.v1 import sql_pb2
from isa_common import (
    Aborted,
    Code,
    DeadlineExceeded,
    Isa,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unavailable,
)
from isa_common._breaker import Breaker
from isa_common._transport import _pool

PAGE = sql_pb2.QueryResponse(rows=sql_pb2.Rows(columns=[sql_pb2.Column(name="a", type="int8")], rows=b'[["1"]]'))
FETCHED = sql_pb2.FetchResponse(rows=PAGE.rows)
DONE = sql_pb2.ExecuteResponse(result=sql_pb2.Result(affected=1))


class Service:
    """A server whose next answers a test lays down: an answer, a status code, or something to call."""

    def __init__(self) -> None:
        self.answers: list[object] = []
        self.metadata: list[dict[str, str]] = []
        self.peers: set[str] = set()
        self.server: grpc.aio.Server | None = None
        self.port = 0

    async def start(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.server = grpc.aio.server()
        handlers = {
            "Query": grpc.unary_stream_rpc_method_handler(
                self.query, sql_pb2.QueryRequest.FromString, sql_pb2.QueryResponse.SerializeToString
            ),
            "Fetch": grpc.unary_unary_rpc_method_handler(
                self.fetch, sql_pb2.FetchRequest.FromString, sql_pb2.FetchResponse.SerializeToString
            ),
            "FetchMany": grpc.unary_stream_rpc_method_handler(
                self.fetch_many, sql_pb2.FetchManyRequest.FromString, sql_pb2.FetchManyResponse.SerializeToString
            ),
            "Execute": grpc.unary_unary_rpc_method_handler(
                self.execute, sql_pb2.ExecuteRequest.FromString, sql_pb2.ExecuteResponse.SerializeToString
            ),
            "ExecuteMany": grpc.unary_stream_rpc_method_handler(
                self.execute_many, sql_pb2.ExecuteManyRequest.FromString, sql_pb2.ExecuteManyResponse.SerializeToString
            ),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("isa.sql.v1.Sql", handlers),))
        if credentials is None:
            self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            self.port = self.server.add_secure_port(f"127.0.0.1:{self.port}", credentials)
        await self.server.start()

    async def stop(self) -> None:
        await self.server.stop(0)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def calls(self) -> int:
        return len(self.metadata)

    async def _next(self, context: grpc.aio.ServicerContext, default: object) -> object:
        self.metadata.append(dict(context.invocation_metadata()))
        self.peers.add(context.peer())
        answer = self.answers.pop(0) if self.answers else default
        match answer:
            case grpc.StatusCode():
                await context.abort(answer, "said by the server at 10.0.0.1:50061")
            case (grpc.StatusCode() as code, Status() as status):
                details = (("grpc-status-details-bin", status.SerializeToString()),)
                await context.abort(code, status.message, details)
            case float():
                await asyncio.sleep(answer)
                return default
        return answer

    async def query(self, request: object, context: grpc.aio.ServicerContext) -> AsyncIterator[object]:
        answer = await self._next(context, PAGE)
        if answer == "a page and then nothing":
            yield PAGE
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        else:
            yield answer

    async def fetch(self, request: object, context: grpc.aio.ServicerContext) -> object:
        return await self._next(context, FETCHED)

    async def fetch_many(
        self, request: sql_pb2.FetchManyRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[object]:
        answer = await self._next(context, FETCHED)
        for index in range(len(request.requests)):
            yield sql_pb2.FetchManyResponse(index=index, ok=answer)

    async def execute(self, request: object, context: grpc.aio.ServicerContext) -> object:
        return await self._next(context, DONE)

    async def execute_many(
        self, request: sql_pb2.ExecuteManyRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[object]:
        answer = await self._next(context, DONE)
        for index in range(len(request.requests)):
            yield sql_pb2.ExecuteManyResponse(index=index, ok=answer)


def status(code: Code, message: str, reason: str, *, wait: float = 0, **metadata: str) -> Status:
    status = Status(code=int(code), message=message)
    details = [ErrorInfo(reason=reason, domain="isa.cloud", metadata=metadata), RequestInfo(request_id="request-1")]
    if wait:
        details.append(RetryInfo())
        details[-1].retry_delay.FromTimedelta(timedelta(seconds=wait))
    for detail in details:
        packed = AnyMessage()
        packed.Pack(detail)
        status.details.append(packed)
    return status


@pytest_asyncio.fixture
async def service() -> AsyncIterator[Service]:
    service = Service()
    await service.start()
    yield service
    await service.stop()


@pytest_asyncio.fixture
async def isa(service: Service) -> AsyncIterator[Isa]:
    async with Isa(service.address, token="a token") as isa:
        yield isa


@pytest.mark.ac("isa-common-prd:E1-US2:1", "isa-common-prd:E1-US2:2", "isa-common-prd:E1-US2:3")
async def test_nothing_is_connected_before_the_first_call_and_the_connection_stays(service: Service) -> None:
    isa = Isa(service.address)
    assert _pool.get(asyncio.get_running_loop(), {}) == {}

    await isa.sql.query("SELECT 1")
    (link,) = _pool[asyncio.get_running_loop()].values()
    await isa.sql.query("SELECT 1")

    assert list(_pool[asyncio.get_running_loop()].values()) == [link]
    await isa.close()


@pytest.mark.ac("isa-common-prd:E1-US1:1", "isa-common-prd:E1-US1:4")
async def test_a_call_carries_token_correlation_and_what_the_hook_gives(service: Service) -> None:
    async def token() -> str:
        return "fresh"

    async with Isa(service.address, token=token, metadata=lambda: {"traceparent": "00-1-2-01"}) as isa:
        await isa.sql.acting_for(org="org-a", user="user-1").execute("SELECT 1")

    (metadata,) = service.metadata
    assert metadata["authorization"] == "Bearer fresh"
    assert metadata["traceparent"] == "00-1-2-01"
    assert (metadata["isa-org"], metadata["isa-user"]) == ("org-a", "user-1")
    assert len(metadata["isa-correlation-id"]) == 32
    assert "dapr-app-id" not in metadata


async def test_over_a_sidecar_each_capability_goes_to_its_app(service: Service) -> None:
    async with Isa(service.address, sidecar=True, sidecar_token="for the sidecar") as isa:
        await isa.sql.execute("SELECT 1")
        assert [row async for row in isa.sql.stream("SELECT 1")]

    write, read = service.metadata
    assert (write["dapr-app-id"], write["dapr-api-token"]) == ("postgres-grpc", "for the sidecar")
    assert "dapr-stream" not in write
    assert read["dapr-stream"] == "true"


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, "NOT_FOUND", NotFound),
        (grpc.StatusCode.ABORTED, "ABORTED", Aborted),
        (grpc.StatusCode.PERMISSION_DENIED, "SUSPENDED", PermissionDenied),
        (grpc.StatusCode.FAILED_PRECONDITION, "PRECONDITION_FAILED", PreconditionFailed),
    ],
)
async def test_an_error_has_its_class_code_details_and_request(
    service: Service, isa: Isa, code: grpc.StatusCode, reason: str, expected: type
) -> None:
    service.answers = [(code, status(Code(code.value[0]), "As the server says.", reason, task="7"))]

    with pytest.raises(expected) as caught:
        await isa.sql.execute("SELECT 1")

    error = caught.value
    assert (error.message, error.reason, error.details, error.request_id) == (
        "As the server says.", reason, {"task": "7"}, "request-1",
    )  # fmt: skip
    assert service.calls == 1


async def test_an_answer_that_is_too_large_says_so(service: Service, isa: Isa) -> None:
    service.answers = [sql_pb2.QueryResponse(rows=sql_pb2.Rows(rows=bytes(17 << 20)))]

    with pytest.raises(MessageTooLarge, match="16 MiB") as caught:
        await isa.sql.query("SELECT 1")

    assert caught.value.request_id


async def test_a_read_is_repeated_while_the_server_is_unavailable(service: Service, isa: Isa) -> None:
    service.answers = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE]

    assert (await isa.sql.query("SELECT 1"))[0]["a"] == 1
    assert service.calls == 3


async def test_a_write_is_sent_once(service: Service, isa: Isa) -> None:
    service.answers = [grpc.StatusCode.UNAVAILABLE]

    with pytest.raises(Unavailable) as caught:
        await isa.sql.execute("INSERT")

    assert service.calls == 1
    assert "10.0.0.1" not in caught.value.message


async def test_a_stream_that_broke_midway_is_not_repeated(service: Service, isa: Isa) -> None:
    service.answers = ["a page and then nothing"]

    with pytest.raises(Unavailable):
        assert [row async for row in isa.sql.stream("SELECT 1")]

    assert service.calls == 1


async def test_the_pause_that_the_server_asks_for_is_kept(service: Service, isa: Isa) -> None:
    busy = status(Code.RESOURCE_EXHAUSTED, "Later.", "RESOURCE_EXHAUSTED", wait=0.3)
    service.answers = [(grpc.StatusCode.RESOURCE_EXHAUSTED, busy)]

    began = time.monotonic()
    await isa.sql.query("SELECT 1")

    assert 0.3 <= time.monotonic() - began < 1.5
    assert service.calls == 2


async def test_a_pause_beyond_the_deadline_is_not_waited_for(service: Service, isa: Isa) -> None:
    busy = status(Code.RESOURCE_EXHAUSTED, "Later.", "RESOURCE_EXHAUSTED", wait=60)
    service.answers = [(grpc.StatusCode.RESOURCE_EXHAUSTED, busy)]

    began = time.monotonic()
    with pytest.raises(ResourceExhausted) as caught:
        await isa.sql.query("SELECT 1", timeout=timedelta(seconds=2))

    assert caught.value.retry_after == timedelta(seconds=60)
    assert time.monotonic() - began < 1


async def test_a_call_ends_at_its_deadline(service: Service, isa: Isa) -> None:
    service.answers = [5.0]

    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await isa.sql.execute("SELECT 1", timeout=timedelta(milliseconds=200))

    assert time.monotonic() - began < 1


@pytest.mark.ac("isa-common-prd:E1-US1:2")
@pytest.mark.parametrize("address", ["127.0.0.1:1", "no-such-host.invalid:50061"])
async def test_an_address_where_nobody_answers_is_a_clear_error(address: str) -> None:
    async with Isa(address, connect_timeout=timedelta(seconds=0.5)) as isa:
        with pytest.raises(Unavailable, match="is its address right"):
            await isa.sql.execute("SELECT 1")


async def test_a_sidecar_that_knows_no_such_app_means_unavailable(service: Service, isa: Isa) -> None:
    service.answers = [grpc.StatusCode.UNKNOWN, grpc.StatusCode.UNKNOWN]

    assert len(await isa.sql.query("SELECT 1")) == 1
    assert service.calls == 3


@pytest.mark.ac("isa-common-prd:E3-US1:1", "isa-common-prd:E3-US1:2", "isa-common-prd:E3-US1:3")
async def test_calls_go_on_within_two_seconds_when_a_server_comes_back(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    await service.stop()
    call = asyncio.create_task(isa.sql.query("SELECT 1"))
    await asyncio.sleep(1.0)

    await service.start()
    began = time.monotonic()
    await call

    assert time.monotonic() - began < 2


@pytest.mark.ac("isa-common-prd:E2-US1:1", "isa-common-prd:E3-US1:1", "isa-common-prd:E3-US1:4")
async def test_a_channel_that_was_closed_under_us_is_replaced_once_for_all(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    (link,) = _pool[asyncio.get_running_loop()].values()
    await link._channel.close()

    await asyncio.gather(*(isa.sql.execute("SELECT 1") for _ in range(50)))

    assert isa.reconnects == 1


@pytest.mark.ac("isa-common-prd:E3-US2:1", "isa-common-prd:E3-US2:2", "isa-common-prd:E3-US2:3")
async def test_an_outage_costs_at_most_one_rebuild_however_many_wait(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    await service.stop()
    waiting = [asyncio.create_task(isa.sql.query("SELECT 1")) for _ in range(100)]
    await asyncio.sleep(0.5)
    await service.start()

    await asyncio.gather(*waiting)

    assert isa.reconnects <= 1


@pytest.mark.ac(
    "isa-common-prd:E2-US2:1", "isa-common-prd:E2-US2:2", "isa-common-prd:E2-US2:3", "isa-common-prd:E2-US2:4"
)
async def test_health_is_a_look_at_the_channel_and_nothing_more(service: Service, isa: Isa) -> None:
    assert not isa.is_channel_healthy()
    await isa.sql.execute("SELECT 1")
    assert isa.is_channel_healthy()
    (link,) = _pool[asyncio.get_running_loop()].values()

    await link._channel.close()

    assert not isa.is_channel_healthy()
    assert isa.reconnects == 0


async def test_callers_who_wait_in_vain_do_not_rebuild_in_turn() -> None:
    async with Isa("127.0.0.1:1", connect_timeout=timedelta(seconds=0.3)) as isa:
        began = time.monotonic()
        ended = await asyncio.gather(*(isa.sql.execute("SELECT 1") for _ in range(50)), return_exceptions=True)

        assert all(isinstance(each, Unavailable) for each in ended)
        assert isa.reconnects <= 1
        assert time.monotonic() - began < 1


@pytest.mark.ac("isa-common-prd:NFR-001:2")
async def test_a_look_at_the_health_takes_less_than_a_millisecond(isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")

    began = time.perf_counter()
    for _ in range(1000):
        isa.is_channel_healthy()

    assert time.perf_counter() - began < 1.0


@pytest.mark.ac("isa-common-prd:E3-US3:1", "isa-common-prd:E3-US3:2")
async def test_a_reconnect_by_hand_lets_calls_in_flight_end(service: Service, isa: Isa) -> None:
    service.answers = [0.3]
    call = asyncio.create_task(isa.sql.execute("SELECT 1"))
    await asyncio.sleep(0.1)

    await isa.reconnect()

    assert (await call).affected == 1
    assert (await isa.sql.execute("SELECT 1")).affected == 1
    assert isa.reconnects == 1


@pytest.mark.ac(
    "isa-common-prd:E4-US1:1", "isa-common-prd:E4-US1:2", "isa-common-prd:E4-US1:3", "isa-common-prd:E4-US1:4"
)
async def test_clients_of_one_address_share_a_channel_that_the_last_one_closes(service: Service) -> None:
    first, second = Isa(service.address), Isa(service.address)
    await asyncio.gather(*(isa.sql.execute("SELECT 1") for isa in (first, second) for _ in range(20)))
    links = _pool[asyncio.get_running_loop()]
    (link,) = links.values()

    await first.close()
    assert link.is_healthy
    await second.close()

    assert links == {}
    assert not link.is_healthy


@pytest.mark.ac("isa-common-prd:E4-US2:1", "isa-common-prd:E4-US2:3", "isa-common-prd:E4-US2:4")
async def test_a_closed_client_connects_again_when_it_is_used(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    await isa.close()
    await isa.close()
    assert not isa.is_channel_healthy()

    assert (await isa.sql.execute("SELECT 1")).affected == 1


def test_each_loop_has_its_own_channels() -> None:
    async def use() -> int:
        service = Service()
        await service.start()
        async with Isa(service.address) as isa:
            await isa.sql.execute("SELECT 1")
            count = len(_pool[asyncio.get_running_loop()])
        await service.stop()
        return count

    assert [asyncio.run(use()), asyncio.run(use())] == [1, 1]


# The breaker


@pytest.fixture
def clock() -> Callable[[], float]:
    class Clock:
        now = 1000.0

        def __call__(self) -> float:
            return self.now

    return Clock()


def test_the_breaker_opens_after_failures_in_a_row_and_lets_one_through_after_a_pause(clock) -> None:
    breaker = Breaker(threshold=3, pause=timedelta(seconds=1), clock=clock)
    for _ in range(3):
        breaker.check()
        breaker.record(Code.UNAVAILABLE)

    with pytest.raises(Unavailable) as caught:
        breaker.check()
    assert caught.value.retry_after > timedelta(0)

    clock.now += 10
    breaker.check()
    with pytest.raises(Unavailable):
        breaker.check()
    breaker.record(Code.OK)
    breaker.check()
    assert not breaker.is_open


@pytest.mark.parametrize("code", [Code.NOT_FOUND, Code.INTERNAL, Code.PERMISSION_DENIED, Code.RESOURCE_EXHAUSTED])
def test_the_breaker_counts_no_refusal(clock, code: Code) -> None:
    breaker = Breaker(threshold=2, clock=clock)
    for _ in range(10):
        breaker.record(code)

    breaker.check()


def test_a_success_between_failures_keeps_the_breaker_closed(clock) -> None:
    breaker = Breaker(threshold=3, clock=clock)
    for _ in range(10):
        breaker.record(Code.DEADLINE_EXCEEDED)
        breaker.record(Code.DEADLINE_EXCEEDED)
        breaker.record(Code.OK)

    breaker.check()


async def test_a_dead_service_is_refused_at_once_after_some_calls() -> None:
    async with Isa("127.0.0.1:1", connect_timeout=timedelta(milliseconds=20)) as isa:
        for _ in range(10):
            with pytest.raises(Unavailable):
                await isa.sql.execute("SELECT 1")

        began = time.monotonic()
        with pytest.raises(Unavailable, match="waiting before the next"):
            await isa.sql.execute("SELECT 1")

    assert time.monotonic() - began < 0.01
