"""Collections in the embedded engine: a folder each, a few of them open at a time.

Its calls block and keep Python's lock, so this runs in a worker process of its own, one call at a time.
"""

from __future__ import annotations

import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import qdrant_edge as edge

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common.errors import AlreadyExists, FailedPrecondition, InvalidArgument, IsaError, NotFound, ResourceExhausted
from services.adapters.qdrant.codec import (
    CONDITIONS,
    GOT,
    INDEXES_MOST,
    LARGEST_ANSWER,
    POINTS,
    Collection,
    Filters,
    Id,
    average,
    chosen,
    collection_of,
    cursor,
    dense,
    fields_of,
    fits,
    packed,
    page,
    path,
    payload,
    point_id,
    point_ids,
    question,
    recommended,
    resume,
    revealed,
    sparse,
    sparse_message,
    threshold,
    window,
)

METRICS = {
    pb.METRIC_COSINE: edge.Distance.Cosine,
    pb.METRIC_DOT: edge.Distance.Dot,
    pb.METRIC_EUCLID: edge.Distance.Euclid,
    pb.METRIC_MANHATTAN: edge.Distance.Manhattan,
}
INDEXES: dict[int, Any] = {
    pb.INDEX_TYPE_KEYWORD: edge.PayloadSchemaType.Keyword,
    pb.INDEX_TYPE_INTEGER: edge.PayloadSchemaType.Integer,
    pb.INDEX_TYPE_FLOAT: edge.PayloadSchemaType.Float,
    pb.INDEX_TYPE_BOOL: edge.PayloadSchemaType.Bool,
    pb.INDEX_TYPE_GEO: edge.PayloadSchemaType.Geo,
    pb.INDEX_TYPE_DATETIME: edge.PayloadSchemaType.Datetime,
    pb.INDEX_TYPE_TEXT: edge.TextIndexParams(
        tokenizer=edge.TokenizerType.Word, lowercase=True, min_token_len=1, max_token_len=40
    ),
}
PARAMS = "params"
FLUSHED = 32 << 20
"""Bytes written to a shard after which its log is made short again."""
TOGETHER = 4096
"""Points that searches of one batch may find, for the engine to plan them as one."""
Outcome = pb.SearchResponse | IsaError


class _Boolean:
    """What the engine's library takes for a boolean: it takes Python's own for a number, and numpy's by their name."""

    __slots__ = ("_value",)

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


_Boolean.__module__, _Boolean.__name__ = "numpy", "bool_"


class _Kit:
    """Filters in the words of the embedded engine."""

    def filter(self, must: list[Any], should: list[Any], must_not: list[Any]) -> edge.Filter:
        return edge.Filter(must=must or None, should=should or None, must_not=must_not or None)

    def value(self, field: str, value: str | int) -> edge.FieldCondition:
        if isinstance(value, bool):
            return edge.FieldCondition(key=field, match=edge.MatchValue(_Boolean(value)))  # type: ignore[arg-type]  # see there
        return edge.FieldCondition(key=field, match=edge.MatchValue(value))

    def text(self, field: str, text: str) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, match=edge.MatchText(text))

    def any(self, field: str, values: Sequence[str | int]) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, match=edge.MatchAny(values))  # type: ignore[arg-type]  # of one kind

    def other(self, field: str, values: Sequence[str | int]) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, match=edge.MatchExcept(values))  # type: ignore[arg-type]  # of one kind

    def range(self, field: str, bounds: Mapping[str, float]) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, range=edge.RangeFloat(**bounds))

    def times(self, field: str, bounds: Mapping[str, str]) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, range=edge.RangeDateTime(**bounds))

    def radius(self, field: str, lon: float, lat: float, meters: float) -> edge.FieldCondition:
        return edge.FieldCondition(key=field, geo_radius=edge.GeoRadius(edge.GeoPoint(lon, lat), meters))

    def box(self, field: str, top_left: tuple[float, float], bottom_right: tuple[float, float]) -> edge.FieldCondition:
        box = edge.GeoBoundingBox(edge.GeoPoint(*top_left), edge.GeoPoint(*bottom_right))
        return edge.FieldCondition(key=field, geo_bounding_box=box)

    def empty(self, field: str) -> edge.IsEmptyCondition:
        return edge.IsEmptyCondition(field)

    def null(self, field: str) -> edge.IsNullCondition:
        return edge.IsNullCondition(field)

    def ids(self, ids: list[Id]) -> edge.HasIdCondition:
        return edge.HasIdCondition(set(ids))

    def nested(self, field: str, inner: edge.Filter) -> edge.NestedCondition:
        return edge.NestedCondition(field, inner)


