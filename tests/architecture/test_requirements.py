"""What is proven is what tests name, and the page of it is fresh."""

from __future__ import annotations

from tests import requirements


def test_every_named_criterion_is_one() -> None:
    unknown = requirements.unknown()

    assert not unknown, f"docs/reference/criteria.toml has no {', '.join(unknown)}. Name the point: phase-v:A1.4:3."


def test_the_page_of_requirements_is_fresh() -> None:
    assert requirements.PAGE.read_text() == requirements.page(), (
        "docs/reference/requirements.md is stale: run `python -m tests.requirements`."
    )
