"""What `isa.logs.v1` promises, in memory and on Loki."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import pytest_asyncio

from isa_common import Direction, Entry, InvalidArgument, Isa, Logs, LogStatistics, Page, PermissionDenied
from tests.conformance.conftest import Engines, FakeParts, Secrets, serving, workload


@pytest_asyncio.fixture
async def address(engines: Engines) -> AsyncIterator[str]:
    """A Loki adapter on the engine under test."""
    from services.adapters.loki.app import Settings, create_app

    settings = Settings(url=f"http://{engines.address('loki')}")
    async with serving(create_app(settings, FakeParts(Secrets(engines.secrets)))) as address:
        yield address


def fresh_org() -> str:
    return f"org-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def logs(as_person: Callable[..., Isa]) -> Logs:
    """The logs of a fresh organisation."""
    return as_person(fresh_org()).logs


async def pages(logs: Logs, query: str, **options: object) -> list[Page]:
    """Every page of a query."""
    found = [await logs.query(query, **options)]
    while found[-1].next_cursor:
        found.append(await logs.query(query, cursor=found[-1].next_cursor, **options))
    return found


def lines(found: list[Page]) -> list[str]:
    return [entry.line for page in found for entry in page.entries]


@pytest.mark.ac("isa-cloud-prd:E6-US1:AC-1.1")
async def test_a_line_comes_back_with_its_time_labels_and_metadata(logs: Logs) -> None:
    now = datetime.now(UTC) - timedelta(seconds=1)
    entry = Entry("naïve “line”\n\tof 2 😀", now, {"service": "shop", "level": "warn"}, {"trace_id": "4bf92f"})

    assert await logs.push([entry]) == 1

    (found,) = (await logs.query('{service="shop"}')).entries
    assert (found.line, found.time, found.metadata) == (entry.line, now, {"trace_id": "4bf92f"})
    assert found.labels["level"] == "warn"


@pytest.mark.ac("isa-cloud-prd:E6-US1:AC-1.2")
async def test_a_batch_is_stored_whole(logs: Logs) -> None:
    now = datetime.now(UTC)
    batch = [Entry(f"line {n}", now + timedelta(microseconds=n), {"part": str(n % 5)}) for n in range(2000)]

    assert await logs.push(batch) == 2000

    found = await pages(logs, '{part=~".+"}', limit=5000, end=now + timedelta(seconds=1))
    assert sorted(lines(found)) == sorted(entry.line for entry in batch)


@pytest.mark.ac("isa-cloud-prd:E6-US1:AC-1.3")
async def test_service_and_organisation_are_added_by_the_server(
    as_person: Callable[..., Isa], as_workload: Callable[..., Isa]
) -> None:
    org = fresh_org()
    logs = as_person(org).logs
    await logs.push([Entry("a", labels={"org": "org-forged"})])
    (found,) = (await logs.query('{org=~".+"}')).entries
    room = as_workload("tasks").logs.acting_for(org=org)
    await room.push([Entry("b", labels={"service": "forged"})])
    (acting,) = (await room.query('{service="tasks"}')).entries

    assert found.labels == {"service": "unknown", "org": org}
    assert acting.labels == {"service": "tasks", "org": org}


@pytest.mark.ac("isa-cloud-prd:E6-US2:AC-2.1")
async def test_lines_are_selected_by_label(logs: Logs) -> None:
    await logs.push([Entry("a", labels={"level": "info"}), Entry("b", labels={"level": "error"})])

    assert lines([await logs.query('{level="error"}')]) == ["b"]
    assert lines([await logs.query('{level="absent"}')]) == []


@pytest.mark.ac("isa-cloud-prd:E6-US2:AC-2.2")
async def test_the_start_is_in_the_range_and_the_end_is_not(logs: Logs) -> None:
    now = datetime.now(UTC) - timedelta(minutes=5)
    await logs.push([Entry(f"{n}", now + timedelta(seconds=n), {"service": "s"}) for n in range(5)])

    found = await logs.query(
        '{service="s"}', start=now + timedelta(seconds=1), end=now + timedelta(seconds=4), direction=Direction.FORWARD
    )

    assert lines([found]) == ["1", "2", "3"]


async def test_without_a_range_the_last_hour_is_read(logs: Logs) -> None:
    now = datetime.now(UTC)
    await logs.push([Entry("old", now - timedelta(minutes=61)), Entry("new", now - timedelta(minutes=59))])

    assert lines([await logs.query('{service="unknown"}')]) == ["new"]


@pytest.mark.ac("isa-cloud-prd:E6-US2:AC-2.3")
async def test_lines_are_filtered_by_text_and_by_pattern(logs: Logs) -> None:
    await logs.push([Entry(text) for text in ("task refused", "task 17 done", "user 4 refused")])

    assert sorted(lines([await logs.query('{service="unknown"} |= "refused"')])) == ["task refused", "user 4 refused"]
    assert lines([await logs.query('{service="unknown"} |~ `task \\d+` != "refused"')]) == ["task 17 done"]


@pytest.mark.ac("isa-cloud-prd:E6-US2:AC-2.4")
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("limit", [1, 7, 100])
async def test_pages_neither_lose_nor_repeat_a_line_where_times_are_equal(
    logs: Logs, direction: Direction, limit: int
) -> None:
    now = datetime.now(UTC) - timedelta(seconds=2)
    batch = [Entry(f"{n}", now + timedelta(milliseconds=n // 25), {"part": str(n % 3)}) for n in range(60)]
    await logs.push(batch)

    found = await pages(logs, '{part=~".+"}', limit=limit, direction=direction)

    assert sorted(lines(found)) == sorted(entry.line for entry in batch)
    times = [entry.time for page in found for entry in page.entries]
    assert times == sorted(times, reverse=direction is Direction.BACKWARD)
    assert all(len(page.entries) <= limit for page in found)


async def test_a_cursor_is_not_moved_by_lines_that_come_later(logs: Logs) -> None:
    now = datetime.now(UTC) - timedelta(seconds=5)
    await logs.push([Entry(f"{n}", now + timedelta(milliseconds=n)) for n in range(10)])
    first = await logs.query('{service="unknown"}', limit=5)
    await logs.push([Entry(f"late {n}", now + timedelta(seconds=1)) for n in range(5)])

    second = await logs.query('{service="unknown"}', limit=5, cursor=first.next_cursor)

    assert lines([first, second]) == [str(n) for n in reversed(range(10))]
    assert second.next_cursor == ""


async def test_a_cursor_serves_only_its_own_query(logs: Logs) -> None:
    await logs.push([Entry(f"{n}") for n in range(3)])
    page = await logs.query('{service="unknown"}', limit=1)

    for query, cursor in (
        ('{service="other"}', page.next_cursor),
        ('{service="unknown"}', "garbage"),
        ('{a="b"}', "AAAA"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await logs.query(query, limit=1, cursor=cursor)
        assert caught.value.field == "cursor"


async def test_a_repeated_push_stores_a_line_once(logs: Logs) -> None:
    entry = Entry("once", datetime.now(UTC))

    await logs.push([entry])
    await logs.push([entry])

    assert lines([await logs.query('{service="unknown"}')]) == ["once"]


async def test_lines_out_of_order_are_taken(logs: Logs) -> None:
    now = datetime.now(UTC)
    await logs.push([Entry("later", now)])
    await logs.push([Entry("earlier", now - timedelta(minutes=10))])

    assert lines(
        [await logs.query('{service="unknown"}', direction=Direction.FORWARD, end=now + timedelta(seconds=1))]
    ) == [
        "earlier",
        "later",
    ]


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (Entry("x", datetime.now(UTC) + timedelta(days=2)), "entries[1].time"),
        (Entry("x", labels={"bad-name": "v"}), "entries[1].labels"),
        (Entry("x", labels={"__name__": "v"}), "entries[1].labels"),
        (Entry("x", labels={"empty": ""}), "entries[1].labels.empty"),
        (Entry("x", labels={f"l{n}": "v" for n in range(20)}), "entries[1].labels"),
        (Entry("x", metadata={"bad name": "v"}), "entries[1].metadata"),
        (Entry("x" * 300_000), "entries[1].line"),
    ],
)
async def test_an_entry_that_would_be_refused_is_named_and_nothing_is_stored(
    logs: Logs, entry: Entry, field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await logs.push([Entry("good"), entry])

    assert caught.value.field == field
    assert lines([await logs.query('{service="unknown"}')]) == []


@pytest.mark.parametrize(
    ("query", "options", "field"),
    [
        ('{service="x"', {}, "query"),
        ('{service="x"} |=', {}, "query"),
        ('rate({service="x"}[1m])', {}, "query"),
        ("", {}, "query"),
        ("{}", {}, "query"),
        ('{service="x"}', {"limit": 5001}, "limit"),
        ('{service="x"}', {"limit": -1}, "limit"),
        (
            '{service="x"}',
            {"start": datetime(2026, 1, 2, tzinfo=UTC), "end": datetime(2026, 1, 1, tzinfo=UTC)},
            "start",
        ),
    ],
)
async def test_a_wrong_query_is_told_by_its_field(
    logs: Logs, query: str, options: dict[str, object], field: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await logs.query(query, **options)

    assert caught.value.field == field


async def test_a_tail_sends_what_arrives_and_what_had_arrived(logs: Logs) -> None:
    await logs.push([Entry("before", datetime.now(UTC) - timedelta(seconds=2))])
    tail = logs.tail('{service="unknown"}', since=timedelta(seconds=30))

    first = await asyncio.wait_for(anext(tail), 10)
    await logs.push([Entry("after")])
    second = await asyncio.wait_for(anext(tail), 10)
    await tail.aclose()

    assert [first.line, second.line] == ["before", "after"]


async def test_an_organisation_sees_nothing_of_another(as_person: Callable[..., Isa], logs: Logs) -> None:
    await logs.push([Entry("mine")])
    other = as_person(fresh_org()).logs

    assert lines([await other.query('{service=~".+"}')]) == []
    tail = other.tail('{service=~".+"}', since=timedelta(minutes=5))
    first = asyncio.ensure_future(anext(tail))
    own = uuid.uuid4().hex
    while not first.done():  # a tail that has begun sends its own lines, and had sent the other's before
        await other.push([Entry(own)])
        await asyncio.wait({first}, timeout=0.2)
    assert first.result().line == own
    await tail.aclose()


async def test_a_workloads_own_lines_are_under_a_tenant_that_no_organisation_can_be(
    address: str, engines: Engines
) -> None:
    marker = uuid.uuid4().hex
    async with workload(address, "audit") as room:
        await room.logs.push([Entry(marker)])
        assert lines([await room.logs.query(f'{{service="audit"}} |= "{marker}"')]) == [marker]

    loki = f"http://{engines.address('loki')}"
    async with httpx.AsyncClient(base_url=loki, headers={"X-Scope-OrgID": "isa-audit"}) as client:
        params = {"query": f'{{service="audit"}} |= "{marker}"'}
        answer = await client.get("/loki/api/v1/query_range", params=params)
    assert marker in answer.text


async def test_a_token_of_nobody_reaches_nothing(address: str) -> None:
    async with Isa(address, token='{"org": ""}') as isa:
        with pytest.raises(PermissionDenied):
            await isa.logs.push([Entry("x")])
        with pytest.raises(PermissionDenied):
            await isa.logs.query('{service=~".+"}')


async def filled(logs: Logs) -> datetime:
    """Three info lines and one warning of `shop`, a line of `desk`; the time of the last."""
    now = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=1)
    shop = [
        Entry(f"line {n}", now - timedelta(seconds=n), {"service": "shop", "level": "warn" if n == 3 else "info"})
        for n in range(4)
    ]
    await logs.push([*shop, Entry("hi", now, {"service": "desk", "level": "info"})])
    return now


async def test_labels_their_values_and_series_are_listed(logs: Logs) -> None:
    await filled(logs)

    assert await logs.labels() == ["level", "org", "service"]
    assert await logs.label_values("service") == ["desk", "shop"]
    assert await logs.label_values("absent") == []
    found = await logs.series('{service="shop",level="warn"}', '{service="desk"}')
    assert sorted((one["service"], one["level"]) for one in found) == [("desk", "info"), ("shop", "warn")]


async def test_a_range_without_lines_has_no_labels(logs: Logs) -> None:
    now = await filled(logs)

    assert await logs.labels(start=now - timedelta(days=2), end=now - timedelta(days=1)) == []


async def test_lines_are_counted_at_a_moment(logs: Logs) -> None:
    now = await filled(logs)

    found = await logs.instant_query(
        'sum by (level) (count_over_time({service="shop"} |= "line" [5m]))', time=now + timedelta(seconds=1)
    )

    assert sorted((one.labels["level"], one.samples[0].value) for one in found) == [("info", 3.0), ("warn", 1.0)]


async def test_lines_are_counted_over_a_range_step_by_step(logs: Logs) -> None:
    now = await filled(logs)
    start = now - timedelta(seconds=now.timestamp() % 60 + 60)

    (found,) = await logs.range_query(
        'sum(count_over_time({service="shop"}[1m]))',
        start=start,
        end=start + timedelta(minutes=3),
        step=timedelta(minutes=1),
    )

    assert sum(sample.value for sample in found.samples) == 4
    gaps = {later.time - earlier.time for earlier, later in zip(found.samples, found.samples[1:], strict=False)}
    assert gaps <= {timedelta(minutes=1)}


async def test_a_selector_says_how_much_it_holds(logs: Logs) -> None:
    await filled(logs)

    assert await logs.statistics('{service="shop"}') == LogStatistics(streams=2, entries=4, bytes=24)
    assert await logs.statistics('{service="absent"}') == LogStatistics(streams=0, entries=0, bytes=0)


async def test_one_of_several_queries_may_fail_alone(logs: Logs) -> None:
    await filled(logs)

    good, bad = await logs.query_many(['{service="desk"}', '{service="desk"'])

    assert isinstance(good, Page)
    assert lines([good]) == ["hi"]
    assert isinstance(bad, InvalidArgument)
    assert bad.field == "query"


async def test_pushes_at_a_time_are_one_push_and_fail_alone(logs: Logs) -> None:
    pushes = [logs.push([Entry(f"{n}")]) for n in range(20)]
    bad = logs.push([Entry("x", labels={"bad-name": "v"})])

    *accepted, refused = await asyncio.gather(*pushes, bad, return_exceptions=True)

    assert accepted == [1] * 20
    assert isinstance(refused, InvalidArgument)
    assert refused.field == "entries[0].labels"
    assert sorted(lines([await logs.query('{service="unknown"}')])) == sorted(f"{n}" for n in range(20))


@pytest.mark.parametrize("selector", ["", "{}", "shop", '{service="shop"', 'count_over_time({a="b"}[1m])'])
async def test_a_wrong_selector_is_told_by_its_field(logs: Logs, selector: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await logs.statistics(selector)
    assert caught.value.field == "selector"
    with pytest.raises(InvalidArgument) as caught:
        await logs.series('{a="b"}', selector)
    assert caught.value.field in ("selectors[1]", "selectors")


async def test_a_query_of_too_many_steps_is_refused(logs: Logs) -> None:
    now = datetime.now(UTC)
    with pytest.raises(InvalidArgument) as caught:
        await logs.range_query('rate({a="b"}[1m])', start=now - timedelta(days=30), end=now, step=timedelta(seconds=1))
    assert caught.value.field == "step"


async def test_what_is_found_of_another_organisation_is_nothing(as_person: Callable[..., Isa], logs: Logs) -> None:
    await filled(logs)
    other = as_person(fresh_org()).logs

    assert await other.labels() == []
    assert await other.label_values("service") == []
    assert await other.series('{service=~".+"}') == []
    assert await other.instant_query('sum(count_over_time({service=~".+"}[1h]))') == []
    assert (await other.statistics('{service=~".+"}')).entries == 0
