"""Names, vectors, payloads, paths and cursors of the vectors' adapter."""

from __future__ import annotations

import random
import re
from array import array

import pytest

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import InvalidArgument, PermissionDenied
from kernel import Caller
from services.adapters.qdrant.codec import (
    cursor,
    dense,
    isolate,
    path,
    payload,
    question,
    resume,
    revealed,
    sparse,
    sparse_message,
)

ALPHABET = "ab.:-_/*\\ =é\u0301😀%2"
ORGS = ["org-a", "org-b", "org-ab", "org-a1", "org-isa"]
WORKLOADS = ["tasks", "a", "org-a", "users"]


def callers() -> list[Caller]:
    people = [Caller(org=org, user=user) for org in ORGS for user in ("user-1", "user-2")]
    return [*people, *(Caller(workload=name) for name in WORKLOADS)]


def test_a_million_names_are_injective_and_none_begins_another() -> None:
    chance = random.Random(7)
    who = callers()
    texts = ["".join(chance.choices(ALPHABET, k=chance.randint(1, 6))) for _ in range(60_000)]
    texts += ["org-a.x", "a", "aa", "aaa", "x" * 128, "y" * 127, "org-b"]
    seen: dict[str, tuple[str, str]] = {}
    for _ in range(1_000_000 // len(who)):
        text = chance.choice(texts)
        for caller in who:
            name = isolate(caller, text)
            owner = (caller.tenant, text)
            assert seen.setdefault(name, owner) == owner

    spaces = sorted({f"{caller.tenant}." for caller in who})
    assert not any(one != other and one.startswith(other) for one in spaces for other in spaces)
    for name, (owner, text) in seen.items():
        assert name.startswith(f"{owner}.")
        assert name.count(".") == 1
        assert revealed(name) == text


def test_names_are_safe_as_files_and_on_a_server() -> None:
    longest = isolate(Caller(org="org-" + "x" * 32, user="user-1"), "\u00ff" * 64)

    assert len(longest) <= 255
    assert re.fullmatch(r"[a-z0-9.-]+", longest)
    assert isolate(Caller(org="org-a"), "../..") == "org-a.fyxc6lro"


@pytest.mark.parametrize("name", ["", "x" * 129, "a\0", "\n", "\x7f"])
def test_bad_names_are_refused_and_never_cut(name: str) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        isolate(Caller(org="org-a"), name)

    assert refusal.value.field == "collection"


def test_nobody_has_no_collections() -> None:
    with pytest.raises(PermissionDenied):
        isolate(Caller(user="user-1"), "docs")


def test_packed_floats_are_read_in_place_and_checked() -> None:
    assert dense(array("f", [1, 2.5]).tobytes(), 2, "v").tolist() == [1, 2.5]
    for bad in (b"", b"\0" * 7, array("f", [1]).tobytes(), array("f", [1, float("nan")]).tobytes()):
        with pytest.raises(InvalidArgument):
            dense(bad, 2, "v")


def test_sparse_vectors_are_checked_and_come_back_in_order() -> None:
    message = sparse_message([9, 2], [0.5, 1])

    assert sparse(message, "v") == ([2, 9], [1, 0.5])
    for bad in (
        pb.SparseVector(),
        pb.SparseVector(indices=b"\0" * 4),
        pb.SparseVector(indices=b"\0" * 8, values=b"\0" * 8),
        pb.SparseVector(indices=b"\0\0\0", values=b"\0\0\0"),
    ):
        with pytest.raises(InvalidArgument):
            sparse(bad, "v")


def test_payloads_are_objects_of_few_levels() -> None:
    wide = b'{"a":[' + b"[],".join([b""] * 100) + b"[]]}"

    assert payload(wide, "p") == {"a": [[]] * 100}
    for bad in (
        b"[]",
        b"1",
        b"{",
        b'{"a":NaN}',
        b"\xff",
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b'{"a":"' + b"x" * (128 << 10) + b'"}',
    ):
        with pytest.raises(InvalidArgument):
            payload(bad, "p")


@pytest.mark.parametrize("good", ["a", "a.b-c", "ключ", "a[].b[0][]", '"x y".z', '"a.b"[]'])
def test_paths(good: str) -> None:
    assert path(good, "f") == good


@pytest.mark.parametrize(
    "bad", ["", ".", "a.", "a b", 'a"b"', "[0]", "a[-1]", "a[x]", '""', '"', "a\n", 'a."\\"', "a" * 257]
)
def test_bad_paths_are_refused(bad: str) -> None:
    with pytest.raises(InvalidArgument):
        path(bad, "f")


def test_a_cursor_belongs_to_its_question() -> None:
    one, two = (question(name, pb.ScrollRequest(limit=3)) for name in ("org-a.x", "org-b.x"))

    assert resume(cursor(one, 2**64 - 1), one) == 2**64 - 1
    for bad in (cursor(two, 1), cursor(one, 1)[:4], "%%%", "AAAA", cursor(one, 1) + "="):
        with pytest.raises(InvalidArgument):
            resume(bad, one)
