"""OTLP metrics into Prometheus' series, as Prometheus' own receiver translates them (underscores and suffixes)."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from flyball.errors import ScrapeError
from flyball.exposition.series import normal_float
from flyball.exposition.writing import format_float
from flyball.model.frames import STALE
from flyball.model.labels import Labels, labels_of

Sample = tuple[Labels, int, float]

_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_IN_LABELS = re.compile(r"[^a-zA-Z0-9_]")
_UNITS = {
    "d": "days",
    "h": "hours",
    "min": "minutes",
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes",
    "KiBy": "kibibytes",
    "MiBy": "mebibytes",
    "GiBy": "gibibytes",
    "TiBy": "tibibytes",
    "KBy": "kilobytes",
    "MBy": "megabytes",
    "GBy": "gigabytes",
    "TBy": "terabytes",
    "m": "meters",
    "V": "volts",
    "A": "amperes",
    "J": "joules",
    "W": "watts",
    "g": "grams",
    "Cel": "celsius",
    "Hz": "hertz",
    "%": "percent",
    "1": "",
}
_PER = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_CUMULATIVE = 2
_NO_VALUE = 1


def _from_json(message: Any, body: bytes, what: str) -> Any:
    # The ids of traces are hexadecimal in OTLP and base64 in protobuf's JSON: read as the wrong bytes, used by nobody.
    from google.protobuf.json_format import Parse, ParseError

    try:
        return Parse(body, message, ignore_unknown_fields=True)
    except (ParseError, UnicodeDecodeError, RecursionError) as exc:
        raise ScrapeError(f"the body is no {what} in JSON: {exc}") from exc


def parse_otlp(body: bytes, *, json: bool = False) -> tuple[list[Sample], list[str]]:
    """(samples, what was left out and why) of an ExportMetricsServiceRequest, in protobuf or in its JSON form.

    Raises:
        ScrapeError: the body is no such message.
    """
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from flyball.exposition.messages import decode

    what = "ExportMetricsServiceRequest"
    request = (
        _from_json(ExportMetricsServiceRequest(), body, what)
        if json
        else decode(ExportMetricsServiceRequest, body, what)
    )
    samples: list[Sample] = []
    refused: list[str] = []
    for resource in request.resource_metrics:
        attributes = {item.key: _text(item.value) for item in resource.resource.attributes}
        common = _identity(attributes)
        newest_ms = 0
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                try:
                    found = list(_metric(metric, common))
                except ScrapeError as exc:
                    refused.append(f'metric "{metric.name}": {exc}')
                    continue
                samples.extend(found)
                newest_ms = max(newest_ms, max((at_ms for _, at_ms, _ in found), default=0))
        rest = {_label(name): value for name, value in attributes.items() if name not in _IDENTITY}
        if newest_ms and common and rest:
            samples.append((labels_of({**rest, **common, "__name__": "target_info"}), newest_ms, 1.0))
    return samples, refused


_IDENTITY = ("service.name", "service.namespace", "service.instance.id")


def _identity(attributes: dict[str, str]) -> dict[str, str]:
    name, space, instance = (attributes.get(key, "") for key in _IDENTITY)
    job = f"{space}/{name}" if space and name else name
    return {label: value for label, value in (("job", job), ("instance", instance)) if value}


def metric_name(name: str, unit: str, kind: str, monotonic: bool) -> str:
    """The name with its unit and ``_total`` (``http.duration`` in ``ms`` is ``http_duration_milliseconds``)."""
    words = [word for word in _NOT_IN_NAMES.sub("_", name).split("_") if word]
    main, _, per = unit.strip().partition("/")
    for text, table, prefix in ((main, _UNITS, ()), (per, _PER, ("per",))):
        text = text.strip()
        if not text or "{" in text:
            continue
        word = table.get(text, _NOT_IN_NAMES.sub("_", text).strip("_"))
        if word and word not in words:
            words += [*prefix, word]
    if kind == "gauge" and unit == "1" and "ratio" not in words:
        words.append("ratio")
    if kind == "sum" and monotonic:
        words = [word for word in words if word != "total"] + ["total"]
    found = "_".join(words)
    return "_" + found if found[:1].isdigit() else found


def _label(name: str) -> str:
    found = _NOT_IN_LABELS.sub("_", name)
    if found[:1].isdigit():
        return "key_" + found
    return "key" + found if found.startswith("_") and not found.startswith("__") else found


def _text(value: Any) -> str:
    kind = value.WhichOneof("value")
    found: Any = getattr(value, kind) if kind else ""
    if kind == "array_value":
        return "[" + ",".join(f'"{_text(item)}"' for item in found.values) + "]"
    if kind == "kvlist_value":
        return "{" + ",".join(f'"{item.key}":"{_text(item.value)}"' for item in found.values) + "}"
    if kind == "bool_value":
        return "true" if found else "false"
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def _metric(metric: Any, common: dict[str, str]) -> Iterable[Sample]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    data = getattr(metric, kind)
    if kind in ("sum", "histogram") and data.aggregation_temporality != _CUMULATIVE:
        raise ScrapeError("its temporality is not cumulative; send cumulative metrics, or convert them in a collector")
    if kind == "exponential_histogram":
        raise ScrapeError("exponential histograms are not taken; send explicit buckets")
    name = metric_name(metric.name, metric.unit, kind, getattr(data, "is_monotonic", False))
    if not name:
        raise ScrapeError("it has no name")
    for point in data.data_points:
        labels = common | {_label(item.key): _text(item.value) for item in point.attributes}
        at_ms = point.time_unix_nano // 1_000_000
        for suffix, own, value in _parts(kind, point):
            shown = float(STALE) if point.flags & _NO_VALUE else value
            yield labels_of({**labels, **own, "__name__": name + suffix}), at_ms, shown


def _parts(kind: str, point: Any) -> Sequence[tuple[str, dict[str, str], float]]:
    """(suffix, labels of its own, value) of the series that a point is."""
    if kind in ("gauge", "sum"):
        as_int = point.WhichOneof("value") == "as_int"
        return [("", {}, float(point.as_int) if as_int else point.as_double)]
    count = float(point.count)
    parts: list[tuple[str, dict[str, str], float]] = [("_count", {}, count)]
    if kind == "summary":
        parts.append(("_sum", {}, point.sum))
        for item in point.quantile_values:
            parts.append(("", {"quantile": normal_float(format_float(item.quantile))}, item.value))
        return parts
    if point.HasField("sum"):
        parts.append(("_sum", {}, point.sum))
    total = 0
    for bound, bucket in zip(point.explicit_bounds, point.bucket_counts, strict=False):
        total += bucket
        parts.append(("_bucket", {"le": normal_float(format_float(bound))}, float(total)))
    parts.append(("_bucket", {"le": "+Inf"}, count))
    return parts
