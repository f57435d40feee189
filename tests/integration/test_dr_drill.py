"""What the engines hold is lost and comes back: on engines of this file's own, the whole drill by `make dr-drill`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from filelock import FileLock

from cli.recovery import kafka, objects, postgres, redis, streams, vectors
from cli.recovery.drill import drill
from cli.recovery.folder import Backup, RecoveryError
from cli.recovery.place import place_of
from cli.recovery.whole import STORES, Restore, back_up, compare, quiet
from isa.vectors.v1 import vectors_pb2 as pb
from runtime import health
from runtime.engines import Engines, load_engines
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout, layout_from_environment
from runtime.postgres import remove
from runtime.start import Runtime, open_runtime
from tests.deploy.rendering import Release, manifests

PORT_BASE = 22600
ENGINES = ["postgres", "kafka", "redis", "nats", "minio"]
LOST = ("postgres", "redis", "kafka", "nats", "objects")
RECORDS = 500
FIRST = int(datetime.now(UTC).timestamp() * 1000) - 3_600_000
"""Timestamp of the first record."""


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Engines that were filled, backed up, filled further, killed, deleted and restored; what they held then."""
    folder = tmp_path_factory.mktemp("dr")
    layout = Layout(home=folder / "set", cache=layout_from_environment().cache, port_base=PORT_BASE)
    with FileLock(Path("/tmp") / f"isa-{PORT_BASE}.lock"):
        try:
            yield asyncio.run(lose(layout, folder / "backup"))
        finally:
            asyncio.run(stop(layout))


async def stop(layout: Layout) -> None:
    """Stop the engines and forget what they have."""
    await (await open_runtime(layout, quiet())).stop(quiet())
    remove(layout)


async def lose(layout: Layout, root: Path) -> SimpleNamespace:
    """Play the loss."""
    runtime = await open_runtime(layout, quiet())
    await runtime.start(ENGINES, quiet(), alone=True)
    await fill(runtime, "early")
    fill_kafka(layout.address("kafka"))
    async with postgres.log_kept(runtime, root):
        await back_up(runtime, root, LOST, "", lambda *_: None)
        await fill(runtime, "late")
        tables = postgres.digests(runtime)
        until = datetime.now(UTC)
        with postgres.connected(runtime, "postgres") as connection:
            connection.execute("DROP TABLE kept")  # what nobody wants back
        await runtime.stop(quiet())
    remove(layout)
    shutil.rmtree(layout.data)
    restore = Restore(layout, root, LOST, lambda *_: None)
    runtime = await restore.files(until=until, passphrase="")
    await restore.engines(runtime)
    again = root.with_name("again")
    await back_up(runtime, again, LOST, "", lambda *_: None)
    return SimpleNamespace(runtime=runtime, root=root, again=again, tables=tables, layout=layout)


async def fill(runtime: Runtime, mark: str) -> None:
    """Put something into each engine but Kafka."""
    place = place_of(runtime.layout)
    with postgres.connected(runtime, "postgres") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (word text, body bytea)")
        connection.execute(
            "INSERT INTO kept SELECT %s || n, sha256(n::text::bytea) FROM generate_series(1, 300) n", (mark,)
        )
    async with redis.connected(place) as server:
        key = mark.encode()
        await server.ask(
            (b"SET", key + b"\r\n\x00", bytes(range(256))),
            (b"SET", key + b"-lent", b"x", b"EX", b"3600"),
            (b"HSET", key + b"-hash", b"a", b"1", b"b", b"2"),
            (b"RPUSH", key + b"-list", *(b"%d" % number for number in range(700))),
            (b"ZADD", key + b"-sorted", b"0.1", b"a", b"-inf", b"b"),
        )
    async with streams.connected(place) as client:
        jetstream = client.jetstream()
        await jetstream.add_stream(name="KEPT", subjects=["kept.>"])
        for number in range(50):
            await jetstream.publish(f"kept.{mark}", b"%d" % number * 4000, headers={"number": str(number)})
        reader = await jetstream.pull_subscribe("kept.>", durable="reader", stream="KEPT")
        for message in await reader.fetch(20):
            await message.ack_sync()
        await jetstream.delete_msg("KEPT", 3 if mark == "early" else 53)
    async with objects.connected(place) as s3:
        if mark == "early":
            await s3.create_bucket(Bucket="kept")
            tag = {"Key": "owner", "Value": "org-a"}
            await s3.put_bucket_tagging(Bucket="kept", Tagging={"TagSet": [tag]})
        for key, size in ((f"{mark}/ä ?.txt", 10), (f"{mark}/large", 5 << 20), (f"{mark}/empty", 0)):
            about = {"ContentType": "text/x-kept", "Metadata": {"mark": mark}}
            await s3.put_object(Bucket="kept", Key=key, Body=mark[:1].encode() * size, **about)


