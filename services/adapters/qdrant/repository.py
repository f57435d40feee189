"""Collections of a caller's organisation, in the embedded engine or on a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol, TypeVar

from google.protobuf.message import Message

from isa.vectors.v1 import vectors_pb2 as pb
from isa_common import InvalidArgument, IsaError, MessageTooLarge
from kernel import Caller, ErrorMap, Parts, concerns, status
from services.adapters.qdrant.codec import LARGEST_ANSWER, isolate

BATCH = 256
M = TypeVar("M", bound=Message)


class Backend(Protocol):
    """An engine: does each method of the contract on collections by the names that `isolate` gives them."""

    CAPABILITIES: frozenset[str]
    ERRORS: ClassVar[ErrorMap]

    async def start(self) -> None:
        """Start or reach the engine."""

    async def stop(self) -> None:
        """Let go of it."""

    async def call(self, method: str, name: str, request: Message) -> Any:
        """Do one call."""

    async def call_many(self, method: str, calls: Sequence[tuple[str, Message]]) -> list[Any]:
        """Do many; a response each, or an error of ours."""
        ...

    async def stored(self, tenant: str) -> int:
        """Bytes that a tenant holds."""
        ...


class Vectors:
    """The `isa.vectors.v1.Vectors` service on Qdrant."""

    def __init__(self, backend: Backend, parts: Parts) -> None:
        self._backend = backend
        self._parts = parts
        self.CAPABILITIES = backend.CAPABILITIES

    async def start(self) -> None:
        """Start or reach the engine."""
        await self._backend.start()

    async def stop(self) -> None:
        """Let go of it."""
        await self._backend.stop()

    async def stored(self, org: str) -> int:
        """Bytes that an organisation holds."""
        return await self._backend.stored(org)

    async def create_collection(
        self, caller: Caller, request: pb.CreateCollectionRequest
    ) -> pb.CreateCollectionResponse:
        """Make a collection."""
        return await self._grow(pb.CreateCollectionResponse, caller, request)

    async def list_collections(self, caller: Caller, request: pb.ListCollectionsRequest) -> pb.ListCollectionsResponse:
        """Name the collections of the organisation."""
        response: pb.ListCollectionsResponse = await self._backend.call("ListCollections", caller.tenant, request)
        return response

    async def describe_collection(
        self, caller: Caller, request: pb.DescribeCollectionRequest
    ) -> pb.DescribeCollectionResponse:
        """Describe a collection."""
        return await self._call(pb.DescribeCollectionResponse, caller, request)

    async def delete_collection(
        self, caller: Caller, request: pb.DeleteCollectionRequest
    ) -> pb.DeleteCollectionResponse:
        """Delete a collection."""
        return await self._call(pb.DeleteCollectionResponse, caller, request)

    async def upsert(self, caller: Caller, request: pb.UpsertRequest) -> pb.UpsertResponse:
        """Store points."""
        self._parts.shares.spend(caller, len(request.points) - 1)
        return await self._grow(pb.UpsertResponse, caller, request)

    async def search(self, caller: Caller, request: pb.SearchRequest) -> pb.SearchResponse:
        """Find what is nearest."""
        return await self._call(pb.SearchResponse, caller, request)

    async def search_many(self, caller: Caller, request: pb.SearchManyRequest) -> pb.SearchManyResponse:
        """Find what is nearest, many times."""
        return await self._many(pb.SearchManyResponse, caller, request.searches, "searches")

    async def recommend(self, caller: Caller, request: pb.RecommendRequest) -> pb.RecommendResponse:
        """Find what is like examples."""
        return await self._call(pb.RecommendResponse, caller, request)

    async def recommend_many(self, caller: Caller, request: pb.RecommendManyRequest) -> pb.RecommendManyResponse:
        """Find what is like examples, many times."""
        return await self._many(pb.RecommendManyResponse, caller, request.recommendations, "recommendations")

    async def scroll(self, caller: Caller, request: pb.ScrollRequest) -> pb.ScrollResponse:
        """Return a page of points."""
        return await self._call(pb.ScrollResponse, caller, request)

    async def count(self, caller: Caller, request: pb.CountRequest) -> pb.CountResponse:
        """Count points."""
        return await self._call(pb.CountResponse, caller, request)

    async def count_many(self, caller: Caller, request: pb.CountManyRequest) -> pb.CountManyResponse:
        """Count points, many times."""
        return await self._many(pb.CountManyResponse, caller, request.counts, "counts")

    async def get_points(self, caller: Caller, request: pb.GetPointsRequest) -> pb.GetPointsResponse:
        """Return points by id."""
        return await self._call(pb.GetPointsResponse, caller, request)

    async def delete_points(self, caller: Caller, request: pb.DeletePointsRequest) -> pb.DeletePointsResponse:
        """Delete points."""
        return await self._call(pb.DeletePointsResponse, caller, request)

    async def set_payload(self, caller: Caller, request: pb.SetPayloadRequest) -> pb.SetPayloadResponse:
        """Set fields of payloads."""
        return await self._grow(pb.SetPayloadResponse, caller, request)

    async def delete_payload(self, caller: Caller, request: pb.DeletePayloadRequest) -> pb.DeletePayloadResponse:
        """Delete fields of payloads."""
        return await self._call(pb.DeletePayloadResponse, caller, request)

    async def create_index(self, caller: Caller, request: pb.CreateIndexRequest) -> pb.CreateIndexResponse:
        """Index a field."""
        return await self._grow(pb.CreateIndexResponse, caller, request)

    async def delete_index(self, caller: Caller, request: pb.DeleteIndexRequest) -> pb.DeleteIndexResponse:
        """Forget an index."""
        return await self._call(pb.DeleteIndexResponse, caller, request)

    async def _call(self, answer: type[M], caller: Caller, request: Any) -> M:
        concerns(request.collection)
        method = answer.DESCRIPTOR.name.removesuffix("Response")
        response: M = await self._backend.call(method, isolate(caller, request.collection), request)
        return response

    async def _grow(self, answer: type[M], caller: Caller, request: Any) -> M:
        await self._parts.shares.room(caller, request.ByteSize())
        return await self._call(answer, caller, request)

    async def _many(self, answer: type[M], caller: Caller, requests: Sequence[Any], field: str) -> M:
        """An outcome for each request; one that names no collection fails alone too."""
        if len(requests) > BATCH:
            raise InvalidArgument(f"A batch may have {BATCH} items.", field=field)
        self._parts.shares.spend(caller, len(requests) - 1)
        concerns(*dict.fromkeys(each.collection for each in requests))
        outcomes: list[Any] = []
        for each in requests:
            try:
                outcomes.append(isolate(caller, each.collection))
            except InvalidArgument as error:
                outcomes.append(error)
        calls = [(name, each) for name, each in zip(outcomes, requests, strict=True) if isinstance(name, str)]
        method = answer.DESCRIPTOR.name.removesuffix("ManyResponse")
        found = iter(await self._backend.call_many(method, calls))
        response: Any = answer()
        size = 0
        for outcome in outcomes:
            result = outcome if isinstance(outcome, IsaError) else next(found)
            if not isinstance(result, IsaError):
                size += result.ByteSize()
                if size > LARGEST_ANSWER:
                    result = MessageTooLarge("The answers of this batch do not fit into one.")
            if isinstance(result, IsaError):
                response.outcomes.add(error=status(result))
            else:
                response.outcomes.add(ok=result)
        filled: M = response
        return filled
