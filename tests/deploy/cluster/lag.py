"""Many records at once, which leave a consumer's group behind for a while: run by `story.inside`."""

from __future__ import annotations

import os
import sys

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions


def widen(topic: str, partitions: int) -> None:
    """KEDA goes no further than the partitions of a topic."""
    client = AdminClient({"bootstrap.servers": os.environ["KAFKA_BROKERS"]})
    if len(client.list_topics(topic, timeout=20).topics[topic].partitions) < partitions:
        client.create_partitions([NewPartitions(topic, partitions)])[topic].result(20)


def flood(topic: str, number: int) -> None:
    """Copies of the newest record's form: no CloudEvent, so that each goes to the dead letters of its readers."""
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BROKERS"], "linger.ms": 20})
    for index in range(number):
        producer.produce(topic, key=str(index), value=b"{}")
        producer.poll(0)
    producer.flush(60)


if __name__ == "__main__":
    if sys.argv[1] == "--flood":
        flood(sys.argv[2], int(sys.argv[3]))
    else:
        widen(sys.argv[1], int(sys.argv[2]))
