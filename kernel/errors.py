"""Foreign exceptions become ours here: one table a room, one function for all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from isa_common import Cancelled, DeadlineExceeded, FailedPrecondition, Internal, IsaError

ErrorMap = Mapping[type[BaseException], type[IsaError] | Callable[[BaseException], IsaError]]
"""Engine exception -> our class (with its docstring as the message), or a function that builds the error."""

GONE = (asyncio.CancelledError, GeneratorExit)
"""How Python says that the caller went away: from a call, and from the middle of a stream."""


class Poison(FailedPrecondition):
    """An event that will never be processable. It is quarantined and its neighbours go on."""


def ours(error: BaseException, table: ErrorMap) -> IsaError:
    """Return what a caller may know of an exception: ours as it is, an engine's by table, any other as INTERNAL."""
    if isinstance(error, IsaError):
        return error
    if isinstance(error, TimeoutError):
        return DeadlineExceeded("The call did not finish before its deadline.")
    if isinstance(error, GONE):
        return Cancelled("The caller went away.")
    for kind in type(error).__mro__:
        if kind in table:
            known = table[kind]
            if isinstance(known, type):
                described: IsaError = known((known.__doc__ or "").partition("\n")[0])
                return described
            return known(error)
    return Internal("Something went wrong on our side. The request id finds it in our logs.")
