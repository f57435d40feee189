"""What people see while they wait, without a terminal."""

from __future__ import annotations

import io

from rich.console import Console

from runtime.progress import Progress, clock


def test_without_a_terminal_a_stage_is_said_once() -> None:
    output = io.StringIO()
    progress = Progress(Console(file=output, width=120))
    part = progress.part("kafka", "the event log")

    with progress.show("Setting up"):
        part.begin("downloading 1.0/54.0 MB")
        part.say("downloading 2.0/54.0 MB")
        part.say("unpacking")
        part.done("ready")

    lines = output.getvalue().splitlines()
    assert lines[0] == "Setting up"
    assert [line.split()[3] for line in lines[1:]] == ["downloading", "unpacking", "ready"]
    assert "1.0/54.0 MB" in lines[1]


def test_a_failure_is_always_said() -> None:
    output = io.StringIO()
    part = Progress(Console(file=output)).part("loki", "the log")

    part.failed("no line")

    assert "no line" in output.getvalue()


def test_time_is_minutes_and_seconds() -> None:
    assert clock(83.9) == "01:23"
