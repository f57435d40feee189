"""What `isa.objects.v1` promises, in memory and on the real engine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from isa.objects.v1 import objects_pb2 as pb
from isa_common import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    Isa,
    IsaError,
    NotFound,
    ObjectInfo,
    Objects,
    PermissionDenied,
    PreconditionFailed,
    ResourceExhausted,
)
from isa_common import _objects as client
from kernel.shares import Limits, Shares
from tests.conformance.conftest import Engines, FakeParts, Secrets, person, serving

MIB = 1 << 20
As = Callable[..., Isa]


@pytest_asyncio.fixture
async def address(engines: Engines) -> AsyncIterator[str]:
    """An adapter on the engine under test."""
    from services.adapters.minio.app import Settings, create_app

    settings = Settings(url=f"http://{engines.address('minio')}")
    async with serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address:
        yield address


def fresh_org() -> str:
    return f"org-{uuid.uuid4().hex[:16]}"


@pytest_asyncio.fixture
async def objects(as_person: As) -> AsyncIterator[Objects]:
    """The objects of a fresh organisation, with a bucket; both are removed."""
    found = as_person(fresh_org()).objects
    await found.create_bucket("uploads")
    yield found
    await clear(found)


async def clear(objects: Objects) -> None:
    """Delete everything that a test made."""
    for bucket in await objects.list_buckets():
        keys = await keys_of(objects, bucket.name)
        if keys:
            await objects.delete_many(bucket.name, keys)
        await objects.delete_bucket(bucket.name)


async def keys_of(objects: Objects, bucket: str, prefix: str = "") -> list[str]:
    return [each.key async for each in objects.list(bucket, prefix)]


async def some(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def raised(awaitable: object) -> IsaError:
    with pytest.raises(IsaError) as caught:
        await awaitable  # type: ignore[misc]
    return caught.value


# Buckets


@pytest.mark.ac("isa-cloud-prd:E4-US1:AC-1.1")
async def test_a_bucket_is_made_once(objects: Objects) -> None:
    made = await objects.create_bucket("exports")

    assert made.name == "exports"
    assert abs(made.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert (await objects.head_bucket("exports")).name == "exports"
    with pytest.raises(AlreadyExists):
        await objects.create_bucket("exports")


@pytest.mark.ac("isa-cloud-prd:E4-US1:AC-1.2")
async def test_buckets_are_listed_by_name(objects: Objects) -> None:
    for name in ("b", "a-a", "a"):
        await objects.create_bucket(name)

    assert [bucket.name for bucket in await objects.list_buckets()] == ["a", "a-a", "b", "uploads"]


@pytest.mark.ac("isa-cloud-prd:E4-US1:AC-1.3")
async def test_only_an_empty_bucket_is_deleted(objects: Objects) -> None:
    await objects.put("uploads", "a", b"x")

    with pytest.raises(FailedPrecondition):
        await objects.delete_bucket("uploads")

    await objects.delete("uploads", "a")
    await objects.delete_bucket("uploads")
    for call in (objects.head_bucket("uploads"), objects.delete_bucket("uploads"), objects.put("uploads", "a", b"x")):
        assert isinstance(await raised(call), NotFound)


@pytest.mark.ac("isa-cloud-prd:E4-US1:AC-1.4")
async def test_a_bucket_is_its_organisations(as_person: As) -> None:
    first, second = as_person(fresh_org()).objects, as_person(fresh_org()).objects
    await first.create_bucket("uploads")
    await first.put("uploads", "secret", b"of the first")

    assert await second.list_buckets() == []
    calls = [
        second.head_bucket("uploads"),
        second.stat("uploads", "secret"),
        second.get("uploads", "secret"),
        second.page("uploads"),
        second.delete("uploads", "secret"),
        second.delete_bucket("uploads"),
        second.put("uploads", "secret", b"of the second"),
        second.presign_get("uploads", "secret"),
        second.create_multipart_upload("uploads", "x"),
    ]
    assert [type(await raised(call)) for call in calls] == [NotFound] * len(calls)

    await second.create_bucket("uploads")
    await second.put("uploads", "secret", b"of the second")
    assert await first.get("uploads", "secret") == b"of the first"
    assert await keys_of(second, "uploads") == ["secret"]
    for each in (first, second):
        await clear(each)


async def test_users_of_an_organisation_share_its_buckets(as_person: As) -> None:
    org = fresh_org()
    alice, bob = as_person(org, "user-alice").objects, as_person(org, "user-bob").objects
    await alice.create_bucket("uploads")

    await alice.put("uploads", "a", b"from alice")

    assert await bob.get("uploads", "a") == b"from alice"
    await clear(alice)


async def test_a_workload_has_buckets_of_its_own_and_reaches_those_of_whom_it_acts_for(
    as_person: As, as_workload: As
) -> None:
    org, name = fresh_org(), f"w{uuid.uuid4().hex[:10]}"
    people, room = as_person(org).objects, as_workload(name).objects
    twin = as_workload(f"{name}-a").objects
    await people.create_bucket("uploads")
    await room.create_bucket("a-b")
    await twin.create_bucket("b")  # names that would collide if they were only joined

    await room.acting_for(org=org).put("uploads", "a", b"1")
    await room.put("a-b", "own", b"2")

    assert await people.get("uploads", "a") == b"1"
    assert [bucket.name for bucket in await room.list_buckets()] == ["a-b"]
    assert [bucket.name for bucket in await twin.list_buckets()] == ["b"]
    assert await keys_of(twin, "b") == []
    for each in (people, room, twin):
        await clear(each)


async def test_only_a_tenant_has_buckets(as_person: As) -> None:
    with pytest.raises(PermissionDenied):
        await as_person("", "user-alone").objects.list_buckets()


@pytest.mark.parametrize(
    "name", ["", "A", "a_b", "-a", "a-", "a.b", "a/b", "../x", "a\0", "é", "x" * 43, "a-s3alias", "b--x-s3", "*"]
)
async def test_a_bucket_that_s3_cannot_name_is_refused(as_person: As, name: str) -> None:
    objects = as_person(fresh_org()).objects  # 20 characters: 42 are left

    for call in (objects.create_bucket(name), objects.get(name, "a"), objects.page(name)):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, "bucket")


async def test_the_longest_name_of_a_bucket_works(as_person: As) -> None:
    objects = as_person(fresh_org()).objects

    await objects.create_bucket("x" * 42)

    assert await keys_of(objects, "x" * 42) == []
    await clear(objects)


# Objects


@pytest.mark.ac("isa-cloud-prd:E4-US2:AC-2.1")
async def test_an_object_is_stored_with_its_metadata(objects: Objects) -> None:
    metadata = {"who": "Zoë “Z”  ", "empty": "", "percent": "100 %41", "a-b": "x=y; z"}

    put = await objects.put("uploads", "docs/a.txt", b"hello", content_type="text/plain", metadata=metadata)

    found = await objects.stat("uploads", "docs/a.txt")
    assert (found.key, found.size, found.content_type) == ("docs/a.txt", 5, "text/plain")
    assert found.metadata == put.metadata == metadata
    assert found.etag == put.etag
    assert abs(found.modified_at - put.modified_at) < timedelta(seconds=2)


@pytest.mark.ac("isa-cloud-prd:E4-US2:AC-2.2")
@pytest.mark.parametrize("size", [0, 1, 300_000, 8 * MIB, 20 * MIB + 7])
async def test_bytes_come_back_as_they_went(objects: Objects, size: int) -> None:
    data = os.urandom(size)

    info = await objects.put("uploads", "a", data)

    assert info.size == size
    assert info.content_type == "application/octet-stream"
    assert await objects.get("uploads", "a") == data


async def test_an_object_comes_from_an_iterator_and_from_a_file(objects: Objects, tmp_path: Path) -> None:
    pieces = [os.urandom(n) for n in (1, 0, 3 * MIB, 70_000, 70_000, 9 * MIB)]
    (tmp_path / "in").write_bytes(b"".join(pieces))

    await objects.put("uploads", "iterator", some(*pieces))
    await objects.put("uploads", "file", tmp_path / "in")
    info = await objects.download("uploads", "iterator", tmp_path / "out")

    assert info.size == sum(map(len, pieces))
    assert (tmp_path / "out").read_bytes() == b"".join(pieces) == await objects.get("uploads", "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


async def test_a_download_of_nothing_leaves_no_file(objects: Objects, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        await objects.download("uploads", "absent", tmp_path / "out")

    assert list(tmp_path.iterdir()) == []


async def test_an_upload_replaces_what_was_there_whole(objects: Objects) -> None:
    before = await objects.put("uploads", "a", b"before", metadata={"v": "1"})

    after = await objects.put("uploads", "a", b"after")

    assert before.etag != after.etag
    assert await objects.get("uploads", "a") == b"after"
    assert (await objects.stat("uploads", "a")).metadata == {}


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 5, b"34"),
        (0, 100, b"0123456789"),
        (9, 10, b"9"),
        (4, 4, b""),
        (-3, None, b"789"),
        (-100, None, b"0123456789"),
    ],
)
async def test_a_range_is_read(objects: Objects, start: int, end: int | None, expected: bytes) -> None:
    await objects.put("uploads", "a", b"0123456789")

    assert await objects.get("uploads", "a", start=start, end=end) == expected


@pytest.mark.parametrize(
    ("start", "end", "field"), [(10, None, "start"), (50, 60, "start"), (5, 4, "end"), (-3, 5, "end"), (1, -1, "end")]
)
async def test_a_range_that_there_is_not_is_refused(objects: Objects, start: int, end: int | None, field: str) -> None:
    await objects.put("uploads", "a", b"0123456789")

    error = await raised(objects.get("uploads", "a", start=start, end=end))

    assert (type(error), error.field) == (InvalidArgument, field)


async def test_an_empty_object_has_empty_ranges(objects: Objects) -> None:
    await objects.put("uploads", "a", b"")

    assert await objects.get("uploads", "a", end=5) == b""
    assert await objects.get("uploads", "a", start=-5) == b""
    assert (await raised(objects.get("uploads", "a", start=1))).field == "start"


async def test_what_is_absent_is_not_found(objects: Objects) -> None:
    calls = [
        objects.get("uploads", "absent"),
        objects.stat("uploads", "absent"),
        objects.copy("uploads", "absent", "b"),
        objects.get("absent", "a"),
        objects.list_parts("uploads", "a", "absent").__anext__(),
        objects.upload_part("uploads", "a", "absent", 1, b"x"),
    ]

    assert [type(await raised(call)) for call in calls] == [NotFound] * len(calls)
    assert not await objects.exists("uploads", "absent")
    await objects.delete("uploads", "absent")  # is deleted already


@pytest.mark.parametrize(
    "key",
    [
        *("", "/a", "a/", "a//b", "../a", "a/../b", "a/.", ".", "a\0b", "a\nb", "a__XLDIR__", "\uffff"),
        *("x" * 256, "é" * 128, "/".join(["y" * 200] * 6)),
    ],
)
async def test_a_key_that_stores_read_differently_is_refused(objects: Objects, key: str) -> None:
    calls = [
        objects.put("uploads", key, b"x"),
        objects.get("uploads", key),
        objects.stat("uploads", key),
        objects.delete("uploads", key),
        objects.copy("uploads", key, "b"),
        objects.presign_get("uploads", key),
        objects.presign_put("uploads", key),
        objects.presign_post("uploads", key, max_size=5),
        objects.create_multipart_upload("uploads", key),
    ]

    for call in calls:
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, "key")
    assert await keys_of(objects, "uploads") == []


KEYS = [
    "a b+c%2f?#&=",
    "é/e\u0301",
    "..a",
    ".hidden",
    "-",
    "日本語/😀",
    "back\\slash",
    "x" * 255,
    "~!*'();:@,$[]",
    "'",
    "<&>",
]


async def test_any_other_key_is_itself(objects: Objects) -> None:
    for number, key in enumerate(KEYS):
        await objects.put("uploads", key, str(number).encode())

    assert await keys_of(objects, "uploads") == sorted(KEYS, key=str.encode)
    for number, key in enumerate(KEYS):
        assert await objects.get("uploads", key) == str(number).encode()
        assert (await objects.copy("uploads", key, f"copies/{key}")).size == len(str(number))
    assert await objects.delete_many("uploads", KEYS) == [None] * len(KEYS)
    assert await keys_of(objects, "uploads") == sorted((f"copies/{key}" for key in KEYS), key=str.encode)


async def test_a_key_is_an_object_or_the_beginning_of_others(objects: Objects) -> None:
    await objects.put("uploads", "a/b", b"x")

    for call in (
        objects.put("uploads", "a", b"x"),
        objects.put("uploads", "a/b/c/d", b"x"),
        objects.copy("uploads", "a/b", "a"),
        objects.presign_put("uploads", "a/b/c"),
        objects.create_multipart_upload("uploads", "a"),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (FailedPrecondition, "key")
    await objects.put("uploads", "a/bc", b"x")
    await objects.put("uploads", "ab", b"x")
    assert await keys_of(objects, "uploads") == ["a/b", "a/bc", "ab"]


@pytest.mark.parametrize(
    ("metadata", "content_type", "field"),
    [
        ({"Upper": "x"}, "", "metadata"),
        ({"with space": "x"}, "", "metadata"),
        ({"isa-sha256": "x"}, "", "metadata"),
        ({"": "x"}, "", "metadata"),
        ({"a": "x" * 2048}, "", "metadata"),
        ({"a": "é" * 400}, "", "metadata"),
        ({}, "text", "content_type"),
        ({}, "text/plain\r\nx: y", "content_type"),
        ({}, "text/" + "x" * 300, "content_type"),
    ],
)
async def test_properties_that_a_header_cannot_carry_are_refused(
    objects: Objects, metadata: dict[str, str], content_type: str, field: str
) -> None:
    for call in (
        objects.put("uploads", "a", b"x", metadata=metadata, content_type=content_type),
        objects.create_multipart_upload("uploads", "a", metadata=metadata, content_type=content_type),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, field)


# Conditions


@pytest.mark.parametrize("size", [3, 9 * MIB])
async def test_only_if_absent(objects: Objects, size: int) -> None:
    await objects.put("uploads", "a", b"x" * size, if_absent=True)

    with pytest.raises(AlreadyExists):
        await objects.put("uploads", "a", b"y" * size, if_absent=True)

    assert await objects.get("uploads", "a") == b"x" * size


@pytest.mark.parametrize("size", [3, 9 * MIB])
async def test_only_if_it_is_the_same(objects: Objects, size: int) -> None:
    first = await objects.put("uploads", "a", b"1" * size)

    second = await objects.put("uploads", "a", b"2" * size, if_match=first.etag)

    for call in (
        objects.put("uploads", "a", b"3" * size, if_match=first.etag),
        objects.put("uploads", "absent", b"3" * size, if_match=first.etag),
        objects.copy("uploads", "a", "b", if_match=first.etag),
        anext(objects.read("uploads", "a", if_match=first.etag)),
        anext(objects.read("uploads", "a", if_none_match=second.etag)),
    ):
        assert type(await raised(call)) is PreconditionFailed
    assert await anext(objects.read("uploads", "a", if_match=second.etag, if_none_match=first.etag, end=1)) == b"2"


async def test_of_many_at_once_only_one_is_first(objects: Objects) -> None:
    calls = (objects.put("uploads", "a", str(n).encode(), if_absent=True) for n in range(8))

    ends = await asyncio.gather(*calls, return_exceptions=True)

    assert [type(end) for end in ends if not isinstance(end, ObjectInfo)] == [AlreadyExists] * 7


async def test_an_etag_is_one(objects: Objects) -> None:
    for call in (
        objects.put("uploads", "a", b"x", if_match='"quoted"'),
        objects.copy("uploads", "a", "b", if_match="*"),
        anext(objects.read("uploads", "a", if_none_match="a\r\nb: c")),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, "etag")


# Checksums, and streams that do not keep to the order


async def test_a_sha256_is_checked_and_kept(objects: Objects) -> None:
    data = os.urandom(9 * MIB)
    digest = hashlib.sha256(data).digest()

    await objects.put("uploads", "a", data, sha256=digest)
    copied = await objects.copy("uploads", "a", "b", metadata={"v": "2"})

    assert (await objects.stat("uploads", "a")).sha256 == digest == copied.sha256
    for wrong in (data[1:], data[:-1] + bytes([data[-1] ^ 1])):
        error = await raised(objects.put("uploads", "c", wrong, sha256=digest))
        assert (type(error), error.field) == (InvalidArgument, "sha256")
    assert (await raised(objects.put("uploads", "c", data, sha256=b"short"))).field == "sha256"
    assert not await objects.exists("uploads", "c")


def header(**fields: object) -> pb.UploadRequest:
    return pb.UploadRequest(header=pb.UploadHeader(bucket="uploads", key="a", **fields))


def data(size: int = 5) -> pb.UploadRequest:
    return pb.UploadRequest(data=b"x" * size)


def finish(size: int = 5, **fields: int) -> pb.UploadRequest:
    return pb.UploadRequest(finish=pb.Finish(size=size, **fields))


@pytest.mark.parametrize(
    ("requests", "field"),
    [
        ([], "header"),
        ([data()], "header"),
        ([pb.UploadRequest()], "header"),
        ([header()], "finish"),
        ([header(), data()], "finish"),
        ([header(), *[data(MIB)] * 9], "finish"),
        ([header(), header(), data(), finish()], "data"),
        ([header(), data(), finish(), data()], "finish"),
        ([header(), data(), finish(4)], "finish.size"),
        ([header(), *[data(MIB)] * 9, finish(MIB)], "finish.size"),
        ([header(), data(), finish(5, crc32=1)], "finish.crc32"),
        ([header(size=4), data(), finish()], "size"),
        ([header(size=6), data(), finish()], "size"),
        ([header(size=-1), finish(0)], "size"),
        ([header(size=1 << 60), finish(0)], "size"),
    ],
)
async def test_a_stream_out_of_order_stores_nothing(
    objects: Objects, requests: list[pb.UploadRequest], field: str
) -> None:
    async def sent() -> AsyncIterator[pb.UploadRequest]:
        for request in requests:
            yield request

    error = await raised(objects._transport.collect(objects._methods["Upload"], sent()))

    assert (type(error), error.field) == (InvalidArgument, field)
    assert await keys_of(objects, "uploads") == []


async def test_an_upload_whose_source_fails_stores_nothing(objects: Objects) -> None:
    async def failing() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * MIB
        raise LookupError("the source is gone")

    with pytest.raises(LookupError):
        await objects.put("uploads", "a", failing())

    assert await keys_of(objects, "uploads") == []


# Lists


@pytest.mark.ac("isa-cloud-prd:E4-US2:AC-2.3")
@pytest.mark.parametrize("limit", [1, 2, 3, 100])
async def test_pages_neither_lose_nor_repeat_an_object(objects: Objects, limit: int) -> None:
    keys = sorted([f"p/{n:02}" for n in range(7)] + ["a", "p-", "q", "p0", "é", "Z"], key=str.encode)
    await asyncio.gather(*(objects.put("uploads", key, key.encode()) for key in keys))

    found, cursor = [], ""
    while True:
        page = await objects.page("uploads", limit=limit, cursor=cursor)
        assert len(page.objects) <= limit
        found += page.objects
        cursor = page.next_cursor
        if not cursor:
            break

    assert [each.key for each in found] == keys
    assert [each.size for each in found] == [len(key.encode()) for key in keys]


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_a_delimiter_makes_folders(objects: Objects, limit: int) -> None:
    for key in ("a", "b/1", "b/2", "b/c/3", "d/4", "e"):
        await objects.put("uploads", key, b"x")

    async def everything(prefix: str) -> tuple[list[str], list[str]]:
        keys, folders, cursor = [], [], ""
        while True:
            page = await objects.page("uploads", prefix, delimiter="/", limit=limit, cursor=cursor)
            keys += [each.key for each in page.objects]
            folders += page.prefixes
            cursor = page.next_cursor
            if not cursor:
                return keys, folders

    assert await everything("") == (["a", "e"], ["b/", "d/"])
    assert await everything("b/") == (["b/1", "b/2"], ["b/c/"])
    assert await everything("b") == ([], ["b/"])


async def test_a_prefix_is_taken_as_it_is(objects: Objects) -> None:
    for key in ("a", "ab", "a-b/c", "b", "*"):
        await objects.put("uploads", key, b"x")

    for prefix, expected in {
        "a": ["a", "a-b/c", "ab"],
        "a-b/": ["a-b/c"],
        "*": ["*"],
        "": ["*", "a", "a-b/c", "ab", "b"],
    }.items():
        assert await keys_of(objects, "uploads", prefix) == expected
    for prefix in ("/", "../", "a//", "./", "a/../", "\u00e9", "zzz"):
        assert await keys_of(objects, "uploads", prefix) == []
    assert (await raised(objects.page("uploads", "a\0"))).field == "prefix"


async def test_a_cursor_serves_only_its_own_list(objects: Objects) -> None:
    await objects.create_bucket("other")
    for key in ("a", "b", "c"):
        await objects.put("uploads", key, b"x")
    cursor = (await objects.page("uploads", limit=1)).next_cursor

    for call in (
        objects.page("other", cursor=cursor),
        objects.page("uploads", "a", cursor=cursor),
        objects.page("uploads", delimiter="/", cursor=cursor),
        objects.page("uploads", cursor="garbage"),
        objects.page("uploads", cursor="AAAA"),
        objects.page("uploads", cursor=cursor[:8]),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, "cursor")


@pytest.mark.parametrize(
    ("options", "field"), [({"limit": 1001}, "limit"), ({"limit": -1}, "limit"), ({"delimiter": "-"}, "delimiter")]
)
async def test_a_wrong_list_is_told_by_its_field(objects: Objects, options: dict[str, object], field: str) -> None:
    assert (await raised(objects.page("uploads", **options))).field == field


# Copy and delete


async def test_a_copy_has_its_sources_bytes_and_properties_or_new_ones(objects: Objects) -> None:
    await objects.create_bucket("other")
    await objects.put("uploads", "a", b"hello", content_type="text/plain", metadata={"who": "Zoë"})

    same = await objects.copy("uploads", "a", "b/c", target_bucket="other")
    new = await objects.copy("uploads", "a", "d", content_type="text/html", metadata={"who": "Ann"})
    own = await objects.copy("uploads", "a", "a", metadata={"v": "2"})

    assert await objects.get("other", "b/c") == b"hello" == await objects.get("uploads", "d")
    for found, info in ((await objects.stat("other", "b/c"), same), (await objects.stat("uploads", "d"), new)):
        assert (found.size, found.etag, found.content_type, found.metadata) == (
            info.size,
            info.etag,
            info.content_type,
            info.metadata,
        )
    assert (same.content_type, same.metadata) == ("text/plain", {"who": "Zoë"})
    assert (new.content_type, new.metadata) == ("text/html", {"who": "Ann"})
    assert (own.content_type, own.metadata) == ("application/octet-stream", {"v": "2"})
    assert (await raised(objects.copy("uploads", "a", "a"))).field == "target_key"
    assert (await raised(objects.copy("uploads", "a", "../a"))).field == "target_key"
    assert (await raised(objects.copy("uploads", "a", "a", target_bucket="A"))).field == "target_bucket"


@pytest.mark.ac("isa-cloud-prd:E4-US2:AC-2.4")
async def test_a_deleted_object_is_gone(objects: Objects) -> None:
    await objects.put("uploads", "a", b"x")

    await objects.delete("uploads", "a")

    assert isinstance(await raised(objects.get("uploads", "a")), NotFound)
    await objects.delete("uploads", "a")


async def test_many_are_deleted_with_an_outcome_each(objects: Objects) -> None:
    for key in ("a", "b/c", "d"):
        await objects.put("uploads", key, b"x")

    outcomes = await objects.delete_many("uploads", ["a", "../x", "absent", "b/c", "a"])

    assert [type(outcome) for outcome in outcomes] == [type(None), InvalidArgument, type(None), type(None), type(None)]
    assert await keys_of(objects, "uploads") == ["d"]
    assert [type(each) for each in await objects.delete_many("absent", ["a"])] == [NotFound]
    assert (await raised(objects.delete_many("uploads", ["a"] * 1001))).field == "requests"


async def test_many_are_told_of_with_an_outcome_each(objects: Objects) -> None:
    await objects.put("uploads", "a", b"12345")

    found, absent, wrong = await objects.stat_many("uploads", ["a", "absent", "/"])

    assert isinstance(found, ObjectInfo)
    assert found.size == 5
    assert isinstance(absent, NotFound)
    assert isinstance(wrong, InvalidArgument)
    assert wrong.field == "key"
    assert (await raised(objects.stat_many("uploads", ["a"] * 257))).field == "requests"


async def test_calls_of_one_moment_go_together_and_fail_alone(objects: Objects) -> None:
    for key in ("a", "b"):
        await objects.put("uploads", key, key.encode())

    ends = await asyncio.gather(
        objects.stat("uploads", "a"),
        objects.stat("uploads", "absent"),
        objects.copy("uploads", "a", "c"),
        objects.copy("uploads", "absent", "d"),
        objects.delete("uploads", "b"),
        objects.delete("uploads", ".."),
        objects.presign_get("uploads", "a"),
        objects.presign_get("absent", "a"),
        objects.presign_put("uploads", "e"),
        objects.presign_put("uploads", "a/b"),
        objects.presign_post("uploads", "e", max_size=1),
        objects.presign_post("uploads", "e", max_size=0),
        return_exceptions=True,
    )

    assert [type(end) for end in ends[1::2]] == [
        NotFound,
        NotFound,
        InvalidArgument,
        NotFound,
        FailedPrecondition,
        InvalidArgument,
    ]
    assert not any(isinstance(end, BaseException) for end in ends[::2])
    assert await keys_of(objects, "uploads") == ["a", "c"]


# Uploads in parts


async def test_an_upload_in_parts_goes_on_after_a_break(objects: Objects) -> None:
    pieces = [os.urandom(5 * MIB), os.urandom(6 * MIB), b"the end"]
    upload_id = await objects.create_multipart_upload("uploads", "a", content_type="text/plain", metadata={"v": "1"})
    await objects.upload_part("uploads", "a", upload_id, 1, pieces[0])
    await objects.upload_part("uploads", "a", upload_id, 7, b"a mistake")
    assert await keys_of(objects, "uploads") == []

    there = {part.number: part async for part in objects.list_parts("uploads", "a", upload_id)}
    assert {number: part.size for number, part in there.items()} == {1: 5 * MIB, 7: 9}
    there[5] = await objects.upload_part("uploads", "a", upload_id, 5, pieces[1])
    there[7] = await objects.upload_part("uploads", "a", upload_id, 7, pieces[2])
    info = await objects.complete_multipart_upload("uploads", "a", upload_id, [there[n] for n in (1, 5, 7)])

    assert await objects.get("uploads", "a") == b"".join(pieces)
    assert (info.size, info.content_type, info.metadata) == (sum(map(len, pieces)), "text/plain", {"v": "1"})
    error = await raised(objects.complete_multipart_upload("uploads", "a", upload_id, [there[1]]))
    assert isinstance(error, NotFound)


async def test_an_upload_that_is_given_up_is_gone(objects: Objects) -> None:
    upload_id = await objects.create_multipart_upload("uploads", "a")
    part = await objects.upload_part("uploads", "a", upload_id, 1, b"x")

    await objects.abort_multipart_upload("uploads", "a", upload_id)

    for call in (
        objects.upload_part("uploads", "a", upload_id, 2, b"x"),
        objects.complete_multipart_upload("uploads", "a", upload_id, [part]),
        anext(objects.list_parts("uploads", "a", upload_id)),
    ):
        assert isinstance(await raised(call), NotFound)
    await objects.abort_multipart_upload("uploads", "a", upload_id)


async def test_an_upload_is_of_one_key_and_one_organisation(objects: Objects, as_person: As) -> None:
    other = as_person(fresh_org()).objects
    await other.create_bucket("uploads")
    upload_id = await objects.create_multipart_upload("uploads", "a")
    part = await objects.upload_part("uploads", "a", upload_id, 1, b"secret")

    for there, key in ((objects, "b"), (other, "a")):
        for call in (
            there.upload_part("uploads", key, upload_id, 1, b"x"),
            there.complete_multipart_upload("uploads", key, upload_id, [part]),
            anext(there.list_parts("uploads", key, upload_id)),
        ):
            assert isinstance(await raised(call), NotFound)
        await there.abort_multipart_upload("uploads", key, upload_id)
    assert [each.size async for each in objects.list_parts("uploads", "a", upload_id)] == [6]
    await objects.abort_multipart_upload("uploads", "a", upload_id)
    await clear(other)


async def test_parts_that_do_not_make_an_object_are_refused(objects: Objects) -> None:
    upload_id = await objects.create_multipart_upload("uploads", "a")
    one = await objects.upload_part("uploads", "a", upload_id, 1, b"small")
    two = await objects.upload_part("uploads", "a", upload_id, 2, b"small")

    for parts in (
        [],
        [two, one],
        [one, one],
        [one, two],
        [client.Part(1, 5, two.etag * 2)],
        [client.Part(3, 5, one.etag)],
    ):
        error = await raised(objects.complete_multipart_upload("uploads", "a", upload_id, parts))
        assert (type(error), error.field) == (InvalidArgument, "parts")
    for number, body, field in ((0, b"x", "number"), (10_001, b"x", "number"), (1, b"x" * (16 * MIB + 1), "size")):
        error = await raised(objects.upload_part("uploads", "a", upload_id, number, body))
        assert (type(error), error.field) == (InvalidArgument, field)
    for wrong in ("", "../x", "a b", "é"):
        assert (await raised(objects.upload_part("uploads", "a", wrong, 1, b"x"))).field == "upload_id"
    await objects.abort_multipart_upload("uploads", "a", upload_id)


async def test_parts_become_an_object_only_under_its_condition(objects: Objects) -> None:
    present = await objects.put("uploads", "a", b"present")
    upload_id = await objects.create_multipart_upload("uploads", "a")
    part = await objects.upload_part("uploads", "a", upload_id, 1, b"new")

    with pytest.raises(AlreadyExists):
        await objects.complete_multipart_upload("uploads", "a", upload_id, [part], if_absent=True)
    with pytest.raises(PreconditionFailed):
        await objects.complete_multipart_upload("uploads", "a", upload_id, [part], if_match="0" * 32)
    await objects.complete_multipart_upload("uploads", "a", upload_id, [part], if_match=present.etag)

    assert await objects.get("uploads", "a") == b"new"


# Presigned; what they do over HTTP is in tests/attack/test_presigned.py


@pytest.mark.ac("isa-cloud-prd:E4-US2:AC-2.5")
async def test_a_signature_holds_for_15_minutes_or_as_long_as_asked(objects: Objects) -> None:
    signed = await objects.presign_get("uploads", "a")
    longer = await objects.presign_put("uploads", "a", expires_in=timedelta(days=7), size=5, content_type="text/plain")
    form = await objects.presign_post("uploads", "a", max_size=5, expires_in=timedelta(seconds=30))

    now = datetime.now(UTC)
    for each, wanted in ((signed, 900), (longer, 7 * 86_400), (form, 30)):
        assert abs((each.expires_at - now).total_seconds() - wanted) < 5
    assert "X-Amz-Signature" in signed.url
    assert longer.headers == {"Content-Length": "5", "Content-Type": "text/plain"}
    assert form.fields["key"] == "a"


@pytest.mark.parametrize("seconds", [-1, 0, 7 * 86_400 + 1, 10**11])
async def test_a_signature_of_no_sensible_length_is_refused(objects: Objects, seconds: int) -> None:
    expires_in = timedelta(seconds=seconds)

    for call in (
        objects.presign_get("uploads", "a", expires_in=expires_in),
        objects.presign_put("uploads", "a", expires_in=expires_in),
        objects.presign_post("uploads", "a", max_size=1, expires_in=expires_in),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, "expires_in")


async def test_conditions_that_make_no_sense_are_refused(objects: Objects) -> None:
    for call, field in (
        (objects.presign_put("uploads", "a", size=-1), "size"),
        (objects.presign_put("uploads", "a", content_type="text"), "content_type"),
        (objects.presign_put("uploads", "a", sha256=b"short"), "sha256"),
        (objects.presign_post("uploads", "a", max_size=0), "max_size"),
        (objects.presign_post("uploads", "a", min_size=6, max_size=5), "max_size"),
        (objects.presign_post("uploads", prefix="../", max_size=5), "prefix"),
        (objects.presign_post("uploads", "a", max_size=5, content_type="text"), "content_type"),
        (objects.presign_get("uploads", "a", download_as="a/b"), "download_as"),
        (objects.presign_get("uploads", "a", download_as="a\r\nb: c"), "download_as"),
        (objects.presign_get("uploads", "a", content_type="text\r\nb: c"), "content_type"),
    ):
        error = await raised(call)
        assert (type(error), error.field) == (InvalidArgument, field)


# Shares; the cloud in memory has none


@pytest_asyncio.fixture
async def small(engines: Engines) -> AsyncIterator[Objects]:
    """The objects of an organisation that may store 10 MiB, and have 2 buckets."""
    from services.adapters.minio.app import Settings, create_app

    shares = Shares(Limits(bytes=10 * MIB))
    settings = Settings(url=f"http://{engines.address('minio')}", buckets=2)
    adapter = create_app(settings, FakeParts(Secrets(engines.secrets), shares))
    shares.stored = adapter.implementation.stored
    async with serving(adapter, shares=shares) as address, person(address, fresh_org()) as isa:
        await isa.objects.create_bucket("uploads")
        yield isa.objects
        await clear(isa.objects)


async def test_what_is_beyond_the_share_is_refused_before_it_is_sent(small: Objects) -> None:
    await small.put("uploads", "a", b"x" * 4 * MIB)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * MIB

    with pytest.raises(ResourceExhausted):
        await small.put("uploads", "b", b"x" * 7 * MIB)
    with pytest.raises(ResourceExhausted):
        await small.copy("uploads", "a", "c", metadata={}) and await small.copy("uploads", "a", "d")
    with pytest.raises(ResourceExhausted):
        await small.put("uploads", "e", endless())
    with pytest.raises(ResourceExhausted):
        await small.presign_put("uploads", "f", size=11 * MIB)
    assert await keys_of(small, "uploads") == ["a", "c"]


async def test_parts_of_an_unfinished_upload_count(small: Objects) -> None:
    upload_id = await small.create_multipart_upload("uploads", "a")
    await small.upload_part("uploads", "a", upload_id, 1, b"x" * 6 * MIB)

    with pytest.raises(ResourceExhausted):
        await small.upload_part("uploads", "a", upload_id, 2, b"x" * 6 * MIB)

    await small.abort_multipart_upload("uploads", "a", upload_id)


async def test_an_organisation_has_so_many_buckets(small: Objects) -> None:
    await small.create_bucket("second")

    with pytest.raises(ResourceExhausted):
        await small.create_bucket("third")


async def test_a_bucket_that_nobody_tagged_is_nobodys(engines: Engines, address: str) -> None:
    from tests.conformance.stores import store

    org = fresh_org()
    async with store(engines) as s3, person(address, org) as isa:
        await s3.create_bucket(Bucket=f"{org}-uploads")
        await s3.put_object(Bucket=f"{org}-uploads", Key="a", Body=b"x")

        assert await isa.objects.list_buckets() == []
        assert isinstance(await raised(isa.objects.get("uploads", "a")), NotFound)
        assert isinstance(await raised(isa.objects.create_bucket("uploads")), AlreadyExists)

        await s3.delete_object(Bucket=f"{org}-uploads", Key="a")
        await isa.objects.create_bucket("uploads")  # as after a crash before the tag
        await clear(isa.objects)


async def test_a_failed_upload_leaves_no_parts(engines: Engines, address: str) -> None:
    from tests.conformance.stores import store, uploads

    org = fresh_org()

    async def failing() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * MIB
        raise LookupError("the source is gone")

    async with store(engines) as s3, person(address, org) as isa:
        await isa.objects.create_bucket("uploads")
        with pytest.raises(LookupError):
            await isa.objects.put("uploads", "a", failing())
        with pytest.raises(InvalidArgument):
            await isa.objects.put("uploads", "a", b"x" * 9 * MIB, sha256=bytes(32))

        async with asyncio.timeout(10):
            while await uploads(s3, f"{org}-uploads"):
                await asyncio.sleep(0.02)
        await clear(isa.objects)
