"""What compose-test does where no image registry is reached, as far as it shows without Docker."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from runtime.engines import Engines, load_engines
from runtime.layout import Layout
from tests.compose.__main__ import compose_document, images
from tests.compose.engine import ComposeTestError, own_engine
from tests.compose.standins import DOCKERFILES, StandIn, stand_ins


def test_whoever_is_not_root_is_told_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(ComposeTestError, match="needs root"), own_engine(tmp_path, tmp_path / "compose"):
        pass


def test_every_image_of_the_default_profile_has_a_stand_in_or_is_ours(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path, cache=tmp_path)
    known = stand_ins(layout, Engines(layout, load_engines()))
    wanted = images(compose_document())

    engines = {image.rpartition(":")[0] for image, room in wanted.items() if not room} - {"python"}
    assert engines == set(known)
    assert {stand_in.dockerfile for stand_in in known.values()} == {
        path.name.removesuffix(".Dockerfile") for path in DOCKERFILES.glob("*.Dockerfile")
    }


def test_a_stand_in_is_made_again_only_when_what_it_is_made_of_changes(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"x")
    stand_in = StandIn(dockerfile="daprd", files={"engine/bin/daprd": tmp_path / "binary"}, pins="1")

    assert stand_in.digest == StandIn(dockerfile="daprd", pins="1").digest
    assert stand_in.digest != StandIn(dockerfile="daprd", pins="2").digest
    with tarfile.open(fileobj=io.BytesIO(stand_in.context())) as tar:
        assert tar.getnames() == ["Dockerfile", "engine/bin/daprd", "empty"]
