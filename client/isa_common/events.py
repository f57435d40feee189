"""Typed events on `isa.streams`: `EventPublisher` and `EventConsumer`. Needs `isa-common[typed]`."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Generic, TypeVar
from uuid import uuid4

from isa_common._stream_values import Delivery, Outgoing, Published, Start
from isa_common._streams import Streams
from isa_common._typed import Codec, Format
from isa_common.errors import IsaError, Unavailable

__all__ = ["EventConsumer", "EventPublisher", "Poison"]

T = TypeVar("T")

_TYPE = "isa-event-type"
_REASON = "isa-dead-reason"
_ATTEMPTS = "isa-dead-attempts"
_SUBJECT = "isa-dead-subject"
_CONTENT = {"json": "application/json", "msgpack": "application/msgpack"}
_PAUSES = (0.1, 0.3, 1.0)

log = logging.getLogger("isa_common.events")


class Poison(Exception):
    """What a handler raises for an event that will never be processable: it is not sent again."""


class EventPublisher(Generic[T]):
    """Publishes events of one type on a subject, or on what `subject` says of each event.

    An event is on disk when `publish` returns. It has an id, so that publishing it again, which happens by itself
    after Unavailable, stores it once within the stream's duplicate window.
    """

    def __init__(
        self, streams: Streams, subject: str | Callable[[T], str], kind: type[T], *, form: Format = "json"
    ) -> None:
        self._streams = streams
        self._subject = subject
        self._codec = Codec(kind, form)
        self._headers = {_TYPE: getattr(kind, "__name__", str(kind)), "content-type": _CONTENT[form]}

    async def publish(
        self,
        event: T,
        *,
        event_id: str = "",
        headers: Mapping[str, str] = {},
        timeout: timedelta | None = None,
    ) -> Published:
        """Publish an event and return where it is; `event_id` makes it the same event as an earlier one."""
        outgoing = self._outgoing(event, event_id, headers)
        for pause in (*_PAUSES, None):
            try:
                return await self._streams.publish(
                    outgoing.subject,
                    outgoing.data,
                    headers=outgoing.headers,
                    message_id=outgoing.message_id,
                    durable=True,
                    timeout=timeout,
                )
            except Unavailable:
                if pause is None:
                    raise
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError("the last attempt returns or raises")

    async def publish_many(
        self, events: Sequence[T], *, timeout: timedelta | None = None
    ) -> list[Published | IsaError]:
        """Publish events in order, each with its own outcome."""
        return await self._streams.publish_many([self._outgoing(event, "", {}) for event in events], timeout=timeout)

    def _outgoing(self, event: T, event_id: str, headers: Mapping[str, str]) -> Outgoing:
        return Outgoing(
            subject=self._subject if isinstance(self._subject, str) else self._subject(event),
            data=self._codec.encode(event),
            headers={**self._headers, **headers},
            message_id=event_id or uuid4().hex,
            durable=True,
        )


class EventConsumer(Generic[T]):
    """Hands events of a stream to a function, each at least once, and remembers by `name` how far it is.

    An event is done when the handler returns. When it raises, the event comes again, after a pause that doubles from
    `pause` up to `longest_pause`; after `attempts`, or when it raises Poison, or when the event cannot be read, it
    is given up: it goes to the subject `dead_letters`, when there is one, and is logged. Consumers of one name share
    the events.
    """

    def __init__(
        self,
        streams: Streams,
        stream: str,
        name: str,
        kind: type[T],
        *,
        subjects: Sequence[str] = (),
        form: Format = "json",
        start: Start = Start.ALL,
        at_once: int = 16,
        attempts: int = 10,
        pause: timedelta = timedelta(seconds=1),
        longest_pause: timedelta = timedelta(minutes=1),
        ack_wait: timedelta = timedelta(seconds=30),
        dead_letters: str = "",
    ) -> None:
        self._streams = streams
        self._stream = stream
        self._name = name
        self._codec = Codec(kind, form)
        self._subjects = subjects
        self._start = start
        self._at_once = at_once
        self._attempts = attempts
        self._pause = pause
        self._longest_pause = longest_pause
        self._ack_wait = ack_wait
        self._dead_letters = dead_letters
        self._stopping = asyncio.Event()

    async def run(self, handler: Callable[[T, Delivery], Awaitable[None]]) -> None:
        """Hand over events until `stop`; what is in hand then is finished. Cancelling leaves it to come again."""
        await self._streams.create_consumer(
            self._stream, self._name, filter_subjects=self._subjects, start=self._start, ack_wait=self._ack_wait
        )
        places = asyncio.Semaphore(self._at_once)
        running: set[asyncio.Task[None]] = set()
        stopping = asyncio.ensure_future(self._stopping.wait())
        try:
            async with self._streams.consume(self._stream, self._name, max_in_flight=self._at_once) as deliveries:
                while not self._stopping.is_set():
                    following = asyncio.ensure_future(anext(deliveries))
                    await asyncio.wait({following, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        following.cancel()
                        break
                    try:
                        delivery = following.result()
                    except StopAsyncIteration:
                        break
                    await places.acquire()
                    task = asyncio.ensure_future(self._handle(handler, delivery))
                    running.add(task)
                    task.add_done_callback(running.discard)
                    task.add_done_callback(lambda _: places.release())
                if running:
                    await asyncio.wait(running)
        finally:
            stopping.cancel()
            for task in running:
                task.cancel()

    def stop(self) -> None:
        """Take no more events; `run` returns when those in hand are done."""
        self._stopping.set()

    async def _handle(self, handler: Callable[[T, Delivery], Awaitable[None]], delivery: Delivery) -> None:
        try:
            await self._settle(handler, delivery)
        except IsaError as error:
            log.warning("%s of %s is not settled; it comes again: %s", delivery.subject, self._stream, error)

    async def _settle(self, handler: Callable[[T, Delivery], Awaitable[None]], delivery: Delivery) -> None:
        try:
            event = self._codec.decode(delivery.data)
        except ValueError as error:
            await self._give_up(delivery, f"It cannot be read: {type(error).__name__}.")
            return
        keeping = asyncio.ensure_future(self._keep(delivery))
        try:
            await handler(event, delivery)
        except Poison as error:
            await self._give_up(delivery, str(error) or "Poison.")
        except Exception as error:
            if delivery.attempt >= self._attempts:
                await self._give_up(delivery, f"{type(error).__name__} after {delivery.attempt} attempts.")
                return
            pause = min(self._pause * 2 ** min(delivery.attempt - 1, 30), self._longest_pause)
            log.warning("%s of %s failed; it comes again in %s.", delivery.subject, self._stream, pause, exc_info=error)
            await delivery.nak(pause)
        else:
            await delivery.ack()
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping

    async def _keep(self, delivery: Delivery) -> None:
        """Let a slow handler have its time."""
        while True:
            await asyncio.sleep(self._ack_wait.total_seconds() / 3)
            await delivery.in_progress()

    async def _give_up(self, delivery: Delivery, reason: str) -> None:
        log.error("%s of %s, sequence %d, is given up: %s", delivery.subject, self._stream, delivery.sequence, reason)
        if self._dead_letters:
            headers = {
                **delivery.headers,
                _REASON: " ".join(reason.split())[:500],
                _ATTEMPTS: str(delivery.attempt),
                _SUBJECT: delivery.subject,
            }
            await self._streams.publish(
                self._dead_letters,
                delivery.data,
                headers=headers,
                message_id=f"dead-{self._name}-{delivery.message_id or delivery.sequence}",
                durable=True,
            )
        await delivery.term()
