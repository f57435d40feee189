"""`isa events`: read records as people can, write some, and see who is behind."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from pydantic import TypeAdapter, ValidationError
from rich.table import Table

from cli.topics import DEAD_LETTER, Cluster, addresses, console
from isa.events import EVENTS, Event
from isa_common import IsaError
from kernel.avro import Codec, Registry
from kernel.caller import Caller
from kernel.events import Record, stamp, to_record
from kernel.kafka import client_settings
from kernel.settings import KafkaLogin

PARTITIONER = "fnv1a_random"
"""Puts a key on the partition where daprd's producer puts it."""
TIMEOUT = 10.0

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Records of a topic, and who has read how far.")


def event_class(topic: str) -> type[Event]:
    """Return the class of a topic's events, dead letters included, or refuse a name that is none."""
    known = EVENTS.get(topic.removesuffix(DEAD_LETTER))
    if known is None:
        raise typer.BadParameter(f"There is no topic {topic!r}. `isa topics` shows all.")
    return known


def headers_of(message: Message) -> dict[str, str]:
    """Return the headers of a record as text."""
    pairs: list[tuple[str, Any]] = list(message.headers() or [])  # type: ignore[arg-type]  # typed too loosely
    return {name: value.decode(errors="replace") if isinstance(value, bytes) else str(value) for name, value in pairs}


async def shown(message: Message, codec: Codec) -> dict[str, Any]:
    """Return a record as JSON has it: where it stands, its headers, and its event or why there is none."""
    topic, key, value = message.topic() or "", message.key(), message.value()
    record: dict[str, Any] = {
        "topic": topic,
        "partition": message.partition(),
        "offset": message.offset(),
        "time": datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC).isoformat(timespec="milliseconds"),
        "key": key.decode(errors="replace") if isinstance(key, bytes) else key,
        "headers": headers_of(message),
    }
    if not isinstance(value, bytes):
        return {**record, "event": None}
    try:
        return {**record, "event": asdict(await codec.decode(value, event_class(topic)))}
    except IsaError as error:
        return {**record, "undecoded": error.message, "bytes": value[:64].hex()}


def text_of(value: object) -> str:
    """Return what JSON has no form for."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def consumer_of(brokers: str) -> Consumer:
    """Return a consumer that belongs to no group and commits nothing."""
    return Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": f"isa-tail-{uuid.uuid4()}",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
            **client_settings(KafkaLogin()),
        }
    )


def beginnings(consumer: Consumer, topic: str, *, last: int | None) -> list[TopicPartition]:
    """Return where to begin on each partition: at the end, or so many records before it."""
    partitions = consumer.list_topics(topic, timeout=TIMEOUT).topics[topic].partitions
    begin = []
    for number in partitions:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=TIMEOUT)
        begin.append(TopicPartition(topic, number, high if last is None else max(low, high - last)))
    return begin


def messages(consumer: Consumer, begin: list[TopicPartition], *, follow: bool) -> Iterator[Message]:
    """Yield records from where they are asked; without `follow` up to what was the end."""
    consumer.assign(begin)
    open_ends = {part.partition for part in begin}
    while follow or open_ends:
        message = consumer.poll(0.2)
        if message is None:
            continue
        error = message.error()
        if error is None:
            yield message
        elif error.code() == KafkaError._PARTITION_EOF:
            open_ends.discard(message.partition() or 0)
        elif not error.retriable():
            raise KafkaException(error)


@app.command("tail")
def tail(
    topic: Annotated[str, typer.Argument(help="A topic, or <topic>.dlq.")],
    *,
    last: Annotated[
        int | None, typer.Option("--last", "-n", help="Begin so many records back on each partition.")
    ] = None,
    beginning: Annotated[bool, typer.Option("--from-beginning", help="Begin with the oldest record.")] = False,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", "-f", help="Wait for more.")] = False,
) -> None:
    """Print records of a topic, decoded, with their headers, one JSON object a line."""
    event_class(topic)
    brokers, registry_url = addresses()
    Cluster(brokers).wait(3.0)
    consumer = consumer_of(brokers)
    back = sys.maxsize if beginning else last
    if back is None and not follow:
        back = 10
    try:
        begin = beginnings(consumer, topic, last=back)
        asyncio.run(_print_all(messages(consumer, begin, follow=follow), registry_url))
    except KeyboardInterrupt:
        pass
    finally:
        consumer.close()


async def _print_all(found: Iterable[Message], registry_url: str) -> None:
    registry = Registry(registry_url)
    codec = Codec(registry)
    try:
        for message in found:
            print(json.dumps(await shown(message, codec), default=text_of, ensure_ascii=False), flush=True)
    finally:
        await registry.close()


def event_of(topic: str, values: dict[str, Any], where: str) -> Event:
    """Return the event that JSON describes, or say what is wrong with it."""
    cls = event_class(topic)
    known = {item.name for item in fields(cls)}
    if unknown := sorted(values.keys() - known):
        raise typer.BadParameter(f"{where}: {topic} has no field {unknown[0]!r}; it has {', '.join(sorted(known))}.")
    try:
        event: Event = TypeAdapter(cls).validate_json(json.dumps(values))
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise typer.BadParameter(f"{where}: {name}: {first['msg']}.") from None
    return event


def events_in(topic: str, lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of lines of JSON."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError as error:
            raise typer.BadParameter(f"Line {number} is no JSON: {error}.") from None
        yield event_of(topic, values, f"Line {number}")


def producer_of(brokers: str) -> Producer:
    """Return a producer whose keys land where daprd's land."""
    return Producer(
        {
            "bootstrap.servers": brokers,
            "partitioner": PARTITIONER,
            "enable.idempotence": True,
            "message.max.bytes": 5 << 20,
            "log_level": 0,
            **client_settings(KafkaLogin()),
        }
    )


