"""The adapter on Loki does what the service in memory does, whatever two tenants push and ask."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from isa.logs.v1 import logs_pb2 as pb
from isa_common import IsaError
from isa_common.testing._logs import MemoryLogs
from kernel import Caller
from services.adapters.loki.app import Settings, create_app
from tests.conformance.conftest import Engines, FakeParts, Secrets
from tests.conformance.machines import BOUNDS

BEGAN = (int(time.time()) - 1800) // 60 * 60
"""The lines' times begin here, half an hour ago."""

tenants = st.sampled_from([0, 1])
labels = st.fixed_dictionaries(
    {"service": st.sampled_from(["shop", "desk"])}, optional={"level": st.sampled_from(["info", "warn"])}
)
entries = st.builds(
    lambda at, line, given: pb.Entry(time=Timestamp(seconds=BEGAN + at), line=line, labels=given),
    st.integers(0, 600),
    st.sampled_from(["paid", "refused 7", "naïve", "a b"]),
    labels,
)
selectors = st.sampled_from(
    ['{service="shop"}', '{service!="shop"}', '{service=~"s.*"}', '{level="warn"}', '{service="shop",level!~"w.+"}']
)
filters = st.sampled_from(["", ' |= "paid"', ' != "paid"', " |~ `\\d`", ' !~ "p|r"'])
bounds = st.tuples(st.integers(-5, 300), st.integers(301, 700)).map(
    lambda given: {"start": Timestamp(seconds=BEGAN + given[0]), "end": Timestamp(seconds=BEGAN + given[1])}
)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def adapter(runner: asyncio.Runner, engines: Engines) -> Iterator[Any]:
    """The service on Loki, started once: each example has tenants of its own."""
    service = create_app(Settings(url=f"http://{engines.address('loki')}"), FakeParts(Secrets({}))).implementation
    runner.run(service.start())
    yield service
    runner.run(service.stop())


def test_the_adapter_does_what_the_model_does(adapter: Any, runner: asyncio.Runner) -> None:
    class Machine(RuleBasedStateMachine):
        """Two tenants; each step is done to both services, which must answer the same."""

        @initialize()
        def begin(self) -> None:
            self.model = MemoryLogs()
            self.callers = [Caller(org=f"org-{uuid.uuid4().hex[:16]}", user="user-1") for _ in range(2)]

        def both(self, tenant: int, name: str, request: Any) -> tuple[Any, Any]:
            answers = []
            for service in (self.model, adapter):
                try:
                    answers.append(runner.run(getattr(service, name)(self.callers[tenant], request)))
                except IsaError as error:
                    answers.append((error.code, error.field))
            return answers[0], answers[1]

        def same(self, tenant: int, name: str, request: Any) -> None:
            expected, found = self.both(tenant, name, request)
            assert expected == found, f"{name} {request}"

        def alike(self, tenant: int, name: str, request: Any) -> None:
            """The same series, in any order; of a refusal the code, as Loki names fields of its own."""
            expected, found = self.both(tenant, name, request)
            if isinstance(expected, tuple) or isinstance(found, tuple):
                assert expected[0] == found[0], f"{name} {request}"
            else:
                assert sorted(map(str, expected.series)) == sorted(map(str, found.series)), f"{name} {request}"

        @rule(tenant=tenants, given=st.lists(entries, min_size=1, max_size=8))
        def push(self, tenant: int, given: list[pb.Entry]) -> None:
            self.same(tenant, "push", pb.PushRequest(entries=given))

        @rule(tenant=tenants, selector=selectors, line=filters, between=bounds, limit=st.sampled_from([1, 3, 100]))
        def query(self, tenant: int, selector: str, line: str, between: Any, limit: int) -> None:
            def pages(service: Any) -> list[tuple[Any, ...]]:
                found, request = [], pb.QueryRequest(query=selector + line, limit=limit, **between)
                while True:
                    try:
                        page = runner.run(service.query(self.callers[tenant], request))
                    except IsaError as error:
                        return [(0, error.code, error.field)]
                    found += [(e.time.seconds, e.line, tuple(sorted(e.labels.items()))) for e in page.entries]
                    if not page.next_cursor:
                        return found
                    request.cursor = page.next_cursor

            expected, found = pages(self.model), pages(adapter)
            assert [each[0] for each in found] == sorted((each[0] for each in found), reverse=True)
            assert sorted(expected) == sorted(found), selector + line

        @rule(tenant=tenants, selector=selectors, between=bounds)
        def series(self, tenant: int, selector: str, between: Any) -> None:
            self.alike(tenant, "series", pb.SeriesRequest(selectors=[selector], **WHOLE))

        @rule(tenant=tenants)
        def names(self, tenant: int) -> None:
            self.same(tenant, "labels", pb.LabelsRequest(**WHOLE))
            self.same(tenant, "label_values", pb.LabelValuesRequest(name="level", **WHOLE))

        @rule(tenant=tenants, selector=selectors)
        def statistics(self, tenant: int, selector: str) -> None:
            self.same(tenant, "statistics", pb.StatisticsRequest(selector=selector, **WHOLE))

        @rule(tenant=tenants, selector=selectors, line=filters)
        def count(self, tenant: int, selector: str, line: str) -> None:
            query = f"sum by (level) (count_over_time({selector}{line} [2m]))"
            step = Duration(seconds=60)
            self.alike(tenant, "range_query", pb.RangeQueryRequest(query=query, step=step, **WHOLE))

    run_state_machine_as_test(Machine, settings=settings(BOUNDS, max_examples=10, phases=[Phase.generate]))


WHOLE = {"start": Timestamp(seconds=BEGAN - 60), "end": Timestamp(seconds=BEGAN + 900)}
"""A range with all lines in it."""
