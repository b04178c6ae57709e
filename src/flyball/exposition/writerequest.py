"""Writing remote write 1.0: samples into a WriteRequest.

A series' labels are encoded once by the caller's leave (``encoded_labels``); a sample then costs a few concatenations.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flyball.exposition.messages import write_types
from flyball.exposition.parsed import Metadata
from flyball.exposition.remotewrite import METADATA_TYPES
from flyball.model.histograms import Histogram
from flyball.model.labels import Labels

_SAMPLE = struct.Struct("<BBBdB")


def _varint(number: int) -> bytes:
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _text(tag: int, text: str) -> bytes:
    data = text.encode()
    return bytes([tag]) + _varint(len(data)) + data


def encoded_labels(labels: Labels) -> bytes:
    """The labels as fields of a TimeSeries."""
    pairs = [_text(0x0A, name) + _text(0x12, value) for name, value in labels]
    return b"".join(b"\x0a" + _varint(len(pair)) + pair for pair in pairs)


def encoded_sample(at_ms: int, value: float) -> bytes:
    """A sample as a field of a TimeSeries."""
    time = _varint(at_ms)
    return _SAMPLE.pack(0x12, 10 + len(time), 0x09, value, 0x10) + time


def encoded_histogram(at_ms: int, found: Histogram) -> bytes:
    """A native histogram as a field of a TimeSeries; its counts are written as float64, which is what is stored."""
    types = write_types()
    message = types["Histogram"](
        count_float=found.count,
        sum=found.sum,
        schema=found.schema,
        zero_threshold=found.zero_threshold,
        zero_count_float=found.zero_count,
        reset_hint=int(found.hint),
        timestamp=at_ms,
        custom_values=found.custom_values,
    )
    for name, buckets in (("positive", found.positive), ("negative", found.negative)):
        spans, counts = _spans(buckets, types["BucketSpan"])
        getattr(message, f"{name}_spans").extend(spans)
        getattr(message, f"{name}_counts").extend(counts)
    data: bytes = message.SerializeToString()
    return b"\x22" + _varint(len(data)) + data


def _spans(buckets: Mapping[int, float], span_type: Any) -> tuple[list[Any], list[float]]:
    spans: list[Any] = []
    after = 0
    for index in sorted(buckets):
        if not spans or index != after:
            spans.append(span_type(offset=index - after, length=0))
        spans[-1].length += 1
        after = index + 1
    return spans, [buckets[index] for index in sorted(buckets)]


def encoded_exemplar(labels: Labels, value: float, at_ms: int) -> bytes:
    """An exemplar as a field of a TimeSeries."""
    types = write_types()
    pairs = [types["Label"](name=name.encode(), value=text.encode()) for name, text in labels]
    data: bytes = types["Exemplar"](labels=pairs, value=value, timestamp=at_ms).SerializeToString()
    return b"\x1a" + _varint(len(data)) + data


def write_request(series: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A WriteRequest of (encoded labels, encoded sample, histogram or exemplar), one TimeSeries each."""
    parts: list[bytes] = []
    for labels, sample in series:
        parts += (b"\x0a", _varint(len(labels) + len(sample)), labels, sample)
    return b"".join(parts)


def metadata_request(found: Mapping[str, Sequence[str]]) -> bytes:
    """A WriteRequest that says (type, help, unit) of metric families."""
    types = write_types()
    said = [Metadata(*one) for one in found.values()]
    metadata = [
        types["MetricMetadata"](
            type=METADATA_TYPES.index(one.type) if one.type in METADATA_TYPES else 0,
            metric_family_name=name,
            help=one.help,
            unit=one.unit,
        )
        for name, one in zip(found, said, strict=True)
    ]
    data: bytes = types["WriteRequest"](metadata=metadata).SerializeToString()
    return data
