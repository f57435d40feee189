"""The adapter on the embedded engine does what the service in memory does, whatever two tenants do to it."""

from __future__ import annotations

import asyncio
import json
import tempfile
import uuid
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import IsaError
from isa_common.testing._vectors import MemoryVectors
from kernel import Caller
from services.adapters.qdrant.app import Settings, create_app
from tests.conformance.conftest import FakeParts, Secrets
from tests.conformance.machines import BOUNDS

UUIDS = [str(uuid.UUID(int=n << 64)) for n in (1, 2)]
SCALARS = [
    None,
    True,
    False,
    0,
    1,
    2,
    -3,
    1.0,
    2.5,
    2**53,
    "a",
    "b c",
    "B",
    "",
    "2026-01-01",
    "2026-03-01T10:00:00+02:00",
]
PLACES = [{"lon": 1, "lat": 1}, {"lon": -170.5, "lat": 10}, {"lon": "1", "lat": 1}]
FIELDS = ["a", "b", "a.x", "b[].x", "b[0]", "b[]", '"c d"']

tenants = st.sampled_from([0, 1])
names = st.sampled_from(["one", "two"])
ids = st.one_of(
    st.sampled_from([0, 1, 2, 3, 2**64 - 1]).map(lambda n: pb.PointId(number=n)),
    st.sampled_from(UUIDS).map(lambda text: pb.PointId(uuid=text)),
)
floats = st.lists(st.integers(-3, 3), min_size=2, max_size=2).map(lambda vector: array("f", vector).tobytes())
scalars = st.sampled_from([*SCALARS, *PLACES])
objects = st.dictionaries(st.sampled_from(["x", "y"]), scalars, max_size=2)
values = st.one_of(scalars, st.lists(scalars, max_size=3), objects, st.lists(objects, max_size=2))
payloads = st.dictionaries(st.sampled_from(["a", "b", "c d"]), values, max_size=3)
fields = st.sampled_from(FIELDS)
limits = st.sampled_from([-3, 0, 1, 2.5, 2**53])
bounds = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), limits, min_size=1)
metrics = st.sampled_from([pb.METRIC_DOT, pb.METRIC_EUCLID, pb.METRIC_MANHATTAN])
moments = st.sampled_from([Timestamp(seconds=1767225600), Timestamp(seconds=1772352000)])
matches = st.one_of(
    st.builds(pb.Match, field=fields, keyword=st.sampled_from(["a", "b c", ""])),
    st.builds(pb.Match, field=fields, integer=st.sampled_from([0, 1, -3])),
    st.builds(pb.Match, field=fields, boolean=st.booleans()),
    st.builds(pb.Match, field=fields, text=st.sampled_from(["b", "C b", "a", "."])),
    st.builds(pb.Match, field=fields, any_keyword=st.just(pb.Keywords(values=["a", "B"]))),
    st.builds(pb.Match, field=fields, any_integer=st.just(pb.Integers(values=[1, 2]))),
    st.builds(pb.Match, field=fields, except_keyword=st.just(pb.Keywords(values=["a"]))),
    st.builds(pb.Match, field=fields, except_integer=st.just(pb.Integers(values=[0, 1]))),
)
geo = st.one_of(
    st.builds(
        pb.GeoRadius, field=fields, center=st.just(pb.GeoPoint(lon=1, lat=2)), meters=st.sampled_from([1, 2e5])
    ).map(lambda circle: pb.Condition(geo_radius=circle)),
    st.builds(
        pb.GeoBox,
        field=fields,
        top_left=st.sampled_from([pb.GeoPoint(lon=-20, lat=20), pb.GeoPoint(lon=170, lat=20)]),
        bottom_right=st.just(pb.GeoPoint(lon=20, lat=0)),
    ).map(lambda box: pb.Condition(geo_box=box)),
)
leaves = st.one_of(
    matches.map(lambda match: pb.Condition(match=match)),
    st.builds(lambda field, given: pb.Condition(range=pb.Range(field=field, **given)), fields, bounds),
    st.builds(lambda field, gt: pb.Condition(time_range=pb.TimeRange(field=field, gt=gt)), fields, moments),
    geo,
    fields.map(lambda field: pb.Condition(is_empty=field)),
    fields.map(lambda field: pb.Condition(is_null=field)),
    st.lists(ids, min_size=1, max_size=3).map(lambda given: pb.Condition(has_id=pb.HasId(ids=given))),
)


