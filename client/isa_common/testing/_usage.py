"""`isa.usage.v1` in memory, where nothing is limited and nothing counted."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from isa.usage.v1 import usage_pb2
from isa_common.testing._transport import Caller


class MemoryUsage:
    """Says that nothing was used."""

    def __init__(self) -> None:
        self._since = Timestamp()
        self._since.FromDatetime(datetime.now(UTC))

    async def get(self, caller: Caller, request: usage_pb2.GetRequest) -> usage_pb2.GetResponse:
        """Return zeros."""
        return usage_pb2.GetResponse(since=self._since)
