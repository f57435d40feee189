"""What a process may use, by the files of its control group."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel.limits import cpu_limit, memory_limit


def test_the_group_limits_memory_and_processor(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("268435456\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")

    assert memory_limit(tmp_path) == 256 << 20
    assert cpu_limit(tmp_path) == 0.5


@pytest.mark.parametrize(("memory", "processor"), [("max", "max 100000"), ("", ""), (None, None)])
def test_without_a_limit_the_machine_is_one(tmp_path: Path, memory: str | None, processor: str | None) -> None:
    if memory is not None and processor is not None:
        (tmp_path / "memory.max").write_text(memory)
        (tmp_path / "cpu.max").write_text(processor)

    assert memory_limit(tmp_path) > 64 << 20
    assert cpu_limit(tmp_path) == 1.0


def test_a_python_process_never_counts_on_more_than_one_core(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("400000 100000\n")

    assert cpu_limit(tmp_path) == 1.0
