"""Metric formats: the Prometheus text format 0.0.4 and OpenMetrics 1.0, with a layout cache. Pure."""

from flyball.exposition.layout import Layout, parse_values
from flyball.exposition.negotiation import DEFAULT_PROTOCOLS, Format, accept_header, format_of
from flyball.exposition.text import Exposition, Metadata, parse, parse_series

__all__ = [
    "DEFAULT_PROTOCOLS",
    "Exposition",
    "Format",
    "Layout",
    "Metadata",
    "accept_header",
    "format_of",
    "parse",
    "parse_series",
    "parse_values",
]