def send(brokers: str, topic: str, records: Iterable[Record]) -> int:
    """Write records and wait until the brokers have them; return how many."""
    producer = producer_of(brokers)
    failures: list[str] = []

    def noted(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(str(error))

    sent = 0
    for record in records:
        producer.produce(
            topic,
            record.payload,
            record.key,
            headers=[(name, value.encode()) for name, value in record.headers.items()],
            on_delivery=noted,
        )
        producer.poll(0)
        sent += 1
    left = producer.flush(TIMEOUT)
    if failures or left:
        console.print(f"[red]{len(failures) + left} of {sent} records were not taken.[/] {' '.join(failures[:1])}")
        raise typer.Exit(1)
    return sent


@app.command("produce")
def produce(
    topic: Annotated[str, typer.Argument(help="A topic.")],
    *,
    file: Annotated[
        Path | None, typer.Option("--file", help="Lines of JSON, one event each; default: standard input.")
    ] = None,
    raw: Annotated[
        Path | None, typer.Option("--raw", help="A file whose bytes are sent as one record, whatever they are.")
    ] = None,
    key: Annotated[str, typer.Option("--key", help="Key of the raw record.")] = "",
    source: Annotated[str, typer.Option("--source", help="Who the records say that they are from.")] = "cli",
) -> None:
    """Write events to a topic: for tests and for repair. Ids, times and correlation that are left out are filled."""
    event_class(topic)
    brokers, registry_url = addresses()
    Cluster(brokers).wait(3.0)
    if raw is not None:
        record = Record(event_id=str(uuid.uuid4()), topic=topic, key=key, payload=raw.read_bytes(), headers={})
        sent = send(brokers, topic, [record])
    else:
        lines = file.read_text().splitlines() if file else sys.stdin.read().splitlines()
        found = list(events_in(topic, lines))  # all are read before any is sent
        try:
            sent = send(brokers, topic, asyncio.run(_records(found, registry_url, source)))
        except IsaError as error:
            console.print(f"[red]{error.message}[/]")
            raise typer.Exit(1) from error
    console.print(f"{sent} record(s) on {topic}.")


async def _records(found: list[Event], registry_url: str, source: str) -> list[Record]:
    registry = Registry(registry_url)
    codec, now = Codec(registry), datetime.now(UTC)
    try:
        return [await to_record(stamp(event, Caller(), now), codec, source=source) for event in found]
    finally:
        await registry.close()


@app.command("groups")
def groups(
    *, as_json: Annotated[bool, typer.Option("--json", help="One JSON object a group and topic.")] = False
) -> None:
    """Show how far each consumer group has come on each of its topics."""
    cluster = Cluster(addresses()[0])
    cluster.wait(3.0)
    rows = group_rows(cluster)
    if as_json:
        for row in rows:
            print(json.dumps(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("group", "topic"):
        table.add_column(heading)
    for heading in ("committed", "end", "lag"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row["group"], row["topic"], str(row["committed"]), str(row["end"]), str(row["lag"]))
    console.print(table)


def group_rows(cluster: Cluster) -> list[dict[str, Any]]:
    """Return a row for each group and topic: committed and end offset, summed over partitions, and the lag."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    committed = {group: cluster.committed(group) for group in cluster.groups()}
    ranges = cluster.ranges(sorted({topic for found in committed.values() for topic, _ in found}))
    for group, found in committed.items():
        for (topic, partition), offset in found.items():
            _, end = ranges.get((topic, partition), (0, offset))
            empty = {"group": group, "topic": topic, "committed": 0, "end": 0, "lag": 0}
            row = rows.setdefault((group, topic), empty)
            row["committed"] += offset
            row["end"] += end
            row["lag"] += max(0, end - offset)
    return [rows[key] for key in sorted(rows)]
