"""The wheel of the client, alone in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from runtime.layout import CHECKOUT

UV = str(Path(sys.executable).with_name("uv"))
USE = """
import asyncio, importlib.util, sys
import isa_common
from isa_common import Isa, NotFound, Unavailable
from isa_common.testing import FakeIsa

assert isa_common.__file__.startswith(sys.prefix), isa_common.__file__
for absent in ("pydantic", "msgpack", "sqlalchemy", "kernel", "services"):
    assert importlib.util.find_spec(absent) is None, absent

async def main():
    capabilities = [name for name in dir(Isa) if name in {capabilities}]
    async with Isa("127.0.0.1:1") as isa, FakeIsa() as fake:
        for name in capabilities:
            getattr(isa, name), getattr(fake, name)
        assert not isa.is_channel_healthy()
        assert await fake.health("cache")
        await fake.cache.set("k", b"v")
        assert (await fake.cache.get("k")) == b"v"
    print(*sorted(capabilities))

asyncio.run(main())
"""
CAPABILITIES = ["cache", "logs", "objects", "sql", "streams", "usage", "vectors"]


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(UV, "build", "--wheel", str(CHECKOUT / "client"), "--out-dir", str(folder), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_its_contracts_and_its_types_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    assert {"isa_common/py.typed", "isa/py.typed", "isa/cache/v1/cache_pb2.py", "isa/sql/v1/sql_pb2.pyi"} <= set(names)
    assert {name.split("/")[0] for name in names} == {
        "isa",
        "isa_common",
        wheel.name.partition("-py3")[0] + ".dist-info",
    }


def test_it_installs_and_works_alone(wheel: Path, tmp_path: Path) -> None:
    run(UV, "venv", "--python", sys.executable, "alone", cwd=tmp_path)
    python = str(tmp_path / "alone" / "bin" / "python")
    run(UV, "pip", "install", "--python", python, str(wheel), cwd=tmp_path)

    told = run(python, "-I", "-c", USE.replace("{capabilities}", repr(CAPABILITIES)), cwd=tmp_path)

    assert told.split() == CAPABILITIES
