"""Fuzzing of every parser that strangers reach: nothing but a refusal, within a second and 256 MiB.

Four minutes each; seeds are the shared test data. Inputs have at most 10 KiB.
"""

import os
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flyball.errors import FlyballError
from gate.fuzzing import damaged, protobuf_seeds
from gate.report import GateError, demand

SHARED = Path(os.environ.get("FLYBALL_SHARED") or Path(__file__).parents[2] / "shared")
EACH_S = 240.0
MEMORY_KIB = 256 * 1024


def run(quick: bool = False) -> list[str]:
    each_s = 5.0 if quick else EACH_S
    lines = []
    for name, (read, seeds) in _parsers().items():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        count, refused, slowest_s = _fuzz(name, read, seeds, each_s)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        demand(grown <= MEMORY_KIB, f"{name}: grown by {grown >> 10} MiB")
        lines.append(f"{name}: {count:,} inputs, {refused:,} refused, 0 unhandled, slowest {slowest_s * 1000:.0f} ms")
    return lines


def _fuzz(name: str, read: Callable[[bytes], Any], seeds: list[bytes], each_s: float) -> tuple[int, int, float]:
    rng = random.Random(16)
    count = refused = 0
    slowest_s = 0.0
    end_s = time.monotonic() + each_s
    while (now_s := time.monotonic()) < end_s:
        data = damaged(rng.choice(seeds), rng)
        count += 1
        cpu_s = time.process_time()
        try:
            read(data)
        except FlyballError:
            refused += 1
        except Exception as exc:
            raise GateError(f"{name}: {type(exc).__name__}: {exc} for {data[:300]!r}") from exc
        took_s = min(time.process_time() - cpu_s, time.monotonic() - now_s)
        demand(took_s <= 1, f"{name}: {took_s:.1f} s for {data[:300]!r}")
        slowest_s = max(slowest_s, took_s)
    return count, refused, slowest_s


def _parsers() -> dict[str, tuple[Callable[[bytes], Any], list[bytes]]]:
    from flyball.exposition import Format, parse, parse_series
    from flyball.exposition.messages import write_types
    from flyball.exposition.otlp import parse_otlp
    from flyball.exposition.remotewrite import parse_write_request
    from flyball.model.prometheusconfig import parse_prometheus_config
    from flyball.model.yaml_loader import load_all_yaml
    from flyball.promql import parse as parse_promql
    from flyball.promql import parse_selector
    from flyball.web.receiving import unsnappy

    def metrics(format_: Format) -> Callable[[bytes], Any]:
        def read(data: bytes) -> None:
            found = parse(data, format_)
            for text, type_ in zip(found.series, found.types, strict=True):
                parse_series(text, type_)
            parse(data, format_, custom=True)

        return read

    def text(read: Callable[[str], Any]) -> Callable[[bytes], Any]:
        return lambda data: read(data.decode("utf-8", "replace"))

    expressions = _expressions()
    openmetrics = [path.read_bytes() for path in (SHARED / "openmetrics").glob("*/metrics")]
    pages = [path.read_bytes()[:10_000] for path in (SHARED / "exposition").glob("*.prom.txt")]
    manifests = [path.read_bytes()[:10_000] for path in sorted((SHARED / "kube-prometheus").glob("*.yaml"))]
    t = write_types()
    labels = [t["Label"](name=n, value=b"v").SerializeToString() for n in (b"__name__", b"l")]
    series = t["TimeSeries"](labels=labels, samples=[t["Sample"](value=1, timestamp=5)])
    written = t["WriteRequest"](timeseries=[series, series]).SerializeToString()
    return {
        "text": (metrics(Format.TEXT), [*pages, *openmetrics]),
        "OpenMetrics": (metrics(Format.OPENMETRICS), openmetrics),
        "protobuf": (metrics(Format.PROTOBUF), list(protobuf_seeds())),
        "PromQL": (text(parse_promql), expressions),
        "selector": (text(parse_selector), [b'a{b="c",d=~"e.*"}', b'{"x.y"!="z"}', *expressions[:200]]),
        "YAML": (text(load_all_yaml), manifests),
        "prometheus.yml": (text(lambda data: parse_prometheus_config(data)), [_CONFIG]),
        "remote write": (lambda data: parse_write_request(data, {}), [written]),
        "snappy": (unsnappy, [_snappy(written)]),
        "OTLP": (parse_otlp, [_otlp()]),
    }


_CONFIG = b"""global: {scrape_interval: 15s, external_labels: {a: b}}
rule_files: [a.yml]
remote_write: [{url: "http://a/b", queue_config: {capacity: 5}}]
alerting: {alertmanagers: [{static_configs: [{targets: ["a:1"]}]}]}
scrape_configs:
- job_name: a
  metrics_path: /m
  relabel_configs: [{source_labels: [a], regex: "(.*)", target_label: b, replacement: $1, action: replace}]
  kubernetes_sd_configs: [{role: pod, namespaces: {names: [x]}}]
  dns_sd_configs: [{names: [a], type: A, port: 1}]
  tls_config: {insecure_skip_verify: true}
"""


def _expressions() -> list[bytes]:
    found = []
    for path in sorted((SHARED / "promqltest").glob("*.test")):
        for line in path.read_text().splitlines():
            words = line.split(None, 3)
            if len(words) == 4 and words[0] == "eval" and words[1] == "instant":
                found.append(words[3].encode())
    return found


def _snappy(data: bytes) -> bytes:
    import cramjam

    return bytes(cramjam.snappy.compress_raw(data))


def _otlp() -> bytes:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    message = ExportMetricsServiceRequest()
    metrics = message.resource_metrics.add().scope_metrics.add().metrics
    point = metrics.add(name="a", unit="ms").gauge.data_points.add(time_unix_nano=5, as_double=1.5)
    point.attributes.add(key="k").value.string_value = "v"
    histogram = metrics.add(name="b").histogram
    histogram.aggregation_temporality = 2
    histogram.data_points.add(time_unix_nano=5, count=2, sum=3, explicit_bounds=[1], bucket_counts=[1, 1])
    encoded: bytes = message.SerializeToString()
    return encoded
