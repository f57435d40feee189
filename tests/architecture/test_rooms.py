"""Rooms of one shape, and a handler for everything that is delivered to them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from isa.events import EVENTS
from kernel.doors import Job, Route, Subscription
from tests.architecture.tree import CORE, ROOT, doors, handlers_class, name_of, rooms, sources, subscriptions
from tests.attack.tenants import TENANCIES

SHAPE = {"__init__", "app", "handlers", "domain", "repository"}
WITH_PROJECTIONS = {"analytics", "audit"}
FORBIDDEN = {"platform", "utils", "util", "helpers", "helper", "common", "base", "misc", "core", "shared", "manager"}

GATHER = {"notifications": 100, "audit": 500}
"""Milliseconds that a room gathers a batch for, where nobody waits for it; elsewhere 20."""

ADAPTERS = [path for path in rooms() if path.parent.name == "adapters"]
CAPABILITIES = sorted(
    {path.parents[1].name for path in (ROOT / "schemas/proto/isa").rglob("*.proto")} - {"policy", "usage"}
)


@pytest.mark.parametrize("room", CORE)
def test_a_core_room_has_the_files_of_a_core_room(room: str) -> None:
    folder = ROOT / "services" / room
    found = {path.stem for path in folder.iterdir() if path.suffix == ".py" or (path.is_dir() and path.name[0] != "_")}
    allowed = SHAPE | {"migrations"} | ({"projections"} if room in WITH_PROJECTIONS else set())

    assert found <= allowed, (
        f"services/{room} has {sorted(found - allowed)}: a room that wants a sixth concern is two rooms."
    )
    assert found >= SHAPE, f"services/{room} lacks {sorted(SHAPE - found)}."


@pytest.mark.parametrize("folder", rooms(), ids=name_of)
def test_a_room_says_what_it_is_and_nothing_else(folder: Path) -> None:
    tree = ast.parse((folder / "__init__.py").read_text())

    assert ast.get_docstring(tree), f"{name_of(folder)}/__init__.py must say what the room owns and promises."
    assert len(tree.body) == 1, f"{name_of(folder)}/__init__.py holds a docstring, no code."


@pytest.mark.parametrize("folder", ADAPTERS, ids=name_of)
def test_an_adapter_has_no_doors_of_its_own(folder: Path) -> None:
    found = {path.stem for path in folder.iterdir()}

    assert not found & {"handlers", "domain", "projections", "migrations"}, (
        f"{name_of(folder)}: an adapter is its contract and its repository; rules belong to rooms."
    )
    assert "repository" in found, f"{name_of(folder)} needs its repository."


@pytest.mark.parametrize("folder", ADAPTERS, ids=name_of)
def test_an_adapter_proves_that_names_of_tenants_never_meet(folder: Path) -> None:
    tests = ROOT / f"tests/unit/adapters/test_{folder.name}.py"

    assert tests.exists() and "1_000_000" in tests.read_text(), (
        f"Try isolate() of {name_of(folder)} over a million names."
    )


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_a_capability_has_a_client_a_fake_a_suite_a_victim_and_a_guide(capability: str) -> None:
    wanted = [
        f"client/isa_common/_{capability}.py",
        f"client/isa_common/testing/_{capability}.py",
        f"tests/conformance/test_{capability}.py",
        f"docs/guides/{capability}.md",
    ]

    missing = [name for name in wanted if not (ROOT / name).exists()]

    assert not missing, f"isa.{capability}.v1 has no {', '.join(missing)}."
    assert capability in TENANCIES, f"Say in tests/attack/tenants.py what a victim keeps in {capability}."


def test_no_module_is_named_after_nothing() -> None:
    vague = [name_of(path) for path in sources() if {path.stem, *path.relative_to(ROOT).parts} & FORBIDDEN]

    assert not vague, f"Name {', '.join(vague)} after what is in it."


def test_the_domain_waits_for_nothing() -> None:
    waiting = []
    for room in CORE:
        folder = ROOT / "services" / room
        for path in [folder / "domain.py", *folder.glob("domain/**/*.py")]:
            if path.exists():
                tree = ast.walk(ast.parse(path.read_text()))
                if any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in tree):
                    waiting.append(name_of(path))

    assert not waiting, f"{', '.join(waiting)} await: the domain is what is true even with no computer."


@pytest.mark.parametrize("room", CORE)
def test_every_handler_has_a_subscription(room: str) -> None:
    wanted = {
        topic for _, door in doors(handlers_class(room)) if isinstance(door, Subscription) for topic in door.topics
    }
    declared = {each.topic for each in subscriptions() if each.app_id == room}

    assert wanted <= declared, (
        f"services/{room} handles {sorted(wanted - declared)}, and no subscription in components/local brings it: "
        f"add it to components/local/subscriptions/{room}.yaml."
    )


@pytest.mark.parametrize("declared", subscriptions(), ids=lambda each: f"{each.app_id}-{each.topic}")
def test_every_subscription_has_a_handler_and_the_promised_settings(declared: object) -> None:
    from tests.architecture.tree import Declared

    assert isinstance(declared, Declared)
    own = {"control.changed"}  # the kernel of every app takes it
    if declared.app_id in CORE:
        doors_found = doors(handlers_class(declared.app_id))
        own |= {topic for _, door in doors_found if isinstance(door, Subscription) for topic in door.topics}

    assert declared.topic in own, f"{declared.where}: no @on in {declared.app_id} takes {declared.topic}."
    spec = declared.spec
    assert spec["routes"]["default"] == f"/events/{declared.topic}", (
        f"{declared.where}: the kernel serves /events/<topic>."
    )
    assert spec["deadLetterTopic"] == f"{declared.topic}.dlq", (
        f"{declared.where}: declare the topic's own dead letters."
    )
    assert spec["metadata"]["rawPayload"] == "true", (
        f"{declared.where}: Dapr is the byte pipe, rawPayload must be true."
    )
    bulk = spec["bulkSubscribe"]
    assert bulk["enabled"], f"{declared.where}: subscribe in bulk."
    wait = 20 if declared.component == "control" else GATHER.get(declared.app_id, 20)
    assert (bulk["maxMessagesCount"], bulk["maxAwaitDurationMs"]) == (100, wait), (
        f"{declared.where}: 100 records, {wait} ms."
    )


@pytest.mark.parametrize("room", CORE)
def test_every_route_has_one_owner_and_a_permission_of_a_capability(room: str) -> None:
    routes = [(name, door) for name, door in doors(handlers_class(room)) if isinstance(door, Route)]
    paths = [(door.method, door.path) for _, door in routes]

    assert len(paths) == len(set(paths)), f"services/{room} answers one path twice."
    for name, door in routes:
        assert door.rule.anonymous or "." in door.rule.permission, f"services/{room}: {name} names no permission."


def test_no_two_rooms_run_a_job_of_one_name() -> None:
    names = [(door.name, room) for room in CORE for _, door in doors(handlers_class(room)) if isinstance(door, Job)]
    owners: dict[str, set[str]] = {}
    for name, room in names:
        owners.setdefault(name, set()).add(room)

    assert all(len(rooms_of) == 1 for rooms_of in owners.values()), f"One job, one room: {owners}."


def test_the_audit_hears_of_every_topic() -> None:
    heard = {declared.topic for declared in subscriptions() if declared.app_id == "audit"}

    missing = sorted(set(EVENTS) - heard)
    assert not missing, f"components/local/subscriptions/audit.yaml misses {', '.join(missing)}."