def filters_of(conditions: st.SearchStrategy[pb.Condition]) -> st.SearchStrategy[pb.Filter]:
    some = st.lists(conditions, max_size=2)
    return st.builds(pb.Filter, must=some, should=some, must_not=some)


conditions = st.recursive(
    leaves,
    lambda inner: st.one_of(
        filters_of(inner).map(lambda each: pb.Condition(filter=each)),
        filters_of(matches.map(lambda match: pb.Condition(match=match))).map(
            lambda each: pb.Condition(nested=pb.Nested(field="b", filter=each))
        ),
    ),
    max_leaves=4,
)
filters = filters_of(conditions)
selectors = st.one_of(
    st.lists(ids, max_size=3).map(lambda given: pb.Selector(ids=pb.PointIds(ids=given))),
    filters.map(lambda given: pb.Selector(filter=given)),
)
everything = pb.Include(payload=True, vectors=True)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def adapter(runner: asyncio.Runner) -> Iterator[Any]:
    """The service on the embedded engine, started once: each example has tenants of its own."""
    with tempfile.TemporaryDirectory() as folder:
        options = Settings(folder=Path(folder), workers=1, open_shards=2, spare=0)
        service = create_app(options, FakeParts(Secrets({}))).implementation
        runner.run(service.start())
        yield service
        runner.run(service.stop())


