"""All six capabilities of the infrastructure API, against the set that `make start` started, on its usual ports.

It signs a new organisation up and works as its owner: what it keeps, nobody else can see.
"""

from __future__ import annotations

import asyncio
import json
import urllib.request
import uuid
from datetime import timedelta

from isa_common import Entry, Filter, Isa, Match, Point

USERS = "http://127.0.0.1:8001"
ADAPTERS = {
    "cache": "127.0.0.1:50055",
    "sql": "127.0.0.1:50061",
    "objects": "127.0.0.1:50051",
    "vectors": "127.0.0.1:50062",
    "logs": "127.0.0.1:50057",
    "streams": "127.0.0.1:50056",
}
"""Straight at the adapters. Beside a Dapr sidecar it is `Isa("127.0.0.1:50001", sidecar=True)`, and one address."""


def sign_up() -> str:
    """Make an organisation and return its owner's token."""
    email = f"ada-{uuid.uuid4().hex[:12]}@example.org"
    person = {"organisation": "Quickstart", "name": "Ada", "email": email, "password": uuid.uuid4().hex}
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{USERS}/v1/signup", json.dumps(person).encode(), headers)
    with urllib.request.urlopen(request) as answer:
        token: str = json.load(answer)["access_token"]
    return token


async def main() -> None:
    """Use each capability once."""
    async with Isa(ADAPTERS, token=sign_up()) as isa:
        # Cache: values with a lifetime, locks, rate limits. Calls at the same time travel together.
        await isa.cache.set("greeting", b"hello", ttl=timedelta(minutes=1))
        await asyncio.gather(*(isa.cache.incr("visits") for _ in range(10)))
        print("cache   ", await isa.cache.get("greeting"), "and", await isa.cache.get("visits"), "visits")

        # SQL: a PostgreSQL database of your own, made on first use.
        await isa.sql.execute("CREATE TABLE orders (id int PRIMARY KEY, item text, placed timestamptz DEFAULT now())")
        async with isa.sql.transaction() as tx:
            await tx.execute("INSERT INTO orders (id, item) VALUES ($1, $2)", 1, "book")
            await tx.execute("INSERT INTO orders (id, item) VALUES ($1, $2)", 2, "lamp")
        rows = await isa.sql.query("SELECT id, item FROM orders WHERE item LIKE $1", "%o%")
        print("sql     ", [dict(row) for row in rows])

        # Objects: buckets and files of any size, and links that need no token.
        await isa.objects.create_bucket("reports")
        await isa.objects.put("reports", "2026/november.csv", b"item,count\nbook,1\n", content_type="text/csv")
        link = await isa.objects.presign_get("reports", "2026/november.csv")
        with await asyncio.to_thread(urllib.request.urlopen, link.url) as answer:
            print("objects ", answer.read())

        # Vectors: the nearest of what you stored, filtered by what you know about it.
        await isa.vectors.create_collection("books", dimension=3, metric="cosine")
        shelf = [("Dune", "en", [0.9, 0.1, 0.2]), ("Momo", "de", [0.1, 0.9, 0.3]), ("Solaris", "en", [0.8, 0.2, 0.1])]
        points = [Point(n, vector, {"title": title, "lang": lang}) for n, (title, lang, vector) in enumerate(shelf)]
        await isa.vectors.upsert("books", points)
        english = Filter(must=[Match("lang", "en")])
        found = await isa.vectors.search("books", [0.85, 0.15, 0.15], limit=2, filter=english)
        print("vectors ", [(point.payload["title"], round(point.score, 3)) for point in found])

        # Streams: messages that wait on disk until somebody has worked on them.
        await isa.streams.create_stream("orders", subjects=["orders.>"])
        await isa.streams.create_consumer("orders", "billing")
        await isa.streams.publish("orders.placed", b'{"id": 1}', durable=True)
        for delivery in await isa.streams.fetch("orders", "billing", limit=1):
            print("streams ", delivery.subject, delivery.data)
            await delivery.ack()

        # Logs: lines found by label and by LogQL.
        await isa.logs.push([Entry("order 1 was paid", labels={"service": "shop", "level": "info"})])
        page = await isa.logs.query('{service="shop"} |= "paid"')
        print("logs    ", [entry.line for entry in page.entries])


if __name__ == "__main__":
    asyncio.run(main())
