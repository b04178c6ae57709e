"""Native histograms as protobuf carries them: spans of buckets with deltas or counts."""

from collections.abc import Sequence
from typing import Any

from flyball.errors import ScrapeError
from flyball.model.histograms import CUSTOM_BUCKETS, SCHEMA_MAX, SCHEMA_MIN

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
