"""Confluent-framed Avro: a zero byte, the schema's id as four bytes, then the record.

We write with the schema this code was built with, whatever is newest in the registry, and read with reader-schema
resolution. Schemas are registered by `isa topics apply`, never by a running service.
"""

from __future__ import annotations

import asyncio
import io
import json
import struct
from dataclasses import fields
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

import fastavro
import httpx

from isa.events import EVENTS, Event
from isa_common import FailedPrecondition, InvalidArgument, Unavailable
from kernel.errors import Poison

MAGIC = 0
HEADER = struct.Struct(">bI")
MAX_RECORD = 1 << 20
"""Largest record in bytes; a bigger one is not written, and quarantined when it comes."""


def subject(topic: str) -> str:
    """Return the registry's subject of a topic's values."""
    return f"{topic}-value"


@cache
def parsed(schema: str) -> Any:  # fastavro has no type for a parsed schema
    """Return a schema as fastavro wants it."""
    return fastavro.parse_schema(json.loads(schema))


class Registry:
    """The schema registry, asked once for each schema. What is known keeps working while it is away."""

    def __init__(self, url: str, *, client: httpx.AsyncClient | None = None) -> None:
        self._client = client or httpx.AsyncClient(base_url=url, timeout=5.0)
        self._ids: dict[tuple[str, str], int] = {}
        self._schemas: dict[int, str] = {}
        self._asking: dict[object, asyncio.Lock] = {}

    async def id_of(self, topic: str, schema: str) -> int:
        """Return the id under which a schema is registered for a topic."""
        key = (topic, schema)
        if key not in self._ids:
            async with self._asking.setdefault(key, asyncio.Lock()):
                if key not in self._ids:
                    answer = await self._ask("id", "POST", f"/subjects/{subject(topic)}", json={"schema": schema})
                    if answer is None:
                        raise FailedPrecondition(
                            f"The schema of {topic} is not registered: run `isa topics apply`.", topic=topic
                        )
                    self._ids[key] = int(answer)
        return self._ids[key]

    async def schema_of(self, schema_id: int) -> str:
        """Return the schema of an id; Poison when the registry says there is none."""
        if schema_id not in self._schemas:
            async with self._asking.setdefault(schema_id, asyncio.Lock()):
                if schema_id not in self._schemas:
                    answer = await self._ask("schema", "GET", f"/schemas/ids/{schema_id}")
                    if answer is None:
                        raise Poison(f"The registry has no schema {schema_id}.", schema_id=schema_id)
                    self._schemas[schema_id] = str(answer)
        return self._schemas[schema_id]

    async def _ask(self, wanted: str, method: str, path: str, **arguments: Any) -> Any:
        """Return what stands in a field of the registry's answer; None when it knows of no such thing."""
        try:
            response = await self._client.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise Unavailable("The schema registry is not reached.") from error
        if response.status_code == httpx.codes.NOT_FOUND:
            return None
        if response.is_error:
            raise Unavailable(f"The schema registry answered {response.status_code}.")
        try:
            return response.json()[wanted]
        except (ValueError, LookupError, TypeError) as error:
            raise Unavailable("The schema registry answered what is no answer.") from error

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


@cache
def _nested(topic: str) -> dict[str, Any]:
    """Return the record classes of an event's array fields, by field."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(EVENTS[topic]).items():
        if get_origin(hint) is list and hasattr(get_args(hint)[0], "__dataclass_fields__"):
            found[name] = get_args(hint)[0]
    return found


def record_of(event: Event) -> dict[str, object]:
    """Return an event as the record that its schema describes."""
    record: dict[str, Any] = {item.name: getattr(event, item.name) for item in fields(event)}
    for name, cls in _nested(event.TOPIC).items():
        names = [item.name for item in fields(cls)]
        record[name] = [{name: getattr(item, name) for name in names} for item in record[name]]  # asdict copies deeply
    return record


class Codec:
    """Events to bytes and back."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def encode(self, event: Event) -> bytes:
        """Return an event framed and in Avro.

        FailedPrecondition when its schema is not registered, InvalidArgument when nobody would decode it.
        """
        schema_id = await self._registry.id_of(event.TOPIC, event.SCHEMA)
        buffer = io.BytesIO()
        buffer.write(HEADER.pack(MAGIC, schema_id))
        fastavro.schemaless_writer(buffer, parsed(event.SCHEMA), record_of(event))
        if buffer.tell() > MAX_RECORD:
            raise InvalidArgument(f"The event {event.TOPIC} would take more than {MAX_RECORD} bytes.")
        return buffer.getvalue()

    async def decode(self, data: bytes, cls: type[Event]) -> Event:
        """Return the event that bytes hold; Poison when they hold none."""
        if len(data) > MAX_RECORD:
            raise Poison(f"The record has {len(data)} bytes; {MAX_RECORD} are decoded at most.")
        if len(data) <= HEADER.size or data[0] != MAGIC:
            raise Poison("The record is not framed as Avro: it does not begin with the magic byte and a schema id.")
        schema_id = HEADER.unpack_from(data)[1]
        writer = _record_schema(await self._registry.schema_of(schema_id), schema_id)
        if writer["name"] != parsed(cls.SCHEMA)["name"]:
            raise Poison(f"The record is a {writer['name']}, not a {cls.__name__}.", schema_id=schema_id)
        return _read(data, writer, cls, schema_id)


def _record_schema(schema: str, schema_id: int) -> Any:
    """Return the parsed schema of a record; Poison when it describes anything else."""
    try:
        found = parsed(schema)
    except Exception as error:  # whatever somebody registered
        raise Poison(f"Schema {schema_id} cannot be read: {error}.", schema_id=schema_id) from error
    if not isinstance(found, dict) or "name" not in found:
        raise Poison(f"Schema {schema_id} is not that of a record.", schema_id=schema_id)
    return found


def _read(data: bytes, writer: Any, cls: type[Event], schema_id: int) -> Event:
    buffer = io.BytesIO(data)
    buffer.seek(HEADER.size)
    try:
        record: Any = fastavro.schemaless_reader(buffer, writer, parsed(cls.SCHEMA))
        for name, item in _nested(cls.TOPIC).items():
            record[name] = [item(**entry) for entry in record[name]]
        event: Event = cls(**record)
    except Exception as error:  # fastavro raises whatever the bytes lead it to
        raise Poison(f"The record cannot be decoded with schema {schema_id}: {error}.", schema_id=schema_id) from error
    if buffer.tell() != len(data):
        raise Poison(f"The record has {len(data) - buffer.tell()} bytes too many.", schema_id=schema_id)
    return event
