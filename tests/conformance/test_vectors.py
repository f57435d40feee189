"""What `isa.vectors.v1` promises: in memory, on the embedded engine, and on a server's client in its local mode."""

from __future__ import annotations

import asyncio
import math
import uuid
from array import array
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from isa_common import (
    AlreadyExists,
    FailedPrecondition,
    Filter,
    GeoBox,
    GeoRadius,
    HasId,
    IndexType,
    InvalidArgument,
    Isa,
    IsaError,
    IsEmpty,
    IsNull,
    Match,
    MatchAny,
    MatchExcept,
    MatchText,
    Metric,
    Nested,
    NotFound,
    Point,
    Range,
    ResourceExhausted,
    SparseVector,
    VectorParams,
    Vectors,
)
from isa_common._vectors import Condition
from tests.conformance.conftest import Clients, FakeParts, Secrets, clients_of, serving

LOCAL = ":memory:"
"""The server's client, answering by itself: it has every call, and no payload indexes."""


@pytest_asyncio.fixture(params=["fake", "embedded", "server"])
async def clients(request: pytest.FixtureRequest, tmp_path: Path, opened: list[Isa]) -> AsyncIterator[Clients]:
    """Clients of the cloud in memory, and of an adapter with each backend."""
    if request.param == "fake":
        yield clients_of(opened)
        return
    from services.adapters.qdrant.app import Settings, create_app

    settings = Settings(folder=tmp_path, workers=1, spare=0, url=LOCAL if request.param == "server" else "")
    async with serving(create_app(settings, FakeParts(Secrets({})))) as address:
        yield clients_of(opened, address)


@pytest.fixture
def has_indexes(request: pytest.FixtureRequest) -> None:
    """Skips the backend that has no payload indexes."""
    if request.node.callspec.params["clients"] == "server":
        pytest.skip("the local mode of the server's client has no payload indexes")


def fresh_org() -> str:
    return f"org-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def vectors(as_person: Callable[..., Isa]) -> Vectors:
    """The vectors of a fresh organisation."""
    return as_person(fresh_org()).vectors


@pytest_asyncio.fixture
async def shop(vectors: Vectors) -> Vectors:
    """A collection `shop` of five things with payloads."""
    await vectors.create_collection("shop", dimension=2, metric="dot")
    things = [
        {"name": "cup", "price": 5, "tags": ["blue", "small"], "open": True, "at": "2026-01-01T00:00:00Z"},
        {"name": "pot", "price": 20.5, "tags": ["red"], "open": False, "at": "2026-02-01T12:00:00+02:00"},
        {"name": "jug", "price": 12, "tags": [], "place": {"lon": 13.4, "lat": 52.5}, "note": None},
        {"name": "mug", "price": -1, "place": {"lon": -0.1, "lat": 51.5}, "made": {"by": "ann", "in": 1999}},
        {"parts": [{"kind": "lid", "size": 2}, {"kind": "cap", "size": 9}], "k.d": {"x": 1}},
    ]
    await vectors.upsert("shop", [Point(at, [at, 1], thing) for at, thing in enumerate(things)])
    return vectors


async def taken(vectors: Vectors, *must: Condition, **parts: list[Condition]) -> list[object]:
    """Ids that a filter takes in the collection `shop`."""
    return [point.id async for point in vectors.scroll("shop", filter=Filter(must=must, **parts))]


def near(*numbers: float) -> object:
    return pytest.approx(list(numbers), rel=1e-5, abs=1e-6)


