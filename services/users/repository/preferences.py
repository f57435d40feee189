"""Preferences in the Dapr state store: a key a name, `{org}:{user}:{name}`, and an index whose ETag is the document's.

Every change is one transaction that also writes the index over the ETag that was read, so a document is never half
changed and never silently overwritten. A reader takes the values again when the index moved meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from isa_common import Unavailable
from kernel import Caller
from kernel.dapr.state import Put, Remove, State

INDEX = "_index"
"""Outside the grammar of names."""
READS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a user prefers, and the ETag that it has; an empty ETag before the first write."""

    values: dict[str, object]
    etag: str


class Preferences:
    """The preferences of each user."""

    def __init__(self, state: State) -> None:
        self._state = state

    def _key(self, caller: Caller, name: str) -> str:
        return f"{caller.org}:{caller.user}:{name}"

    async def read(self, caller: Caller) -> Document:
        """Return a whole document as it was at one moment."""
        index = await self._state.get(self._key(caller, INDEX))
        for _ in range(READS):
            names: list[str] = index.value or []
            values = await self._state.get_many([self._key(caller, name) for name in names]) if names else {}
            again = await self._state.get(self._key(caller, INDEX)) if names else index
            if again.etag == index.etag:
                return Document(values={name: values[self._key(caller, name)].value for name in names}, etag=index.etag)
            index = again
        raise Unavailable("The preferences change faster than they can be read. Try again.")

    async def write(self, caller: Caller, before: Document, after: Mapping[str, object]) -> None:
        """Make a document what it should be in one transaction; PreconditionFailed when it changed meanwhile."""
        operations: list[Put | Remove] = [Put(self._key(caller, INDEX), sorted(after), before.etag)]
        operations += [
            Put(self._key(caller, name), value)
            for name, value in after.items()
            if name not in before.values or before.values[name] != value
        ]
        operations += [Remove(self._key(caller, name)) for name in before.values.keys() - after.keys()]
        await self._state.transact(operations)

    async def forget(self, caller: Caller) -> None:
        """Delete all that a user preferred."""
        before = await self.read(caller)
        if before.etag:
            names = [*before.values, INDEX]
            await self._state.transact([Remove(self._key(caller, name)) for name in names])
