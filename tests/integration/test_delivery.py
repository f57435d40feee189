"""Records that nobody can read, callbacks that nobody may send, and a log level that changes: on the running set."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import httpx
import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition

from runtime.processes import load_apps
from runtime.secrets import ensure_tokens
from tests.conftest import Organisation, Stack

PRIMARY = (
    "task.created",
    "task.updated",
    "task.completed",
    "task.deleted",
    "user.registered",
    "user.authenticated",
    "notification.sent",
    "reminder.triggered",
)
CONSUMERS = {
    **{topic: {"analytics", "audit", "notifications"} for topic in PRIMARY},
    "user.authenticated": {"analytics", "audit"},
    "notification.sent": {"analytics", "audit"},
}
BAD = {
    "no frame": b'{"json": "is not Avro"}',
    "no such schema": b"\x00\x7f\xff\xff\xff\x02",
    "cut off": b"\x00\x00\x00\x00\x01\x02",
}


@pytest.fixture
def tokens(stack: Stack) -> dict[str, dict[str, str]]:
    """API tokens of each app and its sidecar."""
    return ensure_tokens(stack.layout, [app.name for app in load_apps()])


@pytest.fixture
def brokers(stack: Stack) -> str:
    return stack.environment["KAFKA_BROKERS"]


def letters(brokers: str, topic: str, marks: set[str], wanted: int) -> Iterator[Message]:
    """Yield the dead letters of a topic that carry one of our marks, until there are enough of them."""
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": f"t-{uuid.uuid4()}", "enable.auto.commit": False})
    try:
        consumer.assign([TopicPartition(f"{topic}.dlq", 0, 0)])
        until = time.monotonic() + 60
        while wanted and time.monotonic() < until:
            for message in consumer.consume(100, timeout=0.5):
                if not message.error() and (message.key() or b"").decode() in marks:
                    wanted -= 1
                    yield message
    finally:
        consumer.close()


@pytest.mark.ac("phase-v:A1.4:3")
@pytest.mark.parametrize("topic", PRIMARY)
def test_what_cannot_be_decoded_goes_to_the_dead_letter_topic_with_its_reason(
    stack: Stack, brokers: str, topic: str
) -> None:
    marks = {kind: f"bad-{uuid.uuid4().hex}" for kind in BAD}
    producer = Producer({"bootstrap.servers": brokers, "partitioner": "fnv1a_random"})
    for kind, value in BAD.items():
        producer.produce(topic, value, key=marks[kind], headers={"ce_id": marks[kind]})
    assert producer.flush(15) == 0

    consumers = CONSUMERS[topic]
    found = list(letters(brokers, topic, set(marks.values()), len(BAD) * len(consumers)))

    headers = [dict(message.headers() or []) for message in found]
    assert {item["isa-dlq-consumer"].decode() for item in headers} == consumers
    for kind, mark in marks.items():
        own = [dict(message.headers() or []) for message in found if (message.key() or b"").decode() == mark]
        assert len(own) == len(consumers)
        assert all(item["isa-dlq-reason"] for item in own)
        assert {bytes(message.value() or b"") for message in found if (message.key() or b"").decode() == mark} == {
            BAD[kind]
        }


@pytest.mark.ac("phase-v:A1.4:3")
async def test_the_neighbours_of_what_cannot_be_decoded_are_processed(org: Organisation, brokers: str) -> None:
    producer = Producer({"bootstrap.servers": brokers})
    for _ in range(20):
        producer.produce("task.created", b"garbage", key=uuid.uuid4().hex)
    assert producer.flush(15) == 0

    answer = await org.client("tasks").post("/v1/tasks", json={"title": "A neighbour"})
    assert answer.status_code == 201

    until = time.monotonic() + 30
    while (await org.client("analytics").get("/v1/analytics/summary")).json()["topics"]["task.created"] != 1:
        assert time.monotonic() < until, "the neighbour was not processed"


@pytest.mark.parametrize("path", ["/events/task.created", "/job/kernel-cleanup"])
async def test_nobody_but_the_own_sidecar_may_call_back(
    stack: Stack, tokens: dict[str, dict[str, str]], path: str
) -> None:
    direct = stack.http["analytics"] + path
    ports = {app.name: stack.layout.port(int(app.values["daprHTTPPort"])) for app in load_apps()}
    through = f"http://127.0.0.1:{ports['tasks']}/v1.0/invoke/analytics/method{path}"
    async with httpx.AsyncClient() as client:
        answers = [
            await client.post(direct, json={"entries": []}),
            await client.post(direct, json={"entries": []}, headers={"dapr-api-token": "guessed"}),
            await client.post(
                through, json={"entries": []}, headers={"dapr-api-token": tokens["tasks"]["DAPR_API_TOKEN"]}
            ),
        ]

    assert [answer.status_code for answer in answers] == [403, 403, 403]


@pytest.mark.ac("platform:R6.5")
async def test_the_log_level_changes_while_the_service_runs(stack: Stack, tokens: dict[str, dict[str, str]]) -> None:
    url = stack.http["analytics"] + "/-/log-level"
    headers = {"dapr-api-token": tokens["analytics"]["APP_API_TOKEN"]}
    async with httpx.AsyncClient(headers=headers) as client:
        assert (await client.put(url, content="debug")).text == "DEBUG"
        assert (await client.get(url)).text == "DEBUG"
        refused = await client.put(url, content="loud")
        assert refused.status_code == 400
        assert "'loud'" in refused.json()["detail"]
        assert (await client.put(url, content="info")).text == "INFO"
