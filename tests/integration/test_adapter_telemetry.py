"""What operators see of a call to an adapter: its metrics, and one trace over the sidecars and the adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
import pytest_asyncio
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from isa_common import Isa, NotFound, Unauthenticated
from tests.conftest import Organisation, Stack
from tests.integration.replicas import APPS, layout_beside, replicas

CACHE = "redis-grpc"
CALLER = "postgres-grpc"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A receiver of OTLP that keeps the spans of one trace."""

    def __init__(self) -> None:
        self.spans: set[tuple[str, str]] = set()
        self.came = asyncio.Condition()

    async def Export(  # noqa: N802 - the name of the RPC
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.aio.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        async with self.came:
            for resource in request.resource_spans:
                named = {a.key: a.value.string_value for a in resource.resource.attributes}
                self.spans |= {
                    (named["service.name"], span.name)
                    for scope in resource.scope_spans
                    for span in scope.spans
                    if span.trace_id.hex() == TRACE
                }
            self.came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest_asyncio.fixture
async def collector(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Collector]:
    """The receiver, where parts that are started now send their spans."""
    collector = Collector()
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
    yield collector
    await server.stop(0)


@pytest.mark.ac("isa-cloud-prd:E7-US2:AC-2.1")
async def test_latency_and_errors_of_a_call_are_metrics(stack: Stack, org: Organisation) -> None:
    async with Isa(f"127.0.0.1:{stack.layout.port(APPS[CACHE]['appPort'])}", token=org.token) as isa:
        with pytest.raises(NotFound):
            await isa.cache.get("nobody-put-this")
    port = stack.layout.port(int(APPS[CACHE]["env"]["METRICS_PORT"]))
    async with httpx.AsyncClient(trust_env=False) as http:
        lines = (await http.get(f"http://127.0.0.1:{port}/metrics")).text.splitlines()

    method = 'method="isa.cache.v1.Cache/Get"'
    assert any(line.startswith("isa_requests_total{") and method in line and '"NOT_FOUND"' in line for line in lines)
    assert any(line.startswith("isa_request_duration_seconds_bucket{") and method in line for line in lines)


@pytest.mark.ac("isa-cloud-prd:E7-US2:AC-2.2")
async def test_a_call_is_one_trace_over_both_sidecars_and_the_adapter(
    stack: Stack, tmp_path: Path, collector: Collector
) -> None:
    """Also a call that is refused: the replica here knows nobody's keys, so nobody's token."""

    def context() -> dict[str, str]:
        return {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}

    async with replicas(stack, layout_beside(stack, tmp_path)) as ours:
        for part in (f"{CALLER}-dapr", f"{CACHE}-dapr", CACHE):
            await ours.start(part)
        await ours.until_healthy(f"{CALLER}-dapr", CACHE)
        address, token = ours.sidecar(CALLER)
        async with Isa(address, sidecar=True, sidecar_token=token, metadata=context) as isa:
            with pytest.raises(Unauthenticated):
                await isa.cache.set("k", b"v")
        async with asyncio.timeout(30), collector.came:
            await collector.came.wait_for(lambda: {CALLER, CACHE} <= {service for service, _ in collector.spans})

    assert {name for service, name in collector.spans if service == CACHE} >= {"isa.cache.v1.Cache/Set"}
