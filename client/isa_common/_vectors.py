"""Vectors of the caller's organisation, found by similarity and by payload."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, TypeAlias
from uuid import UUID

from google.protobuf.message import Message

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common._capability import Capability
from isa_common._coalesce import Coalescer
from isa_common._contract import methods
from isa_common._messages import outcomes_of, portions, to_timestamp
from isa_common._transport import Transport
from isa_common.errors import InvalidArgument, IsaError, MessageTooLarge

_POINTS = 1000
"""Points of one request."""

PointId: TypeAlias = int | UUID | str
"""A number from 0 to 2**64-1, or a UUID; text is read as a UUID."""
Floats: TypeAlias = "Sequence[float] | array[float] | memoryview | bytes | Any"
"""Numbers, or what holds float32 in one piece of memory: array("f"), numpy.float32; bytes are taken as they are."""


class Metric(StrEnum):
    """How near two vectors are. Of cosine and dot more is nearer; of euclid and manhattan less is."""

    COSINE = "cosine"
    DOT = "dot"
    EUCLID = "euclid"
    MANHATTAN = "manhattan"


class IndexType(StrEnum):
    """What the values of an indexed field are."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    GEO = "geo"
    DATETIME = "datetime"
    TEXT = "text"


class Strategy(StrEnum):
    """How examples become one question."""

    AVERAGE = "average"
    BEST_SCORE = "best_score"


@dataclass(frozen=True, slots=True)
class SparseVector:
    """A vector whose few values are not zero; each index once."""

    indices: Sequence[int]
    values: Sequence[float]


Vector: TypeAlias = "Floats | SparseVector"


@dataclass(frozen=True, slots=True)
class Point:
    """A vector, or some by name, and what is known about them."""

    id: PointId
    """Of a point that comes back: an int or a UUID."""
    vector: Vector | Mapping[str, Vector] | None = None
    """Of a point that comes back: array("f"), SparseVector, or these by name; None where they were not asked for."""
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredPoint:
    """A point that was found, and how near it is."""

    id: PointId
    score: float
    payload: Mapping[str, Any] = field(default_factory=dict)
    vector: Vector | Mapping[str, Vector] | None = None


@dataclass(frozen=True, slots=True)
class VectorParams:
    """What each vector of a name is."""

    dimension: int
    metric: Metric = Metric.COSINE


@dataclass(frozen=True, slots=True)
class Collection:
    """What a collection is, and how many points it has."""

    vector: VectorParams | None
    """The vector without a name."""
    vectors: Mapping[str, VectorParams]
    sparse: Sequence[str]
    points: int
    indexes: Mapping[str, IndexType]
    """Indexed fields of the payload."""


@dataclass(frozen=True, slots=True)
class Match:
    """A field is a value; of a list, one element is."""

    field: str
    value: str | int | bool


@dataclass(frozen=True, slots=True)
class MatchAny:
    """A field is one of some values."""

    field: str
    values: Sequence[str] | Sequence[int]


@dataclass(frozen=True, slots=True)
class MatchExcept:
    """A field has a value that is none of these."""

    field: str
    values: Sequence[str] | Sequence[int]


@dataclass(frozen=True, slots=True)
class MatchText:
    """A field has every word of a text; it needs an index of type text."""

    field: str
    text: str


@dataclass(frozen=True, slots=True, init=False)
class Range:
    """A field lies between bounds, which are all numbers or all times: `Range("price", gte=5, lt=10)`."""

    field: str
    bounds: Mapping[str, float | datetime]

    def __init__(
        self,
        field: str,
        *,
        gt: float | datetime | None = None,
        gte: float | datetime | None = None,
        lt: float | datetime | None = None,
        lte: float | datetime | None = None,
    ) -> None:
        given = {"gt": gt, "gte": gte, "lt": lt, "lte": lte}
        object.__setattr__(self, "field", field)
        object.__setattr__(self, "bounds", {name: bound for name, bound in given.items() if bound is not None})


