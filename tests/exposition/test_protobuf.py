"""Protobuf in all its uses: exposition, remote write, OTLP; and bytes that are none of it."""

import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.errors import ScrapeError
from flyball.exposition import Format, parse, parse_series
from flyball.exposition.messages import exposition_types, write_types
from flyball.exposition.nativehistograms import read_buckets
from flyball.exposition.otlp import metric_name, parse_otlp
from flyball.exposition.remotewrite import parse_write_request
from flyball.exposition.text import parse_text
from flyball.exposition.writing import write_samples
from flyball.model.histograms import Histogram
from flyball.model.labels import labels_of

T0 = 1_700_000_000_000


def delimited(*families: Any) -> bytes:
    out = b""
    for family in families:
        body, size = family.SerializeToString(), b""
        length = len(body)
        while length > 0x7F:
            size += bytes([length & 0x7F | 0x80])
            length >>= 7
        out += size + bytes([length]) + body
    return out


def family(name: str, type_: int, **metric: Any) -> Any:
    types = exposition_types()
    labels = [types["Label"](name=b"l", value=b'a"b')]
    return types["MetricFamily"](
        name=name.encode(), type=type_, help=b"h", metric=[types["Metric"](label=labels, **metric)]
    )


def found(*families: Any) -> list[tuple[dict[str, str], float]]:
    exposition = parse(delimited(*families), Format.PROTOBUF)
    labels = [parse_series(text, type_) for text, type_ in zip(exposition.series, exposition.types, strict=True)]
    return [
        ({k: v for k, v in one.items() if k != "l"}, value)
        for one, value in zip(labels, exposition.values, strict=True)
    ]


def test_every_type_becomes_the_series_that_text_would_be() -> None:
    t = exposition_types()
    exemplar = t["Exemplar"](
        label=[t["Label"](name=b"id", value=b"x")], value=3, timestamp=t["Timestamp"](seconds=5, nanos=500_000_000)
    )
    counter = family("c_total", 0, counter=t["Number"](value=2, exemplar=exemplar), timestamp_ms=T0)
    assert found(counter) == [({"__name__": "c_total"}, 2.0)]
    exposition = parse(delimited(counter), Format.PROTOBUF)
    assert exposition.times_ms is not None and exposition.times_ms.tolist() == [T0]
    assert exposition.samples.exemplars[0][1].time_ms == 5500
    assert exposition.metadata["c_total"].type == "counter"
    assert parse_series(exposition.series[0])["l"] == 'a"b'
    assert found(family("my.gauge", 1, gauge=t["Number"](value=-1))) == [({"__name__": "my.gauge"}, -1.0)]
    assert found(family("u", 3, untyped=t["Number"](value=1))) == [({"__name__": "u"}, 1.0)]
    summary = t["Summary"](count=4, sum=10, quantile=[t["Quantile"](quantile=0.5, value=2)])
    assert found(family("s", 2, summary=summary)) == [
        ({"__name__": "s", "quantile": "0.5"}, 2.0),
        ({"__name__": "s_sum"}, 10.0),
        ({"__name__": "s_count"}, 4.0),
    ]
    histogram = t["Histogram"](
        count=3, sum=6, bucket=[t["Bucket"](count=1, upper_bound=1), t["Bucket"](count=2, upper_bound=1e6)]
    )
    assert found(family("h", 4, histogram=histogram)) == [
        ({"__name__": "h_bucket", "le": "1.0"}, 1.0),
        ({"__name__": "h_bucket", "le": "1e+06"}, 2.0),
        ({"__name__": "h_bucket", "le": "+Inf"}, 3.0),
        ({"__name__": "h_sum"}, 6.0),
        ({"__name__": "h_count"}, 3.0),
    ]


def test_a_native_histogram() -> None:
    t = exposition_types()
    native = t["Histogram"](
        count=6,
        sum=18.5,
        schema=1,
        zero_threshold=0.001,
        zero_count=1,
        positive_span=[t["BucketSpan"](offset=0, length=2), t["BucketSpan"](offset=1, length=1)],
        positive_delta=[1, 1, -1],
    )
    exposition = parse(delimited(family("h", 4, histogram=native)), Format.PROTOBUF)
    ((index, histogram),) = exposition.samples.histograms
    assert histogram == Histogram(1, 6.0, 18.5, 0.001, 1.0, positive={0: 1.0, 1: 2.0, 3: 1.0})
    assert exposition.values[index] == 6.0


@pytest.mark.parametrize(
    ("spans", "deltas", "counts"),
    [([(0, 2)], [1], []), ([(0, 1), (-1, 1)], [1, 1], []), ([(0, 1)], [-1], []), ([(0, 1 << 31)], [], [])],
)
def test_spans_that_do_not_fit(spans: Any, deltas: Any, counts: Any) -> None:
    span = write_types()["BucketSpan"]
    with pytest.raises(ScrapeError):
        read_buckets([span(offset=offset, length=length) for offset, length in spans], deltas, counts)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for read in (lambda: parse(body, Format.PROTOBUF), lambda: parse_write_request(body, {}), lambda: parse_otlp(body)):
        try:
            read()
        except ScrapeError:
            pass


