"""NATS: every stream by JetStream's own snapshots, its consumers with where they are; buckets are streams.

Beside each snapshot stands a line a message, which a restored stream is compared by.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import Error

from cli.recovery.folder import Backup, RecoveryError, read_lines, write_lines
from cli.recovery.place import Place

STORE = "nats"
TIMEOUT = 30.0
CHUNK = 128 << 10
NO_MESSAGE = 10037


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[Client]:
    """Log in."""
    try:
        client = await nats.connect(
            place["NATS_URL"], user="isa", password=place.secret("nats-password"), allow_reconnect=False
        )
    except (Error, OSError) as error:
        raise RecoveryError(f"NATS does not answer at {place['NATS_URL']}: {error}") from error
    try:
        yield client
    finally:
        await client.close()


async def ask(client: Client, subject: str, **request: Any) -> dict[str, Any]:
    """Ask JetStream; an error in its answer is one."""
    answer = await client.request(f"$JS.API.{subject}", json.dumps(request).encode(), timeout=TIMEOUT)
    found: dict[str, Any] = json.loads(answer.data)
    if error := found.get("error"):
        raise RecoveryError(f"NATS refuses {subject}: {error.get('description')} ({error.get('err_code')})")
    return found


async def names(client: Client) -> list[str]:
    """Return the names of all streams."""
    found: list[str] = []
    while True:
        page = await ask(client, "STREAM.NAMES", offset=len(found))
        found += page["streams"] or []
        if len(found) >= page["total"] or not page["streams"]:
            return sorted(found)


async def backup(place: Place, root: Path) -> Backup:
    """Write a snapshot of every stream."""
    backup = Backup.begin(root, STORE)
    for path in backup.folder.iterdir():
        path.unlink()
    async with connected(place) as client:
        backup.facts = {"streams": {}}
        for name in await names(client):
            info = await snapshot(client, name, backup.folder / f"{name}.snapshot")
            backup.facts["streams"][name] = info
            rows = [row async for row in messages(client, name, info["state"]["last_seq"])]
            backup.items += write_lines(backup.folder / f"{name}.jsonl", iter(rows))
            consumers = await consumers_of(client, name)
            write_lines(backup.folder / f"{name}.consumers.jsonl", iter(consumers))
    return backup.end()


async def snapshot(client: Client, name: str, path: Path) -> dict[str, Any]:
    """Receive a stream's snapshot; return its settings and state."""
    inbox = client.new_inbox()
    received = await client.subscribe(inbox)
    try:
        answer = await ask(client, f"STREAM.SNAPSHOT.{name}", deliver_subject=inbox, chunk_size=CHUNK, jsck=True)
        with path.open("wb") as file:
            while True:
                message = await received.next_msg(timeout=TIMEOUT)
                if not message.data:
                    if (status := (message.headers or {}).get("Status", "204")) != "204":
                        raise RecoveryError(f"The snapshot of {name} ended early: {status}")
                    break
                file.write(message.data)
                if message.reply:
                    await message.respond(b"")  # asks for more
    finally:
        await received.unsubscribe()
    return {"config": answer["config"], "state": answer["state"]}


async def messages(client: Client, name: str, last: int) -> AsyncIterator[dict[str, Any]]:
    """Yield a line for each message, up to the last of the snapshot; deleted ones leave holes."""
    sequence = 1
    while sequence <= last:
        request = json.dumps({"seq": sequence, "next_by_subj": ">"}).encode()
        answer = json.loads((await client.request(f"$JS.API.STREAM.MSG.GET.{name}", request, timeout=TIMEOUT)).data)
        if error := answer.get("error"):
            if error.get("err_code") == NO_MESSAGE:
                return
            raise RecoveryError(f"NATS does not show message {sequence} of {name}: {error.get('description')}")
        message = answer["message"]
        if message["seq"] > last:
            return
        held = base64.b64decode(message.get("hdrs", "")) + b"\0" + base64.b64decode(message.get("data", ""))
        yield {
            "seq": message["seq"],
            "subject": message["subject"],
            "time": message["time"],
            "digest": hashlib.sha256(held).hexdigest(),
        }
        sequence = message["seq"] + 1


async def consumers_of(client: Client, name: str) -> list[dict[str, Any]]:
    """Return the durable consumers of a stream, and how far each has come."""
    found: list[dict[str, Any]] = []
    while True:
        page = await ask(client, f"CONSUMER.LIST.{name}", offset=len(found))
        found += page["consumers"] or []
        if len(found) >= page["total"] or not page["consumers"]:
            break
    return [
        {"name": each["name"], "acknowledged": each["ack_floor"]["stream_seq"]}
        for each in sorted(found, key=lambda each: str(each["name"]))
        if each["config"].get("durable_name")
    ]


async def restore(place: Place, root: Path) -> Backup:
    """Give every snapshot back."""
    backup = Backup.open(root, STORE)
    async with connected(place) as client:
        if taken := set(await names(client)) & backup.facts["streams"].keys():
            raise RecoveryError(
                f"The stream {min(taken)} is there already: delete it, or restore into an empty server."
            )
        for name, info in backup.facts["streams"].items():
            await give_back(client, name, info, backup.folder / f"{name}.snapshot")
    return backup


async def give_back(client: Client, name: str, info: dict[str, Any], path: Path) -> None:
    """Send a snapshot, chunk by chunk, each when the one before it was taken."""
    alone = {} if client._server_info.get("cluster") else {"num_replicas": 1}  # only there the library has it
    config = info["config"] | alone
    begun = await ask(client, f"STREAM.RESTORE.{name}", config=config, state=info["state"])
    subject = begun["deliver_subject"]
    with path.open("rb") as file:
        while part := file.read(CHUNK):
            answer = await client.request(subject, part, timeout=TIMEOUT)
            if answer.data and (error := json.loads(answer.data).get("error")):
                raise RecoveryError(f"NATS does not take the snapshot of {name}: {error.get('description')}")
    done = json.loads((await client.request(subject, b"", timeout=TIMEOUT)).data)
    if error := done.get("error"):
        raise RecoveryError(f"NATS does not take the snapshot of {name}: {error.get('description')}")
    if (found := done["state"]["messages"]) != info["state"]["messages"]:
        raise RecoveryError(f"{name} has {found} messages, the backup {info['state']['messages']}.")


def content(root: Path) -> dict[str, str]:
    """Return every message and every consumer."""
    backup = Backup.open(root, STORE)
    found: dict[str, str] = {}
    for name in backup.facts["streams"]:
        for row in read_lines(backup.folder / f"{name}.jsonl"):
            found[f"{name} message {row['seq']}"] = json.dumps(row, sort_keys=True)
        for row in read_lines(backup.folder / f"{name}.consumers.jsonl"):
            found[f"{name} consumer {row['name']}"] = json.dumps(row, sort_keys=True)
    return found