def fill_kafka(brokers: str) -> None:
    """Write records with keys, headers, timestamps and tombstones; let a group read some of them."""
    new = [NewTopic("kept", 3, 1), NewTopic("kept.latest", 1, 1, config={"cleanup.policy": "compact"})]
    admin = AdminClient({"bootstrap.servers": brokers})
    for future in admin.create_topics(new).values():
        future.result(30)
    producer = Producer({"bootstrap.servers": brokers})
    for number in range(RECORDS):
        headers = [("number", b"%d" % number), ("number", b"twice"), ("none", None)]
        key = b"key-%d" % (number % 7) if number % 5 else None
        producer.produce("kept", b"\x00%d" % number, key, headers=headers, timestamp=FIRST + number, on_delivery=taken)
    producer.produce("kept.latest", b"one", b"a")
    producer.produce("kept.latest", None, b"a")
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "enable.auto.commit": False})
    consumer.commit(offsets=[TopicPartition("kept", 0, 17), TopicPartition("kept", 2, 0)], asynchronous=False)
    consumer.close()


def taken(error: KafkaError | None, _: Message) -> None:
    """See that Kafka took a record."""
    assert error is None, error


@pytest.mark.ac("phase-v:C4.1")
def test_every_row_is_as_it_was_at_the_moment_before_the_accident(lost: SimpleNamespace) -> None:
    found = postgres.digests(lost.runtime)

    assert postgres.differences(lost.tables, found) == []
    assert found["postgres.public.kept"][0] == 600, "what was written after the backup comes from the log"


@pytest.mark.ac("phase-v:C4.2")
@pytest.mark.parametrize("store", ["redis", "kafka", "nats", "objects"])
def test_what_was_backed_up_comes_back_as_it_was(lost: SimpleNamespace, store: str) -> None:
    assert compare(lost.root, lost.again, [store]) == {store: []}
    assert Backup.open(lost.again, store).items > 0


def test_records_keep_partition_order_key_headers_and_time(lost: SimpleNamespace) -> None:
    rows = {number: list(kafka.stored(lost.again / "kafka", "kept", number)) for number in range(3)}

    assert sum(map(len, rows.values())) == RECORDS
    for found in rows.values():
        times = [row["timestamp"] for row in found]
        assert times == sorted(times)
        assert {row["timestamp"] for row in found} <= set(range(FIRST, FIRST + RECORDS))
        assert all([name for name, _ in row["headers"]] == ["number", "number", "none"] for row in found)
    latest = list(kafka.stored(lost.again / "kafka", "kept.latest", 0))
    assert latest[-1]["value"] is None, "a tombstone is one"


def test_a_group_goes_on_where_it_was(lost: SimpleNamespace) -> None:
    found = Backup.open(lost.again, "kafka").facts["groups"]["reader"]

    assert found == [["kept", 0, 17], ["kept", 2, 0]]