@dataclass(frozen=True, slots=True)
class GeoRadius:
    """A place, an object with `lon` and `lat`, is at most so many meters from another."""

    field: str
    lon: float
    lat: float
    meters: float


@dataclass(frozen=True, slots=True)
class GeoBox:
    """A place lies in a box; each corner is (lon, lat)."""

    field: str
    top_left: tuple[float, float]
    bottom_right: tuple[float, float]


@dataclass(frozen=True, slots=True)
class IsEmpty:
    """A field is absent, null or an empty list."""

    field: str


@dataclass(frozen=True, slots=True)
class IsNull:
    """A field is null."""

    field: str


@dataclass(frozen=True, slots=True)
class HasId:
    """A point is one of these."""

    ids: Sequence[PointId]


@dataclass(frozen=True, slots=True)
class Nested:
    """One element of a list of objects passes a filter as a whole."""

    field: str
    filter: Filter


@dataclass(frozen=True, slots=True)
class Filter:
    """A test: every `must`, none of `must_not`, and one of `should` where there are any. Filters may hold filters."""

    must: Sequence[Condition] = ()
    should: Sequence[Condition] = ()
    must_not: Sequence[Condition] = ()


Condition: TypeAlias = (
    Match | MatchAny | MatchExcept | MatchText | Range | GeoRadius | GeoBox | IsEmpty | IsNull | HasId | Nested | Filter
)


