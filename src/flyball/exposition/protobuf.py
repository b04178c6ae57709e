"""The protobuf exposition format: MetricFamily messages, each behind its length.

Families become series as the text format would have written them, so that all that follows is the same for both.
"""

from typing import Any

import numpy as np

from flyball.errors import ScrapeError
from flyball.exposition.layout import bounded_ms
from flyball.exposition.messages import decode, exposition_types
from flyball.exposition.nativehistograms import check_schema, read_buckets
from flyball.exposition.parsed import NO_TIME, Exemplar, Exposition, Metadata, Samples
from flyball.exposition.series import normal_float
from flyball.exposition.writing import format_float, series_text
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import METRIC_NAME, labels_of

_TYPES = {0: "counter", 1: "gauge", 2: "summary", 3: "unknown", 4: "histogram", 5: "gaugehistogram"}


def parse_protobuf(body: bytes, *, native: bool = True, classic: bool = True) -> Exposition:
    """Every sample of the body, in order.

    Args:
        native: native histograms as such; otherwise as their classic series.
        classic: the classic series beside them.

    Raises:
        ScrapeError: the body is not a sequence of MetricFamily messages.
    """
    types = exposition_types()
    reader = _Reader(native, classic)
    view = memoryview(body)
    position, end = 0, len(body)
    while position < end:
        length, position = _varint(view, position)
        if length > end - position:
            raise ScrapeError(f"a message of {length} bytes is cut short at {end - position}")
        family = decode(types["MetricFamily"], view[position : position + length], "MetricFamily")
        position += length
        try:
            reader.family(family)
        except UnicodeDecodeError:
            raise ScrapeError("a name, label or help text is not UTF-8") from None
    return reader.exposition()


def _varint(view: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(view) or shift > 63:
            raise ScrapeError("the body is not a sequence of messages with their lengths")
        byte = view[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, position
        shift += 7


class _Reader:
    def __init__(self, native: bool, classic: bool) -> None:
        self._native, self._classic = native, classic
        self._series: list[bytes] = []
        self._types: list[str] = []
        self._values: list[float] = []
        self._times: list[int] = []
        self._exemplars: list[tuple[int, Exemplar]] = []
        self._histograms: list[tuple[int, Histogram]] = []
        self._metadata: dict[str, Metadata] = {}

    def exposition(self) -> Exposition:
        timed = any(time != NO_TIME for time in self._times)
        times = np.array(self._times, np.int64) if timed else None
        samples = Samples(np.array(self._values, np.float64), times, self._exemplars, self._histograms)
        return Exposition(self._series, self._types, samples, self._metadata)

    def family(self, family: Any) -> None:
        name = family.name.decode()
        if not name:
            raise ScrapeError("a metric family has no name")
        type_ = _TYPES.get(family.type)
        if type_ is None:
            raise ScrapeError(f'the metric family "{name}" has the unknown type {family.type}')
        self._metadata[name] = Metadata(type_, family.help.decode(), family.unit.decode())
        for metric in family.metric:
            labels = {label.name.decode(): label.value.decode() for label in metric.label}
            if len(labels) != len(metric.label) or METRIC_NAME in labels:
                raise ScrapeError(f'the metric family "{name}" has a label twice')
            time = bounded_ms(metric.timestamp_ms) if metric.HasField("timestamp_ms") else NO_TIME
            self._metric(name, type_, labels, metric, time)

    def _metric(self, name: str, type_: str, labels: dict[str, str], metric: Any, time: int) -> None:
        def add(suffix: str, value: float, exemplar: Any = None, **own: str) -> None:
            self._add(name + suffix, type_, {**labels, **own}, value, time, exemplar)

        if type_ == "summary":
            for quantile in metric.summary.quantile:
                add("", quantile.value, quantile=normal_float(repr(quantile.quantile)))
            add("_sum", metric.summary.sum)
            add("_count", float(metric.summary.count))
        elif type_ in ("histogram", "gaugehistogram"):
            self._histogram(name, type_, labels, metric.histogram, time)
        else:
            field = {"counter": metric.counter, "gauge": metric.gauge}.get(type_, metric.untyped)
            add("", field.value, field.exemplar if field.HasField("exemplar") else None)

    def _histogram(self, name: str, type_: str, labels: dict[str, str], found: Any, time: int) -> None:
        count = found.count_float if found.HasField("count_float") else float(found.count)
        if self._native and _is_native(found):
            check_schema(found.schema)
            zero = found.zero_count_float if found.HasField("zero_count_float") else float(found.zero_count)
            native = Histogram(
                schema=found.schema,
                count=count,
                sum=found.sum,
                zero_threshold=found.zero_threshold,
                zero_count=zero,
                positive=read_buckets(found.positive_span, found.positive_delta, found.positive_count),
                negative=read_buckets(found.negative_span, found.negative_delta, found.negative_count),
                hint=ResetHint.GAUGE if type_ == "gaugehistogram" else ResetHint.UNKNOWN,
            )
            self._histograms.append((len(self._series), native))
            exemplar = found.exemplars[-1] if found.exemplars else None
            self._add(name, type_, labels, count, time, exemplar)
            if not found.bucket or not self._classic:
                return
        bounds = set()
        for bucket in found.bucket:
            bounds.add(bucket.upper_bound)
            value = bucket.count_float if bucket.HasField("count_float") else float(bucket.count)
            le = normal_float(format_float(bucket.upper_bound))
            example = bucket.exemplar if bucket.HasField("exemplar") else None
            self._add(f"{name}_bucket", type_, {**labels, "le": le}, value, time, example)
        if float("inf") not in bounds:
            self._add(f"{name}_bucket", type_, {**labels, "le": "+Inf"}, count, time, None)
        self._add(f"{name}_sum", type_, labels, found.sum, time, None)
        self._add(f"{name}_count", type_, labels, count, time, None)

    def _add(self, name: str, type_: str, labels: dict[str, str], value: float, time: int, exemplar: Any) -> None:
        if exemplar is not None:
            at = exemplar.timestamp
            time_ms = at.seconds * 1000 + at.nanos // 1_000_000 if exemplar.HasField("timestamp") else None
            own = {label.name.decode(): label.value.decode() for label in exemplar.label}
            self._exemplars.append((len(self._series), Exemplar(own, exemplar.value, time_ms)))
        self._series.append(series_text(name, labels_of(labels), utf8_names=True).encode())
        self._types.append(type_)
        self._values.append(value)
        self._times.append(time)


def _is_native(found: Any) -> bool:
    """A histogram without buckets is native when it says so by a schema, a zero threshold or a span."""
    return bool(
        found.positive_span
        or found.negative_span
        or found.zero_threshold
        or (found.HasField("schema") and not found.bucket)
    )
