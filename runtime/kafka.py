"""Kafka's configuration and its first start."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

from runtime.engines import Engines
from runtime.layout import Layout

LOGGING = (
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.BrokerServer=info",
    "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.coordinator.group=info",
)


class KafkaError(Exception):
    """Kafka could not be prepared."""


def configuration(layout: Layout) -> Path:
    """Where Kafka's configuration is written."""
    return layout.run / "kafka.properties"


def classpath(engines: Engines) -> str:
    """All of Kafka's jars."""
    return f"{engines.folder('kafka')}/lib/*"


def properties(layout: Layout) -> str:
    """One broker that is its own controller, with the memory of a laptop."""
    broker, controller = layout.address("kafka"), layout.address("kafka-controller")
    return f"""\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{controller}
listeners=PLAINTEXT://{broker},CONTROLLER://{controller}
advertised.listeners=PLAINTEXT://{broker}
controller.listener.names=CONTROLLER
log.dirs={layout.data / "kafka"}
auto.create.topics.enable=false
message.max.bytes=6291456
replica.fetch.max.bytes=6291456
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
log.segment.bytes=67108864
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=4
background.threads=2
"""


async def prepare(layout: Layout, engines: Engines) -> None:
    """Write the configuration, and format the storage once."""
    configuration(layout).write_text(properties(layout))
    if (layout.data / "kafka" / "meta.properties").exists():
        return
    cluster = base64.urlsafe_b64encode(os.urandom(16)).decode().rstrip("=").replace("-", "_")  # "-" would be an option
    process = await asyncio.create_subprocess_exec(
        str(engines.java), "-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC",
        "-cp", classpath(engines), "kafka.tools.StorageTool", "format", "--ignore-formatted",
        "-t", cluster, "-c", str(configuration(layout)),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise KafkaError(f"Kafka's storage could not be formatted:\n{output.decode(errors='replace')}")
