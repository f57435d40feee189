"""The peer: FastAPI accepts a task, asyncpg commits it with its outbox row, FastStream publishes and consumes.

The same rows as ours: the task, the outbox row and its mark; the inbox row, the daily count and the task's state. It
does not authenticate, isolate or audit, and it has one consumer. Run as `python -m bench.peers.faststream_pair ROLE`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from datetime import UTC, datetime

import asyncpg
import uvicorn
from fastapi import FastAPI
from faststream import FastStream
from faststream.confluent import KafkaBroker, KafkaMessage
from pydantic import BaseModel

from isa.events import TaskCreated
from kernel.avro import Codec, Registry
from kernel.caller import Caller
from kernel.events import stamp, to_record

TOPIC = os.environ.get("BENCH_TOPIC", "task.created")
ORG = "org-bench"
SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    org_id text NOT NULL, id text NOT NULL, title text NOT NULL, notes text NOT NULL, status text NOT NULL,
    priority text, due_at timestamptz, tags text[] NOT NULL, created_by text NOT NULL,
    created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, version bigint NOT NULL,
    PRIMARY KEY (org_id, id));
CREATE INDEX IF NOT EXISTS tasks_by_creation ON tasks (org_id, created_at, id);
CREATE TABLE IF NOT EXISTS outbox (
    event_id text PRIMARY KEY, topic text NOT NULL, key text NOT NULL, payload bytea NOT NULL, headers jsonb NOT NULL,
    position bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz NOT NULL DEFAULT now(),
    published_at timestamptz);
CREATE INDEX IF NOT EXISTS outbox_pending ON outbox (position) WHERE published_at IS NULL;
CREATE TABLE IF NOT EXISTS inbox (event_id text PRIMARY KEY, seen_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE IF NOT EXISTS daily (
    org_id text, day date, topic text, number bigint NOT NULL, PRIMARY KEY (org_id, day, topic));
CREATE TABLE IF NOT EXISTS task_state (
    org_id text, task_id text, version bigint NOT NULL, PRIMARY KEY (org_id, task_id));
"""


class Task(BaseModel):
    """What is accepted."""

    title: str


def broker() -> KafkaBroker:
    """The broker with the guarantees that ours has: all acknowledgements, the key's partition."""
    brokers = os.environ["KAFKA_BROKERS"]
    return KafkaBroker(brokers, acks="all", allow_auto_create_topics=False, partitioner="fnv1a_random", logger=None)


async def publisher() -> None:
    """Accept tasks over HTTP, commit, and publish what was committed."""
    pool = await asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=8, max_size=16)
    codec = Codec(Registry(os.environ["REGISTRY_URL"]))
    kafka = broker()
    await kafka.start()
    lanes = [asyncio.Queue[tuple[str, str, bytes, dict[str, str]]]() for _ in range(4)]
    app = FastAPI()

    @app.post("/v1/tasks", status_code=201)
    async def create(task: Task) -> dict[str, str]:
        now, task_id = datetime.now(UTC), f"task-{uuid.uuid4().hex}"
        event = stamp(TaskCreated(aggregate_id=task_id), Caller(org=ORG, user="user-bench"), now)
        record = await to_record(event, codec, source="bench")
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO tasks VALUES ($1, $2, $3, '', 'open', NULL, NULL, '{}', 'user-bench', $4, $4, 1)",
                ORG, task_id, task.title, now,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO outbox (event_id, topic, key, payload, headers) VALUES ($1, $2, $3, $4, $5)",
                record.event_id, TOPIC, record.key, record.payload, json.dumps(record.headers),
            )  # fmt: skip
        lanes[hash(task_id) % 4].put_nowait((record.event_id, record.key, record.payload, record.headers))
        return {"id": task_id, "title": task.title, "status": "open"}

    async def relay(lane: asyncio.Queue[tuple[str, str, bytes, dict[str, str]]]) -> None:
        while True:
            batch = [await lane.get()]
            while len(batch) < 200 and not lane.empty():
                batch.append(lane.get_nowait())
            await asyncio.gather(
                *(
                    kafka.publish(payload, TOPIC, key=key.encode(), headers=headers)
                    for _, key, payload, headers in batch
                )
            )
            await pool.execute(
                "UPDATE outbox SET published_at = now() WHERE event_id = ANY($1::text[])", [item[0] for item in batch]
            )

    tasks = [asyncio.create_task(relay(lane)) for lane in lanes]
    port = int(os.environ["BENCH_PORT"])
    await uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False)).serve()
    for task in tasks:
        task.cancel()


EFFECT = """
WITH fresh AS (INSERT INTO inbox (event_id) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING RETURNING event_id),
events AS (SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::date[]) AS e (event_id, task_id, version, day)
           WHERE event_id IN (SELECT event_id FROM fresh)),
counted AS (INSERT INTO daily AS d SELECT $5, day, $6, count(*) FROM events GROUP BY day
            ON CONFLICT (org_id, day, topic) DO UPDATE SET number = d.number + excluded.number)
INSERT INTO task_state AS t SELECT $5, task_id, max(version) FROM events GROUP BY task_id
ON CONFLICT (org_id, task_id) DO UPDATE SET version = greatest(t.version, excluded.version)
"""


async def consumer(*, is_batch: bool) -> None:
    """Consume with the inbox and the counters, a transaction a message or a batch."""
    pool = await asyncpg.create_pool(os.environ["BENCH_DATABASE"], min_size=4, max_size=8)
    codec = Codec(Registry(os.environ["REGISTRY_URL"]))
    kafka = broker()

    async def effect(values: list[bytes]) -> None:
        events = [await codec.decode(value, TaskCreated) for value in values]
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(
                EFFECT,
                [event.event_id for event in events],
                [event.aggregate_id for event in events],
                [event.aggregate_version for event in events],
                [event.occurred_at.date() for event in events if event.occurred_at],
                ORG,
                TOPIC,
            )

    options = {"group_id": "bench-faststream", "auto_offset_reset": "latest"}
    if is_batch:

        @kafka.subscriber(TOPIC, batch=True, max_records=100, **options)  # type: ignore[call-overload]  # its overloads want literals
        async def take_batch(message: KafkaMessage) -> None:
            await effect([part.value() for part in message.raw_message])
    else:

        @kafka.subscriber(TOPIC, **options)  # type: ignore[call-overload]  # its overloads want literals
        async def take(message: KafkaMessage) -> None:
            await effect([message.raw_message.value()])

    await FastStream(kafka, logger=None).run()


async def prepare() -> None:
    """Make the tables."""
    connection = await asyncpg.connect(os.environ["BENCH_DATABASE"])
    await connection.execute(SCHEMA)
    await connection.close()


if __name__ == "__main__":
    role = sys.argv[1]
    asyncio.run(
        {"publisher": publisher, "prepare": prepare}[role]()
        if role in ("publisher", "prepare")
        else consumer(is_batch=role == "consumer-batch")
    )
