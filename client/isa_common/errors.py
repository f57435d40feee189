"""Everything that can go wrong, as one tree.

    IsaError
    ├── InvalidArgument          the request is wrong, and repeating it will not help
    ├── Unauthenticated          nobody, or not who they say
    ├── PermissionDenied         known, and not allowed
    ├── NotFound                 no such thing, for this caller
    ├── AlreadyExists            taken
    ├── Aborted                  lost a race; read again and try again
    ├── FailedPrecondition       not in the state that this needs
    │   └── PreconditionFailed   the ETag is no longer the current one
    ├── ResourceExhausted        over a share or a limit; `retry_after` says when to come back
    │   └── MessageTooLarge      a request or an answer is longer than one message may be
    ├── Unavailable              not reached, or not ready
    ├── DeadlineExceeded         took longer than the caller wanted to wait
    ├── Cancelled                the caller went away
    ├── Unimplemented            not offered here
    └── Internal                 our fault; the text says nothing, the log does

The code sits on the class, the message is a sentence for people, the details are for programs.
"""

from __future__ import annotations

import re
from datetime import timedelta
from enum import IntEnum

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Code",
    "DeadlineExceeded",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "IsaError",
    "MessageTooLarge",
    "NotFound",
    "PermissionDenied",
    "PreconditionFailed",
    "ResourceExhausted",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "error_class",
]

DOMAIN = "isa.cloud"
LONGEST_VALUE = 512
"""Characters of a detail's value; metadata have a limit, and an error must always get through."""


class Code(IntEnum):
    """The outcome of a call, with gRPC's names and numbers."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


class IsaError(Exception):
    """What every refusal and failure is; catch a subclass where the difference matters."""

    code: Code = Code.UNKNOWN

    message: str
    """A sentence for people, with no host name and no foreign id in it."""
    field: str | None
    """The field of the request that is wrong, as a path: `statements[2].sql`."""
    retry_after: timedelta | None
    """How long to wait before another attempt can succeed."""
    details: dict[str, str]
    """Facts for programs."""
    reason: str
    """The class in capitals, `ALREADY_DONE`; stable, for programs on the other side of the wire."""
    request_id: str
    """The correlation id of the call, to find it in logs and traces."""

    def __init__(
        self,
        message: str = "",
        *,
        field: str | None = None,
        retry_after: timedelta | None = None,
        **details: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after = retry_after
        self.details = {name: str(value) for name, value in details.items()}
        self.reason = _WORD.sub("_", type(self).__name__).upper()
        self.request_id = ""

    def __str__(self) -> str:
        return f"{self.message} ({self.field})" if self.field else self.message


class InvalidArgument(IsaError):
    """The request is wrong, and repeating it will not help."""

    code = Code.INVALID_ARGUMENT


class Unauthenticated(IsaError):
    """Nobody, or not who they say."""

    code = Code.UNAUTHENTICATED


class PermissionDenied(IsaError):
    """Known, and not allowed."""

    code = Code.PERMISSION_DENIED


class NotFound(IsaError):
    """No such thing, for this caller."""

    code = Code.NOT_FOUND


class AlreadyExists(IsaError):
    """Taken."""

    code = Code.ALREADY_EXISTS


class Aborted(IsaError):
    """Lost a race; read again and try again."""

    code = Code.ABORTED


class FailedPrecondition(IsaError):
    """Not in the state that this needs."""

    code = Code.FAILED_PRECONDITION


class PreconditionFailed(FailedPrecondition):
    """The ETag is no longer the current one."""


class ResourceExhausted(IsaError):
    """Over a share or a limit; `retry_after` says when to come back."""

    code = Code.RESOURCE_EXHAUSTED


class MessageTooLarge(ResourceExhausted):
    """A request or an answer is longer than one message may be: send less at a time, or stream."""


class Unavailable(IsaError):
    """Not reached, or not ready."""

    code = Code.UNAVAILABLE


class DeadlineExceeded(IsaError):
    """Took longer than the caller wanted to wait."""

    code = Code.DEADLINE_EXCEEDED


class Cancelled(IsaError):
    """The caller went away."""

    code = Code.CANCELLED


class Unimplemented(IsaError):
    """Not offered here."""

    code = Code.UNIMPLEMENTED


class Internal(IsaError):
    """Our fault; the text says nothing, the log does."""

    code = Code.INTERNAL


_CLASSES: dict[Code, type[IsaError]] = {
    each.code: each
    for each in (
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        Aborted,
        FailedPrecondition,
        ResourceExhausted,
        Unavailable,
        DeadlineExceeded,
        Cancelled,
        Unimplemented,
        Internal,
    )
}
_CLASSES[Code.OUT_OF_RANGE] = InvalidArgument


def error_class(code: Code, reason: str = "") -> type[IsaError]:
    """The class that stands for a code of the wire; a code of no class is Internal."""
    if code is Code.FAILED_PRECONDITION and reason == "PRECONDITION_FAILED":
        return PreconditionFailed
    if code is Code.RESOURCE_EXHAUSTED and reason == "MESSAGE_TOO_LARGE":
        return MessageTooLarge
    return _CLASSES.get(code, Internal)


def status_of(error: IsaError) -> Status:
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
