"""Remote write 1.0: a WriteRequest into series with their samples."""

import struct
from dataclasses import dataclass, field
from typing import Any

from flyball.errors import ScrapeError
from flyball.exposition.messages import decode, write_types
from flyball.exposition.nativehistograms import check_schema, read_buckets
from flyball.exposition.parsed import Exemplar, Metadata
from flyball.model.frames import STALE, STALE_BITS
from flyball.model.histograms import Histogram, ResetHint
from flyball.model.labels import METRIC_NAME, Labels, labels_of

#: By the number that a request gives them.
METADATA_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
#: Raw labels of a series to its label set; the caller keeps it from request to request, and its size in bounds.
KnownSeries = dict[tuple[bytes, ...], Labels]


@dataclass(slots=True)
class Written:
    """What one request carries.

    Attributes:
        samples: (series, time in ms, value).
        ended: staleness markers of native histograms, likewise; they come after ``histograms``.
    """

    samples: list[tuple[Labels, int, float]] = field(default_factory=list)
    exemplars: list[tuple[Labels, Exemplar]] = field(default_factory=list)
    histograms: list[tuple[Labels, int, Histogram]] = field(default_factory=list)
    ended: list[tuple[Labels, int, float]] = field(default_factory=list)
    metadata: dict[str, Metadata] = field(default_factory=dict)


def parse_write_request(body: bytes, known: KnownSeries) -> Written:
    """A decompressed WriteRequest.

    Raises:
        ScrapeError: it is none, or a series has no name, a label twice or text that is not UTF-8.
    """
    types = write_types()
    request = decode(types["WriteRequest"], body, "WriteRequest")
    found = Written()
    for series in request.timeseries:
        raw = tuple(series.labels)
        labels = known.get(raw)
        if labels is None:
            labels = known[raw] = _labels(raw, types["Label"])
        for sample in series.samples:
            found.samples.append((labels, sample.timestamp, sample.value))
        for exemplar in series.exemplars:
            own = {
                label.name.decode("utf-8", "replace"): label.value.decode("utf-8", "replace")
                for label in exemplar.labels
            }
            found.exemplars.append((labels, Exemplar(own, exemplar.value, exemplar.timestamp)))
        for histogram in series.histograms:
            if _bits(histogram.sum) == STALE_BITS:
                found.ended.append((labels, histogram.timestamp, float(STALE)))
            else:
                found.histograms.append((labels, histogram.timestamp, _histogram(histogram)))
    for said in request.metadata:
        type_ = METADATA_TYPES[said.type] if 0 <= said.type < len(METADATA_TYPES) else "unknown"
        found.metadata[said.metric_family_name] = Metadata(type_, said.help, said.unit)
    return found


def _bits(value: float) -> int:
    bits: int = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


def _labels(raw: tuple[bytes, ...], label_type: Any) -> Labels:
    pairs: dict[str, str] = {}
    for one in raw:
        label = decode(label_type, one, "Label")
        try:
            name, value = label.name.decode(), label.value.decode()
        except UnicodeDecodeError:
            raise ScrapeError("a label is not UTF-8") from None
        if not name or name in pairs:
            raise ScrapeError(f'the label "{name}" is empty or given twice in {pairs.get(METRIC_NAME, "a series")}')
        pairs[name] = value
    if not pairs.get(METRIC_NAME):
        raise ScrapeError(f"a series has no metric name: {pairs}")
    return labels_of(pairs)


def _histogram(found: Any) -> Histogram:
    check_schema(found.schema)
    return Histogram(
        schema=found.schema,
        count=found.count_float if found.HasField("count_float") else float(found.count_int),
        sum=found.sum,
        zero_threshold=found.zero_threshold,
        zero_count=found.zero_count_float if found.HasField("zero_count_float") else float(found.zero_count_int),
        positive=read_buckets(found.positive_spans, found.positive_deltas, found.positive_counts),
        negative=read_buckets(found.negative_spans, found.negative_deltas, found.negative_counts),
        custom_values=tuple(found.custom_values),
        hint=ResetHint(found.reset_hint) if found.reset_hint in set(ResetHint) else ResetHint.UNKNOWN,
    )
