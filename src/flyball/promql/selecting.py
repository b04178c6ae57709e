"""Selectors: instant vectors, range vectors and subqueries as arrays over the steps."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from flyball.errors import QueryLimitError
from flyball.model.frames import ABSENT, Floats, Frame, Histograms, Mask, Times, has_histogram, is_stale
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import Labels
from flyball.promql.histograms import IncompatibleError, check_compatible, is_reset, with_hint
from flyball.promql.one_window import Window, interpolated_histogram, series_of
from flyball.promql.syntax import TRIMS, Binary, Call, Expr, MatrixSelector, Subquery, Timing, VectorSelector, unwrap
from flyball.promql.values import EvaluationError
from flyball.promql.vectors import Vec, joined, joined_histograms, merge
from flyball.promql.windows import Windows, cut

if TYPE_CHECKING:
    from flyball.promql.evaluator import Evaluator


@dataclass(slots=True, eq=False)
class RangeVector:
    """The samples of a range vector and the range (starts, ends] of every step.

    ``modifier`` is anchored, smoothed or empty; ``drop`` marks the series of a subquery whose name is to go.
    """

    frames: list[Frame]
    starts: Times
    ends: Times
    drop: Mask | None = None
    modifier: str = ""


def pinned(ev: "Evaluator", node: Timing, times: Times | None = None) -> Times:
    """The time that each step (or each of ``times``) looks at: itself, or ``@``, less the offset."""
    base = ev.ts if times is None else times
    if node.at is not None:
        at = {"start": ev.run.start_ms, "end": ev.run.end_ms}[node.at] if isinstance(node.at, str) else node.at
        base = np.full(base.size, at, np.int64)
    return base - ev.run.duration(node.offset_ms, signed=True)


def first_selector_times(ev: "Evaluator", expr: Expr, times: Times) -> Times | None:
    """The time that the first selector below a node looks at, through the subqueries around it."""
    if isinstance(expr, Timing):
        times = pinned(ev, expr, times)
    if isinstance(expr, VectorSelector):
        return times
    found = (first_selector_times(ev, child, times) for child in expr.children())
    return next((at for at in found if at is not None), None)


def select(ev: "Evaluator", node: VectorSelector, start_ms: int, end_ms: int) -> list[Frame]:
    """The frames that have series; their samples count towards the query's limit."""
    frames = ev.run.storage.select(node.matchers, start_ms, end_ms)
    for frame in frames:
        rows = frame.values.shape[0]
        if rows > 1 and frame.times_ms.shape[1] == 1:  # count only what lies in the window
            times = frame.times_ms[:, 0]
            rows = int(((times > start_ms) & (times <= end_ms)).sum())
        ev.run.count(rows * len(frame.labels))
    found = [frame for frame in frames if frame.labels]
    return [_with_detected_resets(frame) for frame in found] if id(node) in ev.run.figures_only else found


def _with_detected_resets(frame: Frame) -> Frame:
    """With reset hints found by comparing each histogram with the one before it, as Prometheus does where a query
    needs nothing but counts and sums."""
    if frame.histograms is None:
        return frame
    table = frame.histograms.copy()
    for i in range(table.shape[1]):
        before: Histogram | None = None
        for row in np.flatnonzero(has_histogram(table[:, i])).tolist():
            h = frame.histograms[row, i]
            if h.hint is ResetHint.UNKNOWN and before is not None:
                table[row, i] = with_hint(h, ResetHint.RESET if is_reset(h, before) else ResetHint.NOT_RESET)
            before = h
    return replace(frame, histograms=table)


def figures_only(root: Expr) -> set[int]:
    """The selectors (by id) of whose histograms a query needs nothing but counts and sums."""
    found: set[int] = set()

    def walk(node: Expr, wanted: bool) -> None:
        if isinstance(node, VectorSelector) and wanted:
            found.add(id(node))
        if isinstance(node, Subquery) or (isinstance(node, Binary) and node.op in TRIMS):
            wanted = False
        elif isinstance(node, Call) and node.name in ("histogram_count", "histogram_sum", "histogram_avg"):
            wanted = True
        elif isinstance(node, Call) and node.name.startswith(("histogram_quantile", "histogram_fraction")):
            wanted = False
        for child in node.children():
            walk(child, wanted)

    walk(root, False)
    return found


