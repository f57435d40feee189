"""Folders and ports of one set."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.layout import ENGINE_PORTS, Layout, layout_from_environment
from runtime.processes import load_apps


def test_without_a_base_every_port_is_the_declared_one(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path, cache=tmp_path)

    assert layout.port(15432) == 15432


def test_a_base_keeps_the_last_four_digits(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path, cache=tmp_path, port_base=20000)

    assert (layout.port(8001), layout.port(50061), layout.engine_port("postgres")) == (28001, 20061, 25432)


def test_no_two_ports_collide_when_a_base_moves_them() -> None:
    declared = list(ENGINE_PORTS.values())
    for app in load_apps():
        declared += [
            app.values[name]
            for name in ("appPort", "daprHTTPPort", "daprGRPCPort", "daprInternalGRPCPort", "metricsPort")
        ]
        declared += [int(app.environment["METRICS_PORT"])] if "METRICS_PORT" in app.environment else []

    assert len({port % 10000 for port in declared}) == len(declared)


def test_a_home_that_is_too_deep_for_a_socket_gets_a_short_private_one(tmp_path: Path) -> None:
    deep = Layout(home=tmp_path / ("d" * 120), cache=tmp_path)

    deep.make_folders()

    assert len(str(deep.socket)) < 100
    assert deep.socket.parent.stat().st_mode & 0o777 == 0o700
    deep.socket.parent.rmdir()


def test_what_holds_secrets_is_for_its_owner_alone(tmp_path: Path) -> None:
    layout = Layout(home=tmp_path / "home", cache=tmp_path)

    layout.make_folders()

    assert layout.run.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("base", ["eighty", "80", "60000"])
def test_a_base_that_leaves_no_room_for_ports_is_refused(base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISA_PORT_BASE", base)

    with pytest.raises(SystemExit, match="ISA_PORT_BASE"):
        layout_from_environment()
