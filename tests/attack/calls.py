"""How the suite calls: raw messages at an adapter's own port, with whatever metadata an attacker would send."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from tests.attack.surface import Rpc

AT_ONCE = 24
"""Calls at a time; below the share of an organisation."""
ENDLESS = 0.4
"""Seconds that a stream without an end is listened to."""
PATIENCE = 30.0
FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
LOST = "Internal error from Core"
"""What grpc.aio's client says when an answer meets it while it sends: it was not told what the answer is."""
_RUN = uuid.uuid4().hex[:8]
_count = itertools.count()


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a call."""

    code: grpc.StatusCode
    body: bytes
    """Every message of the answer, and what the error said."""
    correlation_id: str


@dataclass
class Tally:
    """What the suite counts for one engine; its table is printed at the end."""

    engine: str
    cases: int = 0
    leaks: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leaked_bytes: int = 0
    calls: int = 0
    """Calls of people whom the adapter knew: each must be in the audit."""
    audited: int = 0

    def note(self, what: str, answer: Answer, *, markers: Iterable[bytes] = (), sent: bytes = b"") -> None:
        """Count a case; what its sender did not know and now knows is a leak."""
        self.cases += 1
        if answer.code in FAULTS:
            self.faults.append(f"{what}: {answer.code.name} {answer.body[:200]!r}")
        for marker in markers:
            if marker in answer.body and marker not in sent:
                self.leaks.append(f"{what}: {answer.body[:200]!r}")
                self.leaked_bytes += len(answer.body)


class Wire:
    """One connection to one adapter."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20)])

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()

    async def call(self, rpc: Rpc, messages: Sequence[Message], metadata: Mapping[str, str]) -> Answer:
        """Make a call; over a share it comes back when it is told to, as a guest would."""
        while True:
            correlation_id = f"attack-{_RUN}-{next(_count)}"
            sent = (*metadata.items(), ("isa-correlation-id", correlation_id))
            is_endless = rpc.method.server_streaming
            body: list[bytes] = []
            try:
                answers = self._answers(rpc, messages, sent, ENDLESS if is_endless else PATIENCE)
                async for message in answers:
                    body.append(message.SerializeToString())  # noqa: PERF401 -- what came before an error counts too
            except grpc.aio.AioRpcError as error:
                if error.details() == LOST:
                    continue
                pause = _pause(error)
                if pause is not None:
                    await asyncio.sleep(pause)
                    continue
                trailing = b"".join(
                    value if isinstance(value, bytes) else value.encode()
                    for _, value in error.trailing_metadata() or ()
                )
                said = (error.details() or "").encode() + trailing
                return Answer(error.code(), b"".join(body) + said, correlation_id)
            return Answer(grpc.StatusCode.OK, b"".join(body), correlation_id)

    async def _answers(
        self, rpc: Rpc, messages: Sequence[Message], metadata: tuple[tuple[str, str], ...], timeout: float
    ) -> AsyncIterator[Message]:
        method = rpc.method
        path = f"/{method.containing_service.full_name}/{method.name}"
        request, response = GetMessageClass(method.input_type), GetMessageClass(method.output_type)
        kind = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        call = getattr(self._channel, kind)(path, request.SerializeToString, response.FromString)
        given = iter(messages) if method.client_streaming else messages[0]
        made = call(given, metadata=metadata, timeout=timeout)
        if method.server_streaming:
            async for message in made:
                yield message
        else:
            yield await made


def _pause(error: grpc.aio.AioRpcError) -> float | None:
    """Seconds after which a call over a share may come again."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    retry = RetryInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            for detail in Status.FromString(value).details:
                if detail.Unpack(retry):
                    return retry.retry_delay.ToTimedelta().total_seconds()
    return None


async def storm(cases: Iterable[Callable[[], object]]) -> None:
    """Run cases, a few at a time; each is a function that returns a coroutine."""
    remaining = iter(cases)

    async def work() -> None:
        for case in remaining:
            await case()  # type: ignore[misc]  # a coroutine

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
