"""All four kinds of calls through the real chain: who is refused, what is recorded, and how each ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.protobuf import descriptor_pool
from google.protobuf.message_factory import GetMessageClass

from kernel.caller import Caller
from kernel.identity import Revocations
from kernel.rpc.server import Adapter, RpcServer
from kernel.shares import Limits, Shares
from tests.unit.fakes import FakeSpool, Issuer
from tests.unit.rpc.test_binding import KINDS, contract

CALLS = contract("test.calls", KINDS, permission="cache.write")
Word = GetMessageClass(descriptor_pool.Default().FindMessageTypeByName("test.calls.Word"))
GOOD = {"One": ["done"], "Many": ["a", "b"], "Sum": ["ab"], "Chat": ["A", "B"]}
"""What each kind answers to the words a and b."""


class Words:
    """A service of all four kinds; `wait` never ends."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.sent = 0

    async def one(self, caller: Caller, request: Word) -> Word:
        await self._wait(request)
        return Word(text="done")

    async def many(self, caller: Caller, request: Word) -> AsyncIterator[Word]:
        while request.text == "flood":
            self.sent += 1
            yield Word(text="x" * 100_000)
        for letter in "ab":
            yield Word(text=letter)
        await self._wait(request)

    async def sum(self, caller: Caller, requests: AsyncIterator[Word]) -> Word:
        words = []
        async for word in requests:
            words.append(word.text)
            await self._wait(word)
        return Word(text="".join(words))

    async def chat(self, caller: Caller, requests: AsyncIterator[Word]) -> AsyncIterator[Word]:
        async for word in requests:
            await self._wait(word)
            yield Word(text=word.text.upper())

    async def _wait(self, request: Word) -> None:
        if request.text == "wait":
            self.began.set()
            await asyncio.Event().wait()


@dataclass
class Set:
    """A server of the service, and what its chain is made of."""

    issuer: Issuer
    spool: FakeSpool
    revocations: Revocations
    words: Words
    server: RpcServer
    channel: grpc.aio.Channel
    shares: Shares

    def call(self, kind: str, text: str = "", *, token: str | None = None, timeout: float | None = 20) -> Any:
        client, streams = KINDS[kind]
        make = getattr(self.channel, f"{'stream' if client else 'unary'}_{'stream' if streams else 'unary'}")
        path = f"/{CALLS}/{kind}"
        method = make(path, request_serializer=Word.SerializeToString, response_deserializer=Word.FromString)
        bearer = f"Bearer {self.issuer.token() if token is None else token}"
        request = self.requests(text) if client else Word(text=text)
        return method(request, metadata=(("authorization", bearer),), timeout=timeout)

    async def requests(self, text: str) -> AsyncIterator[Word]:
        """The words of a client that keeps its side open when it is to wait."""
        for word in [text] if text else "ab":
            yield Word(text=word)
        if text == "wait":
            await asyncio.Event().wait()

    async def recorded(self, count: int = 1) -> list[str]:
        """The outcomes in the audit, once there are so many: a client may hear of the end first."""
        async with asyncio.timeout(10):
            while len(self.spool.records) < count:
                await asyncio.sleep(0.001)
        return self.spool.outcomes()


async def answers(call: Any) -> list[str]:
    if not hasattr(call, "read"):
        return [(await call).text]
    words = []
    while (word := await call.read()) is not grpc.aio.EOF:
        words.append(word.text)
    return words


async def code_of(call: Any) -> grpc.StatusCode:
    """How a call failed, as the server says it: a send that comes too late makes grpc.aio say INTERNAL first."""
    with pytest.raises(grpc.aio.AioRpcError):
        async with asyncio.timeout(10):
            await answers(call)
    async with asyncio.timeout(10):
        while await call.details() == "Internal error from Core":
            await asyncio.sleep(0.001)
    code: grpc.StatusCode = await call.code()
    return code


@pytest_asyncio.fixture
async def running(issuer: Issuer, spool: FakeSpool) -> AsyncIterator[Set]:
    revocations, shares, words = Revocations(), Shares(Limits(calls=1, streams=1)), Words()
    chain = issuer.chain(spool, service="words", identity=issuer.identity(revocations), shares=shares)
    revocations.changed = chain.recheck
    server = RpcServer("127.0.0.1:0", chain=chain)
    server.add(Adapter(service=CALLS, implementation=words))
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        yield Set(issuer, spool, revocations, words, server, channel, shares)
    await server.stop(timedelta(0))


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_is_answered_and_recorded_once(running: Set, kind: str) -> None:
    assert await answers(running.call(kind)) == GOOD[kind]

    assert await running.recorded() == ["OK"]
    assert running.spool.open == 0
    [(org, entry)] = running.spool.records
    assert (org, entry.user_id, entry.action) == ("org-a", "user-alice", f"{CALLS}/{kind}")


