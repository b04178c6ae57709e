"""The functions over range vectors for one window at a time: where native histograms, start timestamps or the
modifiers ``anchored`` and ``smoothed`` are in play. Formulas: promql/functions.go of Prometheus.

Each function takes a Window and gives a float, a histogram, or None for no result.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import Labels
from flyball.promql.annotations import Annotations
from flyball.promql.histograms import (
    Combined,
    IncompatibleError,
    Total,
    combine,
    compact,
    divided,
    equal,
    is_reset,
    mean,
    scaled,
    to_schema,
    with_hint,
)
from flyball.promql.syntax import Expr
from flyball.promql.vectors import metric_name
from flyball.promql.windows import Windows

Answer = float | Histogram | None


@dataclass(slots=True)
class Series:
    """The samples of one series in order of time; ``starts_ms`` is empty when no start timestamps are used."""

    labels: Labels
    times: list[int]
    values: list[float]
    histograms: list[Histogram | None]
    starts_ms: list[int]
    _resets: dict[int, bool] = field(default_factory=dict)

    def reset_at(self, i: int) -> bool:
        """Whether the histogram counter started anew between two samples."""
        known = self._resets.get(i)
        if known is None:
            now, before = self.histograms[i], self.histograms[i - 1]
            assert now is not None and before is not None
            known = self._resets[i] = self.started_after(i) or is_reset(now, before)
        return known

    def started_after(self, i: int) -> bool:
        """Whether a sample's start timestamp says that it counts from after the one before it."""
        if not self.starts_ms:
            return False
        started, before = self.starts_ms[i], self.times[i - 1]
        if started == 0 or started >= self.times[i] or started < before:
            return False
        if started > before:
            return True
        # It counts from the sample before: a delta, unless that sample's own start is not known.
        previous = self.starts_ms[i - 1]
        return previous not in (0, before) and previous <= before

    def overlaps(self, i: int) -> bool:
        """Whether a sample counts from before the one before it, though not from where that one does."""
        if not self.starts_ms:
            return False
        return self.starts_ms[i] not in (0, self.starts_ms[i - 1]) and self.starts_ms[i] < self.times[i - 1]


@dataclass(slots=True)
class Window:
    """Samples lo <= i < hi of a series, for a range (start_ms, end_ms] that the samples may exceed."""

    series: Series
    lo: int
    hi: int
    start_ms: int
    end_ms: int
    notes: Annotations
    arg: Expr

    @property
    def metric(self) -> str:
        return metric_name(self.series.labels)

    @property
    def range_s(self) -> float:
        return (self.end_ms - self.start_ms) / 1000

    def histograms(self) -> list[Histogram]:
        return [h for h in self.series.histograms[self.lo : self.hi] if h is not None]

    def is_mixed(self) -> bool:
        """Whether there are floats and histograms; that is warned about."""
        mixed = 0 < len(self.histograms()) < self.hi - self.lo
        if mixed:
            self.notes.mixed_floats_histograms(self.metric, self.arg)
        return mixed

    def combine(self, a: Histogram, b: Histogram, sign: int = 1) -> Histogram:
        """a ± b; custom bounds that had to be reconciled are reported.

        Raises:
            IncompatibleError: exponential and custom buckets are mixed.
        """
        combined: Combined = combine(a, b, sign)
        if combined.reconciled:
            self.notes.reconciled("addition" if sign > 0 else "subtraction", self.arg)
        return combined.value


def series_of(w: Windows, i: int, *, start_timestamps: bool) -> Series:
    """One column of a frame's windows."""
    times = w.times[:, w.target[i]].tolist()
    histograms = [None] * len(times) if w.histograms is None else w.histograms[:, i].tolist()
    starts = w.starts_ms[:, i].tolist() if start_timestamps and w.starts_ms is not None else []
    return Series(w.labels[i], times, np.asarray(w.values[:, i]).tolist(), histograms, starts)


# --- rates


