"""Whose lines are whose, and what goes between the contract and Loki."""

from __future__ import annotations

import random

import pytest

from isa_common import InvalidArgument, PermissionDenied
from kernel import Caller
from services.adapters.loki.codec import Cursor, isolate, samples


def test_no_two_callers_share_a_tenant_unless_they_share_an_organisation() -> None:
    draw = random.Random(4).choices
    seen: dict[str, tuple[str, str]] = {}
    for _ in range(1_000_000):
        text = "".join(draw("ab01", k=6))
        org, workload = (f"org-{text}", "") if text < "aa" else ("", text)
        tenant = isolate(Caller(org=org, user=f"user-{text}", workload=workload))
        assert seen.setdefault(tenant, (org, workload)) == (org, workload)
        assert set(tenant) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")  # `|` would name several tenants


def test_a_caller_without_an_organisation_has_no_tenant() -> None:
    with pytest.raises(PermissionDenied):
        isolate(Caller(user="user-1"))


def test_a_cursor_survives_its_text_and_serves_no_other_question() -> None:
    cursor = Cursor(1, 9, 5, frozenset({b"12345678"}))

    assert Cursor.parse(cursor.write(b"question"), b"question") == cursor
    with pytest.raises(InvalidArgument):
        Cursor.parse(cursor.write(b"question"), b"another!")


def test_a_vector_a_matrix_and_a_number_become_series() -> None:
    (number,) = samples({"resultType": "scalar", "result": [1795236335905, "2"]})
    (vector,) = samples({"resultType": "vector", "result": [{"metric": {"a": "b"}, "value": [1795236335.905, "10"]}]})
    (matrix,) = samples({"resultType": "matrix", "result": [{"metric": {}, "values": [[1.5, "1"], [2, "NaN"]]}]})

    assert (number.samples[0].value, number.samples[0].time.ToMilliseconds()) == (2.0, 1795236335905)
    assert (dict(vector.labels), vector.samples[0].time.ToMilliseconds()) == ({"a": "b"}, 1795236335905)
    assert [sample.time.ToMilliseconds() for sample in matrix.samples] == [1500, 2000]
