"""One channel an address and loop, whatever happens to the other side."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from isa_common import Code, DeadlineExceeded, InvalidArgument, Isa, Unavailable
from isa_common._breaker import Breaker
from isa_common._transport import _pool
from tests.unit.client.test_transport import Service


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


def link_of(isa: Isa) -> object:
    return isa._transport._links[asyncio.get_running_loop()]


@pytest.mark.ac("isa-common-prd:E1-US1:2")
@pytest.mark.parametrize(
    "target", ["", "localhost", "http://localhost:50001", "local host:1", "localhost:", "localhost:port", "a:b:1"]
)
def test_what_is_no_address_is_refused_at_once(target: str) -> None:
    with pytest.raises(InvalidArgument, match="give host:port") as caught:
        Isa(target)

    assert caught.value.field == "target"


@pytest.mark.parametrize(
    "target", ["localhost:1", "10.0.0.1:50051", "[::1]:50051", "dns:///redis.isa:50055", "unix:/a"]
)
def test_what_gRPC_can_reach_is_an_address(target: str) -> None:  # noqa: N802 -- its name
    Isa(target)


@pytest.mark.ac("isa-common-prd:E2-US1:2", "isa-common-prd:E2-US1:4")
async def test_a_ready_channel_is_looked_at_and_used(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    channel = link_of(isa)._channel

    for _ in range(20):
        await isa.sql.execute("SELECT 1")

    assert link_of(isa)._channel is channel
    assert (service.calls, isa.reconnects, isa.outages) == (21, 0, 0)


@pytest.mark.ac("isa-common-prd:NFR-001:1")
async def test_the_first_call_needs_no_second(service: Service) -> None:
    async with Isa(service.address, connect_timeout=timedelta(seconds=1), timeout=timedelta(seconds=1)) as isa:
        assert (await isa.sql.execute("SELECT 1")).affected == 1


@pytest.mark.ac("isa-common-prd:E1-US2:4", "isa-common-prd:E1-US1:3", "isa-common-prd:NFR-003:1")
async def test_many_clients_and_tasks_make_one_connection(service: Service) -> None:
    clients = [Isa(service.address, token=f"token {n}") for n in range(20)]
    await asyncio.gather(*(isa.sql.execute("SELECT 1") for isa in clients for _ in range(10)))

    assert len(service.peers) == 1
    for isa in clients:
        await isa.close()


@pytest.mark.ac("isa-common-prd:E2-US1:3", "isa-common-prd:E3-US1:2", "isa-common-prd:NFR-001:3")
async def test_an_outage_is_counted_and_costs_no_new_channel_when_it_is_short(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    await service.stop()
    waiting = asyncio.create_task(isa.sql.query("SELECT 1"))
    while not isa.outages:
        await asyncio.sleep(0.01)
    await service.start()

    await waiting

    assert (isa.outages, isa.reconnects) == (1, 0)


async def test_an_outage_that_lasts_gets_one_new_channel(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    await service.stop()
    waiting = [asyncio.create_task(isa.sql.query("SELECT 1")) for _ in range(50)]
    while not isa.reconnects:
        await asyncio.sleep(0.01)
    for _ in range(3):
        with pytest.raises(Unavailable):
            await isa.sql.query("SELECT 1", timeout=timedelta(milliseconds=300))
    await service.start()

    await asyncio.gather(*waiting)

    assert (isa.outages, isa.reconnects) == (1, 1)


async def test_a_short_deadline_does_not_wait_behind_a_long_one() -> None:
    async with Isa("127.0.0.1:1") as isa:
        long = asyncio.create_task(isa.sql.query("SELECT 1", timeout=timedelta(seconds=30)))
        await asyncio.sleep(0)
        began = time.monotonic()

        with pytest.raises((Unavailable, DeadlineExceeded)):
            await isa.sql.query("SELECT 1", timeout=timedelta(milliseconds=100))

        assert time.monotonic() - began < 2
        long.cancel()


async def test_nobody_goes_on_connecting_when_nobody_waits() -> None:
    async with Isa("127.0.0.1:1") as isa:
        with pytest.raises(Unavailable):
            await isa.sql.query("SELECT 1", timeout=timedelta(milliseconds=50))

        assert link_of(isa)._connector is None


@pytest.mark.ac("isa-common-prd:NFR-002:3", "isa-common-prd:E3-US2:4")
async def test_a_call_whose_channel_goes_away_is_unavailable_and_not_cancelled(service: Service, isa: Isa) -> None:
    service.answers = [30.0]
    call = asyncio.create_task(isa.sql.execute("SELECT 1"))
    while not service.calls:
        await asyncio.sleep(0.01)

    await link_of(isa)._channel.close()

    with pytest.raises(Unavailable) as caught:
        await call
    assert "closed" not in str(caught.value)
    assert service.calls == 1


@pytest.mark.ac("isa-common-prd:E3-US3:2", "isa-common-prd:E3-US3:3", "isa-common-prd:E3-US3:4")
async def test_a_reconnect_by_hand_closes_the_old_channel(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    old = link_of(isa)._channel

    await isa.reconnect()
    await isa.sql.execute("SELECT 1")

    assert isa.is_channel_healthy()
    assert isa.reconnects == 1
    assert len(service.peers) == 2
    while old.get_state() is not grpc.ChannelConnectivity.SHUTDOWN:
        await asyncio.sleep(0.01)


async def test_a_reconnect_before_the_first_call_connects(isa: Isa) -> None:
    await isa.reconnect()

    assert isa.is_channel_healthy()
    assert isa.reconnects == 0


@pytest.mark.ac("isa-common-prd:E4-US2:2", "isa-common-prd:E4-US2:4", "isa-common-prd:NFR-003:3")
async def test_clients_that_come_and_go_leave_nothing_behind(service: Service) -> None:
    async def use() -> None:
        async with Isa(service.address) as isa:
            await isa.sql.execute("SELECT 1")

    def files() -> int:
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir()))

    await use()
    before = files()
    for _ in range(20):
        await use()

    assert asyncio.get_running_loop() not in _pool
    async with asyncio.timeout(10):
        while files() > before + 2:
            await asyncio.sleep(0.05)


@pytest.mark.ac("isa-common-prd:NFR-003:2")
async def test_a_client_takes_little_memory(service: Service) -> None:
    async with Isa(service.address) as first:
        await first.sql.execute("SELECT 1")
        tracemalloc.start()
        clients = [Isa(service.address) for _ in range(10)]
        for isa in clients:
            await isa.sql.execute("SELECT 1")
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        for isa in clients:
            await isa.close()

    assert taken / len(clients) < 1_000_000


@pytest.mark.ac("isa-common-prd:E1-US2:4")
async def test_one_client_serves_several_loops(service: Service, isa: Isa) -> None:
    await isa.sql.execute("SELECT 1")
    done: list[int] = []

    async def use() -> None:
        done.append((await isa.sql.execute("SELECT 1")).affected)
        await isa.close()

    threads = [threading.Thread(target=asyncio.run, args=(use(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        await asyncio.sleep(0.01)

    assert done == [1, 1, 1]
    assert (await isa.sql.execute("SELECT 1")).affected == 1


async def test_failures_at_the_same_time_are_one_failure(service: Service, isa: Isa) -> None:
    service.answers = [grpc.StatusCode.UNAVAILABLE] * 50

    apart = [isa.sql.acting_for(org=f"org-{number}") for number in range(50)]  # calls of one client go together
    await asyncio.gather(*(sql.execute("SELECT 1") for sql in apart), return_exceptions=True)

    assert (await isa.sql.execute("SELECT 1")).affected == 1


def test_a_breaker_counts_calls_that_knew_of_the_last_failure() -> None:
    breaker = Breaker(threshold=3)
    for _ in range(10):
        breaker.record(Code.UNAVAILABLE, seen=0)
    assert breaker.failures == 1

    breaker.record(Code.UNAVAILABLE, seen=1)
    breaker.record(Code.UNAVAILABLE, seen=2)

    assert breaker.is_open


# Health


@pytest_asyncio.fixture
async def checked() -> AsyncIterator[tuple[str, health.aio.HealthServicer]]:
    server = grpc.aio.server()
    servicer = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}", servicer
    await server.stop(0)


async def test_health_is_asked_of_the_service(checked: tuple[str, health.aio.HealthServicer]) -> None:
    address, servicer = checked
    statuses = health_pb2.HealthCheckResponse
    async with Isa(address) as isa:
        assert not await isa.health("sql")
        await servicer.set("isa.sql.v1.Sql", statuses.SERVING)
        assert await isa.health("sql")
        await servicer.set("isa.sql.v1.Sql", statuses.NOT_SERVING)
        assert not await isa.health("sql")


async def test_where_nobody_answers_nothing_is_healthy() -> None:
    async with Isa("127.0.0.1:1") as isa:
        assert not await isa.health("sql", timeout=timedelta(milliseconds=100))


async def test_a_capability_that_no_app_is_known_for_is_refused(service: Service) -> None:
    async with Isa(service.address, sidecar=True) as isa:
        with pytest.raises(InvalidArgument, match="No app is known for graphs") as caught:
            await isa.health("graphs")

    assert caught.value.field == "app_ids"


# TLS


@pytest.fixture(scope="module")
def certificate() -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, signed.public_bytes(encoding)


@pytest.mark.ac("isa-common-prd:E4-US1:2")
async def test_a_channel_is_shared_by_address_and_credentials(certificate: tuple[bytes, bytes]) -> None:
    service = Service()
    await service.start(grpc.ssl_server_credentials([certificate]))
    address = f"localhost:{service.port}"

    async with (
        Isa(address, root_certificate=certificate[1]) as first,
        Isa(address, root_certificate=certificate[1]) as second,
        Isa(address, connect_timeout=timedelta(milliseconds=300)) as plain,
    ):
        await first.sql.execute("SELECT 1")
        await second.sql.execute("SELECT 1")
        with pytest.raises(Unavailable):
            await plain.sql.execute("SELECT 1")

        assert link_of(first) is link_of(second)
        assert link_of(plain) is not link_of(first)

    assert len(service.peers) == 1
    await service.stop()
