"""Something in each engine, by its capability: put before a restart, found after it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx

from isa_common import Entry, Isa, Point
from isa_common._client import _APP_IDS


class Belongings:
    """What one person put everywhere; `address` is where an app is."""

    def __init__(self, token: str, address: Callable[[str], str]) -> None:
        self.token = token
        self.address = address

    @asynccontextmanager
    async def at(self, capability: str) -> AsyncIterator[Isa]:
        """A client of the adapter itself."""
        async with Isa(self.address(_APP_IDS[capability]), token=self.token, timeout=timedelta(seconds=30)) as isa:
            yield isa

    async def put(self) -> None:
        """Put something everywhere; each call returns when its engine has it."""
        async with self.at("cache") as isa:
            await isa.cache.set("kept", b"cache")
        async with self.at("sql") as isa:
            await isa.sql.execute("CREATE TABLE kept (word text)")
            await isa.sql.execute("INSERT INTO kept VALUES ('sql')")
        async with self.at("streams") as isa:
            await isa.streams.create_stream("kept", ["kept.>"])
            await isa.streams.publish("kept.word", b"streams", durable=True)
        async with self.at("objects") as isa:
            await isa.objects.create_bucket("kept")
            await isa.objects.put("kept", "word", b"objects")
        async with self.at("vectors") as isa:
            await isa.vectors.create_collection("kept", dimension=2)
            await isa.vectors.upsert("kept", [Point(1, [1.0, 0.0], {"word": "vectors"})])
        async with self.at("logs") as isa:
            await isa.logs.push([Entry("logs", labels={"service": "kept"})])

    async def found(self) -> dict[str, str]:
        """What each engine has, by capability; an object also by its presigned URL."""
        async with self.at("cache") as isa:
            words = {"cache": (await isa.cache.get("kept")).decode()}
        async with self.at("sql") as isa:
            words["sql"] = " ".join(row["word"] for row in await isa.sql.query("SELECT word FROM kept"))
        async with self.at("streams") as isa:
            words["streams"] = (await isa.streams.get_message("kept", last_of="kept.word")).data.decode()
        async with self.at("objects") as isa:
            words["objects"] = (await isa.objects.get("kept", "word")).decode()
            url = (await isa.objects.presign_get("kept", "word")).url
        async with httpx.AsyncClient(trust_env=False) as http:
            words["presigned"] = (await http.get(url)).text
        async with self.at("vectors") as isa:
            found = await isa.vectors.search("kept", [1.0, 0.0], limit=1)
            words["vectors"] = " ".join(point.payload["word"] for point in found)
        async with self.at("logs") as isa:
            words["logs"] = " ".join(entry.line for entry in (await isa.logs.query('{service="kept"}')).entries)
        return words


ALL = {name: name for name in _APP_IDS} | {"presigned": "objects"}
"""What is found when nothing is lost."""
