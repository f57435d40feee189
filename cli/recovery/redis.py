"""Redis: every key as DUMP has it, written as the append-only file that a server reads at its start.

The keys are read one after another, each whole, while the server works: a change meanwhile is in the backup or is not.
Keys of one database of one server: a sharded cluster is read shard by shard.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hiredis

from cli.recovery.folder import Backup, RecoveryError, read_lines, write_lines
from cli.recovery.kafka import text
from cli.recovery.place import Place

STORE = "redis"
FILE = "appendonly.aof"
INDEX = "keys.jsonl"
PAGE = 500
READS: dict[bytes, tuple[bytes, ...]] = {
    b"string": (b"GET",),
    b"hash": (b"HGETALL",),
    b"list": (b"LRANGE", b"0", b"-1"),
    b"set": (b"SMEMBERS",),
    b"zset": (b"ZRANGE", b"0", b"-1", b"WITHSCORES"),
    b"stream": (b"XRANGE", b"-", b"+"),
}
"""How a key of each type is read whole; arguments after the key."""


class Connection:
    """One connection: requests in, answers out, in their order."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answers = hiredis.Reader()

    async def ask(self, *requests: tuple[bytes, ...]) -> list[Any]:
        """Send requests together and return their answers; the first refusal ends it."""
        self.give(b"".join(command(*request) for request in requests))
        return await self.answers(len(requests))

    def give(self, requests: bytes) -> None:
        """Send requests as they are written."""
        self._writer.write(requests)

    async def answers(self, count: int) -> list[Any]:
        """Return so many answers."""
        found: list[Any] = []
        while len(found) < count:
            answer = self._answers.gets()
            if answer is False:
                part = await self._reader.read(1 << 16)
                if not part:
                    raise RecoveryError("Redis closed the connection.")
                self._answers.feed(part)
                continue
            if isinstance(answer, hiredis.ReplyError):
                raise RecoveryError(f"Redis refuses: {answer}")
            found.append(answer)
        return found


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Connection]:
    """Log in."""
    secure = (
        ssl.create_default_context(cafile=place.addresses.get("REDIS_TLS_CA"))
        if place.addresses.get("REDIS_TLS") == "true"
        else None
    )
    host, port = place["REDIS_HOST"], int(place["REDIS_PORT"])
    try:
        reader, writer = await asyncio.open_connection(host, port, ssl=secure)
    except OSError as error:
        raise RecoveryError(f"Redis does not answer at {host}:{port}: {error}") from error
    try:
        connection = Connection(reader, writer)
        await connection.ask((b"AUTH", place.secret("redis-password").encode()))
        yield connection
    finally:
        writer.close()


def command(*words: bytes) -> bytes:
    """Return a request as it is sent, and as the append-only file has it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


async def backup(place: Place, root: Path) -> Backup:
    """Write every key."""
    backup = Backup.begin(root, STORE)
    index: list[dict[str, Any]] = []
    async with connected(place) as redis:
        with (backup.folder / FILE).open("wb") as file:
            file.write(command(b"SELECT", b"0"))
            seen: set[bytes] = set()
            cursor = b"0"
            while True:
                [(cursor, keys)] = await redis.ask((b"SCAN", cursor, b"COUNT", b"%d" % PAGE))
                fresh = [key for key in dict.fromkeys(keys) if key not in seen]  # a scan may show a key twice
                seen.update(fresh)
                rows = [await saved(redis, key, file) for key in fresh]
                index += [row for row in rows if row]
                if cursor == b"0":
                    break
    index.sort(key=lambda row: str(row["key"]))
    backup.items = write_lines(backup.folder / INDEX, iter(index))
    return backup.end()


async def saved(redis: Connection, key: bytes, file: Any) -> dict[str, Any] | None:
    """Write one key; return its line of the index, nothing when it is gone."""
    [kind] = await redis.ask((b"TYPE", key))
    if (read := READS.get(kind)) is None:
        return None
    content = (read[0], key, *read[1:])
    value, dump, left, [seconds, micros] = await redis.ask(content, (b"DUMP", key), (b"PTTL", key), (b"TIME",))
    if dump is None:
        return None
    until = 0 if left < 0 else int(seconds) * 1000 + int(micros) // 1000 + left
    file.write(command(b"RESTORE", key, b"%d" % until, dump, b"ABSTTL"))
    return {"key": text(key), "type": kind.decode(), "expires": until > 0, "digest": digest(kind, value)}


def digest(kind: bytes, value: Any) -> str:
    """Return a hash of what a key holds; the order of hashes and sets is none."""
    if kind == b"hash":
        value = sorted(zip(value[::2], value[1::2], strict=True))
    elif kind == b"set":
        value = sorted(value)
    return hashlib.sha256(repr(value).encode()).hexdigest()


async def replay(place: Place, root: Path) -> Backup:
    """Give every key to a server that runs and whose login may RESTORE; a key that is there already ends it."""
    backup = Backup.open(root, STORE)
    async with connected(place) as redis:
        redis.give((backup.folder / FILE).read_bytes())
        await redis.answers(backup.items + 1)
    return backup


def restore(root: Path, folder: Path) -> Backup:
    """Put the file where a server that is stopped and empty reads it at its start."""
    backup = Backup.open(root, STORE)
    if folder.exists() and any(folder.iterdir()):
        raise RecoveryError(f"{folder} is not empty: stop Redis and move its files away.")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_bytes((backup.folder / FILE).read_bytes())
    return backup


def content(root: Path) -> dict[str, str]:
    """Return every key with its type and what it holds."""
    folder = Backup.open(root, STORE).folder
    return {row["key"]: f"{row['type']} {row['expires']} {row['digest']}" for row in read_lines(folder / INDEX)}
