"""The full parser: body to series texts, values and times, line by line.

Labels are not parsed here: a series is identified by its text as written, and ``parse_series`` turns the
text into labels once, when it is new.
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from flyball.errors import ScrapeError
from flyball.exposition.layout import NO_TIME, Layout, build_layout
from flyball.exposition.negotiation import Format
from flyball.model.frames import Floats, Times

#: An error message shows this much of a line.
_SHOWN_MAX = 80

_SERIES = (
    rb"[ \t]*+((?:[a-zA-Z_:][a-zA-Z0-9_:]*+)?+"
    rb'(?:[ \t]*+\{(?:[^"\n}]++|"(?:[^"\\\n]++|\\.)*+")*+\}[ \t]*+|[ \t]++))'
)
_TEXT_LINE = re.compile(_SERIES + rb"([^ \t\n]++)(?:[ \t]++([-+]?[0-9]++))?+[ \t]*+(?:\n|\Z)")
_OPENMETRICS_LINE = re.compile(
    _SERIES + rb"([^ \t\n]++)(?:[ \t]++([-+0-9.eE]++))?+(?:[ \t]++#[ \t]*+\{[^\n]*+)?+[ \t]*+(?:\n|\Z)"
)
_LABEL = re.compile(
    r'[ \t]*+(?:([a-zA-Z_][a-zA-Z0-9_]*+)|"((?:[^"\\\n]++|\\.)*+)")[ \t]*+'
    r'(?:=[ \t]*+"((?:[^"\\\n]++|\\.)*+)")?+[ \t]*+(,|\Z)'
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_HEX_FLOAT = re.compile(rb"[-+]?0[xX][0-9a-fA-F.]+[pP][-+]?[0-9]+")
_COMMENT_NAME = re.compile(rb'"((?:[^"\\\n]|\\.)*)"|([^ \t\n]+)')
_KNOWN_TYPES = frozenset(
    {"counter", "gauge", "histogram", "summary", "untyped", "unknown", "gaugehistogram", "info", "stateset"}
)


class Metadata(NamedTuple):
    """What ``# TYPE``, ``# HELP`` and ``# UNIT`` say of a metric family."""

    type: str = "unknown"
    help: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Exposition:
    """A parsed body.

    Attributes:
        series: each sample's name and labels as written.
        types: the family type in force at each sample (``histogram``...), ``""`` before the first TYPE line.
        values: [n] float64.
        times_ms: [n] int64 with ``NO_TIME`` where the sample has no time, or None when no sample has one.
        metadata: by family name.
        layout: for ``parse_values``; None when the body is written in a way that the fast path does not read.
    """

    series: list[bytes]
    types: list[str]
    values: Floats
    times_ms: Times | None
    metadata: dict[str, Metadata] = field(default_factory=dict)
    layout: Layout | None = None


def parse(body: bytes, format_: Format = Format.TEXT) -> Exposition:
    """Every sample of the body, in order.

    Raises:
        ScrapeError: a line is malformed; names its number and text.
    """
    openmetrics = format_ is Format.OPENMETRICS
    line_match = (_OPENMETRICS_LINE if openmetrics else _TEXT_LINE).match
    series: list[bytes] = []
    types: list[str] = []
    values: list[float] = []
    times: list[int] = []
    offsets: list[int] = []
    metadata: dict[str, Metadata] = {}
    timed = False
    ended = False
    type_ = ""
    position, end = 0, len(body)
    while position < end:
        first = body[position]
        if first in b" \t\n\r#":
            line_end = body.find(b"\n", position)
            line_end = end if line_end < 0 else line_end
            line = body[position:line_end].strip(b" \t\r")
            if not line or line.startswith(b"#"):
                if ended:
                    raise _error(body, position, "follows # EOF")
                if line == b"# EOF":
                    ended = openmetrics
                elif line:
                    type_ = _comment(line, metadata, type_, body, position)
                position = line_end + 1
                continue
        if ended:
            raise _error(body, position, "follows # EOF")
        found = line_match(body, position)
        if found is None:
            raise _error(body, position, "is not a sample: expected a name, labels in {}, a value and perhaps a time")
        text, word, time = found.groups()
        try:
            value = _value(word)
        except ValueError:
            raise _error(body, position, f'has the value "{_shown(word)}", which is not a number') from None
        series.append(text.rstrip(b" \t"))
        types.append(type_)
        values.append(value)
        offsets.append(found.start(2))
        if time is None:
            times.append(NO_TIME)
        else:
            timed = True
            try:
                times.append(round(float(time) * 1000) if openmetrics else int(time))
            except (ValueError, OverflowError):
                raise _error(body, position, f'has the time "{_shown(time)}", which is not a number') from None
        position = found.end()
    if openmetrics and not ended:
        raise ScrapeError("the body does not end with # EOF: it was cut short, or it is not OpenMetrics")
    try:
        times_array = np.array(times, dtype=np.int64) if timed else None
    except OverflowError:
        raise ScrapeError("a sample's time does not fit 64 bits; it must be in ms since the epoch") from None
    return Exposition(
        series=series,
        types=types,
        values=np.array(values, dtype=np.float64),
        times_ms=times_array,
        metadata=metadata,
        layout=build_layout(body, openmetrics, offsets, times_array),
    )


