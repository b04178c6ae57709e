"""Arithmetic on native histograms. Formulas: model/histogram/float_histogram.go of Prometheus.

Histograms are values: nothing here changes its arguments. Operations between two histograms bring them to one
layout first: the coarser schema, the wider zero bucket, or the custom bounds that both have.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache

from flyball.errors import QueryError
from flyball.model.histograms import Histogram, ResetHint

Buckets = dict[int, float]

_FLOAT_MAX = 1.7976931348623157e308

#: By how many units in its last place, plus one, 2**(i / 256 - 1) is above the bound that Prometheus and clients use.
_TOO_GREAT = (
    "111111211121111111231122222222221121112112221122112210221122112211111122223321321121112111121111"
    "111210112133112212221121213322222121223322322122222222323233323311221121223321332233212232332232"
    "2243223233433343333333444455435422322333324422333243223333543344"
)  # fmt: skip


@cache
def _fractions() -> tuple[float, ...]:
    """Bounds of schema 8 in [0.5, 1); those of the coarser schemas are among them."""
    return tuple(2.0 ** (i / 256 - 1) - (int(digit) - 1) * 2.0**-53 for i, digit in enumerate(_TOO_GREAT))


class IncompatibleError(QueryError):
    """One histogram has exponential buckets, the other custom ones."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket: its bounds and its (not cumulative) count."""

    lower: float
    upper: float
    count: float


@cache
def upper_bound(index: int, schema: int) -> float:
    """Upper bound of a positive exponential bucket; the one that holds the largest float ends there."""
    whole, part = (index << -schema, 0) if schema < 0 else divmod(index, 1 << schema)
    if whole == 1024 and part == 0:
        return _FLOAT_MAX
    try:
        return math.ldexp(_fractions()[part << 8 - schema] if part else 0.5, whole + 1)
    except OverflowError:
        return math.inf


def bounds(h: Histogram, index: int) -> tuple[float, float]:
    """Lower and upper bound of a bucket of the positive side."""
    if h.is_custom:
        last = len(h.custom_values)
        lower = -math.inf if index <= 0 else h.custom_values[min(index, last) - 1]
        return lower, math.inf if index >= last else h.custom_values[index]
    return upper_bound(index - 1, h.schema), upper_bound(index, h.schema)


def positive_buckets(h: Histogram) -> Iterator[Bucket]:
    """Ascending."""
    for index in sorted(h.positive):
        yield Bucket(*bounds(h, index), h.positive[index])


def negative_buckets(h: Histogram) -> Iterator[Bucket]:
    """From zero downwards."""
    for index in sorted(h.negative):
        low, high = bounds(h, index)
        yield Bucket(-high, -low, h.negative[index])


def all_buckets(h: Histogram) -> list[Bucket]:
    """Ascending, the zero bucket among them when it holds something; none overlaps the zero bucket."""
    edge = h.zero_threshold
    found = [Bucket(b.lower, min(b.upper, -edge) if b.upper < 0 else b.upper, b.count) for b in negative_buckets(h)]
    found.reverse()
    if h.zero_count > 0:
        found.append(Bucket(-edge, edge, h.zero_count))
    found += [Bucket(max(b.lower, edge) if b.lower > 0 else b.lower, b.upper, b.count) for b in positive_buckets(h)]
    return found


def closed_ends(h: Histogram, b: Bucket) -> tuple[bool, bool]:
    """Whether a bucket holds values equal to its lower and its upper bound."""
    return (b.lower == -math.inf, True) if h.is_custom else (b.lower < 0, b.upper > 0)


def compact(h: Histogram) -> Histogram:
    """Without the buckets that hold nothing."""
    return replace(
        h,
        positive={i: n for i, n in h.positive.items() if n != 0},
        negative={i: n for i, n in h.negative.items() if n != 0},
    )


def with_hint(h: Histogram, hint: ResetHint) -> Histogram:
    return h if h.hint is hint else replace(h, hint=hint)


def _each(h: Histogram, of: Callable[[float], float], hint: ResetHint) -> Histogram:
    return replace(
        h,
        count=of(h.count),
        sum=of(h.sum),
        zero_count=of(h.zero_count),
        positive={i: of(n) for i, n in h.positive.items()},
        negative={i: of(n) for i, n in h.negative.items()},
        hint=hint,
    )


