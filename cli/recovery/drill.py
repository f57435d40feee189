"""The drill: fill every store, back it up, lose it, bring it back, and hold what is there against what was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from cli.recovery import kafka, postgres, vectors
from cli.recovery.content import Found, Tenant
from cli.recovery.place import place_of
from cli.recovery.whole import CONTENT, Restore, Say, back_up, back_up_remote, compare, quiet
from cli.topics import Cluster
from runtime import ports
from runtime.environment import own_engine_environment
from runtime.layout import CHECKOUT, Layout
from runtime.postgres import remove
from runtime.start import Runtime, open_runtime

RTO = timedelta(hours=4)
RPO = timedelta(hours=1)
PATIENCE = 120.0
"""Seconds for what must happen; nothing is asserted about how long it took."""
TENANTS = ("Spoke & Bean", "Nordlicht")
EARLY, LATE = "early", "late"
REMINDED_AFTER = timedelta(seconds=20)
FOLDERS = {"redis": "redis", "logs": "loki", "vectors": "qdrant", "kafka": "kafka", "nats": "nats", "objects": "minio"}
"""Folder of the data of each store that has one to itself."""
BACKED_UP = {
    "configuration": "encrypted",
    "postgres": "base, log",
    "redis": "keys",
    "logs": "folder",
    "vectors": "points",
    "kafka": "records",
    "nats": "snapshots",
    "objects": "objects",
}


@dataclass(kw_only=True)
class Row:
    """What became of one store."""

    store: str
    method: str
    items: int
    """What it held at the disaster."""
    recent: int
    """How many of them were written after its backup."""
    restored: int
    lost: int
    faults: list[str]
    """What must not be: something lost that was in the backup, or something that is not as it was."""
    rpo: timedelta
    """How long before the disaster the oldest of what was lost had been written."""
    rto: timedelta

    @property
    def is_good(self) -> bool:
        """Whether nothing that was backed up is missing, and both times are within the targets."""
        return not self.faults and self.rpo <= RPO and self.rto <= RTO


@dataclass(kw_only=True)
class Report:
    """What a drill found."""

    rows: list[Row] = field(default_factory=list)
    checks: dict[str, str] = field(default_factory=dict)
    """What was checked beside the stores: empty when it holds, else what is wrong."""
    rto: timedelta = timedelta()
    """From the disaster until everything was there, healthy and checked."""
    republished: int = 0

    @property
    def is_good(self) -> bool:
        """Whether the drill passed."""
        return all(row.is_good for row in self.rows) and not any(self.checks.values()) and self.rto <= RTO


def untouched(_: Path) -> None:
    """Leave the backups as they are."""


Spoil = Callable[[Path], None]
"""What happens to the backups before they are needed: a test breaks them."""


class Drill:
    """One drill on a set of its own."""

    def __init__(self, layout: Layout, root: Path, stores: Collection[str], say: Say, spoil: Spoil) -> None:
        self.layout = layout
        self.root = root
        self.stores = list(stores)
        self.say = say
        self.report = Report()
        self.passphrase = secrets.token_urlsafe(32)
        self.tenants = [Tenant(name, layout.port) for name in TENANTS]
        self.moments: dict[str, datetime] = {}
        self.spoil = spoil

    async def run(self, runtime: Runtime) -> Report:
        """Play it through; the set of the drill runs, freshly made, and runs again at the end."""
        await self.fill(EARLY, 40)
        early = await self.found(runtime)
        async with postgres.log_kept(runtime, self.root):
            backups = await back_up(runtime, self.root, self.stores, self.passphrase, self.say)
            await self.fill(LATE, 10)
            reminder = await self.tenants[0].be_reminded(datetime.now(UTC) + REMINDED_AFTER)
            final, tables, schemas = await self.settled(runtime)
            keys = runtime.layout.secrets.read_text()
            until = datetime.now(UTC)
            await self.accident(runtime)
            disaster = datetime.now(UTC)
            self.say("disaster", "every process is killed, every folder deleted")
            await self.destroy(runtime)
        self.spoil(self.root)
        restore = Restore(self.layout, self.root, self.stores, self.say)
        runtime = await restore.files(until=until, passphrase=self.passphrase)
        await restore.engines(runtime)
        await self.check_engines(tables, runtime)
        self.report.republished = await restore.republish(runtime)
        self.say("rooms", "starting")
        await runtime.start([], quiet())
        if "configuration" in self.stores:
            same = runtime.layout.secrets.read_text() == keys
            self.check("the secrets are those that were", "" if same else "secrets.json differs")
        for tenant in self.tenants:
            await tenant.log_in()
        await self.check_rooms(runtime, reminder, schemas)
        self.report.rto = datetime.now(UTC) - disaster
        after = await self.found(runtime)
        for store in self.stores:
            held = {
                name: found.get(store, {}) for name, found in (("early", early), ("final", final), ("after", after))
            }
            self.report.rows.append(
                row_of(
                    store,
                    early=held["early"],
                    final=held["final"],
                    after=held["after"],
                    written=partial(self.written, backed_up=backups[store].began),
                    disaster=disaster,
                    rto=timedelta(seconds=restore.seconds[store]),
                )
            )
        return self.report

    async def fill(self, mark: str, count: int) -> None:
        """Write through the public API as two organisations."""
        self.say("content", f"{mark} items are written through the API")
        self.moments[mark] = datetime.now(UTC)
        for tenant in self.tenants:
            if not tenant.token:
                await tenant.sign_up()
                await tenant.prepare()
            await tenant.write(mark, count)

    def written(self, item: str, backed_up: datetime) -> datetime:
        """Tell when an item was written, at the earliest: its name says by whom, else it is as old as the backup."""
        return self.moments[LATE] if item.startswith(LATE) else backed_up

    async def found(self, runtime: Runtime) -> Found:
        """Return what the stores hold, by the API, and Kafka's records by their event."""
        found: Found = {"kafka": await self.events(), "configuration": {}}
        for name in runtime.secrets:
            found["configuration"][f"secret {name}"] = runtime.secrets[name]
        for tenant in self.tenants:
            for store, items in (await tenant.found()).items():
                found.setdefault(store, {}).update(items)
        return found

    async def events(self) -> dict[str, str]:
        """Return every record of Kafka by its topic and event id: which offset it has is no content."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            backup = await asyncio.to_thread(kafka.backup, self.layout.address("kafka"), root)
            found: dict[str, str] = {}
            for topic, facts in backup.facts["topics"].items():
                for partition in range(facts["partitions"]):
                    for row in kafka.stored(backup.folder, topic, partition):
                        headers = dict(row["headers"])
                        name = kafka.raw(headers.get("ce_id")) or str(row["offset"]).encode()
                        found[f"{topic} {name.decode()}"] = f"{row['key']} {row['value']} {sorted(headers.items())}"
            return found

    async def settled(self, runtime: Runtime) -> tuple[Found, dict[str, tuple[int, str]], dict[str, Any]]:
        """Wait until nothing is on its way any more; return what everything holds then."""
        self.say("content", "waiting until all of it has arrived everywhere")
        cluster = Cluster(self.layout.address("kafka"))
        found = await self.found(runtime)  # before it waits: reading leaves records in the audit
        before: dict[str, tuple[int, str]] = {}
        async with asyncio.timeout(PATIENCE):
            while True:
                ranges = cluster.ranges(list(cluster.topics()))
                waiting = sum(lag for groups in cluster.lags(ranges).values() for lag in groups.values())
                tables = postgres.digests(runtime)
                if not waiting and not (changes := postgres.differences(before, tables)):
                    found["kafka"] = await self.events()
                    return found, tables, schemas_of(self.layout)
                if not waiting:
                    self.say("content", f"still changing: {changes[0]}")
                before = tables
                await asyncio.sleep(1)

    async def accident(self, runtime: Runtime) -> None:
        """What nobody wants back: all tasks deleted, at a moment after the one that is restored."""
        if "postgres" in self.stores:
            with postgres.connected(runtime, "tasks") as connection:
                connection.execute("TRUNCATE tasks CASCADE")

    async def destroy(self, runtime: Runtime) -> None:
        """Kill every process at once, and delete what the stores of this drill have."""
        states = await runtime.supervisor.states()
        keeper = int(await runtime.supervisor.call("supervisor.getPID"))
        for pid in (keeper, *(state.pid for state in states.values() if state.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await runtime.supervisor.end_leftovers([process.program for process in runtime.set.processes.values()])
        async with asyncio.timeout(PATIENCE):
            for port in (port for process in runtime.set.processes.values() for port in process.ports):
                while not ports.is_free(port):  # noqa: ASYNC110 -- processes end, which sets no event
                    await asyncio.sleep(0.1)
        if "postgres" in self.stores:
            remove(self.layout)
        for store, folder in FOLDERS.items():
            if store in self.stores:
                shutil.rmtree(self.layout.data / folder, ignore_errors=True)
        if "configuration" in self.stores:
            self.layout.secrets.unlink()
            shutil.rmtree(self.layout.run)
        if len(self.stores) == len(BACKED_UP):  # Dapr's jobs and what no store has: made anew
            shutil.rmtree(self.layout.data)

    async def check_engines(self, tables: Mapping[str, tuple[int, str]], runtime: Runtime) -> None:
        """Hold the engines against the backups and the moment before the accident, while no room changes them."""
        if "postgres" in self.stores:
            faults = postgres.differences(tables, postgres.digests(runtime))
            rows = sum(count for count, _ in tables.values())
            self.check(f"{rows} rows of {len(tables)} tables as at the moment before", "; ".join(faults[:3]))
        compared = [store for store in self.stores if store in CONTENT]
        with tempfile.TemporaryDirectory() as folder:
            again = Path(folder)
            for store in compared:
                if store == "vectors":  # no adapter has its folder open yet
                    vectors.copy(self.layout.data / "qdrant", again / "copied")
                    vectors.backup(again / "copied", again)
                else:
                    await back_up_remote(place_of(self.layout), again, store)
            for store, faults in compare(self.root, again, compared).items():
                items = len(CONTENT[store](self.root))
                self.check(f"{store}: {items} items as in the backup", "; ".join(faults[:3]))

    async def check_rooms(self, runtime: Runtime, reminder: str, schemas: Mapping[str, Any]) -> None:
        """Hold what the rooms say against what they promise: schemas, audit, reminders, and that work goes on."""
        differ = sorted(name for name, text in schemas.items() if schemas_of(self.layout).get(name) != text)
        self.check(f"{len(schemas)} schemas of the registry", ", ".join(differ))
        verified = await asyncio.to_thread(self.isa, "audit", "verify")
        self.check("the audit's chains are whole", "" if verified.returncode == 0 else verified.stdout[-300:])
        tenant = self.tenants[0]
        await self.until("a reminder of before the disaster came", lambda: tenant.was_reminded(reminder))
        task = await tenant.be_reminded(datetime.now(UTC) + timedelta(seconds=1))
        await self.until("a new task is reminded of", lambda: tenant.was_reminded(task))

    async def until(self, what: str, attempt: Callable[[], Any]) -> None:
        """Note that something came, or that it did not."""
        self.say("rooms", f"waiting: {what}")
        end = time.monotonic() + PATIENCE
        while not (came := await attempt()) and time.monotonic() < end:  # noqa: ASYNC110 -- asked over the network
            await asyncio.sleep(0.5)
        self.check(what, "" if came else f"not within {PATIENCE:.0f} s")

    def check(self, what: str, fault: str) -> None:
        """Note what was checked."""
        self.report.checks[what] = fault

    def isa(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of ours against the set of the drill."""
        environment = {
            **os.environ,
            **own_engine_environment(self.layout),
            "ISA_HOME": str(self.layout.home),
            "ISA_PORT_BASE": str(self.layout.port_base),
        }
        return subprocess.run(
            [sys.executable, "-m", "cli", *arguments],
            cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


def row_of(
    store: str,
    *,
    early: Mapping[str, str],
    final: Mapping[str, str],
    after: Mapping[str, str],
    written: Callable[[str], datetime],
    disaster: datetime,
    rto: timedelta,
) -> Row:
    """Judge one store: what was there early must be there as it was; what came later may be lost, and counts."""
    lost = sorted(final.keys() - after.keys())
    faults = [f"{item} is lost, and was in the backup" for item in lost if item in early]
    faults += [
        f"{item} is not as it was"
        for item in sorted(final.keys() & after.keys())
        if after[item] not in (final[item], early.get(item))
    ]
    gone = [item for item in sorted(final) if after.get(item) != final[item]]
    oldest = min((written(item) for item in gone), default=disaster)
    return Row(
        store=store,
        method=BACKED_UP[store],
        items=len(final),
        recent=sum(early.get(item) != content for item, content in final.items()),
        restored=len(final) - len(gone),
        lost=len(gone),
        faults=faults,
        rpo=disaster - oldest,
        rto=rto,
    )


def schemas_of(layout: Layout) -> dict[str, Any]:
    """Return every version of every subject of the schema registry, with its id."""
    url = own_engine_environment(layout)["REGISTRY_URL"]
    found: dict[str, Any] = {}
    with httpx.Client(base_url=url, timeout=30, trust_env=False) as registry:
        for subject in registry.get("/subjects").raise_for_status().json():
            for version in registry.get(f"/subjects/{subject}/versions").raise_for_status().json():
                answer = registry.get(f"/subjects/{subject}/versions/{version}").raise_for_status().json()
                found[f"{subject} {version}"] = (answer["id"], answer["schema"])
    return found


async def drill(
    layout: Layout, stores: Collection[str], say: Say, *, keep: bool = False, spoil: Spoil = untouched
) -> Report:
    """Make a set, play the drill, and forget the set unless it shall be kept."""
    root = layout.home / "backup"
    runtime = await open_runtime(layout, quiet())
    say("set", "starting")
    try:
        await runtime.start([], quiet())
        shutil.rmtree(root, ignore_errors=True)
        return await Drill(layout, root, stores, say, spoil).run(runtime)
    finally:
        if not keep:
            say("set", "stopping")
            await (await open_runtime(layout, quiet())).stop(quiet())
            remove(layout)
            shutil.rmtree(layout.home)
