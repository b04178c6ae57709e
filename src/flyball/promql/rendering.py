"""Results as JSON, as the Prometheus HTTP API writes them."""

from collections.abc import Sequence

import msgspec
import numpy as np

from flyball.model.frames import Floats, Mask, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.promql.histograms import all_buckets, closed_ends
from flyball.promql.values import Matrix, Scalar, String, Value, Vector, format_value, valid_text

_encode = msgspec.json.encode


def _seconds(at_ms: int) -> str:
    whole, rest = divmod(abs(at_ms), 1000)
    sign = "-" if at_ms < 0 else ""
    return f"{sign}{whole}.{rest:03d}".rstrip("0") if rest else f"{sign}{whole}"


def _metric(labels: Labels) -> bytes:
    try:
        return _encode(dict(labels))
    except UnicodeEncodeError:
        return _encode({valid_text(name): valid_text(value) for name, value in labels})


def _texts(values: Floats) -> list[bytes]:
    """Each value's text. The encoder writes all in one go; only what Go writes otherwise is mended."""
    if not values.size:
        return []
    if _are_whole(values):
        return _encode(values.astype(np.int64).tolist())[1:-1].split(b",")
    items = values.tolist()
    raw = _encode(items)[1:-1] + b","
    texts = raw.replace(b".0,", b",").split(b",")
    texts.pop()
    if b"e" in raw or b"n" in raw:  # exponents, and null for NaN and infinities
        for i, text in enumerate(texts):
            if b"e" in text or b"n" in text:
                texts[i] = format_value(items[i]).encode()
    return texts


def _are_whole(values: Floats) -> bool:
    """Whether all are integers that print without an exponent; -0 is none."""
    with np.errstate(invalid="ignore"):
        whole = np.abs(values) < 2.0**53
        return bool(
            whole.all() and (values == np.floor(values)).all() and not (np.signbit(values) & (values == 0)).any()
        )


def _histogram(h: Histogram) -> bytes:
    fields: dict[str, object] = {"count": format_value(h.count), "sum": format_value(h.sum)}
    buckets = []
    for b in all_buckets(h):
        if b.count != 0:
            lower, upper = closed_ends(h, b)
            ends = (3 if upper else 1) if lower else (0 if upper else 2)
            buckets.append([ends, format_value(b.lower), format_value(b.upper), format_value(b.count)])
    if buckets:
        fields["buckets"] = buckets
    return _encode(fields)


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
    count = min(limit, len(value.labels)) if limit else len(value.labels)
    series = _vector(value, count) if isinstance(value, Vector) else _matrix(value, count)
    kind = b"vector" if isinstance(value, Vector) else b"matrix"
    return b'{"resultType":"' + kind + b'","result":[' + b",".join(series) + b"]}"


def _vector(value: Vector, count: int) -> list[bytes]:
    at = _seconds(int(value.times_ms[0])).encode() if len(value.times_ms) else b"0"
    opening, closing = b',"value":[' + at + b',"', b'"]}'
    series = [
        b'{"metric":' + _metric(labels) + opening + text + closing
        for labels, text in zip(value.labels[:count], _texts(value.values[:count, 0]), strict=True)
    ]
    if value.histograms is not None:
        for i, h in enumerate(value.histograms[:count, 0]):
            if h is not None:
                point = b',"histogram":[' + at + b"," + _histogram(h) + b"]}"
                series[i] = b'{"metric":' + _metric(value.labels[i]) + point
    return series


def _points(stamps: Sequence[bytes], texts: Sequence[bytes]) -> bytes:
    """``[t,"v"],[t,"v"]`` of stamps that read ``"],[t,"``."""
    pieces = [b""] * (2 * len(texts))
    pieces[0::2] = stamps
    pieces[1::2] = texts
    return b"".join(pieces)[3:] + b'"]'


def _matrix(value: Matrix, count: int) -> list[bytes]:
    stamps = [f'"],[{_seconds(at)},"'.encode() for at in value.times_ms.tolist()]
    rows = np.ascontiguousarray(value.values[:count])
    present: Mask = ~is_absent(rows)
    if value.histograms is not None:
        return [_mixed_row(value, i, stamps, np.flatnonzero(present[i]).tolist()) for i in range(count)]
    texts, steps = _texts(rows.ravel()), len(stamps)
    whole = [bool(row.all()) for row in present]
    series = []
    for i in range(count):
        own = texts[i * steps : (i + 1) * steps]
        if whole[i]:
            points = _points(stamps, own)
        else:
            where = np.flatnonzero(present[i]).tolist()
            points = _points([stamps[k] for k in where], [own[k] for k in where])
        series.append(b'{"metric":' + _metric(value.labels[i]) + b',"values":[' + points + b"]}")
    return series


def _mixed_row(value: Matrix, i: int, stamps: Sequence[bytes], where: Sequence[int]) -> bytes:
    """A series whose points are floats, histograms, or both."""
    assert value.histograms is not None
    texts = _texts(value.values[i])
    floats = [k for k in where if value.histograms[i, k] is None]
    row = b'{"metric":' + _metric(value.labels[i])
    if floats:
        row += b',"values":[' + _points([stamps[k] for k in floats], [texts[k] for k in floats]) + b"]"
    found = [
        b"[" + _seconds(int(value.times_ms[k])).encode() + b"," + _histogram(value.histograms[i, k]) + b"]"
        for k in where
        if value.histograms[i, k] is not None
    ]
    return row + (b',"histograms":[' + b",".join(found) + b"]}" if found else b"}")