def _rate(w: Window, *, counter: bool, per_second: bool) -> Answer:
    if w.hi == w.lo or w.is_mixed():
        return None
    s, first, last = w.series, w.lo, w.hi - 1
    of_histograms = s.histograms[first] is not None
    result: Answer = None
    if last > first:
        result = _histogram_increase(w, counter=counter) if of_histograms else _float_increase(w, counter=counter)
        if result is None:
            return None
    elif not of_histograms:
        result = 0.0
    to_start = (s.times[first] - w.start_ms) / 1000
    to_end = (w.end_ms - s.times[last]) / 1000
    sampled = (s.times[last] - s.times[first]) / 1000
    average = sampled / (last - first) if last > first else 0.0
    started = s.starts_ms[first] if counter and s.starts_ms else 0
    if started != 0 and w.start_ms < started < s.times[first]:
        to_start = 0.0  # the counter was zero then
        sampled = (s.times[last] - started) / 1000
        result = _plus_first(w, result)
        if result is None:
            return None
    elif last == first:
        return None
    else:
        if to_start >= average * 1.1:
            to_start = average / 2
        if counter:
            to_start = min(to_start, _to_zero(w, result, sampled))
    if to_end >= average * 1.1:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled if sampled else 1.0
    if per_second:
        factor /= w.range_s
    return scaled(result, factor) if isinstance(result, Histogram) else (result or 0.0) * factor


def _plus_first(w: Window, result: Answer) -> Answer:
    first = w.series.histograms[w.lo]
    if first is None:
        assert not isinstance(result, Histogram)
        return (result or 0.0) + w.series.values[w.lo]
    if not isinstance(result, Histogram):
        return first
    try:
        return w.combine(result, first)
    except IncompatibleError:
        w.notes.mixed_schemas(w.metric, w.arg)
        return None


def _to_zero(w: Window, result: Answer, sampled: float) -> float:
    """How long before the first sample the counter was zero, were its growth steady."""
    first = w.series.histograms[w.lo]
    grown, from_ = (
        (result.count, first.count) if isinstance(result, Histogram) and first else (result, w.series.values[w.lo])
    )
    assert isinstance(grown, float | int)
    return sampled * (from_ / grown) if grown > 0 and from_ >= 0 else math.inf


def _float_increase(w: Window, *, counter: bool) -> float:
    s = w.series
    result = s.values[w.hi - 1] - s.values[w.lo]
    if not counter:
        return result
    overlapped = False
    for i in range(w.lo + 1, w.hi):
        if not overlapped and s.overlaps(i):
            overlapped = True
            w.notes.start_time_overlap(w.metric, w.arg)
        if s.values[i] < s.values[i - 1] or s.started_after(i):
            result += s.values[i - 1]
    return result


def _histogram_increase(w: Window, *, counter: bool) -> Histogram | None:
    s, first, last = w.series, w.lo, w.hi - 1
    points = w.histograms()
    if counter and ResetHint.GAUGE in (points[0].hint, points[-1].hint):
        w.notes.not_counter(w.metric, w.arg)
    base = points[0]
    if counter and s.reset_at(first + 1):  # the first sample counts for nothing, nor does its layout
        base = Histogram(schema=points[1].schema, custom_values=points[1].custom_values)
    if points[-1].is_custom != base.is_custom:
        w.notes.mixed_schemas(w.metric, w.arg)
        return None
    schema = min(points[-1].schema, base.schema)
    if counter:
        for h in points[1:-1]:
            if h.hint is ResetHint.GAUGE:
                w.notes.not_counter(w.metric, w.arg)
            if h.is_custom != base.is_custom:
                w.notes.mixed_schemas(w.metric, w.arg)
                return None
            schema = min(schema, h.schema)
    result = w.combine(to_schema(points[-1], schema), base, -1)
    if counter:
        overlapped = False
        for k in range(1, len(points)):
            if not overlapped and s.overlaps(first + k):
                overlapped = True
                w.notes.start_time_overlap(w.metric, w.arg)
            if s.reset_at(first + k):
                result = w.combine(result, points[k - 1] if k > 1 else base)
    elif ResetHint.GAUGE is not points[0].hint or ResetHint.GAUGE is not points[-1].hint:
        w.notes.not_gauge(w.metric, w.arg)
    assert last > first
    return compact(with_hint(result, ResetHint.GAUGE))


def rate(w: Window) -> Answer:
    return _rate(w, counter=True, per_second=True)


def increase(w: Window) -> Answer:
    return _rate(w, counter=True, per_second=False)


def delta(w: Window) -> Answer:
    return _rate(w, counter=False, per_second=False)


