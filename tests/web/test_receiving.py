"""Remote write and OTLP over a socket: what is taken, what is refused, what may be sent again."""

import asyncio
import gzip
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import cramjam
import pytest

from flyball import clock
from flyball.exposition.messages import write_types
from flyball.http.server import serve
from flyball.model.frames import STALE, is_stale
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import labels_of
from flyball.store import Head
from flyball.web.prometheus_api import create_app
from flyball.web.receiving import Receiver

WRITE = "/api/v1/write"
HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}


def request(*samples: tuple[str, int, float]) -> bytes:
    t = write_types()
    series = [
        t["TimeSeries"](
            labels=[t["Label"](name=b"__name__", value=name.encode()).SerializeToString()],
            samples=[t["Sample"](timestamp=at, value=value)],
            exemplars=[t["Exemplar"](labels=[t["Label"](name=b"id", value=b"x")], value=value, timestamp=at)],
        )
        for name, at, value in samples
    ]
    said = [t["MetricMetadata"](type=1, metric_family_name="a", help="Said of a.")]
    written = t["WriteRequest"](timeseries=series, metadata=said)
    return bytes(cramjam.snappy.compress_raw(written.SerializeToString()))


def posted(
    *posts: tuple[str, bytes, dict[str, str]], on: bool = True, asked: Sequence[dict[str, str]] = ()
) -> tuple[Head, list[tuple[int, Any]]]:
    head, answers = Head(), []

    async def go() -> None:
        receiver = Receiver(head, head)
        routes = receiver.routes(remote_write=on, otlp=on)
        with ThreadPoolExecutor(1) as executor:
            server = await serve(create_app(head, executor=executor, routes=routes), port=0)
            try:
                async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
                    for path, body, headers in posts:
                        async with session.post(path, data=body, headers=headers) as answer:
                            answers.append((answer.status, await answer.text()))
                    for query in asked:
                        async with session.get("/api/v1/query", params=query) as answer:
                            answers.append((answer.status, (await answer.json())["data"]["result"]))
            finally:
                await server.close()

    asyncio.run(go())
    return head, answers


def test_what_is_acknowledged_is_stored_and_may_come_twice() -> None:
    now = clock.now_ms()
    body = request(("a", now - 10, 1.0), ("b", now - 10, 2.0))
    head, answers = posted((WRITE, body, HEADERS), (WRITE, body, HEADERS))
    assert [status for status, _ in answers] == [204, 204]
    assert [dict(labels)["__name__"] for labels in head.series([], 0, now)] == ["a", "b"]
    ((series, kept), _) = head.exemplars.select([[]], 0, now)
    assert (series, kept) == (labels_of({"__name__": "a"}), [((("id", "x"),), 1.0, now - 10)])
    assert head.metadata == {"a": ("counter", "Said of a.", "")}


def test_native_histograms_are_stored_and_end() -> None:
    now = clock.now_ms()
    t = write_types()
    name = t["Label"](name=b"__name__", value=b"h").SerializeToString()
    native = {"schema": 1, "positive_spans": [t["BucketSpan"](offset=2, length=2)], "positive_deltas": [3, -1]}
    series = t["TimeSeries"](
        labels=[name],
        histograms=[
            t["Histogram"](count_int=5, sum=9.5, timestamp=now - 20, reset_hint=3, **native),
            t["Histogram"](sum=float(STALE), timestamp=now - 10),
        ],
    )
    body = bytes(cramjam.snappy.compress_raw(t["WriteRequest"](timeseries=[series]).SerializeToString()))
    at = {"time": f"{(now - 15) / 1000:.3f}"}
    queries = [{"query": query, **at} for query in ("h", "histogram_count(h)", "histogram_quantile(1, h)")]
    queries.append({"query": "h", "time": f"{now / 1000:.3f}"})
    head, answers = posted((WRITE, body, HEADERS), asked=queries)
    assert answers.pop(0) == (204, "")
    ((_, (whole,)), (_, (count,)), (_, (most,)), (_, ended)) = answers
    assert whole["histogram"][1]["count"] == "5" and whole["histogram"][1]["buckets"][-1][3] == "2"
    assert (count["value"][1], float(most["value"][1]), ended) == ("5", pytest.approx(2**1.5), [])
    (frame,) = head.select([], 0, now)
    assert frame.histograms is not None
    assert frame.histograms[0, 0] == Histogram(
        schema=1, count=5.0, sum=9.5, positive={2: 3.0, 3: 2.0}, hint=ResetHint.GAUGE
    )
    assert is_stale(frame.values[:, 0].copy()).tolist() == [False, True]