@given(
    st.lists(st.tuples(st.dictionaries(st.text(max_size=4), st.text(max_size=4), max_size=3), st.floats()), max_size=4)
)
def test_what_is_written_is_read_back(samples: Any) -> None:
    wanted = [(labels_of({**labels, "__name__": "n.m"}), value, T0) for labels, value in samples if "" not in labels]
    wanted = [item for item in wanted if not any("\r" in name or "\n" in name for name, _ in item[0])]
    body = write_samples(wanted, utf8_names=True)
    again = parse_text(body)
    assert [labels_of(parse_series(text)) for text in again.series] == [labels for labels, _, _ in wanted]
    assert np.array_equal(again.values, [value for _, value, _ in wanted], equal_nan=True)


def write_request(*series: tuple[dict[str, str], list[tuple[int, float]]]) -> bytes:
    t = write_types()
    return t["WriteRequest"](
        timeseries=[
            t["TimeSeries"](
                labels=[t["Label"](name=k.encode(), value=v.encode()).SerializeToString() for k, v in labels.items()],
                samples=[t["Sample"](timestamp=at, value=value) for at, value in samples],
            )
            for labels, samples in series
        ]
    ).SerializeToString()


def test_remote_write() -> None:
    stale = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
    body = write_request(({"__name__": "a", "z": "1", "b": ""}, [(T0, 1.5), (T0 + 1, stale)]))
    known: dict[Any, Any] = {}
    written = parse_write_request(body, known)
    assert [(labels, at) for labels, at, _ in written.samples] == [
        ((("__name__", "a"), ("z", "1")), T0 + i) for i in (0, 1)
    ]
    assert struct.pack("<d", written.samples[1][2]) == struct.pack("<Q", 0x7FF0000000000002)  # the marker survives
    assert len(known) == 1 and parse_write_request(body, known).samples[0][0] is written.samples[0][0]
    for labels in ({"a": "b"}, {"__name__": ""}, {"__name__": "a", "": "x"}):
        with pytest.raises(ScrapeError):
            parse_write_request(write_request((labels, [(T0, 1.0)])), {})


@pytest.mark.parametrize(
    ("name", "unit", "kind", "monotonic", "expected"),
    [
        ("http.server.duration", "ms", "histogram", False, "http_server_duration_milliseconds"),
        ("requests", "{request}", "sum", True, "requests_total"),
        ("requests_total", "1", "sum", True, "requests_total"),
        ("system.cpu.utilization", "1", "gauge", False, "system_cpu_utilization_ratio"),
        ("io", "By/s", "gauge", False, "io_bytes_per_second"),
        ("2xx", "", "gauge", False, "_2xx"),
    ],
)
def test_names_of_otlp_metrics(name: str, unit: str, kind: str, monotonic: bool, expected: str) -> None:
    assert metric_name(name, unit, kind, monotonic) == expected


def test_otlp() -> None:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    for key, value in (
        ("service.name", "web"),
        ("service.namespace", "shop"),
        ("service.instance.id", "i1"),
        ("host.name", "h"),
    ):
        attribute = resource.resource.attributes.add(key=key)
        attribute.value.string_value = value
    scope = resource.scope_metrics.add()
    total = scope.metrics.add(name="requests")
    total.sum.is_monotonic, total.sum.aggregation_temporality = True, 2
    point = total.sum.data_points.add(time_unix_nano=T0 * 1_000_000, as_int=7)
    code = point.attributes.add(key="http.code")
    code.value.int_value = 200
    durations = scope.metrics.add(name="lat", unit="s")
    durations.histogram.aggregation_temporality = 2
    durations.histogram.data_points.add(
        time_unix_nano=T0 * 1_000_000, count=5, sum=2.5, explicit_bounds=[0.1, 1], bucket_counts=[1, 3, 1]
    )
    delta = scope.metrics.add(name="deltas")
    delta.sum.aggregation_temporality = 1
    samples, refused = parse_otlp(request.SerializeToString())
    values = {(dict(labels)["__name__"], dict(labels).get("le", "")): value for labels, _, value in samples}
    assert values == {
        ("requests_total", ""): 7.0,
        ("lat_seconds_bucket", "0.1"): 1.0,
        ("lat_seconds_bucket", "1.0"): 4.0,
        ("lat_seconds_bucket", "+Inf"): 5.0,
        ("lat_seconds_sum", ""): 2.5,
        ("lat_seconds_count", ""): 5.0,
        ("target_info", ""): 1.0,
    }
    assert dict(samples[0][0]) == {
        "__name__": "requests_total",
        "job": "shop/web",
        "instance": "i1",
        "http_code": "200",
    }
    assert len(refused) == 1 and "cumulative" in refused[0]
