"""The contract's ids, vectors, payloads and filters, checked, and as an engine takes them."""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import orjson

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import FailedPrecondition, InvalidArgument, MessageTooLarge

if TYPE_CHECKING:  # the workers run without the kernel
    from google.protobuf.timestamp_pb2 import Timestamp

    from kernel import Caller

LONGEST_NAME = 128
DIMENSION = 65_536
POINTS = 10_000
"""Points of one request."""
GOT = 1000
"""Points of one answer."""
OFFSET = 10_000
VECTORS = 16
"""Vectors of one point."""
SPARSE = 65_536
"""Values of one sparse vector."""
LONGEST_PAYLOAD = 128 << 10
LEVELS = 32
"""Depth of a payload; the engine's own JSON ends at 128."""
EXAMPLES = 256
INDEXES_MOST = 64
"""Indexed fields of a collection."""
DEPTH = 8
CONDITIONS = 256
VALUES = 1000
"""Values of one condition."""
LONGEST_PATH = 256
LONGEST_TEXT = 4096
LARGEST_ANSWER = 15 << 20
"""Bytes; a message may have 16 MiB."""

_KEY = r'(?:[\w-]+|"[^"\\]+")'
_PATH = re.compile(rf"{_KEY}(?:\[\d{{0,6}}\])*(?:\.{_KEY}(?:\[\d{{0,6}}\])*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")

Id = int | UUID | str
"""A number or a UUID, which a library may say as text."""


def isolate(caller: Caller, collection: str) -> str:
    """The engine's name of a collection: the tenant, a dot, and the name in base32, which has no dot and no case."""
    return f"{caller.tenant}.{_encoded(collection)}"


@functools.lru_cache(maxsize=4096)
def _encoded(collection: str) -> str:
    name = collection.encode()
    if not 0 < len(name) <= LONGEST_NAME:
        raise InvalidArgument(f"A collection's name has 1 to {LONGEST_NAME} bytes.", field="collection")
    if _CONTROL.search(collection):
        raise InvalidArgument("A collection's name has no control characters.", field="collection")
    return base64.b32encode(name).decode("ascii").rstrip("=").lower()


def revealed(name: str) -> str:
    """The caller's name of a collection of the engine."""
    text = name.rpartition(".")[2].upper()
    return base64.b32decode(text + "=" * (-len(text) % 8)).decode()


@dataclass(slots=True)
class Collection:
    """What is known of a collection: its vectors, and the indexes of its payload."""

    params: pb.CollectionParams
    indexes: dict[str, pb.IndexType.ValueType] = field(default_factory=dict)
    dense: dict[str, pb.VectorParams] = field(init=False)
    """By name; the one without has the empty name."""
    sparse: frozenset[str] = field(init=False)
    bytes_each: int = field(init=False)
    """Of the vectors of a point, without sparse ones."""

    def __post_init__(self) -> None:
        self.dense = dict(self.params.vectors)
        if self.params.HasField("vector"):
            self.dense[""] = self.params.vector
        self.sparse = frozenset(self.params.sparse_vectors)
        self.bytes_each = 4 * sum(each.dimension for each in self.dense.values())

    def dense_named(self, name: str, where: str) -> pb.VectorParams:
        """The facts of a dense vector, or InvalidArgument."""
        if found := self.dense.get(name):
            return found
        known = ", ".join(repr(each) for each in [*self.dense, *self.sparse] if each)
        if name in self.sparse:
            raise InvalidArgument(f"{name!r} is sparse; a dense vector is wanted here.", field=where)
        raise InvalidArgument(
            f"This collection has no vector {name!r}; it has {known or 'one without a name'}.", field=where
        )


