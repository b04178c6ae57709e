"""Samples back into the text format, and the escaping of UTF-8 names for readers that know only classic ones."""

import re
from collections.abc import Iterable

from flyball.model.labels import METRIC_NAME, Labels

_CLASSIC_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_CLASSIC_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_NOT_CLASSIC = re.compile(r"[^a-zA-Z0-9_:]")


def write_samples(samples: Iterable[tuple[Labels, float, int]], *, utf8_names: bool) -> bytes:
    """(labels, value, time in ms), sorted by metric name, as ``text/plain; version=0.0.4``.

    Args:
        utf8_names: names outside ``[a-zA-Z0-9_:]`` are quoted; otherwise their other characters become ``_``.
    """
    lines: list[str] = []
    named = ""
    for labels, value, at_ms in samples:
        name = next((text for label, text in labels if label == METRIC_NAME), "")
        if name != named:
            named = name
            lines.append(f"# TYPE {_spelled(name, utf8_names)} untyped")
        lines.append(f"{series_text(name, labels, utf8_names=utf8_names)} {format_float(value)} {at_ms}")
    return ("\n".join(lines) + "\n").encode("utf-8", "replace") if lines else b""


def format_float(value: float) -> str:
    """A number as Go and we read it back."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    text = repr(value)
    return text.removesuffix(".0")


def escape_name(name: str) -> str:
    """``my.metric`` as ``my_metric``: the ``underscores`` escaping."""
    found = _NOT_CLASSIC.sub("_", name)
    return "_" + found if found[:1].isdigit() else found


def escape_value(value: str) -> str:
    """A label value between quotes."""
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _spelled(name: str, utf8_names: bool) -> str:
    if _CLASSIC_METRIC.fullmatch(name):
        return name
    return f'"{escape_value(name)}"' if utf8_names else escape_name(name)


def series_text(name: str, labels: Labels, *, utf8_names: bool) -> str:
    """A series as the text format writes it; a ``__name__`` among the labels is left out."""
    pairs = []
    for label, text in labels:
        if label == METRIC_NAME:
            continue
        if not _CLASSIC_LABEL.fullmatch(label):
            label = f'"{escape_value(label)}"' if utf8_names else escape_name(label).replace(":", "_")
        pairs.append(f'{label}="{escape_value(text)}"')
    spelled = _spelled(name, utf8_names)
    if spelled.startswith('"'):
        return "{" + ",".join([spelled, *pairs]) + "}"
    return spelled + ("{" + ",".join(pairs) + "}" if pairs else "")