# Collections.


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.1")
@pytest.mark.parametrize("metric", Metric)
async def test_a_collection_has_a_dimension_and_a_metric(vectors: Vectors, metric: Metric) -> None:
    await vectors.create_collection("docs", dimension=3, metric=metric)

    found = await vectors.describe_collection("docs")

    assert (found.vector, found.vectors, found.sparse) == (VectorParams(3, metric), {}, [])
    assert (found.points, found.indexes) == (0, {})


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.1")
async def test_a_collection_has_named_and_sparse_vectors(vectors: Vectors) -> None:
    named = {"title": VectorParams(2), "image": VectorParams(3, Metric.EUCLID)}

    await vectors.create_collection("docs", vectors=named, sparse=["words"])

    found = await vectors.describe_collection("docs")
    assert (found.vector, found.vectors, found.sparse) == (None, named, ["words"])


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.2")
async def test_collections_are_listed_by_name(vectors: Vectors) -> None:
    for name in ("zoo", "größe / 😀.*", "a" * 128, "Zoo"):
        await vectors.create_collection(name, dimension=1)

    assert await vectors.list_collections() == sorted(["zoo", "größe / 😀.*", "a" * 128, "Zoo"])


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.3")
async def test_a_deleted_collection_is_gone_with_its_points(shop: Vectors) -> None:
    await shop.delete_collection("shop")

    assert await shop.list_collections() == []
    for gone in (shop.count("shop"), shop.delete_collection("shop"), shop.search("shop", [1, 1])):
        with pytest.raises(NotFound):
            await gone
    await shop.create_collection("shop", dimension=9)
    assert await shop.count("shop") == 0


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.4")
async def test_an_organisation_sees_nothing_of_another(as_person: Callable[..., Isa]) -> None:
    ours, theirs = as_person(fresh_org()).vectors, as_person(fresh_org()).vectors
    await ours.create_collection("docs", dimension=2)
    await ours.upsert("docs", [Point(1, [1, 0], {"secret": "x"})])

    assert await theirs.list_collections() == []
    for refused in (
        theirs.search("docs", [1, 0]),
        theirs.get("docs", [1]),
        theirs.count("docs"),
        theirs.recommend("docs", positive=[1]),
        theirs.delete("docs", ids=[1]),
        theirs.delete_collection("docs"),
        anext(theirs.scroll("docs")),
    ):
        with pytest.raises(NotFound):
            await refused
    await theirs.create_collection("docs", dimension=2)
    assert await theirs.search("docs", [1, 0]) == []
    with pytest.raises(NotFound):
        await theirs.recommend("docs", positive=[1])
    await theirs.delete_collection("docs")
    assert await ours.count("docs") == 1


@pytest.mark.ac("isa-cloud-prd:E5-US1:AC-1.4")
async def test_people_of_an_organisation_share_its_collections(as_person: Callable[..., Isa]) -> None:
    org = fresh_org()
    await as_person(org, "user-1").vectors.create_collection("docs", dimension=2)

    assert await as_person(org, "user-2").vectors.list_collections() == ["docs"]


async def test_a_workload_has_collections_of_its_own_and_acts_for_others(
    as_workload: Callable[..., Isa], as_person: Callable[..., Isa]
) -> None:
    org = fresh_org()
    program = as_workload("shop").vectors
    await program.create_collection("own", dimension=1)
    await program.acting_for(org=org).create_collection("theirs", dimension=1)

    assert await program.list_collections() == ["own"]
    assert await as_person(org).vectors.list_collections() == ["theirs"]


async def test_a_name_is_taken_once(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2)

    with pytest.raises(AlreadyExists) as refusal:
        await vectors.create_collection("docs", dimension=3)

    assert refusal.value.field == "collection"


@pytest.mark.parametrize("name", ["", "a\0b", "line\nbreak", "é" * 65])
async def test_a_bad_name_is_refused_everywhere(vectors: Vectors, name: str) -> None:
    for refused in (
        vectors.create_collection(name, dimension=2),
        vectors.search(name, [1]),
        vectors.upsert(name, [Point(1, [1])]),
        vectors.delete_collection(name),
        vectors.count(name),
    ):
        with pytest.raises(InvalidArgument) as refusal:
            await refused
        assert refusal.value.field == "collection"


async def test_bad_parameters_of_a_collection_are_refused(vectors: Vectors) -> None:
    bad: list[tuple[dict[str, object], str]] = [
        ({}, "params.vector"),
        ({"dimension": 65_537}, "params.vector.dimension"),
        ({"vectors": {"a": VectorParams(0)}}, "params.vectors.a.dimension"),
        ({"vectors": {"a b": VectorParams(1)}}, "params.vectors"),
        ({"vectors": {"a": VectorParams(1)}, "sparse": ["a"]}, "params.sparse_vectors"),
        ({"dimension": 1, "vectors": {"a": VectorParams(1)}}, "params.vectors"),
        ({"sparse": [f"s{n}" for n in range(17)]}, "params.vectors"),
    ]
    for options, where in bad:
        with pytest.raises(InvalidArgument) as refusal:
            await vectors.create_collection("docs", **options)  # type: ignore[arg-type]
        assert refusal.value.field == where
    assert await vectors.list_collections() == []