def collection_of(params: pb.CollectionParams) -> Collection:
    """A new collection, with everything about it checked."""
    named = [*params.vectors, *params.sparse_vectors]
    if params.HasField("vector") and params.vectors:
        raise InvalidArgument("A collection has one vector without a name, or some with names.", field="params.vectors")
    if not params.HasField("vector") and not named:
        raise InvalidArgument("A collection needs a vector.", field="params.vector")
    if len(named) > VECTORS:
        raise InvalidArgument(f"A collection has at most {VECTORS} vectors.", field="params.vectors")
    for name in named:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
            raise InvalidArgument(
                f"{name[:80]!r} is no name of a vector: 1 to 64 of A-Z, a-z, 0-9, _ and -.", field="params.vectors"
            )
    if len(set(named)) < len(named):
        raise InvalidArgument("Two vectors have the same name.", field="params.sparse_vectors")
    clean = pb.CollectionParams()
    clean.CopyFrom(params)
    collection = Collection(clean)
    for name, vector in collection.dense.items():
        where = f"params.vectors.{name}" if name else "params.vector"
        if not 0 < vector.dimension <= DIMENSION:
            raise InvalidArgument(f"A vector has 1 to {DIMENSION} dimensions.", field=f"{where}.dimension")
        if vector.metric not in pb.Metric.values():
            raise InvalidArgument("No such metric.", field=f"{where}.metric")
        vector.metric = vector.metric or pb.METRIC_COSINE
    return collection


def point_id(message: pb.PointId, where: str) -> Id:
    """An id as engines take it."""
    match message.WhichOneof("kind"):
        case "number":
            return message.number
        case "uuid":
            try:
                return UUID(message.uuid)
            except ValueError:
                raise InvalidArgument("This is no UUID.", field=where) from None
    raise InvalidArgument("A point needs an id: a number or a UUID.", field=where)


def point_ids(messages: Sequence[pb.PointId], where: str, most: int) -> list[Id]:
    """Ids, not too many and at least one."""
    if not 0 < len(messages) <= most:
        raise InvalidArgument(f"Give 1 to {most} ids.", field=where)
    return [point_id(message, f"{where}[{index}]") for index, message in enumerate(messages)]


def id_message(given: Id) -> pb.PointId:
    """An id of the engine as the contract has it."""
    return pb.PointId(number=given) if isinstance(given, int) else pb.PointId(uuid=str(given))


def dense(packed: bytes, dimension: int, where: str) -> memoryview[float]:
    """Packed floats as a view that engines read without a copy a float."""
    if len(packed) != 4 * dimension:
        given = f"{len(packed)} bytes" if len(packed) % 4 else f"{len(packed) // 4} dimensions"
        raise InvalidArgument(f"The vector has {given}; this collection's have {dimension} dimensions.", field=where)
    floats = memoryview(packed).cast("f")  # every machine that we run on is little-endian
    if not math.isfinite(sum(floats)):  # doubles: finite floats cannot add up to infinity
        raise InvalidArgument("A vector has finite numbers only.", field=where)
    return floats


