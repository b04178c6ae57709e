"""Native histograms as protobuf carries them: spans of buckets with deltas or counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flyball.errors import ScrapeError, ScrapeLimitError
from flyball.model.histograms import CUSTOM_BUCKETS, SCHEMA_MAX, SCHEMA_MIN, Histogram

#: A histogram may have this many buckets; a span that claims more is an attack or an error.
BUCKETS_MAX = 10_000


def read_buckets(spans: Sequence[Any], deltas: Sequence[int], counts: Sequence[float]) -> dict[int, float]:
    """Index to count. Integer histograms give differences to the bucket before, float ones absolute counts.

    Raises:
        ScrapeError: spans and counts do not fit each other.
    """
    total = sum(span.length for span in spans)
    given = counts or deltas
    if total != len(given) or total > BUCKETS_MAX:
        raise ScrapeError(f"a native histogram has spans for {total} buckets and {len(given)} counts")
    found: dict[int, float] = {}
    index, at, value = 0, 0, 0.0
    for position, span in enumerate(spans):
        if position and span.offset < 0:
            raise ScrapeError(f"a native histogram has a span with the negative offset {span.offset}")
        index += span.offset
        for _ in range(span.length):
            value = float(counts[at]) if counts else value + deltas[at]
            if value < 0:
                raise ScrapeError("a native histogram has a bucket with a negative count")
            found[index] = value
            index += 1
            at += 1
    return found


def check_schema(schema: int) -> None:
    """Raises:
    ScrapeError: no such schema.
    """
    if schema != CUSTOM_BUCKETS and not SCHEMA_MIN <= schema <= SCHEMA_MAX:
        raise ScrapeError(f"a native histogram has the schema {schema}; {SCHEMA_MIN} to {SCHEMA_MAX} are known")


def finest_schema(factor: float) -> int:
    """The finest schema whose buckets grow by at least this factor (``native_histogram_min_bucket_factor``)."""
    if factor <= 1:
        return SCHEMA_MAX
    return max(SCHEMA_MIN, min(SCHEMA_MAX, math.floor(-math.log2(math.log2(factor)))))


def limited(histogram: Histogram, buckets_max: int, schema_max: int) -> Histogram:
    """The histogram with no finer buckets than allowed, and halved in resolution until it has few enough of them.

    Args:
        buckets_max: 0 is no limit.

    Raises:
        ScrapeLimitError: it has too many at the coarsest resolution, or its buckets cannot be merged.
    """
    if not histogram.is_custom and histogram.schema > schema_max:
        histogram = _coarser(histogram, schema_max)
    while buckets_max and len(histogram.positive) + len(histogram.negative) > buckets_max:
        if histogram.is_custom or histogram.schema <= SCHEMA_MIN:
            buckets = len(histogram.positive) + len(histogram.negative)
            limit = "native_histogram_bucket_limit"
            raise ScrapeLimitError(
                limit, f"a native histogram has {buckets} buckets, over the {limit} of {buckets_max}"
            )
        histogram = _coarser(histogram, histogram.schema - 1)
    return histogram


def _coarser(histogram: Histogram, schema: int) -> Histogram:
    shift = histogram.schema - schema

    def merged(buckets: Mapping[int, float]) -> dict[int, float]:
        found: dict[int, float] = {}
        for index, count in buckets.items():
            at = ((index - 1) >> shift) + 1
            found[at] = found.get(at, 0.0) + count
        return found

    return replace(histogram, schema=schema, positive=merged(histogram.positive), negative=merged(histogram.negative))
