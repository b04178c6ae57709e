"""What a page of metrics should do better: the conventions that Prometheus' own linter checks."""

import re
from collections.abc import Iterator, Mapping

from flyball.exposition.parsed import Exposition, Metadata
from flyball.exposition.series import parse_series

_CAMEL = re.compile(r"[a-z][A-Z]")
_BASE_UNITS = {
    **dict.fromkeys(
        ("milliseconds", "microseconds", "nanoseconds", "minutes", "hours", "days", "weeks", "months", "years"),
        "seconds",
    ),
    **dict.fromkeys(
        ("kilobytes", "megabytes", "gigabytes", "terabytes", "kibibytes", "mebibytes", "gibibytes"), "bytes"
    ),
    **dict.fromkeys(("millimeters", "centimeters", "kilometers"), "meters"),
    **dict.fromkeys(("milliamperes", "kiloamperes"), "amperes"),
    **dict.fromkeys(("millivolts", "kilovolts"), "volts"),
    **dict.fromkeys(("kilojoules", "megajoules"), "joules"),
    **dict.fromkeys(("kelvin", "fahrenheit"), "celsius"),
    "percent": "ratio",
}
_ABBREVIATED = frozenset({"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"})
_OWN_SUFFIXES = {"_bucket": ("histogram",), "_count": ("histogram", "summary"), "_sum": ("histogram", "summary")}


def lint(exposition: Exposition) -> list[tuple[str, str]]:
    """(metric family, what to do better), in order of the page's families."""
    found: dict[tuple[str, str], None] = {}
    for name, known in exposition.metadata.items():
        for problem in _family(name, known):
            found[name, problem] = None
    for text, type_ in zip(exposition.series, exposition.types, strict=True):
        labels = parse_series(text, type_)
        name = _family_of(labels["__name__"], exposition.metadata)
        if name not in exposition.metadata:
            found[name, "no help text"] = None
        for problem in _labels(labels, exposition.metadata.get(name, Metadata())):
            found[name, problem] = None
    return list(found)


def _family_of(name: str, families: Mapping[str, Metadata]) -> str:
    for suffix in ("_bucket", "_count", "_sum"):
        base = name.removesuffix(suffix)
        if base != name and base in families and families[base].type in ("histogram", "summary"):
            return base
    return name


def _family(name: str, known: Metadata) -> Iterator[str]:
    if not known.help:
        yield "no help text"
    words = name.lower().split("_")
    for word in words:
        if word in _BASE_UNITS:
            yield f'use base unit "{_BASE_UNITS[word]}" instead of "{word}"'
    if known.type == "counter" and not name.endswith("_total"):
        yield 'counter metrics should have "_total" suffix'
    if known.type not in ("counter", "unknown") and name.endswith("_total"):
        yield 'non-counter metrics should not have "_total" suffix'
    for suffix, types in _OWN_SUFFIXES.items():
        if name.endswith(suffix) and known.type not in (*types, "unknown", "counter"):
            yield f'non-{" and non-".join(types)} metrics should not have "{suffix}" suffix'
    for type_ in ("counter", "gauge", "histogram", "summary"):
        if type_ in words and known.type == type_:
            yield f"metric name should not include type '{type_}'"
    if ":" in name:
        yield "metric names should not contain ':'"
    if _CAMEL.search(name):
        yield "metric names should be written in 'snake_case' not 'camelCase'"
    if any(word in _ABBREVIATED for word in words):
        yield "metric names should not contain abbreviated units"


def _labels(labels: Mapping[str, str], known: Metadata) -> Iterator[str]:
    if "le" in labels and known.type not in ("histogram", "gaugehistogram", "unknown"):
        yield 'non-histogram metrics should not have "le" label'
    if "quantile" in labels and known.type not in ("summary", "unknown"):
        yield 'non-summary metrics should not have "quantile" label'
    if any(_CAMEL.search(label) for label in labels):
        yield "label names should be written in 'snake_case' not 'camelCase'"