def sparse(message: pb.SparseVector, where: str) -> tuple[list[int], list[float]]:
    """The indices and values of a sparse vector."""
    size = len(message.indices)
    if size % 4 or size != len(message.values):
        raise InvalidArgument("A sparse vector has one value an index, of 4 bytes each.", field=where)
    if not 0 < size <= 4 * SPARSE:
        raise InvalidArgument(f"A sparse vector has 1 to {SPARSE} values.", field=where)
    indices = memoryview(message.indices).cast("I").tolist()
    values = list(dense(message.values, size // 4, where))
    if len(set(indices)) < len(indices):
        raise InvalidArgument("An index occurs twice.", field=f"{where}.indices")
    return indices, values


def packed(values: Iterable[float]) -> bytes:
    """Floats of the engine, packed."""
    return array("f", values).tobytes()


def sparse_message(indices: Iterable[int], values: Iterable[float]) -> pb.SparseVector:
    """A sparse vector of the engine, by rising index."""
    pairs = sorted(zip(indices, values, strict=True))
    packed_indices = array("I", (index for index, _ in pairs)).tobytes()
    return pb.SparseVector(indices=packed_indices, values=packed(value for _, value in pairs))


def payload(packed_json: bytes, where: str) -> dict[str, Any]:
    """A payload as Python has it."""
    if len(packed_json) > LONGEST_PAYLOAD:
        raise InvalidArgument(f"A payload has at most {LONGEST_PAYLOAD} bytes.", field=where)
    try:
        read = orjson.loads(packed_json)
    except ValueError:
        raise InvalidArgument("The payload is no JSON.", field=where) from None
    if not isinstance(read, dict):
        raise InvalidArgument("A payload is a JSON object.", field=where)
    if packed_json.count(b"[") + packed_json.count(b"{") > LEVELS and _depth(read) > LEVELS:
        raise InvalidArgument(f"A payload has at most {LEVELS} levels.", field=where)
    return read


def _depth(value: object) -> int:
    inner: Iterable[object] = ()
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return 0
    return 1 + max((_depth(each) for each in inner), default=0)


def path(text: str, where: str) -> str:
    """A path into a payload: `a.b`, `a[].b`, `a[0]`, `"any text".b`."""
    if len(text) > LONGEST_PATH or not _PATH.fullmatch(text):
        raise InvalidArgument(f'{text[:80]!r} is no path such as author.name, tags[].text or "two words".', field=where)
    return text


class Kit(Protocol):
    """How an engine's library says filters."""

    def filter(self, must: list[Any], should: list[Any], must_not: list[Any]) -> Any:
        """All of these, one of those, none of the last."""
        ...

    def value(self, field: str, value: str | int) -> Any:
        """Is it."""
        ...

    def text(self, field: str, text: str) -> Any:
        """Has every word."""
        ...

    def any(self, field: str, values: Sequence[str | int]) -> Any:
        """Is one of them."""
        ...

    def other(self, field: str, values: Sequence[str | int]) -> Any:
        """Is none of them."""
        ...

    def range(self, field: str, bounds: Mapping[str, float]) -> Any:
        """Lies between, as a number."""
        ...

    def times(self, field: str, bounds: Mapping[str, str]) -> Any:
        """Lies between, as a time."""
        ...

    def radius(self, field: str, lon: float, lat: float, meters: float) -> Any:
        """Lies in the circle."""
        ...

    def box(self, field: str, top_left: tuple[float, float], bottom_right: tuple[float, float]) -> Any:
        """Lies in the box."""
        ...

    def empty(self, field: str) -> Any:
        """Is absent, null or an empty list."""
        ...

    def null(self, field: str) -> Any:
        """Is null."""
        ...

    def ids(self, ids: list[Id]) -> Any:
        """Is one of these points."""
        ...

    def nested(self, field: str, inner: Any) -> Any:
        """Has an element that passes."""
        ...


@dataclass(slots=True)
class Filters:
    """Reads filters for one engine and one collection: every part of them is checked on the way."""

    kit: Kit
    indexes: Mapping[str, pb.IndexType.ValueType]
    _left: int = CONDITIONS

    def read(self, message: pb.Filter, where: str = "filter") -> Any:
        """The engine's form of a filter; None for one that takes everything."""
        self._left = CONDITIONS
        return self._filter(message, where, 1) if is_narrow(message) else None

    def _filter(self, message: pb.Filter, where: str, depth: int, prefix: str = "") -> Any:
        if depth > DEPTH:
            raise InvalidArgument(f"A filter has at most {DEPTH} levels.", field=where)
        return self.kit.filter(
            *(
                [
                    self._condition(each, f"{where}.{part}[{index}]", depth, prefix)
                    for index, each in enumerate(getattr(message, part))
                ]
                for part in ("must", "should", "must_not")
            )
        )

    def _condition(self, message: pb.Condition, where: str, depth: int, prefix: str) -> Any:
        self._left -= 1
        if self._left < 0:
            raise InvalidArgument(f"A filter has at most {CONDITIONS} conditions.", field=where)
        kind = message.WhichOneof("kind")
        match kind:
            case "match":
                return self._match(message.match, f"{where}.match", prefix)
            case "range":
                bounds = {name.name: value for name, value in message.range.ListFields() if name.name != "field"}
                if not bounds or not all(map(math.isfinite, bounds.values())):
                    raise InvalidArgument(
                        "A range has a bound or more, which are finite numbers.", field=f"{where}.range"
                    )
                return self.kit.range(path(message.range.field, f"{where}.range.field"), bounds)
            case "time_range":
                times = {
                    name.name: _time(value, f"{where}.time_range.{name.name}")
                    for name, value in message.time_range.ListFields()
                    if name.name != "field"
                }
                if not times:
                    raise InvalidArgument("A range has a bound or more.", field=f"{where}.time_range")
                return self.kit.times(path(message.time_range.field, f"{where}.time_range.field"), times)
            case "geo_radius":
                circle = message.geo_radius
                lon, lat = _place(circle.center, f"{where}.geo_radius.center")
                if not (circle.meters > 0 and math.isfinite(circle.meters)):
                    raise InvalidArgument("A radius is more than 0 meters.", field=f"{where}.geo_radius.meters")
                return self.kit.radius(path(circle.field, f"{where}.geo_radius.field"), lon, lat, circle.meters)
            case "geo_box":
                box = message.geo_box
                top_left = _place(box.top_left, f"{where}.geo_box.top_left")
                bottom_right = _place(box.bottom_right, f"{where}.geo_box.bottom_right")
                if top_left[1] < bottom_right[1]:
                    raise InvalidArgument(
                        "The top of a box is not below its bottom.", field=f"{where}.geo_box.top_left"
                    )
                return self.kit.box(path(box.field, f"{where}.geo_box.field"), top_left, bottom_right)
            case "is_empty":
                return self.kit.empty(path(message.is_empty, f"{where}.is_empty"))
            case "is_null":
                return self.kit.null(path(message.is_null, f"{where}.is_null"))
            case "has_id":
                return self.kit.ids(point_ids(message.has_id.ids, f"{where}.has_id.ids", VALUES))
            case "filter":
                return self._filter(message.filter, f"{where}.filter", depth + 1, prefix)
            case "nested":
                field = path(message.nested.field, f"{where}.nested.field")
                inner = self._filter(message.nested.filter, f"{where}.nested.filter", depth + 1, f"{prefix}{field}[].")
                return self.kit.nested(field, inner)
        raise InvalidArgument("A condition says what it tests.", field=where)

    def _match(self, message: pb.Match, where: str, prefix: str) -> Any:
        field = path(message.field, f"{where}.field")
        kind = message.WhichOneof("value")
        if kind is None:
            raise InvalidArgument("A match says with what.", field=where)
        value = getattr(message, kind)
        match kind:
            case "text":
                if self.indexes.get(prefix + field) != pb.INDEX_TYPE_TEXT:
                    raise FailedPrecondition(
                        f"A match of text needs a text index on {prefix}{field}.", field=f"{where}.text"
                    )
                if not any(map(str.isalnum, value)):
                    raise InvalidArgument("A text has a word or more.", field=f"{where}.text")
                return self.kit.text(field, _short(value, f"{where}.text"))
            case "keyword":
                return self.kit.value(field, _short(value, f"{where}.keyword"))
            case "integer" | "boolean":
                return self.kit.value(field, value)
        values: Sequence[str | int] = list(value.values)
        if not 0 < len(values) <= VALUES:
            raise InvalidArgument(f"Give 1 to {VALUES} values.", field=f"{where}.{kind}")
        for each in values:
            if isinstance(each, str):
                _short(each, f"{where}.{kind}")
        return (self.kit.any if kind.startswith("any") else self.kit.other)(field, values)


def is_narrow(message: pb.Filter) -> bool:
    """Tell whether a filter has a condition."""
    return bool(message.must or message.should or message.must_not)


def _short(text: str, where: str) -> str:
    if len(text) > LONGEST_TEXT:
        raise InvalidArgument(f"A value has at most {LONGEST_TEXT} characters.", field=where)
    return text


def _time(moment: Timestamp, where: str) -> str:
    try:
        return moment.ToJsonString()
    except ValueError:
        raise InvalidArgument("The time is outside the years 1 to 9999.", field=where) from None


def _place(point: pb.GeoPoint, where: str) -> tuple[float, float]:
    if not (-180 <= point.lon <= 180 and -90 <= point.lat <= 90):
        raise InvalidArgument("A place has a lon of -180 to 180 and a lat of -90 to 90.", field=where)
    return point.lon, point.lat


def chosen(selector: pb.Selector) -> str:
    """How points are selected: `ids` or `filter`, and never all of them by an empty filter."""
    kind = selector.WhichOneof("kind")
    if kind is None or (kind == "filter" and not is_narrow(selector.filter)):
        raise InvalidArgument("Say which points: ids, or a filter with a condition.", field="selector")
    return kind


def window(limit: int, offset: int, include: pb.Include, collection: Collection, where: str = "") -> tuple[int, int]:
    """Limit and offset of a search, not too large for one answer."""
    if limit > GOT:
        raise InvalidArgument(f"An answer has at most {GOT} points.", field=f"{where}limit")
    if offset > OFFSET:
        raise InvalidArgument(f"An offset is at most {OFFSET}.", field=f"{where}offset")
    limit = limit or 10
    if include.vectors and limit * collection.bytes_each > LARGEST_ANSWER:
        raise InvalidArgument("So many vectors do not fit into one answer.", field=f"{where}limit")
    return limit, offset


def threshold(request: pb.SearchRequest | pb.RecommendRequest) -> float | None:
    """The worst score that is wanted."""
    if not request.HasField("score_threshold"):
        return None
    if not math.isfinite(request.score_threshold):
        raise InvalidArgument("A score is a finite number.", field="score_threshold")
    return request.score_threshold


def fields_of(include: pb.Include) -> list[str]:
    """The fields of the payload that are wanted; empty is all."""
    if len(include.payload_fields) > VALUES:
        raise InvalidArgument(f"Give at most {VALUES} fields.", field="include.payload_fields")
    return [path(each, f"include.payload_fields[{index}]") for index, each in enumerate(include.payload_fields)]


def page(limit: int, include: pb.Include, collection: Collection) -> int:
    """Points of a page: fewer than asked for where their vectors would not fit."""
    if limit > GOT:
        raise InvalidArgument(f"A page has at most {GOT} points.", field="limit")
    limit = limit or 100
    if include.vectors and collection.bytes_each:
        limit = max(1, min(limit, LARGEST_ANSWER // collection.bytes_each))
    return limit


def fits(size: int) -> None:
    """Refuse an answer that no message could carry."""
    if size > LARGEST_ANSWER:
        raise MessageTooLarge("The answer is larger than 15 MiB: ask for fewer points, or fewer fields.")


def question(name: str, request: pb.ScrollRequest) -> bytes:
    """What must be the same from page to page."""
    facts = name.encode() + b"\0" + request.filter.SerializeToString(deterministic=True)
    return hashlib.blake2b(facts, digest_size=8).digest()


def cursor(asked: bytes, following: Id) -> str:
    """Where the next page begins, bound to its question."""
    return base64.urlsafe_b64encode(asked + id_message(following).SerializeToString()).decode("ascii")


def resume(text: str, asked: bytes) -> Id | None:
    """The id that a page begins at; None for the first one."""
    if not text:
        return None
    try:
        raw = base64.b64decode(text, altchars=b"-_", validate=True)
        following = point_id(pb.PointId.FromString(raw[8:]), "cursor")
    except Exception:
        raise InvalidArgument("This is no cursor that a scroll returned.", field="cursor") from None
    if raw[:8] != asked:
        raise InvalidArgument("This cursor belongs to another collection or filter.", field="cursor")
    return following


def recommended(request: pb.RecommendRequest, collection: Collection) -> tuple[bool, int, float | None]:
    """Whether the examples are averaged, their dimension, and the worst score that is wanted."""
    if request.strategy not in pb.Strategy.values():
        raise InvalidArgument("No such strategy.", field="strategy")
    is_average = request.strategy != pb.STRATEGY_BEST_SCORE
    if len(request.positive) + len(request.negative) > EXAMPLES:
        raise InvalidArgument(f"Give at most {EXAMPLES} examples.", field="negative")
    if not request.positive and (is_average or not request.negative):
        raise InvalidArgument("Give a positive example.", field="positive")
    least = threshold(request)
    if least is not None and not is_average:
        raise InvalidArgument("BEST_SCORE takes no threshold.", field="score_threshold")
    return is_average, collection.dense_named(request.using, "using").dimension, least


def average(positives: Sequence[Sequence[float]], negatives: Sequence[Sequence[float]]) -> list[float]:
    """The average of what is liked, moved away from the average of what is not."""
    liked = [sum(each) / len(positives) for each in zip(*positives, strict=True)]
    if not negatives:
        return liked
    disliked = [sum(each) / len(negatives) for each in zip(*negatives, strict=True)]
    return [2 * like - dislike for like, dislike in zip(liked, disliked, strict=True)]