# Points.


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.1")
async def test_a_point_comes_back_with_its_vector_and_payload(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=3, metric="dot")
    payload = {"text": "naïve\0 “😀”", "n": [1, 2.5, None, True, {"deep": {"er": "x"}}], "big": 2**63 - 1, "": 0}
    key = uuid.uuid4()

    await vectors.upsert(
        "docs", [Point(2**64 - 1, [0.5, -1, 1e-20], payload), Point(key, (1, 2, 3)), Point(0, [0, 0, 0])]
    )

    one, two, three = await vectors.get("docs", [2**64 - 1, str(key).upper(), 0], with_vectors=True)
    assert (one.id, one.payload, list(one.vector)) == (2**64 - 1, payload, near(0.5, -1, 1e-20))
    assert (two.id, two.payload, list(two.vector)) == (key, {}, [1, 2, 3])
    assert (three.id, list(three.vector)) == (0, [0, 0, 0])


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.1")
async def test_a_point_is_replaced_whole_and_of_one_request_the_last_stays(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=1, metric="dot")
    await vectors.upsert("docs", [Point(1, [1], {"a": 1, "b": 1})])

    await vectors.upsert("docs", [Point(1, [2], {"a": 2}), Point(1, [3], {"c": 3})])

    (point,) = await vectors.get("docs", [1], with_vectors=True)
    assert (point.payload, list(point.vector)) == ({"c": 3}, [3])
    assert await vectors.count("docs") == 1


async def test_vectors_come_as_lists_arrays_and_memory(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2, metric="euclid")
    given = [
        [1, 2],
        (1, 2),
        array("f", [1, 2]),
        array("d", [1, 2]),
        memoryview(array("f", [1, 2])),
        array("f", [1, 2]).tobytes(),
    ]

    await vectors.upsert("docs", (Point(at, vector) for at, vector in enumerate(given)))

    found = await vectors.get("docs", range(6), with_vectors=True)
    assert [list(point.vector) for point in found] == [[1, 2]] * 6
    for vector in given:
        assert {hit.score for hit in await vectors.search("docs", vector)} == {0}


async def test_many_points_are_sent_in_parts(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2)

    await vectors.upsert("docs", (Point(n, [n, 1], {"n": n}) for n in range(2500)))

    assert await vectors.count("docs") == 2500
    ids = [point.id async for point in vectors.scroll("docs", page=999, with_payload=False)]
    assert ids == list(range(2500))


async def test_named_and_sparse_vectors_are_kept_and_searched_apart(vectors: Vectors) -> None:
    await vectors.create_collection(
        "docs",
        vectors={"title": VectorParams(2, Metric.DOT), "image": VectorParams(1, Metric.EUCLID)},
        sparse=["words"],
    )
    await vectors.upsert(
        "docs",
        [
            Point(1, {"title": [1, 0], "image": [5], "words": SparseVector([7, 3], [0.5, 2])}),
            Point(2, {"title": [0, 1], "words": SparseVector([3], [1])}),
            Point(3, {"image": [4]}),
        ],
    )

    (one,) = await vectors.get("docs", [1], with_vectors=True)
    assert isinstance(one.vector, dict)
    words = one.vector["words"]
    assert (list(words.indices), list(words.values)) == ([3, 7], [2, 0.5])
    assert (list(one.vector["title"]), list(one.vector["image"])) == ([1, 0], [5])
    assert [(hit.id, hit.score) for hit in await vectors.search("docs", [0, 2], using="title")] == [(2, 2), (1, 0)]
    assert [(hit.id, hit.score) for hit in await vectors.search("docs", [4], using="image")] == [(3, 0), (1, 1)]
    sparse = await vectors.search("docs", SparseVector([3, 9], [3, 1]), using="words")
    assert [(hit.id, hit.score) for hit in sparse] == [(1, 6), (2, 3)]
    assert await vectors.search("docs", SparseVector([8], [1]), using="words") == []


async def test_a_vector_without_a_name_and_sparse_ones_live_together(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2, metric="dot", sparse=["words"])
    await vectors.upsert("docs", [Point(1, {"": [1, 2], "words": SparseVector([1], [1])}), Point(2, [3, 4])])

    one, two = await vectors.get("docs", [1, 2], with_vectors=True)

    assert set(one.vector) == {"", "words"}
    assert list(two.vector) == [3, 4]
    assert [hit.id for hit in await vectors.search("docs", [1, 1])] == [2, 1]


