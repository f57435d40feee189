"""Async client of the isA Cloud infrastructure API: lazy, pooled, self-healing."""

from __future__ import annotations

from isa_common._client import Isa
from isa_common._logs import Direction, Entry, Logs, LogStatistics, Page, Sample, Samples
from isa_common._sql import Result, Row, Sql, Statement
from isa_common._usage import Share, Usage, Used
from isa_common.errors import (
    Aborted,
    AlreadyExists,
    Cancelled,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    MessageTooLarge,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)

__all__ = [
    "Aborted",
    "AlreadyExists",
    "Cancelled",
    "Code",
    "DeadlineExceeded",
    "Direction",
    "Entry",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "Isa",
    "IsaError",
    "LogStatistics",
    "Logs",
    "MessageTooLarge",
    "NotFound",
    "Page",
    "PermissionDenied",
    "PreconditionFailed",
    "ResourceExhausted",
    "Result",
    "Row",
    "Sample",
    "Samples",
    "Share",
    "Sql",
    "Statement",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Usage",
    "Used",
]
