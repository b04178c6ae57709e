"""The functions over range vectors of floats: for all series and steps of a frame at once.

Nothing here loops over series; some loop over the positions within a window. Formulas: promql/functions.go of
Prometheus.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from flyball.model.frames import Floats, Mask, Times
from flyball.promql import compiled
from flyball.promql.windows import Index, Windows

Result = tuple[Floats, Mask]

_STEPS = 16  # looked at together where each step concerns few rows

# --- compensated sums


def kahan_add(value: Floats, total: Floats, lost: Floats) -> tuple[Floats, Floats]:
    """Neumaier's step: the new total and what rounding lost (0 once the total is infinite)."""
    new = total + value
    kept = np.where(np.abs(total) >= np.abs(value), (total - new) + value, (value - new) + total)
    return new, np.where(np.isinf(new), 0.0, lost + kept)


def _blocks(w: Windows, cells_max: int) -> Iterator[tuple[slice, Floats, Mask, Index]]:
    """Steps by the block: slice, values [steps, L, n], where they are inside, and rows [steps, L, p] of all windows."""
    longest = int(w.count().max(initial=0))
    n, steps = w.shape
    block = max(1, cells_max // max(1, n * longest))
    for a in range(0, steps if longest else 0, block):
        w.check_stopped()
        part = w.steps(a, a + block)
        rows = part.lo.T[:, None, :] + np.arange(longest)[:, None]
        inside = rows < part.hi.T[:, None, :]
        flat = rows.reshape(-1, rows.shape[2]).T
        wide = replace(part, lo=flat, hi=flat, starts=np.zeros(flat.shape[1], np.int64))
        values = wide.take(flat).T.reshape(-1, longest, n)
        yield slice(a, a + part.starts.size), values, part.spread_last(inside), rows


def _sums(w: Windows, of: Callable[[slice, Floats, Index], Floats] | None = None) -> tuple[Floats, Floats]:
    """Sums over each window [n, T], and what rounding lost: error-free additions in pairs."""
    n, steps = w.shape
    totals, losts = np.zeros((steps, n)), np.zeros((steps, n))
    for at, values, inside, rows in _blocks(w, 1 << 20):
        items = np.where(inside, values if of is None else of(at, values, rows), 0.0)
        lost = np.zeros(items.shape[::2])
        while items.shape[1] > 1:
            half = items.shape[1] // 2
            a, b = items[:, :half], items[:, half : 2 * half]
            total = a + b
            part = total - a
            error = (a - (total - part)) + (b - part)
            lost += np.where(np.isfinite(error), error, 0.0).sum(axis=1)
            items = np.concatenate([total, items[:, 2 * half :]], axis=1)
        totals[at], losts[at] = items[:, 0], lost
    return totals.T, np.where(np.isfinite(totals), losts, 0.0).T


#: Numbers that could be compared while the calls for one position are made.
_CALL_CELLS = 30_000


def _any(w: Windows) -> Mask:
    return w.full(w.count() > 0)


def sum_over_time(w: Windows) -> Result:
    total, lost = _sums(w)
    return np.where(np.isinf(total), total, total + lost), _any(w)


def avg_over_time(w: Windows) -> Result:
    total, lost = _sums(w)
    count = np.maximum(w.counts(), 1)
    mean = np.where(np.isinf(total), total, total / count + lost / count)
    overflow = np.isinf(total)
    if overflow.any():  # finite samples whose sum is not: add up their shares instead
        shares, rest = _sums(w, lambda at, value, _: value / count.T[at, None])
        mean = np.where(overflow, np.where(np.isinf(shares), shares, shares + rest), mean)
    return mean, _any(w)


def count_over_time(w: Windows) -> Result:
    return np.array(w.counts(), np.float64), _any(w)


def present_over_time(w: Windows) -> Result:
    return np.ones(w.shape), _any(w)


def last_over_time(w: Windows) -> Result:
    return w.take(w.hi - 1), _any(w)


def first_over_time(w: Windows) -> Result:
    return w.take(w.lo), _any(w)


def _extreme(w: Windows, pick: Callable[..., Floats]) -> Result:
    longest = int(w.count().max(initial=0))
    ok = _any(w)
    if longest == 0:
        return np.zeros(w.shape), ok
    if pick in (np.fmax, np.fmin) and compiled.ready(ok.size) and (np.diff(w.target) >= 0).all():
        return compiled.extremes(w, greatest=pick is np.fmax), ok
    series, levels = w.target.size, longest.bit_length()
    if longest * (w.starts.size * series + _CALL_CELLS) <= levels * w.values.shape[0] * series:
        result = w.take(w.lo)
        for value, inside, _ in w.positions():
            result = np.where(inside, pick(result, value), result)
        return result, ok
    # Sparse table: the extreme of 2**level rows from each row on; a window is two such stretches.
    level_of = np.frexp(np.maximum(w.count(), 1).astype(np.float64))[1] - 1
    base = int(w.lo.min())
    lo, hi = w.lo - base, w.hi - base
    result, table = np.zeros(w.shape), np.asarray(w.values[base : base + int(hi.max())])
    for level in range(int(level_of.max()) + 1):
        if level:
            half = 1 << (level - 1)
            table = np.concatenate([pick(table[:-half], table[half:]), table[-half:]])
        here = level_of == level
        if here.any():
            both = pick(w.take(lo, table), w.take(hi - (1 << level), table))
            result = both if here.all() else np.where(w.spread(here), both, result)
    return result, ok


def max_over_time(w: Windows) -> Result:
    return _extreme(w, np.fmax)


def min_over_time(w: Windows) -> Result:
    return _extreme(w, np.fmin)


def stdvar_over_time(w: Windows) -> Result:
    mean, ok = avg_over_time(w)
    squares, lost = _sums(w, lambda at, value, _: (value - mean.T[at, None]) ** 2)
    variance = (squares + lost) / np.maximum(w.counts(), 1)
    low, high = _extreme(w, np.minimum)[0], _extreme(w, np.maximum)[0]
    return np.where((low == high) & np.isfinite(low), 0.0, variance), ok


def stddev_over_time(w: Windows) -> Result:
    variance, ok = stdvar_over_time(w)
    return np.sqrt(variance), ok


def _stacked(w: Windows) -> Iterator[tuple[slice, Floats, Index]]:
    """Blocks of steps: their sorted windows [n, steps, longest] (NaN at the end) and numbers of real NaN."""
    for at, values, inside, _ in _blocks(w, 4_000_000):
        stack = np.where(inside, values, np.nan).transpose(2, 0, 1).copy()
        nans = w.counts()[:, at] - (~np.isnan(stack)).sum(axis=2)
        stack.sort(axis=2)
        yield at, stack, nans


def quantile_of_sorted(q: Floats, stack: Floats, nans: Index, count: Index) -> Floats:
    """Quantiles along the last axis, sorted with NaN at the end; real NaN count as smallest.

    Args:
        q: broadcastable to stack.shape[:-1].
    """
    rank = np.where(np.isnan(q), 0.0, np.clip(q, 0, 1)) * np.maximum(count - 1, 0)
    lower = np.floor(rank)
    upper = np.minimum(lower + 1, np.maximum(count - 1, 0))
    weight = rank - lower

    def at(position: Floats) -> Floats:
        index = position.astype(np.int64) - nans
        found = np.take_along_axis(stack, np.clip(index, 0, stack.shape[-1] - 1)[..., None], axis=-1)[..., 0]
        return np.where(index < 0, np.nan, found)

    low, high = at(lower), at(upper)
    result = low * (1 - weight) + high * weight
    result = np.where(q < 0, -np.inf, np.where(q > 1, np.inf, result))
    return np.where(np.isnan(q), np.nan, result)


def quantile_over_time(w: Windows, q: Floats) -> Result:
    """``q`` [T]."""
    result = np.zeros(w.shape)
    for at, stack, nans in _stacked(w):
        count = w.counts()[:, at]
        result[:, at] = quantile_of_sorted(np.broadcast_to(q[at], count.shape), stack, nans, count)
    return result, _any(w)


def mad_over_time(w: Windows) -> Result:
    """Median of the absolute deviations from the median."""
    half = np.full(w.starts.size, 0.5)
    median = quantile_over_time(w, half)[0]
    result = np.zeros(w.shape)
    for at, stack, nans in _stacked(w):
        count = w.counts()[:, at]
        away = np.sort(np.abs(stack - median[:, at, None]), axis=2)
        middle = quantile_of_sorted(np.full(count.shape, 0.5), away, nans, count)
        result[:, at] = np.where(nans > 0, np.nan, middle)
    return result, _any(w)


# --- counters


def _between(w: Windows, per_row: Floats) -> Floats:
    """Sums of a per-row figure (0 in row 0) over the second to the last sample of each window."""
    running = np.cumsum(per_row, axis=0)
    return w.take(w.hi - 1, running) - w.take(w.lo, running)


def _rows_flagged(w: Windows, flag: Callable[[Floats, Floats], Mask]) -> Result:
    flags = np.zeros(w.values.shape)
    if w.values.shape[0] > 1:
        flags[1:] = flag(w.values[:-1], w.values[1:])
    return _between(w, flags), _any(w)


def changes(w: Windows) -> Result:
    return _rows_flagged(w, lambda a, b: (a != b) & ~(np.isnan(a) & np.isnan(b)))


def resets(w: Windows) -> Result:
    return _rows_flagged(w, lambda a, b: b < a)


def _where(mask: Mask) -> tuple[Index, Index]:
    """Rows and columns of what is True; of a flat array that is found many times faster."""
    rows, columns = np.divmod(np.flatnonzero(np.ascontiguousarray(mask)), max(1, mask.shape[1]))
    return rows, columns


def _drops(w: Windows) -> tuple[Index, Index, Floats]:
    """Where counters started anew: the row after, the series, and what it fell from, by row."""
    if "drops" not in w.memo:
        rows, columns = _where(w.values[1:] < w.values[:-1])
        w.memo["drops"] = (rows + 1, columns, w.values[rows, columns])
    found: tuple[Index, Index, Floats] = w.memo["drops"]
    return found


def _correct(w: Windows, result: Floats) -> None:
    """Adds what each reset within a window hid."""
    rows, columns, lost = _drops(w)
    if not rows.size:
        return
    target = w.target if w.times.shape[1] > 1 else np.zeros(len(w.labels), np.int64)
    for k in range(0, w.starts.size, _STEPS):
        w.check_stopped()
        lo, hi = w.lo[:, k : k + _STEPS], w.hi[:, k : k + _STEPS]
        first, last = np.searchsorted(rows, [int(lo.min()) + 1, int(hi.max())])
        if first == last:
            continue
        row, column = rows[first:last], columns[first:last]
        own = target[column]
        event, step = np.nonzero((lo[own] < row[:, None]) & (row[:, None] < hi[own]))
        np.add.at(result, (column[event], k + step), lost[first:last][event])


def _extrapolated(w: Windows, *, counter: bool, rate: bool) -> Result:
    first, last = w.take(w.lo), w.take(w.hi - 1)
    result = last - first
    if counter and w.values.shape[0] > 1:
        _correct(w, result)
    # What depends on time alone is the same for all series of a target.
    first_at, last_at = w.time(w.lo), w.time(w.hi - 1)
    to_start = (first_at - w.starts) / 1000
    to_end = (w.ends - last_at) / 1000
    sampled = (last_at - first_at) / 1000
    average = sampled / np.maximum(w.count() - 1, 1)
    threshold = average * 1.1
    to_start = np.where(to_start >= threshold, average / 2, to_start)
    to_end = np.where(to_end >= threshold, average / 2, to_end)
    span = np.where(sampled == 0, 1.0, sampled)
    factor = (sampled + to_start + to_end) / span
    per_second = (w.ends - w.starts) / 1000 if rate else np.ones(w.ends.size)
    if counter:  # a counter never was below zero: do not extrapolate past where it would have been
        # to_zero = sampled * first / result < to_start, for the greatest to_start / sampled there is
        most = float(np.max(to_start / span, initial=0.0, where=sampled > 0))
        near = first < most * result
        near &= first >= 0
        k, i = _where(near.T)
        if i.size:
            p = w.target[i] if factor.shape[0] > 1 else np.zeros(i.size, np.int64)
            to_zero = sampled[p, k] * (first[i, k] / result[i, k])
            start = np.minimum(to_zero, to_start[p, k])
            exact = result[i, k] * ((sampled[p, k] + start + to_end[p, k]) / span[p, k] / per_second[k])
            result = w.scaled(result, factor / per_second)
            result[i, k] = exact
            return result, w.full((w.count() >= 2) & (sampled > 0))
    return w.scaled(result, factor / per_second), w.full((w.count() >= 2) & (sampled > 0))


def rate(w: Windows) -> Result:
    return _extrapolated(w, counter=True, rate=True)


def increase(w: Windows) -> Result:
    return _extrapolated(w, counter=True, rate=False)


def delta(w: Windows) -> Result:
    return _extrapolated(w, counter=False, rate=False)


def _instant(w: Windows, *, per_second: bool) -> Result:
    last, previous = w.take(w.hi - 1), w.take(w.hi - 2)
    span = w.spread((w.time(w.hi - 1) - w.time(w.hi - 2)) / 1000)
    result = last - previous
    if per_second:
        result = np.where(last < previous, last, result) / np.where(span == 0, 1.0, span)
    return result, (w.counts() >= 2) & (span > 0)


def irate(w: Windows) -> Result:
    return _instant(w, per_second=True)


def idelta(w: Windows) -> Result:
    return _instant(w, per_second=False)


# --- regression


def _regression(w: Windows, origin_ms: Floats) -> tuple[Floats, Floats]:
    """Slope per second and value at ``origin_ms`` ([p or 1, T])."""
    height = max(0, w.times.shape[0] - 1)

    def x(at: slice, rows: Index) -> Floats:
        times = w.times[np.clip(rows, 0, height), np.arange(rows.shape[2])]
        return w.spread_last((times - np.broadcast_to(origin_ms, w.lo.shape).T[at, None]) / 1000)

    n = np.maximum(w.counts(), 1).astype(np.float64)
    sum_x = np.add(*_sums(w, lambda at, _, rows: x(at, rows)))
    sum_y = np.add(*_sums(w))
    sum_xy = np.add(*_sums(w, lambda at, value, rows: x(at, rows) * value))
    sum_xx = np.add(*_sums(w, lambda at, _, rows: x(at, rows) ** 2))
    covariance = sum_xy - sum_x * sum_y / n
    variance = sum_xx - sum_x * sum_x / n
    slope = covariance / variance
    intercept = sum_y / n - slope * sum_x / n
    first = w.take(w.lo)
    constant = (_extreme(w, np.minimum)[0] == first) & (_extreme(w, np.maximum)[0] == first)
    slope = np.where(constant, np.where(np.isinf(first), np.nan, 0.0), slope)
    intercept = np.where(constant, np.where(np.isinf(first), np.nan, first), intercept)
    return slope, intercept


def deriv(w: Windows) -> Result:
    return _regression(w, w.time(w.lo))[0], w.full(w.count() >= 2)


def predict_linear(w: Windows, at_ms: Times, ahead_s: Floats) -> Result:
    """``at_ms`` [T] the evaluation times, ``ahead_s`` [T]."""
    slope, intercept = _regression(w, at_ms[None, :].astype(np.float64))
    return slope * ahead_s + intercept, w.full(w.count() >= 2)


def double_exponential_smoothing(w: Windows, smoothing: Floats, trend: Floats) -> Result:
    """Holt's linear method; factors [T] in (0, 1)."""
    level, slope, previous = np.zeros(w.shape), np.zeros(w.shape), np.zeros(w.shape)
    for k, (value, inside, _) in enumerate(w.positions()):
        if k == 0:
            level = np.where(inside, value, level)
            continue
        if k == 1:
            slope = np.where(inside, value - level, slope)
            grown = slope
        else:
            grown = trend * (level - previous) + (1 - trend) * slope
        fitted = smoothing * value + (1 - smoothing) * (level + grown)
        slope = np.where(inside, grown, slope)
        previous = np.where(inside, level, previous)
        level = np.where(inside, fitted, level)
    return level, w.full(w.count() >= 2)


def ts_of_first_over_time(w: Windows) -> Result:
    return w.spread(w.time(w.lo) / 1000), _any(w)


def ts_of_last_over_time(w: Windows) -> Result:
    return w.spread(w.time(w.hi - 1) / 1000), _any(w)


def _time_of_extreme(w: Windows, beats: Callable[[Floats, Floats], Mask]) -> Result:
    best, at = w.take(w.lo), w.spread(w.time(w.lo))
    for value, inside, rows in w.positions():
        better = inside & (beats(value, best) | np.isnan(best))
        best = np.where(better, value, best)
        at = np.where(better, w.spread(w.time(rows)), at)
    return at / 1000, _any(w)


def ts_of_max_over_time(w: Windows) -> Result:
    return _time_of_extreme(w, np.greater_equal)


def ts_of_min_over_time(w: Windows) -> Result:
    return _time_of_extreme(w, np.less_equal)


#: Kernels that take nothing but the windows.
KERNELS: dict[str, Callable[[Windows], Result]] = {
    kernel.__name__: kernel
    for kernel in (
        avg_over_time, changes, count_over_time, delta, deriv, first_over_time, idelta, increase, irate,
        last_over_time, mad_over_time, max_over_time, min_over_time, present_over_time, rate, resets,
        stddev_over_time, stdvar_over_time, sum_over_time, ts_of_first_over_time, ts_of_last_over_time,
        ts_of_max_over_time, ts_of_min_over_time,
    )
}  # fmt: skip