async def test_bad_points_are_refused_and_nothing_of_their_request_is_stored(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2, sparse=["words"])
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"d": deep}
    bad = [
        (Point(1, [1, 2, 3]), "vector"),
        (Point(1, []), "vector"),
        (Point(1), "vector"),
        (Point(1, b"\0\0\0"), "vector"),
        (Point(1, [math.nan, 1]), "vector"),
        (Point(1, [math.inf, -math.inf]), "vector"),
        (Point(1, ["x", "y"]), "vector"),
        (Point(1, {"title": [1, 2]}), "vectors.title"),
        (Point(1, {"words": [1, 2]}), "vectors.words"),
        (Point(1, {"words": SparseVector([1, 1], [1, 2])}), "vectors.words.indices"),
        (Point(1, {"words": SparseVector([], [])}), "vectors.words"),
        (Point(1, {"words": SparseVector([1], [1, 2])}), "vectors.words"),
        (Point("no uuid", [1, 2]), "id"),
        (Point(1, [1, 2], {"text": "x" * (128 << 10)}), "payload"),
        (Point(1, [1, 2], deep), "payload"),
        (Point(1, [1, 2], {"n": math.nan}), "payload"),
    ]
    for point, where in bad:
        with pytest.raises(InvalidArgument) as refusal:
            await vectors.upsert("docs", [Point(7, [1, 2]), point])
        assert refusal.value.field == f"points[1].{where}"
    with pytest.raises(InvalidArgument):
        await vectors.upsert("docs", [Point(-1, [1, 2])])
    assert await vectors.count("docs") == 0


async def test_points_are_deleted_by_id(shop: Vectors) -> None:
    await shop.delete("shop", ids=[0, 3, 99])
    await shop.delete("shop", ids=[0])

    assert await taken(shop) == [1, 2, 4]


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.4")
async def test_points_are_deleted_by_filter(shop: Vectors) -> None:
    await shop.delete("shop", filter=Filter(must=[Range("price", gte=5)]))

    assert await taken(shop) == [3, 4]
    for nothing in ({}, {"filter": Filter()}, {"ids": []}):
        with pytest.raises(InvalidArgument):
            await shop.delete("shop", **nothing)
    assert await shop.count("shop") == 2


async def test_payloads_are_set_replaced_and_cut(shop: Vectors) -> None:
    await shop.set_payload("shop", {"price": 6, "new": [1]}, ids=[0, 99])
    await shop.set_payload("shop", {"only": 1}, filter=Filter(must=[Match("name", "pot")]), replace=True)
    await shop.delete_payload("shop", ["made.by", "place"], ids=[3, 99])
    await shop.delete_payload("shop", ["parts[].size"], filter=Filter(must=[HasId([4])]))

    cup, pot, mug, last = await shop.get("shop", [0, 1, 3, 4])
    assert (cup.payload["name"], cup.payload["price"], cup.payload["new"]) == ("cup", 6, [1])
    assert pot.payload == {"only": 1}
    assert mug.payload == {"name": "mug", "price": -1, "made": {"in": 1999}}
    assert last.payload["parts"] == [{"kind": "lid"}, {"kind": "cap"}]
    assert await shop.count("shop") == 5


async def test_only_the_wanted_fields_come_back(shop: Vectors) -> None:
    (mug,) = await shop.get("shop", [3], with_payload=["made.in", "price", "absent"])
    (hit,) = await shop.search("shop", [1, 1], limit=1, with_payload=False)
    (bare,) = await shop.search("shop", [1, 1], limit=1, filter=Filter(must=[HasId([3])]), with_payload=["name"])

    assert mug.payload == {"made": {"in": 1999}, "price": -1}
    assert mug.vector is None
    assert (hit.payload, hit.vector) == ({}, None)
    assert bare.payload == {"name": "mug"}


