"""What an evaluation returns, and its JSON as the Prometheus HTTP API writes it."""

import math
import re
from dataclasses import dataclass

import msgspec
import numpy as np

from flyball.errors import QueryError
from flyball.model.frames import ABSENT, Floats, Mask, Times, is_absent
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

    No row is without a point.
    """

    labels: tuple[Labels, ...]
    times_ms: Times
    values: Floats

    def present(self) -> Mask:
        """[n, T], True where there is a point."""
        return ~is_absent(self.values)


@dataclass(frozen=True, slots=True, eq=False)
class Vector(Matrix):
    """The result at one instant: T is 1. The order of rows is the result's (``sort``, ``topk``)."""


# --- JSON

_encode = msgspec.json.encode
_SURROGATES = re.compile("[\ud800-\udfff]")
_NEEDS_GO = re.compile(r"e|inf|nan")


def format_value(value: float) -> str:
    """Go's shortest ``'f'`` form; NaN, +Inf and -Inf by name."""
    text = repr(value)
    if _NEEDS_GO.search(text):
        return format_number(value)
    return text[:-2] if text.endswith(".0") else text


def _seconds(at_ms: int) -> str:
    whole, rest = divmod(abs(at_ms), 1000)
    sign = "-" if at_ms < 0 else ""
    return f"{sign}{whole}.{rest:03d}".rstrip("0") if rest else f"{sign}{whole}"


def valid_text(text: str) -> str:
    """Bytes that are not UTF-8 (from escapes such as ``\\xff``) replaced, as Go's JSON does."""
    return _SURROGATES.sub("\ufffd", text)


def _metric(labels: Labels) -> bytes:
    try:
        return _encode(dict(labels))
    except UnicodeEncodeError:
        return _encode({valid_text(name): valid_text(value) for name, value in labels})


def _texts(values: Floats) -> list[str]:
    """Each value's text. ``str(list)`` formats in C; only what Go writes otherwise is mended."""
    items = values.tolist()
    if not items:
        return []
    return [
        text[:-2] if text.endswith(".0") else (format_value(item) if _odd(text) else text)
        for item, text in zip(items, map(repr, items), strict=True)
    ]


def _odd(text: str) -> bool:
    return "e" in text or "n" in text


def data_json(value: Value, limit: int = 0) -> bytes:
    """The ``data`` member of an answer; at most ``limit`` series when it is not 0."""
    if isinstance(value, Scalar):
        point = f'[{_seconds(int(value.times_ms[0]))},"{format_value(float(value.values[0]))}"]'
        return b'{"resultType":"scalar","result":' + point.encode() + b"}"
    if isinstance(value, String):
        head = f'{{"resultType":"string","result":[{_seconds(int(value.times_ms[0]))},'
        return head.encode() + _encode(valid_text(value.text)) + b"]}"
    if not isinstance(value, Matrix):
        raise TypeError(f"no JSON form of {type(value).__name__}")
    labels = value.labels[:limit] if limit else value.labels
    rows = value.values[: len(labels)]
    if isinstance(value, Vector):
        at = _seconds(int(value.times_ms[0])).encode() if len(value.times_ms) else b"0"
        series = [
            b'{"metric":' + _metric(metric) + b',"value":[' + at + b',"' + text.encode() + b'"]}'
            for metric, text in zip(labels, _texts(rows[:, 0]), strict=True)
        ]
        return b'{"resultType":"vector","result":[' + b",".join(series) + b"]}"
    stamps = [f'[{_seconds(at)},"' for at in value.times_ms.tolist()]
    present = ~is_absent(np.ascontiguousarray(rows))
    series = []
    for i, metric in enumerate(labels):
        if present[i].all():
            points = '"],'.join(map(str.__add__, stamps, _texts(rows[i])))
        else:
            where = np.flatnonzero(present[i])
            points = '"],'.join(map(str.__add__, [stamps[k] for k in where.tolist()], _texts(rows[i][where])))
        series.append(b'{"metric":' + _metric(metric) + b',"values":[' + points.encode() + b'"]]}')
    return b'{"resultType":"matrix","result":[' + b",".join(series) + b"]}"


def at_instant(value: Matrix, at_ms: int) -> dict[Labels, float]:
    """The points of one step by label set."""
    column = int(np.flatnonzero(value.times_ms == at_ms)[0])
    found = value.values[:, column]
    keep = ~is_absent(np.ascontiguousarray(found))
    return {value.labels[i]: float(found[i]) for i in np.flatnonzero(keep).tolist()}


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


__all__ = [
    "ABSENT",
    "EvaluationError",
    "Matrix",
    "Scalar",
    "String",
    "Value",
    "Vector",
    "almost_equal",
    "at_instant",
    "data_json",
    "format_value",
    "valid_text",
]