# --- instant vectors


def instant(ev: "Evaluator", node: VectorSelector) -> Vec:
    if node.extension == "smoothed":
        return smoothed(ev, node)
    ends = pinned(ev, node)
    starts = ends - ev.run.options.lookback_ms
    parts = [_latest(ev, frame, starts, ends)[0] for frame in select(ev, node, int(starts.min()), int(ends.max()))]
    return gather(parts).compact() if parts else ev.empty()


def samples(ev: "Evaluator", node: VectorSelector) -> tuple[Vec, Floats, Floats]:
    """The selector's vector, the times and the start timestamps of its samples (ms; 0 is not known)."""
    ends = pinned(ev, node)
    starts = ends - ev.run.options.lookback_ms
    parts = [_latest(ev, frame, starts, ends) for frame in select(ev, node, int(starts.min()), int(ends.max()))]
    if not parts:
        nothing = ev.empty()
        return nothing, nothing.values, nothing.values
    vec = gather([part[0] for part in parts])
    dates = [w.applied(_dates) for _, w in parts]
    times, started = (np.concatenate(tables) for tables in zip(*dates, strict=True))
    present = vec.ok.any(axis=1)
    if not present.all():
        vec, times, started = vec.rows(present), times[present], started[present]
    return vec, times, started


def _latest(ev: "Evaluator", frame: Frame, starts: Times, ends: Times) -> tuple[Vec, Windows]:
    """The last sample in every window, and the windows."""
    ev.run.count(len(frame.labels) * ends.size)
    w = cut(frame, starts, ends, keep_stale=True, apart=frame.histograms is None)
    found, ok = w.applied(lambda w: (w.take(w.hi - 1), w.full(w.hi > w.lo)))
    if np.isnan(found).any():
        ok = ok & ~is_stale(np.ascontiguousarray(found))
    histograms = w.take_histograms(w.hi - 1)
    if histograms is not None:
        histograms[~ok] = None
    return Vec(w.labels, found, ok, histograms=histograms), w


def _dates(w: Windows) -> tuple[Floats, Floats]:
    """The times of the last samples, and since when they count."""
    last = w.hi - 1
    started = np.zeros(w.shape) if w.starts_ms is None else w.take(last, np.asarray(w.starts_ms, np.float64))
    return w.spread(w.time(last)), started


def gather(parts: list[Vec]) -> Vec:
    """The vectors of several frames as one."""
    if len(parts) == 1:
        return parts[0]
    drops = [part.drop if part.drop is not None else np.zeros(len(part.labels), bool) for part in parts]
    return merge(
        Vec(
            joined(tuple(part.labels for part in parts)),
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.ok for part in parts]),
            None if all(part.drop is None for part in parts) else np.concatenate(drops),
            joined_histograms([(part.histograms, part.ok.shape) for part in parts]),
        )
    )


def smoothed(ev: "Evaluator", node: VectorSelector) -> Vec:
    """Values interpolated between the samples before and after each step."""
    at = pinned(ev, node)
    lookback = ev.run.options.lookback_ms
    frames = select(ev, node, int(at.min()) - lookback, int(at.max()) + lookback)
    if not frames:
        return ev.empty()
    return gather([_smoothed(ev, node, frame, at) for frame in frames]).compact()


