"""The chain that every call goes through: what is refused, recorded, counted and told, and in which order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client import REGISTRY

from isa_common import (
    Code,
    DeadlineExceeded,
    Internal,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)
from kernel.call import CORRELATION, CURRENT, Call, Rule
from kernel.chain import PLATFORM, Chain
from tests.unit.fakes import FakeSpool, Issuer, bearer

WRITE = Rule(permission="tasks.write")
READ = Rule(permission="tasks.read", read_only=True)


def call(metadata: dict[str, str], rule: Rule = WRITE, **changes: Any) -> Call:
    return Call(name="POST /v1/tasks", rule=rule, metadata=metadata, transport="http", **changes)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.fixture
def chain(issuer: Issuer, spool: FakeSpool) -> Chain:
    return issuer.chain(spool)


async def test_a_call_runs_as_its_caller_and_leaves_one_record(chain: Chain, issuer: Issuer, spool: FakeSpool) -> None:
    async with chain(call(bearer(issuer.token()), resources=["task-1"])) as _:
        current = CURRENT.get()
        assert current is not None and current.caller is not None
        assert current.caller.user == "user-alice"
        current.resources.append("task-2")

    [(org, record)] = spool.records
    assert org == "org-a"
    assert (record.user_id, record.workload, record.service) == ("user-alice", "", "tasks")
    assert (record.action, record.outcome) == ("POST /v1/tasks", "OK")
    assert record.resources == ["task-1", "task-2"]
    assert record.correlation_id == current.correlation_id
    assert spool.open == 0


async def test_room_for_the_record_is_reserved_before_the_method_and_filled_before_the_answer(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    order = []

    async with chain(call(bearer(issuer.token()))):
        order.append(("method", list(spool.reserved), len(spool.records)))
    order.append(("answer", list(spool.reserved), len(spool.records)))

    assert order == [("method", [("org-a", True)], 0), ("answer", [("org-a", True)], 1)]


async def test_nothing_of_a_call_stays_behind(chain: Chain, issuer: Issuer) -> None:
    async with chain(call(bearer(issuer.token()))):
        pass

    assert CURRENT.get() is None
    assert CORRELATION.get() == ""


@pytest.mark.parametrize("rule", [WRITE, READ])
async def test_a_refused_caller_leaves_a_record_and_the_method_does_not_run(
    chain: Chain, issuer: Issuer, spool: FakeSpool, rule: Rule
) -> None:
    has_run = False

    with pytest.raises(PermissionDenied):
        async with chain(call(bearer(issuer.token(roles=[])), rule)):
            has_run = True

    assert not has_run
    assert spool.outcomes() == ["PERMISSION_DENIED"]
    assert spool.reserved == [("org-a", not rule.read_only)]


async def test_nobody_is_counted_and_not_spooled(chain: Chain, spool: FakeSpool) -> None:
    labels = {"service": "tasks", "code": "UNAUTHENTICATED"}
    before = counted("isa_anonymous_refusals_total", **labels)

    with pytest.raises(Unauthenticated):
        async with chain(call({})):
            pass

    assert spool.records == []
    assert spool.reserved == []
    assert counted("isa_anonymous_refusals_total", **labels) == before + 1


async def test_an_anonymous_route_wants_no_token_and_leaves_no_record(chain: Chain, spool: FakeSpool) -> None:
    async with chain(call({"authorization": "Bearer rubbish"}, Rule(anonymous=True))):
        current = CURRENT.get()

    assert current is not None and current.caller is None
    assert spool.records == []


async def test_calls_are_refused_until_the_room_knows_whom_to_trust(issuer: Issuer, spool: FakeSpool) -> None:
    for rule in (WRITE, Rule(anonymous=True)):
        with pytest.raises(Unavailable):
            async with issuer.chain(spool, identity=None)(call(bearer(issuer.token()), rule)):
                pass


async def test_what_a_method_raises_of_ours_comes_out_as_it_is(chain: Chain, issuer: Issuer, spool: FakeSpool) -> None:
    with pytest.raises(NotFound) as refused:
        async with chain(call(bearer(issuer.token(), x_correlation_id="correlation-1"))):
            raise NotFound("No such task.", task_id="task-1")

    assert refused.value.message == "No such task."
    assert refused.value.request_id == "correlation-1"
    assert spool.outcomes() == ["NOT_FOUND"]


@pytest.mark.parametrize("bug", [ValueError("postgres://isa:hunter2@db"), KeyError("x"), AssertionError("no")])
async def test_what_nobody_foresaw_is_told_without_its_text(
    chain: Chain, issuer: Issuer, spool: FakeSpool, bug: Exception
) -> None:
    with pytest.raises(Internal) as failed:
        async with chain(call(bearer(issuer.token()))):
            raise bug

    assert "hunter2" not in str(failed.value)
    assert failed.value.__cause__ is bug
    assert failed.value.request_id
    assert spool.outcomes() == ["INTERNAL"]


async def test_engine_errors_are_translated_by_the_rooms_table(issuer: Issuer, spool: FakeSpool) -> None:
    class Taken(NotFound):
        """The title is taken."""

    table = {LookupError: Taken, OSError: lambda error: Unavailable(f"Engine {error.errno}.")}
    chain = issuer.chain(spool, errors=table)

    with pytest.raises(Taken, match=r"The title is taken\."):
        async with chain(call(bearer(issuer.token()))):
            raise KeyError("a subclass of LookupError")
    with pytest.raises(Unavailable, match="Engine 5"):
        async with chain(call(bearer(issuer.token()))):
            raise OSError(5, "Input/output error")

    assert spool.outcomes() == ["NOT_FOUND", "UNAVAILABLE"]


async def test_a_call_ends_when_its_caller_no_longer_waits(chain: Chain, issuer: Issuer, spool: FakeSpool) -> None:
    with pytest.raises(DeadlineExceeded):
        async with chain(call(bearer(issuer.token()), timeout=0.01)):
            await asyncio.sleep(5)

    assert spool.outcomes() == ["DEADLINE_EXCEEDED"]


async def test_the_default_deadline_holds_where_nobody_named_one(issuer: Issuer, spool: FakeSpool) -> None:
    with pytest.raises(DeadlineExceeded):
        async with issuer.chain(spool, default_timeout=0.01)(call(bearer(issuer.token()))):
            await asyncio.sleep(5)


async def test_a_stream_lives_as_long_as_its_caller_stays(issuer: Issuer, spool: FakeSpool) -> None:
    async with issuer.chain(spool, default_timeout=0.01)(call(bearer(issuer.token()), is_stream=True)):
        await asyncio.sleep(0.03)

    assert spool.outcomes() == ["OK"]


async def test_a_cancelled_call_leaves_a_record_and_is_counted_as_such(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    labels = {"service": "tasks", "method": "POST /v1/tasks", "code": "CANCELLED"}
    before = counted("isa_requests_total", **labels)
    is_running = asyncio.Event()

    async def work() -> None:
        async with chain(call(bearer(issuer.token()))):
            is_running.set()
            await asyncio.sleep(5)

    task = asyncio.create_task(work())
    await is_running.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert spool.outcomes() == ["CANCELLED"]
    assert spool.open == 0
    assert counted("isa_requests_total", **labels) == before + 1


async def test_a_stream_that_its_reader_leaves_is_a_cancelled_call(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    async def stream() -> AsyncIterator[int]:
        async with chain(call(bearer(issuer.token()), is_stream=True)):
            while True:
                yield 1

    async with aclosing(stream()) as answers:  # type: ignore[type-var]  # an async generator
        assert await anext(answers) == 1

    assert spool.outcomes() == ["CANCELLED"]


async def test_our_own_workloads_are_recorded_when_refused_alone(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    metadata = bearer(issuer.workload_token("notifications"), isa_org="org-b")

    async with chain(call(metadata, READ)):
        pass
    with pytest.raises(NotFound):
        async with chain(call(metadata, READ)):
            raise NotFound("No such task.")
    assert spool.records == []
    with pytest.raises(PermissionDenied):
        async with chain(call(metadata, WRITE)):
            pass

    [(org, record)] = spool.records
    assert (org, record.workload, record.outcome) == ("org-b", "notifications", "PERMISSION_DENIED")
    assert spool.open == 0


async def test_a_workload_that_acts_for_nobody_is_recorded_under_the_platform(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    with pytest.raises(PermissionDenied):
        async with chain(call(bearer(issuer.workload_token("analytics")))):
            pass

    assert [org for org, _ in spool.records] == [PLATFORM]


async def test_some_calls_of_workloads_are_always_recorded(chain: Chain, issuer: Issuer, spool: FakeSpool) -> None:
    rule = Rule(permission="tasks.read", read_only=True, audit_always=True)

    async with chain(call(bearer(issuer.workload_token("notifications"), isa_org="org-b"), rule)):
        pass

    assert spool.outcomes() == ["OK"]


async def test_over_its_audit_share_an_organisation_reads_and_changes_nothing(
    chain: Chain, issuer: Issuer, spool: FakeSpool
) -> None:
    spool.full.add("org-a")
    has_run = False

    with pytest.raises(ResourceExhausted) as refused:
        async with chain(call(bearer(issuer.token()))):
            has_run = True
    async with chain(call(bearer(issuer.token()), READ)):
        pass

    assert not has_run
    assert refused.value.retry_after is not None
    assert spool.outcomes() == ["RESOURCE_EXHAUSTED", "OK"]


@pytest.mark.parametrize("header", ["isa-correlation-id", "x-correlation-id", "x-request-id"])
async def test_a_sane_correlation_id_is_taken(chain: Chain, issuer: Issuer, header: str) -> None:
    async with chain(call({**bearer(issuer.token()), header: "Request-1.2_3"})):
        assert CORRELATION.get() == "Request-1.2_3"


@pytest.mark.parametrize(
    "given", ["", "short", "x" * 65, "has space in it", "line\nbreak-12", "drop;table--", "é" * 10]
)
async def test_any_other_correlation_id_is_replaced(chain: Chain, issuer: Issuer, spool: FakeSpool, given: str) -> None:
    async with chain(call(bearer(issuer.token(), isa_correlation_id=given))):
        made = CORRELATION.get()

    assert made != given
    assert len(made) == 32
    assert spool.records[0][1].correlation_id == made


async def test_calls_are_counted_by_their_outcome(chain: Chain, issuer: Issuer) -> None:
    labels = {"service": "tasks", "method": "POST /v1/tasks", "code": Code.NOT_FOUND.name}
    before = counted("isa_requests_total", **labels)

    with pytest.raises(NotFound):
        async with chain(call(bearer(issuer.token()))):
            raise NotFound("No such task.")

    assert counted("isa_requests_total", **labels) == before + 1


async def test_a_call_continues_the_trace_that_it_came_with(chain: Chain, issuer: Issuer) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    incoming = call(bearer(issuer.token(), traceparent=f"00-{trace}-b7ad6b7169203331-01"))

    async with chain(incoming):
        pass

    assert incoming.trace_id == trace


async def test_a_record_names_a_hundred_resources_at_most(chain: Chain, issuer: Issuer, spool: FakeSpool) -> None:
    async with chain(call(bearer(issuer.token()), resources=[f"task-{n}" for n in range(500)])):
        pass

    assert len(spool.records[0][1].resources) == 100
