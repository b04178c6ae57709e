"""Results as JSON, as the Prometheus HTTP API writes them."""

from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock

import msgspec
import numpy as np

from flyball.model.frames import Floats, Mask, Times, is_absent
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels
from flyball.promql import compiled
from flyball.promql.histograms import all_buckets, closed_ends
from flyball.promql.values import Matrix, Scalar, String, Value, Vector, format_value, valid_text

_encode = msgspec.json.encode
#: Points from which on the compiled pass gains.
_COMPILED_MIN = 500
#: Values that are sooner written one by one.
_FEW = 16


def _stamps(times_ms: Times, opening: str) -> list[bytes]:
    """Times as texts, as the points of a series begin."""
    if (times_ms % 1000 == 0).all():
        return [f'{opening}{at},"'.encode() for at in (times_ms // 1000).tolist()]
    return [f'{opening}{_seconds(at)},"'.encode() for at in times_ms.tolist()]


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
    if values.size < _FEW:
        return [format_value(value).encode() for value in values.tolist()]
    if _are_whole(values):
        return _encode(values.astype(np.int64).tolist())[1:-1].split(b",")
    texts = (_encode(values.tolist())[1:-1] + b",").replace(b".0,", b",").split(b",")
    texts.pop()
    size = np.abs(values)
    for i in np.flatnonzero(~((size >= 1e-3) & (size < 1e15)) & (size != 0)).tolist():  # exponents, NaN, infinities
        texts[i] = format_value(float(values[i])).encode()
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
    kind = b"vector" if isinstance(value, Vector) else b"matrix"
    opening, closing = b'{"resultType":"' + kind + b'","result":[', b"]}"
    points = count * len(value.times_ms)
    if value.histograms is None and points >= _COMPILED_MIN and compiled.ready(points):
        return b"".join([opening, *_written(value, count), closing])
    series = _vector(value, count) if isinstance(value, Vector) else _matrix(value, count)
    return b"".join([opening, b",".join(series), closing])


def _written(value: Matrix, count: int) -> list[bytes | memoryview]:
    """The series, by the compiled pass."""
    single = isinstance(value, Vector)
    stamps = _stamps(value.times_ms, "[")
    heads = _heads(value.labels[:count], b'"value":' if single else b'"values":[')
    return compiled.series_json(heads, value.values[:count], stamps, b"}" if single else b"]}")


#: Of the answers rendered last: their series, and how those begin.
_heads_memo: OrderedDict[tuple[int, bytes], tuple[tuple[Labels, ...], list[bytes]]] = OrderedDict()
_HEADS_KEPT, _HEADS_MAX = 8, 20_000
_memo_lock = Lock()


def _heads(labels: tuple[Labels, ...], key: bytes) -> list[bytes]:
    """How each series begins. A dashboard asks for the same series again and again, so that the last ones are kept."""
    with _memo_lock:
        known = _heads_memo.get((id(labels), key))
    if known is not None:
        return known[1]
    heads = [b'{"metric":' + _metric(series) + b"," + key for series in labels]
    if len(labels) <= _HEADS_MAX:
        with _memo_lock:
            _heads_memo[id(labels), key] = labels, heads  # keeps the tuple alive, so that its id stays its own
            while len(_heads_memo) > _HEADS_KEPT:
                _heads_memo.popitem(last=False)
    return heads


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
    stamps = _stamps(value.times_ms, '"],[')
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