@pytest.mark.parametrize("text", ["", "wait"], ids=["ends", "stays"])
@pytest.mark.parametrize("kind", KINDS)
async def test_nobody_is_refused_at_once_whatever_they_still_send(running: Set, kind: str, text: str) -> None:
    assert await code_of(running.call(kind, text, token="forged")) is grpc.StatusCode.UNAUTHENTICATED

    assert running.spool.records == []


@pytest.mark.parametrize("text", ["", "wait"], ids=["ends", "stays"])
@pytest.mark.parametrize("kind", KINDS)
async def test_who_may_not_is_refused_at_once_and_recorded(running: Set, kind: str, text: str) -> None:
    viewer = running.issuer.token(roles=["viewer"])

    assert await code_of(running.call(kind, text, token=viewer)) is grpc.StatusCode.PERMISSION_DENIED

    assert await running.recorded() == ["PERMISSION_DENIED"]


@pytest.mark.parametrize("kind", KINDS)
async def test_bytes_that_are_no_request_are_refused_inside_the_chain(running: Set, kind: str) -> None:
    async def garbage() -> AsyncIterator[bytes]:
        yield b"\xff\xff"

    def send(token: str) -> Any:
        client, streams = KINDS[kind]
        make = getattr(running.channel, f"{'stream' if client else 'unary'}_{'stream' if streams else 'unary'}")
        request = garbage() if client else b"\xff\xff"
        return make(f"/{CALLS}/{kind}")(request, metadata=(("authorization", f"Bearer {token}"),), timeout=20)

    assert await code_of(send("forged")) is grpc.StatusCode.UNAUTHENTICATED
    assert await code_of(send(running.issuer.token())) is grpc.StatusCode.INVALID_ARGUMENT
    assert await running.recorded() == ["INVALID_ARGUMENT"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_deadline_ends_each_kind(running: Set, kind: str) -> None:
    assert await code_of(running.call(kind, "wait", timeout=0.3)) is grpc.StatusCode.DEADLINE_EXCEEDED

    assert await running.recorded() == ["DEADLINE_EXCEEDED"]
    assert running.spool.open == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_caller_that_leaves_ends_each_kind(running: Set, kind: str) -> None:
    call = running.call(kind, "wait", timeout=None)
    async with asyncio.timeout(10):
        if kind == "Many":
            await call.read()
        await running.words.began.wait()
    call.cancel()

    assert await running.recorded() == ["CANCELLED"]
    account = running.shares.account("org-a")
    assert (account.open_calls, account.open_streams) == (0, 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_over_its_share_an_organisation_is_refused_and_its_neighbour_served(running: Set, kind: str) -> None:
    first = running.call(kind, "wait", timeout=None)
    async with asyncio.timeout(10):
        if kind == "Many":
            await first.read()
        await running.words.began.wait()

    assert await code_of(running.call(kind, "wait")) is grpc.StatusCode.RESOURCE_EXHAUSTED
    neighbour = running.issuer.token(org="org-b", sub="user-bob")
    assert await answers(running.call(kind, token=neighbour)) == GOOD[kind]
    assert await running.recorded(2) == ["RESOURCE_EXHAUSTED", "OK"]
    first.cancel()
    assert await running.recorded(3) == ["RESOURCE_EXHAUSTED", "OK", "CANCELLED"]
    assert await answers(running.call(kind)) == GOOD[kind]


@pytest.mark.parametrize("subject", ["org-a", "user-alice", "session-1"])
@pytest.mark.parametrize("kind", ["Many", "Sum", "Chat"])
async def test_a_revocation_ends_the_open_streams_of_its_subject(running: Set, kind: str, subject: str) -> None:
    call = running.call(kind, "wait", timeout=None)
    async with asyncio.timeout(10):
        if kind == "Many":
            await call.read()
            await call.read()
        await running.words.began.wait()

    running.revocations.note("org-other", 1, "suspended", None)
    running.revocations.note(subject, 1, "suspended", None)

    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED
    assert await running.recorded() == ["PERMISSION_DENIED"]
    for each in KINDS:
        assert await code_of(running.call(each)) is grpc.StatusCode.PERMISSION_DENIED


async def test_a_revocation_ends_the_stream_of_who_does_not_read(running: Set) -> None:
    call = running.call("Many", "flood", timeout=None)
    sent = -1
    async with asyncio.timeout(10):
        while not running.words.sent or running.words.sent > sent:  # until nothing more fits on the way
            sent = running.words.sent
            await asyncio.sleep(0.1)

    running.revocations.note("org-a", 1, "suspended", None)

    assert await running.recorded() == ["PERMISSION_DENIED"]
    assert await code_of(call) is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("kind", KINDS)
async def test_a_drain_ends_streams_without_a_deadline_and_lets_calls_finish(running: Set, kind: str) -> None:
    call = running.call(kind, "wait", timeout=None)
    async with asyncio.timeout(10):
        if kind == "Many":
            await call.read()
            await call.read()
        await running.words.began.wait()

    async with asyncio.timeout(10):
        await running.server.stop(timedelta(seconds=1))

    assert await code_of(call) is grpc.StatusCode.UNAVAILABLE