def scaled(h: Histogram, factor: float) -> Histogram:
    """Times a number; a negative one makes a gauge."""
    return _each(h, lambda n: n * factor, ResetHint.GAUGE if factor < 0 else h.hint)


def divided(h: Histogram, by: float) -> Histogram:
    """By a number. Division by zero leaves no buckets, as a bucket of Inf observations is none."""
    hint = ResetHint.GAUGE if by < 0 else h.hint
    if by == 0:
        h = replace(h, positive={}, negative={})
    return _each(h, lambda n: go_divide(n, by), hint)


def go_divide(a: float, b: float) -> float:
    """IEEE division: by zero gives an infinity or NaN."""
    if b == 0:
        return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a) * math.copysign(1.0, b)
    return a / b


# --- one layout


def kahan_add(value: float, total: float, lost: float) -> tuple[float, float]:
    """Neumaier's step: the new total and what rounding lost (0 once the total is infinite)."""
    new = total + value
    if math.isinf(new):
        return new, 0.0
    return new, lost + ((total - new) + value if abs(total) >= abs(value) else (value - new) + total)


def _coarser(buckets: Buckets, schema: int, target: int) -> Buckets:
    if schema == target:
        return buckets
    merged: Buckets = {}
    for index in sorted(buckets):
        to = ((index - 1) >> (schema - target)) + 1
        merged[to] = merged.get(to, 0.0) + buckets[index]
    return merged


def to_schema(h: Histogram, target: int) -> Histogram:
    """At a coarser resolution."""
    if h.schema == target:
        return h
    return replace(
        h,
        schema=target,
        positive=_coarser(h.positive, h.schema, target),
        negative=_coarser(h.negative, h.schema, target),
        hint=ResetHint.UNKNOWN,
    )


def _zero_count_within(h: Histogram, threshold: float) -> tuple[float, float]:
    """What a zero bucket of at least this width would count, and the width that splits no bucket."""
    if threshold == h.zero_threshold:
        return h.zero_count, threshold
    while True:
        total, lost, widened = h.zero_count, 0.0, False
        for side in (h.positive, h.negative):
            for index in sorted(side):
                low, high = bounds(h, index)
                if low >= threshold:
                    break
                total, lost = kahan_add(side[index], total, lost)
                if high > threshold:
                    if side[index] != 0:
                        widened = side is h.negative  # the positive side was summed up to the old width
                        threshold = high
                    break
        if not widened:
            return total, threshold


def _with_zero_bucket(h: Histogram, threshold: float) -> Histogram:
    """With a zero bucket of at least this width, and no buckets within it."""
    count, threshold = _zero_count_within(h, threshold)

    def outside(side: Buckets) -> Buckets:
        return {i: n for i, n in side.items() if n != 0 and bounds(h, i)[0] >= threshold}

    return replace(
        h,
        zero_count=count,
        zero_threshold=threshold,
        positive=outside(h.positive),
        negative=outside(h.negative),
    )


def _onto(h: Histogram, custom: tuple[float, ...]) -> Histogram:
    """With fewer custom bounds."""
    merged: Buckets = {}
    for index in sorted(h.positive):
        high = bounds(h, index)[1]
        to = next((i for i, bound in enumerate(custom) if bound >= high), len(custom))
        merged[to] = merged.get(to, 0.0) + h.positive[index]
    return replace(h, custom_values=custom, positive={i: n for i, n in merged.items() if n != 0})


def check_compatible(a: Histogram, b: Histogram) -> None:
    """
    Raises:
        IncompatibleError: exponential and custom buckets are mixed.
    """
    if a.is_custom != b.is_custom:
        raise IncompatibleError("cannot combine histograms with exponential and custom buckets")


def aligned(a: Histogram, b: Histogram) -> tuple[Histogram, Histogram, bool]:
    """Both in one layout, and whether custom bounds had to be reconciled.

    Raises:
        IncompatibleError: exponential and custom buckets are mixed.
    """
    check_compatible(a, b)
    if a.is_custom:
        if a.custom_values == b.custom_values:
            return a, b, False
        other = set(b.custom_values)
        common = tuple(bound for bound in a.custom_values if bound in other)
        return _onto(a, common), _onto(b, common), True
    while a.zero_threshold != b.zero_threshold:
        if a.zero_threshold > b.zero_threshold:
            b = _with_zero_bucket(b, a.zero_threshold)
        else:
            a = _with_zero_bucket(a, b.zero_threshold)
    schema = min(a.schema, b.schema)
    return to_schema(a, schema), to_schema(b, schema), False


