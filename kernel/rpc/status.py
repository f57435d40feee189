"""Our errors on the wire: a gRPC status with google.rpc details."""

from __future__ import annotations

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from isa_common import IsaError

DOMAIN = "isa.cloud"
DETAILS = "grpc-status-details-bin"
LONGEST_VALUE = 512
"""Characters of a detail's value; metadata have a limit, and an error must always get through."""

CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}


def status(error: IsaError) -> Status:
    """The google.rpc.Status of an error: ErrorInfo always, the others where they say something."""
    info = ErrorInfo(
        reason=error.reason,
        domain=DOMAIN,
        metadata={name: value[:LONGEST_VALUE] for name, value in error.details.items()},
    )
    details: list[Message] = [info]
    if error.request_id:
        details.append(RequestInfo(request_id=error.request_id))
    if error.retry_after is not None:
        delay = Duration()
        delay.FromTimedelta(error.retry_after)
        details.append(RetryInfo(retry_delay=delay))
    if error.field:
        violation = BadRequest.FieldViolation(field=error.field, description=error.message[:LONGEST_VALUE])
        details.append(BadRequest(field_violations=[violation]))
    packed = []
    for detail in details:
        wrapped = AnyMessage()
        wrapped.Pack(detail)
        packed.append(wrapped)
    return Status(code=int(error.code), message=error.message, details=packed)


async def refuse(context: grpc.aio.ServicerContext, error: IsaError) -> None:
    """End a call with an error."""
    await context.abort(CODES[int(error.code)], error.message, ((DETAILS, status(error).SerializeToString()),))
