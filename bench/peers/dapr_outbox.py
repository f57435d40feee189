"""The peer: Dapr's built-in transactional outbox on `state.postgresql` and Kafka, with a consumer that counts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import uvicorn
import yaml
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewTopic
from fastapi import FastAPI, Request

from bench.measure import Cpu
from bench.stand import Stand
from runtime.start import runtime_as_it_is

APP = "bench-outbox"
TOPIC = "bench.task.created"
INTERNAL = f"default{APP}{TOPIC}outbox"
"""Where Dapr's outbox keeps what it has to publish; the name is Dapr's."""


def make_topic(stand: Stand, name: str) -> None:
    """Make a topic of one partition, unless it is there."""
    admin = AdminClient({"bootstrap.servers": stand.engines["KAFKA_BROKERS"]})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        with contextlib.suppress(KafkaException):  # it is there
            future.result(10)


def components(stand: Stand) -> list[dict[str, object]]:
    """Return the components: the pub/sub, and the state store with its outbox."""

    def component(name: str, kind: str, metadata: dict[str, str]) -> dict[str, object]:
        listed = [{"name": key, "value": value} for key, value in metadata.items()]
        return {
            "apiVersion": "dapr.io/v1alpha1",
            "kind": "Component",
            "metadata": {"name": name},
            "spec": {"type": kind, "version": "v1" if kind != "state.postgresql" else "v2", "metadata": listed},
        }

    brokers = stand.engines["KAFKA_BROKERS"]
    kafka = {"brokers": brokers, "authType": "none", "consumerGroup": APP, "initialOffset": "oldest"}
    state = {
        "connectionString": stand.database_url("bench"),
        "outboxPublishPubsub": "bench",
        "outboxPublishTopic": TOPIC,
    }
    return [component("bench", "pubsub.kafka", kafka), component("state", "state.postgresql", state)]


@contextlib.asynccontextmanager
async def running(stand: Stand, arrived: list[float]) -> AsyncIterator[tuple[str, Cpu]]:
    """Run the consumer and its sidecar; yield the sidecar's address and its CPU."""
    http, grpc, internal, metrics, port = (stand.layout.port(number) for number in (8890, 8891, 8892, 8893, 8894))
    app = FastAPI()

    @app.get("/dapr/subscribe")
    async def subscribe() -> list[dict[str, str]]:
        return [{"pubsubname": "bench", "topic": TOPIC, "route": "/event"}]

    @app.post("/event")
    async def event(request: Request) -> dict[str, str]:
        await request.body()
        arrived.append(time.monotonic())
        return {"status": "SUCCESS"}

    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False, lifespan="off"))
    serving = asyncio.create_task(server.serve())
    with tempfile.TemporaryDirectory() as folder:
        for part in components(stand):
            name = str(part["metadata"]["name"])  # type: ignore[index]  # made above
            (Path(folder) / f"{name}.yaml").write_text(yaml.safe_dump(part))
        daprd = runtime_as_it_is(stand.layout).engines.binary("dapr", "daprd")
        process = await asyncio.create_subprocess_exec(
            str(daprd), "--app-id", APP, "--app-port", str(port), "--dapr-http-port", str(http),
            "--dapr-grpc-port", str(grpc), "--dapr-internal-grpc-port", str(internal), "--metrics-port", str(metrics),
            "--resources-path", folder, "--dapr-listen-addresses", "127.0.0.1", "--log-level", "error",
            env={**os.environ, "DAPR_API_TOKEN": ""},
        )  # fmt: skip
        address = f"http://127.0.0.1:{http}"
        try:
            async with httpx.AsyncClient() as client:
                for _ in range(300):
                    with contextlib.suppress(httpx.HTTPError):
                        if (await client.get(f"{address}/v1.0/healthz")).is_success:
                            break
                    await asyncio.sleep(0.1)
            yield address, Cpu({"daprd": process.pid})
        finally:
            process.terminate()
            await process.wait()
            server.should_exit = True
            await serving


async def measure(stand: Stand, events: int) -> tuple[float, dict[str, float]]:
    """Return events a second from state transaction to handler, and CPU an event."""
    for name in (TOPIC, INTERNAL):
        make_topic(stand, name)
    arrived: list[float] = []
    async with running(stand, arrived) as (address, cpu), httpx.AsyncClient(timeout=30) as client:
        await _transact(client, address, "warm", 1)
        await _arrival(arrived, 1)
        cpu.start()
        began = time.monotonic()
        await asyncio.gather(*(_transact(client, address, f"task-{began}-{number}", 1) for number in range(events)))
        await _arrival(arrived, events + 1)
        return events / (arrived[-1] - began), cpu.per_operation(events)


async def _transact(client: httpx.AsyncClient, address: str, key: str, value: int) -> None:
    body = {"operations": [{"operation": "upsert", "request": {"key": key, "value": {"version": value}}}]}
    answer = await client.post(f"{address}/v1.0/state/state/transaction", json=body)
    answer.raise_for_status()


async def _arrival(arrived: list[float], wanted: int) -> None:
    async with asyncio.timeout(30 + wanted * 3):
        while len(arrived) < wanted:  # noqa: ASYNC110 -- polling at 20 ms is far below the second that it measures
            await asyncio.sleep(0.02)
