"""All stores of a set in their order: backups while it runs, a restore into what is empty."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path

from rich.console import Console

from cli.recovery import configuration, kafka, logs, objects, postgres, redis, streams, vectors
from cli.recovery.folder import Backup, RecoveryError
from cli.recovery.place import Place, place_of
from runtime.layout import Layout
from runtime.progress import Progress
from runtime.start import Runtime, open_runtime

STORES = ("configuration", "postgres", "redis", "logs", "vectors", "kafka", "nats", "objects")
"""In the order of a restore: keys, then the truth, then what a server finds at its start, then what one is given."""
REMOTE = ("redis", "vectors", "kafka", "nats", "objects")
"""What is reached over the network alone."""
OVERLAP = timedelta(minutes=1)
"""Events are published again from so long before the backup of Kafka began: the clocks of two machines differ."""
CONTENT = {
    "kafka": kafka.content,
    "redis": redis.content,
    "nats": streams.content,
    "objects": objects.content,
    "vectors": vectors.content,
}
"""What two backups of a store are compared by."""

Say = Callable[[str, str], None]


def chosen(only: Collection[str], known: Collection[str] = STORES) -> list[str]:
    """Return the named stores in their order, or all of them; refuse a name that is none."""
    if unknown := set(only) - set(known):
        raise RecoveryError(f"There is no store {min(unknown)!r} here; there are {', '.join(known)}.")
    return [store for store in known if not only or store in only]


@asynccontextmanager
async def paused(runtime: Runtime, part: str) -> AsyncIterator[None]:
    """Stop a part while its folder is copied; who calls it meanwhile tries again."""
    async with runtime.lock():
        await runtime.supervisor.stop(part)
    try:
        yield
    finally:
        await runtime.start([part], quiet(), alone=True)


def quiet() -> Progress:
    """Return a display that shows nothing."""
    return Progress(Console(quiet=True))


async def back_up(
    runtime: Runtime, root: Path, stores: Collection[str], passphrase: str, say: Say
) -> dict[str, Backup]:
    """Write a backup of each store of a set that runs."""
    place, data = place_of(runtime.layout), runtime.layout.data
    done: dict[str, Backup] = {}
    for store in stores:
        say(store, "being backed up")
        match store:
            case "configuration":
                made = configuration.backup(runtime.layout, root, passphrase)
            case "postgres":
                made = await postgres.backup(runtime, root)
            case "logs":
                async with paused(runtime, "loki"):
                    made = logs.backup(data / "loki", root)
            case "vectors" if not place.addresses.get("QDRANT_URL"):
                copied = runtime.layout.run / "vectors"
                async with paused(runtime, "qdrant-grpc"):
                    vectors.copy(data / "qdrant", copied)
                made = vectors.backup(copied, root)
                vectors.forget(copied)
            case _:
                made = await back_up_remote(place, root, store)
        done[store] = made
        say(store, f"{made.items} items in {made.seconds:.1f} s")
    return done


async def back_up_remote(place: Place, root: Path, store: str) -> Backup:
    """Write a backup of a store that is reached over the network."""
    match store:
        case "kafka":
            return kafka.backup(place["KAFKA_BROKERS"], root)
        case "redis":
            return await redis.backup(place, root)
        case "nats":
            return await streams.backup(place, root)
        case "objects":
            return await objects.backup(place, root)
        case _:
            return vectors.backup_server(place["QDRANT_URL"], root)


async def restore_remote(place: Place, root: Path, store: str) -> Backup:
    """Give a store that is empty, and reached over the network, its content back."""
    match store:
        case "kafka":
            return kafka.restore(place["KAFKA_BROKERS"], root)
        case "redis":
            return await redis.replay(place, root)
        case "nats":
            return await streams.restore(place, root)
        case "objects":
            return await objects.restore(place, root)
        case _:
            return vectors.restore_server(place["QDRANT_URL"], root)


class Restore:
    """A restore of a set that does not run and whose stores are empty, step by step; each store's time is kept."""

    def __init__(self, layout: Layout, root: Path, stores: Collection[str], say: Say) -> None:
        self.layout = layout
        self.root = root
        self.stores = stores
        self.say = say
        self.seconds: dict[str, float] = {}
        self.backups: dict[str, Backup] = {}

    async def files(self, *, until: datetime | None, passphrase: str) -> Runtime:
        """Put in place what servers find at their start, the secrets first; return the set, not started."""
        if "configuration" in self.stores:
            async with self.timed("configuration"):
                self.backups["configuration"] = configuration.restore(self.layout, self.root, passphrase)
        runtime = await open_runtime(self.layout, quiet())
        data = self.layout.data
        if "postgres" in self.stores:
            async with self.timed("postgres"):
                self.backups["postgres"] = postgres.restore(runtime, self.root, until=until)
        if "redis" in self.stores:
            async with self.timed("redis"):
                self.backups["redis"] = redis.restore(self.root, data / "redis")
        if "logs" in self.stores:
            async with self.timed("logs"):
                self.backups["logs"] = logs.restore(self.root, data / "loki")
        if "vectors" in self.stores:
            async with self.timed("vectors"):
                self.backups["vectors"] = vectors.restore(self.root, data / "qdrant")
        return runtime

    async def engines(self, runtime: Runtime) -> None:
        """Start the engines, and give those their content that take it when they run; no room runs yet."""
        place = place_of(self.layout)
        for store, part in (("postgres", "postgres"), ("redis", "redis"), ("logs", "loki")):
            if store in self.stores:
                async with self.timed(store):
                    await runtime.start([part], quiet(), alone=True)
        if "postgres" in self.stores:
            postgres.recovered(runtime)
        for store, part in (("kafka", "kafka"), ("nats", "nats"), ("objects", "minio")):
            if store in self.stores:
                async with self.timed(store):
                    await runtime.start([part], quiet(), alone=True)
                    self.backups[store] = await restore_remote(place, self.root, store)

    async def republish(self, runtime: Runtime) -> int:
        """Have the rooms publish again what Kafka may have lost; return how many events."""
        if "kafka" not in self.stores:
            return 0
        await runtime.start(["postgres"], quiet(), alone=True)
        return postgres.republish(runtime, self.backups["kafka"].began - OVERLAP)

    @asynccontextmanager
    async def timed(self, store: str) -> AsyncIterator[None]:
        """Add to the time that a store has taken."""
        began = time.monotonic()
        self.say(store, "being restored")
        try:
            yield
        finally:
            self.seconds[store] = self.seconds.get(store, 0) + time.monotonic() - began
        self.say(store, f"restored in {self.seconds[store]:.1f} s")


def compare(left: Path, right: Path, stores: Collection[str]) -> dict[str, list[str]]:
    """Return by store what of one backup another one has not, or has otherwise."""
    found: dict[str, list[str]] = {}
    for store in stores:
        if store not in CONTENT:
            raise RecoveryError(f"Backups of {store} are not compared; those of {', '.join(CONTENT)} are.")
        before, after = CONTENT[store](left), CONTENT[store](right)
        missing = [f"{item} is missing" for item in sorted(before.keys() - after.keys())]
        changed = [f"{item} differs" for item in sorted(before.keys() & after.keys()) if before[item] != after[item]]
        found[store] = [*missing, *changed]
    return found
