"""Kafka: every record with its key, headers and timestamp, the topics' settings, and how far each group has come.

A backup that is there is added to: only records that it has not are read, so that one can be taken often.
"""

from __future__ import annotations

import base64
import bisect
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import NewTopic

from cli.recovery.folder import Backup, RecoveryError, line_of, read_lines
from cli.topics import Cluster
from kernel.kafka import client_settings
from kernel.settings import KafkaLogin

STORE = "kafka"
TIMEOUT = 30.0
BATCH = 1000
PAUSE = 0.2
NO_LEADER = (
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._UNKNOWN_TOPIC,
)
SEGMENT = re.compile(r"(\d{20})-(\d{20})\.jsonl")
"""A file of records: the first offset in it, and the one after the last."""
KEPT_SETTINGS = ("cleanup.policy", "retention.ms", "max.message.bytes", "min.insync.replicas")


def backup(brokers: str, root: Path) -> Backup:
    """Write what the cluster has and this folder has not."""
    cluster = Cluster(brokers)
    backup = Backup.begin(root, STORE)
    topics = cluster.topics()
    groups = {group: cluster.committed(group) for group in cluster.groups()}
    ranges = cluster.ranges(sorted(topics))
    backup.facts = {
        "topics": {
            name: {
                "partitions": found.partitions,
                "config": {key: found.config[key] for key in KEPT_SETTINGS if key in found.config},
            }
            for name, found in topics.items()
        },
        "groups": {
            group: [[topic, partition, offset] for (topic, partition), offset in sorted(committed.items())]
            for group, committed in groups.items()
        },
    }
    wanted: dict[tuple[str, int], tuple[int, int]] = {}
    for (topic, partition), (low, high) in sorted(ranges.items()):
        folder = place(backup.folder, topic, partition)
        folder.mkdir(parents=True, exist_ok=True)
        start = resume(folder, low, high, is_compacted="compact" in topics[topic].config["cleanup.policy"])
        if start < high:
            wanted[topic, partition] = (start, high)
    read(brokers, wanted, backup.folder)
    backup.items = sum(1 for topic, partition in ranges for _ in stored(backup.folder, topic, partition))
    return backup.end()


def client(brokers: str) -> dict[str, Any]:
    """Return what every client of Kafka is told here."""
    return {"bootstrap.servers": brokers, "log_level": 0, **client_settings(KafkaLogin())}


def place(folder: Path, topic: str, partition: int) -> Path:
    """Return where the records of a partition are."""
    return folder / topic / str(partition)


def resume(folder: Path, low: int, high: int, *, is_compacted: bool) -> int:
    """Forget what the cluster forgot, and return from which offset on it has more."""
    following = low
    for path, (_, end) in sorted(segments(folder).items()):
        if end <= low or end > high or is_compacted:  # past retention; of a topic made anew; the latest of each key
            path.unlink()
        else:
            following = max(following, end)
    return following


def segments(folder: Path) -> dict[Path, tuple[int, int]]:
    """Return the files of a partition with their offsets."""
    found = {path: SEGMENT.fullmatch(path.name) for path in folder.glob("*.jsonl")}
    return {path: (int(match[1]), int(match[2])) for path, match in found.items() if match}