def _smoothed(ev: "Evaluator", node: VectorSelector, frame: Frame, at: Times) -> Vec:
    lookback = ev.run.options.lookback_ms
    w = cut(frame, at - lookback, at)
    after = cut(frame, at, at + lookback)
    previous, following = w.take(w.hi - 1), after.take(after.lo)
    t1, t2 = w.spread(w.time(w.hi - 1)), after.spread(after.time(after.lo))
    ok = w.full(w.hi > w.lo)
    between = ok & after.full(after.hi > after.lo) & (t1 != at)
    share = (at - t1) / np.where(t2 == t1, 1.0, t2 - t1)
    vec = Vec(w.labels, np.where(between, previous + (following - previous) * share, previous), ok)
    if frame.histograms is None:
        return vec
    cells: list[tuple[int, int, Histogram | None]] = []
    for i in np.flatnonzero(has_histogram(frame.histograms).any(axis=0)).tolist():
        s = series_of(w, i, start_timestamps=False)
        for k in range(at.size):
            ev.run.check_stopped()
            lo, hi = int(w.lo[w.target[i], k]), int(w.hi[w.target[i], k])
            behind = int(after.hi[after.target[i], k])
            window = Window(s, lo, max(hi, behind), int(at[k]) - lookback, int(at[k]), ev.run.notes, node)
            if any(h is not None for h in s.histograms[lo : window.hi]):
                cells.append((i, k, None if window.is_mixed() else _smoothed_histogram(window, hi)))
    return vec.with_cells(cells)


def _smoothed_histogram(w: Window, after: int) -> Histogram | None:
    """At the window's end; ``after`` is the first sample behind it."""
    s = w.series
    if after == w.lo:
        return None
    before = s.histograms[after - 1]
    assert before is not None
    if s.times[after - 1] == w.end_ms:
        return before
    following = s.histograms[after] if after < w.hi else None
    if following is None:
        return with_hint(before, ResetHint.UNKNOWN)
    try:
        check_compatible(before, following)
        counter = not (before.hint is following.hint is ResetHint.GAUGE)
        return interpolated_histogram(w, after - 1, w.end_ms, counter=counter)
    except IncompatibleError:
        w.notes.mixed_schemas(w.metric, w.arg)
        return None


# --- range vectors


def look_at(ev: "Evaluator", expr: Expr) -> RangeVector:
    """As ``range_vector``, which then gives the very same when it is asked next, so that nothing is selected twice."""
    found = ev.run.selected[id(unwrap(expr))] = range_vector(ev, expr)
    return found


def range_vector(ev: "Evaluator", expr: Expr) -> RangeVector:
    """The samples of a range selector or a subquery."""
    expr = unwrap(expr)
    known = ev.run.selected.pop(id(expr), None)
    if known is not None:
        return known
    if isinstance(expr, MatrixSelector):
        ends = pinned(ev, expr.vector)
        starts = ends - ev.run.duration(expr.range_ms)
        before = ev.run.options.lookback_ms if expr.vector.extension else 0
        behind = ev.run.options.lookback_ms if expr.vector.extension == "smoothed" else 0
        frames = select(ev, expr.vector, int(starts.min()) - before, int(ends.max()) + behind)
        return RangeVector(frames, starts, ends, modifier=expr.vector.extension)
    assert isinstance(expr, Subquery)
    ends = pinned(ev, expr)
    starts = ends - ev.run.duration(expr.range_ms)
    inner, grid = _subquery(ev, expr, starts, ends)
    if not inner.labels:
        return RangeVector([], starts, ends)
    held = np.where(inner.ok, inner.values, ABSENT).T
    histograms = None
    if inner.histograms is not None:
        histograms = _without_reset_hints(inner.histograms).T
        held = np.where(has_histogram(histograms), 0.0, held)
    frame = Frame(inner.labels, grid[:, None], np.zeros(len(inner.labels), np.int32), held, histograms)
    return RangeVector([frame], starts, ends, inner.drop)


def _without_reset_hints(table: Histograms) -> Histograms:
    """A subquery may leave out samples between two points, so that hints about resets do not hold any more."""
    table = table.copy()
    for i, k in np.argwhere(has_histogram(table)).tolist():
        if table[i, k].hint in (ResetHint.RESET, ResetHint.NOT_RESET):
            table[i, k] = with_hint(table[i, k], ResetHint.UNKNOWN)
    return table


