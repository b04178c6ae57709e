"""Metric formats: the Prometheus text format, OpenMetrics 1.0 and protobuf, with a layout cache; remote write. Pure."""

from collections.abc import Container

from flyball.exposition.custombuckets import with_custom_buckets
from flyball.exposition.layout import Layout, load_compiled, parse_values
from flyball.exposition.nativehistograms import finest_schema, limited
from flyball.exposition.negotiation import (
    DEFAULT_PROTOCOLS,
    NATIVE_PROTOCOLS,
    TEXT_PROTOCOLS,
    Format,
    accept_header,
    format_of,
)
from flyball.exposition.openmetrics import parse_openmetrics
from flyball.exposition.parsed import NO_TIME, Exemplar, Exposition, Metadata, Samples
from flyball.exposition.protobuf import parse_protobuf
from flyball.exposition.series import parse_series
from flyball.exposition.text import parse_text


def parse(
    body: bytes,
    format_: Format = Format.TEXT,
    known: Container[bytes] = (),
    *,
    native: bool = True,
    classic: bool = True,
    custom: bool = False,
) -> Exposition:
    """Every sample of the body, in order.

    Args:
        known: series texts of an earlier scrape.
        native: native histograms as such; otherwise as their classic series.
        classic: the classic series beside them.
        custom: classic histograms become native ones with custom buckets.

    Raises:
        ScrapeError: the body is malformed; names the line.
    """
    if format_ is Format.OPENMETRICS:
        found = parse_openmetrics(body)
    elif format_ is Format.PROTOBUF:
        found = parse_protobuf(body, native=native, classic=classic)
    else:
        found = parse_text(body, known)
    return with_custom_buckets(found, classic=classic) if custom else found


__all__ = [
    "DEFAULT_PROTOCOLS",
    "NATIVE_PROTOCOLS",
    "NO_TIME",
    "TEXT_PROTOCOLS",
    "Exemplar",
    "Exposition",
    "Format",
    "Layout",
    "Metadata",
    "Samples",
    "accept_header",
    "finest_schema",
    "format_of",
    "limited",
    "load_compiled",
    "parse",
    "parse_series",
    "parse_values",
]