def test_late_and_future_samples_are_named_and_the_rest_is_taken() -> None:
    now = clock.now_ms()
    head, answers = posted(
        (WRITE, request(("a", now - 10, 1.0)), HEADERS),
        (WRITE, request(("a", now - 20, 1.0), ("b", now, 1.0), ("c", now + 3_600_000, 1.0)), HEADERS),
    )
    assert answers[1][0] == 400
    assert "1 samples out of order" in answers[1][1] and "1 samples too far ahead" in answers[1][1]
    assert [dict(labels)["__name__"] for labels in head.series([], 0, now + 1)] == ["a", "b"]


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"\xff\xff\xff\xff\x0f", {}, 400, "claims"),
        (b"\x04\x00", {}, 400, "snappy"),
        (bytes(cramjam.snappy.compress_raw(b"\xff\xff")), {}, 400, "WriteRequest"),
        (request(("", 1, 1.0)), {}, 400, "metric name"),
        (b"", {"Content-Encoding": "zstd"}, 415, "snappy"),
        (b"", {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}, 415, "2.0"),
    ],
)
def test_what_is_no_remote_write(body: bytes, headers: dict[str, str], status: int, said: str) -> None:
    _, answers = posted((WRITE, body, {**HEADERS, **headers}))
    assert answers[0][0] == status and said in answers[0][1]


def test_otlp() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="depth")
    metric.gauge.data_points.add(time_unix_nano=(clock.now_ms() - 5) * 1_000_000, as_double=1.5)
    headers = {"Content-Type": "application/x-protobuf"}
    path = "/api/v1/otlp/v1/metrics"
    head, answers = posted(
        (path, gzip.compress(message.SerializeToString()), {**headers, "Content-Encoding": "gzip"}),
        (path, b"{}", {"Content-Type": "text/plain"}),
        (path, gzip.compress(bytes(200_000_000)), {**headers, "Content-Encoding": "gzip"}),
    )
    assert [status for status, _ in answers] == [200, 415, 400]
    assert [dict(labels)["__name__"] for labels in head.series([], 0, clock.now_ms())] == ["depth"]


def test_otlp_in_json() -> None:
    from google.protobuf.json_format import MessageToJson
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="depth")
    point = metric.gauge.data_points.add(time_unix_nano=(clock.now_ms() - 5) * 1_000_000, as_double=1.5)
    point.exemplars.add(as_double=1).trace_id = b"1234567890abcdef"
    text = MessageToJson(message).replace(
        '"traceId": "', '"ofAnotherVersion": 1, "traceId": "5b8efff798038103d269b633813fc60c'
    )
    path, headers = "/api/v1/otlp/v1/metrics", {"Content-Type": "application/json; charset=utf-8"}
    head, answers = posted(
        (path, text.encode(), headers),
        (path, b'{"resourceMetr', headers),
        (path, b'{"resourceMetrics": 1}', headers),
        (path, b"[" * 100_000, headers),
        (path, b"\xff", headers),
    )
    assert [status for status, _ in answers] == [200, 400, 400, 400, 400]
    assert answers[0][1] == "{}"
    assert [dict(labels)["__name__"] for labels in head.series([], 0, clock.now_ms())] == ["depth"]


def test_off_says_how_to_switch_it_on() -> None:
    _, answers = posted((WRITE, b"", HEADERS), on=False)
    assert answers[0][0] == 404 and "--web.enable-remote-write-receiver" in answers[0][1]
