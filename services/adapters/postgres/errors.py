"""PostgreSQL's failures as ours: no host, no login, no value of a row."""

from __future__ import annotations

from datetime import timedelta

import asyncpg

from isa_common import (
    Aborted,
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unavailable,
)
from kernel import ErrorMap
from services.adapters.postgres.statements import syntax_error

STALE = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"""A table has changed since its statements were prepared; they are prepared anew, once."""


def failure(error: asyncpg.PostgresError, sql: str, path: str, index: int) -> IsaError:
    """Our error for PostgreSQL's: its words where they speak of the caller's own SQL, and never a value or a host."""
    state = str(error.sqlstate or "")
    kind, message = _kind(state)
    position = int(error.position or 0)
    field = f"{path}.sql" if path else None
    if state == "25006":
        failed: IsaError = InvalidArgument(message, field=field)
    elif kind is InvalidArgument and position:
        failed = syntax_error(sql, str(error.message), position)
        failed.field = field
    elif kind is not PermissionDenied and (kind in (InvalidArgument, NotFound) or state.startswith("42")):
        text = str(error.message)
        failed = kind(f"{text[:1].upper()}{text[1:]}.", field=field)
    else:
        wait = timedelta(seconds=1) if kind in (ResourceExhausted, Unavailable) else None
        failed = kind(message, field=field, retry_after=wait)
    failed.details["sqlstate"] = state
    failed.details["statement"] = str(index)
    for name in ("constraint_name", "table_name", "column_name"):
        if value := getattr(error, name, None):
            failed.details[name.removesuffix("_name")] = str(value)
    return failed


def _kind(state: str) -> tuple[type[IsaError], str]:
    """Our class for an SQLSTATE, the most specific that is known, and what is said instead of PostgreSQL's words."""
    for length in (5, 2):
        known = STATES.get(state[:length])
        if known is not None:
            return known
    return Internal, "The database could not do this."


STATES: dict[str, tuple[type[IsaError], str]] = {
    "08": (Unavailable, "The connection to the database was lost."),
    "0A": (InvalidArgument, "The database does not support this."),
    "0B": (InvalidArgument, "This cannot be done here."),
    "21": (InvalidArgument, "A subquery returned more than one row."),
    "22": (InvalidArgument, "A value does not fit its type."),
    "23": (FailedPrecondition, "A constraint forbids this."),
    "23502": (InvalidArgument, "A column may not be null."),
    "23503": (FailedPrecondition, "Another row refers to this one, or the row that this refers to is missing."),
    "23505": (AlreadyExists, "A row with this key exists already."),
    "23514": (InvalidArgument, "A check forbids this value."),
    "23P01": (AlreadyExists, "A row that excludes this one exists already."),
    "25": (FailedPrecondition, "This cannot be done in this transaction."),
    "25006": (InvalidArgument, "This statement writes: use Execute."),
    "25P03": (DeadlineExceeded, "The transaction was idle for too long."),
    "26": (Aborted, "The statement was not prepared any more; try again."),
    "28": (Unavailable, "The database refused our login."),
    "2B": (FailedPrecondition, "Other things depend on this."),
    "34": (InvalidArgument, "There is no such cursor."),
    "3B": (InvalidArgument, "There is no such savepoint."),
    "3F": (InvalidArgument, "There is no such schema."),
    "40": (Aborted, "Another transaction was in the way; try again."),
    "42": (InvalidArgument, "The statement is wrong."),
    "42501": (PermissionDenied, "This login may not do that."),
    "42P07": (AlreadyExists, "It exists already."),
    "42710": (AlreadyExists, "It exists already."),
    "42701": (AlreadyExists, "It exists already."),
    "42P06": (AlreadyExists, "It exists already."),
    "44": (PermissionDenied, "The row would not belong to the view."),
    "53": (ResourceExhausted, "The database is out of a resource."),
    "54": (InvalidArgument, "The statement goes beyond a limit of the database."),
    "55": (FailedPrecondition, "It is not in the state that this needs."),
    "55P03": (Aborted, "A lock was not to be had; try again."),
    "57": (Unavailable, "The database is going down or coming up."),
    "57014": (DeadlineExceeded, "The statement did not finish before its deadline."),
}


def outside(error: asyncpg.PostgresError) -> IsaError:
    """Our error for what PostgreSQL said outside a caller's statement: at most that it cannot do more now."""
    kind, message = _kind(str(error.sqlstate or ""))
    if kind in (Unavailable, ResourceExhausted, DeadlineExceeded, Aborted):
        return kind(message, retry_after=timedelta(seconds=1))
    return Internal("The database could not do this.")


ERRORS: ErrorMap = {
    asyncpg.PostgresError: outside,
    asyncpg.InterfaceError: lambda _: Unavailable("The connection to the database was lost."),
    asyncpg.DataError: lambda _: InvalidArgument("A parameter does not fit its type."),
    OSError: lambda _: Unavailable("The database could not be reached."),
}
