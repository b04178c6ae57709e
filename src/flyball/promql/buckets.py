"""Quantiles and fractions of classic histograms, after promql/quantile.go of Prometheus."""

import math

import numpy as np

from flyball.model.frames import Floats, Mask

TOLERANCE = 1e-12


def coalesce(bounds: Floats, counts: Floats, ok: Mask) -> tuple[Floats, Floats, Mask]:
    """Sorted by bound, equal bounds added up. bounds [B], counts and ok [B, ...]."""
    order = np.argsort(bounds, kind="stable")
    bounds, counts, ok = bounds[order], np.where(ok, counts, 0.0)[order], ok[order]
    first = np.flatnonzero(np.concatenate([[True], bounds[1:] != bounds[:-1]]))
    if first.size == bounds.size:
        return bounds, counts, ok
    return bounds[first], np.add.reduceat(counts, first, axis=0), np.logical_or.reduceat(ok, first, axis=0)


def _monotonic(counts: Floats) -> tuple[Floats, Mask]:
    """Counts that never fall along axis 0; differences within the tolerance are levelled. Also what was forced."""
    fixed = counts.copy()
    forced = np.zeros(counts.shape[1:], bool)
    previous = fixed[0].copy()
    for i in range(1, fixed.shape[0]):
        current = fixed[i]
        total = np.abs(previous) + np.abs(current)
        near = (
            (np.abs(previous - current) / np.where(total == 0, 1.0, total) < TOLERANCE)
            & (current != 0)
            & (previous != 0)
        )
        near |= previous == current
        falls = ~near & (current < previous)
        forced |= falls
        fixed[i] = np.where(near | falls, previous, current)
        previous = fixed[i].copy()
    return fixed, forced


def bucket_quantile(q: Floats, bounds: Floats, counts: Floats) -> tuple[Floats, Mask]:
    """Quantile of cumulative buckets present at all points.

    Args:
        q: [T]. bounds: [B] ascending, distinct. counts: [B, G, T].

    Returns:
        [G, T] quantiles, and where monotonicity had to be forced.
    """
    shape = counts.shape[1:]
    nothing = np.zeros(shape, bool)
    q_all = np.broadcast_to(q, shape)
    edge = np.where(q_all < 0, -np.inf, np.where(q_all > 1, np.inf, np.nan))
    if bounds.size < 2 or not (math.isinf(bounds[-1]) and bounds[-1] > 0):
        return np.where((q_all < 0) | (q_all > 1), edge, np.nan), nothing
    counts, forced = _monotonic(counts)
    last = bounds.size - 1
    observations = counts[last]
    rank = q_all * observations
    reached = counts[:last] >= rank
    b = np.where(reached.any(axis=0), reached.argmax(axis=0), last)
    below = np.maximum(b - 1, 0)
    inner = np.minimum(b, last - 1)
    start = np.where(b > 0, bounds[below], 0.0)
    at = np.take_along_axis(counts, inner[None], axis=0)[0]
    before = np.where(b > 0, np.take_along_axis(counts, below[None], axis=0)[0], 0.0)
    result = start + (bounds[inner] - start) * ((rank - before) / (at - before))
    result = np.where((b == 0) & (bounds[0] <= 0), bounds[0], result)
    result = np.where(b == last, bounds[last - 1], result)
    result = np.where(observations == 0, np.nan, result)
    outside = (q_all < 0) | (q_all > 1) | np.isnan(q_all)
    return np.where(outside, edge, result), forced & ~outside


def bucket_fraction(lower: float, upper: float, bounds: Floats, counts: Floats) -> float:
    """Share of observations between two values; bounds ascending and distinct, counts [B] cumulative."""
    if not (math.isinf(bounds[-1]) and bounds[-1] > 0):
        return math.nan
    counts = _monotonic(counts[:, None])[0][:, 0]
    count = float(counts[-1])
    if count == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan
    if lower >= upper:
        return 0.0
    rank = 0.0
    lower_rank = upper_rank = 0.0
    lower_set = upper_set = False
    for i in range(bounds.size):
        bucket_low = -math.inf if i == 0 else float(bounds[i - 1])
        bucket_high = float(bounds[i])
        if i == 0 and bucket_high > 0:
            bucket_low = 0.0
        above = float(counts[i])

        def inside(
            v: float, low: float = bucket_low, high: float = bucket_high, a: float = rank, b: float = above
        ) -> float:
            if math.isinf(low):
                return b
            if math.isinf(high):
                return a
            return a + (b - a) * (v - low) / (high - low)

        if not lower_set and bucket_low >= lower:
            lower_rank, lower_set = rank, True
        if not upper_set and bucket_low >= upper:
            upper_rank, upper_set = rank, True
        if lower_set and upper_set:
            break
        if not lower_set and bucket_low < lower < bucket_high:
            lower_rank, lower_set = inside(lower), True
        if not upper_set and bucket_low < upper < bucket_high:
            upper_rank, upper_set = inside(upper), True
        if lower_set and upper_set:
            break
        rank = above
    if not lower_set or lower_rank > count:
        lower_rank = count
    if not upper_set or upper_rank > count:
        upper_rank = count
    return (upper_rank - lower_rank) / count
