"""The infrastructure API beside the engines' own clients: token, tenant, share and audit are on, in every row of ours.

Contenders take turns in one process; the first round is thrown away. A ratio below its target's bound is met; the table
says which are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import grpc
import numpy
import orjson
import redis.asyncio as redis
import yaml
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import dapr_pb2_grpc, state_pb2

from bench.measure import Cpu, console, percentile, table
from bench.peers import edge, relay
from bench.stand import Stand
from isa.cache.v1 import cache_pb2
from isa_common import AlreadyExists, Entry, Isa, NotFound, Point
from isa_common._client import _APP_IDS
from runtime.processes import app_address, load_apps
from runtime.start import runtime_as_it_is

VALUE = b"v" * 100
AT_ONCE = 256
KEYS = 100
ROWS = 1000
LINES = 1000
MEBIBYTES = 256
PART_MEBIBYTES = 16
POINTS = 10_000
WIDE = 384

Work = Callable[[int], Awaitable[None]]


@dataclass(slots=True)
class Contender:
    """One way to do a piece of work, and what each round of it took."""

    name: str
    work: Work
    """Does the work that many times, and notes each time in `took` when single times matter."""
    is_single: bool = False
    """Whether its single calls are timed, and not its rounds."""
    took: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Row:
    """A line of the table: ours against a peer."""

    what: str
    ours: str
    peer: str
    ratio: float
    target: str
    is_met: bool

    def cells(self) -> Sequence[str]:
        """What the table shows."""
        verdict = "" if not self.target else "met" if self.is_met else "LOST"
        return (self.what, self.ours, self.peer, f"{self.ratio:.2f} x", self.target, verdict)


async def timed(contender: Contender, count: int, call: Callable[[], Awaitable[object]]) -> None:
    """Make calls one after another, and note what each took."""
    for _ in range(count):
        began = time.perf_counter()
        await call()
        contender.took.append(time.perf_counter() - began)


def one_by_one(name: str, call: Callable[[], Awaitable[object]]) -> Contender:
    """A contender whose single calls are timed."""
    contender = Contender(name, work=lambda count: timed(contender, count, call), is_single=True)
    return contender


def many(name: str, call: Callable[[], Awaitable[object]]) -> Contender:
    """A contender whose rounds are timed: each call does the whole of it."""

    async def work(count: int) -> None:
        for _ in range(count):
            await call()

    return Contender(name, work=work)


async def race(contenders: Sequence[Contender], *, rounds: int, count: int) -> None:
    """Let contenders take turns; what they do in the first round is not counted."""
    order, draw = list(contenders), random.Random(7)
    for turn in range(rounds + 1):
        at_a_time = 1 if contenders[0].is_single else count  # single calls take turns call by call
        for _ in range(count // at_a_time):
            draw.shuffle(order)  # or each would always pay for what the same one before it left behind
            for contender in order:
                began = time.perf_counter()
                await contender.work(at_a_time)
                contender.rates.append(at_a_time / (time.perf_counter() - began))
        if turn == 0:
            for contender in contenders:
                contender.took.clear()
                contender.rates.clear()


def p50(contender: Contender) -> float:
    """Median of the single calls, in microseconds."""
    return percentile(contender.took, 0.5) * 1e6


def rate(contender: Contender) -> float:
    """Median rate of the rounds."""
    return statistics.median(contender.rates)


def slower(what: str, ours: Contender, peer: Contender, bound: float | None) -> Row:
    """A row where less time is better."""
    ratio = p50(ours) / p50(peer)
    target = "" if bound is None else f"<= {bound} x"
    return Row(what, f"{p50(ours):.0f} us", f"{p50(peer):.0f} us {peer.name}", ratio, target, ratio <= (bound or ratio))


def faster(what: str, ours: Contender, peer: Contender, bound: float | None, *, each: int, unit: str) -> Row:
    """A row where more work in a second is better; each call does `each` of it."""
    ratio = rate(ours) / rate(peer)
    target = "" if bound is None else f">= {bound} x"
    return Row(
        what,
        f"{rate(ours) * each:,.0f} {unit}",
        f"{rate(peer) * each:,.0f} {peer.name}",
        ratio,
        target,
        ratio >= (bound or ratio),
    )


@dataclass(slots=True)
class Ground:
    """What every part of the measurement stands on."""

    stand: Stand
    token: str
    org: str
    pids: dict[str, int]

    def adapter(self, capability: str) -> str:
        """Address of the adapter that serves a capability."""
        return app_address(self.stand.layout, _APP_IDS[capability])

    @property
    def redis_url(self) -> str:
        """The engine's own address."""
        return f"redis://:{self.stand.secrets['redis-password']}@{self.stand.layout.address('redis')}/0"


