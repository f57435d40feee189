"""The backend that asks a Qdrant server: a collection of the server for each of ours."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar

import orjson
from google.protobuf.message import Message
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import (
    AlreadyExists,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    IsaError,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from kernel import ErrorMap
from services.adapters.qdrant.codec import (
    CONDITIONS,
    GOT,
    INDEXES_MOST,
    LARGEST_ANSWER,
    POINTS,
    Collection,
    Filters,
    Id,
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
    pb.METRIC_COSINE: models.Distance.COSINE,
    pb.METRIC_DOT: models.Distance.DOT,
    pb.METRIC_EUCLID: models.Distance.EUCLID,
    pb.METRIC_MANHATTAN: models.Distance.MANHATTAN,
}
INDEXES: dict[int, Any] = {
    pb.INDEX_TYPE_KEYWORD: models.PayloadSchemaType.KEYWORD,
    pb.INDEX_TYPE_INTEGER: models.PayloadSchemaType.INTEGER,
    pb.INDEX_TYPE_FLOAT: models.PayloadSchemaType.FLOAT,
    pb.INDEX_TYPE_BOOL: models.PayloadSchemaType.BOOL,
    pb.INDEX_TYPE_GEO: models.PayloadSchemaType.GEO,
    pb.INDEX_TYPE_DATETIME: models.PayloadSchemaType.DATETIME,
    pb.INDEX_TYPE_TEXT: models.TextIndexParams(
        type=models.TextIndexType.TEXT,
        tokenizer=models.TokenizerType.WORD,
        lowercase=True,
        min_token_len=1,
        max_token_len=40,
    ),
}
FRESH = 5.0
"""Seconds for which a collection is taken to be what it was; another replica may delete it."""
REMEMBERED = 1000
OVERHEAD = 1024
"""Bytes that a point is taken to have beside its vectors: the server does not say."""


def _of_status(error: BaseException) -> IsaError:
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    match status:
        case 404:
            return NotFound("No such collection, or no such point.", field="collection")
        case 409:
            return AlreadyExists("The collection exists already.", field="collection")
        case 400 | 422:
            return InvalidArgument("The engine does not take this request.")
        case 429 | 507:
            return ResourceExhausted("The engine has no room for this now.", retry_after=timedelta(seconds=1))
        case 502 | 503 | 504:
            return Unavailable("The engine is not ready.")
    return Internal("Something went wrong on our side. The request id finds it in our logs.")


def _unreached(_error: BaseException) -> IsaError:
    return Unavailable("The engine was not reached.")


class _Kit:
    """Filters in the words of the server's client."""

    def filter(self, must: list[Any], should: list[Any], must_not: list[Any]) -> models.Filter:
        return models.Filter(must=must or None, should=should or None, must_not=must_not or None)

    def value(self, field: str, value: str | int) -> models.FieldCondition:
        return models.FieldCondition(key=field, match=models.MatchValue(value=value))

    def text(self, field: str, text: str) -> models.FieldCondition:
        return models.FieldCondition(key=field, match=models.MatchText(text=text))

    def any(self, field: str, values: Sequence[str | int]) -> models.FieldCondition:
        return models.FieldCondition(key=field, match=models.MatchAny(any=values))  # type: ignore[arg-type]  # of one kind

    def other(self, field: str, values: Sequence[str | int]) -> models.FieldCondition:
        return models.FieldCondition(key=field, match=models.MatchExcept(**{"except": values}))  # type: ignore[arg-type]  # a keyword

    def range(self, field: str, bounds: Mapping[str, float]) -> models.FieldCondition:
        return models.FieldCondition(key=field, range=models.Range(**bounds))

    def times(self, field: str, bounds: Mapping[str, str]) -> models.FieldCondition:
        times = {name: datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text)) for name, text in bounds.items()}
        return models.FieldCondition(key=field, range=models.DatetimeRange(**times))

    def radius(self, field: str, lon: float, lat: float, meters: float) -> models.FieldCondition:
        circle = models.GeoRadius(center=models.GeoPoint(lon=lon, lat=lat), radius=meters)
        return models.FieldCondition(key=field, geo_radius=circle)

    def box(
        self, field: str, top_left: tuple[float, float], bottom_right: tuple[float, float]
    ) -> models.FieldCondition:
        corners = [models.GeoPoint(lon=lon, lat=lat) for lon, lat in (top_left, bottom_right)]
        box = models.GeoBoundingBox(top_left=corners[0], bottom_right=corners[1])
        return models.FieldCondition(key=field, geo_bounding_box=box)

    def empty(self, field: str) -> models.IsEmptyCondition:
        return models.IsEmptyCondition(is_empty=models.PayloadField(key=field))

    def null(self, field: str) -> models.IsNullCondition:
        return models.IsNullCondition(is_null=models.PayloadField(key=field))

    def ids(self, ids: list[Id]) -> models.HasIdCondition:
        return models.HasIdCondition(has_id=_plain(ids))

    def nested(self, field: str, inner: models.Filter) -> models.NestedCondition:
        return models.NestedCondition(nested=models.Nested(key=field, filter=inner))


