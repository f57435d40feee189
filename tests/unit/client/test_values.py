"""Python values on the wire, rows, and what the package shows."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest

import isa_common
from isa_common import Code, InvalidArgument, IsaError, Row, Statement
from isa_common._sql import _Shape
from isa_common._values import encode
from isa_common.errors import error_class


class Level(Enum):
    """An enumeration of a caller."""

    HIGH = "high"


@pytest.mark.parametrize(
    ("value", "wire"),
    [
        (None, None),
        (True, True),
        (7, 7),
        (2**63, str(2**63)),
        (1.5, 1.5),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        ("é", "é"),
        (Decimal("1.50"), "1.50"),
        (b"\x00\xff", "AP8="),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2))), "2026-01-02T01:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),  # noqa: DTZ001 -- a time without a zone
        (UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8"), "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ({"a": [1, b"x"]}, {"a": [1, "eA=="]}),
        (("a", "b"), ["a", "b"]),
        (Level.HIGH, "high"),
    ],
)
def test_a_value_has_one_wire_form(value: object, wire: object) -> None:
    assert json.loads(encode([value])) == [wire]


def test_no_parameters_are_no_bytes() -> None:
    assert encode([]) == b""


def test_a_value_without_a_wire_form_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode([1, {"a": [object()]}])

    assert caught.value.field == "params[1].a[0]"


def test_a_row_is_read_by_name_by_position_and_as_a_dictionary() -> None:
    (row,) = _Shape((("id", "int8"), ("at", "date"), ("id", "text"))).rows(b'[["5","2026-01-02","x"]]')

    assert (row["id"], row[1], row[-1]) == (5, date(2026, 1, 2), "x")
    assert dict(row) == {"id": 5, "at": date(2026, 1, 2)}
    assert row.columns == ("id", "at", "id")
    assert (len(row), tuple(row), row.get("none", 3)) == (3, (5, date(2026, 1, 2), "x"), 3)
    assert repr(row) == "Row(id=5, at=datetime.date(2026, 1, 2), id='x')"
    assert pickle.loads(pickle.dumps(row)) == row == copy.copy(row)
    assert row == (5, date(2026, 1, 2), "x") and row != (5,)
    with pytest.raises(KeyError):
        row["none"]


def test_statements_are_equal_by_what_they_say() -> None:
    assert Statement("a", 1, expect_rows=1) == Statement("a", 1, expect_rows=1)
    assert Statement("a", 1) != Statement("a", 2)


def test_what_is_public_is_listed_and_sorted() -> None:
    public = {
        name for name, value in vars(isa_common).items() if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert isa_common.__all__ == sorted(isa_common.__all__)
    assert set(isa_common.__all__) == public - {"annotations"}


@pytest.mark.parametrize(
    "kind", [kind for name in isa_common.__all__ if inspect.isclass(kind := getattr(isa_common, name))]
)
def test_no_generated_type_is_in_a_public_signature(kind: type) -> None:
    for method, function in inspect.getmembers(kind, inspect.isfunction):
        if not method.startswith("_"):
            assert not re.search(r"\bpb\.|_pb2\b", str(inspect.signature(function))), method
    for field, annotation in getattr(kind, "__annotations__", {}).items():
        assert field.startswith("_") or not re.search(r"\bpb\.|_pb2\b", str(annotation)), field


def test_every_code_of_the_wire_has_a_class() -> None:
    for code in Code:
        if code is not Code.OK:
            assert issubclass(error_class(code), IsaError)
    assert str(InvalidArgument("No.", field="title")) == "No. (title)"
    assert Row is isa_common.Row
