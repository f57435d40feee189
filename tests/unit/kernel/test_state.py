"""Values of the state store, as daprd gives them back."""

from __future__ import annotations

import pytest

from kernel.dapr.state import packed, unpacked


@pytest.mark.parametrize("value", [5, "a", [53, 91], {"a": [None, True]}, None, "[123 34]"])
def test_a_value_comes_back_from_a_plain_and_from_an_encrypted_store(value: object) -> None:
    stored = packed(value)
    as_go_prints_it = b"[" + b" ".join(str(byte).encode() for byte in stored) + b"]"

    assert unpacked(stored) == value
    assert unpacked(as_go_prints_it) == value


def test_nothing_is_none() -> None:
    assert unpacked(b"") is None
