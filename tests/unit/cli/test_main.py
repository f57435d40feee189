"""`isa`: what it offers, and how it answers."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from cli import status as status_module
from cli.main import build
from runtime.start import Status

RUNNER = CliRunner()


class FakeRuntime:
    """A set in a given state."""

    def __init__(self, *states: str) -> None:
        self.states = states

    async def status(self) -> list[Status]:
        return [
            Status(name=f"part-{n}", kind="engine", does="", state=state, pid=n, port=1, memory=1_000_000)
            for n, state in enumerate(self.states)
        ]


def test_help_names_every_command() -> None:
    output = RUNNER.invoke(build(), ["--help"]).output

    for command in ("run", "start", "stop", "status", "logs", "restart", "down", "setup", "env"):
        assert f"\n  {command} " in output


@pytest.mark.parametrize(("states", "code"), [(["healthy", "healthy"], 0), (["healthy", "failed"], 1)])
def test_status_fails_when_a_part_is_not_healthy(states: list[str], code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status_module, "runtime_as_it_is", lambda layout: FakeRuntime(*states))

    result = RUNNER.invoke(build(), ["status"])

    assert result.exit_code == code
    assert "part-1" in result.output


def test_logs_of_an_unknown_part_name_the_known_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("ISA_HOME", str(tmp_path))

    result = RUNNER.invoke(build(), ["logs", "nosuch"])

    assert result.exit_code == 1


def test_down_asks_before_it_deletes(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("ISA_HOME", str(tmp_path))

    result = RUNNER.invoke(build(), ["down", "--wipe"], input="n\n")

    assert result.exit_code == 1
    assert "Delete all data" in result.output
