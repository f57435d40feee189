"""Publishing. The sidecar is a byte pipe: the value goes raw, metadata become Kafka headers, `partitionKey` the key."""

from __future__ import annotations

from collections.abc import Sequence

from dapr.proto.runtime.v1 import pubsub_pb2

from kernel import telemetry
from kernel.dapr.sidecar import Sidecar, translated
from kernel.events import Record

EVENTS, AUDIT, CONTROL = "events", "audit", "control"
"""The pub/sub components: each is one batch at a time per sidecar, so that they do not wait for one another."""
COMPONENTS = {"audit.recorded": AUDIT, "control.changed": CONTROL}
RAW = {"rawPayload": "true"}
TIMEOUT = 15.0


def component_of(topic: str) -> str:
    """Return the component that a topic goes through."""
    return COMPONENTS.get(topic.removesuffix(".dlq"), EVENTS)


class PubSub:
    """Publishes records by Dapr."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def publish(self, topic: str, records: Sequence[Record]) -> set[str]:
        """Publish records to one topic in their order; return the ids of those that the broker did not take."""
        entries = [
            pubsub_pb2.BulkPublishRequestEntry(
                entry_id=str(position),
                event=record.payload,
                content_type="application/octet-stream",
                metadata={**record.headers, "partitionKey": record.key},
            )
            for position, record in enumerate(records)
        ]
        request = pubsub_pb2.BulkPublishRequest(
            pubsub_name=component_of(topic), topic=topic, entries=entries, metadata=RAW
        )
        async with translated("Publishing"):
            answer = await self._sidecar.stub.BulkPublishEvent(
                request, timeout=TIMEOUT, metadata=self._sidecar.metadata
            )
        failed = {records[int(entry.entry_id)].event_id for entry in answer.failedEntries}
        telemetry.PUBLISHED.labels(topic).inc(len(records) - len(failed))
        return failed
