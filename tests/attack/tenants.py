"""Two tenants on the running set: what the victim keeps on each engine, and how it looks whether all is still there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from isa_common import Entry, Isa, Point
from tests.attack.values import DIMENSION, Names


async def fill_cache(isa: Isa, names: Names) -> None:
    """A value in both scopes, and one of each other type."""
    cache, tag, secret = isa.cache, names.tag, names.secret
    for scope in (cache, cache.organisation):
        await scope.set(tag, secret)
        await scope.hset(f"{tag}-h", {"secret": secret})
        await scope.rpush(f"{tag}-l", secret)
        await scope.sadd(f"{tag}-s", secret)
        await scope.zadd(f"{tag}-z", {secret: 1.0})


async def look_cache(isa: Isa, names: Names) -> object:
    """Everything that it filled."""
    tag = names.tag
    return [
        [
            await scope.get(tag),
            await scope.hgetall(f"{tag}-h"),
            await scope.lrange(f"{tag}-l", 0, -1),
            await scope.smembers(f"{tag}-s"),
            [key async for key in scope.scan(tag)],
        ]
        for scope in (isa.cache, isa.cache.organisation)
    ]


async def fill_sql(isa: Isa, names: Names) -> None:
    """A table with a row."""
    await isa.sql.execute(f"CREATE TABLE {names.tag} (secret text)")
    await isa.sql.execute(f"INSERT INTO {names.tag} VALUES ($1)", names.secret.decode())


async def look_sql(isa: Isa, names: Names) -> object:
    """The row."""
    return [dict(row) for row in await isa.sql.query(f"SELECT secret FROM {names.tag}")]


async def fill_logs(isa: Isa, names: Names) -> None:
    """A line."""
    await isa.logs.push([Entry(names.secret.decode(), labels={"service": names.tag})])


async def look_logs(isa: Isa, names: Names) -> object:
    """The line."""
    return [entry.line for entry in (await isa.logs.query(f'{{service="{names.tag}"}}')).entries]


async def fill_objects(isa: Isa, names: Names) -> None:
    """An object, and an upload that is not finished."""
    objects, tag = isa.objects, names.tag
    await objects.create_bucket(tag)
    await objects.put(tag, tag, names.secret, metadata={"secret": names.secret.decode()})
    names.handles["upload_id"] = await objects.create_multipart_upload(tag, tag)


async def look_objects(isa: Isa, names: Names) -> object:
    """The object, and that the upload goes on."""
    tag = names.tag
    info = await isa.objects.stat(tag, tag)
    parts = [part async for part in isa.objects.list_parts(tag, tag, str(names.handles["upload_id"]))]
    keys = [found.key async for found in isa.objects.list(tag)]
    return [await isa.objects.get(tag, tag), dict(info.metadata), info.etag, keys, parts]


async def fill_vectors(isa: Isa, names: Names) -> None:
    """A collection with a point, whose payload is the secret."""
    await isa.vectors.create_collection(names.tag, dimension=DIMENSION)
    await isa.vectors.upsert(names.tag, [Point(1, [1.0, 0, 0, 0], {"secret": names.secret.decode()})])


async def look_vectors(isa: Isa, names: Names) -> object:
    """The collection and its points."""
    points = [(point.id, point.payload) async for point in isa.vectors.scroll(names.tag)]
    return [await isa.vectors.list_collections(), points]


async def fill_streams(isa: Isa, names: Names) -> None:
    """A stream with a message and a consumer that has not settled it, and a bucket with a value."""
    streams, tag = isa.streams, names.tag
    await streams.create_stream(tag, subjects=[f"{tag}.>"])
    await streams.publish(f"{tag}.x", names.secret, durable=True)
    await streams.create_consumer(tag, tag)
    await streams.create_bucket(tag)
    await streams.bucket(tag).put(tag, names.secret)


async def look_streams(isa: Isa, names: Names) -> object:
    """The message, the consumer and the value."""
    streams, tag = isa.streams, names.tag
    stream = await streams.get_stream(tag)
    consumer = await streams.get_consumer(tag, tag)
    message = await streams.get_message(tag, sequence=1)
    return [
        stream.messages,
        message.data,
        consumer.pending,
        [entry.value for entry in [await streams.bucket(tag).get(tag)]],
    ]


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
"""By capability; an engine that is missing here fails the suite."""