@contextlib.asynccontextmanager
async def bare_relay(ground: Ground) -> AsyncIterator[tuple[str, int]]:
    """Run the peer; yield its address and process id."""
    port = ground.stand.layout.port(8895)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.peers.relay", str(port), ground.redis_url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    await process.stdout.readline()
    try:
        yield f"127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def dapr_state(ground: Ground) -> AsyncIterator[str]:
    """Run a sidecar with `state.redis` on the same Redis; yield its gRPC address."""
    layout = ground.stand.layout
    http, rpc, internal, metrics = (layout.port(number) for number in (8890, 8891, 8892, 8893))
    secrets = {"redisHost": layout.address("redis"), "redisPassword": ground.stand.secrets["redis-password"]}
    component = {
        "apiVersion": "dapr.io/v1alpha1",
        "kind": "Component",
        "metadata": {"name": "bench"},
        "spec": {
            "type": "state.redis",
            "version": "v1",
            "metadata": [{"name": name, "value": value} for name, value in secrets.items()],
        },
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bench.yaml").write_text(yaml.safe_dump(component))
        process = await asyncio.create_subprocess_exec(
            str(runtime_as_it_is(layout).engines.binary("dapr", "daprd")), "--app-id", "bench-state",
            "--dapr-http-port", str(http), "--dapr-grpc-port", str(rpc), "--dapr-internal-grpc-port", str(internal),
            "--metrics-port", str(metrics), "--resources-path", folder, "--dapr-listen-addresses", "127.0.0.1",
            "--log-level", "error", env={**os.environ, "DAPR_API_TOKEN": ""},
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as client:
                for _ in range(300):
                    with contextlib.suppress(aiohttp.ClientError):
                        async with client.get(f"http://127.0.0.1:{http}/v1.0/healthz/outbound") as answer:
                            if answer.ok:
                                break
                    await asyncio.sleep(0.1)
            yield f"127.0.0.1:{rpc}"
        finally:
            process.terminate()
            await process.wait()


async def cache(ground: Ground, rounds: int) -> list[Row]:
    """One key, 256 single keys at a time, and 100 keys in one call."""
    direct = redis.from_url(ground.redis_url, max_connections=AT_ONCE)
    names = [f"bench-{number}" for number in range(AT_ONCE)]
    async with contextlib.AsyncExitStack() as stack:
        relayed, relay_pid = await stack.enter_async_context(bare_relay(ground))
        sidecar = await stack.enter_async_context(dapr_state(ground))
        isa = await stack.enter_async_context(Isa(ground.adapter("cache"), token=ground.token))
        for name in names:
            await isa.cache.set(name, VALUE)
            await direct.set(name, VALUE)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(sidecar))
        dapr = dapr_pb2_grpc.DaprStub(channel)  # type: ignore[no-untyped-call]  # generated
        for name in names:
            items = [common_pb2.StateItem(key=name, value=VALUE)]
            await dapr.SaveState(state_pb2.SaveStateRequest(store_name="bench", states=items))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(relayed))
        write, read = cache_pb2.GetRequest.SerializeToString, cache_pb2.GetResponse.FromString
        get = channel.unary_unary("/isa.cache.v1.Cache/Get", write, read)
        echo = channel.unary_unary(relay.ECHO)
        served = await stack.enter_async_context(grpc.aio.insecure_channel(ground.adapter("cache")))
        ours_bare = served.unary_unary("/isa.cache.v1.Cache/Get", write, read)
        bearer = (("authorization", f"Bearer {ground.token}"),)
        request = cache_pb2.GetRequest(key=names[0])

        whole = one_by_one("isa.cache.get", lambda: isa.cache.get(names[0]))
        server = one_by_one("our adapter, bare stub", lambda: ours_bare(request, metadata=bearer))
        bare = one_by_one("bare relay", lambda: get(request))
        echoed = one_by_one("bare echo", lambda: echo(b"x" * 100))
        state = one_by_one(
            "Dapr state", lambda: dapr.GetState(state_pb2.GetStateRequest(store_name="bench", key=names[0]))
        )
        cpu = Cpu({"redis-grpc": ground.pids["redis-grpc"], "relay": relay_pid})
        await race([whole, server, bare, echoed, state], rounds=rounds, count=300)
        cpu.start()
        await server.work(2000)
        ours_cost = cpu.per_operation(2000)["redis-grpc"]
        cpu.start()
        await bare.work(2000)
        console.print(
            f"CPU of one Get: redis-grpc {ours_cost:.0f} us, bare relay {cpu.per_operation(2000)['relay']:.0f} us"
        )

        single = many("isa", lambda: asyncio.gather(*(isa.cache.get(name) for name in names)))
        plain = many("redis-py", lambda: asyncio.gather(*(direct.get(name) for name in names)))
        keyed = many(
            "Dapr state",
            lambda: asyncio.gather(
                *(dapr.GetState(state_pb2.GetStateRequest(store_name="bench", key=name)) for name in names)
            ),
        )
        await race([single, plain, keyed], rounds=rounds, count=5)

        async def pipelined() -> None:
            async with direct.pipeline(transaction=False) as pipe:
                for name in names[:KEYS]:
                    pipe.get(name)
                await pipe.execute()

        batch = one_by_one("isa", lambda: isa.cache.get_many(names[:KEYS]))
        pipe = one_by_one("redis-py pipeline", pipelined)
        await race([batch, pipe], rounds=rounds, count=100)
        await direct.aclose()
    return [
        slower("unary Get, p50, a bare stub at both", server, bare, 1.15),
        slower("  by isa-common", whole, bare, None),
        slower("  against a bare echo", whole, echoed, None),
        slower("  against Dapr's state get", whole, state, None),
        faster("256 single Gets at a time", single, keyed, 5.0, each=AT_ONCE, unit="Get/s"),
        faster("  against redis-py", single, plain, 1.0, each=AT_ONCE, unit="Get/s"),
        slower("MGet of 100, p50", batch, pipe, 1.0),
    ]