class Server:
    """Collections on a Qdrant server, by the names that `isolate` gives them."""

    CAPABILITIES: frozenset[str] = frozenset({"indexes", "replicas", "approximate"})
    ERRORS: ClassVar[ErrorMap] = {UnexpectedResponse: _of_status, ResponseHandlingException: _unreached}

    def __init__(
        self, url: str, *, secret: Callable[[str], Awaitable[str]], key: str, timeout: timedelta, collections: int
    ) -> None:
        self._url = url
        self._secret = secret
        self._key = key
        self._timeout = int(timeout.total_seconds())
        self._collections_most = collections
        self._client: AsyncQdrantClient | None = None
        self._known: OrderedDict[str, tuple[float, Collection]] = OrderedDict()

    async def start(self) -> None:
        """Open the client; it connects when it is used."""
        key = await self._secret(self._key) if self._key else None
        self._client = AsyncQdrantClient(
            location=self._url, api_key=key, timeout=self._timeout, check_compatibility=False
        )

    async def stop(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()

    async def call(self, method: str, name: str, request: Message) -> Any:
        """Do one call."""
        word = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", method).lower()
        return await getattr(self, f"_{word}")(name, request)

    async def call_many(self, method: str, calls: Sequence[tuple[str, Message]]) -> list[Any]:
        """Do many: searches of one collection as one request."""
        if method == "Search":
            return await self._search_many(calls)
        outcomes: list[Any] = []
        for name, request in calls:
            try:
                outcomes.append(await self.call(method, name, request))
            except IsaError as error:
                outcomes.append(error)
        return outcomes

    async def stored(self, tenant: str) -> int:
        """Bytes that the points of a tenant take, about."""
        total = 0
        for name in await self._names(tenant):
            collection = await self._collection(name)
            count = (await self._qdrant.count(name, exact=False)).count
            total += count * (collection.bytes_each + OVERHEAD)
        return total

    async def _create_collection(self, name: str, request: pb.CreateCollectionRequest) -> pb.CreateCollectionResponse:
        collection = collection_of(request.params)
        names = await self._names(name.partition(".")[0])
        if name in names:
            raise AlreadyExists("The collection exists already.", field="collection")
        if len(names) >= self._collections_most:
            raise ResourceExhausted(f"An organisation may have {self._collections_most} collections.")
        vectors = {
            each: models.VectorParams(size=params.dimension, distance=METRICS[params.metric])
            for each, params in collection.dense.items()
        }
        await self._qdrant.create_collection(
            name,
            vectors_config=vectors.get("", vectors),
            sparse_vectors_config={each: models.SparseVectorParams() for each in collection.sparse} or None,
        )
        return pb.CreateCollectionResponse()

    async def _list_collections(self, tenant: str, _request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        return pb.ListCollectionsResponse(collections=sorted(map(revealed, await self._names(tenant))))

    async def _describe_collection(
        self, name: str, _request: pb.DescribeCollectionRequest
    ) -> pb.DescribeCollectionResponse:
        self._known.pop(name, None)
        collection = await self._collection(name)
        count = await self._qdrant.count(name, exact=True)
        return pb.DescribeCollectionResponse(params=collection.params, points=count.count, indexes=collection.indexes)

    async def _delete_collection(self, name: str, _request: pb.DeleteCollectionRequest) -> pb.DeleteCollectionResponse:
        self._known.pop(name, None)
        await self._collection(name)
        await self._qdrant.delete_collection(name)
        self._known.pop(name, None)
        return pb.DeleteCollectionResponse()

    async def _upsert(self, name: str, request: pb.UpsertRequest) -> pb.UpsertResponse:
        collection = await self._collection(name)
        if len(request.points) > POINTS:
            raise InvalidArgument(f"A request may have {POINTS} points.", field="points")
        # Of the same id the last one stays, whatever the server makes of it.
        points = {
            str(point.id): point
            for point in (_point(each, f"points[{at}]", collection) for at, each in enumerate(request.points))
        }
        if points:
            await self._qdrant.upsert(name, list(points.values()), wait=True)
        return pb.UpsertResponse()

    async def _search(self, name: str, request: pb.SearchRequest) -> pb.SearchResponse:
        (outcome,) = await self._search_many([(name, request)])
        if isinstance(outcome, IsaError):
            raise outcome
        response: pb.SearchResponse = outcome
        return response

    async def _search_many(self, calls: Sequence[tuple[str, Any]]) -> list[Any]:
        outcomes: list[Any] = [None] * len(calls)
        queries: dict[str, list[tuple[int, models.QueryRequest]]] = {}
        for at, (name, request) in enumerate(calls):
            try:
                queries.setdefault(name, []).append((at, _query(await self._collection(name), request)))
            except IsaError as error:
                outcomes[at] = error
        for name, group in queries.items():
            found = await self._qdrant.query_batch_points(name, [query for _, query in group]) if group else []
            for (at, _), each in zip(group, found, strict=True):
                try:
                    outcomes[at] = pb.SearchResponse(points=_scored(each.points))
                except IsaError as error:
                    outcomes[at] = error
        return outcomes

    async def _recommend(self, name: str, request: pb.RecommendRequest) -> pb.RecommendResponse:
        collection = await self._collection(name)
        limit, offset = window(request.limit, request.offset, request.include, collection)
        is_average, dimension, least = recommended(request, collection)
        liked, disliked = (
            [_example(each, dimension, f"{part}[{at}]") for at, each in enumerate(getattr(request, part))]
            for part in ("positive", "negative")
        )
        await self._there_with(name, request, collection)
        strategy = models.RecommendStrategy
        found = await self._qdrant.query_points(
            name,
            query=models.RecommendQuery(
                recommend=models.RecommendInput(
                    positive=liked,
                    negative=disliked,
                    strategy=strategy.AVERAGE_VECTOR if is_average else strategy.BEST_SCORE,
                )
            ),
            using=request.using or None,
            query_filter=_filters(collection).read(request.filter),
            search_params=models.SearchParams(exact=True) if request.exact else None,
            limit=limit,
            offset=offset,
            score_threshold=least,
            **_include(request.include),
        )
        return pb.RecommendResponse(points=_scored(found.points))

    async def _scroll(self, name: str, request: pb.ScrollRequest) -> pb.ScrollResponse:
        collection = await self._collection(name)
        asked = question(name, request)
        start = resume(request.cursor, asked)
        records, following = await self._qdrant.scroll(
            name,
            scroll_filter=_filters(collection).read(request.filter),
            limit=page(request.limit, request.include, collection),
            offset=None if start is None else _plain([start])[0],
            **_include(request.include),
        )
        points: list[pb.Point] = []
        size = 0
        for record in records:
            point: pb.Point = _fill(pb.Point(), record)
            size += point.ByteSize() + 8
            if points and size > LARGEST_ANSWER:
                following = record.id
                break
            points.append(point)
        return pb.ScrollResponse(
            points=points,
            next_cursor="" if following is None else cursor(asked, following),  # type: ignore[arg-type]  # an id
        )

    async def _count(self, name: str, request: pb.CountRequest) -> pb.CountResponse:
        wanted = _filters(await self._collection(name)).read(request.filter)
        return pb.CountResponse(count=(await self._qdrant.count(name, count_filter=wanted, exact=True)).count)

    async def _get_points(self, name: str, request: pb.GetPointsRequest) -> pb.GetPointsResponse:
        collection = await self._collection(name)
        ids = _plain(point_ids(request.ids, "ids", GOT))
        window(len(ids), 0, request.include, collection)
        records = await self._qdrant.retrieve(name, ids, **_include(request.include))
        found = {each.id: each for each in records}
        points: list[pb.Point] = [_fill(pb.Point(), found[each]) for each in dict.fromkeys(ids) if each in found]
        fits(sum(point.ByteSize() for point in points))
        return pb.GetPointsResponse(points=points)

    async def _delete_points(self, name: str, request: pb.DeletePointsRequest) -> pb.DeletePointsResponse:
        if selector := await self._selector(name, request.selector, must_exist=False):
            await self._qdrant.delete(name, selector, wait=True)
        return pb.DeletePointsResponse()

    async def _set_payload(self, name: str, request: pb.SetPayloadRequest) -> pb.SetPayloadResponse:
        fields = payload(request.payload, "payload")
        if selector := await self._selector(name, request.selector, must_exist=True):
            change = self._qdrant.overwrite_payload if request.replace else self._qdrant.set_payload
            await change(name, fields, points=selector, wait=True)
        return pb.SetPayloadResponse()

    async def _delete_payload(self, name: str, request: pb.DeletePayloadRequest) -> pb.DeletePayloadResponse:
        if not 0 < len(request.fields) <= CONDITIONS:
            raise InvalidArgument(f"Give 1 to {CONDITIONS} fields.", field="fields")
        fields = [path(each, f"fields[{at}]") for at, each in enumerate(request.fields)]
        if selector := await self._selector(name, request.selector, must_exist=True):
            await self._qdrant.delete_payload(name, fields, points=selector, wait=True)
        return pb.DeletePayloadResponse()

    async def _create_index(self, name: str, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
        self._known.pop(name, None)
        collection = await self._collection(name)
        field = path(request.field, "field")
        schema = INDEXES.get(request.type)
        if schema is None:
            raise InvalidArgument("Say of what type the index is.", field="type")
        if collection.indexes.get(field, request.type) != request.type:
            raise FailedPrecondition("The field has an index of another type: delete it first.", field="type")
        if field not in collection.indexes:
            if len(collection.indexes) >= INDEXES_MOST:
                raise ResourceExhausted(f"A collection may have {INDEXES_MOST} indexes.")
            await self._qdrant.create_payload_index(name, field, field_schema=schema, wait=True)
            self._known.pop(name, None)
        return pb.CreateIndexResponse()

    async def _delete_index(self, name: str, request: pb.DeleteIndexRequest) -> pb.DeleteIndexResponse:
        self._known.pop(name, None)
        collection = await self._collection(name)
        if path(request.field, "field") in collection.indexes:
            await self._qdrant.delete_payload_index(name, request.field, wait=True)
            self._known.pop(name, None)
        return pb.DeleteIndexResponse()

    @property
    def _qdrant(self) -> AsyncQdrantClient:
        assert self._client is not None, "started before it serves"
        return self._client

    async def _names(self, tenant: str) -> list[str]:
        """The server's names of a tenant's collections."""
        listed = await self._qdrant.get_collections()
        return [each.name for each in listed.collections if each.name.startswith(f"{tenant}.")]

    async def _collection(self, name: str) -> Collection:
        """What is known of a collection, asked again now and then."""
        now = time.monotonic()
        if (known := self._known.get(name)) and now - known[0] < FRESH:
            return known[1]
        if not await self._qdrant.collection_exists(name):
            raise NotFound("No such collection.", field="collection")
        collection = _described(await self._qdrant.get_collection(name))
        self._known[name] = now, collection
        self._known.move_to_end(name)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return collection

    async def _selector(
        self, name: str, selector: pb.Selector, *, must_exist: bool
    ) -> models.PointIdsList | models.FilterSelector | None:
        collection = await self._collection(name)
        if chosen(selector) == "filter":
            return models.FilterSelector(filter=_filters(collection).read(selector.filter, "selector.filter"))
        ids = _plain(point_ids(selector.ids.ids, "selector.ids", POINTS))
        if must_exist:
            ids = [each.id for each in await self._qdrant.retrieve(name, ids, with_payload=False, with_vectors=False)]
        return models.PointIdsList(points=ids) if ids else None

    async def _there_with(self, name: str, request: pb.RecommendRequest, collection: Collection) -> None:
        """Refuse examples that do not exist, or lack the vector."""
        places = {
            _plain([point_id(each.id, part)])[0]: f"{part}[{at}].id"
            for part in ("negative", "positive")
            for at, each in enumerate(getattr(request, part))
            if each.WhichOneof("kind") == "id"
        }
        if not places:
            return
        wanted: Any = [request.using] if request.using else bool(len(collection.dense))
        found = await self._qdrant.retrieve(name, list(places), with_payload=False, with_vectors=wanted)
        there = {each.id for each in found if each.vector}
        for given, where in places.items():
            if given not in there:
                raise NotFound("No such point, or it lacks this vector.", field=where)


def _described(info: models.CollectionInfo) -> Collection:
    configured = info.config.params.vectors or {}
    metrics = {distance: metric for metric, distance in METRICS.items()}

    def params(each: models.VectorParams) -> pb.VectorParams:
        return pb.VectorParams(dimension=each.size, metric=metrics[each.distance])

    described = pb.CollectionParams(sparse_vectors=sorted(info.config.params.sparse_vectors or {}))
    if isinstance(configured, models.VectorParams):
        described.vector.CopyFrom(params(configured))
    else:
        for name, each in configured.items():
            described.vectors[name].CopyFrom(params(each))
    kinds = {schema: kind for kind, schema in INDEXES.items() if kind != pb.INDEX_TYPE_TEXT}
    kinds[models.PayloadSchemaType.TEXT] = pb.INDEX_TYPE_TEXT
    indexes = {field: pb.IndexType.ValueType(kinds[each.data_type]) for field, each in info.payload_schema.items()}
    return Collection(described, indexes)


def _filters(collection: Collection) -> Filters:
    return Filters(_Kit(), collection.indexes)


def _plain(ids: Sequence[Id]) -> list[Any]:
    """Ids as JSON has them."""
    return [each if isinstance(each, int) else str(each) for each in ids]


def _include(include: pb.Include) -> dict[str, Any]:
    fields = fields_of(include)
    return {
        "with_payload": models.PayloadSelectorInclude(include=fields) if fields else include.payload,
        "with_vectors": include.vectors,
    }


def _query(collection: Collection, request: pb.SearchRequest) -> models.QueryRequest:
    limit, offset = window(request.limit, request.offset, request.include, collection)
    include = _include(request.include)
    query: Any
    if request.using in collection.sparse and request.vector.WhichOneof("kind") == "sparse":
        indices, values = sparse(request.vector.sparse, "vector.sparse")
        query = models.NearestQuery(nearest=models.SparseVector(indices=indices, values=values))
    else:
        params = collection.dense_named(request.using, "using")
        query = models.NearestQuery(nearest=list(dense(request.vector.dense, params.dimension, "vector")))
    return models.QueryRequest(
        query=query,
        using=request.using or None,
        filter=_filters(collection).read(request.filter),
        params=models.SearchParams(exact=True) if request.exact else None,
        limit=limit,
        offset=offset,
        score_threshold=threshold(request),
        with_payload=include["with_payload"],
        with_vector=include["with_vectors"],
    )


def _example(example: pb.Example, dimension: int, where: str) -> Any:
    if example.WhichOneof("kind") == "vector":
        return dense(example.vector, dimension, f"{where}.vector").tolist()
    return _plain([point_id(example.id, f"{where}.id")])[0]


def _point(message: pb.Point, where: str, collection: Collection) -> models.PointStruct:
    vectors: dict[str, Any] = {}
    if message.vector:
        dimension = collection.dense_named("", f"{where}.vector").dimension
        vectors[""] = dense(message.vector, dimension, f"{where}.vector").tolist()
    for name, vector in message.vectors.items():
        there = f"{where}.vectors.{name}"
        if name in collection.sparse and vector.WhichOneof("kind") == "sparse":
            indices, values = sparse(vector.sparse, there)
            vectors[name] = models.SparseVector(indices=indices, values=values)
        else:
            vectors[name] = dense(vector.dense, collection.dense_named(name, there).dimension, there).tolist()
    if not vectors:
        raise InvalidArgument("A point needs a vector.", field=f"{where}.vector")
    return models.PointStruct(
        id=_plain([point_id(message.id, f"{where}.id")])[0],
        vector=vectors[""] if vectors.keys() == {""} else vectors,
        payload=payload(message.payload, f"{where}.payload") if message.payload else None,
    )


def _scored(found: Sequence[models.ScoredPoint]) -> list[pb.ScoredPoint]:
    points = [_fill(pb.ScoredPoint(score=each.score), each) for each in found]
    fits(sum(point.ByteSize() for point in points))
    return points


def _fill(point: Any, found: models.ScoredPoint | models.Record) -> Any:
    if isinstance(found.id, int):
        point.id.number = found.id
    else:
        point.id.uuid = str(found.id)
    if found.payload:
        point.payload = orjson.dumps(found.payload)
    vectors: Any = found.vector if isinstance(found.vector, dict) else {"": found.vector} if found.vector else {}
    for name, each in vectors.items():
        if isinstance(each, models.SparseVector):
            point.vectors[name].sparse.CopyFrom(sparse_message(each.indices, each.values))
        elif name:
            point.vectors[name].dense = packed(each)
        else:
            point.vector = packed(each)
    return point
