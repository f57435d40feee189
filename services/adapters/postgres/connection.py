"""One connection: values as text where JSON needs it, and statements prepared once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import asyncpg
from asyncpg.introspection import TypeRecord
from asyncpg.protocol import BUILTIN_TYPE_NAME_MAP

from isa_common import ResourceExhausted
from services.adapters.postgres.codec import NATIVE, Catalog, Column, Encode, TypeFacts

SETTINGS = {
    "application_name": "isa-sql",
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "client_min_messages": "error",
    "jit": "off",
    "idle_in_transaction_session_timeout": "60s",
}
STATEMENTS = 200
"""Prepared statements that a connection keeps."""
MOST = 32 << 20
"""Bytes that the server may send at once: rows come whole, and what does not fit must not fill our memory."""

_TYPES = """
SELECT t.oid, t.typname, t.typelem, t.typdelim::text, e.typname, t.typcategory = 'A'
FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_type AS e ON e.oid = t.typelem
WHERE t.oid = ANY ($1::oid[]) OR t.oid IN (SELECT typelem FROM pg_catalog.pg_type WHERE oid = ANY ($1::oid[]))
"""
_NO_STATEMENT = SimpleNamespace(name="types")
_ALIASES = frozenset({"any", "bigint", "char", "character", "decimal", "int", "integer", "opaque", "real", "smallint"})
"""Second names of types in the driver's table; the catalog knows the first."""


@dataclass(slots=True)
class Prepared:
    """A statement that this connection knows: what it takes and what it gives."""

    statement: Any
    """asyncpg's; kept so that it is not collected."""
    state: Any
    encoders: tuple[Encode, ...]
    columns: tuple[tuple[str, str], ...]
    """Name and type of each."""
    decoders: tuple[tuple[int, Column], ...]
    """What makes JSON of the columns whose text is not JSON's already, by position."""
    width: float = 0.0
    """Bytes of a row, as last seen; zero when none was."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg comes without types
    """A connection of one role to one database.

    It uses inner parts of the driver (pinned): `bind_execute` with a limit of rows, which the public API has only for
    cursors, at twice the round trips; the hook that looks up unknown types, so that they become text without
    asyncpg's slow recursive query; and `data_received`, to count what the server sends before it is decoded.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.catalog = Catalog()
        self.bound = ""
        """The settings that its session was given."""
        self.has_failed = False
        """Whether the server has said, since `expect`, that the command failed: a copy must not go on for long."""
        self._left = MOST
        self._is_flooded = False
        self._statements: OrderedDict[str, Prepared] = OrderedDict()
        decode = self._protocol.data_received

        def data_received(data: bytes) -> None:
            self._left -= len(data)
            if self._left < 0:
                self._is_flooded = True
                self.terminate()
                return
            if data[:1] == b"E" or (data[:1] == b"G" and data[1 + int.from_bytes(data[1:5], "big") :][:1] == b"E"):
                self.has_failed = True
            decode(data)

        self._protocol.data_received = data_received
        self._transport.set_protocol(self._protocol)  # loops keep the method, not its name

    def expect(self, size: int = MOST) -> None:
        """Let the server send so many bytes before the next `expect`; with more the connection ends."""
        self._left = size
        self.has_failed = False

    def check_flood(self) -> None:
        """Say so when the connection has ended because of what the server sent."""
        if self._is_flooded:
            raise ResourceExhausted("The rows are too large to be read at once: select fewer, or shorter columns.")

    async def prime(self, catalog: Catalog) -> None:
        """Make every built-in type that JSON cannot hold travel as text; asks no network."""
        self.catalog = catalog
        for name, oid in BUILTIN_TYPE_NAME_MAP.items():
            if " " in name or name.removesuffix("[]") in _ALIASES:
                continue
            if name.endswith("[]"):
                catalog.add(TypeFacts(oid, name, element=BUILTIN_TYPE_NAME_MAP[name[:-2]]))
            else:
                catalog.add(TypeFacts(oid, name))
            if name not in NATIVE:
                await self._travel_as_text(oid, name)

    async def prepared(self, sql: str) -> Prepared:
        """Prepare a statement, or return it as prepared before."""
        known = self._statements.get(sql)
        if known is not None:
            self._statements.move_to_end(sql)
            return known
        statement = await self.prepare(sql)
        encoders = tuple(self.catalog.encoder(each.oid) for each in statement.get_parameters())
        attributes = statement.get_attributes()
        columns = tuple((each.name, self.catalog.name(each.type.oid)) for each in attributes)
        decoders = tuple(
            (position, decode)
            for position, each in enumerate(attributes)
            if (decode := self.catalog.column(each.type.oid)) is not None
        )
        prepared = Prepared(statement, statement._state, encoders, columns, decoders)
        self._statements[sql] = prepared
        if len(self._statements) > STATEMENTS:
            self._statements.popitem(last=False)
        return prepared

    async def run(self, prepared: Prepared, arguments: list[Any], *, limit: int) -> tuple[list[Any], str, bool]:
        """Run a statement; return at most `limit` rows, the command's tag, and whether that was all."""
        self.expect()
        rows, tag, is_complete = await self._protocol.bind_execute(prepared.state, arguments, "", limit, True, None)
        return self._seen(prepared, rows or []), _text(tag), is_complete

    async def more(self, prepared: Prepared, *, limit: int) -> tuple[list[Any], bool]:
        """Return the next rows of the statement that was run last in this transaction."""
        self.expect()
        rows, _, is_complete = await self._protocol.execute(prepared.state, "", limit, True, None)
        return self._seen(prepared, rows or []), is_complete

    async def copy_in(self, statement: str, chunks: AsyncIterator[bytes]) -> int:
        """Store what a COPY statement reads; return how many rows that were."""
        self.expect()
        return int(_text(await self._copy_in(statement, chunks, None)).rpartition(" ")[2] or 0)

    async def copy_out(self, statement: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        """Pass on what a COPY statement writes, as fast as it is taken."""

        async def taken(chunk: bytes) -> None:
            self.expect()
            await take(chunk)

        self.expect()
        await self._copy_out(statement, taken, None)

    def _seen(self, prepared: Prepared, rows: list[Any]) -> list[Any]:
        if rows:
            prepared.width = (MOST - self._left) / len(rows)
        return rows

    def forget(self) -> None:
        """Drop what was prepared: a table has changed since."""
        self._statements.clear()

    async def _introspect_type(self, typename: str, schema: str) -> Any:
        """Built-in types are known; asked by set_type_codec."""
        return TypeRecord((self._asked, None, b"b"))

    async def _introspect_types(self, typeoids: Any, timeout: Any) -> Any:
        """Look unknown types up once a database, and make them travel as text."""
        missing = ",".join(str(oid) for oid in typeoids if oid not in self.catalog)
        if missing:
            for oid, name, element, delimiter, element_name, is_array in await self.fetch(_TYPES, f"{{{missing}}}"):
                if is_array and element:
                    self.catalog.add(TypeFacts(oid, f"{element_name}[]", element, delimiter))
                else:
                    self.catalog.add(TypeFacts(oid, name))
        for oid in typeoids:
            await self._travel_as_text(oid, self.catalog.name(oid))
        return [], _NO_STATEMENT

    async def _travel_as_text(self, oid: int, name: str) -> None:
        """Have the driver pass a type's text through, without a call into Python for each value."""
        self._asked = oid
        await self.set_builtin_type_codec(name, schema="pg_catalog", codec_name="text", format="text")


def _text(tag: Any) -> str:
    return tag.decode() if isinstance(tag, bytes) else str(tag or "")
