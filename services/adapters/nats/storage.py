"""Streams and their messages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson
from nats.aio.msg import Msg

from isa.streams.v1 import streams_pb2 as pb
from isa_common import FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted
from kernel import Caller, concerns
from services.adapters.nats import connection as nats
from services.adapters.nats.broker import Broker
from services.adapters.nats.codec import (
    Kind,
    Place,
    decode,
    isolate,
    name,
    start_config,
    stored,
    stream,
    stream_config,
    subject,
)
from services.adapters.nats.pulling import read


class Storage:
    """The part of the service that keeps messages."""

    _broker: Broker

    async def create_stream(self, caller: Caller, request: pb.CreateStreamRequest) -> pb.CreateStreamResponse:
        """Make a stream, if the organisation may have one more."""
        concerns(request.config.name)
        config = self._stream_config(caller, request.config)
        async with self._broker.making(caller):
            await self.another(caller, config["name"])
            told = await self._broker.connection.api(f"STREAM.CREATE.{config['name']}", config)
        return pb.CreateStreamResponse(stream=stream(caller, told))

    async def update_stream(self, caller: Caller, request: pb.UpdateStreamRequest) -> pb.UpdateStreamResponse:
        """Replace the configuration of a stream."""
        concerns(request.config.name)
        config = self._stream_config(caller, request.config)
        known = (await self._info(config["name"]))["config"]
        if request.config.retention and config["retention"] != known["retention"]:
            raise FailedPrecondition("The retention of a stream stays as it was made.", field="config.retention")
        config["retention"] = known["retention"]
        told = await self._broker.connection.api(f"STREAM.UPDATE.{config['name']}", config)
        return pb.UpdateStreamResponse(stream=stream(caller, told))

    async def get_stream(self, caller: Caller, request: pb.GetStreamRequest) -> pb.GetStreamResponse:
        """Return a stream."""
        return pb.GetStreamResponse(stream=stream(caller, await self._info(_stream(caller, request.stream))))

    async def list_streams(self, caller: Caller, request: pb.ListStreamsRequest) -> pb.ListStreamsResponse:
        """Return all streams of the tenant."""
        found = await self.all_of(caller, Kind.SUBJECT)
        return pb.ListStreamsResponse(streams=[stream(caller, each) for each in found])

    async def delete_stream(self, caller: Caller, request: pb.DeleteStreamRequest) -> pb.DeleteStreamResponse:
        """Delete a stream."""
        await self._broker.connection.api(f"STREAM.DELETE.{_stream(caller, request.stream)}")
        return pb.DeleteStreamResponse()

    async def purge_stream(self, caller: Caller, request: pb.PurgeStreamRequest) -> pb.PurgeStreamResponse:
        """Delete messages of a stream."""
        if request.before_sequence and request.keep:
            raise InvalidArgument("Say before which message, or how many to keep, not both.", field="keep")
        body: dict[str, Any] = {"seq": request.before_sequence, "keep": request.keep}
        if request.filter_subject:
            filtered = subject(request.filter_subject, "filter_subject", is_filter=True)
            body["filter"] = isolate(caller, Kind.SUBJECT, filtered)
        told = await self._broker.connection.api(f"STREAM.PURGE.{_stream(caller, request.stream)}", body)
        return pb.PurgeStreamResponse(purged=told["purged"])

    async def get_message(self, caller: Caller, request: pb.GetMessageRequest) -> pb.GetMessageResponse:
        """Return one message of a stream."""
        body: Mapping[str, Any]
        if request.WhichOneof("which") == "last_of_subject":
            body = {"last_by_subj": isolate(caller, Kind.SUBJECT, subject(request.last_of_subject, "last_of_subject"))}
        elif request.sequence:
            body = {"seq": request.sequence}
        else:
            raise InvalidArgument("Say which: the first sequence is 1.", field="sequence")
        return await self._message(caller, _stream(caller, request.stream), body)

    async def get_messages(self, caller: Caller, request: pb.GetMessagesRequest) -> pb.GetMessagesResponse:
        """Return messages of a stream, each with its own outcome."""
        at = _stream(caller, request.stream)
        given = self._broker.batch(caller, request.sequences, "sequences")

        async def one(caller: Caller, sequence: int) -> pb.GetMessageResponse:
            if not sequence:
                raise InvalidArgument("The first sequence is 1.", field="sequences")
            return await self._message(caller, at, {"seq": sequence})

        response = pb.GetMessagesResponse()
        async for found in self._broker.fitting(one, caller, given):
            response.outcomes.add(**found)
        return response

    async def replay(self, caller: Caller, request: pb.ReplayRequest) -> AsyncIterator[pb.ReplayResponse]:
        """Send the messages of a stream in order."""
        at = _stream(caller, request.stream)
        filtered = subject(request.filter_subject or ">", "filter_subject", is_filter=True)
        start = start_config(request.start, "start")
        subjects = [isolate(caller, Kind.SUBJECT, filtered)]
        async with aclosing(read(self._broker.connection, at, subjects, start, follow=request.follow)) as source:
            async for taken, is_done in source:
                if taken or is_done:
                    yield pb.ReplayResponse(messages=[_replayed(caller, message) for message in taken])

    async def stored(self, org: str) -> int:
        """Bytes that an organisation holds in streams and buckets."""
        caller = Caller(org=org)
        found = [*await self.all_of(caller, Kind.SUBJECT), *await self.all_of(caller, Kind.KEY)]
        return sum(each["state"]["bytes"] for each in found)

    async def all_of(self, caller: Caller, kind: Kind) -> list[dict[str, Any]]:
        """All streams of a tenant that take subjects of a kind, by name."""
        found: list[dict[str, Any]] = []
        while True:
            told = await self._broker.connection.api(
                "STREAM.LIST", {"offset": len(found), "subject": isolate(caller, kind, ">")}
            )
            page = told["streams"] or []
            found += page
            if not page or len(found) >= told["total"]:
                return sorted(found, key=lambda each: str(each["config"]["name"]))

    async def another(self, caller: Caller, physical: str) -> None:
        """Refuse a stream or bucket more than the organisation may have."""
        found = [*await self.all_of(caller, Kind.SUBJECT), *await self.all_of(caller, Kind.KEY)]
        most = self._broker.limits.streams
        if len(found) >= most and all(each["config"]["name"] != physical for each in found):
            raise ResourceExhausted(f"An organisation may have {most} streams and buckets.")

    async def direct(self, at: str, body: Mapping[str, Any] | None = None, *, of: str = "") -> Msg | None:
        """One message of a stream, by what the body says or the last one of a subject; None when there is none."""
        try:
            answer = await self._broker.connection.request(
                f"$JS.API.DIRECT.GET.{at}" + (f".{of}" if of else ""), orjson.dumps(body) if body else b""
            )
        except nats.NobodyListens:
            raise NotFound("No such stream or bucket.") from None
        return None if nats.status(answer) == "404" else answer

    async def _message(self, caller: Caller, at: str, body: Mapping[str, Any]) -> pb.GetMessageResponse:
        found = await self.direct(at, body)
        if found is None:
            raise NotFound("No such message.")
        return pb.GetMessageResponse(message=stored(caller, found))

    async def _info(self, at: str) -> dict[str, Any]:
        return await self._broker.connection.api(f"STREAM.INFO.{at}")

    def _stream_config(self, caller: Caller, config: pb.StreamConfig) -> dict[str, Any]:
        limits = self._broker.limits
        return stream_config(
            caller,
            config,
            bytes_default=limits.stream_bytes,
            bytes_most=limits.stream_bytes_most,
            replicas=limits.replicas,
        )


def _stream(caller: Caller, given: str) -> str:
    """The physical name of a stream that a request names."""
    concerns(given)
    return isolate(caller, Kind.STREAM, name(given, "stream"))


def _replayed(caller: Caller, message: Msg) -> pb.Message:
    place = Place(message)
    return decode(caller, message, sequence=place.sequence, stored=place.time)
