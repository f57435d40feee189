"""A unit of work: what a caller changes, and the events that tell of it, commit together or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType

from isa.events import Event
from isa_common import Result, Row, Sql, Statement
from kernel.avro import Codec
from kernel.caller import Caller
from kernel.events import stamp, to_record
from kernel.outbox import Outbox


class Work:
    """Statements and events of one transaction of one caller.

    Reads run at once and outside the transaction; a write that depends on one says so by `expect_rows` and by the
    version in its WHERE clause, and a lost race raises Aborted.
    """

    def __init__(
        self, caller: Caller, sql: Sql, *, outbox: Outbox, codec: Codec, clock: Callable[[], datetime], source: str
    ) -> None:
        self.caller = caller
        self.results: list[Result] = []
        """One result a statement, in order, once the work has been committed."""
        self.events: list[Event] = []
        """What will be, or was, emitted; stamped."""
        self._sql = sql
        self._outbox = outbox
        self._codec = codec
        self._clock = clock
        self._source = source
        self._statements: list[Statement] = []

    async def query(self, sql: str, *params: object) -> list[Row]:
        """Read rows now."""
        return await self._sql.query(sql, *params)

    def add(self, sql: str, *params: object, expect_rows: int | None = None) -> None:
        """Queue a statement."""
        self._statements.append(Statement(sql, *params, expect_rows=expect_rows))

    def extend(self, statements: Sequence[Statement]) -> None:
        """Queue statements."""
        self._statements += statements

    def emit(self, event: Event) -> None:
        """Queue an event of the same transaction."""
        self.events.append(stamp(event, self.caller, self._clock()))

    async def __aenter__(self) -> Work:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            await self._commit()

    async def _commit(self) -> None:
        records = [await to_record(event, self._codec, source=self._source) for event in self.events]
        statements = list(self._statements)
        if records:
            statements.append(self._outbox.statement(records))
        if not statements:
            return
        self.results = (await self._sql.execute_batch(statements))[: len(self._statements)]
        self._outbox.wake(records)
