"""`isa.usage.v1.Usage`: what the caller's organisation used of this adapter. Every adapter serves it."""

from __future__ import annotations

from google.protobuf.timestamp_pb2 import Timestamp

from isa.usage.v1 import usage_pb2
from isa_common import InvalidArgument
from kernel.caller import Caller
from kernel.shares import Shares


class Usage:
    """The accounts of `Shares`, each to its own organisation."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares

    async def get(self, caller: Caller, _request: usage_pb2.GetRequest) -> usage_pb2.GetResponse:
        """Return what the caller's organisation used, and what it may."""
        if not caller.org:
            raise InvalidArgument("Usage is an organisation's: act for one.")
        stored = await self._shares.stored_by(caller.org)
        account, limits = self._shares.account(caller.org), self._shares.limits
        since = Timestamp()
        since.FromDatetime(account.since)
        return usage_pb2.GetResponse(
            since=since,
            calls=account.calls,
            errors=account.errors,
            items=account.items,
            refused=account.refused,
            open_calls=account.open_calls,
            open_streams=account.open_streams,
            stored_bytes=stored,
            limits=usage_pb2.Limits(
                calls=limits.calls,
                streams=limits.streams,
                rate=limits.rate,
                burst=int(limits.burst),
                bytes=limits.bytes,
            ),
        )