# Search.


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.2")
@pytest.mark.parametrize(
    ("metric", "scores"),
    [
        ("cosine", {1: 1.0, 2: 0.6, 3: 0.0}),
        ("dot", {2: 3.0, 1: 2.0, 3: 0.0}),
        ("euclid", {1: 1.0, 3: math.sqrt(2), 2: math.sqrt(20)}),
        ("manhattan", {1: 1.0, 3: 2.0, 2: 6.0}),
    ],
)
async def test_the_nearest_come_first_by_each_metric(vectors: Vectors, metric: str, scores: dict[int, float]) -> None:
    await vectors.create_collection("docs", dimension=2, metric=metric)
    await vectors.upsert("docs", [Point(1, [2, 0]), Point(2, [3, 4]), Point(3, [0, 1])])

    found = await vectors.search("docs", [1, 0])
    exact = await vectors.search("docs", [1, 0], exact=True)

    assert [hit.id for hit in found] == list(scores)
    assert [hit.score for hit in found] == near(*scores.values())
    assert [hit.id for hit in exact] == list(scores)


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.2")
async def test_a_search_has_a_limit_an_offset_and_a_threshold(shop: Vectors) -> None:
    async def ids(**options: object) -> list[object]:
        return [hit.id for hit in await shop.search("shop", [1, 0], **options)]  # type: ignore[arg-type]

    assert await ids(limit=2) == [4, 3]
    assert await ids(limit=2, offset=1) == [3, 2]
    assert await ids(offset=9) == []
    assert await ids(score_threshold=2.5) == [4, 3]


async def test_a_threshold_of_a_distance_is_its_most(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=1, metric="euclid")
    await vectors.upsert("docs", [Point(n, [n]) for n in range(5)])

    assert [hit.id for hit in await vectors.search("docs", [0], score_threshold=1.5)] == [0, 1]


async def test_a_search_brings_vectors_when_asked(shop: Vectors) -> None:
    (hit,) = await shop.search("shop", [1, 0], limit=1, with_vectors=True)

    assert (list(hit.vector), hit.score) == ([4, 1], 4)


async def test_bad_searches_are_refused(shop: Vectors) -> None:
    bad: list[tuple[object, dict[str, object], str]] = [
        ([1], {}, "vector"),
        ([], {}, "vector"),
        ([1, math.nan], {}, "vector"),
        ([1, 2], {"using": "title"}, "using"),
        ([1, 2], {"limit": 1001}, "limit"),
        ([1, 2], {"offset": 10_001}, "offset"),
        ([1, 2], {"score_threshold": math.nan}, "score_threshold"),
        ([1, 2], {"with_payload": ["a..b"]}, "include.payload_fields[0]"),
    ]
    for vector, options, where in bad:
        with pytest.raises(InvalidArgument) as refusal:
            await shop.search("shop", vector, **options)  # type: ignore[arg-type]
        assert refusal.value.field == where


async def test_searches_made_at_the_same_time_have_each_its_own_outcome(shop: Vectors) -> None:
    wanted = [shop.search("shop", [1, 0], limit=n + 1) for n in range(4)]
    odd = [shop.search("absent", [1, 0]), shop.search("shop", [1]), shop.search("\0", [1]), shop.count("shop")]

    *found, absent, bad, unnamed, count = await asyncio.gather(*wanted, *odd, return_exceptions=True)

    assert [[hit.id for hit in hits] for hits in found] == [[4], [4, 3], [4, 3, 2], [4, 3, 2, 1]]
    assert isinstance(absent, NotFound)
    assert isinstance(bad, InvalidArgument)
    assert (unnamed.field, bad.field) == ("collection", "vector")
    assert count == 5


async def test_counts_and_recommendations_made_at_the_same_time_have_each_their_own_outcome(shop: Vectors) -> None:
    counts = await asyncio.gather(
        shop.count("shop"),
        shop.count("shop", Filter(must=[Match("name", "cup")])),
        shop.count("none"),
        return_exceptions=True,
    )
    likes = await asyncio.gather(
        shop.recommend("shop", positive=[1], limit=1), shop.recommend("shop", positive=[99]), return_exceptions=True
    )

    assert counts[:2] == [5, 1]
    assert isinstance(counts[2], NotFound)
    assert [hit.id for hit in likes[0]] == [4]
    assert isinstance(likes[1], NotFound)


# Recommend.


async def test_a_recommendation_is_near_the_good_and_far_from_the_bad(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2, metric="euclid")
    await vectors.upsert("docs", [Point(n, [n, 0], {"odd": n % 2}) for n in range(10)])

    plain = await vectors.recommend("docs", positive=[4], limit=2)
    moved = await vectors.recommend("docs", positive=[4], negative=[2], limit=1)
    mixed = await vectors.recommend("docs", positive=[4, [6, 0]], limit=1, filter=Filter(must=[Match("odd", 0)]))

    assert {hit.id for hit in plain} == {3, 5}
    assert [(hit.id, hit.score) for hit in moved] == [(6, 0)]
    assert [(hit.id, hit.score) for hit in mixed] == [(6, 1)]


