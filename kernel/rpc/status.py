"""Our errors on the wire: a gRPC status with google.rpc details."""

from __future__ import annotations

import grpc

from isa_common import IsaError
from isa_common.errors import status_of as status

__all__ = ["refuse", "status"]

DETAILS = "grpc-status-details-bin"
CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


async def refuse(context: grpc.aio.ServicerContext, error: IsaError) -> None:
    """End a call with an error."""
    await context.abort(CODES[int(error.code)], error.message, ((DETAILS, status(error).SerializeToString()),))
