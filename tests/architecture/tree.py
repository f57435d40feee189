"""What the checks of the tree read: our files, their imports, the declared apps and subscriptions."""

from __future__ import annotations

import ast
import functools
import importlib
import json
import subprocess
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kernel.doors import NOTES, Door

ROOT = Path(__file__).resolve().parents[2]
CODE = ("cli", "client/isa_common", "kernel", "runtime", "schemas", "services")
CORE = ("analytics", "audit", "notifications", "tasks", "users")
TOPICS: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "schemas/avro/topics.yaml").read_text())["topics"]


@functools.cache
def sources() -> tuple[Path, ...]:
    """Return our Python files, generated ones left out."""
    found = [path for folder in CODE for path in (ROOT / folder).rglob("*.py")]
    return tuple(path for path in sorted(found) if "gen" not in path.parts and "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    """Return a path as messages show it."""
    return str(path.relative_to(ROOT))


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Return every module that a file imports, whole names."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


@functools.cache
def tracked() -> tuple[Path, ...]:
    """Return the files that git knows, or all of a plain copy of the tree."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if done.returncode == 0:
        names = [name for name in done.stdout.decode().split("\0") if name]
        return tuple(path for name in names if (path := ROOT / name).is_file())
    skipped = {".git", ".venv", ".isa", "__pycache__"}
    return tuple(path for path in ROOT.rglob("*") if path.is_file() and not skipped & set(path.parts))


def rooms() -> list[Path]:
    """Return the folders of all rooms: those with an app.py."""
    return sorted(path.parent for path in (ROOT / "services").rglob("app.py"))


def handlers_class(room: str) -> type:
    """Return the class that holds a core room's doors."""
    module = importlib.import_module(f"services.{room}.app")
    built = typing.get_type_hints(module.create_app)["return"]
    assert isinstance(built, type)
    return built


def doors(cls: type) -> Iterator[tuple[str, Door]]:
    """Yield the doors of a handlers class with the name of their method."""
    seen: set[str] = set()
    for each in cls.__mro__:
        for name, method in vars(each).items():
            if name not in seen:
                seen.add(name)
                for door in getattr(method, NOTES, ()):
                    yield name, door


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """An app as dapr.yaml declares it."""

    app_id: str
    package: str
    port: int
    values: dict[str, Any]


@functools.cache
def dapr_apps() -> dict[str, App]:
    """Return the apps of dapr.yaml by their id."""
    declared = yaml.safe_load((ROOT / "dapr.yaml").read_text())["apps"]
    return {
        app["appID"]: App(app_id=app["appID"], package=app["command"][-1], port=app["appPort"], values=app)
        for app in declared
    }


def documents(folder: str) -> list[tuple[Path, dict[str, Any]]]:
    """Return the YAML documents below a folder of components."""
    return [
        (path, document)
        for path in sorted((ROOT / folder).rglob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
        if document
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A subscription as the components declare it."""

    app_id: str
    component: str
    topic: str
    spec: dict[str, Any]
    where: str


@functools.cache
def subscriptions() -> tuple[Declared, ...]:
    """Return every subscription, once for each app in its scopes."""
    return tuple(
        Declared(
            app_id=app_id,
            component=document["spec"]["pubsubname"],
            topic=document["spec"]["topic"],
            spec=document["spec"],
            where=f"{name_of(path)} ({document['metadata']['name']})",
        )
        for path, document in documents("components/local")
        if document["kind"] == "Subscription"
        for app_id in document["scopes"]
    )


def schema(topic: str) -> dict[str, Any]:
    """Return the Avro schema of a topic."""
    parsed: dict[str, Any] = json.loads((ROOT / "schemas/avro" / f"{topic}.avsc").read_text())
    return parsed