def test_the_adapter_does_what_the_model_does(adapter: Any, runner: asyncio.Runner) -> None:
    class Machine(RuleBasedStateMachine):
        """Two tenants, two collections each; each step is done to both services, which must answer the same."""

        def __init__(self) -> None:
            super().__init__()
            self.model = MemoryVectors()
            self.callers = [Caller(org=f"org-{uuid.uuid4().hex[:16]}", user="user-1") for _ in range(2)]

        @initialize(metric=metrics)
        def begin(self, metric: Any) -> None:
            for tenant in (0, 1):
                self.create(tenant, "one", metric)

        def both(self, tenant: int, method: str, request: Any) -> Any:
            real, modelled = (
                runner.run(outcome(service, method, self.callers[tenant], request)) for service in (adapter, self.model)
            )
            assert comparable(real, request) == comparable(modelled, request)
            return real

        @rule(tenant=tenants, name=names, metric=metrics)
        def create(self, tenant: int, name: str, metric: Any) -> None:
            params = pb.CollectionParams(vector=pb.VectorParams(dimension=2, metric=metric))
            self.both(tenant, "create_collection", pb.CreateCollectionRequest(collection=name, params=params))

        @rule(tenant=tenants, name=names)
        def describe(self, tenant: int, name: str) -> None:
            self.both(tenant, "describe_collection", pb.DescribeCollectionRequest(collection=name))
            self.both(tenant, "list_collections", pb.ListCollectionsRequest())

        @rule(tenant=tenants, name=names, chance=st.integers(0, 3))
        def drop(self, tenant: int, name: str, chance: int) -> None:
            if not chance:
                self.both(tenant, "delete_collection", pb.DeleteCollectionRequest(collection=name))

        @rule(tenant=tenants, name=names, points=st.lists(st.tuples(ids, floats, payloads), min_size=1, max_size=5))
        def upsert(self, tenant: int, name: str, points: list[Any]) -> None:
            request = pb.UpsertRequest(collection=name)
            for given, vector, payload in points:
                request.points.add(id=given, vector=vector, payload=json.dumps(payload).encode())
            self.both(tenant, "upsert", request)

        @rule(tenant=tenants, name=names, selector=selectors)
        def delete(self, tenant: int, name: str, selector: Any) -> None:
            self.both(tenant, "delete_points", pb.DeletePointsRequest(collection=name, selector=selector))

        @rule(tenant=tenants, name=names, selector=selectors, payload=payloads, replace=st.booleans())
        def set_payload(self, tenant: int, name: str, selector: Any, payload: Any, replace: bool) -> None:
            packed = json.dumps(payload).encode()
            request = pb.SetPayloadRequest(collection=name, selector=selector, payload=packed, replace=replace)
            self.both(tenant, "set_payload", request)

        @rule(tenant=tenants, name=names, selector=selectors, field=st.sampled_from(["a", "a.x", "b[].x", '"c d"']))
        def delete_payload(self, tenant: int, name: str, selector: Any, field: str) -> None:
            request = pb.DeletePayloadRequest(collection=name, selector=selector, fields=[field])
            self.both(tenant, "delete_payload", request)

        @rule(tenant=tenants, name=names, field=st.sampled_from(["a", "a.x", "b[].x"]), kind=st.sampled_from([1, 5, 7]))
        def index(self, tenant: int, name: str, field: str, kind: Any) -> None:
            self.both(tenant, "create_index", pb.CreateIndexRequest(collection=name, field=field, type=kind))

        @rule(tenant=tenants, name=names, field=st.sampled_from(["a", "a.x", "b[].x"]))
        def forget_index(self, tenant: int, name: str, field: str) -> None:
            self.both(tenant, "delete_index", pb.DeleteIndexRequest(collection=name, field=field))

        @rule(tenant=tenants, name=names, chosen=filters, limit=st.sampled_from([1, 3, 100]))
        def scroll(self, tenant: int, name: str, chosen: Any, limit: int) -> None:
            cursors = ["", ""]
            while True:
                pages = [
                    runner.run(
                        outcome(
                            service,
                            "scroll",
                            self.callers[tenant],
                            pb.ScrollRequest(
                                collection=name, filter=chosen, limit=limit, cursor=cursor, include=everything
                            ),
                        )
                    )
                    for service, cursor in zip((adapter, self.model), cursors, strict=True)
                ]
                assert comparable(pages[0], None) == comparable(pages[1], None)
                if isinstance(pages[0], IsaError):
                    return
                cursors = [page.next_cursor for page in pages]
                assert bool(cursors[0]) == bool(cursors[1])
                if not cursors[0]:
                    return

        @rule(tenant=tenants, name=names, chosen=filters)
        def count(self, tenant: int, name: str, chosen: Any) -> None:
            self.both(tenant, "count", pb.CountRequest(collection=name, filter=chosen))

        @rule(tenant=tenants, name=names, vector=floats, chosen=filters, limit=st.sampled_from([1, 2, 100]))
        def search(self, tenant: int, name: str, vector: bytes, chosen: Any, limit: int) -> None:
            request = pb.SearchRequest(
                collection=name, vector=pb.Vector(dense=vector), filter=chosen, limit=limit, include=everything
            )
            self.both(tenant, "search", request)
            other = pb.SearchRequest(collection="two", vector=pb.Vector(dense=vector), limit=100)
            self.both(tenant, "search_many", pb.SearchManyRequest(searches=[request, other, request]))

        @rule(tenant=tenants, name=names, good=ids, bad=st.lists(ids, max_size=1), strategy=st.sampled_from([0, 2]))
        def recommend(self, tenant: int, name: str, good: Any, bad: list[Any], strategy: Any) -> None:
            request = pb.RecommendRequest(
                collection=name,
                positive=[pb.Example(id=good)],
                negative=[pb.Example(id=each) for each in bad],
                strategy=strategy,
                limit=100,
            )
            self.both(tenant, "recommend", request)

    run_state_machine_as_test(Machine, settings=BOUNDS)


async def outcome(service: Any, method: str, caller: Caller, request: Any) -> Any:
    try:
        return await getattr(service, method)(caller, request)
    except IsaError as error:
        return error


def comparable(given: Any, request: Any) -> Any:
    """An outcome without what may differ: the words of an error, cursors, and who comes first of equal scores."""
    if isinstance(given, IsaError):
        return type(given), given.field
    if isinstance(given, pb.SearchManyResponse):
        return [
            comparable(each.ok, search) if each.HasField("ok") else each.error.code
            for each, search in zip(given.outcomes, request.searches, strict=True)
        ]
    if isinstance(given, pb.SearchResponse | pb.RecommendResponse):
        points = [(round(point.score, 4), described(point)) for point in given.points]
        scores = [score for score, _ in points]
        assert scores in (sorted(scores), sorted(scores, reverse=True))
        is_whole = len(points) < request.limit
        return scores, sorted(points, key=repr) if is_whole else None
    if isinstance(given, pb.ScrollResponse):
        return [described(point) for point in given.points]
    return given


def described(point: Any) -> Any:
    return str(point.id), list(memoryview(point.vector).cast("f")), json.loads(point.payload or b"{}")