def test_a_second_backup_reads_only_what_is_new(lost: SimpleNamespace) -> None:
    segments = {path.name: path.stat().st_mtime_ns for path in (lost.again / "kafka" / "kept").rglob("*.jsonl")}
    producer = Producer({"bootstrap.servers": lost.layout.address("kafka")})
    producer.produce("kept", b"new", partition=0)
    assert producer.flush(30) == 0

    items = kafka.backup(lost.layout.address("kafka"), lost.again).items

    now = {path.name: path.stat().st_mtime_ns for path in (lost.again / "kafka" / "kept").rglob("*.jsonl")}
    assert segments.items() < now.items()
    assert len(now) == len(segments) + 1
    assert items == RECORDS + 1 + len(list(kafka.stored(lost.again / "kafka", "kept.latest", 0)))


def test_what_is_not_empty_is_not_overwritten(lost: SimpleNamespace) -> None:
    place = place_of(lost.layout)

    with pytest.raises(RecoveryError, match="has records already"):
        kafka.restore(place["KAFKA_BROKERS"], lost.root)
    with pytest.raises(RecoveryError, match="KEPT is there already"):
        asyncio.run(streams.restore(place, lost.root))
    with pytest.raises(RecoveryError, match="is not empty"):
        redis.restore(lost.root, lost.layout.data / "redis")
    with pytest.raises(RecoveryError, match="has a cluster already"):
        postgres.restore(lost.runtime, lost.root)


def test_a_record_that_a_restore_lost_is_found(lost: SimpleNamespace, tmp_path: Path) -> None:
    shutil.copytree(lost.root / "kafka", tmp_path / "kafka")
    [segment, *_] = sorted((tmp_path / "kafka" / "kept").rglob("*.jsonl"))
    lines = segment.read_text().splitlines(keepends=True)
    segment.write_text("".join(lines[1:]))
    backup = Backup(tmp_path / "kafka", facts=json.loads((lost.root / "kafka" / "manifest.json").read_text())["facts"])
    backup.end()

    faults = compare(lost.root, tmp_path, ["kafka"])["kafka"]

    assert any(fault.endswith("is missing") for fault in faults), faults


def a_collection(folder: Path) -> None:
    """Make a collection with an index and some pages of points, as the embedded engine keeps it."""
    folder.mkdir()
    collections = vectors.shards(folder)
    try:
        params = pb.CollectionParams(
            vector=pb.VectorParams(dimension=3, metric=pb.METRIC_COSINE), sparse_vectors=["words"]
        )
        collections.create_collection("org-a.kept", pb.CreateCollectionRequest(params=params))
        index = pb.CreateIndexRequest(field="mark", type=pb.INDEX_TYPE_KEYWORD)
        collections.create_index("org-a.kept", index)
        points: list[pb.Point] = []
        for number in range(450):
            point = pb.Point(payload=json.dumps({"mark": "ä", "n": number}).encode())
            point.id.number = number + 1
            point.vector = struct.pack("<3f", 1.0 + number, 2.0, 3.0 * number)
            points.append(point)
        collections.upsert("org-a.kept", pb.UpsertRequest(points=points))
    finally:
        collections.close()


@pytest.mark.ac("phase-v:C4.2")
def test_vectors_come_back_point_by_point(tmp_path: Path) -> None:
    a_collection(tmp_path / "qdrant")
    vectors.copy(tmp_path / "qdrant", tmp_path / "copied")
    made = vectors.backup(tmp_path / "copied", tmp_path)

    vectors.restore(tmp_path, tmp_path / "restored")

    again = vectors.backup(tmp_path / "restored", tmp_path / "again")
    assert made.items == again.items == 450
    assert compare(tmp_path, tmp_path / "again", ["vectors"]) == {"vectors": []}
    with pytest.raises(RecoveryError, match="has collections already"):
        vectors.restore(tmp_path, tmp_path / "restored")


