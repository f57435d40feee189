"""The state store. It encrypts by itself; values here are JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc
import orjson
from dapr.proto.common.v1 import common_pb2
from dapr.proto.runtime.v1 import state_pb2

from isa_common import Aborted, Internal, IsaError, PreconditionFailed
from kernel import telemetry
from kernel.dapr.sidecar import Sidecar, translated

STORE = "preferences"
TIMEOUT = 10.0
FIRST_WRITE = common_pb2.StateOptions(
    concurrency=common_pb2.StateOptions.CONCURRENCY_FIRST_WRITE, consistency=common_pb2.StateOptions.CONSISTENCY_STRONG
)


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value and the ETag it was read with; None and "" when there is none."""

    value: Any
    etag: str


@dataclass(frozen=True, slots=True)
class Put:
    """Write a value, where an ETag is given only over the value that has it."""

    key: str
    value: object
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Remove:
    """Delete a key, where an ETag is given only the value that has it."""

    key: str
    etag: str | None = None


def packed(value: object) -> bytes:
    """Return a value as it is stored: in an object, by whose brace `unpacked` knows what daprd made of it."""
    return orjson.dumps({"value": value})


def unpacked(data: bytes) -> Any:
    """Return a stored value, None where there is none.

    A transaction of an encrypted store keeps the bytes as Go prints them, `[123 34 ...]`: daprd 1.18 formats with %v
    what it is about to encrypt (ExecuteStateTransaction in its pkg/api/grpc/grpc.go).
    """
    if not data:
        return None
    if data.startswith(b"[123 "):
        data = bytes(map(int, data[1:-1].split()))
    return orjson.loads(data)["value"]


STALE = ("etag", "no item was updated")
"""How daprd, which says INTERNAL inside a transaction, words a refused ETag; the second where nothing should be yet."""


def _stale(error: IsaError) -> bool:
    """Tell whether the store refused a stale ETag."""
    cause = error.__cause__
    if isinstance(error, Aborted):
        return True
    said = (cause.details() or "").lower() if isinstance(cause, grpc.aio.AioRpcError) else ""
    return any(words in said for words in STALE)


class State:
    """The room's state store; keys are the room's own business, injective ones."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def get(self, key: str) -> Versioned:
        """Return a value with its ETag."""
        request = state_pb2.GetStateRequest(
            store_name=STORE, key=key, consistency=common_pb2.StateOptions.CONSISTENCY_STRONG
        )
        async with translated("The state store"):
            answer = await self._sidecar.stub.GetState(request, timeout=TIMEOUT, metadata=self._sidecar.metadata)
        return Versioned(unpacked(answer.data), answer.etag)

    async def get_many(self, keys: Sequence[str]) -> dict[str, Versioned]:
        """Return several values; a key without one is there with None."""
        request = state_pb2.GetBulkStateRequest(store_name=STORE, keys=keys, parallelism=10)
        async with translated("The state store"):
            answer = await self._sidecar.stub.GetBulkState(request, timeout=TIMEOUT, metadata=self._sidecar.metadata)
        if broken := [item.key for item in answer.items if item.error]:
            telemetry.log.error("state.unreadable", keys=broken)
            raise Internal("The state store could not read what it keeps.")
        found = {item.key: Versioned(unpacked(item.data), item.etag) for item in answer.items}
        return {key: found.get(key, Versioned(None, "")) for key in keys}

    async def put(self, key: str, value: object, *, etag: str | None = None) -> None:
        """Write a value; PreconditionFailed when the ETag is stale."""
        await self.transact([Put(key, value, etag)])

    async def delete(self, key: str, *, etag: str | None = None) -> None:
        """Delete a key; PreconditionFailed when the ETag is stale."""
        await self.transact([Remove(key, etag)])

    async def transact(self, operations: Sequence[Put | Remove]) -> None:
        """Do all of several writes, or none; PreconditionFailed when an ETag is stale."""
        request = state_pb2.ExecuteStateTransactionRequest(
            storeName=STORE,
            operations=[
                state_pb2.TransactionalStateOperation(
                    operationType="upsert" if isinstance(operation, Put) else "delete",
                    request=common_pb2.StateItem(
                        key=operation.key,
                        value=packed(operation.value) if isinstance(operation, Put) else b"",
                        etag=None if operation.etag is None else common_pb2.Etag(value=operation.etag),
                        options=FIRST_WRITE if operation.etag is not None else None,
                    ),
                )
                for operation in operations
            ],
        )
        try:
            async with translated("The state store"):
                await self._sidecar.stub.ExecuteStateTransaction(
                    request, timeout=TIMEOUT, metadata=self._sidecar.metadata
                )
        except IsaError as error:
            if _stale(error):
                raise PreconditionFailed(
                    "Somebody changed this first. Read it again, and retry with its ETag."
                ) from error
            raise
