"""The examples in the client's guides, as they stand, on a cloud in memory.

The blocks of one page run one after the other, and share their names. A block marked ```python no-run is left out.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import isa_common
from isa_common import Isa
from isa_common.testing import FakeCloud

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    ROOT / "README.md",
    ROOT / "client" / "README.md",
    *(
        page
        for name in ("client", "testing", "cache", "sql", "streams", "objects", "vectors", "logs", "limits")
        if (page := ROOT / "docs" / "guides" / f"{name}.md").exists()
    ),
]
BLOCK = re.compile(r"^```python[ \t]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
async def test_the_examples_of_a_page_run(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = FakeCloud()
    monkeypatch.setattr(isa_common, "Isa", lambda *_, **__: cloud.isa())
    text = page.read_text()
    module = ModuleType("example")
    monkeypatch.setitem(sys.modules, "example", module)
    vars(module).update(isa=cloud.isa(), cloud=cloud, token="a token")

    for found in BLOCK.finditer(text):
        line = text.count("\n", 0, found.start(1))
        code = compile("\n" * line + found[1], str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        running = eval(code, vars(module))
        if inspect.isawaitable(running):
            await running


def test_there_are_examples() -> None:
    assert sum(len(BLOCK.findall(page.read_text())) for page in PAGES) > 3
    assert isa_common.Isa is Isa
