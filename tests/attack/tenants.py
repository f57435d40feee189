"""Two tenants on the running set: what the victim keeps on each engine, and how it looks whether all is still there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from isa_common import Entry, Isa, Point
from tests.attack.values import DIMENSION, Names


async def fill_cache(isa: Isa, names: Names) -> None:
    """A value in both scopes, and one of each other type."""
    for scope in (isa.cache, isa.cache.organisation):
        for word in names.words:
            await scope.set(word, names.secret)
            await scope.hset(f"{word}-h", {"secret": names.secret})
            await scope.rpush(f"{word}-l", names.secret)
            await scope.sadd(f"{word}-s", names.secret)
            await scope.zadd(f"{word}-z", {names.secret: 1.0})


async def look_cache(isa: Isa, names: Names) -> object:
    """Everything that it filled."""
    return [
        [
            await scope.get(word),
            await scope.hget_all(f"{word}-h"),
            await scope.lrange(f"{word}-l", 0, -1),
            await scope.smembers(f"{word}-s"),
            await scope.zrange(f"{word}-z"),
            sorted([key async for key in scope.scan(word)]),
        ]
        for scope in (isa.cache, isa.cache.organisation)
        for word in names.words
    ]


async def fill_sql(isa: Isa, names: Names) -> None:
    """Tables with a row."""
    for word in names.words:
        await isa.sql.execute(f"CREATE TABLE {word} (secret text)")
        await isa.sql.execute(f"INSERT INTO {word} VALUES ($1)", names.secret.decode())


async def look_sql(isa: Isa, names: Names) -> object:
    """The rows."""
    return [[dict(row) for row in await isa.sql.query(f"SELECT secret FROM {word}")] for word in names.words]


async def fill_logs(isa: Isa, names: Names) -> None:
    """A line of each of two services."""
    for word in names.words:
        await isa.logs.push([Entry(names.secret.decode(), labels={"service": word})])


async def look_logs(isa: Isa, names: Names) -> object:
    """The lines."""
    return [[entry.line for entry in (await isa.logs.query(f'{{service="{word}"}}')).entries] for word in names.words]


async def fill_objects(isa: Isa, names: Names) -> None:
    """Buckets with an object, and an upload that is not finished."""
    for word in names.words:
        await isa.objects.create_bucket(word)
        await isa.objects.put(word, word, names.secret, metadata={"secret": names.secret.decode()})
    names.handles["upload_id"] = await isa.objects.create_multipart_upload(names.tag, names.tag)


async def look_objects(isa: Isa, names: Names) -> object:
    """The objects, and that the upload goes on."""
    found: list[object] = [bucket.name for bucket in await isa.objects.list_buckets()]
    for word in names.words:
        info = await isa.objects.stat(word, word)
        keys = [item.key async for item in isa.objects.list(word)]
        found.append([await isa.objects.get(word, word), dict(info.metadata), info.etag, keys])
    upload = isa.objects.list_parts(names.tag, names.tag, str(names.handles["upload_id"]))
    return [*found, [part async for part in upload]]


async def fill_vectors(isa: Isa, names: Names) -> None:
    """Collections with a point, whose payload is the secret."""
    for word in names.words:
        await isa.vectors.create_collection(word, dimension=DIMENSION)
        await isa.vectors.upsert(word, [Point(1, [1.0, 0, 0, 0], {"secret": names.secret.decode()})])


async def look_vectors(isa: Isa, names: Names) -> object:
    """The collections and their points."""
    points = [[(point.id, point.payload) async for point in isa.vectors.scroll(word)] for word in names.words]
    return [await isa.vectors.list_collections(), points]


async def fill_streams(isa: Isa, names: Names) -> None:
    """Streams with a message and a consumer that has settled nothing, and buckets with a value."""
    for word in names.words:
        await isa.streams.create_stream(word, subjects=[f"{word}.>"])
        await isa.streams.publish(f"{word}.x", names.secret, durable=True)
        await isa.streams.create_consumer(word, word)
        await isa.streams.create_bucket(word)
        await isa.streams.bucket(word).put(word, names.secret)
    [delivery] = await isa.streams.fetch(names.tag, names.tag, limit=1)
    names.handles["ack_token"] = delivery.ack_token


async def look_streams(isa: Isa, names: Names) -> object:
    """The messages, the consumers and the values."""
    found: list[object] = []
    for word in names.words:
        stream, consumer = await isa.streams.get_stream(word), await isa.streams.get_consumer(word, word)
        message = await isa.streams.get_message(word, 1)
        value = await isa.streams.bucket(word).get(word)
        found.append([stream.messages, consumer.pending, consumer.ack_floor, message.data, value.value])
    return found


Fill = Callable[[Isa, Names], Awaitable[None]]
Look = Callable[[Isa, Names], Awaitable[object]]

TENANCIES: dict[str, tuple[Fill, Look]] = {
    "cache": (fill_cache, look_cache),
    "logs": (fill_logs, look_logs),
    "objects": (fill_objects, look_objects),
    "sql": (fill_sql, look_sql),
    "streams": (fill_streams, look_streams),
    "vectors": (fill_vectors, look_vectors),
}
"""By capability; one that is missing here fails the suite."""