@dataclass(slots=True)
class Shard:
    """One open collection."""

    engine: edge.EdgeShard
    collection: Collection
    folder: Path
    unflushed: int = 0
    """Bytes in its log."""
    is_dirty: bool = False
    """Whether its log has bytes that are not on the disk yet."""
    has_gaps: bool = False
    """Whether points were deleted since it was last tidied."""
    filters: Filters = field(init=False)

    def __post_init__(self) -> None:
        self.filters = Filters(_Kit(), self.collection.indexes)

    def wrote(self, size: int) -> None:
        """Note that something was written."""
        self.is_dirty = True
        self.unflushed += size
        if self.unflushed > FLUSHED:
            self.flush()

    def flush(self) -> None:
        """Write everything where it belongs, which makes the log short."""
        self.engine.flush()
        self.unflushed = 0

    def sync(self) -> None:
        """Have the disk take the log."""
        self.is_dirty = False
        for log in (self.folder / "shard" / "wal").iterdir():
            with suppress(FileNotFoundError):
                number = os.open(log, os.O_RDONLY)
                try:
                    os.fdatasync(number)
                finally:
                    os.close(number)


class Shards:
    """Every method of the contract, on collections by the names that `isolate` gives them."""

    def __init__(self, folder: Path, *, number: int, open_most: int, collections_most: int, spare: int) -> None:
        self._folder = folder
        self._making = folder / f".making-{number}"
        self._open_most = open_most
        self._collections_most = collections_most
        self._spare = spare
        self._shards: OrderedDict[str, Shard] = OrderedDict()
        shutil.rmtree(self._making, ignore_errors=True)

    def create_collection(self, name: str, request: pb.CreateCollectionRequest) -> pb.CreateCollectionResponse:
        """Make a folder beside, and put it in place when it is complete."""
        collection = collection_of(request.params)
        place = self._place(name)
        if place.exists():
            raise AlreadyExists("The collection exists already.", field="collection")
        self._room(0)
        place.parent.mkdir(exist_ok=True)
        if sum(1 for _ in place.parent.iterdir()) >= self._collections_most:
            raise ResourceExhausted(f"An organisation may have {self._collections_most} collections.")
        shutil.rmtree(self._making, ignore_errors=True)
        self._making.mkdir()
        (self._making / PARAMS).write_bytes(collection.params.SerializeToString())
        config = edge.EdgeConfig(
            vectors={
                name: edge.EdgeVectorParams(size=each.dimension, distance=METRICS[each.metric])
                for name, each in collection.dense.items()
            },
            sparse_vectors={name: edge.EdgeSparseVectorParams() for name in collection.sparse},
            max_search_threads=1,
            # Building a graph would stop this process, and all whom it serves, for many seconds.
            optimizers=edge.EdgeOptimizersConfig(indexing_threshold=1 << 40, default_segment_number=1),
        )
        engine = edge.EdgeShard.create(str(self._making / "shard"), config)
        engine.close()
        self._making.rename(place)
        return pb.CreateCollectionResponse()

    def list_collections(self, tenant: str, _request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Read the names of the folders."""
        with suppress(FileNotFoundError):
            names = sorted(revealed(each) for each in os.listdir(self._folder / tenant))  # noqa: PTH208 -- names only
            return pb.ListCollectionsResponse(collections=names)
        return pb.ListCollectionsResponse()

    def describe_collection(self, name: str, _request: pb.DescribeCollectionRequest) -> pb.DescribeCollectionResponse:
        """Tell what is known."""
        shard = self._shard(name)
        count = shard.engine.count(edge.CountRequest())
        return pb.DescribeCollectionResponse(
            params=shard.collection.params, points=count, indexes=shard.collection.indexes
        )

    def delete_collection(self, name: str, _request: pb.DeleteCollectionRequest) -> pb.DeleteCollectionResponse:
        """Take the folder out of its place, and then away."""
        self._shard(name)
        self._shards.pop(name).engine.close()
        shutil.rmtree(self._making, ignore_errors=True)
        self._place(name).rename(self._making)
        shutil.rmtree(self._making, ignore_errors=True)
        return pb.DeleteCollectionResponse()

    def upsert(self, name: str, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Check every point, then give them all to the engine."""
        shard = self._shard(name)
        if len(request.points) > POINTS:
            raise InvalidArgument(f"A request may have {POINTS} points.", field="points")
        if request.points:
            points = [_point(each, f"points[{at}]", shard.collection) for at, each in enumerate(request.points)]
            self._update(shard, edge.UpdateOperation.upsert_points(points), request.ByteSize())
        return pb.UpsertResponse()

    def search_many(self, name: str, requests: Sequence[pb.SearchRequest]) -> list[Outcome]:
        """Search once or more often in one collection; each search fails alone."""
        try:
            shard = self._shard(name)
        except IsaError as error:
            return [error] * len(requests)
        queries = [_attempt(lambda each=each: _query(shard, each)) for each in requests]  # type: ignore[misc]  # a default
        good = [each for each in queries if not isinstance(each, IsaError)]
        if len(good) > 1 and sum(each.limit for each in good) <= TOGETHER:
            found = iter(shard.engine.query_batch(edge.QueryBatchRequest(good)))
        else:
            found = (shard.engine.query(each) for each in good)
        return [
            query if isinstance(query, IsaError) else _attempt(lambda: pb.SearchResponse(points=_scored(next(found))))
            for query in queries
        ]

    def recommend(self, name: str, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Look the examples up in this collection, and search with what they say."""
        shard = self._shard(name)
        using, limit, offset, include = _asked(request, shard)
        is_average, dimension, least = recommended(request, shard.collection)
        known: set[Id] = set()
        liked, disliked = (
            [self._example(shard, each, using, dimension, f"{part}[{at}]", known) for at, each in enumerate(examples)]
            for part, examples in (("positive", request.positive), ("negative", request.negative))
        )
        query = (
            edge.Query.Nearest(average(liked, disliked), using=using)
            if is_average
            else edge.Query.RecommendBestScore(edge.RecommendQuery(liked, disliked), using=using)  # type: ignore[arg-type]  # views too
        )
        wanted = shard.filters.read(request.filter)
        found = shard.engine.query(
            edge.QueryRequest(
                limit=limit,
                offset=offset,
                query=query,
                filter=edge.Filter(must=[wanted] if wanted else None, must_not=[edge.HasIdCondition(known)])
                if known
                else wanted,
                score_threshold=least,
                params=edge.SearchParams(exact=True) if request.exact else None,
                **include,
            )
        )
        return pb.RecommendResponse(points=_scored(found))

    def scroll(self, name: str, request: pb.ScrollRequest) -> pb.ScrollResponse:
        """Return a page, cut short where it would be too large for one answer."""
        shard = self._shard(name)
        asked = question(name, request)
        records, following = shard.engine.scroll(
            edge.ScrollRequest(
                offset=resume(request.cursor, asked),
                limit=page(request.limit, request.include, shard.collection),
                filter=shard.filters.read(request.filter),
                **_include(request.include),
            )
        )
        points: list[pb.Point] = []
        size = 0
        for record in records:
            point = _record(record)
            size += point.ByteSize() + 8
            if points and size > LARGEST_ANSWER:
                following = record.id
                break
            points.append(point)
        return pb.ScrollResponse(points=points, next_cursor="" if following is None else cursor(asked, following))

    def count(self, name: str, request: pb.CountRequest) -> pb.CountResponse:
        """Count exactly."""
        shard = self._shard(name)
        wanted = shard.filters.read(request.filter)
        return pb.CountResponse(count=shard.engine.count(edge.CountRequest(exact=True, filter=wanted)))

    def get_points(self, name: str, request: pb.GetPointsRequest) -> pb.GetPointsResponse:
        """Return points in the order that they were asked for, each once."""
        shard = self._shard(name)
        ids = point_ids(request.ids, "ids", GOT)
        window(len(ids), 0, request.include, shard.collection)
        include = _include(request.include)
        found = {str(each.id): each for each in shard.engine.retrieve(ids, **include)}
        points = [_record(found[each]) for each in dict.fromkeys(map(str, ids)) if each in found]
        fits(sum(point.ByteSize() for point in points))
        return pb.GetPointsResponse(points=points)

    def delete_points(self, name: str, request: pb.DeletePointsRequest) -> pb.DeletePointsResponse:
        """Delete by id or by filter."""
        shard = self._shard(name)
        if chosen(request.selector) == "ids":
            operation = edge.UpdateOperation.delete_points(point_ids(request.selector.ids.ids, "selector.ids", POINTS))
        else:
            operation = edge.UpdateOperation.delete_points_by_filter(self._selected(shard, request.selector))
        self._update(shard, operation, request.ByteSize(), is_growing=False)
        shard.has_gaps = True
        return pb.DeletePointsResponse()

    def set_payload(self, name: str, request: pb.SetPayloadRequest) -> pb.SetPayloadResponse:
        """Set fields, or everything."""
        shard = self._shard(name)
        fields = payload(request.payload, "payload")
        by = edge.UpdateOperation
        if chosen(request.selector) == "filter":
            change = by.overwrite_payload_by_filter if request.replace else by.set_payload_by_filter
            self._update(shard, change(self._selected(shard, request.selector), fields), request.ByteSize())
        elif ids := self._there(shard, request.selector):
            overwrite = by.overwrite_payload if request.replace else by.set_payload
            self._update(shard, overwrite(ids, fields), request.ByteSize())
        return pb.SetPayloadResponse()

    def delete_payload(self, name: str, request: pb.DeletePayloadRequest) -> pb.DeletePayloadResponse:
        """Delete fields."""
        shard = self._shard(name)
        if not 0 < len(request.fields) <= CONDITIONS:
            raise InvalidArgument(f"Give 1 to {CONDITIONS} fields.", field="fields")
        fields = [path(each, f"fields[{at}]") for at, each in enumerate(request.fields)]
        if chosen(request.selector) == "filter":
            wanted = self._selected(shard, request.selector)
            self._update(shard, edge.UpdateOperation.delete_payload_by_filter(wanted, fields), request.ByteSize())
        elif ids := self._there(shard, request.selector):
            self._update(shard, edge.UpdateOperation.delete_payload(ids, fields), request.ByteSize())
        return pb.DeletePayloadResponse()

    def create_index(self, name: str, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
        """Index a field, once."""
        shard = self._shard(name)
        field = path(request.field, "field")
        schema = INDEXES.get(request.type)
        if schema is None:
            raise InvalidArgument("Say of what type the index is.", field="type")
        indexes = shard.collection.indexes
        if indexes.get(field, request.type) != request.type:
            raise FailedPrecondition("The field has an index of another type: delete it first.", field="type")
        if field not in indexes:
            if len(indexes) >= INDEXES_MOST:
                raise ResourceExhausted(f"A collection may have {INDEXES_MOST} indexes.")
            self._update(shard, edge.UpdateOperation.create_field_index(field, schema), request.ByteSize())
            indexes[field] = request.type
        return pb.CreateIndexResponse()

    def delete_index(self, name: str, request: pb.DeleteIndexRequest) -> pb.DeleteIndexResponse:
        """Forget an index."""
        shard = self._shard(name)
        if shard.collection.indexes.pop(path(request.field, "field"), None):
            self._update(shard, edge.UpdateOperation.delete_field_index(request.field), 0, is_growing=False)
        return pb.DeleteIndexResponse()

    def tidy(self) -> None:
        """Have the disk take what was written, and give back the room of deleted points."""
        for shard in self._shards.values():
            if shard.is_dirty:
                shard.sync()
            if shard.has_gaps:
                shard.has_gaps = False
                shard.engine.optimize()

    def close(self) -> None:
        """Close every collection."""
        while self._shards:
            self._shards.popitem()[1].engine.close()

    def _place(self, name: str) -> Path:
        return self._folder.joinpath(*name.split("."))

    def _shard(self, name: str) -> Shard:
        """An open collection; the one that was used longest ago makes room for it."""
        if found := self._shards.get(name):
            self._shards.move_to_end(name)
            return found
        place = self._place(name)
        try:
            params = pb.CollectionParams.FromString((place / PARAMS).read_bytes())
        except FileNotFoundError:
            raise NotFound("No such collection.", field="collection") from None
        while len(self._shards) >= self._open_most:
            self._shards.popitem(last=False)[1].engine.close()
        engine = edge.EdgeShard.load(str(place / "shard"))
        collection = Collection(params, _indexes(engine))
        shard = self._shards[name] = Shard(engine, collection, place)
        return shard

    def _update(self, shard: Shard, operation: edge.UpdateOperation, size: int, *, is_growing: bool = True) -> None:
        if is_growing:
            self._room(size)
        shard.engine.update(operation)
        shard.wrote(size)

    def _room(self, size: int) -> None:
        """Refuse to write into a disk that is nearly full: the engine maps its files, and would die of it."""
        disk = os.statvfs(self._folder)
        if disk.f_flag & os.ST_RDONLY or disk.f_bavail * disk.f_frsize < self._spare + 4 * size:
            raise ResourceExhausted("There is no room on the disk for more vectors.")

    def _selected(self, shard: Shard, selector: pb.Selector) -> edge.Filter:
        wanted: edge.Filter = shard.filters.read(selector.filter, "selector.filter")
        return wanted

    def _there(self, shard: Shard, selector: pb.Selector) -> list[Id]:
        """The ids that exist: the engine would stop at the first that does not."""
        ids = point_ids(selector.ids.ids, "selector.ids", POINTS)
        return [each.id for each in shard.engine.retrieve(ids, with_payload=False, with_vector=False)]

    def _example(
        self, shard: Shard, example: pb.Example, using: str, dimension: int, where: str, known: set[Id]
    ) -> Sequence[float]:
        if example.WhichOneof("kind") == "vector":
            return dense(example.vector, dimension, f"{where}.vector")
        given = point_id(example.id, f"{where}.id")
        known.add(given)
        for record in shard.engine.retrieve([given], with_payload=False, with_vector=[using]):
            vector = record.vector.get(using) if isinstance(record.vector, dict) else record.vector
            if vector:
                return vector  # type: ignore[return-value]  # a dense one
        raise NotFound("No such point, or it lacks this vector.", field=f"{where}.id")


def _attempt(make: Callable[[], Any]) -> Any:
    """What comes of it, an error of ours too."""
    try:
        return make()
    except IsaError as error:
        return error


def _indexes(engine: edge.EdgeShard) -> dict[str, pb.IndexType.ValueType]:
    kinds = {str(edge.PayloadSchemaType.Text): pb.INDEX_TYPE_TEXT}
    kinds |= {str(schema): pb.IndexType.ValueType(kind) for kind, schema in INDEXES.items()}
    return {field: kinds[str(info.data_type)] for field, info in engine.info().payload_schema.items()}


def _include(include: pb.Include) -> dict[str, Any]:
    fields = fields_of(include)
    return {
        "with_payload": edge.PayloadSelector.Include(fields) if fields else include.payload,
        "with_vector": include.vectors,
    }


def _asked(request: pb.SearchRequest | pb.RecommendRequest, shard: Shard) -> tuple[str, int, int, dict[str, Any]]:
    """What searches have in common: the vector's name, limit, offset, and what comes back."""
    limit, offset = window(request.limit, request.offset, request.include, shard.collection)
    return request.using, limit, offset, _include(request.include)


def _query(shard: Shard, request: pb.SearchRequest) -> edge.QueryRequest:
    using, limit, offset, include = _asked(request, shard)
    vector: Any
    if using in shard.collection.sparse and request.vector.WhichOneof("kind") == "sparse":
        vector = edge.SparseVector(*sparse(request.vector.sparse, "vector.sparse"))
    else:
        params = shard.collection.dense_named(using, "using")
        vector = dense(request.vector.dense, params.dimension, "vector")
    return edge.QueryRequest(
        limit=limit,
        offset=offset,
        query=edge.Query.Nearest(vector, using=using),
        filter=shard.filters.read(request.filter),
        score_threshold=threshold(request),
        params=edge.SearchParams(exact=True) if request.exact else None,
        **include,
    )


def _point(message: pb.Point, where: str, collection: Collection) -> edge.Point:
    vectors: dict[str, Any] = {}
    if message.vector:
        vectors[""] = dense(message.vector, collection.dense_named("", f"{where}.vector").dimension, f"{where}.vector")
    for name, vector in message.vectors.items():
        there = f"{where}.vectors.{name}"
        if name in collection.sparse and vector.WhichOneof("kind") == "sparse":
            vectors[name] = edge.SparseVector(*sparse(vector.sparse, there))
        else:
            vectors[name] = dense(vector.dense, collection.dense_named(name, there).dimension, there)
    if not vectors:
        raise InvalidArgument("A point needs a vector.", field=f"{where}.vector")
    given = point_id(message.id, f"{where}.id")
    only = vectors[""] if vectors.keys() == {""} else vectors
    return edge.Point(given, only, payload(message.payload, f"{where}.payload") if message.payload else None)


def _scored(found: Sequence[edge.ScoredPoint]) -> list[pb.ScoredPoint]:
    points = [_fill(pb.ScoredPoint(score=each.score), each) for each in found]
    fits(sum(point.ByteSize() for point in points))
    return points


def _record(record: edge.Record) -> pb.Point:
    point: pb.Point = _fill(pb.Point(), record)
    return point


def _fill(point: Any, found: Any) -> Any:
    given = found.id
    if isinstance(given, int):
        point.id.number = given
    else:
        point.id.uuid = str(given)
    if data := found.payload:
        point.payload = orjson.dumps(data)
    vector = found.vector
    if isinstance(vector, dict):
        for name, each in vector.items():
            if isinstance(each, edge.SparseVector):
                point.vectors[name].sparse.CopyFrom(sparse_message(each.indices, each.values))
            elif name:
                point.vectors[name].dense = packed(each)
            else:
                point.vector = packed(each)
    elif vector:
        point.vector = packed(vector)
    return point
