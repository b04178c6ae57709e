"""Functions over range vectors: ``rate``, ``sum_over_time`` and their kin."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flyball.model.frames import Floats, Frame, Mask, has_histogram
from flyball.model.histograms import Histogram
from flyball.model.labels import METRIC_NAME, Labels
from flyball.promql import one_window, over_time
from flyball.promql.selecting import RangeVector, gather, look_at, pick, range_vector
from flyball.promql.syntax import Call, Expr, MatrixSelector, quote, unwrap
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import Vec, grouping, label_value, metric_name
from flyball.promql.windows import Windows, cut

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator

Kernel = Callable[[Windows], tuple[Floats, Mask]]

_COUNTER_SUFFIXES = ("_total", "_sum", "_count", "_bucket")
KEEPS_NAME = frozenset({"last_over_time", "first_over_time"})
#: Series times steps that are computed at a time.
_CELLS_EACH = 1 << 22
#: Those for which a histogram is a sample as any other.
_OF_SAMPLES = frozenset(
    {
        "count_over_time", "present_over_time", "last_over_time", "first_over_time", "ts_of_first_over_time",
        "ts_of_last_over_time",
    }
)  # fmt: skip


def over_windows(ev: "Evaluator", call: Call, arg: Expr, kernel: Kernel) -> Vec:
    """A function of every window of a range vector."""
    found = range_vector(ev, arg)
    _check_modifier(call, found)
    parts: list[Vec] = []
    for frame in found.frames:
        ev.run.count(len(frame.labels) * ev.ts.size)
        parts += _parts(ev, call, arg, found, frame, kernel)
    if not parts:
        return ev.empty()
    result = gather(parts)
    if found.drop is not None and call.name in KEEPS_NAME and result.labels == found.frames[0].labels:
        result = replace(result, drop=found.drop)
    if call.name in ("rate", "increase"):
        hint_counter(ev, arg, result.labels, np.asarray(result.float_ok().any(axis=1)))
    result = result.compact()
    return result if call.name in KEEPS_NAME else ev.unname(result)


def plain_range(ev: "Evaluator", call: Call, arg: Expr) -> RangeVector | None:
    """A range vector of which every series is the kernel's; None when one is not, or is a subquery's."""
    if not isinstance(unwrap(arg), MatrixSelector):
        return None
    found = look_at(ev, arg)
    starts = call.name in one_window.WITH_STARTS and ev.run.options.features.start_timestamps
    for frame in found.frames:
        if found.modifier or frame.histograms is not None or (starts and frame.starts_ms is not None):
            return None
    return found


def _check_modifier(call: Call, found: RangeVector) -> None:
    allowed = {"anchored": one_window.ANCHORED, "smoothed": one_window.SMOOTHED}.get(found.modifier)
    if allowed is not None and call.name not in allowed:
        raise EvaluationError(
            f"{found.modifier} modifier can only be used with: {', '.join(allowed)} - not with {call.name}"
        )


def _parts(ev: "Evaluator", call: Call, arg: Expr, found: RangeVector, frame: Frame, kernel: Kernel) -> list[Vec]:
    """The series of one frame: floats by the kernel, and those that need it window by window."""
    if found.modifier:
        return [_one_by_one(ev, arg, found, frame, one_window.extended(call.name, found.modifier), starts=False)]
    use_starts = frame.starts_ms is not None and ev.run.options.features.start_timestamps
    use_starts &= call.name in one_window.WITH_STARTS
    special = np.zeros(len(frame.labels), bool)
    if frame.histograms is not None and call.name not in _OF_SAMPLES:
        special |= has_histogram(frame.histograms).any(axis=0)
    if use_starts and frame.starts_ms is not None:
        special |= (frame.starts_ms != 0).any(axis=0)
    if not special.any():
        return _by_kernel(ev, found, frame, kernel)
    parts = [] if special.all() else _by_kernel(ev, found, pick(frame, ~special), kernel)
    rest = frame if special.all() else pick(frame, special)
    function = one_window.FUNCTIONS.get(call.name)
    if function is None:
        parts.append(_without_histograms(ev, arg, found, rest, kernel))
    else:
        parts.append(_one_by_one(ev, arg, found, rest, function, starts=use_starts))
        if call.name in ("sum_over_time", "avg_over_time"):  # floats alone are the kernel's
            parts[-1] = _or_floats(found, rest, kernel, parts[-1])
    return parts


def _by_kernel(ev: "Evaluator", found: RangeVector, frame: Frame, kernel: Kernel) -> list[Vec]:
    """Some series at a time when there is much of it, so that a query that is told to stop soon ends."""
    series = max(1, _CELLS_EACH // found.ends.size)
    parts = []
    for first in range(0, len(frame.labels), series):
        ev.run.check_stopped()
        part = frame if series >= len(frame.labels) else pick(frame, np.s_[first : first + series])
        parts.append(_kernel_of(ev, found, part, kernel))
    return parts


def _kernel_of(ev: "Evaluator", found: RangeVector, frame: Frame, kernel: Kernel) -> Vec:
    w = cut(frame, found.starts, found.ends, apart=frame.histograms is None, stop=ev.run.options.stop)
    values, ok = w.applied(kernel)
    vec = Vec(w.labels, values, ok)
    if kernel in (over_time.last_over_time, over_time.first_over_time):
        table = w.take_histograms(w.hi - 1 if kernel is over_time.last_over_time else w.lo)
        if table is not None:
            table[~ok] = None
        vec.histograms = table
    return vec


def _without_histograms(ev: "Evaluator", arg: Expr, found: RangeVector, frame: Frame, kernel: Kernel) -> Vec:
    """The floats alone; where a window also holds histograms, that is reported."""
    w = cut(frame, found.starts, found.ends, floats_only=True)
    values, ok = kernel(w)
    floats = w.full(w.count() > 0)
    everything = cut(frame, found.starts, found.ends)
    mixed = floats & (everything.counts() > w.counts())
    for i in np.flatnonzero(mixed.any(axis=1)).tolist():
        ev.run.notes.ignored_in_range(metric_name(frame.labels[i]), arg)
    return Vec(w.labels, values, ok)


def _or_floats(found: RangeVector, frame: Frame, kernel: Kernel, vec: Vec) -> Vec:
    everything = cut(frame, found.starts, found.ends)
    w = cut(frame, found.starts, found.ends, floats_only=True)
    values, ok = kernel(w)
    pure = ok & (everything.counts() == w.counts())
    return replace(vec, values=np.where(pure, values, vec.values), ok=vec.ok | pure)


def _one_by_one(
    ev: "Evaluator",
    arg: Expr,
    found: RangeVector,
    frame: Frame,
    function: Callable[[one_window.Window], one_window.Answer],
    *,
    starts: bool,
) -> Vec:
    lookback = ev.run.options.lookback_ms
    before, behind = lookback if found.modifier else 0, lookback if found.modifier == "smoothed" else 0
    w = cut(frame, found.starts - before, found.ends + behind)
    values, ok = np.zeros(w.shape), np.zeros(w.shape, bool)
    cells: list[tuple[int, int, Histogram | None]] = []
    edges = list(zip(found.starts.tolist(), found.ends.tolist(), strict=True))
    lo, hi = w.spread(w.lo), w.spread(w.hi)
    for i in range(w.shape[0]):
        ev.run.check_stopped()
        series = one_window.series_of(w, i, start_timestamps=starts)
        for k, (first, last) in enumerate(edges):
            if lo[i, k] == hi[i, k]:
                continue
            answer = function(one_window.Window(series, int(lo[i, k]), int(hi[i, k]), first, last, ev.run.notes, arg))
            if isinstance(answer, Histogram):
                cells.append((i, k, answer))
            elif answer is not None:
                values[i, k], ok[i, k] = answer, True
    vec = Vec(w.labels, values, ok)
    return vec.with_cells(cells) if cells else vec


def hint_counter(ev: "Evaluator", arg: Expr, labels: tuple[Labels, ...], used: Mask) -> None:
    """Says so when the name of a metric that is used [n], or its type, is not that of a counter."""
    if ev.run.options.features.type_and_unit_labels:
        for i in np.flatnonzero(used).tolist():
            name, kind = metric_name(labels[i]), label_value(labels[i], "__type__")
            if name and kind not in ("counter", "histogram"):
                needed = '__type__ label is not set to "counter" or "histogram"'
                ev.run.notes.info(f"metric might not be a counter, {needed}, got {quote(kind)}: {quote(name)}", arg)
        return
    names, codes = grouping(labels, (METRIC_NAME,), False)
    for i, series in enumerate(names):
        name = metric_name(series)
        if name and not name.endswith(_COUNTER_SUFFIXES) and used[codes == i].any():
            suffixes = "/".join(_COUNTER_SUFFIXES)
            ev.run.notes.info(f"metric might not be a counter, name does not end in {suffixes}: {quote(name)}", arg)


def _plain(kernel: Kernel, ev: "Evaluator", call: Call) -> Vec:
    return over_windows(ev, call, call.args[0], kernel)


def quantile_over_time(ev: "Evaluator", call: Call) -> Vec:
    q = ev.scalar(call.args[0])
    result = over_windows(ev, call, call.args[1], lambda w: over_time.quantile_over_time(w, q))
    if result.ok.any():
        for bad in np.unique(q[~((q >= 0) & (q <= 1))]).tolist():
            ev.run.notes.invalid_quantile(bad, call.args[0])
    return result


def predict_linear(ev: "Evaluator", call: Call) -> Vec:
    ahead = ev.scalar(call.args[1])
    return over_windows(ev, call, call.args[0], lambda w: over_time.predict_linear(w, ev.ts, ahead))


def double_exponential_smoothing(ev: "Evaluator", call: Call) -> Vec:
    smoothing, trend = ev.scalar(call.args[1]), ev.scalar(call.args[2])
    for what, short, factor in (("smoothing", "sf", smoothing), ("trend", "tf", trend)):
        bad = factor[~((factor > 0) & (factor < 1))]
        if bad.size:
            raise EvaluationError(f"invalid {what} factor. Expected: 0 < {short} < 1, got: {bad[0]:f}")
    smooth = over_time.double_exponential_smoothing
    return over_windows(ev, call, call.args[0], lambda w: smooth(w, smoothing, trend))


FUNCTIONS: "dict[str, Callable[[Evaluator, Call], Vec]]" = {
    **{name: partial(_plain, kernel) for name, kernel in over_time.KERNELS.items()},
    "double_exponential_smoothing": double_exponential_smoothing,
    "predict_linear": predict_linear,
    "quantile_over_time": quantile_over_time,
}
