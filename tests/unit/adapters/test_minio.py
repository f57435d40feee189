"""Names, properties, budgets and signatures of the S3 adapter, without a store."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

from isa.objects.v1 import objects_pb2 as pb
from isa_common import Code, DeadlineExceeded, InvalidArgument, PermissionDenied
from kernel import Caller
from services.adapters.minio.budget import Budget, Gathering
from services.adapters.minio.codec import (
    Cursor,
    ancestors,
    checked_key,
    isolate,
    object_info,
    properties,
)
from services.adapters.minio.incoming import Incoming
from services.adapters.minio.store import meaning

TRIPLES = 1_000_000
S3_NAME = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


def caller(tenant: str, user: str = "") -> Caller:
    """A person of an organisation, or a workload that `tenant` names as `isa-<workload>`."""
    if tenant.startswith("isa-"):
        return Caller(workload=tenant.removeprefix("isa-"))
    return Caller(org=tenant, user=user)


def test_a_million_triples_have_as_many_names_as_tenants_and_buckets() -> None:
    """Injective over tenant and bucket, the same for every user, and nothing that S3 reads as another name."""
    rng = random.Random(4)
    letters = "ab-"
    tenants = [f"org-{name}" for name in ("a", "b", "ab", "a1", "isa", "org")]
    tenants += [f"isa-{name}" for name in ("a", "b", "a-b", "a-b-a", "org", "org-a", "ab")]
    odd = ["", "-", "a\0", "A", "a_b", "a.b", "a/b", "..", "*", "é", "a:b", "org-a-b", "isa-a-b", "x" * 64]
    callers = {tenant: [caller(tenant, f"user-{n}") for n in range(3)] for tenant in tenants}
    owner: dict[str, tuple[str, str]] = {}
    for _ in range(TRIPLES):
        tenant = tenants[int(rng.random() * len(tenants))]
        if rng.random() < 0.02:
            bucket = odd[int(rng.random() * len(odd))]
        else:
            bucket = "".join(rng.choices(letters, k=1 + int(rng.random() * 9)))
        try:
            name = isolate(callers[tenant][int(rng.random() * 3)], bucket)
        except InvalidArgument:
            continue
        assert owner.setdefault(name, (tenant, bucket)) == (tenant, bucket)
    assert len(owner) > 10_000
    assert all(S3_NAME.fullmatch(name) for name in owner)


def test_no_tenants_names_begin_like_anothers() -> None:
    """Buckets are listed by their beginning, so that one tenant's must not be the beginning of another's."""
    tenants = ["org-a", "org-ab", "isa-a", "isa-a-b", "isa-a-b-c", "isa-org", "isa-org-a"]
    beginnings = [isolate(caller(tenant), "x").removesuffix("x") for tenant in tenants]

    for one in beginnings:
        for other in beginnings:
            if one != other and other.startswith(one):
                assert other[len(one)] == "-", "told apart by the doubled hyphen of a workload's name"


@pytest.mark.parametrize(
    "who", [Caller(), Caller(user="user-a"), Caller(workload="A"), Caller(workload="a--b"), Caller(workload="-a")]
)
def test_who_is_no_tenant_has_no_bucket(who: Caller) -> None:
    with pytest.raises(PermissionDenied):
        isolate(who, "uploads")


@pytest.mark.parametrize("org", ["org-a-b", "org-", "org-A", "org-a\0", "isa-tasks", "org-" + "x" * 33])
def test_an_organisation_outside_its_grammar_has_no_bucket(org: str) -> None:
    with pytest.raises(PermissionDenied):
        isolate(Caller(org=org), "uploads")


def test_a_name_is_never_cut() -> None:
    org = f"org-{'x' * 32}"
    assert len(isolate(Caller(org=org), "b" * 26)) == 63
    with pytest.raises(InvalidArgument) as caught:
        isolate(Caller(org=org), "b" * 27)
    assert "26" in str(caught.value)


def test_a_key_is_itself_or_refused() -> None:
    rng = random.Random(4)
    for _ in range(50_000):
        key = "".join(rng.choices("a./\0\n *é\\", k=1 + int(rng.random() * 7)))
        with suppress(InvalidArgument):
            assert checked_key(key) == key
            assert key.split("/") == [part for part in key.split("/") if part not in ("", ".", "..")]
            assert not re.search("[\0-\x1f]", key)


def test_ancestors_are_what_a_key_lies_below() -> None:
    assert ancestors("a/b/c") == ["a", "a/b"]
    assert ancestors("a") == []


@pytest.mark.parametrize(
    "value", ["", " x ", "é", "100%", "%41", "a\r\nb: c", "\0", "日本語 😀", "~!@#$%^&*()_+={}[]|\\:;\"'<>,.?/"]
)
def test_metadata_come_back_as_they_went_and_fit_a_header(value: str) -> None:
    stored = properties(pb.Properties(metadata={"a": value}))

    assert re.fullmatch(r"[\x21-\x7e]*", stored["Metadata"]["a"])
    facts = {**stored, "ETag": '"e"', "LastModified": datetime.now(UTC)}
    assert object_info("k", facts).metadata["a"] == value


def test_a_cursor_is_of_one_question() -> None:
    cursor = Cursor("bucket", "prefix", "/")
    text = cursor.write("token")

    assert cursor.read(text) == "token"
    for other in (Cursor("bucket", "prefix", ""), Cursor("bucket2", "prefix", "/"), Cursor("bucketprefix", "", "/")):
        with pytest.raises(InvalidArgument):
            other.read(text)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("NoSuchKey", 404, Code.NOT_FOUND),
        ("404", 404, Code.NOT_FOUND),
        ("NoSuchBucket", 404, Code.NOT_FOUND),
        ("BucketNotEmpty", 409, Code.FAILED_PRECONDITION),
        ("BucketAlreadyOwnedByYou", 409, Code.ALREADY_EXISTS),
        ("PreconditionFailed", 412, Code.FAILED_PRECONDITION),
        ("SlowDown", 503, Code.UNAVAILABLE),
        ("SlowDownWrite", 503, Code.UNAVAILABLE),
        ("InternalError", 500, Code.UNAVAILABLE),
        ("XMinioServerNotInitialized", 503, Code.UNAVAILABLE),
        ("XMinioStorageFull", 507, Code.RESOURCE_EXHAUSTED),
        ("Anything", 507, Code.RESOURCE_EXHAUSTED),
        ("AccessDenied", 403, Code.INTERNAL),
        ("SignatureDoesNotMatch", 403, Code.INTERNAL),
        ("", 0, Code.INTERNAL),
    ],
)
def test_the_stores_errors_are_ours_and_name_nothing_of_it(code: str, status: int, expected: Code) -> None:
    words = "org-a-uploads at 10.0.0.7:9000 says no"
    told = {"Code": code, "Message": words, "BucketName": "org-a-uploads", "Resource": "/org-a-uploads"}
    error = meaning(ClientError({"Error": told, "ResponseMetadata": {"HTTPStatusCode": status}}, "GetObject"))

    assert error.code is expected
    assert (error.retry_after is not None) == (expected is Code.UNAVAILABLE)
    assert not re.search(r"org-a|10\.0\.0|GetObject|minio", f"{error.message}{error.details}", re.IGNORECASE)


async def test_a_budget_is_shared() -> None:
    budget = Budget(100, each=60)
    order: list[str] = []

    async def hold(tenant: str, size: int, until: asyncio.Event) -> None:
        async with budget.held(tenant, size):
            order.append(tenant)
            await until.wait()

    ends = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(hold(tenant, size, end))
        for (tenant, size), end in zip([("a", 60), ("a", 10), ("b", 40), ("c", 10)], ends, strict=True)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a", "b"], "the second of a waits for its own first, c for anybody"

    ends[1].set()
    ends[0].set()
    await tasks[0]
    await tasks[1]
    for end in ends:
        end.set()
    await asyncio.gather(*tasks)
    assert sorted(order) == ["a", "a", "b", "c"]


async def test_who_leaves_a_budget_while_waiting_takes_nothing() -> None:
    budget = Budget(10, each=10)

    async def hold() -> None:
        async with budget.held("a", 10):
            pass

    async with budget.held("b", 10):
        waiting = asyncio.create_task(hold())
        await asyncio.sleep(0)
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(1):
        await hold()


async def test_a_client_that_stays_silent_is_told() -> None:
    async def silent() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(header=pb.UploadHeader(bucket="b", key="k"))
        await asyncio.Event().wait()

    incoming = Incoming(silent(), most=10, idle=timedelta(milliseconds=1), slowest=timedelta(minutes=1))
    await incoming.header()
    with pytest.raises(DeadlineExceeded):
        await incoming.part(5)


async def test_a_client_that_is_too_slow_is_told() -> None:
    async def slow() -> AsyncIterator[pb.UploadRequest]:
        yield pb.UploadRequest(header=pb.UploadHeader(bucket="b", key="k"))
        while True:
            await asyncio.sleep(0)
            yield pb.UploadRequest(data=b"")

    incoming = Incoming(slow(), most=10, idle=timedelta(minutes=1), slowest=timedelta(milliseconds=1))
    await incoming.header()
    with pytest.raises(DeadlineExceeded):
        await incoming.part(5)


async def test_what_one_upload_gathers_is_given_back_once() -> None:
    budget = Budget(10, each=10)
    gathering = Gathering(budget, "a")
    await gathering.take(10)
    done = gathering.passed_on()
    gathering.give()
    waiting = asyncio.create_task(budget.take("a", 10))
    await asyncio.sleep(0)
    assert not waiting.done()

    done(None)
    async with asyncio.timeout(1):
        await waiting
