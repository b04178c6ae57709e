"""What one native histogram says: quantiles, fractions, variance, and what is left of it after trimming.

Formulas: promql/quantile.go and model/histogram/float_histogram.go of Prometheus.
"""

import math
from dataclasses import replace
from enum import Enum

from flyball.model.histograms import Histogram
from flyball.promql.histograms import (
    Bucket,
    Buckets,
    all_buckets,
    bounds,
    compact,
    go_divide,
    kahan_add,
)


class NaNNote(Enum):
    """What observations of NaN did to an answer."""

    NONE = 0
    RESULT = 1
    SKEW = 2
    EXCLUDED = 3


def _fraction_below(b: Bucket, value: float, *, linear: bool) -> float:
    """Share of a bucket's width that lies below a value within it, on a logarithmic scale unless linear."""
    if linear:
        return (value - b.lower) / (b.upper - b.lower)
    low, high, at = math.log2(abs(b.lower)), math.log2(abs(b.upper)), math.log2(abs(value))
    return (at - low) / (high - low) if value > 0 else 1 - (at - high) / (low - high)


def _one_sided(h: Histogram, b: Bucket) -> Bucket:
    """The zero bucket of a histogram with observations on one side only ends at zero."""
    if not h.negative and h.positive:
        return replace(b, lower=0.0)
    if not h.positive and h.negative:
        return replace(b, upper=0.0)
    return b


def histogram_quantile(q: float, h: Histogram) -> tuple[float, NaNNote]:
    """The value below which a share ``q`` of the observations lies; NaN without observations."""
    if q < 0:
        return -math.inf, NaNNote.NONE
    if q > 1:
        return math.inf, NaNNote.NONE
    if h.count == 0 or math.isnan(q):
        return math.nan, NaNNote.NONE
    has_nan = math.isnan(h.sum)
    forward = has_nan or q < 0.5  # from the nearer end, where rounding has summed up less
    rank = (q if forward else 1 - q) * h.count
    buckets = all_buckets(h) if forward else all_buckets(h)[::-1]
    count, seen, bucket = 0.0, 0, Bucket(0.0, 0.0, 0.0)
    for bucket in buckets:
        seen += 1
        count += bucket.count
        if bucket.count != 0 and count >= rank:
            break
    if not h.is_custom and bucket.lower < 0 < bucket.upper:
        bucket = _one_sided(h, bucket)
    elif h.is_custom:
        if bucket.lower == -math.inf:
            if bucket.upper <= 0:
                return bucket.upper, NaNNote.NONE
            bucket = replace(bucket, lower=0.0)
        elif bucket.upper == math.inf:
            return bucket.lower, NaNNote.NONE
    count = min(count, h.count)
    if count < rank:  # only NaN lies above
        return (math.nan, NaNNote.RESULT) if has_nan else (bucket.upper, NaNNote.NONE)
    rank = rank - (count - bucket.count) if forward else count - rank
    note = NaNNote.NONE
    if has_nan and count + sum(b.count for b in buckets[seen:]) < h.count:
        note = NaNNote.SKEW
    share = go_divide(rank, bucket.count)
    if h.is_custom or bucket.lower <= 0 <= bucket.upper:
        return bucket.lower + (bucket.upper - bucket.lower) * share, note
    low, high = math.log2(abs(bucket.lower)), math.log2(abs(bucket.upper))
    if bucket.lower > 0:
        return 2 ** (low + (high - low) * share), note
    return -(2 ** (high + (low - high) * (1 - share))), note


def histogram_fraction(lower: float, upper: float, h: Histogram) -> tuple[float, NaNNote]:
    """Share of the observations between two values; observations of NaN are in no bucket."""
    if h.count == 0 or math.isnan(lower) or math.isnan(upper):
        return math.nan, NaNNote.NONE
    if lower >= upper:
        return 0.0, NaNNote.NONE
    buckets = all_buckets(h)

    def rank_of(value: float) -> float | None:
        """Observations below a value; None when it lies above all buckets."""
        rank = 0.0
        for b in buckets:
            zero = b.lower <= 0 <= b.upper
            if zero:
                b = _one_sided(h, b)
            if b.lower >= value:
                return rank
            if b.upper > value:
                if b.lower == -math.inf:
                    return b.count
                return rank + b.count * _fraction_below(b, value, linear=h.is_custom or zero)
            rank += b.count
        return None

    total, note = h.count, NaNNote.NONE
    if math.isnan(h.sum):
        total = sum(b.count for b in buckets)
        note = NaNNote.EXCLUDED if total < h.count else NaNNote.NONE
    low, high = (total if rank is None else min(rank, total) for rank in (rank_of(lower), rank_of(upper)))
    return (high - low) / h.count, note