class Vectors(Capability):
    """Collections of points: store, search, recommend, filter.

    Searches, recommendations and counts that are made at the same time go out as one request.
    """

    _methods = methods(pb.DESCRIPTOR.services_by_name["Vectors"], capability="vectors")

    def __init__(self, transport: Transport, *, acting_for: Mapping[str, str] = {}) -> None:
        super().__init__(transport, acting_for=acting_for)
        self._search = self._together("Search", lambda requests: pb.SearchManyRequest(searches=requests))
        self._recommend = self._together(
            "Recommend", lambda requests: pb.RecommendManyRequest(recommendations=requests)
        )
        self._count = self._together("Count", lambda requests: pb.CountManyRequest(counts=requests))

    async def create_collection(
        self,
        collection: str,
        *,
        dimension: int = 0,
        metric: Metric | str = Metric.COSINE,
        vectors: Mapping[str, VectorParams] = {},
        sparse: Sequence[str] = (),
        timeout: timedelta | None = None,
    ) -> None:
        """Make a collection with one vector of a `dimension`, or with named `vectors`; and with `sparse` ones."""
        params = pb.CollectionParams(
            vector=_params(VectorParams(dimension, Metric(metric)), "metric") if dimension else None,
            vectors={name: _params(each, f"vectors.{name}") for name, each in vectors.items()},
            sparse_vectors=sparse,
        )
        await self._call("CreateCollection", pb.CreateCollectionRequest(collection=collection, params=params), timeout)

    async def list_collections(self, *, timeout: timedelta | None = None) -> list[str]:
        """Return the names of all collections, sorted."""
        response: pb.ListCollectionsResponse = await self._call("ListCollections", pb.ListCollectionsRequest(), timeout)
        return list(response.collections)

    async def describe_collection(self, collection: str, *, timeout: timedelta | None = None) -> Collection:
        """Return what a collection is, and how many points it has."""
        request = pb.DescribeCollectionRequest(collection=collection)
        response: pb.DescribeCollectionResponse = await self._call("DescribeCollection", request, timeout)
        params = response.params
        return Collection(
            _vector_params(params.vector) if params.HasField("vector") else None,
            {name: _vector_params(each) for name, each in params.vectors.items()},
            list(params.sparse_vectors),
            response.points,
            {path: _INDEX_TYPES[kind] for path, kind in response.indexes.items()},
        )

    async def delete_collection(self, collection: str, *, timeout: timedelta | None = None) -> None:
        """Delete a collection and every point in it."""
        await self._call("DeleteCollection", pb.DeleteCollectionRequest(collection=collection), timeout)

    async def upsert(self, collection: str, points: Iterable[Point], *, timeout: timedelta | None = None) -> None:
        """Store points; of the same id, the last stays. Sent 1000 or 8 MiB at a time, each part all or none."""
        for part in portions(_messages(points), most=_POINTS):
            await self._call("Upsert", pb.UpsertRequest(collection=collection, points=part), timeout)

    async def search(
        self,
        collection: str,
        vector: Vector,
        *,
        using: str = "",
        limit: int = 10,
        offset: int = 0,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_vectors: bool = False,
        exact: bool = False,
        timeout: timedelta | None = None,
    ) -> list[ScoredPoint]:
        """Return the points that are nearest to a vector, the nearest first.

        `using` names the vector to compare with; `with_payload` may name the fields that are wanted; `exact` asks
        every point instead of the index; no worse score than `score_threshold` comes back.
        """
        request = pb.SearchRequest(
            collection=collection,
            vector=_vector(vector, "vector"),
            using=using,
            limit=limit,
            offset=offset,
            filter=_filter(filter),
            score_threshold=score_threshold,
            include=_include(with_payload, with_vectors),
            exact=exact,
        )
        return _scored((await self._search(request, timeout)).points)

    async def recommend(
        self,
        collection: str,
        *,
        positive: Sequence[PointId | Floats],
        negative: Sequence[PointId | Floats] = (),
        strategy: Strategy | str = Strategy.AVERAGE,
        using: str = "",
        limit: int = 10,
        offset: int = 0,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        score_threshold: float | None = None,
        with_payload: bool | Sequence[str] = True,
        with_vectors: bool = False,
        exact: bool = False,
        timeout: timedelta | None = None,
    ) -> list[ScoredPoint]:
        """Return points that are near some examples and far from others; an example is a point's id, or a vector."""
        request = pb.RecommendRequest(
            collection=collection,
            positive=[_example(each, f"positive[{at}]") for at, each in enumerate(positive)],
            negative=[_example(each, f"negative[{at}]") for at, each in enumerate(negative)],
            strategy=pb.Strategy.Value(f"STRATEGY_{Strategy(strategy).name}"),
            using=using,
            limit=limit,
            offset=offset,
            filter=_filter(filter),
            score_threshold=score_threshold,
            include=_include(with_payload, with_vectors),
            exact=exact,
        )
        return _scored((await self._recommend(request, timeout)).points)

    async def scroll(
        self,
        collection: str,
        *,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        page: int = 100,
        with_payload: bool | Sequence[str] = True,
        with_vectors: bool = False,
        timeout: timedelta | None = None,
    ) -> AsyncIterator[Point]:
        """Return every point that a filter takes, in the order of ids; `page` are fetched at a time."""
        request = pb.ScrollRequest(
            collection=collection,
            filter=_filter(filter),
            limit=page,
            include=_include(with_payload, with_vectors),
        )
        while True:
            response: pb.ScrollResponse = await self._call("Scroll", request, timeout)
            for each in response.points:
                yield _point(each)
            if not response.next_cursor:
                return
            request.cursor = response.next_cursor

    async def count(
        self,
        collection: str,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        *,
        timeout: timedelta | None = None,
    ) -> int:
        """Count the points that a filter takes."""
        request = pb.CountRequest(collection=collection, filter=_filter(filter))
        return int((await self._count(request, timeout)).count)

    async def get(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        with_payload: bool | Sequence[str] = True,
        with_vectors: bool = False,
        timeout: timedelta | None = None,
    ) -> list[Point]:
        """Return points by id, in this order; those that are not there are left out."""
        request = pb.GetPointsRequest(
            collection=collection, ids=_ids(ids), include=_include(with_payload, with_vectors)
        )
        response: pb.GetPointsResponse = await self._call("GetPoints", request, timeout)
        return [_point(each) for each in response.points]

    async def delete(
        self,
        collection: str,
        *,
        ids: Sequence[PointId] | None = None,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        timeout: timedelta | None = None,
    ) -> None:
        """Delete points by id, or those that a filter takes."""
        request = pb.DeletePointsRequest(collection=collection, selector=_selector(ids, filter))
        await self._call("DeletePoints", request, timeout)

    async def set_payload(
        self,
        collection: str,
        payload: Mapping[str, Any],
        *,
        ids: Sequence[PointId] | None = None,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        replace: bool = False,
        timeout: timedelta | None = None,
    ) -> None:
        """Set fields of the payload of points; with `replace`, they are all that stays."""
        request = pb.SetPayloadRequest(
            collection=collection,
            selector=_selector(ids, filter),
            payload=_json(payload, "payload"),
            replace=replace,
        )
        await self._call("SetPayload", request, timeout)

    async def delete_payload(
        self,
        collection: str,
        fields: Sequence[str],
        *,
        ids: Sequence[PointId] | None = None,
        filter: Filter | None = None,  # noqa: A002 -- the word that everybody uses
        timeout: timedelta | None = None,
    ) -> None:
        """Delete fields of the payload of points."""
        request = pb.DeletePayloadRequest(collection=collection, selector=_selector(ids, filter), fields=fields)
        await self._call("DeletePayload", request, timeout)

    async def create_index(
        self,
        collection: str,
        field: str,
        type: IndexType | str,  # noqa: A002 -- as everybody calls it
        *,
        timeout: timedelta | None = None,
    ) -> None:
        """Index a field of the payload, so that filters on it are quick, and words of it can be matched."""
        kind = pb.IndexType.Value(f"INDEX_TYPE_{IndexType(type).name}")
        await self._call("CreateIndex", pb.CreateIndexRequest(collection=collection, field=field, type=kind), timeout)

    async def delete_index(self, collection: str, field: str, *, timeout: timedelta | None = None) -> None:
        """Delete the index of a field."""
        await self._call("DeleteIndex", pb.DeleteIndexRequest(collection=collection, field=field), timeout)

    def _together(self, name: str, batch: Callable[[list[Any]], Message]) -> Coalescer[Any, Any]:
        """What calls a method by itself, or in one batch with the calls of the same moment."""

        async def many(requests: list[Any], timeout: timedelta | None) -> list[Any]:
            response = await self._call(f"{name}Many", batch(requests), timeout)
            return [
                await self._outcome(name, request, outcome, timeout)
                for request, outcome in zip(requests, outcomes_of(response), strict=True)
            ]

        return Coalescer(partial(self._call, name), many)

    async def _outcome(self, name: str, request: Any, outcome: Any, timeout: timedelta | None) -> Any:
        """What came of one item of a batch; one that did not fit beside the others is asked for alone."""
        if not isinstance(outcome, MessageTooLarge):
            return outcome
        try:
            return await self._call(name, request, timeout)
        except IsaError as refused:
            return refused


