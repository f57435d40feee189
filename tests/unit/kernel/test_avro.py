"""Avro on the wire: every event comes back as it went, older and newer writers are understood, rubbish is poison."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import struct
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

import fastavro
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isa.events import EVENTS, AuditEntry, Event, TaskCreated, UserRegistered
from isa_common import FailedPrecondition, InvalidArgument, Unavailable
from kernel.avro import HEADER, MAX_RECORD, Codec
from kernel.errors import Poison
from tests.unit.fakes import NOON, RegistryServer

MOMENTS = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001  # made aware


def event(**changes: Any) -> TaskCreated:
    values: dict[str, Any] = {
        "event_id": "event-1",
        "occurred_at": NOON,
        "org_id": "org-a",
        "aggregate_id": "task-1",
        "priority": "A",
        **changes,
    }
    return TaskCreated(**values)


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event, with any values; the time of its occurrence is set, as after `stamp`."""
    cls = EVENTS[draw(st.sampled_from(sorted(EVENTS)))]
    made: Event = draw(st.builds(cls, **{item.name: _values(item.type) for item in fields(cls)}))
    return made


def _values(kind: Any) -> st.SearchStrategy[Any]:
    texts = st.text(st.characters(codec="utf-8"), max_size=20)
    match str(kind):
        case "str":
            return texts
        case "int":
            return st.integers(0, 2**31 - 1)
        case "bool":
            return st.booleans()
        case "datetime":
            return MOMENTS
        case "datetime | None":
            return MOMENTS
        case "str | None":
            return st.none() | texts
        case "list[str]":
            return st.lists(texts, max_size=5)
        case "list[AuditEntry]":
            return st.lists(st.builds(AuditEntry, **{i.name: _values(i.type) for i in fields(AuditEntry)}), max_size=3)
    raise AssertionError(f"No values for {kind}.")


SERVER = RegistryServer()
for _topic, _cls in EVENTS.items():
    SERVER.register(f"{_topic}-value", _cls.SCHEMA)


@given(sent=events())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_event_comes_back_as_it_went(sent: Event) -> None:
    async def there_and_back() -> Event:
        codec = SERVER.codec()
        return await codec.decode(await codec.encode(sent), type(sent))

    assert asyncio.run(there_and_back()) == sent


@given(data=st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_whatever_bytes_come_are_an_event_or_poison(data: bytes) -> None:
    async def decode() -> None:
        codec = SERVER.codec()
        schema_id = SERVER.register("task.created-value", TaskCreated.SCHEMA)
        for framed in (data, HEADER.pack(0, schema_id) + data):
            with contextlib.suppress(Poison):
                assert isinstance(await codec.decode(framed, TaskCreated), TaskCreated)

    asyncio.run(decode())


@pytest.fixture
def codec(registry_server: RegistryServer) -> Codec:
    return registry_server.codec()


def test_every_topic_has_a_class_and_its_schema_the_classs_name() -> None:
    for topic, cls in EVENTS.items():
        assert topic == cls.TOPIC
        assert json.loads(cls.SCHEMA)["name"] == cls.__name__


async def test_a_record_is_framed_as_confluent_does(codec: Codec, registry_server: RegistryServer) -> None:
    data = await codec.encode(event())

    assert data[0] == 0
    assert struct.unpack(">I", data[1:5])[0] == registry_server.ids["task.created-value", TaskCreated.SCHEMA]
    schema = json.loads(TaskCreated.SCHEMA)
    read: Any = fastavro.schemaless_reader(io.BytesIO(data[5:]), schema, None)
    assert read["priority"] == "A"


def written(schema: dict[str, Any], record: dict[str, Any], server: RegistryServer) -> bytes:
    """Return a record as another version of our code writes it."""
    schema_id = server.register("task.created-value", json.dumps(schema))
    buffer = io.BytesIO(HEADER.pack(0, schema_id))
    buffer.seek(0, io.SEEK_END)
    fastavro.schemaless_writer(buffer, fastavro.parse_schema(schema), record)
    return buffer.getvalue()


RECORD: dict[str, Any] = {
    "event_id": "event-1",
    "occurred_at": NOON,
    "org_id": "org-a",
    "user_id": "user-a",
    "schema_version": 1,
    "aggregate_id": "task-1",
    "aggregate_version": 7,
    "correlation_id": "c",
    "causation_id": None,
    "due_at": None,
    "priority": None,
    "source": "ical",
    "assignee_id": None,
}


async def test_an_older_writer_knew_fewer_fields(codec: Codec, registry_server: RegistryServer) -> None:
    schema = json.loads(TaskCreated.SCHEMA)
    schema["fields"] = [item for item in schema["fields"] if item["name"] not in ("source", "priority")]

    read = await codec.decode(written(schema, RECORD, registry_server), TaskCreated)

    assert isinstance(read, TaskCreated)
    assert (read.source, read.priority, read.aggregate_version) == ("api", None, 7)


async def test_a_newer_writer_knows_more_fields(codec: Codec, registry_server: RegistryServer) -> None:
    schema = json.loads(TaskCreated.SCHEMA)
    schema["fields"].insert(0, {"name": "colour", "type": "string"})
    schema["fields"].append({"name": "sizes", "type": {"type": "array", "items": "long"}, "default": []})

    data = written(schema, {**RECORD, "colour": "red", "sizes": [1, 2]}, registry_server)
    read = await codec.decode(data, TaskCreated)

    assert isinstance(read, TaskCreated)
    assert (read.source, read.aggregate_version) == ("ical", 7)


async def test_a_writer_without_a_needed_field_is_poison(codec: Codec, registry_server: RegistryServer) -> None:
    schema = json.loads(TaskCreated.SCHEMA)
    schema["fields"] = [item for item in schema["fields"] if item["name"] != "aggregate_id"]

    with pytest.raises(Poison, match="cannot be decoded"):
        await codec.decode(written(schema, RECORD, registry_server), TaskCreated)


async def test_a_wrong_magic_byte_is_poison(codec: Codec) -> None:
    data = await codec.encode(event())

    with pytest.raises(Poison, match="magic byte"):
        await codec.decode(b"\x01" + data[1:], TaskCreated)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 6, 10, -1])
