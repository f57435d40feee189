"""What a drill puts into every store through the public API, and what it finds there afterwards."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from cli.recovery.folder import RecoveryError
from isa_common import Entry, Isa, NotFound, Point
from runtime.layout import CHECKOUT
from runtime.processes import load_apps

ADAPTERS = {
    "redis": "redis-grpc",
    "postgres": "postgres-grpc",
    "nats": "nats-grpc",
    "objects": "minio-grpc",
    "vectors": "qdrant-grpc",
    "logs": "loki-grpc",
}
"""The adapter of each store that people write to through the client."""
PORTS = {app.name: int(app.values["appPort"]) for app in load_apps()}
IMPORTED = CHECKOUT / "examples" / "spoke-and-bean-todo.txt"
NAME = "drill"
LARGE = 3 << 20
TIMEOUT = timedelta(seconds=30)

Found = dict[str, dict[str, str]]
"""What is in each store: content by the name of the item; names begin with the mark of who wrote them."""


def digest(content: bytes) -> str:
    """Return what two contents are compared by."""
    return hashlib.sha256(content).hexdigest()


def vector_of(word: str) -> list[float]:
    """Return a vector of 8 numbers that a word decides."""
    return [1 + byte / 255 for byte in hashlib.sha256(word.encode()).digest()[:8]]


@dataclass
class Tenant:
    """An organisation of the drill, at every room and adapter."""

    name: str
    port: Callable[[int], int]
    email: str = field(default_factory=lambda: f"owner-{secrets.token_hex(6)}@example.org")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    token: str = ""

    async def ask(self, method: str, room: str, path: str, **arguments: Any) -> Any:
        """Call a room as the owner; what it refuses ends the drill."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= arguments.pop("headers", {})
        url = f"http://127.0.0.1:{self.port(PORTS[room])}{path}"
        async with httpx.AsyncClient(timeout=60, trust_env=False) as client:
            answer = await client.request(method, url, headers=headers, **arguments)
        if answer.is_error:
            raise RecoveryError(f"{method} {path} of {room}: {answer.status_code} {answer.text[:300]}")
        return answer.json() if answer.content else None

    @asynccontextmanager
    async def at(self, store: str) -> Any:
        """Open a client of a store's adapter."""
        async with Isa(f"127.0.0.1:{self.port(PORTS[ADAPTERS[store]])}", token=self.token, timeout=TIMEOUT) as isa:
            yield isa

    async def sign_up(self) -> None:
        """Become an organisation."""
        body = {"organisation": self.name, "name": "Olga Owner", "email": self.email, "password": self.password}
        self.token = (await self.ask("POST", "users", "/v1/signup", json=body))["access_token"]

    async def log_in(self) -> None:
        """Log in again: the account, its password and the keys of tokens must be there."""
        self.token = ""
        body = {"email": self.email, "password": self.password}
        self.token = (await self.ask("POST", "users", "/v1/login", json=body))["access_token"]

    async def prepare(self) -> None:
        """Make what the content is put into, and import a file of tasks."""
        await self.ask(
            "POST",
            "tasks",
            "/v1/tasks/import",
            content=IMPORTED.read_bytes(),
            headers={"content-type": "text/plain"},
        )
        async with self.at("postgres") as isa:
            await isa.sql.execute(f"CREATE TABLE {NAME} (name text PRIMARY KEY, body jsonb NOT NULL)")
        async with self.at("nats") as isa:
            await isa.streams.create_stream(NAME, [f"{NAME}.>"])
            await isa.streams.create_consumer(NAME, "reader")
            await isa.streams.create_bucket(NAME)
        async with self.at("objects") as isa:
            await isa.objects.create_bucket(NAME)
        async with self.at("vectors") as isa:
            await isa.vectors.create_collection(NAME, dimension=8)
            await isa.vectors.create_index(NAME, "mark", "keyword")

    async def write(self, mark: str, count: int) -> None:
        """Put `count` items, named by a mark, into every store; all of it is acknowledged when this returns."""
        words = [f"{mark}-{number:03d}" for number in range(count)]
        await asyncio.gather(
            self._rooms(mark, words),
            self._rows(words),
            self._keys(mark, words),
            self._messages(words),
            self._objects(mark, words),
            self._points(mark, words),
            self._lines(mark, words),
        )

    async def _rooms(self, mark: str, words: list[str]) -> None:
        for word in words[:10]:
            await self.ask("POST", "tasks", "/v1/tasks", json={"title": f"{word} restore the bicycle"})
        await self.ask("PATCH", "users", "/v1/me/preferences", json={mark: {"words": words}})

    async def _rows(self, words: list[str]) -> None:
        async with self.at("postgres") as isa:
            for word in words:
                await isa.sql.execute(f"INSERT INTO {NAME} VALUES ($1, $2)", word, {"of": word})  # noqa: S608 -- our name

    async def _keys(self, mark: str, words: list[str]) -> None:
        async with self.at("redis") as isa:
            for word in words:
                await isa.cache.set(f"{word} text", word.encode() * 20)
            await isa.cache.set(f"{mark}-lent", b"for an hour", ttl=timedelta(hours=1))
            await isa.cache.hset(f"{mark}-hash", {word: word.encode() for word in words})
            await isa.cache.rpush(f"{mark}-list", *(word.encode() for word in words))
            await isa.cache.sadd(f"{mark}-set", *(word.encode() for word in words))
            await isa.cache.zadd(f"{mark}-sorted", {word: float(place) for place, word in enumerate(words)})

    async def _messages(self, words: list[str]) -> None:
        async with self.at("nats") as isa:
            for word in words:
                await isa.streams.publish(f"{NAME}.{word}", word.encode(), headers={"about": word}, durable=True)
            for delivery in await isa.streams.fetch(NAME, "reader", limit=len(words) // 2):
                await delivery.ack(confirm=True)
            for word in words:
                await isa.streams.bucket(NAME).put(word, word.encode())

    async def _objects(self, mark: str, words: list[str]) -> None:
        async with self.at("objects") as isa:
            for word in words:
                await isa.objects.put(NAME, f"{word}/ä b.txt", word.encode(), metadata={"about": word})
            large = hashlib.sha256(mark.encode()).digest() * (LARGE // 32)
            await isa.objects.put(NAME, f"{mark}-large.bin", large, content_type="application/x-drill")

    async def _points(self, mark: str, words: list[str]) -> None:
        async with self.at("vectors") as isa:
            first = int(digest(mark.encode())[:8], 16)
            await isa.vectors.upsert(
                NAME,
                [
                    Point(first + place, vector_of(word), {"mark": mark, "word": word})
                    for place, word in enumerate(words)
                ],
            )

    async def _lines(self, mark: str, words: list[str]) -> None:
        async with self.at("logs") as isa:
            entries = [
                Entry(f"{word} was written", labels={"service": NAME}, metadata={"mark": mark}) for word in words
            ]
            await isa.logs.push(entries)

    async def found(self) -> Found:
        """Return everything that the stores give back."""
        rooms, rows, keys, messages, objects, points, lines = await asyncio.gather(
            self._found_rooms(),
            self._found_rows(),
            self._found_keys(),
            self._found_messages(),
            self._found_objects(),
            self._found_points(),
            self._found_lines(),
        )
        found = {
            "postgres": {**rooms, **rows},
            "redis": keys,
            "nats": messages,
            "objects": objects,
            "vectors": points,
            "logs": lines,
        }
        return {store: {f"{item} of {self.name}": text for item, text in own.items()} for store, own in found.items()}

    async def _found_rooms(self) -> dict[str, str]:
        found: dict[str, str] = {}
        cursor = ""
        while True:
            page = await self.ask(
                "GET", "tasks", "/v1/tasks", params={"limit": 100, "cursor": cursor} if cursor else {}
            )
            for task in page["tasks"]:
                found[f"{task['title']} ({task['id']})"] = json.dumps(task, sort_keys=True)
            cursor = page["next_cursor"] or ""
            if not cursor:
                break
        for mark, value in (await self.ask("GET", "users", "/v1/me/preferences")).items():
            found[f"{mark} preferences"] = json.dumps(value, sort_keys=True)
        return found

    async def _found_rows(self) -> dict[str, str]:
        async with self.at("postgres") as isa:
            rows = await isa.sql.query(f"SELECT name, body::text AS body FROM {NAME}")  # noqa: S608 -- our name
        return {f"{row['name']} row": row["body"] for row in rows}

    async def _found_keys(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async with self.at("redis") as isa:
            async for key in isa.cache.scan():
                read = {
                    "hash": isa.cache.hget_all,
                    "list": isa.cache.lrange,
                    "set": isa.cache.smembers,
                    "sorted": isa.cache.zrange,
                }.get(key.rpartition("-")[2], isa.cache.get)
                value = await read(key)
                if isinstance(value, frozenset):
                    value = sorted(value)
                elif isinstance(value, Mapping):
                    value = sorted(value.items())
                found[key] = f"{value!r} {'lent' if await isa.cache.ttl(key) else 'kept'}"
        return found

    async def _found_messages(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async with self.at("nats") as isa:
            async for message in isa.streams.replay(NAME):
                word = message.subject.rpartition(".")[2]
                found[f"{word} message"] = f"{message.sequence} {message.data!r} {dict(message.headers)} {message.time}"
            found["reader"] = str((await isa.streams.get_consumer(NAME, "reader")).ack_floor)
            bucket = isa.streams.bucket(NAME)
            async for key in bucket.keys():
                entry = await bucket.get(key)
                found[f"{key} entry"] = f"{entry.revision} {entry.value!r}"
        return found

    async def _found_objects(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async with self.at("objects") as isa:
            async for listed in isa.objects.list(NAME):
                about = await isa.objects.stat(NAME, listed.key)
                content = await isa.objects.get(NAME, listed.key)
                found[listed.key] = f"{digest(content)} {about.content_type} {dict(about.metadata)}"
        return found

    async def _found_points(self) -> dict[str, str]:
        found: dict[str, str] = {}
        async with self.at("vectors") as isa:
            async for point in isa.vectors.scroll(NAME, with_vectors=True):
                found[f"{point.payload['word']} point"] = f"{point.id} {list(point.vector)} {dict(point.payload)}"
            for word in list(found)[:5]:
                name = word.removesuffix(" point")
                [nearest] = await isa.vectors.search(NAME, vector_of(name), limit=1)
                found[word] += f" nearest {nearest.payload['word']}"
        return found

    async def _found_lines(self) -> dict[str, str]:
        found: dict[str, str] = {}
        cursor = ""
        start = datetime.now(UTC) - timedelta(hours=12)
        async with self.at("logs") as isa:
            while True:
                page = await isa.logs.query(f'{{service="{NAME}"}}', start=start, limit=500, cursor=cursor)
                for entry in page.entries:
                    found[entry.line] = f"{entry.time} {sorted(entry.labels.items())} {sorted(entry.metadata.items())}"
                cursor = page.next_cursor
                if not cursor:
                    return found

    async def be_reminded(self, at: datetime) -> str:
        """Ask for a reminder at a moment; return the task."""
        task = await self.ask("POST", "tasks", "/v1/tasks", json={"title": "reminded look at the drill"})
        body = {"remind_at": at.isoformat()}
        await self.ask("POST", "tasks", f"/v1/tasks/{task['id']}/reminders", json=body)
        return str(task["id"])

    async def was_reminded(self, task: str) -> bool:
        """Tell whether the reminder of a task came."""
        with suppress(NotFound):
            page = await self.ask("GET", "notifications", "/v1/notifications")
            return any(
                task in json.dumps(item) for item in page["notifications"] if item["kind"] == "reminder.triggered"
            )
        return False
