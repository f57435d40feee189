"""The adapter on Redis against the cache in memory: whatever four tenants do, both answer the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from isa.cache.v1 import cache_pb2 as pb
from isa_common import IsaError
from isa_common.testing._cache import MemoryCache
from kernel import Caller
from services.adapters.redis.connection import ReplyError
from services.adapters.redis.part import refusal
from tests.conformance.conftest import Engines
from tests.conformance.machines import BOUNDS
from tests.conformance.test_cache import Raw, adapter

UNORDERED = {"members", "keys"}
TENANTS = [("", "user-a"), ("", "user-ab"), ("b", "user-a"), ("b", "")]
"""What the organisation's id ends with, and the user."""

tenants = st.sampled_from(TENANTS)
scopes = st.sampled_from([pb.SCOPE_UNSPECIFIED, pb.SCOPE_USER, pb.SCOPE_ORGANISATION])
keys = st.sampled_from(["k", "kk", "user-a:k", ":k", "*", "é"])
fields = st.sampled_from(["f", "g", "*"])
values = st.sampled_from([b"", b"1", b"-7", b"x", b"\x00\xff", b"9223372036854775807"])
some = st.lists(values, min_size=1, max_size=3)
numbers = st.integers(-5, 5)
scores = st.sampled_from([-1.5, 0.0, 1.0, 2.5, float("inf")])
scored = st.builds(pb.ScoredMember, member=values, score=scores)
ttls = st.sampled_from([None, {"seconds": 3600}])


def request(kind: type[Any], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, scope=scopes, **parts)


