"""The functions over range vectors of floats: for all series and steps of a frame at once.

Nothing here loops over series; some loop over the positions within a window. Formulas: promql/functions.go of
Prometheus.
"""

from collections.abc import Callable, Iterator

import numpy as np

from flyball.model.frames import Floats, Mask, Times
from flyball.promql.windows import Index, Windows

Result = tuple[Floats, Mask]

# --- compensated sums


def kahan_add(value: Floats, total: Floats, lost: Floats) -> tuple[Floats, Floats]:
    """Neumaier's step: the new total and what rounding lost (0 once the total is infinite)."""
    new = total + value
    kept = np.where(np.abs(total) >= np.abs(value), (total - new) + value, (value - new) + total)
    return new, np.where(np.isinf(new), 0.0, lost + kept)


def _sums(w: Windows, of: Callable[[Floats, Index], Floats] | None = None) -> tuple[Floats, Floats]:
    total, lost = np.zeros(w.shape), np.zeros(w.shape)
    for value, inside, rows in w.positions():
        item = np.where(inside, value if of is None else of(value, rows), 0.0)
        total, lost = kahan_add(item, total, lost)
    return total, lost


def _any(w: Windows) -> Mask:
    return w.full(w.count() > 0)


def sum_over_time(w: Windows) -> Result:
    total, lost = _sums(w)
    return np.where(np.isinf(total), total, total + lost), _any(w)


def avg_over_time(w: Windows) -> Result:
    total, lost = _sums(w)
    count = np.maximum(w.count(), 1)
    mean = np.where(np.isinf(total), total, total / count + lost / count)
    overflow = np.isinf(total)
    if overflow.any():  # finite samples whose sum is not: add up their shares instead
        shares, rest = _sums(w, lambda value, _: value / count)
        mean = np.where(overflow, np.where(np.isinf(shares), shares, shares + rest), mean)
    return mean, _any(w)


def count_over_time(w: Windows) -> Result:
    return np.array(np.broadcast_to(w.count().astype(np.float64), w.shape)), _any(w)


def present_over_time(w: Windows) -> Result:
    return np.ones(w.shape), _any(w)


def last_over_time(w: Windows) -> Result:
    return w.take(w.hi - 1), _any(w)


def first_over_time(w: Windows) -> Result:
    return w.take(w.lo), _any(w)


def _extreme(w: Windows, pick: Callable[..., Floats]) -> Result:
    count = w.count()
    longest = int(count.max(initial=0))
    ok = _any(w)
    if longest == 0:
        return np.zeros(w.shape), ok
    if w.starts.size * longest <= 4 * w.values.shape[0]:
        result = w.take(w.lo)
        for value, inside, _ in w.positions():
            result = np.where(inside, pick(result, value), result)
        return result, ok
    # Sparse table: the extreme of 2**level rows from each row on; a window is two such stretches.
    level_of = np.frexp(np.maximum(count, 1).astype(np.float64))[1] - 1
    result, table = np.zeros(w.shape), np.asarray(w.values)
    for level in range(int(level_of.max()) + 1):
        if level:
            half = 1 << (level - 1)
            table = np.concatenate([pick(table[:-half], table[half:]), table[-half:]])
        here = level_of == level
        if here.any():
            both = pick(w.take(w.lo, table), w.take(w.hi - (1 << level), table))
            result = both if here.all() else np.where(here, both, result)
    return result, ok


def max_over_time(w: Windows) -> Result:
    return _extreme(w, np.fmax)


def min_over_time(w: Windows) -> Result:
    return _extreme(w, np.fmin)


def stdvar_over_time(w: Windows) -> Result:
    mean, ok = avg_over_time(w)
    squares, lost = _sums(w, lambda value, _: (value - mean) ** 2)
    variance = (squares + lost) / np.maximum(w.count(), 1)
    low, high = _extreme(w, np.minimum)[0], _extreme(w, np.maximum)[0]
    return np.where((low == high) & np.isfinite(low), 0.0, variance), ok


def stddev_over_time(w: Windows) -> Result:
    variance, ok = stdvar_over_time(w)
    return np.sqrt(variance), ok