def _subquery(ev: "Evaluator", expr: Subquery, starts: Times, ends: Times) -> tuple[Vec, Times]:
    step = ev.run.duration(expr.step_ms) if expr.step_ms != 0 else ev.run.options.subquery_step_ms
    first = int(starts.min()) // step * step + step
    steps = max(0, (int(ends.max()) - first) // step + 1)
    if steps > 1000 * ev.run.options.steps_max:
        raise QueryLimitError(f"the subquery has {steps} steps; take a shorter range or a longer step")
    grid = first + step * np.arange(steps, dtype=np.int64)
    if grid.size == 0:
        return ev.empty(), grid
    inner = replace(ev, ts=grid, step_ms=step).eval(expr.expr)
    if isinstance(inner, np.ndarray):
        return Vec(((),), inner[None, :], np.ones((1, grid.size), bool)), grid
    assert isinstance(inner, Vec)
    return inner, grid


def pick(frame: Frame, columns: Mask | slice) -> Frame:
    """Some series of a frame."""
    at = columns if isinstance(columns, slice) else np.flatnonzero(columns)
    return Frame(
        frame.labels[at] if isinstance(at, slice) else tuple(frame.labels[i] for i in at.tolist()),
        frame.times_ms,
        frame.target[at],
        frame.values[:, at],
        None if frame.histograms is None else frame.histograms[:, at],
        None if frame.starts_ms is None else frame.starts_ms[:, at],
    )


def raw_samples(ev: "Evaluator", expr: Expr) -> dict[Labels, tuple[Times, Floats, Histograms | None]]:
    """The samples in the one window of a range vector, by series.

    Raises:
        EvaluationError: histograms under ``anchored`` or ``smoothed``.
    """
    vector = range_vector(ev, expr)
    before = ev.run.options.lookback_ms if vector.modifier else 0
    behind = ev.run.options.lookback_ms if vector.modifier == "smoothed" else 0
    found: dict[Labels, tuple[Times, Floats, Histograms | None]] = {}
    for frame in vector.frames:
        w = cut(frame, vector.starts - before, vector.ends + behind)
        lo, hi = w.lo[w.target, 0].tolist(), w.hi[w.target, 0].tolist()
        for i, labels in enumerate(w.labels):
            if hi[i] == lo[i]:
                continue
            rows = slice(lo[i], hi[i])
            times, values = w.times[rows, w.target[i]], w.values[rows, i]
            histograms = None if w.histograms is None else w.histograms[rows, i]
            if histograms is not None and not has_histogram(histograms).any():
                histograms = None
            if vector.modifier:
                if histograms is not None:
                    raise EvaluationError(f"{vector.modifier} modifier is not supported with histograms")
                times, values = _edge_to_edge(times, values, vector)
            if times.size:
                key = labels
                if vector.drop is not None and vector.drop[i]:
                    key = tuple(pair for pair in labels if pair[0] != "__name__")
                found[key] = (times, values, histograms)
    return found


def _edge_to_edge(times: Times, values: Floats, vector: RangeVector) -> tuple[Times, Floats]:
    """The samples of a range with one at either edge, interpolated when smoothed."""
    start, end = int(vector.starts[0]), int(vector.ends[0])
    smooth = vector.modifier == "smoothed"
    last = times.size - 1
    first = max(0, min(int(np.searchsorted(times, start, "right")), last) - 1)
    if smooth:
        last = min(int(np.searchsorted(times, end)), last)
    if times[last] <= start:
        return times[:0], values[:0]
    left, right = float(values[first]), float(values[last])
    if smooth and times[first] < start:
        left = float(np.interp(start, times[first : first + 2], values[first : first + 2]))
    if smooth and last > 0 and times[last] > end:
        right = float(np.interp(end, times[last - 1 : last + 1], values[last - 1 : last + 1]))
    inner = slice(first + (times[first] <= start), last + (times[last] < end))
    return (
        np.concatenate([[start], times[inner], [end]]).astype(np.int64),
        np.concatenate([[left], values[inner], [right]]),
    )