COLUMNS = "id int8, name text, created timestamptz, price numeric(10, 2), tags jsonb, is_open bool"
SELECT = "SELECT id, name, created, price, tags, is_open FROM bench_rows ORDER BY id"
FILL = (
    "INSERT INTO bench_rows SELECT n, 'name ' || n, now(), n * 1.25, jsonb_build_object('n', n, 'tag', 'x'), n % 2 = 0 "
    f"FROM generate_series(1, {ROWS}) AS n"
)


async def sql(ground: Ground, rounds: int) -> list[Row]:
    """A page of 1,000 rows."""
    url = ground.stand.database_url("bench")
    admin = await asyncpg.connect(ground.stand.database_url("postgres"))
    if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = 'bench'"):
        await admin.execute("CREATE DATABASE bench")
    await admin.close()
    direct = await asyncpg.connect(url)
    async with Isa(ground.adapter("sql"), token=ground.token) as isa:
        for run in (direct.execute, isa.sql.execute):
            await run("DROP TABLE IF EXISTS bench_rows")
            await run(f"CREATE TABLE bench_rows ({COLUMNS})")
            await run(FILL)
        ours = many("isa", lambda: isa.sql.query(SELECT))
        peer = many("asyncpg", lambda: direct.fetch(SELECT))
        await race([ours, peer], rounds=rounds, count=50)
    await direct.close()
    return [faster("SQL page of 1,000 rows", ours, peer, 0.6, each=ROWS, unit="rows/s")]


async def logs(ground: Ground, rounds: int) -> list[Row]:
    """A push of 1,000 lines."""
    address = ground.stand.layout.address("loki")
    headers = {"X-Scope-OrgID": "org-bench", "content-type": "application/json"}
    count = 0

    async with Isa(ground.adapter("logs"), token=ground.token) as isa, aiohttp.ClientSession() as client:

        def lines() -> list[tuple[datetime, str]]:
            nonlocal count
            count += 1
            now = datetime.now(UTC)
            return [
                (now + timedelta(microseconds=n), f"GET /v1/orders/{count}-{n} 200 took 17 ms") for n in range(LINES)
            ]

        async def push() -> None:
            await isa.logs.push([Entry(line, time, {"service": "bench", "level": "info"}) for time, line in lines()])

        async def post() -> None:
            values = [[str(int(time.timestamp() * 1e9)), line] for time, line in lines()]
            body = {"streams": [{"stream": {"service": "bench", "level": "info"}, "values": values}]}
            url = f"http://{address}/loki/api/v1/push"
            async with client.post(url, data=orjson.dumps(body), headers=headers) as answer:
                answer.raise_for_status()

        ours, peer = many("isa", push), many("POST to Loki", post)
        await race([ours, peer], rounds=rounds, count=20)
    return [faster("log push of 1,000 lines", ours, peer, 0.8, each=LINES, unit="lines/s")]