def _stacked(w: Windows) -> Iterator[tuple[int, int, Floats, Index]]:
    """Blocks of steps: their sorted windows [n, steps, longest] (NaN at the end) and numbers of real NaN."""
    longest = int(w.count().max(initial=0))
    n, steps = w.shape
    block = max(1, 4_000_000 // max(1, n * longest))
    for a in range(0, steps, block):
        b = min(steps, a + block)
        part = w.steps(a, b)
        stack = np.full((n, b - a, longest), np.nan)
        for k, (value, inside, _) in enumerate(part.positions()):
            stack[:, :, k] = np.where(inside, value, np.nan)
        count = np.broadcast_to(part.count(), part.shape)
        nans = count - (~np.isnan(stack)).sum(axis=2)
        stack.sort(axis=2)
        yield a, b, stack, nans


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
    for a, b, stack, nans in _stacked(w):
        if stack.shape[2]:
            count = np.broadcast_to(w.count(), w.shape)[:, a:b]
            result[:, a:b] = quantile_of_sorted(np.broadcast_to(q[a:b], count.shape), stack, nans, count)
    return result, _any(w)


def mad_over_time(w: Windows) -> Result:
    """Median of the absolute deviations from the median."""
    half = np.full(w.starts.size, 0.5)
    median = quantile_over_time(w, half)[0]
    result = np.zeros(w.shape)
    for a, b, stack, nans in _stacked(w):
        if stack.shape[2]:
            count = np.broadcast_to(w.count(), w.shape)[:, a:b]
            away = np.sort(np.abs(stack - median[:, a:b, None]), axis=2)
            middle = quantile_of_sorted(np.full(count.shape, 0.5), away, nans, count)
            result[:, a:b] = np.where(nans > 0, np.nan, middle)
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


def _extrapolated(w: Windows, *, counter: bool, rate: bool) -> Result:
    ok = w.full(w.count() >= 2)
    first, last = w.take(w.lo), w.take(w.hi - 1)
    result = last - first
    if counter and w.values.shape[0] > 1:
        dropped = w.values[1:] < w.values[:-1]
        if dropped.any():
            drops = np.zeros(w.values.shape)
            drops[1:] = np.where(dropped, w.values[:-1], 0.0)
            if np.isinf(drops).any():  # a running sum would spoil every later window
                before = np.zeros(w.values.shape)
                before[1:] = drops[1:]
                for k, (_, inside, rows) in enumerate(w.positions()):
                    if k:
                        result = result + np.where(inside, w.take(rows, before), 0.0)
            else:
                result = result + _between(w, drops)
    first_at, last_at = w.time(w.lo), w.time(w.hi - 1)
    to_start = (first_at - w.starts) / 1000
    to_end = (w.ends - last_at) / 1000
    sampled = (last_at - first_at) / 1000
    average = sampled / np.maximum(w.count() - 1, 1)
    threshold = average * 1.1
    to_start = np.where(to_start >= threshold, average / 2, to_start)
    to_end = np.where(to_end >= threshold, average / 2, to_end)
    if counter:  # a counter never was below zero: do not extrapolate past where it would have been
        shape = np.broadcast_shapes(to_start.shape, result.shape)
        to_start_all = np.broadcast_to(to_start, shape)
        # first/result < to_start/sampled, written without division so that it is cheap when nothing is near zero
        near = (result > 0) & (first >= 0) & (sampled * first < to_start_all * result)
        if near.any():
            to_zero = sampled * (first / np.where(near, result, 1.0))
            to_start = np.where(near & (to_zero < to_start_all), to_zero, to_start_all)
    factor = (sampled + to_start + to_end) / np.where(sampled == 0, 1.0, sampled)
    if rate:
        factor = factor / ((w.ends - w.starts) / 1000)
    return result * factor, ok & (sampled > 0)


def rate(w: Windows) -> Result:
    return _extrapolated(w, counter=True, rate=True)


def increase(w: Windows) -> Result:
    return _extrapolated(w, counter=True, rate=False)


def delta(w: Windows) -> Result:
    return _extrapolated(w, counter=False, rate=False)


def _instant(w: Windows, *, per_second: bool) -> Result:
    last, previous = w.take(w.hi - 1), w.take(w.hi - 2)
    span = (w.time(w.hi - 1) - w.time(w.hi - 2)) / 1000
    result = last - previous
    if per_second:
        result = np.where(last < previous, last, result) / np.where(span == 0, 1.0, span)
    return result, w.full(w.count() >= 2) & (span > 0)


def irate(w: Windows) -> Result:
    return _instant(w, per_second=True)


def idelta(w: Windows) -> Result:
    return _instant(w, per_second=False)


# --- regression


def _regression(w: Windows, origin_ms: Floats) -> tuple[Floats, Floats]:
    """Slope per second and value at ``origin_ms`` ([n or 1, T])."""

    def x(rows: Index) -> Floats:
        return np.broadcast_to((w.time(rows) - origin_ms) / 1000, w.shape)

    n = np.maximum(w.count(), 1).astype(np.float64)
    sum_x = np.add(*_sums(w, lambda _, rows: x(rows)))
    sum_y = np.add(*_sums(w))
    sum_xy = np.add(*_sums(w, lambda value, rows: x(rows) * value))
    sum_xx = np.add(*_sums(w, lambda _, rows: x(rows) ** 2))
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
    return np.broadcast_to(w.time(w.lo) / 1000, w.shape), _any(w)


def ts_of_last_over_time(w: Windows) -> Result:
    return np.broadcast_to(w.time(w.hi - 1) / 1000, w.shape), _any(w)


def _time_of_extreme(w: Windows, beats: Callable[[Floats, Floats], Mask]) -> Result:
    best, at = w.take(w.lo), np.array(np.broadcast_to(w.time(w.lo), w.shape))
    for value, inside, rows in w.positions():
        better = inside & (beats(value, best) | np.isnan(best))
        best = np.where(better, value, best)
        at = np.where(better, w.time(rows), at)
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
