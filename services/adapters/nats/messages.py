"""Publish, subscribe, request and reply."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from nats.aio.msg import Msg

from isa.streams.v1 import streams_pb2 as pb
from isa_common import FailedPrecondition, InvalidArgument, NotFound
from kernel import Caller, concerns
from services.adapters.nats.broker import Broker, outcome
from services.adapters.nats.codec import (
    Kind,
    decode,
    envelope,
    fits,
    id_of,
    is_ours,
    isolate,
    name,
    own,
    subject,
)
from services.adapters.nats.connection import NobodyListens, accepted

REPLY = "_INBOX."
ASKED = ".r"
"""What marks the inbox of one who waits for a reply; others wait for JetStream's word."""
WAITING = 8192
"""Messages that wait for a subscriber; what comes beyond them is counted and dropped."""
WAITING_BYTES = 8 << 20


class Messages:
    """The part of the service that keeps nothing."""

    _broker: Broker

    async def publish(self, caller: Caller, request: pb.PublishRequest) -> pb.PublishResponse:
        """Send a message, and answer when NATS has it: in a stream, when it was asked to be durable."""
        concerns(request.subject)
        response = await self._publish(caller, request)
        if not request.durable:
            await self._broker.connection.flush()
        return response

    async def publish_many(self, caller: Caller, request: pb.PublishManyRequest) -> pb.PublishManyResponse:
        """Send messages, each with its own outcome."""
        given = self._broker.batch(caller, request.messages, "messages")
        concerns(*{message.subject for message in given})
        outcomes = await self._broker.each(self._publish, caller, given)
        if not all(message.durable for message in given):
            await self._broker.connection.flush()
        return pb.PublishManyResponse(outcomes=[pb.PublishOutcome(**outcome(told)) for told in outcomes])

    async def _publish(self, caller: Caller, request: pb.PublishRequest) -> pb.PublishResponse:
        at = isolate(caller, Kind.SUBJECT, subject(request.subject, "subject"))
        headers = envelope(caller, request.headers, request.message_id)
        if request.HasField("expected_last_sequence"):
            headers["Nats-Expected-Last-Sequence"] = str(request.expected_last_sequence)
        if request.HasField("expected_last_subject_sequence"):
            headers["Nats-Expected-Last-Subject-Sequence"] = str(request.expected_last_subject_sequence)
        if not request.durable and len(headers) > (2 if request.message_id else 1):
            raise InvalidArgument("Only a durable message finds a stream as expected.", field="durable")
        fits(request.data, headers)
        await self._broker.shares.room(caller, len(request.data))
        if not request.durable:
            await self._broker.connection.publish(at, request.data, headers)
            return pb.PublishResponse(message_id=id_of(headers))
        try:
            answer = await self._broker.connection.request(
                at, request.data, headers, accepts=lambda message: not is_ours(message)
            )
        except NobodyListens:
            raise NotFound("No stream takes this subject.", field="subject") from None
        told = accepted(answer)
        return pb.PublishResponse(
            message_id=id_of(headers),
            stream=own(caller, Kind.STREAM, told["stream"]),
            sequence=told["seq"],
            duplicate=told.get("duplicate", False),
        )

    async def subscribe(self, caller: Caller, request: pb.SubscribeRequest) -> AsyncIterator[pb.SubscribeResponse]:
        """Send messages as they are published; a slow reader loses some, and is told how many."""
        at = isolate(caller, Kind.SUBJECT, subject(request.subject, "subject", is_filter=True))
        group = name(request.group, "group") if request.group else ""
        concerns(request.subject)
        waiting = _Waiting()
        connection = self._broker.connection
        listening = await connection.listen(at, waiting.receive, group=group, returned=waiting.returned)
        try:
            await connection.flush()
            yield pb.SubscribeResponse()
            while True:
                await waiting.woken.wait()
                taken = waiting.take()
                response = pb.SubscribeResponse(
                    messages=[self._sent(caller, message) for message in taken],
                    dropped=waiting.dropped,
                    interrupted=waiting.is_interrupted,
                )
                waiting.dropped, waiting.is_interrupted = 0, False
                yield response
        finally:
            await connection.leave(listening)

    async def request(self, caller: Caller, request: pb.RequestRequest) -> pb.RequestResponse:
        """Publish a message and return the first reply."""
        concerns(request.subject)
        return await self._request(caller, request)

    async def request_many(self, caller: Caller, request: pb.RequestManyRequest) -> pb.RequestManyResponse:
        """Make requests, each with its own outcome."""
        given = self._broker.batch(caller, request.requests, "requests")
        concerns(*{each.subject for each in given})
        outcomes = await self._broker.each(self._request, caller, given)
        return pb.RequestManyResponse(outcomes=[pb.RequestOutcome(**outcome(told)) for told in outcomes])

    async def _request(self, caller: Caller, request: pb.RequestRequest) -> pb.RequestResponse:
        at = isolate(caller, Kind.SUBJECT, subject(request.subject, "subject"))
        headers = envelope(caller, request.headers)
        fits(request.data, headers)
        await self._broker.shares.room(caller, len(request.data))
        try:
            answer = await self._broker.connection.request(at, request.data, headers, mark=ASKED[1:], accepts=is_ours)
        except NobodyListens:
            raise FailedPrecondition("Nobody listens on this subject.", field="subject") from None
        message = decode(caller, answer)
        message.subject = request.subject
        return pb.RequestResponse(message=message)

    async def reply(self, caller: Caller, request: pb.ReplyRequest) -> pb.ReplyResponse:
        """Answer who asked."""
        response = await self._reply(caller, request)
        await self._broker.connection.flush()
        return response

    async def reply_many(self, caller: Caller, request: pb.ReplyManyRequest) -> pb.ReplyManyResponse:
        """Answer who asked, each with its own outcome."""
        given = self._broker.batch(caller, request.replies, "replies")
        outcomes = await self._broker.each(self._reply, caller, given)
        await self._broker.connection.flush()
        return pb.ReplyManyResponse(outcomes=[pb.ReplyOutcome(**outcome(told)) for told in outcomes])

    async def _reply(self, caller: Caller, request: pb.ReplyRequest) -> pb.ReplyResponse:
        inbox = self._broker.tokens.open(caller, REPLY, request.reply_token, "reply_token")
        headers = envelope(caller, request.headers)
        fits(request.data, headers)
        await self._broker.connection.publish(inbox, request.data, headers)
        return pb.ReplyResponse()

    def _sent(self, caller: Caller, message: Msg) -> pb.Message:
        read = decode(caller, message)
        if message.reply.startswith(REPLY) and ASKED in message.reply:
            read.reply_token = self._broker.tokens.seal(caller, REPLY, message.reply)
        return read


class _Waiting:
    """What came for a subscriber and was not sent yet: bounded, in messages and in bytes."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()
        self.dropped = 0
        self.is_interrupted = False
        self._messages: deque[Msg] = deque()
        self._size = 0

    def receive(self, message: Msg) -> None:
        size = len(message.data)
        if len(self._messages) >= WAITING or self._size + size > WAITING_BYTES:
            self.dropped += 1
        else:
            self._messages.append(message)
            self._size += size
        self.woken.set()

    def returned(self) -> None:
        self.is_interrupted = True
        self.woken.set()

    def take(self) -> list[Msg]:
        """Up to 256 messages, together not much more than 1 MiB."""
        taken: list[Msg] = []
        size = 0
        while self._messages and len(taken) < 256 and size < 1 << 20:
            taken.append(self._messages.popleft())
            size += len(taken[-1].data)
        self._size -= size
        if not self._messages:
            self.woken.clear()
        return taken