@pytest.mark.ac("phase-v:C4.2")
def test_what_the_quarterly_drill_runs_in_its_pod_holds_on_real_engines(lost: SimpleNamespace, tmp_path: Path) -> None:
    release = Release(chart="dr", name="dr", environment="staging", cloud="local")
    [job] = [each for each in manifests(release) if each["kind"] == "CronJob" and each["metadata"]["name"] == "drill"]
    [container] = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    shell, options, script, name, *stores = container["command"]
    stores.remove("--only=vectors")  # a Qdrant server is to be had as an image only
    (tmp_path / "isa").write_text(f'#!/bin/sh\ncd {CHECKOUT} && exec {sys.executable} -m cli "$@"\n')
    (tmp_path / "isa").chmod(0o755)

    def drill_of(backup: Path) -> subprocess.CompletedProcess[str]:
        asyncio.run(empty(lost.runtime))
        again = tmp_path / "again"
        shutil.rmtree(again, ignore_errors=True)
        with redis_that_restores(lost.layout, tmp_path) as port:
            environment = {
                **own_engine_environment(lost.layout), "PATH": f"{tmp_path}:/usr/bin:/bin", "BACKUP": str(backup),
                "ISA_HOME": str(tmp_path), "REDIS_PORT": str(port), "REDIS_PASSWORD": "secret",
            }  # fmt: skip
            command = [shell, options, script.replace("/scratch/again", str(again)), name, *stores]
            return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    held = drill_of(lost.root)
    assert held.returncode == 0, held.stdout + held.stderr
    assert held.stdout.count("the same") == len(stores)

    damaged = tmp_path / "damaged"
    shutil.copytree(lost.root, damaged)
    [blob, *_] = (damaged / "objects" / "blobs").iterdir()
    blob.write_bytes(b"rotten")
    found = drill_of(damaged)
    assert found.returncode != 0
    assert "is not what was written" in found.stdout + found.stderr


async def empty(runtime: Runtime) -> None:
    """Make the engines what they are on their first day."""
    await runtime.stop(quiet())
    for folder in ("kafka", "nats", "minio"):
        shutil.rmtree(runtime.layout.data / folder)
    await runtime.start(["kafka", "nats", "minio"], quiet(), alone=True)


@contextmanager
def redis_that_restores(layout: Layout, folder: Path) -> Iterator[int]:
    """Run a Redis whose login may do everything, as that of the drill's pod; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Engines(layout, load_engines()).binary("redis", "redis-server")
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--requirepass", "secret", "--dir", str(folder)]
    with subprocess.Popen([*command, "--save", ""], stdout=subprocess.DEVNULL) as server:
        try:
            asyncio.run(answers(port))
            yield port
        finally:
            server.terminate()


async def answers(port: int) -> None:
    """Wait until Redis answers."""
    async with asyncio.timeout(30):
        while not await health.redis(port, "secret")():
            await asyncio.sleep(0.05)


WHOLE = pytest.mark.skipif(not os.environ.get("ISA_DR_DRILL"), reason="minutes: `make dr-drill` runs it")


@WHOLE
@pytest.mark.ac("phase-v:C4.1", "phase-v:C4.2", "phase-v:C4.3", "phase-v:REL3:3")
async def test_the_whole_set_is_lost_and_comes_back_within_the_targets(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "set", cache=layout_from_environment().cache, port_base=PORT_BASE)

    report = await drill(layout, STORES, lambda *_: None)

    assert report.is_good, (report.checks, [row.faults for row in report.rows])
    assert {row.store for row in report.rows} == set(STORES)
    assert all(row.items for row in report.rows)


@WHOLE
@pytest.mark.ac("phase-v:REL3:3")
async def test_a_drill_whose_backup_lost_a_key_fails_and_names_it(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "set", cache=layout_from_environment().cache, port_base=PORT_BASE)

    report = await drill(layout, ["redis"], lambda *_: None, spoil=without_a_key)

    [row] = report.rows
    assert not report.is_good
    assert any("is lost, and was in the backup" in fault for fault in row.faults), row.faults


def without_a_key(root: Path) -> None:
    """Make a backup of Redis that is whole by its hashes, and lacks a key."""
    path = root / "redis" / redis.FILE
    raw = path.read_bytes()
    first = raw.index(b"*5\r\n$7\r\nRESTORE")
    second = raw.index(b"*5\r\n$7\r\nRESTORE", first + 1)
    path.write_bytes(raw[:first] + raw[second:])
    Backup(root / "redis").end()