def _joint_hint(a: ResetHint, b: ResetHint) -> tuple[ResetHint, bool]:
    """The hint of a sum, and whether the two contradict each other."""
    if a is b or a is ResetHint.GAUGE:
        return a, False
    if b is ResetHint.GAUGE:
        return b, False
    return ResetHint.UNKNOWN, ResetHint.UNKNOWN not in (a, b)


@dataclass(frozen=True, slots=True)
class Combined:
    """A sum or difference. ``collision``: the reset hints contradict; ``reconciled``: custom bounds differed."""

    value: Histogram
    collision: bool
    reconciled: bool


def combine(a: Histogram, b: Histogram, sign: int = 1) -> Combined:
    """a + b, or a - b with ``sign`` -1.

    Raises:
        IncompatibleError: exponential and custom buckets are mixed.
    """
    hint, collision = _joint_hint(a.hint, b.hint)
    a, b, reconciled = aligned(a, b)

    def side(x: Buckets, y: Buckets) -> Buckets:
        merged = dict(x)
        for index, n in y.items():
            merged[index] = merged.get(index, 0.0) + sign * n
        return merged

    value = Histogram(
        schema=a.schema,
        count=a.count + sign * b.count,
        sum=a.sum + sign * b.sum,
        zero_threshold=a.zero_threshold,
        zero_count=a.zero_count + sign * b.zero_count,
        positive=side(a.positive, b.positive),
        negative=side(a.negative, b.negative),
        custom_values=a.custom_values,
        hint=hint,
    )
    return Combined(value, collision, reconciled)


class Total:
    """A running sum with compensation of rounding. ``reconciled`` as in Combined; ``hints`` are those seen."""

    def __init__(self, first: Histogram) -> None:
        self.value = first
        self._lost: Histogram | None = None
        self.hints = {first.hint}
        self.reconciled = False

    def add(self, other: Histogram) -> None:
        """
        Raises:
            IncompatibleError: exponential and custom buckets are mixed; the total keeps its value.
        """
        hint, _ = _joint_hint(self.value.hint, other.hint)
        a, b, reconciled = aligned(self.value, other)
        lost = self._lost or replace(a, count=0.0, sum=0.0, zero_count=0.0, positive={}, negative={})
        lost = _like(lost, a)
        count, lost_count = kahan_add(b.count, a.count, lost.count)
        total, lost_total = kahan_add(b.sum, a.sum, lost.sum)
        zero, lost_zero = kahan_add(b.zero_count, a.zero_count, lost.zero_count)
        positive, lost_positive = _kahan_side(a.positive, b.positive, lost.positive)
        negative, lost_negative = _kahan_side(a.negative, b.negative, lost.negative)
        self.value = replace(
            a, count=count, sum=total, zero_count=zero, positive=positive, negative=negative, hint=hint
        )
        self._lost = replace(
            lost, count=lost_count, sum=lost_total, zero_count=lost_zero, positive=lost_positive, negative=lost_negative
        )
        self.hints.add(other.hint)
        self.reconciled |= reconciled

    @property
    def collision(self) -> bool:
        """Whether one part was a reset and another explicitly none."""
        return {ResetHint.RESET, ResetHint.NOT_RESET} <= self.hints

    def result(self, divisor: float = 1.0) -> Histogram:
        """The sum, or the mean of ``divisor`` parts."""
        value = self.value if divisor == 1 else divided(self.value, divisor)
        if self._lost is not None:
            lost = self._lost if divisor == 1 else divided(self._lost, divisor)
            value = replace(combine(value, _like(lost, value)).value, hint=value.hint)
        return compact(value)


def _like(lost: Histogram, layout: Histogram) -> Histogram:
    """What was lost, in the layout that the total has now."""
    if lost.custom_values != layout.custom_values:
        return _onto(lost, layout.custom_values)
    if lost.zero_threshold != layout.zero_threshold:
        lost = _with_zero_bucket(lost, layout.zero_threshold)
        lost = replace(lost, zero_threshold=layout.zero_threshold)
    return to_schema(lost, layout.schema)


