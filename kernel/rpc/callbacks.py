"""What a sidecar asks of a gRPC app: its health, and the events of its declared subscriptions."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import grpc
from dapr.proto.runtime.v1 import appcallback_pb2, appcallback_pb2_grpc
from google.protobuf.empty_pb2 import Empty

from isa_common import PermissionDenied, Unauthenticated, Unavailable
from kernel import telemetry
from kernel.rpc.status import refuse

Outcome = Literal["SUCCESS", "RETRY", "DROP"]


@dataclass(frozen=True, slots=True)
class Delivered:
    """One record of a batch, as the sidecar hands it over."""

    entry_id: str
    payload: bytes
    headers: dict[str, str]
    """Kafka's headers, with `__key`, `__partition`, `__offset` and `__timestamp` of the record."""


Deliver = Callable[[str, Sequence[Delivered]], Awaitable[Sequence[Outcome]]]
"""Handles a batch of one topic and returns one outcome an entry, in their order."""


class HealthCallback(appcallback_pb2_grpc.AppCallbackHealthCheckServicer):
    """Tells the sidecar whether events may come."""

    def __init__(self, is_live: Callable[[], bool]) -> None:
        self._is_live = is_live

    async def HealthCheck(  # noqa: N802 -- Dapr's name
        self, request: Empty, context: grpc.aio.ServicerContext
    ) -> appcallback_pb2.HealthCheckResponse:
        """Answer the sidecar's probe."""
        if not self._is_live():
            await refuse(context, Unavailable("This service is starting or stopping."))
        return appcallback_pb2.HealthCheckResponse()


class EventCallback(appcallback_pb2_grpc.AppCallbackServicer):
    """Takes batches from the sidecar. Subscriptions are declared in components, so none is listed here."""

    def __init__(self, deliver: Deliver | None, *, app_api_token: str) -> None:
        self._deliver = deliver
        self._token = app_api_token.encode()

    async def ListTopicSubscriptions(  # noqa: N802 -- Dapr's name
        self, request: Empty, context: grpc.aio.ServicerContext
    ) -> appcallback_pb2.ListTopicSubscriptionsResponse:
        """Name no subscription; asked without a token."""
        return appcallback_pb2.ListTopicSubscriptionsResponse()

    async def ListInputBindings(  # noqa: N802 -- Dapr's name
        self, request: Empty, context: grpc.aio.ServicerContext
    ) -> appcallback_pb2.ListInputBindingsResponse:
        """Name no binding; asked without a token."""
        return appcallback_pb2.ListInputBindingsResponse()

    async def OnBulkTopicEvent(  # noqa: N802 -- Dapr's name
        self, request: appcallback_pb2.TopicEventBulkRequest, context: grpc.aio.ServicerContext
    ) -> appcallback_pb2.TopicEventBulkResponse:
        """Hand a batch to the kernel; when that fails, all of it comes again."""
        await self._admit(context)
        entries = [Delivered(entry.entry_id, bytes(entry.bytes), dict(entry.metadata)) for entry in request.entries]
        outcomes: Sequence[Outcome]
        try:
            assert self._deliver is not None, "a subscription is declared, and nobody handles it"
            outcomes = await self._deliver(request.topic, entries)
        except Exception:
            telemetry.log.exception("events.failed", topic=request.topic, entries=len(entries))
            outcomes = ["RETRY"] * len(entries)
        kinds = appcallback_pb2.TopicEventResponse.TopicEventResponseStatus
        return appcallback_pb2.TopicEventBulkResponse(
            statuses=[
                appcallback_pb2.TopicEventBulkResponseEntry(entry_id=entry.entry_id, status=kinds.Value(outcome))
                for entry, outcome in zip(entries, outcomes, strict=True)
            ]
        )

    async def _admit(self, context: grpc.aio.ServicerContext) -> None:
        """Let only our own sidecar in: what was invoked through it carries a caller id, and is forged."""
        metadata = dict(context.invocation_metadata())
        given = str(metadata.get("dapr-api-token", "")).encode()
        if not self._token or not hmac.compare_digest(given, self._token):
            await refuse(context, Unauthenticated("Only this service's own sidecar may deliver events."))
        if "dapr-caller-app-id" in metadata:
            await refuse(context, PermissionDenied("Events come from the broker, not by invocation."))
