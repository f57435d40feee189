"""Vectors: every collection with its settings and indexes, every point with vectors and payload.

The embedded engine has no snapshots and one process a folder: its adapter is stopped while the folder is copied, and
the copy is read page by page. A Qdrant server gives snapshots of its own.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx

from cli.recovery.folder import Backup, RecoveryError, read_lines, write_lines
from isa.vectors.v1 import vectors_pb2 as pb
from services.adapters.qdrant.shards import Shards

STORE = "vectors"
PAGE = 200
UNBOUNDED = 1 << 30


def shards(folder: Path) -> Shards:
    """Open the collections of a folder that nobody else has open."""
    return Shards(folder, number=0, open_most=8, collections_most=UNBOUNDED, spare=0)


def copy(folder: Path, to: Path) -> None:
    """Copy the folder once its workers have let go of it."""
    shutil.rmtree(to, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for path in folder.glob(".lock-*"):
            lock = stack.enter_context(path.open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.copytree(folder, to, ignore=shutil.ignore_patterns(".lock-*", ".making-*"))


def backup(copied: Path, root: Path) -> Backup:
    """Write every collection of a copy that nobody has open."""
    backup = Backup.begin(root, STORE)
    for path in backup.folder.iterdir():
        path.unlink()
    collections = shards(copied)
    backup.facts = {"collections": {}}
    try:
        for name in names(copied):
            found = collections.describe_collection(name, pb.DescribeCollectionRequest())
            backup.facts["collections"][name] = {
                "params": encoded(found.params),
                "indexes": {field: int(kind) for field, kind in sorted(found.indexes.items())},
            }
            backup.items += write_lines(backup.folder / f"{name}.jsonl", points(collections, name))
    finally:
        collections.close()
    return backup.end()


def names(folder: Path) -> list[str]:
    """Return the collections of a folder, as the adapter calls them."""
    return sorted(
        f"{tenant.name}.{collection.name}"
        for tenant in folder.iterdir()
        if tenant.is_dir() and not tenant.name.startswith(".")
        for collection in tenant.iterdir()
    )


def points(collections: Shards, name: str) -> Iterator[dict[str, Any]]:
    """Yield a line for each point, in the order of their ids."""
    request = pb.ScrollRequest(limit=PAGE, include=pb.Include(payload=True, vectors=True))
    while True:
        page = collections.scroll(name, request)
        for point in page.points:
            yield {"point": encoded(point)}
        if not page.next_cursor:
            return
        request.cursor = page.next_cursor


def encoded(message: Any) -> str:
    """Return a message as a line can have it."""
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def restore(root: Path, folder: Path) -> Backup:
    """Make every collection anew in a folder that is empty, and give it its points."""
    backup = Backup.open(root, STORE)
    if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise RecoveryError(f"{folder} has collections already: stop qdrant-grpc and move them away.")
    folder.mkdir(parents=True, exist_ok=True)
    collections = shards(folder)
    try:
        for name, facts in backup.facts["collections"].items():
            params = pb.CollectionParams.FromString(base64.b64decode(facts["params"]))
            collections.create_collection(name, pb.CreateCollectionRequest(params=params))
            for field, kind in facts["indexes"].items():
                collections.create_index(name, pb.CreateIndexRequest(field=field, type=pb.IndexType.ValueType(kind)))
            page: list[pb.Point] = []
            for row in read_lines(backup.folder / f"{name}.jsonl"):
                page.append(pb.Point.FromString(base64.b64decode(row["point"])))
                if len(page) == PAGE:
                    collections.upsert(name, pb.UpsertRequest(points=page))
                    page.clear()
            collections.upsert(name, pb.UpsertRequest(points=page))
    finally:
        collections.close()
    return backup


def content(root: Path) -> dict[str, str]:
    """Return every collection with its settings, and every point."""
    backup = Backup.open(root, STORE)
    found = {name: json.dumps(facts, sort_keys=True) for name, facts in backup.facts["collections"].items()}
    for name in backup.facts["collections"]:
        for row in read_lines(backup.folder / f"{name}.jsonl"):
            point = pb.Point.FromString(base64.b64decode(row["point"]))
            found[f"{name} {point.id.uuid or point.id.number}"] = row["point"]
    return found


def backup_server(url: str, root: Path) -> Backup:
    """Have a server make a snapshot of each collection, fetch it, and have it deleted there."""
    backup = Backup.begin(root, STORE)
    for path in backup.folder.iterdir():
        path.unlink()
    with server_at(url) as server:
        backup.facts = {"server": True, "collections": {}}
        for each in answered(server.get("/collections"))["collections"]:
            name = each["name"]
            count = answered(server.post(f"/collections/{name}/points/count", json={"exact": True}))["count"]
            snapshot = answered(server.post(f"/collections/{name}/snapshots"))["name"]
            with server.stream("GET", f"/collections/{name}/snapshots/{snapshot}") as answer:
                answer.raise_for_status()
                with (backup.folder / f"{name}.snapshot").open("wb") as file:
                    for part in answer.iter_bytes():
                        file.write(part)
            answered(server.delete(f"/collections/{name}/snapshots/{snapshot}"))
            backup.facts["collections"][name] = {"points": count}
            backup.items += count
    return backup.end()


def restore_server(url: str, root: Path) -> Backup:
    """Give a server its collections back from their snapshots."""
    backup = Backup.open(root, STORE)
    if not backup.facts.get("server"):
        raise RecoveryError(f"{backup.folder} is of the embedded engine: restore it there.")
    with server_at(url) as server:
        for name, facts in backup.facts["collections"].items():
            with (backup.folder / f"{name}.snapshot").open("rb") as file:
                path = f"/collections/{name}/snapshots/upload"
                answered(server.post(path, params={"priority": "snapshot"}, files={"snapshot": file}))
            count = answered(server.post(f"/collections/{name}/points/count", json={"exact": True}))["count"]
            if count < facts["points"]:
                raise RecoveryError(f"{name} has {count} points, the backup {facts['points']}.")
    return backup


def server_at(url: str) -> httpx.Client:
    """Return a client of a server, with its key where it wants one."""
    key = os.environ.get("QDRANT_API_KEY", "")
    return httpx.Client(base_url=url, timeout=600, trust_env=False, headers={"api-key": key} if key else {})


def answered(response: httpx.Response) -> Any:
    """Return the result of an answer."""
    if response.is_error:
        raise RecoveryError(f"Qdrant refuses {response.request.url.path}: {response.text[:200]}")
    return response.json()["result"]


def forget(copied: Path) -> None:
    """Delete a copy."""
    shutil.rmtree(copied, ignore_errors=True)