_INDEX_TYPES = {pb.IndexType.Value(f"INDEX_TYPE_{kind.name}"): kind for kind in IndexType}
_METRICS = {pb.Metric.Value(f"METRIC_{metric.name}"): metric for metric in Metric}


def _params(params: VectorParams, where: str) -> pb.VectorParams:
    if params.dimension < 0:
        raise InvalidArgument("A vector has a dimension or more.", field=where)
    return pb.VectorParams(dimension=params.dimension, metric=pb.Metric.Value(f"METRIC_{Metric(params.metric).name}"))


def _vector_params(message: pb.VectorParams) -> VectorParams:
    return VectorParams(message.dimension, _METRICS[message.metric])


def _id(given: PointId) -> pb.PointId:
    if isinstance(given, int):
        if not 0 <= given < 1 << 64:
            raise InvalidArgument("A number as id is from 0 to 2**64-1.", field="id")
        return pb.PointId(number=given)
    return pb.PointId(uuid=str(given))


def _ids(given: Iterable[PointId]) -> list[pb.PointId]:
    return [_id(each) for each in given]


def _read_id(message: pb.PointId) -> int | UUID:
    return UUID(message.uuid) if message.HasField("uuid") else message.number


def _floats(given: Floats, where: str) -> bytes:
    """Float32 in one piece of memory as it is, and whatever else number by number."""
    if isinstance(given, bytes):
        return given
    try:
        view = memoryview(given)  # type: ignore[arg-type]  # a sequence of numbers is none
    except TypeError:
        pass
    else:
        if view.format == "f" and view.contiguous and view.ndim == 1:
            return view.tobytes()
    try:
        return array("f", given).tobytes()
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgument("A vector is a sequence of numbers.", field=where) from None