async def test_a_recommendation_by_best_score(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=2, metric="cosine")
    await vectors.upsert("docs", [Point(1, [1, 0]), Point(2, [0, 1]), Point(3, [1, 0.2]), Point(4, [0.1, 1])])

    found = await vectors.recommend("docs", positive=[1], negative=[[0, 1]], strategy="best_score")
    away = await vectors.recommend("docs", positive=[], negative=[2], strategy="best_score")

    assert [hit.id for hit in found] == [3, 4, 2]
    assert found[0].score > 0 > found[1].score
    assert [hit.id for hit in away] == [1, 3, 4]


async def test_bad_recommendations_are_refused(shop: Vectors) -> None:
    bad: list[tuple[dict[str, object], type[IsaError], str]] = [
        ({"positive": []}, InvalidArgument, "positive"),
        ({"positive": [99]}, NotFound, "positive[0].id"),
        ({"positive": [1], "negative": [2, 99]}, NotFound, "negative[1].id"),
        ({"positive": [[1]]}, InvalidArgument, "positive[0].vector"),
        ({"positive": ["no uuid"]}, InvalidArgument, "positive[0].id"),
        ({"positive": [1] * 257}, InvalidArgument, "negative"),
        ({"positive": [1], "strategy": "best_score", "score_threshold": 1.0}, InvalidArgument, "score_threshold"),
        ({"positive": [1], "using": "title"}, InvalidArgument, "using"),
    ]
    for options, kind, where in bad:
        with pytest.raises(kind) as refusal:
            await shop.recommend("shop", **options)  # type: ignore[arg-type]
        assert refusal.value.field == where


# Filters.


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.3")
async def test_a_search_is_filtered_by_payload(shop: Vectors) -> None:
    found = await shop.search(
        "shop", [1, 0], filter=Filter(must=[Range("price", lt=15)], must_not=[Match("name", "mug")])
    )

    assert [hit.id for hit in found] == [2, 0]


@pytest.mark.ac("isa-cloud-prd:E5-US2:AC-2.3")
async def test_conditions_test_fields(shop: Vectors) -> None:
    assert await taken(shop, Match("name", "cup")) == [0]
    assert await taken(shop, Match("price", 12)) == [2]
    assert await taken(shop, Match("open", True)) == [0]
    assert await taken(shop, Match("open", False)) == [1]
    assert await taken(shop, Match("tags", "red")) == [1]
    assert await taken(shop, MatchAny("name", ["cup", "jug", "x"])) == [0, 2]
    assert await taken(shop, MatchAny("price", [5, 12])) == [0, 2]
    assert await taken(shop, MatchExcept("name", ["cup", "jug"])) == [1, 3]
    assert await taken(shop, Range("price", gt=5)) == [1, 2]
    assert await taken(shop, Range("price", gte=5, lt=20.5)) == [0, 2]
    assert await taken(shop, Range("price", lte=-1)) == [3]
    assert await taken(shop, Match("made.by", "ann")) == [3]
    assert await taken(shop, Match("parts[].kind", "cap")) == [4]
    assert await taken(shop, Match("parts[0].kind", "cap")) == []
    assert await taken(shop, Match('"k.d".x', 1)) == [4]
    assert await taken(shop, HasId([3, 99, 1])) == [1, 3]
    assert await taken(shop, IsEmpty("tags")) == [2, 3, 4]
    assert await taken(shop, IsEmpty("note")) == [0, 1, 2, 3, 4]
    assert await taken(shop, IsNull("note")) == [2]


async def test_times_are_compared_as_times(shop: Vectors) -> None:
    assert await taken(shop, Range("at", gt=datetime(2026, 2, 1, 9, tzinfo=UTC))) == [1]
    assert await taken(shop, Range("at", gt=datetime(2026, 2, 1, 11, tzinfo=UTC))) == []
    assert await taken(
        shop, Range("at", gte=datetime(2026, 1, 1, tzinfo=UTC), lt=datetime(2026, 1, 2, tzinfo=UTC))
    ) == [0]