def read(brokers: str, wanted: Mapping[tuple[str, int], tuple[int, int]], folder: Path) -> None:
    """Write the records of partitions, each from one offset up to another, to a file each; compaction leaves holes."""
    consumer = Consumer(
        {**client(brokers), "group.id": "isa-backup", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    with ExitStack() as stack:
        stack.callback(consumer.close)
        out = {
            (topic, partition): stack.enter_context(
                (place(folder, topic, partition) / f"{start:020d}-{end:020d}.jsonl").open("w")
            )
            for (topic, partition), (start, end) in wanted.items()
        }
        left = dict(wanted)
        consumer.assign([TopicPartition(topic, partition, start) for (topic, partition), (start, _) in wanted.items()])
        patience = time.monotonic() + TIMEOUT
        while left:
            messages = consumer.consume(BATCH, timeout=PAUSE)
            if messages:
                patience = time.monotonic() + TIMEOUT
            elif time.monotonic() > patience:
                raise RecoveryError(f"Kafka gave nothing of {min(left)[0]} within {TIMEOUT:.0f} s.")
            for message in messages:
                where = (message.topic() or "", message.partition() or 0)
                if (error := message.error()) is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        left.pop(where, None)
                    elif not error.retriable():
                        raise KafkaException(error)
                    continue
                offset, (_, end) = message.offset() or 0, wanted[where]
                if offset < end:
                    out[where].write(line_of(row_of(message)))
                if offset >= end - 1:
                    left.pop(where, None)


def row_of(message: Message) -> dict[str, Any]:
    """Return a record as a line has it."""
    headers: list[tuple[str, Any]] = list(message.headers() or [])  # type: ignore[arg-type]  # typed too loosely
    return {
        "offset": message.offset(),
        "timestamp": message.timestamp()[1],
        "key": text(message.key()),
        "value": text(message.value()),
        "headers": [[name, text(value)] for name, value in headers],
    }


def text(value: Any) -> str | None:
    """Return bytes as JSON can have them."""
    return None if value is None else base64.b64encode(value if isinstance(value, bytes) else value.encode()).decode()


def raw(value: str | None) -> bytes | None:
    """Return what `text` was given."""
    return None if value is None else base64.b64decode(value)


def stored(folder: Path, topic: str, partition: int) -> Iterator[dict[str, Any]]:
    """Yield the records of a partition that a backup has, in their order."""
    for path in sorted(segments(place(folder, topic, partition))):
        yield from read_lines(path)


def restore(brokers: str, root: Path) -> Backup:
    """Make the topics, write every record to its partition, and put every group where it was."""
    backup = Backup.open(root, STORE)
    make_topics(Cluster(brokers), backup)
    everything = [(name, at) for name, facts in backup.facts["topics"].items() for at in range(facts["partitions"])]
    for (topic, partition), (low, high) in ranges_of(brokers, everything).items():
        if low != high:
            raise RecoveryError(f"{topic}/{partition} has records already: restore into topics that are empty.")
    producer = Producer({**client(brokers), "enable.idempotence": True, "message.max.bytes": 6 << 20, "linger.ms": 20})
    offsets: dict[tuple[str, int], list[int]] = {}
    for topic, partition in everything:
        rows = stored(backup.folder, topic, partition)
        offsets[topic, partition] = [put(producer, topic, partition, row) for row in rows]
    if left := producer.flush(TIMEOUT):
        raise RecoveryError(f"Kafka did not take {left} records within {TIMEOUT:.0f} s.")
    ends = ranges_of(brokers, everything)
    for (topic, partition), known in offsets.items():
        if (found := ends[topic, partition][1]) != len(known):
            raise RecoveryError(f"{topic}/{partition} has {found} records, the backup {len(known)}.")
    for group, committed in backup.facts["groups"].items():
        positions = [
            TopicPartition(topic, partition, bisect.bisect_left(offsets[topic, partition], offset))
            for topic, partition, offset in committed
            if (topic, partition) in offsets
        ]
        if positions:
            commit(brokers, group, positions)
    return backup


def ranges_of(brokers: str, partitions: Iterable[tuple[str, int]]) -> dict[tuple[str, int], tuple[int, int]]:
    """Return the first and the next offset of partitions, once each has a leader: a new topic's are late."""
    patience = time.monotonic() + TIMEOUT
    consumer = Consumer({**client(brokers), "group.id": "isa-backup", "enable.auto.commit": False})
    found: dict[tuple[str, int], tuple[int, int]] = {}
    try:
        for topic, partition in partitions:
            while (topic, partition) not in found:
                try:
                    where = TopicPartition(topic, partition)
                    found[topic, partition] = consumer.get_watermark_offsets(where, timeout=TIMEOUT)
                except KafkaException as error:
                    if error.args[0].code() not in NO_LEADER or time.monotonic() > patience:
                        raise
                    time.sleep(PAUSE)
    finally:
        consumer.close()
    return found


def commit(brokers: str, group: str, positions: list[TopicPartition]) -> None:
    """Put a group where it was, and see that it is there: a coordinator that only starts refuses, or takes a part."""
    wanted = {(each.topic, each.partition): each.offset for each in positions}
    patience = time.monotonic() + TIMEOUT
    consumer = Consumer({**client(brokers), "group.id": group, "enable.auto.commit": False})
    try:
        while True:
            try:
                consumer.commit(offsets=positions, asynchronous=False)
                found = consumer.committed(positions, timeout=TIMEOUT)
                if {(each.topic, each.partition): each.offset for each in found} == wanted:
                    return
            except KafkaException:
                if time.monotonic() > patience:
                    raise
            if time.monotonic() > patience:
                raise RecoveryError(f"Kafka does not keep how far {group} has come.")
            time.sleep(PAUSE)
    finally:
        consumer.close()


def make_topics(cluster: Cluster, backup: Backup) -> None:
    """Make the topics that are missing, as they were; as many replicas as there are brokers, three at most."""
    there = cluster.topics()
    replicas = min(3, len(cluster.admin.list_topics(timeout=TIMEOUT).brokers))
    new = []
    for name, facts in backup.facts["topics"].items():
        if name not in there:
            config = dict(facts["config"])
            if int(config.get("min.insync.replicas", 1)) > replicas:
                config["min.insync.replicas"] = str(replicas)
            new.append(NewTopic(name, facts["partitions"], replicas, config=config))
        elif there[name].partitions != facts["partitions"]:
            raise RecoveryError(
                f"{name} has {there[name].partitions} partitions, the backup {facts['partitions']}: "
                "delete the empty topic, and restore makes it."
            )
    if new:
        for future in cluster.admin.create_topics(new, operation_timeout=TIMEOUT).values():
            future.result(TIMEOUT)


def put(producer: Producer, topic: str, partition: int, row: dict[str, Any]) -> int:
    """Send a record to the partition it was on; return the offset that it had."""
    arguments: dict[str, Any] = {
        "partition": partition,
        "timestamp": row["timestamp"],
        "headers": [(name, raw(value)) for name, value in row["headers"]],
        "on_delivery": refuse_loss,
    }
    while True:
        try:
            producer.produce(topic, raw(row["value"]), raw(row["key"]), **arguments)
        except BufferError:
            producer.poll(1)
        else:
            producer.poll(0)
            return int(row["offset"])


def refuse_loss(error: KafkaError | None, message: Message) -> None:
    """Stop at the first record that Kafka did not take."""
    if error is not None:
        raise RecoveryError(f"Kafka did not take a record of {message.topic()}: {error}")


def content(root: Path) -> dict[str, str]:
    """Return every record by its place in its partition, and what each group has left; offsets are no content."""
    backup = Backup.open(root, STORE)
    found: dict[str, str] = {}
    known: dict[tuple[str, int], list[int]] = {}
    for topic, facts in backup.facts["topics"].items():
        for partition in range(facts["partitions"]):
            offsets = known[topic, partition] = []
            for number, row in enumerate(stored(backup.folder, topic, partition)):
                offsets.append(row.pop("offset"))
                found[f"{topic}/{partition} record {number}"] = json.dumps(row, sort_keys=True)
    for group, committed in backup.facts["groups"].items():
        for topic, partition, offset in committed:
            if offsets := known.get((topic, partition), []):
                left = len(offsets) - bisect.bisect_left(offsets, offset)
                found[f"{topic}/{partition} group {group}"] = f"{left} left to read"
    return found
