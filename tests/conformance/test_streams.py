"""What `isa.streams.v1` promises, in memory and on the real engine."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio

from isa_common import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    Delivery,
    Discard,
    FailedPrecondition,
    InvalidArgument,
    Isa,
    IsaError,
    KeyEntry,
    KeyOperation,
    Message,
    NotFound,
    Outgoing,
    PermissionDenied,
    Published,
    ResourceExhausted,
    Retention,
    Start,
    Streams,
)
from tests.conformance.conftest import Engines, FakeParts, Secrets, serving

SECOND = timedelta(seconds=1)


@pytest_asyncio.fixture
async def address(engines: Engines) -> AsyncIterator[str]:
    """A NATS adapter on the engine under test."""
    from services.adapters.nats.app import Settings, create_app

    settings = Settings(url=f"nats://{engines.address('nats')}", streams=12)
    async with serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address:
        yield address


def fresh_org() -> str:
    return f"org-{uuid.uuid4().hex[:16]}"


async def emptied(streams: Streams) -> None:
    """Leave nothing on the engine."""
    for stream in await streams.list_streams():
        await streams.delete_stream(stream.name)
    for bucket in await streams.list_buckets():
        await streams.delete_bucket(bucket.name)


@pytest_asyncio.fixture
async def streams(as_person: Callable[..., Isa]) -> AsyncIterator[Streams]:
    """The streams of a fresh organisation."""
    mine = as_person(fresh_org()).streams
    yield mine
    await emptied(mine)


@pytest_asyncio.fixture
async def others(as_person: Callable[..., Isa]) -> AsyncIterator[Streams]:
    """Those of another one."""
    theirs = as_person(fresh_org(), "user-2").streams
    yield theirs
    await emptied(theirs)


async def following(items: AsyncIterator) -> object:
    """The next item, which must come."""
    return await asyncio.wait_for(anext(items), 10)


async def taken(streams: Streams, stream: str, consumer: str, count: int) -> list[Delivery]:
    """So many messages of a consumer, by as many fetches as it takes."""
    found: list[Delivery] = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += await streams.fetch(stream, consumer, count - len(found), wait=2 * SECOND)
    return found


def texts(messages: list) -> list[bytes]:
    return [message.data for message in messages]


# Publish and subscribe.


@pytest.mark.ac("isa-cloud-prd:E3-US1:AC-1.1")
@pytest.mark.ac("isa-cloud-prd:E3-US1:AC-1.2")
async def test_a_message_reaches_who_listens(streams: Streams) -> None:
    async with streams.subscribe("orders.created") as messages:
        sent = await streams.publish("orders.created", b"\x00one\xff", headers={"trace-id": "naïve \r\n 😀 "})
        got = await following(messages)

    assert (got.subject, got.data, got.headers) == (
        "orders.created",
        b"\x00one\xff",
        {"trace-id": "naïve \r\n 😀 "},
    )
    assert sent == Published(got.message_id)
    assert got.reply_token == b""


@pytest.mark.ac("isa-cloud-prd:E3-US1:AC-1.3")
@pytest.mark.parametrize(
    ("listened", "wanted"),
    [
        ("orders.*", {"orders.eu", "orders.us"}),
        ("orders.>", {"orders.eu", "orders.us", "orders.eu.created"}),
        ("*.eu", {"orders.eu", "users.eu"}),
        ("*.*.created", {"orders.eu.created"}),
        (">", {"orders", "orders.eu", "orders.us", "orders.eu.created", "users.eu"}),
        ("orders", {"orders"}),
    ],
)
async def test_wildcards_select_subjects(streams: Streams, listened: str, wanted: set[str]) -> None:
    async with streams.subscribe(listened) as messages:
        for subject in ("orders", "orders.eu", "orders.us", "orders.eu.created", "users.eu"):
            await streams.publish(subject)
        got = {(await following(messages)).subject for _ in wanted}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), 0.05)

    assert got == wanted


@pytest.mark.ac("isa-cloud-prd:E3-US1:AC-1.4")
async def test_a_message_tells_who_published_it_when_and_as_what(as_person: Callable[..., Isa]) -> None:
    org = fresh_org()
    reader, writer = as_person(org, "user-1").streams, as_person(org, "user-2").streams
    async with reader.subscribe("a") as messages:
        before = datetime.now(UTC)
        await writer.publish("a", message_id="order-17")
        got = await following(messages)

    assert (got.publisher, got.message_id) == ("user-2", "order-17")
    assert before <= got.time <= datetime.now(UTC)


async def test_messages_of_one_publisher_come_in_order(streams: Streams) -> None:
    async with streams.subscribe("a") as messages:
        await asyncio.gather(*(streams.publish("a", str(n).encode()) for n in range(600)))
        got = [await following(messages) for _ in range(600)]

    assert texts(got) == [str(n).encode() for n in range(600)]
    assert messages.dropped == messages.interruptions == 0


async def test_of_a_group_one_member_gets_each_message(streams: Streams) -> None:
    async with (
        streams.subscribe("work", group="g") as one,
        streams.subscribe("work", group="g") as other,
        streams.subscribe("work") as alone,
    ):
        await streams.publish_many([Outgoing(subject="work", data=str(n).encode()) for n in range(40)])
        all_of_them = [await following(alone) for _ in range(40)]
        shares: list[Message] = []
        for member in (one, other):
            with pytest.raises(TimeoutError):
                while True:
                    shares.append(await asyncio.wait_for(anext(member), 0.1))

    assert sorted(texts(shares)) == sorted(texts(all_of_them))


async def test_a_reader_that_is_too_slow_is_told_how_much_it_missed(streams: Streams) -> None:
    large = b"x" * 500_000
    async with streams.subscribe("flood") as messages:
        for _ in range(8):
            await streams.publish_many([Outgoing(subject="flood", data=large) for _ in range(15)])
        await streams.publish("flood", b"last")
        got = 0
        with pytest.raises(TimeoutError):
            while True:
                await asyncio.wait_for(anext(messages), 0.5)
                got += 1

    assert got + messages.dropped == 121


async def test_a_cancelled_wait_loses_nothing(streams: Streams) -> None:
    async with streams.subscribe("a") as messages:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(messages), 0.02)
        await streams.publish("a", b"1")

        assert (await following(messages)).data == b"1"


async def test_each_message_of_a_batch_fails_alone(streams: Streams) -> None:
    outcomes = await streams.publish_many(
        [
            Outgoing(subject="a"),
            Outgoing(subject="a.*"),
            Outgoing(subject="nowhere", durable=True),
            Outgoing(subject="b", message_id="m"),
        ]
    )

    assert [type(outcome) for outcome in outcomes] == [Published, InvalidArgument, NotFound, Published]
    assert outcomes[1].field == outcomes[2].field == "subject"
    assert outcomes[3].message_id == "m"
    assert await streams.publish_many([]) == []


BAD_SUBJECTS = (
    "", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\nb", "a\r\nPUB x 0", "a\x00b", "$SYS.x", "$JS.API.INFO", "$KV.b.k",
    "a*", "a.>b", ">.a", "a\u2028b", "a\u00a0b", "x" * 257, ".".join("a" * 33), "é" * 129,
)  # fmt: skip


@pytest.mark.parametrize("subject", BAD_SUBJECTS)
async def test_no_other_subject_is_taken(streams: Streams, subject: str) -> None:
    calls = [
        streams.publish(subject),
        streams.request(subject),
        following(streams.subscribe(subject)),
        streams.create_stream("S", [subject]),
        streams.create_consumer("S", "c", filter_subjects=[subject]),
        following(streams.replay("S", filter_subject=subject or " ")),
        streams.get_message("S", last_of=subject),
        streams.bucket("b").put(subject, b""),
        streams.bucket("b").get(subject),
    ]
    for call in calls:
        with pytest.raises(InvalidArgument) as caught:
            await call
        assert caught.value.field


@pytest.mark.parametrize("subject", ["a.*", "a.>", "*", ">"])
async def test_wildcards_are_only_for_who_listens(streams: Streams, subject: str) -> None:
    for call in (streams.publish(subject), streams.request(subject), streams.bucket("b").put(subject, b"")):
        with pytest.raises(InvalidArgument):
            await call


@pytest.mark.parametrize("subject", ["a", "A-b_c.1", "é.日本", "a$b.c:d@e/f", "x" * 256, "_INBOX.a", "null"])
async def test_other_subjects_are_plain_text(streams: Streams, subject: str) -> None:
    async with streams.subscribe(">") as messages:
        await streams.publish(subject, b"1")

        assert (await following(messages)).subject == subject


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"headers": {"a b": "x"}}, "headers"),
        ({"headers": {"": "x"}}, "headers"),
        ({"headers": {"a:b": "x"}}, "headers"),
        ({"headers": {"a": "x" * 4097}}, "headers.a"),
        ({"headers": {str(n): "x" for n in range(65)}}, "headers"),
        ({"headers": {str(n): "x" * 4000 for n in range(20)}}, "headers"),
        ({"message_id": "x" * 129}, "message_id"),
        ({"message_id": "a\r\nb"}, "message_id"),
        ({"message_id": " a"}, "message_id"),
        ({"data": b"x" * (1 << 20)}, "data"),
        ({"expected_last_sequence": 1}, "durable"),
    ],
)
async def test_a_message_that_cannot_be_sent_names_its_field(
    streams: Streams, arguments: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await streams.publish("a", **arguments)

    assert caught.value.field == field


async def test_a_message_of_nearly_one_mebibyte_arrives(streams: Streams) -> None:
    data = b"x" * ((1 << 20) - 1024)
    async with streams.subscribe("large") as messages:
        await streams.publish("large", data)

        assert (await following(messages)).data == data


async def test_headers_have_no_meaning_for_the_engine(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    headers = {"Nats-Msg-Id": "x", "Nats-Rollup": "all", "Status": "503", "Isa-Message": "{}", "KV-Operation": "DEL"}
    for _ in range(2):
        await streams.publish("s", b"1", durable=True, headers=headers)

    found = [message async for message in streams.replay("S")]

    assert [(message.data, message.headers) for message in found] == [(b"1", headers)] * 2


# Request and reply.


async def test_a_request_is_answered(streams: Streams) -> None:
    async def upper(message: Message) -> bytes:
        return message.data.upper()

    async with streams.respond("text.upper", upper):
        answer = await streams.request("text.upper", b"abc")
        together = await asyncio.gather(*(streams.request("text.upper", f"n{n}".encode()) for n in range(50)))
        batch = await streams.request_many([Outgoing(subject="text.upper", data=b"x"), Outgoing(subject="no..no")])

    assert (answer.data, answer.subject, answer.publisher) == (b"ABC", "text.upper", "user-1")
    assert texts(together) == [f"N{n}".encode() for n in range(50)]
    assert batch[0].data == b"X"
    assert isinstance(batch[1], InvalidArgument)


async def test_without_a_listener_a_request_fails_at_once(streams: Streams) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        await streams.request("nobody", b"")

    assert caught.value.field == "subject"


async def test_a_listener_that_does_not_answer_is_waited_for_until_the_deadline(streams: Streams) -> None:
    async with streams.subscribe("silent"):
        with pytest.raises(DeadlineExceeded):
            await streams.request("silent", timeout=timedelta(milliseconds=200))


async def test_a_stream_is_no_answer(streams: Streams) -> None:
    await streams.create_stream("S", ["asked"])
    with pytest.raises(DeadlineExceeded):
        await streams.request("asked", timeout=timedelta(milliseconds=200))

    async def answer(_: Message) -> bytes:
        return b"answer"

    async with streams.respond("asked", answer):
        assert (await streams.request("asked")).data == b"answer"
        assert (await streams.publish("asked", durable=True)).stream == "S"


async def test_a_reply_token_serves_only_its_tenant(streams: Streams, others: Streams) -> None:
    async with streams.subscribe("ask") as messages:
        asking = asyncio.create_task(streams.request("ask", b"?"))
        asked = await following(messages)
        for token in (b"", b"x" * 60, asked.reply_token[:-1], asked.reply_token + b"x"):
            with pytest.raises(InvalidArgument) as caught:
                await streams.reply(Message(subject="ask", reply_token=token), b"forged")
            assert caught.value.field == "reply_token"
        with pytest.raises(InvalidArgument):
            await others.reply(asked, b"stolen")
        refused = await others.reply_many([(asked, b"stolen")])
        accepted = await streams.reply_many([(asked, b"!")])

        assert isinstance(refused[0], InvalidArgument)
        assert accepted == [None]
        assert (await asking).data == b"!"


# Streams.


@pytest.mark.ac("isa-cloud-prd:E3-US2:AC-2.1")
async def test_a_stream_is_made_changed_listed_and_deleted(streams: Streams) -> None:
    made = await streams.create_stream(
        "ORDERS", ["orders.>"], max_age=timedelta(hours=1), max_messages=100, description="Orders."
    )
    again = await streams.create_stream(
        "ORDERS", ["orders.>"], max_age=timedelta(hours=1), max_messages=100, description="Orders."
    )
    changed = await streams.update_stream("ORDERS", ["orders.>", "returns.*"], max_bytes=1 << 20)
    await streams.create_stream("B", ["b"])

    assert (made.name, made.subjects, made.retention) == ("ORDERS", ("orders.>",), Retention.LIMITS)
    assert (made.max_age, made.max_messages, made.description) == (timedelta(hours=1), 100, "Orders.")
    assert made.max_bytes > 0
    assert again == made
    assert (changed.subjects, changed.max_bytes, changed.max_age) == (("orders.>", "returns.*"), 1 << 20, None)
    assert await streams.get_stream("ORDERS") == changed
    assert [stream.name for stream in await streams.list_streams()] == ["B", "ORDERS"]
    with pytest.raises(AlreadyExists):
        await streams.create_stream("ORDERS", ["elsewhere"])
    with pytest.raises(FailedPrecondition):
        await streams.create_stream("OTHER", ["orders.eu"])
    await streams.delete_stream("ORDERS")
    for call in (streams.get_stream("ORDERS"), streams.delete_stream("ORDERS"), streams.update_stream("ORDERS", ["a"])):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "a.b"}, "config.name"),
        ({"name": ""}, "config.name"),
        ({"name": "x" * 65}, "config.name"),
        ({"name": "é"}, "config.name"),
        ({"name": "a*"}, "config.name"),
        ({"name": "a\x00"}, "config.name"),
        ({"name": "a b"}, "config.name"),
        ({"subjects": []}, "config.subjects"),
        ({"subjects": ["a", "b..c"]}, "config.subjects[1]"),
        ({"max_bytes": -1}, "config.max_bytes"),
        ({"max_bytes": 1 << 60}, "config.max_bytes"),
        ({"max_messages": -1}, "config.max_messages"),
        ({"max_message_size": (1 << 20) + 1}, "config.max_message_size"),
        ({"max_age": -SECOND}, "config.max_age"),
        ({"max_age": timedelta(microseconds=1)}, "config.max_age"),
        ({"max_age": SECOND, "duplicate_window": 2 * SECOND}, "config.duplicate_window"),
        ({"description": "x" * 1025}, "config.description"),
    ],
)
async def test_a_configuration_that_cannot_be_names_its_field(
    streams: Streams, arguments: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await streams.create_stream(**{"name": "S", "subjects": ["s"], **arguments})

    assert caught.value.field == field


async def test_the_retention_of_a_stream_stays(streams: Streams) -> None:
    await streams.create_stream("S", ["s"], retention=Retention.WORK_QUEUE)

    changed = await streams.update_stream("S", ["s", "t"])

    assert (changed.retention, changed.subjects) == (Retention.WORK_QUEUE, ("s", "t"))


async def test_a_durable_message_is_in_its_stream_when_it_is_answered(streams: Streams) -> None:
    await streams.create_stream("S", ["s.>"])

    first = await streams.publish("s.a", b"1", durable=True)
    again = await streams.publish("s.b", b"2", durable=True)

    assert (first.stream, first.sequence, first.is_duplicate) == ("S", 1, False)
    assert again.sequence == 2
    found = await streams.get_message("S", 1)
    assert (found.subject, found.data, found.sequence, found.publisher) == ("s.a", b"1", 1, "user-1")
    assert found.message_id == first.message_id
    assert (await streams.get_message("S", last_of="s.b")).data == b"2"
    state = await streams.get_stream("S")
    assert (state.messages, state.first_sequence, state.last_sequence) == (2, 1, 2)


async def test_a_message_id_is_stored_once(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])

    told = [await streams.publish("s", b"x", message_id="order-1", durable=True) for _ in range(3)]
    await streams.publish("s", b"x", message_id="order-1")
    other = await streams.publish("s", b"y", message_id="order-2", durable=True)

    with pytest.raises(Aborted):  # an expectation is looked at first
        await streams.publish("s", message_id="order-1", durable=True, expected_last_sequence=0)
    assert [(each.sequence, each.is_duplicate) for each in told] == [(1, False), (1, True), (1, True)]
    assert (other.sequence, other.is_duplicate) == (2, False)


async def test_a_publisher_may_expect_what_is_last(streams: Streams) -> None:
    await streams.create_stream("S", ["s.>"])
    await streams.publish("s.a", durable=True, expected_last_sequence=0)
    await streams.publish("s.b", durable=True, expected_last_subject_sequence=0)

    for expectation in ({"expected_last_sequence": 1}, {"expected_last_subject_sequence": 0}):
        with pytest.raises(Aborted):
            await streams.publish("s.b", durable=True, **expectation)
    await streams.publish("s.a", durable=True, expected_last_subject_sequence=1)

    assert (await streams.get_stream("S")).messages == 3


async def test_limits_drop_the_oldest_or_refuse_the_newest(streams: Streams) -> None:
    await streams.create_stream("OLD", ["old"], max_messages=3)
    await streams.create_stream("NEW", ["new"], max_messages=3, discard=Discard.NEW)
    await streams.create_stream("EACH", ["each.*"], max_messages_per_subject=1)
    for n in range(5):
        await streams.publish("old", str(n).encode(), durable=True)
        await streams.publish(f"each.{n % 2}", str(n).encode(), durable=True)
    for _ in range(3):
        await streams.publish("new", durable=True)
    with pytest.raises(ResourceExhausted):
        await streams.publish("new", durable=True)
    await streams.create_stream("SMALL", ["small"], max_message_size=512)
    with pytest.raises(InvalidArgument):
        await streams.publish("small", b"x" * 1000, durable=True)

    assert texts([message async for message in streams.replay("OLD")]) == [b"2", b"3", b"4"]
    assert texts([message async for message in streams.replay("EACH")]) == [b"3", b"4"]


async def test_messages_grow_old(streams: Streams) -> None:
    await streams.create_stream("S", ["s"], max_age=timedelta(milliseconds=300))
    await streams.publish("s", durable=True)

    async with asyncio.timeout(15):
        while (await streams.get_stream("S")).messages:
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("arguments", "left"),
    [({}, []), ({"filter_subject": "s.0"}, [1, 3]), ({"before_sequence": 3}, [2, 3]), ({"keep": 1}, [3])],
)
async def test_a_stream_is_purged(streams: Streams, arguments: dict[str, object], left: list[int]) -> None:
    await streams.create_stream("S", ["s.*"])
    for n in range(4):
        await streams.publish(f"s.{n % 2}", str(n).encode(), durable=True)

    assert await streams.purge_stream("S", **arguments) == 4 - len(left)

    assert texts([message async for message in streams.replay("S")]) == [str(n).encode() for n in left]
    with pytest.raises(InvalidArgument):
        await streams.purge_stream("S", before_sequence=1, keep=1)


@pytest.mark.ac("isa-cloud-prd:E3-US2:AC-2.4")
async def test_a_stream_is_replayed_from_a_sequence_a_time_or_a_start(streams: Streams) -> None:
    await streams.create_stream("S", ["s.*"])
    for n in range(6):
        await streams.publish(f"s.{n % 2}", str(n).encode(), durable=True)
    third = (await streams.get_message("S", 3)).time

    async def replayed(**arguments: object) -> bytes:
        return b"".join([message.data async for message in streams.replay("S", **arguments)])

    assert await replayed() == b"012345"
    assert await replayed(start=4) == b"345"
    assert await replayed(start=99) == b""
    assert await replayed(start=third) == b"2345"
    assert await replayed(start=Start.LAST) == b"5"
    assert await replayed(start=Start.LAST_PER_SUBJECT) == b"45"
    assert await replayed(start=Start.NEW) == b""
    assert await replayed(start=2, filter_subject="s.0") == b"24"
    with pytest.raises(InvalidArgument):
        await replayed(start=0)
    with pytest.raises(NotFound):
        await following(streams.replay("NONE"))


async def test_a_replay_goes_on_with_what_comes(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    for n in range(700):
        await streams.publish("s", str(n).encode())
    await streams.publish("s", b"700", durable=True)

    async with streams.replay("S", follow=True) as messages:
        found = [await following(messages) for _ in range(701)]
        await streams.publish("s", b"701", durable=True)
        found.append(await following(messages))

    assert texts(found) == [str(n).encode() for n in range(702)]
    assert [message.sequence for message in found] == list(range(1, 703))


async def test_messages_are_read_by_their_sequences(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    for n in range(3):
        await streams.publish("s", str(n).encode(), durable=True)

    found = await streams.get_messages("S", [3, 1, 9])

    assert texts(found[:2]) == [b"2", b"0"]
    assert isinstance(found[2], NotFound)
    for call in (streams.get_message("S", 9), streams.get_message("S", last_of="s.x"), streams.get_message("T", 1)):
        with pytest.raises(NotFound):
            await call
    with pytest.raises(InvalidArgument):
        await streams.get_message("S", 0)


async def test_there_is_an_end_to_the_streams_of_an_organisation(streams: Streams) -> None:
    made = 0
    with pytest.raises(ResourceExhausted):
        for n in range(101):
            await streams.create_stream(f"S{n}", [f"s{n}"])
            made += 1

    assert made >= 10
    await streams.create_stream("S0", ["s0"])


# Consumers.


@pytest.mark.ac("isa-cloud-prd:E3-US2:AC-2.2")
async def test_a_durable_consumer_goes_on_where_it_was(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "worker")
    for n in range(4):
        await streams.publish("s", str(n).encode(), durable=True)

    first = await streams.fetch("S", "worker", 2)
    await asyncio.gather(*(delivery.ack() for delivery in first))
    second = await streams.fetch("S", "worker", 10)

    assert texts(first) == [b"0", b"1"]
    assert texts(second) == [b"2", b"3"]
    assert [(each.attempt, each.pending, each.sequence) for each in second] == [(1, 1, 3), (1, 0, 4)]
    state = await streams.get_consumer("S", "worker")
    assert (state.pending, state.ack_pending, state.ack_floor) == (0, 2, 2)


async def test_a_consumer_is_made_listed_and_deleted(streams: Streams) -> None:
    await streams.create_stream("S", ["s.>"])
    made = await streams.create_consumer(
        "S", "b", filter_subjects=["s.a", "s.b.*"], ack_wait=5 * SECOND, max_deliver=3, max_ack_pending=7, start=2
    )
    await streams.create_consumer("S", "a")

    assert (made.stream, made.name, made.filter_subjects) == ("S", "b", ("s.a", "s.b.*"))
    assert (made.ack_wait, made.max_deliver, made.max_ack_pending, made.start) == (5 * SECOND, 3, 7, 2)
    assert [each.name for each in await streams.list_consumers("S")] == ["a", "b"]
    assert (await streams.create_consumer("S", "a")).start is Start.ALL
    assert (await streams.get_stream("S")).consumers == 2
    with pytest.raises(AlreadyExists):
        await streams.create_consumer("S", "a", max_deliver=1)
    await streams.delete_consumer("S", "a")
    for call in (
        streams.get_consumer("S", "a"),
        streams.delete_consumer("S", "a"),
        streams.fetch("S", "a", wait=timedelta(0)),
        streams.fetch("T", "a", wait=timedelta(0)),
        streams.create_consumer("T", "a"),
        streams.list_consumers("T"),
        following(streams.consume("S", "a")),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    ("start", "wanted"),
    [
        (Start.ALL, b"0123"),
        (Start.LAST, b"3"),
        (Start.LAST_PER_SUBJECT, b"23"),
        (Start.NEW, b""),
        (3, b"23"),
        (datetime(2020, 1, 1, tzinfo=UTC), b"0123"),
    ],
)
async def test_a_consumer_begins_where_it_is_told_to(
    streams: Streams, start: Start | int | datetime, wanted: bytes
) -> None:
    await streams.create_stream("S", ["s.*"])
    for n in range(4):
        await streams.publish(f"s.{n % 2}", str(n).encode(), durable=True)
    made = await streams.create_consumer("S", "c", start=start)
    await streams.publish("s.0", b"!", durable=True)

    found = await taken(streams, "S", "c", len(wanted) + 1)

    assert b"".join(texts(found)) == wanted + b"!"
    assert made.start == start


@pytest.mark.ac("isa-cloud-prd:E3-US2:AC-2.3")
async def test_what_failed_comes_again_and_what_is_done_or_given_up_does_not(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    for word in (b"ack", b"nak", b"term", b"later"):
        await streams.publish("s", word, durable=True)
    done, failed, given_up, later = await taken(streams, "S", "c", 4)

    await done.ack()
    await failed.nak()
    await given_up.term()
    await later.nak(timedelta(milliseconds=300))
    again = await taken(streams, "S", "c", 2)

    assert [(each.data, each.attempt) for each in again] == [(b"nak", 2), (b"later", 2)]
    for each in again:
        await each.ack()
    assert await streams.fetch("S", "c", wait=timedelta(0)) == []
    assert (await streams.get_consumer("S", "c")).ack_floor == 4


async def test_what_is_not_settled_in_time_comes_again_unless_it_is_in_progress(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c", ack_wait=SECOND, max_deliver=2)
    await streams.publish("s", b"forgotten", durable=True)
    await streams.publish("s", b"slow", durable=True)
    forgotten, slow = await taken(streams, "S", "c", 2)
    until = asyncio.get_running_loop().time() + 2.5
    again: list[Delivery] = []
    while asyncio.get_running_loop().time() < until:
        await slow.in_progress()
        again += await streams.fetch("S", "c", wait=SECOND / 5)
    await slow.ack()

    assert [(each.data, each.attempt) for each in again] == [(b"forgotten", 2)]
    assert forgotten.attempt == 1


async def test_a_fetch_waits_for_the_first_message_only(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    fetching = asyncio.create_task(streams.fetch("S", "c", 10, wait=20 * SECOND))
    assert await streams.fetch("S", "c", wait=timedelta(0)) == []

    await streams.publish("s", b"1", durable=True)

    assert texts(await asyncio.wait_for(fetching, 10)) == [b"1"]


async def test_a_work_queue_gives_each_message_once_and_forgets_it(streams: Streams) -> None:
    await streams.create_stream("Q", ["q.*"], retention=Retention.WORK_QUEUE)
    await streams.create_consumer("Q", "a", filter_subjects=["q.a"])
    with pytest.raises(FailedPrecondition):
        await streams.create_consumer("Q", "b", filter_subjects=["q.*"])
    with pytest.raises(FailedPrecondition):
        await streams.create_consumer("Q", "c", filter_subjects=["q.c"], start=Start.NEW)
    await streams.publish("q.a", b"1", durable=True)
    (delivery,) = await taken(streams, "Q", "a", 1)

    await delivery.ack()

    assert (await streams.get_stream("Q")).messages == 0


async def test_interest_keeps_a_message_until_every_consumer_has_it(streams: Streams) -> None:
    await streams.create_stream("I", ["i"], retention=Retention.INTEREST)
    await streams.publish("i", b"nobody", durable=True)
    for name in ("a", "b"):
        await streams.create_consumer("I", name)
    await streams.publish("i", b"both", durable=True)
    (one,) = await taken(streams, "I", "a", 1)
    await one.ack()
    assert (await streams.get_stream("I")).messages == 1
    (other,) = await taken(streams, "I", "b", 1)
    await other.ack()

    assert texts([one, other]) == [b"both", b"both"]
    assert (await streams.get_stream("I")).messages == 0


async def test_consuming_sends_as_much_as_is_settled(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    await streams.publish_many([Outgoing(subject="s", data=str(n).encode(), durable=True) for n in range(300)])
    seen: list[bytes] = []
    async with streams.consume("S", "c", max_in_flight=10) as deliveries:
        first = [await following(deliveries) for _ in range(10)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(deliveries), 0.1)
        for delivery in first:
            await delivery.ack()
        seen += texts(first)
        async for delivery in deliveries:
            seen.append(delivery.data)
            await delivery.ack(confirm=len(seen) % 50 == 0)
            if len(seen) == 300:
                break

    assert seen == [str(n).encode() for n in range(300)]
    state = await streams.get_consumer("S", "c")
    assert (state.ack_pending, state.pending, state.ack_floor) == (0, 0, 300)


async def test_consuming_settles_in_every_way(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c", ack_wait=2 * SECOND)
    for word in (b"nak", b"term", b"progress"):
        await streams.publish("s", word, durable=True)
    async with streams.consume("S", "c") as deliveries:
        failed, given_up, slow = [await following(deliveries) for _ in range(3)]
        await failed.nak()
        await given_up.term(confirm=True)
        await slow.in_progress()
        again = await following(deliveries)
        await slow.ack()
        await again.ack()

    assert (again.data, again.attempt) == (b"nak", 2)
    assert (await streams.get_consumer("S", "c")).ack_floor == 3


async def test_what_is_settled_after_consuming_counts_too(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    for _ in range(2):
        await streams.publish("s", durable=True)
    async with streams.consume("S", "c") as deliveries:
        late, lost = await following(deliveries), await following(deliveries)

    await late.ack()
    assert (await streams.get_consumer("S", "c")).ack_pending == 1
    await streams.delete_consumer("S", "c")
    with pytest.raises(NotFound):
        await lost.ack()


async def test_who_consumes_is_told_when_the_consumer_goes(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    await streams.publish("s", durable=True)
    async with streams.consume("S", "c") as deliveries:
        delivery = await following(deliveries)
        await streams.delete_consumer("S", "c")

        with pytest.raises(NotFound):
            await asyncio.wait_for(anext(deliveries), 20)
        with pytest.raises(NotFound):
            await delivery.ack(confirm=True)


async def test_two_who_consume_share_the_messages(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    seen: list[bytes] = []

    async def work() -> None:
        async with streams.consume("S", "c", max_in_flight=5) as deliveries:
            async for delivery in deliveries:
                seen.append(delivery.data)
                await delivery.ack()

    async with AsyncExitStack() as stack:
        workers = [asyncio.create_task(work()) for _ in range(2)]
        stack.callback(lambda: [worker.cancel() for worker in workers])
        await streams.publish_many([Outgoing(subject="s", data=str(n).encode(), durable=True) for n in range(100)])
        async with asyncio.timeout(15):
            while (await streams.get_consumer("S", "c")).ack_floor < 100:
                await asyncio.sleep(0.02)

    assert sorted(seen) == sorted(str(n).encode() for n in range(100))


async def test_what_a_reader_did_not_settle_comes_to_the_next(streams: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c", ack_wait=SECOND)
    await streams.publish("s", b"1", durable=True)
    async with streams.consume("S", "c") as deliveries:
        await following(deliveries)

    async with streams.consume("S", "c") as deliveries:
        again = await following(deliveries)
        await again.ack(confirm=True)

    assert (again.data, again.attempt) == (b"1", 2)


async def test_an_ack_token_serves_only_its_tenant(streams: Streams, others: Streams) -> None:
    await streams.create_stream("S", ["s"])
    await streams.create_consumer("S", "c")
    await streams.publish("s", b"1", durable=True)
    (delivery,) = await taken(streams, "S", "c", 1)
    await others.create_stream("S", ["s"])
    await others.create_consumer("S", "c")
    await others.publish("s", b"1", durable=True)
    (theirs,) = await taken(others, "S", "c", 1)

    for owner, token in (
        (others, delivery.ack_token),
        (streams, theirs.ack_token),
        (streams, b""),
        (streams, b"x" * 80),
        (streams, delivery.ack_token + b"0"),
        (streams, delivery.ack_token[16:]),
    ):
        forged = Delivery(subject="s", attempt=1, pending=0, ack_token=token, _settle=owner._settling)
        with pytest.raises(InvalidArgument):
            await forged.ack()

    assert (await streams.get_consumer("S", "c")).ack_pending == 1
    assert (await others.get_consumer("S", "c")).ack_pending == 1
    await streams.delete_consumer("S", "c")
    with pytest.raises(NotFound):
        await delivery.ack()


async def test_a_forged_token_ends_consuming(streams: Streams, others: Streams) -> None:
    for each in (streams, others):
        await each.create_stream("S", ["s"])
        await each.create_consumer("S", "c")
        await each.publish("s", b"1", durable=True)
    (theirs,) = await taken(others, "S", "c", 1)

    with pytest.raises(InvalidArgument):
        async with streams.consume("S", "c") as deliveries:
            mine = await following(deliveries)
            forged = Delivery(subject="s", attempt=1, pending=0, ack_token=theirs.ack_token, _settle=mine._settle)
            await forged.ack()
            await following(deliveries)

    assert (await others.get_consumer("S", "c")).ack_pending == 1


# Buckets.


@pytest.mark.ac("isa-cloud-prd:E3-US3:AC-3.1")
async def test_a_bucket_is_made_listed_and_deleted(streams: Streams) -> None:
    await streams.create_bucket("config", history=5, ttl=timedelta(hours=1), description="Settings.")
    await streams.create_bucket("config", history=5, ttl=timedelta(hours=1), description="Settings.")
    await streams.create_bucket("other")

    state = await streams.get_bucket("config")
    assert (state.name, state.history, state.ttl, state.description) == ("config", 5, timedelta(hours=1), "Settings.")
    assert (state.entries, state.revision) == (0, 0)
    assert [each.name for each in await streams.list_buckets()] == ["config", "other"]
    assert await streams.list_streams() == []
    with pytest.raises(AlreadyExists):
        await streams.create_bucket("config")
    await streams.delete_bucket("config")
    bucket = streams.bucket("config")
    for call in (
        streams.get_bucket("config"),
        streams.delete_bucket("config"),
        bucket.put("a", b""),
        bucket.get("a"),
        bucket.create("a", b""),
        bucket.delete("a"),
        bucket.history("a"),
        following(bucket.keys()),
        following(bucket.watch()),
    ):
        with pytest.raises(NotFound):
            await call


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"name": "a.b"}, "config.name"),
        ({"name": "ü"}, "config.name"),
        ({"history": 65}, "config.history"),
        ({"history": -1}, "config.history"),
        ({"ttl": timedelta(milliseconds=10)}, "config.ttl"),
        ({"max_bytes": -1}, "config.max_bytes"),
        ({"max_value_size": 1 << 21}, "config.max_value_size"),
    ],
)
async def test_a_bucket_that_cannot_be_names_its_field(
    streams: Streams, arguments: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await streams.create_bucket(**{"name": "b", **arguments})

    assert caught.value.field == field


@pytest.mark.ac("isa-cloud-prd:E3-US3:AC-3.2")
async def test_a_key_is_put_got_and_deleted(streams: Streams) -> None:
    bucket = await streams.create_bucket("b")
    first = await bucket.put("ui.theme", b"dark")
    second = await bucket.put("ui.theme", b"light\x00")

    found = await bucket.get("ui.theme")
    assert (found.key, found.value, found.revision) == ("ui.theme", b"light\x00", second)
    assert (found.operation, found.publisher) == (KeyOperation.PUT, "user-1")
    assert second > first
    await bucket.delete("ui.theme")
    for call in (bucket.get("ui.theme"), bucket.get("never"), bucket.get("ui.theme", revision=first)):
        with pytest.raises(NotFound) as caught:
            await call
        assert caught.value.field == "key"
    await bucket.delete("never")


async def test_history_keeps_values_until_it_is_purged(streams: Streams) -> None:
    bucket = await streams.create_bucket("b", history=3)
    revisions = [await bucket.put("k", str(n).encode()) for n in range(4)]
    await bucket.delete("k")

    history = await bucket.history("k")

    assert [(each.value, each.operation) for each in history] == [
        (b"2", KeyOperation.PUT),
        (b"3", KeyOperation.PUT),
        (b"", KeyOperation.DELETE),
    ]
    assert (await bucket.get("k", revision=revisions[3])).value == b"3"
    with pytest.raises(NotFound):
        await bucket.get("k", revision=revisions[0])
    with pytest.raises(NotFound):
        await bucket.get("other", revision=revisions[3])
    await bucket.purge("k")
    assert [each.operation for each in await bucket.history("k")] == [KeyOperation.PURGE]
    assert await bucket.history("never") == []


async def test_a_key_is_created_once_and_updated_at_its_revision(streams: Streams) -> None:
    bucket = await streams.create_bucket("b", history=4)
    first = await bucket.create("k", b"1")
    with pytest.raises(AlreadyExists) as taken_already:
        await bucket.create("k", b"2")
    second = await bucket.update("k", b"3", first)
    with pytest.raises(Aborted) as stale:
        await bucket.update("k", b"4", first)
    await bucket.delete("k")
    third = await bucket.create("k", b"5")

    assert (taken_already.value.field, stale.value.field) == ("key", "revision")
    assert first < second < third
    assert (await bucket.get("k")).value == b"5"
    with pytest.raises(Aborted):
        await bucket.update("none", b"", 7)
    with pytest.raises(InvalidArgument):
        await bucket.update("k", b"", 0)


async def test_one_of_many_creates_wins(streams: Streams) -> None:
    bucket = await streams.create_bucket("b")
    await bucket.put("k", b"")
    await bucket.delete("k")

    told = await asyncio.gather(*(bucket.create("k", str(n).encode()) for n in range(10)), return_exceptions=True)

    assert sorted(type(each).__name__ for each in told) == ["AlreadyExists"] * 9 + ["int"]


async def test_batches_of_keys_fail_one_by_one(streams: Streams) -> None:
    bucket = await streams.create_bucket("b")

    put = await bucket.put_many({"a": b"1", "b": b"2", "bad key": b"", "c": b"3"})
    created = await bucket.create_many({"a": b"", "d": b"4"})
    updated = await bucket.update_many({"a": (b"5", put["a"]), "b": (b"", put["a"])})
    got = await bucket.get_many(["a", "b", "none", "d", ""])
    deleted = await bucket.delete_many(["a", "x y"])
    purged = await bucket.purge_many(["b", "*"])

    assert [type(each).__name__ for each in put.values()] == ["int", "int", "InvalidArgument", "int"]
    assert [type(each).__name__ for each in created.values()] == ["AlreadyExists", "int"]
    assert [type(each).__name__ for each in updated.values()] == ["int", "Aborted"]
    assert [each.value if isinstance(each, KeyEntry) else type(each) for each in got] == [
        b"5", b"2", NotFound, b"4", InvalidArgument,
    ]  # fmt: skip
    assert [type(each).__name__ for each in deleted] == ["NoneType", "InvalidArgument"]
    assert [type(each).__name__ for each in purged] == ["NoneType", "InvalidArgument"]
    assert sorted([key async for key in bucket.keys(">")]) == ["c", "d"]
    with pytest.raises(InvalidArgument) as caught:
        await bucket.get_many(["a"] * 1001)
    assert caught.value.field == "keys"


async def test_calls_of_one_moment_go_together_and_each_gets_its_own_answer(streams: Streams) -> None:
    bucket, other = await streams.create_bucket("b"), await streams.create_bucket("c")
    await asyncio.gather(
        *(each.put(f"k{n}", f"{each.name}{n}".encode()) for n in range(60) for each in (bucket, other))
    )

    found = await asyncio.gather(
        *(each.get(f"k{n}") for n in range(61) for each in (bucket, other)), return_exceptions=True
    )

    assert [each.value for each in found[:120]] == [f"{name}{n}".encode() for n in range(60) for name in "bc"]
    assert [type(each) for each in found[120:]] == [NotFound, NotFound]


async def test_large_values_of_one_moment_all_arrive(streams: Streams) -> None:
    bucket = await streams.create_bucket("b")
    value = b"x" * 900_000
    await asyncio.gather(*(bucket.put(f"k{n}", value) for n in range(20)))

    found = await asyncio.gather(*(bucket.get(f"k{n}") for n in range(20)))

    assert all(each.value == value for each in found)


async def test_keys_are_found_by_filter(streams: Streams) -> None:
    bucket = await streams.create_bucket("b", history=2)
    await bucket.put_many({f"{part}.{n}": b"" for part in ("ui", "api") for n in range(150)})
    await bucket.delete("ui.7")

    assert len([key async for key in bucket.keys(">")]) == 299
    assert sorted([key async for key in bucket.keys("ui.*")]) == sorted(f"ui.{n}" for n in range(150) if n != 7)
    assert [key async for key in bucket.keys("api.3")] == ["api.3"]
    assert [key async for key in bucket.keys("none.>")] == []
    with pytest.raises(InvalidArgument):
        await following(bucket.keys("a b"))


@pytest.mark.ac("isa-cloud-prd:E3-US3:AC-3.3")
async def test_a_watch_sends_what_is_and_then_what_changes(streams: Streams) -> None:
    bucket = await streams.create_bucket("b", history=3)
    await bucket.put("a.x", b"0")
    await bucket.put("a.x", b"1")
    await bucket.put("b.x", b"2")
    await bucket.put("a.gone", b"3")
    await bucket.delete("a.gone")
    async with bucket.watch("a.>") as watch, bucket.watch(only_changes=True) as changes:
        current = await watch.current()
        assert watch.is_current
        assert await changes.current() == []
        all_seen, seen = [], []
        for change in (bucket.put("b.x", b"4"), bucket.put("a.y", b"5"), bucket.delete("a.x"), bucket.purge("a.y")):
            await change
            all_seen.append(await following(changes))
            if all_seen[-1].key.startswith("a."):
                seen.append(await following(watch))

    assert [(each.key, each.value) for each in current] == [("a.x", b"1")]
    assert [(each.key, each.value, each.operation) for each in seen] == [
        ("a.y", b"5", KeyOperation.PUT),
        ("a.x", b"", KeyOperation.DELETE),
        ("a.y", b"", KeyOperation.PURGE),
    ]
    assert [each.key for each in all_seen] == ["b.x", "a.y", "a.x", "a.y"]


async def test_a_watch_ends_with_its_bucket(streams: Streams) -> None:
    bucket = await streams.create_bucket("b")
    async with bucket.watch() as watch:
        assert await watch.current() == []
        await streams.delete_bucket("b")

        with pytest.raises(NotFound):
            await asyncio.wait_for(anext(watch), 20)


@pytest.mark.ac("isa-cloud-prd:E3-US3:AC-3.4")
async def test_a_value_goes_when_its_time_is_up(streams: Streams) -> None:
    lasting, passing = await streams.create_bucket("a", history=3), await streams.create_bucket("b", ttl=SECOND)
    await lasting.put("k", b"old")
    await lasting.put("k", b"new", ttl=SECOND)
    await lasting.create("once", b"1", ttl=SECOND)
    await passing.put("k", b"1")
    async with lasting.watch("k") as watch:
        assert [each.value for each in await watch.current()] == [b"new"]
        ended = await following(watch)

    assert (ended.operation, ended.publisher) == (KeyOperation.EXPIRE, "")
    async with asyncio.timeout(10):
        for bucket, key in ((lasting, "k"), (lasting, "once"), (passing, "k")):
            with pytest.raises(NotFound):
                while await bucket.get(key):
                    await asyncio.sleep(0.05)
    assert await lasting.create("once", b"2") > 0
    for ttl in (timedelta(0), timedelta(milliseconds=1500), -SECOND):
        with pytest.raises(InvalidArgument) as caught:
            await lasting.put("k", b"", ttl=ttl)
        assert caught.value.field == "ttl"


async def test_a_bucket_has_an_end(streams: Streams) -> None:
    bucket = await streams.create_bucket("b", max_bytes=10_000, max_value_size=4_000)
    with pytest.raises(InvalidArgument):
        await bucket.put("k", b"x" * 5_000)
    with pytest.raises(ResourceExhausted):
        for n in range(10):
            await bucket.put(f"k{n}", b"x" * 3_000)


# Isolation.


async def test_nothing_of_another_organisation_is_heard(streams: Streams, others: Streams) -> None:
    async with streams.subscribe(">") as mine, others.subscribe(">") as theirs:
        await streams.publish("a", b"mine")
        await others.publish("a", b"theirs")

        assert (await following(mine)).data == b"mine"
        assert (await following(theirs)).data == b"theirs"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(mine), 0.1)


async def test_nothing_of_another_organisation_is_found(streams: Streams, others: Streams) -> None:
    await streams.create_stream("S", [">"])
    await streams.create_consumer("S", "c")
    await streams.publish("a", b"mine", durable=True)
    bucket = await streams.create_bucket("b")
    await bucket.put("k", b"mine")

    assert await others.list_streams() == []
    assert await others.list_buckets() == []
    with pytest.raises(NotFound):
        await others.publish("a", b"theirs", durable=True)
    with pytest.raises(FailedPrecondition):
        await others.request("a", b"theirs")
    for call in (
        others.get_stream("S"),
        others.delete_stream("S"),
        others.purge_stream("S"),
        others.get_message("S", 1),
        others.get_consumer("S", "c"),
        others.fetch("S", "c", wait=timedelta(0)),
        following(others.replay("S")),
        following(others.consume("S", "c")),
        others.get_bucket("b"),
        others.delete_bucket("b"),
        others.bucket("b").get("k"),
        others.bucket("b").put("k", b"theirs"),
        following(others.bucket("b").keys()),
    ):
        with pytest.raises(NotFound):
            await call
    theirs = await others.create_bucket("b")
    await theirs.put("k", b"theirs")
    await others.create_stream("S", [">"])
    await others.publish("a", b"theirs", durable=True)

    assert (await bucket.get("k")).value == b"mine"
    assert texts([message async for message in streams.replay("S")]) == [b"mine"]
    assert texts([message async for message in others.replay("S")]) == [b"theirs"]


async def test_names_made_to_collide_do_not(as_person: Callable[..., Isa]) -> None:
    org = fresh_org()
    short, long = as_person(org).streams, as_person(org + "x").streams
    try:
        await short.create_stream("x_S", ["x.s", "s"])
        await long.create_stream("S", ["s", "x.s"])
        for name in ("KV_b", f"KV_{org}_b", f"{org}_S"):
            await short.create_stream(name, [f"KV.{name}"])
        bucket = await short.create_bucket("b")
        await bucket.put("k", b"1")
        await long.publish("s", b"long", durable=True)

        assert [each.name for each in await short.list_streams()] == sorted(["x_S", "KV_b", f"KV_{org}_b", f"{org}_S"])
        assert [each.name for each in await long.list_streams()] == ["S"]
        assert (await short.get_stream("x_S")).messages == 0
        assert (await bucket.get("k")).value == b"1"
    finally:
        await emptied(short)
        await emptied(long)


async def test_a_stream_of_everything_takes_no_bucket(streams: Streams) -> None:
    await streams.create_stream("S", [">"])
    bucket = await streams.create_bucket("b")
    await bucket.put("k", b"1")

    assert (await streams.get_stream("S")).messages == 0


async def test_a_workload_has_streams_of_its_own_and_those_of_whom_it_acts_for(
    as_person: Callable[..., Isa], as_workload: Callable[..., Isa]
) -> None:
    org = fresh_org()
    person, room = as_person(org).streams, as_workload("conformance").streams
    try:
        async with person.subscribe(">") as heard:
            await room.publish("a", b"own")
            await room.acting_for(org=org).publish("a", b"acting")
            got = await following(heard)
        assert (got.data, got.publisher) == (b"acting", "conformance")
        await room.create_stream("S", ["s"])
        assert await person.list_streams() == []
    finally:
        await emptied(room)


async def test_who_belongs_to_nobody_has_no_streams(as_person: Callable[..., Isa]) -> None:
    with pytest.raises(PermissionDenied):
        await as_person("", "user-1").streams.publish("a")


async def test_every_answer_that_is_no_answer_is_one_of_ours(streams: Streams) -> None:
    for call in (
        streams.get_stream("no\x00pe"),
        streams.delete_stream("a/b"),
        streams.fetch("S", ">"),
        streams.get_bucket(""),
    ):
        with pytest.raises(IsaError) as caught:
            await call
        assert isinstance(caught.value, InvalidArgument)
        assert caught.value.field
