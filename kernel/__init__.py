"""What every room shares and no room owns. Rooms import from here and from nowhere below."""

from __future__ import annotations

from isa_common import (
    Aborted,
    AlreadyExists,
    Code,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    Logs,
    NotFound,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
    Result,
    Row,
    Sql,
    Statement,
    Unauthenticated,
    Unavailable,
    Unimplemented,
)
from kernel.call import concerns
from kernel.caller import Caller, org_id, user_id
from kernel.chain import PLATFORM
from kernel.dapr.state import Put, Remove, Versioned
from kernel.doors import delete, get, job, on, on_batch, patch, post, put
from kernel.errors import ErrorMap, Poison
from kernel.http import Body, View
from kernel.parts import Parts, new_id, utc_now
from kernel.rpc.server import Adapter
from kernel.rpc.status import status
from kernel.settings import RoomSettings, Seconds
from kernel.shares import Shares
from kernel.telemetry import POOL, POOL_WAIT, log, tracer
from kernel.work import Work

__all__ = [
    "PLATFORM",
    "POOL",
    "POOL_WAIT",
    "Aborted",
    "Adapter",
    "AlreadyExists",
    "Body",
    "Caller",
    "Code",
    "DeadlineExceeded",
    "ErrorMap",
    "FailedPrecondition",
    "Internal",
    "InvalidArgument",
    "IsaError",
    "Logs",
    "NotFound",
    "Parts",
    "PermissionDenied",
    "Poison",
    "PreconditionFailed",
    "Put",
    "Remove",
    "ResourceExhausted",
    "Result",
    "RoomSettings",
    "Row",
    "Seconds",
    "Shares",
    "Sql",
    "Statement",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Versioned",
    "View",
    "Work",
    "concerns",
    "delete",
    "get",
    "job",
    "log",
    "new_id",
    "on",
    "on_batch",
    "org_id",
    "patch",
    "post",
    "put",
    "status",
    "tracer",
    "user_id",
    "utc_now",
]