def _instant(w: Window, *, counter: bool) -> Answer:
    if w.hi - w.lo < 2:
        return None
    s, b = w.series, w.hi - 1
    a = b - 1
    seconds = (s.times[b] - s.times[a]) / 1000
    if seconds == 0:
        return None
    before, after = s.histograms[a], s.histograms[b]
    if before is None and after is None:
        fell = counter and (s.values[b] < s.values[a] or s.started_after(b))
        value = s.values[b] if fell else s.values[b] - s.values[a]
        return value / seconds if counter else value
    if before is None or after is None:
        w.notes.mixed_floats_histograms(w.metric, w.arg)
        return None
    gauges = (before.hint is ResetHint.GAUGE) + (after.hint is ResetHint.GAUGE)
    if counter and gauges:
        w.notes.not_counter(w.metric, w.arg)
    if not counter and gauges < 2:
        w.notes.not_gauge(w.metric, w.arg)
    result = after
    if not counter or not s.reset_at(b):
        try:
            result = w.combine(after, before, -1)
        except IncompatibleError:
            w.notes.mixed_schemas(w.metric, w.arg)
            return None
    result = compact(with_hint(result, ResetHint.GAUGE))
    return divided(result, seconds) if counter else result


def irate(w: Window) -> Answer:
    return _instant(w, counter=True)


def idelta(w: Window) -> Answer:
    return _instant(w, counter=False)


# --- sums


def _reduced(w: Window, reduce: Callable[[list[Histogram]], tuple[Histogram, Total]]) -> Histogram | None:
    """For windows of histograms alone; floats alone have kernels."""
    points = w.histograms()
    if not points or w.is_mixed():
        return None
    try:
        value, total = reduce(points)
    except IncompatibleError:
        w.notes.mixed_schemas(w.metric, w.arg)
        return None
    if total.collision:
        w.notes.reset_collision("aggregation", w.arg)
    if total.reconciled:
        w.notes.reconciled("aggregation", w.arg)
    return value


def _sum(points: list[Histogram]) -> tuple[Histogram, Total]:
    total = Total(points[0])
    for h in points[1:]:
        total.add(h)
    return total.result(), total


def sum_over_time(w: Window) -> Answer:
    return _reduced(w, _sum)


def avg_over_time(w: Window) -> Answer:
    return _reduced(w, mean)


# --- events


def _pairs(w: Window) -> Iterator[int]:
    """Indices of the samples that have one before them in the window."""
    return iter(range(w.lo + 1, w.hi))


def resets(w: Window) -> Answer:
    if w.hi == w.lo:
        return None
    s, found = w.series, 0
    for i in _pairs(w):
        before, now = s.histograms[i - 1], s.histograms[i]
        if before is None and now is None:
            found += s.values[i] < s.values[i - 1] or s.started_after(i)
        else:
            found += before is None or now is None or s.reset_at(i)
    return float(found)


def changes(w: Window) -> Answer:
    if w.hi == w.lo:
        return None
    s, found = w.series, 0
    for i in _pairs(w):
        before, now = s.histograms[i - 1], s.histograms[i]
        if before is None and now is None:
            a, b = s.values[i - 1], s.values[i]
            found += a != b and not (math.isnan(a) and math.isnan(b))
        else:
            found += before is None or now is None or not equal(before, now)
    return float(found)


#: By function: what a window of histograms, or one with start timestamps, gives.
FUNCTIONS: dict[str, Callable[[Window], Answer]] = {
    f.__name__: f for f in (rate, increase, delta, irate, idelta, sum_over_time, avg_over_time, resets, changes)
}
#: Those that look at start timestamps.
WITH_STARTS = frozenset({"rate", "irate", "increase", "resets"})


# --- anchored and smoothed: windows reach beyond their range by the lookback


def anchored_events(w: Window, count: Callable[[Window], Answer]) -> Answer:
    """``resets`` or ``changes`` from the last sample before the range on."""
    after = bisect_right(w.series.times, w.start_ms, w.lo, w.hi)
    if after == w.hi:
        return None
    w.lo = max(w.lo, after - 1)
    return count(w)


def extended_rate(w: Window, *, counter: bool, per_second: bool, smoothed: bool) -> Answer:
    """``rate``, ``increase`` or ``delta`` from edge to edge of the range."""
    if w.hi == w.lo or w.is_mixed():
        return None
    times, last = w.series.times, w.hi - 1
    first = max(w.lo, min(bisect_right(times, w.start_ms, w.lo, w.hi), last) - 1)
    if smoothed:
        last = min(bisect_left(times, w.end_ms, w.lo, w.hi), last)
    if times[last] <= w.start_ms or (smoothed and times[first] > w.end_ms):
        return None
    if w.series.histograms[first] is None:
        grown = _extended_floats(w, first, last, counter=counter, smoothed=smoothed)
        return grown / w.range_s if per_second else grown
    result = _extended_histograms(w, first, last, counter=counter, smoothed=smoothed)
    if result is None:
        return None
    result = divided(result, w.range_s) if per_second else result
    return compact(with_hint(result, ResetHint.GAUGE))


