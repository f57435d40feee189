"""Vectors in memory: every search compares with every point."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    IsaError,
    NotFound,
    ResourceExhausted,
    status_of,
)
from isa_common.testing._transport import Caller

_COLLECTIONS = 100
_INDEXES = 64
_POINTS = 10_000
_GOT = 1000
_OFFSET = 10_000
_VECTORS = 16
_DIMENSION = 65_536
_PAYLOAD = 128 << 10
_LEVELS = 32
_BATCH = 256
_EXAMPLES = 256
_DEPTH = 8
_CONDITIONS = 256
_VALUES = 1000
_ANSWER = 15 << 20
_EARTH = 6_371_008.8
"""Its mean radius in meters."""

_KEY = r'(?:[\w-]+|"[^"\\]+")'
_PATH = re.compile(rf"{_KEY}(?:\[\d{{0,6}}\])*(?:\.{_KEY}(?:\[\d{{0,6}}\])*)*")
_STEP = re.compile(r'\[(\d*)\]|"([^"]+)"|([\w-]+)')

_Id = int | UUID
_Sparse = dict[int, float]
_Vector = Sequence[float] | _Sparse
_Test = Callable[[_Id, Any], bool]


@dataclass(slots=True)
class _Stored:
    vectors: dict[str, _Vector]
    payload: dict[str, Any]


@dataclass(slots=True)
class _Collection:
    params: pb.CollectionParams
    points: dict[_Id, _Stored] = field(default_factory=dict)
    indexes: dict[str, int] = field(default_factory=dict)

    @property
    def dense(self) -> dict[str, pb.VectorParams]:
        found = dict(self.params.vectors)
        if self.params.HasField("vector"):
            found[""] = self.params.vector
        return found

    def named(self, name: str, where: str) -> pb.VectorParams:
        if name not in self.dense:
            raise InvalidArgument(f"This collection has no dense vector {name!r}.", field=where)
        return self.dense[name]


class MemoryVectors:
    """The service of `isa.vectors.v1` in memory."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, _Collection]] = {}

    async def create_collection(
        self, caller: Caller, request: pb.CreateCollectionRequest
    ) -> pb.CreateCollectionResponse:
        """Make a collection."""
        name = _name(request.collection)
        params = _checked(request.params)
        mine = self._mine(caller)
        if name in mine:
            raise AlreadyExists("The collection exists already.", field="collection")
        if len(mine) >= _COLLECTIONS:
            raise ResourceExhausted(f"An organisation may have {_COLLECTIONS} collections.")
        mine[name] = _Collection(params)
        return pb.CreateCollectionResponse()

    async def list_collections(self, caller: Caller, _request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Name the collections."""
        return pb.ListCollectionsResponse(collections=sorted(self._mine(caller)))

    async def describe_collection(
        self, caller: Caller, request: pb.DescribeCollectionRequest
    ) -> pb.DescribeCollectionResponse:
        """Describe a collection."""
        found = self._collection(caller, request)
        return pb.DescribeCollectionResponse(
            params=found.params,
            points=len(found.points),
            indexes={path: pb.IndexType.ValueType(kind) for path, kind in found.indexes.items()},
        )

    async def delete_collection(
        self, caller: Caller, request: pb.DeleteCollectionRequest
    ) -> pb.DeleteCollectionResponse:
        """Delete a collection."""
        self._collection(caller, request)
        del self._mine(caller)[request.collection]
        return pb.DeleteCollectionResponse()

    async def upsert(self, caller: Caller, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Store points, all or none."""
        found = self._collection(caller, request)
        if len(request.points) > _POINTS:
            raise InvalidArgument(f"A request may have {_POINTS} points.", field="points")
        points = [_point(each, f"points[{at}]", found) for at, each in enumerate(request.points)]
        found.points.update(points)
        return pb.UpsertResponse()

    async def search(self, caller: Caller, request: pb.SearchRequest) -> pb.SearchResponse:
        """Find what is nearest."""
        found = self._collection(caller, request)
        limit = _window(request, found)
        _fields(request.include)
        query: _Vector
        if request.using in found.params.sparse_vectors and request.vector.WhichOneof("kind") == "sparse":
            query, metric = _sparse(request.vector.sparse, "vector.sparse"), pb.METRIC_DOT
        else:
            params = found.named(request.using, "using")
            query, metric = _floats(request.vector.dense, params.dimension, "vector"), params.metric
        wanted = _Filters(found.indexes).read(request.filter)
        least = _threshold(request)
        query = _normal(query) if metric == pb.METRIC_COSINE else query
        scores = [
            (_score(metric, query, stored.vectors[request.using]), each)
            for each, stored in found.points.items()
            if request.using in stored.vectors
            and wanted(each, stored.payload)
            and not (isinstance(query, dict) and query.keys().isdisjoint(stored.vectors[request.using]))
        ]
        return pb.SearchResponse(points=_best(scores, metric, least, limit, request, found))

    async def search_many(self, caller: Caller, request: pb.SearchManyRequest) -> pb.SearchManyResponse:
        """Find what is nearest, many times."""
        answer = pb.SearchManyResponse()
        await _each(self.search, caller, request.searches, "searches", answer)
        return answer

    async def recommend(self, caller: Caller, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Find what is like examples."""
        found = self._collection(caller, request)
        limit = _window(request, found)
        _fields(request.include)
        if request.strategy not in pb.Strategy.values():
            raise InvalidArgument("No such strategy.", field="strategy")
        is_average = request.strategy != pb.STRATEGY_BEST_SCORE
        if len(request.positive) + len(request.negative) > _EXAMPLES:
            raise InvalidArgument(f"Give at most {_EXAMPLES} examples.", field="negative")
        if not request.positive and (is_average or not request.negative):
            raise InvalidArgument("Give a positive example.", field="positive")
        least = _threshold(request)
        if least is not None and not is_average:
            raise InvalidArgument("BEST_SCORE takes no threshold.", field="score_threshold")
        params = found.named(request.using, "using")
        known: set[_Id] = set()
        liked, disliked = (
            [_example(found, each, request.using, params, f"{part}[{at}]", known) for at, each in enumerate(examples)]
            for part, examples in (("positive", request.positive), ("negative", request.negative))
        )
        wanted = _Filters(found.indexes).read(request.filter)
        metric = params.metric
        if metric == pb.METRIC_COSINE and not is_average:
            liked, disliked = ([_normal(each) for each in group] for group in (liked, disliked))

        def score(vector: Any) -> float:
            if is_average:
                return _score(metric, target, vector)
            likes = max((_nearness(metric, each, vector) for each in liked), default=-math.inf)
            dislikes = max((_nearness(metric, each, vector) for each in disliked), default=-math.inf)
            return _squeezed(likes) if likes > dislikes else -_squeezed(dislikes)

        target: Sequence[float] = ()
        if is_average:
            target = _average(liked, disliked)
            target = _normal(target) if metric == pb.METRIC_COSINE else target
        scores = [
            (score(stored.vectors[request.using]), each)
            for each, stored in found.points.items()
            if request.using in stored.vectors and each not in known and wanted(each, stored.payload)
        ]
        order = metric if is_average else pb.METRIC_DOT
        return pb.RecommendResponse(points=_best(scores, order, least, limit, request, found))

    async def recommend_many(self, caller: Caller, request: pb.RecommendManyRequest) -> pb.RecommendManyResponse:
        """Find what is like examples, many times."""
        answer = pb.RecommendManyResponse()
        await _each(self.recommend, caller, request.recommendations, "recommendations", answer)
        return answer

    async def scroll(self, caller: Caller, request: pb.ScrollRequest) -> pb.ScrollResponse:
        """Return a page of points."""
        found = self._collection(caller, request)
        if request.limit > _GOT:
            raise InvalidArgument(f"A page has at most {_GOT} points.", field="limit")
        _fields(request.include)
        facts = repr((caller.org, request.collection)).encode() + request.filter.SerializeToString(deterministic=True)
        asked = hashlib.blake2b(facts, digest_size=8).digest()
        start = _resume(request.cursor, asked)
        wanted = _Filters(found.indexes).read(request.filter)
        chosen = [
            each
            for each in sorted(found.points, key=_order)
            if (start is None or _order(each) >= _order(start)) and wanted(each, found.points[each].payload)
        ]
        response = pb.ScrollResponse()
        limit, size = request.limit or 100, 0
        for at, each in enumerate(chosen):
            point = _message(pb.Point(), each, found, request.include)
            size += point.ByteSize() + 8
            if at == limit or (at and size > _ANSWER):
                response.next_cursor = base64.urlsafe_b64encode(asked + _id_message(each).SerializeToString()).decode()
                break
            response.points.append(point)
        return response

    async def count(self, caller: Caller, request: pb.CountRequest) -> pb.CountResponse:
        """Count points."""
        found = self._collection(caller, request)
        return pb.CountResponse(count=len(_chosen(found, request.filter, "filter")))

    async def count_many(self, caller: Caller, request: pb.CountManyRequest) -> pb.CountManyResponse:
        """Count points, many times."""
        answer = pb.CountManyResponse()
        await _each(self.count, caller, request.counts, "counts", answer)
        return answer

    async def get_points(self, caller: Caller, request: pb.GetPointsRequest) -> pb.GetPointsResponse:
        """Return points by id."""
        found = self._collection(caller, request)
        ids = _ids(request.ids, "ids", _GOT)
        _fields(request.include)
        there = [each for each in dict.fromkeys(ids) if each in found.points]
        return pb.GetPointsResponse(points=[_message(pb.Point(), each, found, request.include) for each in there])

    async def delete_points(self, caller: Caller, request: pb.DeletePointsRequest) -> pb.DeletePointsResponse:
        """Delete points."""
        found = self._collection(caller, request)
        for each in _selected(found, request.selector):
            del found.points[each]
        return pb.DeletePointsResponse()

    async def set_payload(self, caller: Caller, request: pb.SetPayloadRequest) -> pb.SetPayloadResponse:
        """Set fields of payloads."""
        found = self._collection(caller, request)
        _payload(request.payload, "payload")
        for each in _selected(found, request.selector):
            point, fields = found.points[each], _payload(request.payload, "payload")
            point.payload = fields if request.replace else {**point.payload, **fields}
        return pb.SetPayloadResponse()

    async def delete_payload(self, caller: Caller, request: pb.DeletePayloadRequest) -> pb.DeletePayloadResponse:
        """Delete fields of payloads."""
        found = self._collection(caller, request)
        if not 0 < len(request.fields) <= _CONDITIONS:
            raise InvalidArgument(f"Give 1 to {_CONDITIONS} fields.", field="fields")
        paths = [_steps(each, f"fields[{at}]") for at, each in enumerate(request.fields)]
        for each in _selected(found, request.selector):
            for steps in paths:
                _remove(found.points[each].payload, steps)
        return pb.DeletePayloadResponse()

    async def create_index(self, caller: Caller, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
        """Index a field."""
        found = self._collection(caller, request)
        _steps(request.field, "field")
        if request.type == pb.INDEX_TYPE_UNSPECIFIED or request.type not in pb.IndexType.values():
            raise InvalidArgument("Say of what type the index is.", field="type")
        if found.indexes.get(request.field, request.type) != request.type:
            raise FailedPrecondition("The field has an index of another type: delete it first.", field="type")
        if request.field not in found.indexes and len(found.indexes) >= _INDEXES:
            raise ResourceExhausted(f"A collection may have {_INDEXES} indexes.")
        found.indexes[request.field] = request.type
        return pb.CreateIndexResponse()

    async def delete_index(self, caller: Caller, request: pb.DeleteIndexRequest) -> pb.DeleteIndexResponse:
        """Forget an index."""
        found = self._collection(caller, request)
        _steps(request.field, "field")
        found.indexes.pop(request.field, None)
        return pb.DeleteIndexResponse()

    def _mine(self, caller: Caller) -> dict[str, _Collection]:
        return self._tenants.setdefault(caller.tenant, {})

    def _collection(self, caller: Caller, request: Any) -> _Collection:
        found = self._mine(caller).get(_name(request.collection))
        if found is None:
            raise NotFound("No such collection.", field="collection")
        return found


async def _each(one: Callable[..., Any], caller: Caller, requests: Sequence[Any], where: str, answer: Any) -> None:
    """Add the outcome of each item to the answer of a batch."""
    if len(requests) > _BATCH:
        raise InvalidArgument(f"A batch may have {_BATCH} items.", field=where)
    for request in requests:
        try:
            answer.outcomes.add(ok=await one(caller, request))
        except IsaError as error:
            answer.outcomes.add(error=status_of(error))


# Names, ids, vectors and payloads.


def _name(name: str) -> str:
    if not 0 < len(name.encode()) <= 128:
        raise InvalidArgument("A collection's name has 1 to 128 bytes.", field="collection")
    if re.search(r"[\x00-\x1f\x7f]", name):
        raise InvalidArgument("A collection's name has no control characters.", field="collection")
    return name


def _checked(given: pb.CollectionParams) -> pb.CollectionParams:
    params = pb.CollectionParams()
    params.CopyFrom(given)
    named = [*params.vectors, *params.sparse_vectors]
    if params.HasField("vector") and params.vectors:
        raise InvalidArgument("A collection has one vector without a name, or some with names.", field="params.vectors")
    if not params.HasField("vector") and not named:
        raise InvalidArgument("A collection needs a vector.", field="params.vector")
    if len(named) > _VECTORS:
        raise InvalidArgument(f"A collection has at most {_VECTORS} vectors.", field="params.vectors")
    if not all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", each) for each in named):
        raise InvalidArgument("A vector's name is 1 to 64 of A-Z, a-z, 0-9, _ and -.", field="params.vectors")
    if len(set(named)) < len(named):
        raise InvalidArgument("Two vectors have the same name.", field="params.sparse_vectors")
    for name, vector in _Collection(params).dense.items():
        where = f"params.vectors.{name}" if name else "params.vector"
        if not 0 < vector.dimension <= _DIMENSION:
            raise InvalidArgument(f"A vector has 1 to {_DIMENSION} dimensions.", field=f"{where}.dimension")
        if vector.metric not in pb.Metric.values():
            raise InvalidArgument("No such metric.", field=f"{where}.metric")
        vector.metric = vector.metric or pb.METRIC_COSINE
    return params


def _id(message: pb.PointId, where: str) -> _Id:
    if message.HasField("number"):
        return message.number
    if not message.HasField("uuid"):
        raise InvalidArgument("A point needs an id: a number or a UUID.", field=where)
    try:
        return UUID(message.uuid)
    except ValueError:
        raise InvalidArgument("This is no UUID.", field=where) from None


def _ids(messages: Sequence[pb.PointId], where: str, most: int) -> list[_Id]:
    if not 0 < len(messages) <= most:
        raise InvalidArgument(f"Give 1 to {most} ids.", field=where)
    return [_id(message, f"{where}[{at}]") for at, message in enumerate(messages)]


def _id_message(given: _Id) -> pb.PointId:
    return pb.PointId(number=given) if isinstance(given, int) else pb.PointId(uuid=str(given))


def _order(given: _Id) -> tuple[bool, int]:
    return (False, given) if isinstance(given, int) else (True, given.int)


def _floats(packed: bytes, dimension: int, where: str) -> array[float]:
    if len(packed) != 4 * dimension:
        raise InvalidArgument(f"The vectors of this collection have {dimension} dimensions.", field=where)
    floats = array("f")
    floats.frombytes(packed)
    if not all(map(math.isfinite, floats)):
        raise InvalidArgument("A vector has finite numbers only.", field=where)
    return floats


def _sparse(message: pb.SparseVector, where: str) -> _Sparse:
    size = len(message.indices)
    if size % 4 or size != len(message.values):
        raise InvalidArgument("A sparse vector has one value an index, of 4 bytes each.", field=where)
    if not 0 < size <= 4 * _DIMENSION:
        raise InvalidArgument(f"A sparse vector has 1 to {_DIMENSION} values.", field=where)
    indices = array("I")
    indices.frombytes(message.indices)
    found = dict(zip(indices, _floats(message.values, size // 4, where), strict=True))
    if len(found) < len(indices):
        raise InvalidArgument("An index occurs twice.", field=f"{where}.indices")
    return found


def _payload(packed: bytes, where: str) -> dict[str, Any]:
    if len(packed) > _PAYLOAD:
        raise InvalidArgument(f"A payload has at most {_PAYLOAD} bytes.", field=where)

    def refuse(_word: str) -> None:
        raise ValueError

    try:
        read = json.loads(packed, parse_constant=refuse)
    except (ValueError, RecursionError):
        raise InvalidArgument("The payload is no JSON.", field=where) from None
    if not isinstance(read, dict):
        raise InvalidArgument("A payload is a JSON object.", field=where)
    if _depth(read) > _LEVELS:
        raise InvalidArgument(f"A payload has at most {_LEVELS} levels.", field=where)
    return read


def _depth(value: object) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _point(message: pb.Point, where: str, collection: _Collection) -> tuple[_Id, _Stored]:
    given: dict[str, pb.Vector] = dict(message.vectors)
    vectors: dict[str, _Vector] = {}
    if message.vector:
        given[""] = pb.Vector(dense=message.vector)
    for name, vector in given.items():
        there = f"{where}.vectors.{name}" if name in message.vectors else f"{where}.vector"
        if name in collection.params.sparse_vectors and vector.HasField("sparse"):
            vectors[name] = _sparse(vector.sparse, there)
            continue
        params = collection.named(name, there)
        floats = _floats(vector.dense, params.dimension, there)
        vectors[name] = _normal(floats) if params.metric == pb.METRIC_COSINE else floats
    if not vectors:
        raise InvalidArgument("A point needs a vector.", field=f"{where}.vector")
    payload = _payload(message.payload, f"{where}.payload") if message.payload else {}
    return _id(message.id, f"{where}.id"), _Stored(vectors, payload)


def _message(point: Any, given: _Id, collection: _Collection, include: pb.Include) -> Any:
    stored = collection.points[given]
    point.id.CopyFrom(_id_message(given))
    payload = stored.payload if include.payload or include.payload_fields else {}
    if include.payload_fields:
        payload = _picked(payload, [_steps(each, "") for each in include.payload_fields]) or {}
    if payload:
        point.payload = json.dumps(payload, ensure_ascii=False).encode()
    for name, vector in stored.vectors.items() if include.vectors else ():
        if isinstance(vector, dict):
            pairs = sorted(vector.items())
            point.vectors[name].sparse.indices = array("I", [index for index, _ in pairs]).tobytes()
            point.vectors[name].sparse.values = array("f", [value for _, value in pairs]).tobytes()
        elif name:
            point.vectors[name].dense = array("f", vector).tobytes()
        else:
            point.vector = array("f", vector).tobytes()
    return point


# Scores.


def _normal(vector: Any) -> Any:
    length = math.sqrt(sum(each * each for each in vector))
    return array("f", [each / length for each in vector]) if length else vector


def _score(metric: int, query: Any, vector: Any) -> float:
    if isinstance(query, dict):
        return float(sum(value * vector[index] for index, value in query.items() if index in vector))
    if metric == pb.METRIC_EUCLID:
        return math.dist(query, vector)
    if metric == pb.METRIC_MANHATTAN:
        return math.fsum(abs(one - other) for one, other in zip(query, vector, strict=True))
    return math.fsum(one * other for one, other in zip(query, vector, strict=True))


def _nearness(metric: int, query: Any, vector: Any) -> float:
    """A score of which more is always nearer."""
    score = _score(metric, query, vector)
    return -score * score if metric == pb.METRIC_EUCLID else -score if metric == pb.METRIC_MANHATTAN else score


def _squeezed(score: float) -> float:
    return 0.5 * (score / (1 + abs(score)) + 1)


def _average(positives: Sequence[Any], negatives: Sequence[Any]) -> list[float]:
    liked = [sum(each) / len(positives) for each in zip(*positives, strict=True)]
    disliked = [sum(each) / len(negatives) for each in zip(*negatives, strict=True)] or liked
    return [2 * like - dislike for like, dislike in zip(liked, disliked, strict=True)]


def _best(
    scores: list[tuple[float, _Id]], metric: int, least: float | None, limit: int, request: Any, found: _Collection
) -> list[pb.ScoredPoint]:
    """The best scores, those that are worse than the threshold left out."""
    sign = 1 if metric in (pb.METRIC_EUCLID, pb.METRIC_MANHATTAN) else -1
    good = [pair for pair in scores if least is None or sign * pair[0] <= sign * least]
    good.sort(key=lambda pair: (sign * pair[0], _order(pair[1])))
    return [
        _message(pb.ScoredPoint(score=score), each, found, request.include)
        for score, each in good[request.offset : request.offset + limit]
    ]


def _window(request: pb.SearchRequest | pb.RecommendRequest, found: _Collection) -> int:
    if request.limit > _GOT:
        raise InvalidArgument(f"An answer has at most {_GOT} points.", field="limit")
    if request.offset > _OFFSET:
        raise InvalidArgument(f"An offset is at most {_OFFSET}.", field="offset")
    limit = request.limit or 10
    if request.include.vectors and limit * 4 * sum(each.dimension for each in found.dense.values()) > _ANSWER:
        raise InvalidArgument("So many vectors do not fit into one answer.", field="limit")
    return limit


def _threshold(request: pb.SearchRequest | pb.RecommendRequest) -> float | None:
    if not request.HasField("score_threshold"):
        return None
    if not math.isfinite(request.score_threshold):
        raise InvalidArgument("A score is a finite number.", field="score_threshold")
    return request.score_threshold


def _example(
    found: _Collection, example: pb.Example, using: str, params: pb.VectorParams, where: str, known: set[_Id]
) -> Any:
    if example.WhichOneof("kind") == "vector":
        return _floats(example.vector, params.dimension, f"{where}.vector")
    given = _id(example.id, f"{where}.id")
    known.add(given)
    stored = found.points.get(given)
    if stored is None or using not in stored.vectors:
        raise NotFound("No such point, or it lacks this vector.", field=f"{where}.id")
    return stored.vectors[using]


def _resume(cursor: str, asked: bytes) -> _Id | None:
    if not cursor:
        return None
    try:
        raw = base64.b64decode(cursor, altchars=b"-_", validate=True)
        following = _id(pb.PointId.FromString(raw[8:]), "cursor")
    except Exception:
        raise InvalidArgument("This is no cursor that a scroll returned.", field="cursor") from None
    if raw[:8] != asked:
        raise InvalidArgument("This cursor belongs to another collection or filter.", field="cursor")
    return following


# Paths and filters.

_Step = str | int | None
"""A key, a place in a list, or every place."""


def _steps(path: str, where: str) -> list[_Step]:
    if len(path) > 256 or not _PATH.fullmatch(path):
        raise InvalidArgument(f"{path[:80]!r} is no path such as author.name or tags[].text.", field=where)
    steps: list[_Step] = []
    for place, quoted, plain in _STEP.findall(path):
        steps.append(quoted or plain or (int(place) if place else None))
    return steps


def _fields(include: pb.Include) -> None:
    if len(include.payload_fields) > _VALUES:
        raise InvalidArgument(f"Give at most {_VALUES} fields.", field="include.payload_fields")
    for at, each in enumerate(include.payload_fields):
        _steps(each, f"include.payload_fields[{at}]")


def _at(value: Any, steps: Sequence[_Step]) -> Iterator[Any]:
    """What a path leads to."""
    if not steps:
        yield value
        return
    step, rest = steps[0], steps[1:]
    if isinstance(step, str):
        if isinstance(value, dict) and step in value:
            yield from _at(value[step], rest)
    elif isinstance(value, list):
        for each in value if step is None else value[step : step + 1]:
            yield from _at(each, rest)


def _picked(value: Any, paths: Sequence[Sequence[_Step]]) -> Any:
    """A value with nothing but what paths lead to."""
    if any(not steps for steps in paths):
        return value
    if isinstance(value, dict):
        inner = {key: [steps[1:] for steps in paths if steps[0] == key] for key in value}
        return {key: _picked(value[key], rest) for key, rest in inner.items() if rest}
    if isinstance(value, list):
        rest = [steps[1:] for steps in paths if steps[0] is None]
        return [_picked(each, rest) for each in value] if rest else []
    return None


def _remove(value: Any, steps: Sequence[_Step]) -> None:
    for holder in list(_at(value, steps[:-1])):
        last = steps[-1]
        if isinstance(last, str):
            if isinstance(holder, dict):
                holder.pop(last, None)
        elif isinstance(holder, list):
            del holder[slice(None) if last is None else slice(last, last + 1)]


def _chosen(found: _Collection, message: pb.Filter, where: str) -> list[_Id]:
    wanted = _Filters(found.indexes).read(message, where)
    return [each for each, stored in found.points.items() if wanted(each, stored.payload)]


def _selected(found: _Collection, selector: pb.Selector) -> list[_Id]:
    kind, chosen = selector.WhichOneof("kind"), selector.filter
    if kind is None or (kind == "filter" and not (chosen.must or chosen.should or chosen.must_not)):
        raise InvalidArgument("Say which points: ids, or a filter with a condition.", field="selector")
    if kind == "filter":
        return _chosen(found, chosen, "selector.filter")
    ids = dict.fromkeys(_ids(selector.ids.ids, "selector.ids", _POINTS))
    return [each for each in ids if each in found.points]


class _Filters:
    """Filters as functions of an id and a payload."""

    def __init__(self, indexes: dict[str, int]) -> None:
        self._indexes = indexes
        self._left = _CONDITIONS

    def read(self, message: pb.Filter, where: str = "filter") -> _Test:
        return self._filter(message, where, 1, "")

    def _filter(self, message: pb.Filter, where: str, depth: int, prefix: str) -> _Test:
        if depth > _DEPTH:
            raise InvalidArgument(f"A filter has at most {_DEPTH} levels.", field=where)
        must, should, must_not = (
            [self._condition(each, f"{where}.{part}[{at}]", depth, prefix) for at, each in enumerate(conditions)]
            for part, conditions in (("must", message.must), ("should", message.should), ("must_not", message.must_not))
        )

        def test(given: _Id, payload: Any) -> bool:
            return (
                all(each(given, payload) for each in must)
                and (not should or any(each(given, payload) for each in should))
                and not any(each(given, payload) for each in must_not)
            )

        return test

    def _condition(self, message: pb.Condition, where: str, depth: int, prefix: str) -> _Test:
        self._left -= 1
        if self._left < 0:
            raise InvalidArgument(f"A filter has at most {_CONDITIONS} conditions.", field=where)
        match message.WhichOneof("kind"):
            case "filter":
                return self._filter(message.filter, f"{where}.filter", depth + 1, prefix)
            case "has_id":
                ids = frozenset(_ids(message.has_id.ids, f"{where}.has_id.ids", _VALUES))
                return lambda given, _payload: given in ids
            case "nested":
                path = message.nested.field
                steps = _steps(path, f"{where}.nested.field")
                inner = self._filter(message.nested.filter, f"{where}.nested.filter", depth + 1, f"{prefix}{path}[].")
                return lambda given, payload: any(
                    isinstance(each, dict) and inner(given, each) for each in _elements(payload, steps)
                )
            case "is_empty":
                empty = _steps(message.is_empty, f"{where}.is_empty")
                return lambda _given, payload: all(each is None or each == [] for each in _at(payload, empty))
            case "is_null":
                null = _steps(message.is_null, f"{where}.is_null")
                return lambda _given, payload: any(
                    each is None or (isinstance(each, list) and None in each) for each in _at(payload, null)
                )
            case "match":
                return self._match(message.match, f"{where}.match", prefix)
            case "range":
                return self._range(message.range, f"{where}.range", prefix)
            case "time_range":
                return _time_range(message.time_range, f"{where}.time_range")
            case "geo_radius":
                return _radius(message.geo_radius, f"{where}.geo_radius")
            case "geo_box":
                return _box(message.geo_box, f"{where}.geo_box")
        raise InvalidArgument("A condition says what it tests.", field=where)

    def _match(self, message: pb.Match, where: str, prefix: str) -> _Test:
        steps = _steps(message.field, f"{where}.field")
        kind = message.WhichOneof("value")
        if kind is None:
            raise InvalidArgument("A match says with what.", field=where)
        value: Any = getattr(message, kind)
        index = self._indexes.get(prefix + message.field)
        if kind == "text" and index != pb.INDEX_TYPE_TEXT:
            raise FailedPrecondition(f"This needs a text index on {prefix}{message.field}.", field=f"{where}.text")
        if kind == "text" and not _words(value):
            raise InvalidArgument("A text has a word or more.", field=f"{where}.text")
        values = [value] if kind in ("keyword", "integer", "boolean", "text") else list(value.values)
        if not 0 < len(values) <= _VALUES:
            raise InvalidArgument(f"Give 1 to {_VALUES} values.", field=f"{where}.{kind}")
        if any(isinstance(each, str) and len(each) > 4096 for each in values):
            raise InvalidArgument("A value has at most 4096 characters.", field=f"{where}.{kind}")
        if kind == "text":
            words = _words(value)
            return _some(steps, lambda each: isinstance(each, str) and words <= _words(each))
        if kind == "boolean":
            return _some(steps, lambda each: each is value)
        if kind.startswith("except"):
            return _some(steps, lambda each: _is_other(each, values, index))
        wanted = frozenset(values)
        return _some(steps, lambda each: _plain(each, wanted, index) in wanted)

    def _range(self, message: pb.Range, where: str, prefix: str) -> _Test:
        bounds = [(name.name, value) for name, value in message.ListFields() if name.name != "field"]
        if not bounds or not all(math.isfinite(value) for _, value in bounds):
            raise InvalidArgument("A range has a bound or more, which are finite numbers.", field=where)
        steps = _steps(message.field, f"{where}.field")
        only_integers = self._indexes.get(prefix + message.field) == pb.INDEX_TYPE_INTEGER
        return _some(
            steps,
            lambda each: (
                type(each) in (int, float)
                and not (only_integers and each != int(each))
                and all(_within(each, name, bound) for name, bound in bounds)
            ),
        )


def _elements(payload: Any, steps: Sequence[_Step]) -> Iterator[Any]:
    for found in _at(payload, steps):
        yield from found if isinstance(found, list) else ()
        if steps[-1] is None:
            yield found


def _some(steps: Sequence[_Step], test: Callable[[Any], bool]) -> _Test:
    """A field, or one element of it, passes."""

    def check(_given: _Id, payload: Any) -> bool:
        return any(
            test(each) for found in _at(payload, steps) for each in (found if isinstance(found, list) else [found])
        )

    return check


def _plain(value: Any, wanted: Iterable[Any], index: int | None) -> Any:
    """A value as matches compare it: never a boolean with a number, and 1.0 with 1 in an index of integers only."""
    if type(value) is float and index == pb.INDEX_TYPE_INTEGER and value.is_integer():
        return int(value)
    return value if type(value) in (str, int) else None


def _is_other(value: Any, values: Sequence[Any], index: int | None) -> bool:
    """A value, and none of these; an index knows values of its own type only."""
    plain = _plain(value, values, index)
    if (index == pb.INDEX_TYPE_KEYWORD and isinstance(values[0], str) and not isinstance(plain, str)) or (
        index == pb.INDEX_TYPE_INTEGER and isinstance(values[0], int) and not isinstance(plain, int)
    ):
        return False
    return value is not None and (plain is None or plain not in values)


def _within(value: Any, name: str, bound: Any) -> bool:
    if name == "gt":
        return bool(value > bound)
    if name == "gte":
        return bool(value >= bound)
    return bool(value < bound) if name == "lt" else bool(value <= bound)


def _words(text: str) -> set[str]:
    words = "".join(each if each.isalnum() else " " for each in text).lower().split()
    return {each for each in words if len(each) <= 40}


def _time_range(message: pb.TimeRange, where: str) -> _Test:
    bounds: list[tuple[str, datetime]] = []
    for name, value in message.ListFields():
        if name.name != "field":
            bounds.append((name.name, _moment(value, f"{where}.{name.name}")))
    if not bounds:
        raise InvalidArgument("A range has a bound or more.", field=where)
    steps = _steps(message.field, f"{where}.field")

    def test(value: Any) -> bool:
        if not isinstance(value, str):
            return False
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return False
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return all(_within(moment, name, bound) for name, bound in bounds)

    return _some(steps, test)


def _moment(stamp: Timestamp, where: str) -> datetime:
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise InvalidArgument("The time is outside the years 1 to 9999.", field=where) from None


def _place(point: pb.GeoPoint, where: str) -> tuple[float, float]:
    if not (-180 <= point.lon <= 180 and -90 <= point.lat <= 90):
        raise InvalidArgument("A place has a lon of -180 to 180 and a lat of -90 to 90.", field=where)
    return point.lon, point.lat


def _spot(value: Any) -> tuple[float, float] | None:
    """A place in a payload."""
    if not isinstance(value, dict):
        return None
    lon, lat = value.get("lon"), value.get("lat")
    if isinstance(lon, int | float) and isinstance(lat, int | float):
        return lon, lat
    return None


def _radius(message: pb.GeoRadius, where: str) -> _Test:
    lon, lat = _place(message.center, f"{where}.center")
    if not (message.meters > 0 and math.isfinite(message.meters)):
        raise InvalidArgument("A radius is more than 0 meters.", field=f"{where}.meters")
    steps = _steps(message.field, f"{where}.field")

    def test(value: Any) -> bool:
        spot = _spot(value)
        if spot is None:
            return False
        north, south = math.radians(lat), math.radians(spot[1])
        east = math.radians(spot[0] - lon)
        half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(east / 2) ** 2
        return 2 * _EARTH * math.asin(min(1.0, math.sqrt(half))) < message.meters

    return _some(steps, test)


def _box(message: pb.GeoBox, where: str) -> _Test:
    left, top = _place(message.top_left, f"{where}.top_left")
    right, bottom = _place(message.bottom_right, f"{where}.bottom_right")
    if top < bottom:
        raise InvalidArgument("The top of a box is above its bottom.", field=f"{where}.top_left")
    steps = _steps(message.field, f"{where}.field")

    def test(value: Any) -> bool:
        spot = _spot(value)
        if spot is None or not bottom < spot[1] < top:
            return False
        return left < spot[0] < right if left <= right else spot[0] > left or spot[0] < right

    return _some(steps, test)