def _kahan_side(a: Buckets, b: Buckets, lost: Buckets) -> tuple[Buckets, Buckets]:
    totals, losts = dict(a), dict(lost)
    for index, n in b.items():
        totals[index], losts[index] = kahan_add(n, totals.get(index, 0.0), losts.get(index, 0.0))
    return totals, losts


def has_overflow(h: Histogram) -> bool:
    """Whether any figure is infinite."""
    figures = (h.count, h.sum, h.zero_count, *h.positive.values(), *h.negative.values())
    return any(map(math.isinf, figures))


def mean(parts: Iterable[Histogram]) -> tuple[Histogram, Total]:
    """The mean, and the total that knows about hints and bounds.

    Raises:
        IncompatibleError: exponential and custom buckets are mixed.
    """
    held = list(parts)
    total = Total(held[0])
    for h in held[1:]:
        total.add(h)
    if not has_overflow(total.value):
        return total.result(len(held)), total
    shares = Total(divided(held[0], len(held)))  # finite histograms whose sum is not: add up their shares
    for h in held[1:]:
        shares.add(divided(h, len(held)))
    return shares.result(), total


# --- comparison


def equal(a: Histogram, b: Histogram) -> bool:
    """Whether all figures are the same; NaN equals NaN, hints do not count."""

    def same(x: float, y: float) -> bool:
        return x == y or (math.isnan(x) and math.isnan(y))

    def same_side(x: Buckets, y: Buckets) -> bool:
        return all(same(x.get(i, 0.0), y.get(i, 0.0)) for i in x.keys() | y.keys())

    return (
        a.schema == b.schema
        and a.custom_values == b.custom_values
        and a.zero_threshold == b.zero_threshold
        and same(a.count, b.count)
        and same(a.sum, b.sum)
        and same(a.zero_count, b.zero_count)
        and same_side(a.positive, b.positive)
        and same_side(a.negative, b.negative)
    )


def is_reset(current: Histogram, previous: Histogram) -> bool:
    """Whether a counter started anew between two samples: a figure fell, or the layout became finer."""
    if current.hint is ResetHint.RESET:
        return True
    if current.hint is ResetHint.NOT_RESET:
        return False
    if current.count < previous.count:
        return True
    if current.is_custom:
        if not previous.is_custom:
            return True
        if current.custom_values != previous.custom_values:
            current, previous, _ = aligned(current, previous)
            return any(current.positive.get(i, 0.0) < n for i, n in previous.positive.items())
    elif current.schema > previous.schema or current.zero_threshold < previous.zero_threshold:
        return True
    else:
        zero_count, threshold = _zero_count_within(previous, current.zero_threshold)
        if threshold != current.zero_threshold or current.zero_count < zero_count:
            return True
    return _side_fell(current, current.positive, previous, previous.positive) or _side_fell(
        current, current.negative, previous, previous.negative
    )


def _side_fell(current: Histogram, now: Buckets, previous: Histogram, before: Buckets) -> bool:
    if not current.is_custom:
        before = _coarser(before, previous.schema, current.schema)
    for index, n in before.items():
        if not current.is_custom and upper_bound(index, current.schema) <= current.zero_threshold:
            continue
        if index not in now:
            if n != 0:
                return True
        elif now[index] < n:
            return True
    return False


# --- text


def format_g(value: float) -> str:
    """A number as Go's ``%g`` prints it."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0:
        return "-0" if math.copysign(1, value) < 0 else "0"
    shortest = repr(value)
    precision = next(p for p in range(18) if float(f"{value:.{p}e}") == value)
    mantissa, exponent = f"{value:.{precision}e}".split("e")
    power = int(exponent)
    if power < -4 or power >= 6:
        return f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    return shortest[:-2] if shortest.endswith(".0") else shortest


def text(h: Histogram) -> str:
    """``{count:3, sum:2, (1,2]:3}``, as Prometheus writes a histogram where a label needs one."""
    parts = [f"count:{format_g(h.count)}", f"sum:{format_g(h.sum)}"]
    for b in all_buckets(h):
        if b.count == 0:
            continue
        lower, upper = closed_ends(h, b)
        edges = f"{'[' if lower else '('}{format_g(b.lower)},{format_g(b.upper)}{']' if upper else ')'}"
        parts.append(f"{edges}:{format_g(b.count)}")
    return "{" + ", ".join(parts) + "}"
