"""The compose file on a Docker engine. Minutes long, so `make test` leaves it out and `make compose-test` runs it."""

from __future__ import annotations

import pytest

from tests.compose.__main__ import main


@pytest.mark.ac("phase-v:B:1", "phase-v:B:2", "phase-v:B:3", "phase-v:B:4", "phase-v:B:5", "phase-v:B3.3:1")
@pytest.mark.ac("phase-v:B1.2:1", "phase-v:B1.3:4", "phase-v:B3.3:2", "phase-v:B3.3:3")
def test_the_set_comes_up_tells_its_story_and_keeps_its_data() -> None:
    main([])
