"""Who calls, and what they may do. A caller comes from a verified token and from nowhere else."""

from __future__ import annotations

import functools
import importlib.resources
import re
from dataclasses import dataclass, field

import yaml

from isa_common import InvalidArgument, PermissionDenied

ORG = re.compile(r"org-[a-z0-9]{1,32}")
USER = re.compile(r"user-[a-z0-9]{1,32}")
WORKLOAD = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
LEVELS = {"read": 0, "write": 1, "admin": 2}


@functools.cache
def policy() -> dict[str, dict[str, list[str]]]:
    """Return who may do what: `roles` for people, `workloads` for our own programs."""
    text = importlib.resources.files("isa.policy.v1").joinpath("roles.yaml").read_text()
    roles = yaml.safe_load(text)
    return {"workloads": roles.pop("workloads"), "roles": roles}


def grants(permission: str, granted: str) -> bool:
    """Tell whether a granted permission covers another: admin covers write, write covers read, `*` every capability."""
    capability, _, level = permission.partition(".")
    held, _, held_level = granted.partition(".")
    return held in (capability, "*") and LEVELS.get(held_level, -1) >= LEVELS[level]


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A verified person, program or workload, and the organisation that it acts for."""

    org: str = ""
    user: str = ""
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()
    workload: str = ""
    session: str = ""
    issued: float = field(default=0.0, compare=False)
    """When its token was, in seconds since 1970."""

    @property
    def tenant(self) -> str:
        """Whose data a call is about: an organisation, by its id, or a workload, by a name that no organisation has."""
        return _tenant(self.org, self.workload)

    def may(self, permission: str) -> bool:
        """Tell whether the roles give a permission and the scopes, where there are any, leave it."""
        return _may(self.roles, self.scopes, self.workload, permission)

    def require(self, permission: str) -> None:
        """Refuse a caller without a permission."""
        if not self.may(permission):
            raise PermissionDenied(f"This needs the permission {permission}.", permission=permission)


@functools.lru_cache(maxsize=4096)
def _may(roles: frozenset[str], scopes: frozenset[str], workload: str, permission: str) -> bool:
    rules = policy()
    held = rules["workloads"].get(workload, []) if workload else [p for r in roles for p in rules["roles"].get(r, [])]
    if not any(grants(permission, granted) for granted in held):
        return False
    return not scopes or any(grants(permission, scope) for scope in scopes)


@functools.lru_cache(maxsize=4096)
def _tenant(org: str, workload: str) -> str:
    if ORG.fullmatch(org):
        return org
    if org or not WORKLOAD.fullmatch(workload):
        raise PermissionDenied("This needs a token of an organisation.")
    return f"isa-{workload}"


def org_id(text: str) -> str:
    """Return a well-formed organisation id, or refuse it."""
    if not ORG.fullmatch(text):
        raise InvalidArgument("An organisation id is org- and 1 to 32 of a-z and 0-9.", field="org_id")
    return text


def user_id(text: str) -> str:
    """Return a well-formed user id, or refuse it."""
    if not USER.fullmatch(text):
        raise InvalidArgument("A user id is user- and 1 to 32 of a-z and 0-9.", field="user_id")
    return text
