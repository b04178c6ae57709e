"""Traces: a request continues the API server's span, its queries are within it; without the flag there is nothing."""

import asyncio
import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

from flyball.adapter import tracing
from flyball.errors import ConfigError
from flyball.http.server import serve

from .test_deployment import CONFIG, OBJECTS, PODS, series
from .world import World, pod, world

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_nothing_is_loaded_or_made_without_the_flag() -> None:
    with tracing.request_span("/apis", [("traceparent", PARENT)]) as span, tracing.query_span("rule", "up"):
        assert span is None
    with pytest.raises(ConfigError, match="is not a URL"):
        tracing.start("collector:4318")


@pytest.mark.skipif(not importlib.util.find_spec("opentelemetry.sdk"), reason="the extra otel is not installed")
def test_a_request_and_its_queries_are_one_trace(tmp_path: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    received: list[bytes] = []

    async def collector(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        body = message["body"]
        while message.get("more_body"):
            message = await receive()
            body += message["body"]
        assert scope["path"] == "/v1/traces" and (b"content-encoding", b"gzip") not in scope["headers"]
        received.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def work(found: World) -> None:
        await found.until(lambda: found.get(PODS))
        token = {"Authorization": f"Bearer {found.pki('token').read_text().strip()}", "traceparent": PARENT}
        status, _ = await found.ask(PODS.replace("web", "none"), token)
        assert status == 404
        status, _ = await found.ask(PODS, token)
        assert status == 200

    async def main() -> None:
        server = await serve(collector, port=0, name="collector")
        pods = [pod(name, app=app) for name, app in OBJECTS]
        flags = {"objects": pods, "series": series, "otlp_endpoint": f"http://127.0.0.1:{server.port}"}
        async with world(tmp_path, CONFIG, **flags) as found:  # type: ignore[arg-type]
            await work(found)
        await server.close()  # the adapter has ended, and sent what was left

    asyncio.run(main())
    spans = [
        span
        for body in received
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    ours = [span for span in spans if span.trace_id.hex() == PARENT.split("-")[1]]
    requests = [span for span in ours if span.name == "metrics request"]
    assert {span.parent_span_id.hex() for span in requests} == {PARENT.split("-")[2]}
    codes = [item.value.int_value for span in requests for item in span.attributes if item.key.endswith("status_code")]
    assert sorted(codes) == [200, 404]
    queries = [span for span in ours if span.name == "query"]
    assert {span.parent_span_id for span in queries} <= {span.span_id for span in requests} and len(queries) == 2
    assert "requests_total" in str(queries[0].attributes)
    assert "opentelemetry.sdk" in sys.modules