def keyed(kind: type[Any], **parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return request(kind, key=keys, **parts)


sets = st.one_of(
    keyed(pb.SetRequest, value=values, ttl=ttls),
    keyed(pb.SetRequest, value=values, if_absent=st.booleans()),
    keyed(pb.SetRequest, value=values, if_version=values.map(lambda value: _version(value))),
)
COMMANDS: dict[str, st.SearchStrategy[Any]] = {
    "get": keyed(pb.GetRequest, with_version=st.booleans()),
    "set": sets,
    "delete": keyed(pb.DeleteRequest),
    "exists": keyed(pb.ExistsRequest),
    "expire": keyed(pb.ExpireRequest, ttl=st.just({"seconds": 3600})),
    "persist": keyed(pb.PersistRequest),
    "incr": keyed(pb.IncrRequest, by=numbers),
    "hset": keyed(pb.HSetRequest, fields=st.dictionaries(fields, values, min_size=1)),
    "hget": keyed(pb.HGetRequest, field=fields),
    "hget_all": keyed(pb.HGetAllRequest),
    "hdel": keyed(pb.HDelRequest, fields=st.lists(fields, min_size=1, max_size=2)),
    "hincr_by": keyed(pb.HIncrByRequest, field=fields, by=numbers),
    "lpush": keyed(pb.LPushRequest, values=some),
    "rpush": keyed(pb.RPushRequest, values=some),
    "lpop": keyed(pb.LPopRequest, count=st.integers(0, 3)),
    "rpop": keyed(pb.RPopRequest, count=st.integers(0, 3)),
    "lrange": keyed(pb.LRangeRequest, start=numbers, stop=numbers),
    "llen": keyed(pb.LLenRequest),
    "ltrim": keyed(pb.LTrimRequest, start=numbers, stop=numbers),
    "sadd": keyed(pb.SAddRequest, members=some),
    "srem": keyed(pb.SRemRequest, members=some),
    "smembers": keyed(pb.SMembersRequest),
    "scontains": keyed(pb.SContainsRequest, member=values),
    "zadd": keyed(pb.ZAddRequest, members=st.lists(scored, min_size=1, max_size=3)),
    "zrem": keyed(pb.ZRemRequest, members=some),
    "zrange": keyed(pb.ZRangeRequest, start=numbers, stop=numbers, reverse=st.booleans()),
    "zrange_by_score": keyed(
        pb.ZRangeByScoreRequest, min=scores, max=scores, reverse=st.booleans(), offset=st.integers(0, 2)
    ),
    "zscore": keyed(pb.ZScoreRequest, member=values),
    "zrank": keyed(pb.ZRankRequest, member=values, reverse=st.booleans()),
    "scan": request(pb.ScanRequest, prefix=st.sampled_from(["", "k", "*"])),
    "limit": request(
        pb.LimitRequest,
        name=keys,
        algorithm=st.sampled_from([1, 2, 3]),
        limit=st.just(5),
        window=st.just({"seconds": 2_000_000}),
        cost=st.integers(0, 5),
    ),
}
commands = st.one_of(
    *(each.map(lambda request, name=name: pb.Command(**{name: request})) for name, each in COMMANDS.items())
)


def _version(value: bytes) -> str:
    from services.adapters.redis.codec import version

    return version(value)


def plain(message: Message) -> Any:
    """A message without the order that no store promises, and without times that pass."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.name in ("retry_after", "reset_after", "next_cursor"):
            continue
        if field.name in UNORDERED and not isinstance(message, pb.ZRangeResponse | pb.ZRangeByScoreResponse):
            value = sorted(value)
        elif field.name == "error":
            value = value.code
        elif field.name == "outcomes":
            value = [plain(each) for each in value]
        elif field.message_type is not None and not field.is_repeated:
            value = plain(value)
        found[field.name] = value
    return found


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """A loop that the machine's steps share."""
    with asyncio.Runner() as runner:
        yield runner


def test_redis_answers_as_memory_does(engines: Engines, runner: asyncio.Runner) -> None:
    cache = adapter(engines).implementation
    runner.run(cache.start())

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.memory = MemoryCache()
            self.org = f"org-{uuid.uuid4().hex[:16]}"

        def teardown(self) -> None:
            runner.run(Raw(cache._redis).sweep([self.org]))

        @rule(tenant=tenants, command=commands)
        def one(self, tenant: tuple[str, str], command: pb.Command) -> None:
            name = command.WhichOneof("command")
            self.both(tenant, name, getattr(command, name))

        @rule(tenant=tenants, many=st.lists(commands, min_size=1, max_size=5))
        def pipeline(self, tenant: tuple[str, str], many: list[pb.Command]) -> None:
            self.both(tenant, "pipeline", pb.PipelineRequest(commands=many))

        @rule(tenant=tenants, entries=st.lists(sets, min_size=1, max_size=4, unique_by=lambda each: each.key))
        def mset(self, tenant: tuple[str, str], entries: list[pb.SetRequest]) -> None:
            self.both(tenant, "mset", pb.MSetRequest(entries=entries))

        @rule(tenant=tenants, scope=scopes, many=st.lists(keys, min_size=1, max_size=4))
        def mget(self, tenant: tuple[str, str], scope: Any, many: list[str]) -> None:
            self.both(tenant, "mget", pb.MGetRequest(scope=scope, keys=many))

        @rule(tenant=tenants, scope=scopes, many=st.lists(keys, min_size=1, max_size=4))
        def mdelete(self, tenant: tuple[str, str], scope: Any, many: list[str]) -> None:
            self.both(tenant, "mdelete", pb.MDeleteRequest(scope=scope, keys=many))

        def both(self, tenant: tuple[str, str], name: str, request: Message) -> None:
            caller = Caller(org=self.org + tenant[0], user=tenant[1], roles=frozenset({"owner"}))
            real, model = (runner.run(self.outcome(each, name, caller, request)) for each in (cache, self.memory))
            assert real == model, f"{name} of {tenant}: {request}"

        async def outcome(self, service: Any, name: str, caller: Caller, request: Message) -> Any:
            try:
                return plain(await getattr(service, name)(caller, request))
            except (IsaError, ReplyError) as error:
                refused = refusal(error)
                return refused.code, refused.field

    try:
        run_state_machine_as_test(Machine, settings=BOUNDS)
    finally:
        runner.run(cache.stop())
