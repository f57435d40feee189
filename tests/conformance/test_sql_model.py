"""The adapter on PostgreSQL does what the service in memory does, whatever two tenants do to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from isa_common import IsaError, OpenTransaction, Sql, Statement
from isa_common.testing._sql import MemorySql
from isa_common.testing._transport import Caller, MemoryTransport
from services.adapters.postgres.app import Settings, create_app
from tests.conformance.conftest import Engines, FakeParts, Secrets
from tests.conformance.machines import BOUNDS

tenants = st.sampled_from([0, 1])
ids = st.integers(0, 4)
names = st.one_of(st.none(), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5))

INSERT = "INSERT INTO plants VALUES ($1, $2)"
UPSERT = "INSERT INTO plants VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET name = excluded.name RETURNING id"
UPDATE = "UPDATE plants SET name = $2 WHERE id >= $1 RETURNING id"
DELETE = "DELETE FROM plants WHERE id = $1"
ALL = "SELECT id, name FROM plants ORDER BY id"
changes = st.one_of(
    st.builds(Statement, st.sampled_from([INSERT, UPSERT, UPDATE]), ids, names),
    st.builds(Statement, st.just(DELETE), ids, expect_rows=st.sampled_from([None, 1])),
    st.just(Statement("SELECT * FROM nowhere")),
)


async def outcome(work: Awaitable[Any]) -> object:
    """What came of a call, told alike by both."""
    try:
        return plain(await work)
    except IsaError as error:
        return error.code.name


def plain(value: Any) -> object:
    if isinstance(value, IsaError):
        return value.code.name
    if isinstance(value, list):
        return sorted(map(repr, map(plain, value)))
    if hasattr(value, "affected"):
        return (value.affected, plain(value.rows))
    if hasattr(value, "columns"):
        return tuple(value)
    return value


def test_the_adapter_does_what_the_service_in_memory_does(engines: Engines) -> None:
    host, _, port = engines.postgres.rpartition(":")

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.loop = asyncio.new_event_loop()
            self.memory = MemorySql()
            given = Settings(host=host, port=int(port), connections=8, connections_each=4)
            self.adapter = create_app(given, FakeParts(Secrets(engines.secrets))).implementation
            self.open: list[tuple[OpenTransaction, OpenTransaction] | None] = [None, None]
            self.loop.run_until_complete(self.adapter.start())

        @initialize()
        def make(self) -> None:
            self.sql = [
                (self.client(self.memory, f"org-model{number}"), self.client(self.adapter, f"org-model{number}"))
                for number in range(2)
            ]
            for pair in self.sql:
                self.loop.run_until_complete(pair[1].execute("DROP TABLE IF EXISTS plants"))
                for each in pair:
                    each_made = each.execute("CREATE TABLE plants (id int PRIMARY KEY, name text NOT NULL)")
                    self.loop.run_until_complete(each_made)

        def client(self, service: object, org: str) -> Sql:
            caller = Caller(org=org, user="user-1")
            return Sql(MemoryTransport(lambda _: service, caller, timeout=timedelta(seconds=20)))

        def both(self, calls: list[Awaitable[Any]]) -> object:
            """Make a call to both, and compare what came of it."""
            expected, found = (self.loop.run_until_complete(outcome(call)) for call in calls)
            assert found == expected
            return found

        def is_free(self, tenant: int) -> bool:
            return self.open[tenant] is None

        @rule(tenant=tenants, change=changes)
        def execute(self, tenant: int, change: Statement) -> None:
            if self.is_free(tenant):
                self.both([sql.execute(change.sql, *change.params) for sql in self.sql[tenant]])

        @rule(tenant=tenants, batch=st.lists(changes, max_size=3))
        def execute_batch(self, tenant: int, batch: list[Statement]) -> None:
            if self.is_free(tenant):
                self.both([sql.execute_batch(batch) for sql in self.sql[tenant]])

        @rule(tenant=tenants, rows=st.lists(st.tuples(ids, names), max_size=3))
        def copy_in(self, tenant: int, rows: list[tuple[int, str | None]]) -> None:
            async def copy(sql: Sql) -> object:
                try:
                    return await sql.copy_in("plants", rows=rows)
                except IsaError:
                    return "refused"  # which of several wrong rows is told is not promised

            if self.is_free(tenant):
                self.both([copy(sql) for sql in self.sql[tenant]])

        @rule(tenant=tenants, work=st.lists(changes, max_size=3), is_kept=st.booleans(), is_guarded=st.booleans())
        def transact(self, tenant: int, work: list[Statement], is_kept: bool, is_guarded: bool) -> None:
            async def run(sql: Sql) -> list[object]:
                seen: list[object] = []
                async with sql.transaction() as tx:
                    for change in work:
                        if is_guarded:
                            try:
                                async with tx.savepoint():
                                    seen.append(plain(await tx.execute(change.sql, *change.params)))
                            except IsaError as error:
                                seen.append(error.code.name)
                        else:
                            seen.append(plain(await tx.execute(change.sql, *change.params)))
                    if not is_kept:
                        await tx.rollback()
                return seen

            if self.is_free(tenant):
                self.both([run(sql) for sql in self.sql[tenant]])

        @rule(tenant=tenants)
        def begin(self, tenant: int) -> None:
            if self.is_free(tenant):
                begun = [self.loop.run_until_complete(sql.begin()) for sql in self.sql[tenant]]
                self.open[tenant] = (begun[0], begun[1])

        @rule(tenant=tenants, work=st.lists(changes, min_size=1, max_size=2))
        def execute_in_tx(self, tenant: int, work: list[Statement]) -> None:
            if (opened := self.open[tenant]) is not None:
                self.both([tx.execute_batch(work) for tx in opened])

        @precondition(lambda self: any(self.open))
        @rule(tenant=tenants, is_committed=st.booleans())
        def end(self, tenant: int, is_committed: bool) -> None:
            if (opened := self.open[tenant]) is not None:
                self.open[tenant] = None
                self.both([tx.commit() if is_committed else tx.rollback() for tx in opened])

        @rule(tenant=tenants)
        def read(self, tenant: int) -> None:
            if self.is_free(tenant):
                self.both([sql.query(ALL) for sql in self.sql[tenant]])

        def teardown(self) -> None:
            for tenant in (0, 1):
                self.end_quietly(tenant)
                self.read(tenant)
            self.loop.run_until_complete(self.adapter.stop())
            self.loop.close()

        def end_quietly(self, tenant: int) -> None:
            if (opened := self.open[tenant]) is not None:
                self.open[tenant] = None
                for tx in opened:
                    self.loop.run_until_complete(tx.rollback())

    run_state_machine_as_test(Machine, settings=BOUNDS)