def histogram_variance(h: Histogram) -> float:
    """Population variance, every observation taken at its bucket's middle."""
    average = go_divide(h.sum, h.count)
    total = lost = 0.0
    for b in all_buckets(h):
        if b.count == 0:
            continue
        if h.is_custom:
            middle = (b.upper + b.lower) / 2
        elif b.lower <= 0 <= b.upper:
            middle = 0.0
        else:
            middle = math.copysign(math.sqrt(b.upper * b.lower), b.upper)
        away = middle - average
        total, lost = kahan_add(b.count * away * away, total, lost)
    return go_divide(total + lost, h.count)


# --- trimming


def _middle(lower: float, upper: float, *, positive: bool, linear: bool) -> float:
    if math.isinf(lower):
        if math.isinf(upper):
            return 0.0
        return upper / 2 if upper > 0 else upper
    if math.isinf(upper):
        return lower
    if linear:
        return (lower + upper) / 2
    geometric = math.sqrt(abs(lower * upper))
    return geometric if positive else -geometric


def _finite(value: float) -> float:
    return 0.0 if math.isinf(value) else value


def _split_endless(b: Bucket, at: float, *, keep_below: bool) -> tuple[float, float]:
    """What is kept of a bucket with an infinite bound, and its middle."""
    if b.lower == -math.inf:
        inside = not math.isinf(b.upper)
        if keep_below:
            if at >= b.upper:
                return b.count, 0.0
            if at > 0 and b.upper > 0 and inside:
                return b.count * at / b.upper, at / 2
            return (b.count, at) if b.upper <= 0 else (0.0, _finite(b.upper))
        if at <= b.lower:
            return b.count, 0.0
        if at >= 0 and b.upper > at and inside:
            return b.count * (1 - at / b.upper), (at + b.upper) / 2
        return 0.0, _finite(b.upper)
    if not keep_below and at >= b.lower:
        return b.count, at
    return 0.0, _finite(b.lower)


def _split(b: Bucket, at: float, *, keep_below: bool, positive: bool, linear: bool) -> tuple[float, float]:
    """What is kept of the bucket that holds the edge, and the middle of the part that is left."""
    if math.isinf(b.lower) or math.isinf(b.upper):
        return _split_endless(b, at, keep_below=keep_below)
    below = b.count * _fraction_below(b, at, linear=linear)
    if keep_below:
        return below, _middle(b.lower, at, positive=positive, linear=linear)
    return b.count - below, _middle(at, b.upper, positive=positive, linear=linear)


def _split_zero(h: Histogram, at: float, *, keep_below: bool, negative: bool, positive: bool) -> tuple[float, float]:
    low = 0.0 if positive and not negative else -h.zero_threshold
    high = 0.0 if negative and not positive else h.zero_threshold
    if at <= low:
        return (0.0, 0.0) if keep_below else (h.zero_count, (low + high) / 2)
    if at >= high:
        return (h.zero_count, (low + high) / 2) if keep_below else (0.0, 0.0)
    if keep_below:
        return h.zero_count * (at - low) / (high - low), (low + at) / 2
    return h.zero_count * (high - at) / (high - low), (at + high) / 2


def trimmed(h: Histogram, at: float, *, keep_below: bool) -> Histogram:
    """Without the observations above (``keep_below``) or below a value; count and sum are estimated anew."""
    count = total = 0.0
    changed = False

    def side(buckets: Buckets, *, positive: bool) -> Buckets:
        nonlocal count, total, changed
        kept: Buckets = {}
        for index in sorted(buckets):
            n = buckets[index]
            if n == 0:
                continue
            low, high = bounds(h, index)
            b = Bucket(low, high, n) if positive else Bucket(-high, -low, n)
            if (b.upper <= at) if keep_below else (b.lower >= at):
                left, middle = n, _middle(b.lower, b.upper, positive=positive, linear=h.is_custom)
            elif (b.lower < at) if keep_below else (b.upper > at):
                left, middle = _split(b, at, keep_below=keep_below, positive=positive, linear=h.is_custom)
            else:
                left, middle = 0.0, 0.0
            changed |= left != n
            count += left
            total += middle * left
            kept[index] = left
        return kept

    positive, negative = side(h.positive, positive=True), side(h.negative, positive=False)
    zero = h.zero_count
    if zero > 0:
        zero, middle = _split_zero(
            h,
            at,
            keep_below=keep_below,
            negative=any(n != 0 for n in h.negative.values()),
            positive=any(n != 0 for n in h.positive.values()),
        )
        changed |= zero != h.zero_count
        count += zero
        total += middle * zero
    if not changed:
        return h
    return compact(replace(h, count=count, sum=total, zero_count=zero, positive=positive, negative=negative))