async def objects(ground: Ground, rounds: int) -> list[Row]:
    """An object of 256 MiB, up and down."""
    layout, secrets = ground.stand.layout, ground.stand.secrets
    block = os.urandom(1 << 20)

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(MEBIBYTES):
            yield block

    session = get_session()
    client = session.create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=f"http://{layout.address('minio')}",
        aws_access_key_id=secrets["minio-access-key"],
        aws_secret_access_key=secrets["minio-secret-key"],
        config=AioConfig(s3={"addressing_style": "path"}),
    )
    async with client as s3, Isa(ground.adapter("objects"), token=ground.token) as isa:
        with contextlib.suppress(AlreadyExists):
            await isa.objects.create_bucket("bench")
        with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
            await s3.create_bucket(Bucket="bench-peer")

        async def put() -> None:
            made = await s3.create_multipart_upload(Bucket="bench-peer", Key="large")
            place = {"Bucket": "bench-peer", "Key": "large", "UploadId": made["UploadId"]}
            body = block * PART_MEBIBYTES

            async def part(number: int) -> dict[str, object]:
                async with limit:
                    done = await s3.upload_part(**place, PartNumber=number, Body=body)
                return {"PartNumber": number, "ETag": done["ETag"]}

            limit = asyncio.Semaphore(4)
            parts = await asyncio.gather(*(part(number + 1) for number in range(MEBIBYTES // PART_MEBIBYTES)))
            await s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})

        async def get() -> None:
            answer = await s3.get_object(Bucket="bench-peer", Key="large")
            async with answer["Body"] as body:
                await body.read()

        async def chunks() -> None:
            answer = await s3.get_object(Bucket="bench-peer", Key="large")
            async with answer["Body"] as body:
                async for _ in body.iter_chunks(1 << 20):
                    pass

        async def read() -> None:
            async for _ in isa.objects.read("bench", "large", timeout=timedelta(minutes=2)):
                pass

        whole = MEBIBYTES << 20
        ours_up = many(
            "isa", lambda: isa.objects.put("bench", "large", blocks(), size=whole, timeout=timedelta(minutes=2))
        )
        peer_up = many("aiobotocore", put)
        await race([ours_up, peer_up], rounds=min(rounds, 3), count=1)
        ours_down, whole_down, chunks_down = many("isa", read), many("aiobotocore", get), many("aiobotocore", chunks)
        await race([ours_down, whole_down, chunks_down], rounds=min(rounds, 3), count=1)
    return [
        faster(f"object of {MEBIBYTES} MiB, up", ours_up, peer_up, 0.6, each=MEBIBYTES, unit="MiB/s"),
        faster("  down, against its read()", ours_down, whole_down, 0.6, each=MEBIBYTES, unit="MiB/s"),
        faster("  down, against its iter_chunks()", ours_down, chunks_down, 0.6, each=MEBIBYTES, unit="MiB/s"),
    ]


async def vectors(ground: Ground, rounds: int) -> list[Row]:
    """The ten nearest of 10,000, and of 100,000 vectors of 384 dimensions, beside the engine in this process."""
    rows = []
    draw = numpy.random.default_rng(7)
    questions = itertools.cycle(draw.random((100, WIDE), numpy.float32).tolist())

    def ask(shard: Any) -> int:
        return edge.search(shard, next(questions))

    async with Isa(ground.adapter("vectors"), token=ground.token) as isa:
        for count in (POINTS, 10 * POINTS):
            made = draw.random((count, WIDE), numpy.float32)
            with contextlib.suppress(NotFound):
                await isa.vectors.delete_collection("bench")
            await isa.vectors.create_collection("bench", dimension=WIDE)
            points = (Point(number, vector, {"n": number}) for number, vector in enumerate(made))
            await isa.vectors.upsert("bench", points, timeout=timedelta(minutes=2))
            with tempfile.TemporaryDirectory() as folder:
                shard = edge.shard(folder, made)
                ours = one_by_one("isa", lambda: isa.vectors.search("bench", next(questions), limit=edge.LIMIT))
                peer = one_by_one("qdrant-edge", partial(asyncio.to_thread, ask, shard))
                await race([ours, peer], rounds=rounds, count=50)
                shard.close()
            rows.append(slower(f"search in {count:,} vectors, p50", ours, peer, 1.3))
    return rows


PARTS = {"cache": cache, "sql": sql, "logs": logs, "objects": objects, "vectors": vectors}


async def run(*, rounds: int, only: Sequence[str]) -> None:
    """Start the set, measure, print, stop."""
    stand = Stand.ours()
    adapters = [app.name for app in load_apps() if app.is_grpc]
    stand.isa("start", "users", "audit", *adapters)
    try:
        org, token = await stand.sign_up("Bench")
        ground = Ground(stand, token, org, await stand.pids())
        rows: list[Row] = []
        for name, part in PARTS.items():
            if not only or name in only:
                rows += await part(ground, rounds)
        headings = ("what", "ours", "peer", "ratio", "target", "")
        table("the infrastructure API beside the engines' own clients", headings, [row.cells() for row in rows])
    finally:
        stand.isa("stop")
