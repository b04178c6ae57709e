"""What an evaluation returns."""

import math
import re
from dataclasses import dataclass

import numpy as np

from flyball.errors import QueryError
from flyball.model.frames import Floats, Histograms, Mask, Times, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.promql.syntax import format_number


class EvaluationError(QueryError):
    """The expression is well formed, its evaluation failed (Prometheus' ``execution`` error)."""

    status = 422


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Base of the four results; annotations are Prometheus' texts, without repeats."""

    warnings: tuple[str, ...] = ()
    infos: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Scalar(Value):
    """``times_ms`` [T], ``values`` [T]."""

    times_ms: Times
    values: Floats


@dataclass(frozen=True, slots=True, eq=False)
class String(Value):
    times_ms: Times
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Matrix(Value):
    """``labels`` n label sets, ``times_ms`` [T], ``values`` [n, T] with ABSENT where there is no point.

    ``histograms`` [n, T] are the points that are native histograms (``values`` is arbitrary there, but not ABSENT),
    None elsewhere; or None when all points are floats. No row is without a point.
    """

    labels: tuple[Labels, ...]
    times_ms: Times
    values: Floats
    histograms: Histograms | None = None

    def present(self) -> Mask:
        """[n, T], True where there is a point."""
        return ~is_absent(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Vector(Matrix):
    """The result at one instant: T is 1. The order of rows is the result's (``sort``, ``topk``)."""


_NEEDS_GO = re.compile(r"e|inf|nan")


def format_value(value: float) -> str:
    """Go's shortest ``'f'`` form; NaN, +Inf and -Inf by name."""
    text = repr(value)
    if _NEEDS_GO.search(text):
        return format_number(value)
    return text[:-2] if text.endswith(".0") else text


_SURROGATES = re.compile("[\ud800-\udfff]")


def valid_text(text: str) -> str:
    """Bytes that are not UTF-8 (from escapes such as ``\\xff``) replaced, as Go's JSON does."""
    return _SURROGATES.sub("\ufffd", text)


def points_at(value: Matrix, at_ms: int) -> dict[Labels, float | Histogram]:
    """The points of one step by label set."""
    column = int(np.flatnonzero(value.times_ms == at_ms)[0])
    found = value.values[:, column]
    keep = ~is_absent(np.ascontiguousarray(found))
    points: dict[Labels, float | Histogram] = {}
    for i in np.flatnonzero(keep).tolist():
        h = None if value.histograms is None else value.histograms[i, column]
        points[value.labels[i]] = float(found[i]) if h is None else h
    return points


def at_instant(value: Matrix, at_ms: int) -> dict[Labels, float]:
    """The floats of one step by label set; native histograms are left out."""
    return {labels: point for labels, point in points_at(value, at_ms).items() if isinstance(point, float)}


def almost_equal(a: float, b: float, epsilon: float) -> bool:
    """Prometheus' util/almost: equal within a relative epsilon; NaN equals NaN."""
    if (math.isnan(a) and math.isnan(b)) or a == b:
        return True
    if math.isnan(a) or math.isnan(b) or math.isinf(a) or math.isinf(b):
        return False
    difference, total = abs(a - b), abs(a) + abs(b)
    smallest = 2.2250738585072014e-308
    if a == 0 or b == 0 or total < smallest:
        return difference < epsilon * smallest
    return difference / min(total, 1.7976931348623157e308) < epsilon