def _vector(given: Vector, where: str) -> pb.Vector:
    if isinstance(given, SparseVector):
        try:
            indices = array("I", given.indices).tobytes()
        except (TypeError, ValueError, OverflowError):
            raise InvalidArgument("An index is from 0 to 2**32-1.", field=f"{where}.indices") from None
        return pb.Vector(sparse=pb.SparseVector(indices=indices, values=_floats(given.values, f"{where}.values")))
    return pb.Vector(dense=_floats(given, where))


def _read_vector(message: pb.Vector) -> Vector:
    if message.HasField("sparse"):
        indices, values = array("I"), array("f")
        indices.frombytes(message.sparse.indices)
        values.frombytes(message.sparse.values)
        return SparseVector(indices, values)
    return _read_floats(message.dense)


def _read_floats(packed: bytes) -> array[float]:
    floats = array("f")
    floats.frombytes(packed)
    return floats


def _example(given: PointId | Floats, where: str) -> pb.Example:
    if isinstance(given, int | UUID | str):
        return pb.Example(id=_id(given))
    return pb.Example(vector=_floats(given, where))


def _json(payload: Mapping[str, Any], where: str) -> bytes:
    try:
        return json.dumps(dict(payload), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidArgument("A payload is what JSON can say.", field=where) from None


def _messages(points: Iterable[Point]) -> Iterator[pb.Point]:
    for at, point in enumerate(points):
        message = pb.Point(id=_id(point.id), payload=_json(point.payload, f"points[{at}].payload") or b"")
        if isinstance(point.vector, Mapping):
            for name, vector in point.vector.items():
                message.vectors[name].CopyFrom(_vector(vector, f"points[{at}].vectors.{name}"))
        elif point.vector is not None:
            message.vector = _floats(point.vector, f"points[{at}].vector")
        yield message


def _point(message: pb.Point) -> Point:
    return Point(_read_id(message.id), _stored(message), _object(message.payload))


def _scored(messages: Iterable[pb.ScoredPoint]) -> list[ScoredPoint]:
    return [ScoredPoint(_read_id(each.id), each.score, _object(each.payload), _stored(each)) for each in messages]


def _object(packed: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(packed.decode()) if packed else {}  # text is read quicker than bytes
    return found


def _stored(message: pb.Point | pb.ScoredPoint) -> Vector | dict[str, Vector] | None:
    if message.vectors:
        named = {name: _read_vector(each) for name, each in message.vectors.items()}
        return {"": _read_floats(message.vector), **named} if message.vector else named
    return _read_floats(message.vector) if message.vector else None


def _include(with_payload: bool | Sequence[str], with_vectors: bool) -> pb.Include:
    if isinstance(with_payload, bool):
        return pb.Include(payload=with_payload, vectors=with_vectors)
    return pb.Include(payload=bool(with_payload), payload_fields=with_payload, vectors=with_vectors)


def _selector(ids: Sequence[PointId] | None, chosen: Filter | None) -> pb.Selector:
    if (ids is None) == (chosen is None):
        raise InvalidArgument("Give ids or a filter.", field="selector")
    if ids is not None:
        return pb.Selector(ids=pb.PointIds(ids=_ids(ids)))
    return pb.Selector(filter=_filter(chosen))


def _filter(given: Filter | None) -> pb.Filter | None:
    if given is None:
        return None
    return pb.Filter(
        must=[_condition(each) for each in given.must],
        should=[_condition(each) for each in given.should],
        must_not=[_condition(each) for each in given.must_not],
    )


def _condition(given: Condition) -> pb.Condition:
    match given:
        case Match():
            return pb.Condition(match=_match(given.field, given.value))
        case MatchAny():
            return pb.Condition(match=_among(given.field, given.values, are_wanted=True))
        case MatchExcept():
            return pb.Condition(match=_among(given.field, given.values, are_wanted=False))
        case MatchText():
            return pb.Condition(match=pb.Match(field=given.field, text=given.text))
        case Range():
            return _range(given)
        case GeoRadius():
            center = pb.GeoPoint(lon=given.lon, lat=given.lat)
            return pb.Condition(geo_radius=pb.GeoRadius(field=given.field, center=center, meters=given.meters))
        case GeoBox():
            corners = [pb.GeoPoint(lon=lon, lat=lat) for lon, lat in (given.top_left, given.bottom_right)]
            return pb.Condition(geo_box=pb.GeoBox(field=given.field, top_left=corners[0], bottom_right=corners[1]))
        case IsEmpty():
            return pb.Condition(is_empty=given.field)
        case IsNull():
            return pb.Condition(is_null=given.field)
        case HasId():
            return pb.Condition(has_id=pb.HasId(ids=_ids(given.ids)))
        case Nested():
            return pb.Condition(nested=pb.Nested(field=given.field, filter=_filter(given.filter)))
        case Filter():
            return pb.Condition(filter=_filter(given))
    raise InvalidArgument(f"A {type(given).__name__} is no condition.", field="filter")


def _match(path: str, value: str | int | bool) -> pb.Match:
    if isinstance(value, bool):
        return pb.Match(field=path, boolean=value)
    if isinstance(value, int):
        return pb.Match(field=path, integer=_integer(value))
    if isinstance(value, str):
        return pb.Match(field=path, keyword=value)
    raise InvalidArgument("A match is with text, an integer or a boolean.", field="filter")


def _among(path: str, values: Sequence[str] | Sequence[int], *, are_wanted: bool) -> pb.Match:
    if all(type(each) is int for each in values):
        integers = pb.Integers(values=[_integer(each) for each in values])  # type: ignore[arg-type]  # integers
        if are_wanted:
            return pb.Match(field=path, any_integer=integers)
        return pb.Match(field=path, except_integer=integers)
    if not all(isinstance(each, str) for each in values):
        raise InvalidArgument("Values are all texts or all integers.", field="filter")
    keywords = pb.Keywords(values=values)  # type: ignore[arg-type]  # texts
    if are_wanted:
        return pb.Match(field=path, any_keyword=keywords)
    return pb.Match(field=path, except_keyword=keywords)


def _integer(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 63:
        raise InvalidArgument("An integer has 64 bits.", field="filter")
    return value


def _range(given: Range) -> pb.Condition:
    times = {name: bound for name, bound in given.bounds.items() if isinstance(bound, datetime)}
    if not times:
        return pb.Condition(range=pb.Range(field=given.field, **given.bounds))  # type: ignore[arg-type]  # numbers
    if len(times) < len(given.bounds):
        raise InvalidArgument("Bounds are all numbers or all times.", field="filter")
    return pb.Condition(
        time_range=pb.TimeRange(field=given.field, **{name: to_timestamp(bound) for name, bound in times.items()})
    )
