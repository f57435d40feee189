"""Names of tenants in Redis never meet, and patterns are matched in good time."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from isa.cache.v1 import cache_pb2
from isa_common import FailedPrecondition, Internal, InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable
from kernel import Caller
from services.adapters.redis import codec
from services.adapters.redis.connection import ReplyError
from services.adapters.redis.part import refusal

KINDS = [codec.DATA, codec.CHANNEL, codec.LOCK, codec.FENCE, codec.WAKE, codec.FIXED, codec.SLIDING, codec.BUCKET]
ORGS = ["org-a", "org-b", "org-ab", "org-0", "org-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "org-user", "org-org"]
USERS = ["user-a", "user-b", "user-ab", "user-1", "user-11", "user-org", ""]
WORKLOADS = ["tasks", "org-a", "isa-tasks", "user-a"]
PIECES = [
    "", ":", "::", "-", "_", ".", "/", "*", "?", "[a]", "\\", "a", "b", "ab", "user-a", "user-a:", "org-a", "org-a:",
    "isa-tasks", "lock:", "chan:", "rate.fixed:", "fence:", "token", "é", "\U0001f600", "\n", " ", "x" * 40,
]  # fmt: skip


def test_a_million_names_of_tenants_never_meet() -> None:
    draw = random.Random(4)
    whole: dict[str, tuple[str, ...]] = {}
    heads: dict[str, tuple[str, ...]] = {}
    texts = list({"".join(draw.choices(PIECES, k=draw.randint(1, 4))) for _ in range(20_000)} - {""})
    count = 0
    while count < 1_000_000:
        kind, scope = draw.choice(KINDS), draw.randint(0, 2)
        org = draw.choice(ORGS) if draw.random() < 0.9 else ""
        user = draw.choice(USERS) if org else ""
        workload = "" if org else draw.choice(WORKLOADS)
        if scope == cache_pb2.SCOPE_USER and not user:
            scope = cache_pb2.SCOPE_UNSPECIFIED
        caller = Caller(org=org, user=user, workload=workload)
        owner = (kind, org or workload, "" if org else "own", user if scope != cache_pb2.SCOPE_ORGANISATION else "")
        keys = draw.sample(texts, 1000)
        names = codec.isolate(caller, scope, keys, kind=kind)
        heads.setdefault(names[0].removesuffix(keys[0]), owner)
        for key, name in zip(keys, names, strict=True):
            assert whole.setdefault(name, (*owner, key)) == (*owner, key), "two tenants, one name"
        count += len(names)

    assert len(set(heads.values())) == len(heads)
    ordered = sorted(heads)
    assert not any(after.startswith(before) for before, after in itertools.pairwise(ordered))
    for name, owner in random.Random(5).sample(list(whole.items()), 20_000):
        assert [heads[head] for head in ordered if name.startswith(head)] == [owner[:-1]]


@pytest.mark.parametrize(
    "caller",
    [
        Caller(),
        Caller(user="user-1"),
        Caller(org="org-A", user="user-1"),
        Caller(org="org-a:b", user="user-1"),
        Caller(org="org-a", user="root"),
        Caller(org="org-a", user="user-1:x"),
        Caller(workload="a:b"),
        Caller(user="user-1", workload="tasks"),
    ],
)
def test_a_caller_of_no_tenant_has_no_names(caller: Caller) -> None:
    with pytest.raises(PermissionDenied):
        codec.isolate(caller, cache_pb2.SCOPE_UNSPECIFIED, ["k"])


def test_the_scope_of_a_user_needs_one() -> None:
    with pytest.raises(PermissionDenied) as caught:
        codec.isolate(Caller(org="org-a"), cache_pb2.SCOPE_USER, ["k"])
    with pytest.raises(InvalidArgument):
        codec.isolate(Caller(org="org-a"), 7, ["k"])

    assert caught.value.field == "scope"
    assert codec.isolate(Caller(org="org-a"), cache_pb2.SCOPE_UNSPECIFIED, ["k"]) == ["org-a::k"]


@pytest.mark.parametrize(
    ("names", "field"), [(["a", ""], "k[1]"), (["a\0b"], "k[0]"), (["é" * 256, "é" * 257], "k[1]")]
)
def test_a_bad_name_is_told_by_its_position(names: list[str], field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec.isolate(Caller(org="org-a"), 0, names, field="k", is_many=True)

    assert caught.value.field == field


def test_a_cursor_belongs_to_what_the_names_begin_with() -> None:
    text = codec.write_cursor(b"12345678901234567890"[:19], "org-a:user-1:k")

    assert codec.read_cursor(text, "org-a:user-1:k") == b"1234567890123456789"
    for wrong, begins in ((text, "org-a:user-1:"), ("", "x"), ("é", "x"), (text[:11], "org-a:user-1:k"), ("A", "x")):
        with pytest.raises(InvalidArgument):
            codec.read_cursor(wrong, begins)


@pytest.mark.parametrize(
    ("span", "count"),
    [(Duration(nanos=1), 1), (Duration(seconds=1), 1000), (Duration(seconds=1, nanos=1_500_000), 1002)],
)
def test_a_time_span_is_counted_in_milliseconds_and_never_too_short(span: Duration, count: int) -> None:
    assert codec.milliseconds(span, "ttl") == count


@pytest.mark.parametrize(
    "span", [Duration(), Duration(seconds=-1), Duration(nanos=-1), Duration(seconds=4_000_000_000)]
)
def test_a_time_span_has_bounds(span: Duration) -> None:
    with pytest.raises(InvalidArgument) as caught:
        codec.milliseconds(span, "ttl")

    assert caught.value.field == "ttl"
    assert codec.milliseconds(Duration(), "wait", least=0) == 0


@pytest.mark.parametrize(
    ("text", "head", "fitting", "others"),
    [
        ("a.b", "a.b", ["a.b"], ["a-b", "a.bc", "xa.b"]),
        ("task.*", "task.", ["task.", "task.x.y"], ["task"]),
        ("a*b*c", "a", ["abc", "aXbXbYc", "abcbc"], ["acb", "ab"]),
        ("*", "", ["", "x", "\n"], []),
        ("a**b", "a", ["ab", "axb"], ["a"]),
        ("a\\*b", "a*b", ["a*b"], ["axb"]),
        ("[a-c]?", "", ["bx", "c*"], ["dx", "b"]),
        ("[^a-c]", "", ["d", "^"], ["a", ""]),
        ("[\\]]", "", ["]"], ["\\"]),
        ("[z-a]", "", ["m"], ["A"]),
        ("[]x", "", [], ["x", "]x"]),
        ("x[ab", "x", ["xa", "xb"], ["x["]),
        ("x\\", "x\\", ["x\\"], ["x"]),
    ],
)
def test_a_pattern_fits_as_redis_has_it(text: str, head: str, fitting: list[str], others: list[str]) -> None:
    beginning, glob = codec.pattern(text)

    assert beginning == head
    assert [name for name in fitting + others if glob.fullmatch(name)] == fitting


def test_a_hostile_pattern_ends() -> None:
    _, glob = codec.pattern("*a" * 200 + "*b")

    assert not glob.fullmatch("a" * 512)  # with backtracking: longer than the sun will shine


def test_a_literal_fits_only_itself() -> None:
    text = "a*b?c[d]e\\f^-g"
    _, glob = codec.pattern(codec.literal(text))

    assert glob.fullmatch(text)
    assert not glob.fullmatch("aXbXcde\\f^-g")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("WRONGTYPE Operation against a key", FailedPrecondition),
        ("ERR Error running script (call to f_1): @user_script:1: WRONGTYPE Operation", FailedPrecondition),
        ("OOM command not allowed when used memory > 'maxmemory'.", ResourceExhausted),
        ("ERR value is not an integer or out of range", FailedPrecondition),
        ("LOADING Redis is loading the dataset in memory", Unavailable),
        ("READONLY You can't write against a read only replica.", Unavailable),
        ("ERR unknown command", Internal),
    ],
)
def test_what_redis_says_becomes_our_words(text: str, kind: type[Exception]) -> None:
    error = refusal(ReplyError(text))

    assert type(error) is kind
    assert text not in error.message
    assert (error.retry_after or timedelta(1)) > timedelta(0)