def parse_series(text: bytes, type_: str = "") -> dict[str, str]:
    """The labels, ``__name__`` included, of a series as written. ``le`` and ``quantile`` are normalised to one
    spelling (``1`` becomes ``1.0``), as Prometheus 3 does.

    Raises:
        ScrapeError: the text is not a series; names what is wrong in it.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        raise ScrapeError(f'"{_shown(text)}" is not UTF-8') from None
    name, brace, rest = decoded.partition("{")
    name = name.rstrip(" \t")
    labels: dict[str, str] = {}
    if brace:
        inside = rest[: rest.rindex("}")]
        position = 0
        while position < len(inside) and inside[position:].strip(" \t"):
            found = _LABEL.match(inside, position)
            if found is None:
                raise ScrapeError(f'"{_shown(text)}": expected name="value" at "{inside[position:][:_SHOWN_MAX]}"')
            plain, quoted, value, _ = found.groups()
            if value is None:
                if quoted is None:
                    raise ScrapeError(f'"{_shown(text)}": the label "{plain}" has no value; write {plain}="..."')
                if name:
                    raise ScrapeError(f'"{_shown(text)}": the metric name is given twice; write it once')
                name = _unescaped(quoted)
            else:
                label = plain if plain is not None else _unescaped(quoted)
                if label in labels or label == "__name__":
                    raise ScrapeError(f'"{_shown(text)}": the label "{label}" is given twice; write it once')
                labels[label] = _unescaped(value)
            position = found.end()
    if not name:
        raise ScrapeError(f'"{_shown(text)}" has no metric name')
    if type_ == "histogram" and "le" in labels:
        labels["le"] = _normal_float(labels["le"])
    elif type_ == "summary" and "quantile" in labels:
        labels["quantile"] = _normal_float(labels["quantile"])
    labels["__name__"] = name
    return labels


def _value(word: bytes) -> float:
    try:
        if b"_" in word:
            raise ValueError
        return float(word)
    except ValueError:
        if _HEX_FLOAT.fullmatch(word):
            return float.fromhex(word.decode())
        raise


def _normal_float(text: str) -> str:
    try:
        value = float(text)
    except ValueError:
        return text
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    shown = repr(value)
    mantissa, e, exponent = shown.partition("e")
    if not e:
        return shown
    return f"{mantissa}e{exponent[0]}{exponent[1:].zfill(2)}"


def _comment(line: bytes, metadata: dict[str, Metadata], type_: str, body: bytes, position: int) -> str:
    parts = line[1:].lstrip(b" \t").split(None, 1)
    if len(parts) < 2 or parts[0] not in (b"HELP", b"TYPE", b"UNIT"):
        return type_
    found = _COMMENT_NAME.match(parts[1])
    if found is None:
        return type_
    try:
        name = _unescaped(found[1].decode()) if found[1] is not None else found[2].decode()
        rest = parts[1][found.end() :].strip(b" \t").decode()
    except UnicodeDecodeError:
        raise _error(body, position, "is not UTF-8") from None
    known = metadata.get(name, Metadata())
    if parts[0] == b"HELP":
        metadata[name] = known._replace(help=rest.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\"))
    elif parts[0] == b"UNIT":
        metadata[name] = known._replace(unit=rest)
    else:
        if rest not in _KNOWN_TYPES:
            raise _error(body, position, f'has the type "{rest[:_SHOWN_MAX]}", which is not a metric type')
        type_ = "unknown" if rest == "untyped" else rest
        metadata[name] = known._replace(type=type_)
    return type_


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    known = {"\\": "\\", '"': '"', "n": "\n"}
    return _ESCAPE.sub(lambda found: known.get(found[1], found[0]), text)


def _shown(text: bytes) -> str:
    shown = text[:_SHOWN_MAX].decode(errors="replace")
    return shown + "..." if len(text) > _SHOWN_MAX else shown


def _error(body: bytes, position: int, problem: str) -> ScrapeError:
    number = body.count(b"\n", 0, position) + 1
    line = body[position : position + 4 * _SHOWN_MAX].split(b"\n", 1)[0]
    return ScrapeError(f'line {number}: "{_shown(line)}" {problem}')
