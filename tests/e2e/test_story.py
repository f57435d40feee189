"""The story that `make run` tells, as a test: it checks itself while it is told."""

from __future__ import annotations

import pytest

from tests.conftest import Stack


@pytest.mark.ac(
    "phase-v:A1.1:1", "phase-v:A1.3:1", "phase-v:A1.3:4", "phase-v:A1.4:1", "phase-v:A2.4:1", "phase-v:A2.4:4"
)
def test_the_story_holds_from_beginning_to_end(stack: Stack) -> None:
    told = stack.isa("demo").stdout

    assert "All of it held." in told
    for chapter in ("eight topics", "three consumers to its audit record", "sees nothing of the other"):
        assert chapter in told