async def test_a_truncated_record_is_poison(codec: Codec, length: int) -> None:
    data = await codec.encode(event())

    with pytest.raises(Poison):
        await codec.decode(data[:length], TaskCreated)


async def test_trailing_bytes_are_poison(codec: Codec) -> None:
    data = await codec.encode(event())

    with pytest.raises(Poison, match="1 bytes too many"):
        await codec.decode(data + b"\x00", TaskCreated)


async def test_a_huge_record_is_not_even_decoded(codec: Codec, registry_server: RegistryServer) -> None:
    registry_server.asked.clear()

    with pytest.raises(Poison, match="at most"):
        await codec.decode(b"\x00" * (MAX_RECORD + 1), TaskCreated)

    assert not registry_server.asked


async def test_an_event_that_nobody_would_decode_is_not_written(codec: Codec) -> None:
    with pytest.raises(InvalidArgument, match="bytes"):
        await codec.encode(event(priority="x" * MAX_RECORD))


async def test_an_event_of_another_class_is_poison(codec: Codec) -> None:
    data = await codec.encode(
        UserRegistered(event_id="e", occurred_at=NOON, org_id="org-a", aggregate_id="user-a", **_needed(UserRegistered))
    )

    with pytest.raises(Poison, match="not a TaskCreated"):
        await codec.decode(data, TaskCreated)


def _needed(cls: type[Event]) -> dict[str, Any]:
    own = {item.name for item in fields(cls)} - {item.name for item in fields(Event)}
    return dict.fromkeys(own, "x")


@pytest.mark.parametrize(
    "schema", ['"string"', "[]", '["null","string"]', "{", "{}", "null", '{"type":"map","values":"int"}']
)
async def test_a_schema_of_no_record_is_poison(codec: Codec, registry_server: RegistryServer, schema: str) -> None:
    schema_id = registry_server.register("odd", schema)

    with pytest.raises(Poison):
        await codec.decode(HEADER.pack(0, schema_id) + b"xx", TaskCreated)


async def test_a_schema_that_nobody_registered_is_poison(codec: Codec) -> None:
    with pytest.raises(Poison, match="no schema 4711"):
        await codec.decode(HEADER.pack(0, 4711) + b"x", TaskCreated)


async def test_an_unregistered_schema_stops_the_writer_with_advice() -> None:
    with pytest.raises(FailedPrecondition, match="isa topics apply"):
        await RegistryServer().codec().encode(event())


async def test_a_registry_that_is_away_is_no_poison(codec: Codec, registry_server: RegistryServer) -> None:
    data = await codec.encode(event())
    registry_server.is_down = True

    with pytest.raises(Unavailable):
        await registry_server.codec().decode(data, TaskCreated)
    with pytest.raises(Unavailable):
        await registry_server.codec().encode(event())


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
async def test_a_registry_in_trouble_is_no_poison(codec: Codec, registry_server: RegistryServer, status: int) -> None:
    data = await codec.encode(event())
    registry_server.status = status

    with pytest.raises(Unavailable):
        await registry_server.codec().decode(data, TaskCreated)


async def test_a_registry_that_answers_rubbish_is_no_poison(
    codec: Codec, registry_server: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = await codec.encode(event())
    for content in (b"<html>", b"{}", b"[]"):
        transport = httpx.MockTransport(lambda _, content=content: httpx.Response(200, content=content))
        registry = registry_server.registry()
        monkeypatch.setattr(registry, "_client", httpx.AsyncClient(transport=transport, base_url="http://registry"))

        with pytest.raises(Unavailable):
            await Codec(registry).decode(data, TaskCreated)


async def test_what_is_known_keeps_working_while_the_registry_is_away(
    codec: Codec, registry_server: RegistryServer
) -> None:
    await codec.decode(await codec.encode(event()), TaskCreated)
    registry_server.is_down = True

    assert await codec.decode(await codec.encode(event(event_id="event-2")), TaskCreated) == event(event_id="event-2")


async def test_each_schema_is_asked_for_once_however_many_wait(registry_server: RegistryServer) -> None:
    data = await registry_server.codec().encode(event())
    registry_server.asked.clear()
    codec = registry_server.codec()

    await asyncio.gather(*(codec.decode(data, TaskCreated) for _ in range(20)))
    await asyncio.gather(*(codec.encode(event()) for _ in range(20)))

    assert set(registry_server.asked.values()) == {1}