async def test_places_are_found_by_circle_and_by_box(shop: Vectors) -> None:
    assert await taken(shop, GeoRadius("place", 13.3, 52.5, 10_000)) == [2]
    assert await taken(shop, GeoRadius("place", 13.3, 52.5, 1_000)) == []
    assert await taken(shop, GeoBox("place", (-1, 52), (1, 51))) == [3]
    assert await taken(shop, GeoBox("place", (-10, 60), (20, 40))) == [2, 3]
    assert await taken(shop, GeoBox("place", (10, 60), (0, 40))) == [2, 3]
    assert await taken(shop, GeoBox("place", (20, 60), (10, 40))) == [3]


async def test_filters_combine(shop: Vectors) -> None:
    cup, jug = Match("name", "cup"), Match("name", "jug")

    assert await taken(shop, should=[cup, jug]) == [0, 2]
    assert await taken(shop, must_not=[cup, jug]) == [1, 3, 4]
    assert await taken(shop, Range("price", gt=0), should=[cup, jug], must_not=[IsNull("note")]) == [0]
    assert await taken(shop, Filter(should=[cup, Filter(must=[Range("price", gt=15), Match("open", False)])])) == [0, 1]
    assert await taken(shop, Filter(must_not=[Filter(must_not=[cup])])) == [0]
    assert await taken(shop, Filter()) == [0, 1, 2, 3, 4]


async def test_a_nested_filter_is_passed_by_one_element(shop: Vectors) -> None:
    lid, cap = Match("kind", "lid"), Match("kind", "cap")

    assert await taken(shop, Nested("parts", Filter(must=[lid, Range("size", lt=5)]))) == [4]
    assert await taken(shop, Nested("parts", Filter(must=[cap, Range("size", lt=5)]))) == []
    assert await taken(shop, Match("parts[].kind", "cap"), Range("parts[].size", lt=5)) == [4]


def nested(depth: int) -> Filter:
    return Filter(must=[nested(depth - 1)]) if depth > 1 else Filter(must=[Match("a", 1)])


