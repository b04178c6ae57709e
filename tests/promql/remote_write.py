"""Bodies of remote write 1.0: floats, staleness markers and native histograms."""

import struct
from collections.abc import Iterable, Mapping

from bench.workload import field_bytes, snappy, varint

from flyball.model.histograms import Histogram
from flyball.model.labels import Labels

Samples = Mapping[int, float | Histogram]


def _double(number: int, value: float) -> bytes:
    return varint(number << 3 | 1) + struct.pack("<d", value)


def _whole(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def _zigzag(value: int) -> int:
    return (value << 1) ^ (value >> 63) if value >= 0 else ((-value) << 1) - 1


def _buckets(spans: int, counts: int, buckets: Mapping[int, float]) -> bytes:
    out, last = b"", 0
    for index in sorted(buckets):  # each bucket is a span of its own
        out += field_bytes(spans, _whole(1, _zigzag(index - last)) + _whole(2, 1))
        last = index + 1
    return out + field_bytes(counts, b"".join(struct.pack("<d", buckets[index]) for index in sorted(buckets)))


def _histogram(at_ms: int, h: Histogram) -> bytes:
    return (
        _double(2, h.count) + _double(3, h.sum) + _whole(4, _zigzag(h.schema)) + _double(5, h.zero_threshold)
        + _double(7, h.zero_count) + _buckets(8, 10, h.negative) + _buckets(11, 13, h.positive)
        + _whole(14, int(h.hint)) + _whole(15, at_ms)
        + (field_bytes(16, b"".join(struct.pack("<d", bound) for bound in h.custom_values)) if h.custom_values else b"")
    )  # fmt: skip


def write_request(series: Iterable[tuple[Labels, Samples]]) -> bytes:
    """A body, in snappy's block format with literals alone."""
    body = b""
    for labels, samples in series:
        one = b"".join(field_bytes(1, field_bytes(1, n.encode()) + field_bytes(2, v.encode())) for n, v in labels)
        for at_ms, value in sorted(samples.items()):
            if isinstance(value, Histogram):
                one += field_bytes(4, _histogram(at_ms, value))
            else:
                one += field_bytes(2, _double(1, value) + _whole(2, at_ms))
        body += field_bytes(1, one)
    return snappy(body)
