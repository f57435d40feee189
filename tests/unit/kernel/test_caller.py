"""Who may do what: roles give, scopes narrow, workloads have their own list."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isa_common import InvalidArgument, PermissionDenied
from kernel.caller import Caller, grants, org_id, policy, user_id

LEVELS = ("read", "write", "admin")


def person(*roles: str, scopes: tuple[str, ...] = ()) -> Caller:
    return Caller(org="org-a", user="user-alice", roles=frozenset(roles), scopes=frozenset(scopes))


@pytest.mark.parametrize("held", range(3))
@pytest.mark.parametrize("wanted", range(3))
def test_a_level_includes_those_below_it(held: int, wanted: int) -> None:
    assert grants(f"tasks.{LEVELS[wanted]}", f"tasks.{LEVELS[held]}") is (held >= wanted)


def test_a_capability_gives_nothing_of_another() -> None:
    assert not grants("sql.read", "tasks.admin")
    assert not grants("task.read", "tasks.admin")


def test_a_star_gives_every_capability_at_its_level() -> None:
    assert grants("anything.write", "*.write")
    assert not grants("anything.admin", "*.write")


@pytest.mark.parametrize("granted", ["openid", "tasks", "tasks.", "tasks.everything", ".", "", "*", "tasks.read.more"])
def test_what_is_no_permission_grants_nothing(granted: str) -> None:
    assert not grants("tasks.read", granted)


@pytest.mark.parametrize(
    ("role", "permission", "expected"),
    [
        ("owner", "billing.admin", True),
        ("admin", "tasks.write", True),
        ("admin", "users.admin", True),
        ("admin", "audit.read", True),
        ("admin", "tasks.admin", False),
        ("member", "tasks.write", True),
        ("member", "tasks.read", True),
        ("member", "users.write", False),
        ("member", "audit.read", False),
        ("viewer", "tasks.read", True),
        ("viewer", "tasks.write", False),
        ("viewer", "notifications.write", True),
        ("viewer", "preferences.write", False),
        ("workloads", "sql.write", False),
        ("nobody", "tasks.read", False),
    ],
)
def test_roles_give_what_the_policy_says(role: str, permission: str, expected: bool) -> None:
    assert person(role).may(permission) is expected


def test_roles_add_up() -> None:
    assert person("viewer", "member").may("tasks.write")


def test_a_caller_without_roles_may_nothing() -> None:
    assert not Caller().may("tasks.read")


def test_scopes_narrow_and_never_widen() -> None:
    narrowed = person("member", scopes=("tasks.read",))
    greedy = person("viewer", scopes=("*.admin",))

    assert narrowed.may("tasks.read")
    assert not narrowed.may("tasks.write")
    assert not narrowed.may("sql.read")
    assert greedy.may("tasks.read")
    assert not greedy.may("tasks.write")


def test_scopes_that_name_no_permission_narrow_to_nothing() -> None:
    assert not person("owner", scopes=("openid", "tasks")).may("tasks.read")


@given(
    role=st.sampled_from(["owner", "admin", "member", "viewer"]),
    scopes=st.frozensets(st.sampled_from(["tasks.read", "*.write", "sql.admin", "openid", "*.admin"])),
    capability=st.sampled_from(["tasks", "sql", "users", "audit"]),
    level=st.sampled_from(LEVELS),
)
def test_no_scope_gives_what_the_role_does_not(role: str, scopes: frozenset[str], capability: str, level: str) -> None:
    permission = f"{capability}.{level}"

    if person(role, scopes=tuple(scopes)).may(permission):
        assert person(role).may(permission)


def test_a_workload_has_its_own_list_and_no_role_helps_it() -> None:
    workload = Caller(org="org-a", workload="analytics", roles=frozenset({"owner"}))

    assert workload.may("sql.write")
    assert not workload.may("users.read")


def test_an_unknown_workload_may_nothing() -> None:
    assert not Caller(workload="intruder", roles=frozenset({"owner"})).may("sql.read")


def test_a_refusal_names_the_permission() -> None:
    with pytest.raises(PermissionDenied) as refused:
        person("viewer").require("tasks.write")

    assert "tasks.write" in refused.value.message
    assert refused.value.details == {"permission": "tasks.write"}


def test_every_permission_of_the_policy_is_well_formed() -> None:
    rules: dict[str, Any] = policy()
    granted = [item for lists in (rules["roles"], rules["workloads"]) for entry in lists.values() for item in entry]

    assert all(item.partition(".")[2] in LEVELS for item in granted)


@pytest.mark.parametrize(
    ("caller", "tenant"),
    [
        (Caller(org="org-a", user="user-1"), "org-a"),
        (Caller(org="org-a", workload="tasks"), "org-a"),
        (Caller(workload="postgres-grpc"), "isa-postgres-grpc"),
    ],
)
def test_a_tenant_is_an_organisation_or_a_workload(caller: Caller, tenant: str) -> None:
    assert caller.tenant == tenant


@pytest.mark.parametrize(
    "caller",
    [
        Caller(),
        Caller(user="user-1"),
        *(Caller(org=org, workload="tasks") for org in ("org-", "org-A", "org-a.b", "org-a\n", "isa-tasks")),
        *(Caller(workload=name) for name in ("A", "a--b", "-a", "a:b")),
    ],
)
def test_who_is_no_tenant_is_refused(caller: Caller) -> None:
    with pytest.raises(PermissionDenied):
        _ = caller.tenant


@pytest.mark.parametrize("text", ["org-a", "org-0", "org-" + "z" * 32])
def test_well_formed_ids_are_taken(text: str) -> None:
    assert org_id(text) == text
    assert user_id(text.replace("org", "user")) == text.replace("org", "user")


@pytest.mark.parametrize(
    "text", ["", "org-", "org-A", "org-a ", "org-a\n", "org-" + "z" * 33, "user-a", "org-a:b", "org-ä", "org-a-b", "*"]
)
def test_malformed_ids_are_refused_with_their_field(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        org_id(text)
    with pytest.raises(InvalidArgument):
        user_id(text if text != "user-a" else "org-a")

    assert refused.value.field == "org_id"