async def test_bad_filters_are_refused(shop: Vectors) -> None:
    bad: list[tuple[Filter, str]] = [
        (Filter(must=[Match("", 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match("a..b", 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match("a[", 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match("a b", 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match('"a', 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match("a" * 257, 1)]), "filter.must[0].match.field"),
        (Filter(must=[Match("a", "x" * 4097)]), "filter.must[0].match.keyword"),
        (Filter(should=[MatchAny("a", [])]), "filter.should[0].match.any_integer"),
        (Filter(should=[MatchAny("a", ["x"] * 1001)]), "filter.should[0].match.any_keyword"),
        (Filter(must_not=[Range("a")]), "filter.must_not[0].range"),
        (Filter(must=[Range("a", gt=math.nan)]), "filter.must[0].range"),
        (Filter(must=[GeoRadius("a", 181, 0, 1)]), "filter.must[0].geo_radius.center"),
        (Filter(must=[GeoRadius("a", 0, 0, 0)]), "filter.must[0].geo_radius.meters"),
        (Filter(must=[GeoBox("a", (0, 1), (1, 2))]), "filter.must[0].geo_box.top_left"),
        (Filter(must=[HasId([])]), "filter.must[0].has_id.ids"),
        (Filter(must=[HasId(["no"])]), "filter.must[0].has_id.ids[0]"),
        (Filter(must=[IsEmpty("a.")]), "filter.must[0].is_empty"),
        (Filter(must=[Filter(must=[IsNull("")])]), "filter.must[0].filter.must[0].is_null"),
        (Filter(must=[Nested("a]", Filter())]), "filter.must[0].nested.field"),
        (Filter(must=[Match("a", 1)] * 257), "filter.must[256]"),
        (nested(9), "filter" + ".must[0].filter" * 8),
    ]
    for wrong, where in bad:
        with pytest.raises(InvalidArgument) as refusal:
            await shop.count("shop", wrong)
        assert refusal.value.field == where
    assert await shop.count("shop", nested(8)) == 0


# Scroll.


async def test_pages_neither_lose_nor_repeat_a_point(vectors: Vectors) -> None:
    await vectors.create_collection("docs", dimension=1)
    keys = sorted(uuid.uuid4() for _ in range(20))
    await vectors.upsert("docs", [Point(key, [1], {"even": at % 2 == 0}) for at, key in enumerate([*range(30), *keys])])

    everything = [point.id async for point in vectors.scroll("docs", page=7)]
    even = [point.id async for point in vectors.scroll("docs", page=4, filter=Filter(must=[Match("even", True)]))]

    assert everything == [*range(30), *keys]
    assert even == [*range(0, 30, 2), *keys[::2]]


async def test_a_cursor_belongs_to_its_question(as_person: Callable[..., Isa]) -> None:
    from isa.vectors.v1 import vectors_pb2 as pb

    isa = as_person(fresh_org())
    for name in ("one", "two"):
        await isa.vectors.create_collection(name, dimension=1)
        await isa.vectors.upsert(name, [Point(n, [1]) for n in range(5)])
    first = await isa.vectors._call("Scroll", pb.ScrollRequest(collection="one", limit=2), None)

    other = pb.Filter(must=[pb.Condition(is_null="a")])
    for request in (
        pb.ScrollRequest(collection="two", cursor=first.next_cursor),
        pb.ScrollRequest(collection="one", cursor="no cursor"),
        pb.ScrollRequest(collection="one", cursor=first.next_cursor, filter=other),
        pb.ScrollRequest(collection="one", cursor=first.next_cursor[:-8]),
    ):
        with pytest.raises(InvalidArgument) as refusal:
            await isa.vectors._call("Scroll", request, None)
        assert refusal.value.field == "cursor"


# Indexes.


@pytest.mark.usefixtures("has_indexes")
async def test_indexes_are_made_described_and_deleted(shop: Vectors) -> None:
    kinds = {
        "name": IndexType.KEYWORD,
        "n": IndexType.INTEGER,
        "price": IndexType.FLOAT,
        "open": IndexType.BOOL,
        "place": IndexType.GEO,
        "at": IndexType.DATETIME,
        "text": IndexType.TEXT,
        "parts[].kind": IndexType.KEYWORD,
    }
    for path, kind in kinds.items():
        await shop.create_index("shop", path, kind)
        await shop.create_index("shop", path, kind)

    assert (await shop.describe_collection("shop")).indexes == kinds
    assert await taken(shop, Match("name", "cup"), Range("price", lt=6), Match("open", True)) == [0]
    assert await taken(shop, GeoRadius("place", 13.3, 52.5, 10_000)) == [2]
    assert await taken(shop, Range("at", gt=datetime(2026, 2, 1, 9, tzinfo=UTC))) == [1]
    with pytest.raises(FailedPrecondition) as refusal:
        await shop.create_index("shop", "name", "text")
    assert refusal.value.field == "type"
    for path in [*kinds, "absent"]:
        await shop.delete_index("shop", path)
    assert (await shop.describe_collection("shop")).indexes == {}
    assert await taken(shop, Match("name", "cup")) == [0]


@pytest.mark.usefixtures("has_indexes")
async def test_words_are_matched_where_the_field_has_a_text_index(vectors: Vectors) -> None:
    await vectors.create_collection("shop", dimension=1)
    texts = ["The quick, brown Fox", "a brown dog", "ÉTÉ à la plage", ["one fox", "two dogs"], 7]
    await vectors.upsert("shop", [Point(at, [1], {"text": text}) for at, text in enumerate(texts)])
    with pytest.raises(FailedPrecondition):
        await taken(vectors, MatchText("text", "fox"))
    await vectors.create_index("shop", "text", "text")
    await vectors.upsert("shop", [Point(9, [1], {"text": "FOX brown"})])

    assert await taken(vectors, MatchText("text", "BROWN fox")) == [0, 9]
    assert await taken(vectors, MatchText("text", "fox")) == [0, 3, 9]
    assert await taken(vectors, MatchText("text", "été")) == [2]
    assert await taken(vectors, MatchText("text", "bro")) == []
    with pytest.raises(InvalidArgument):
        await taken(vectors, MatchText("text", "..."))


async def test_bad_indexes_are_refused(shop: Vectors) -> None:
    with pytest.raises(InvalidArgument) as refusal:
        await shop.create_index("shop", "a..b", "keyword")
    assert refusal.value.field == "field"
    with pytest.raises(NotFound):
        await shop.create_index("absent", "a", "keyword")


async def test_an_organisation_may_have_a_hundred_collections(vectors: Vectors) -> None:
    for n in range(100):
        await vectors.create_collection(f"c{n}", dimension=1)

    with pytest.raises(ResourceExhausted):
        await vectors.create_collection("one more", dimension=1)

    await vectors.delete_collection("c0")
    await vectors.create_collection("one more", dimension=1)
