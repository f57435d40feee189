"""How far this app's consumer group is behind, asked of Kafka itself: Dapr has no block for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from isa_common import IsaError
from kernel import telemetry
from kernel.kafka import room_settings
from kernel.settings import KafkaLogin

EVERY = 15.0
TIMEOUT = 5.0


def _measure(consumer: Consumer, group: str, topics: Sequence[str]) -> None:
    known = consumer.list_topics(timeout=TIMEOUT).topics
    partitions = [
        TopicPartition(topic, number) for topic in topics if topic in known for number in known[topic].partitions
    ]
    for partition in consumer.committed(partitions, timeout=TIMEOUT):
        low, high = consumer.get_watermark_offsets(partition, timeout=TIMEOUT)
        done = partition.offset if partition.offset >= 0 else low
        telemetry.LAG.labels(group, partition.topic, str(partition.partition)).set(max(0, high - done))


async def watch(
    brokers: str,
    group: str,
    topics: Sequence[str],
    *,
    login: KafkaLogin,
    secret: Callable[[str], Awaitable[str]],
) -> None:
    """Keep the lag gauge of a consumer group fresh, until cancelled."""
    settings = {"bootstrap.servers": brokers, "group.id": group, "enable.auto.commit": False, "log_level": 0}
    consumer: Consumer | None = None
    try:
        while True:
            try:
                consumer = consumer or Consumer({**settings, **await room_settings(login, secret)})
                await asyncio.to_thread(_measure, consumer, group, topics)
            except (KafkaException, IsaError) as error:
                telemetry.log.debug("lag.unmeasured", reason=str(error))
                if consumer is not None:
                    consumer.close()
                    consumer = None  # the next one reads the password anew: it may have been rotated
            await asyncio.sleep(EVERY)
    finally:
        if consumer is not None:
            consumer.close()
