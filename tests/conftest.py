"""What every test may rely on."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker that names what a test proves."""
    config.addinivalue_line(
        "markers",
        "ac(*ids): the acceptance criteria that the test proves, see docs/reference/requirements.md",
    )