def interpolated(t1: int, y1: float, t2: int, y2: float, at_ms: int, *, counter: bool) -> float:
    """On the line between two samples; a counter that fell started from zero."""
    if counter and y2 < y1:
        y1 = 0.0
    return y1 + (y2 - y1) * (at_ms - t1) / (t2 - t1)


def _extended_floats(w: Window, first: int, last: int, *, counter: bool, smoothed: bool) -> float:
    times, values = w.series.times, w.series.values
    left, right = values[first], values[last]
    if smoothed and times[first] < w.start_ms:
        i = first
        left = interpolated(times[i], values[i], times[i + 1], values[i + 1], w.start_ms, counter=counter)
    if smoothed and last > w.lo and times[last] > w.end_ms:
        i = last - 1
        right = interpolated(times[i], values[i], times[last], values[last], w.end_ms, counter=counter)
    result = right - left
    if counter:
        inner_first = first + (times[first] <= w.start_ms)
        inner_last = last - (times[last] >= w.end_ms)
        previous = left
        for value in [*values[inner_first : inner_last + 1], right]:
            if value < previous:
                result += previous
            previous = value
    return result


def interpolated_histogram(w: Window, i: int, at_ms: int, *, counter: bool) -> Histogram:
    """Between samples i and i + 1; a counter that fell started from zero.

    Raises:
        IncompatibleError: exponential and custom buckets are mixed.
    """
    s = w.series
    a, b = s.histograms[i], s.histograms[i + 1]
    assert a is not None and b is not None
    if at_ms in (s.times[i], s.times[i + 1]):
        return a if at_ms == s.times[i] else b
    share = (at_ms - s.times[i]) / (s.times[i + 1] - s.times[i])
    if counter and is_reset(b, a):
        return scaled(b, share)
    return w.combine(scaled(w.combine(b, a, -1), share), a)


def _extended_histograms(w: Window, first: int, last: int, *, counter: bool, smoothed: bool) -> Histogram | None:
    s = w.series
    points = [h for h in s.histograms[first : last + 1] if h is not None]
    if any(h.is_custom != points[0].is_custom for h in points):
        w.notes.mixed_schemas(w.metric, w.arg)
        return None
    if counter and any(h.hint is ResetHint.GAUGE for h in points):
        w.notes.not_counter(w.metric, w.arg)
    left, right = points[0], points[-1]
    if smoothed and s.times[first] < w.start_ms:
        left = interpolated_histogram(w, first, w.start_ms, counter=counter)
    if smoothed and last > w.lo and s.times[last] > w.end_ms:
        right = interpolated_histogram(w, last - 1, w.end_ms, counter=counter)
    if not counter and not (left.hint is right.hint is ResetHint.GAUGE):
        w.notes.not_gauge(w.metric, w.arg)
    result = w.combine(right, left, -1)
    if not counter:
        return result
    # The first sample is represented by ``left``, the last by ``right``; a reset that the left interpolation
    # spanned is accounted for in it.
    inner, previous = first + 1, left
    if smoothed and s.times[first] < w.start_ms and is_reset(points[1], points[0]):
        inner, previous = first + 2, points[1]
    if inner > last:
        return result
    corrections: list[Histogram] = []
    for h in [*points[inner - first : last - first], right]:
        if is_reset(h, previous):
            corrections.append(previous)
        previous = h
    for lost in corrections:
        result = w.combine(result, lost)
    return result


ANCHORED = ("changes", "delta", "increase", "rate", "resets")
SMOOTHED = ("delta", "increase", "rate")


def extended(name: str, modifier: str) -> Callable[[Window], Answer]:
    """A function over windows that a modifier extends."""
    if name == "resets":
        return lambda w: anchored_events(w, resets)
    if name == "changes":
        return lambda w: anchored_events(w, changes)
    return lambda w: extended_rate(
        w, counter=name != "delta", per_second=name == "rate", smoothed=modifier == "smoothed"
    )
