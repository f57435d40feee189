"""Doors of a room: decorators that say what a handler answers to. `kernel.http` and `kernel.delivery` read them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from isa.events import Event
from kernel.call import Rule

F = TypeVar("F", bound=Callable[..., Any])
NOTES = "__isa_doors__"
PERMISSION = re.compile(r"[a-z]+\.(read|write|admin)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """An HTTP route."""

    method: str
    path: str
    rule: Rule
    status: int
    max_body: int | None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """Topics whose events a handler takes, one at a time or those of an organisation together."""

    topics: tuple[str, ...]
    is_batch: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job by its name or, without a schedule, by the beginning of its name."""

    name: str
    schedule: str | None


Door = Route | Subscription | Job


def _noted(door: Door) -> Callable[[F], F]:
    def note(method: F) -> F:
        setattr(method, NOTES, [*getattr(method, NOTES, []), door])
        return method

    return note


def _route(
    method: str,
    path: str,
    *,
    permission: str = "",
    anonymous: bool = False,
    status: int = 200,
    idempotent: bool = False,
    max_body: int | None = None,
    **options: Any,
) -> Callable[[F], F]:
    if bool(permission) == anonymous:
        raise TypeError(f"{method} {path} must name a permission, or be anonymous.")
    if permission and not PERMISSION.fullmatch(permission):
        raise TypeError(f"{method} {path}: {permission!r} is no <capability>.<read|write|admin>.")
    rule = Rule(
        permission=permission,
        anonymous=anonymous,
        read_only=method == "GET",
        idempotent=idempotent or method in ("GET", "PUT", "DELETE"),
    )
    return _noted(Route(method=method, path=path, rule=rule, status=status, max_body=max_body, options=options))


def get(path: str, **options: Any) -> Callable[[F], F]:
    """Answer GET: nothing changes."""
    return _route("GET", path, **options)


def post(path: str, **options: Any) -> Callable[[F], F]:
    """Answer POST."""
    return _route("POST", path, **options)


def put(path: str, **options: Any) -> Callable[[F], F]:
    """Answer PUT: twice has the effect of once."""
    return _route("PUT", path, **options)


def patch(path: str, **options: Any) -> Callable[[F], F]:
    """Answer PATCH."""
    return _route("PATCH", path, **options)


def delete(path: str, **options: Any) -> Callable[[F], F]:
    """Answer DELETE: twice has the effect of once."""
    return _route("DELETE", path, **options)


def on(*events: type[Event]) -> Callable[[F], F]:
    """Take events one at a time: `(self, caller, event)`."""
    return _noted(Subscription(topics=tuple(event.TOPIC for event in events), is_batch=False))


def on_batch(*events: type[Event]) -> Callable[[F], F]:
    """Take events of one topic and organisation together, in their order: `(self, caller, events)`."""
    return _noted(Subscription(topics=tuple(event.TOPIC for event in events), is_batch=True))


def job(name: str, *, schedule: str | None = None) -> Callable[[F], F]:
    """Run when Dapr's scheduler says so.

    With a schedule it is called as `(self, data)`; without one as `(self, name, data)`, for every name that begins so.
    """
    return _noted(Job(name=name, schedule=schedule))


def doors_of(handlers: object) -> Iterator[tuple[Door, Callable[..., Any]]]:
    """Yield every door of a handlers object with its bound method, in the order of the class."""
    for name in dict.fromkeys(name for cls in type(handlers).__mro__ for name in vars(cls)):
        method = inspect.getattr_static(handlers, name)
        for door in getattr(method, NOTES, ()):
            yield door, getattr(handlers, name)
