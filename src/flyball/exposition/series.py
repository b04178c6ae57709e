"""A series as written, ``name{label="value"}``, into labels. Read once for each new series."""

import re
from decimal import Decimal

from flyball.errors import ScrapeError

#: An error message shows this much of a line.
SHOWN_MAX = 80

_LABEL = re.compile(
    r'[ \t]*+(?:([a-zA-Z_][a-zA-Z0-9_]*+)|"((?:[^"\\\n]++|\\.)*+)")[ \t]*+'
    r'(?:=[ \t]*+"((?:[^"\\\n]++|\\.)*+)")?+[ \t]*+(,|\Z)'
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"\\": "\\", '"': '"', "n": "\n"}


def parse_series(text: bytes, type_: str = "") -> dict[str, str]:
    """The labels, ``__name__`` included, of a series as written. ``le`` and ``quantile`` are normalised to one
    spelling (``1`` becomes ``1.0``), as Prometheus 3 does.

    Raises:
        ScrapeError: the text is not a series; names what is wrong in it.
    """
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        raise ScrapeError(f'"{shown(text)}" is not UTF-8') from None
    name, brace, rest = decoded.partition("{")
    name = name.rstrip(" \t")
    labels: dict[str, str] = {}
    if brace:
        inside = rest[: rest.rindex("}")]
        name, labels = parse_labels(inside, name, text)
    if not name:
        raise ScrapeError(f'"{shown(text)}" has no metric name')
    if type_ == "histogram" and "le" in labels:
        labels["le"] = normal_float(labels["le"])
    elif type_ == "summary" and "quantile" in labels:
        labels["quantile"] = normal_float(labels["quantile"])
    labels["__name__"] = name
    return labels


def parse_labels(inside: str, name: str, text: bytes) -> tuple[str, dict[str, str]]:
    """(metric name, labels) of what stands in the braces of ``text``; the name may stand there, quoted.

    Raises:
        ScrapeError: it is not a list of labels, or a name is given twice.
    """
    labels: dict[str, str] = {}
    position, end = 0, len(inside)
    while position < end and inside[position:].strip(" \t"):
        found = _LABEL.match(inside, position)
        if found is None:
            raise ScrapeError(f'"{shown(text)}": expected name="value" at "{inside[position:][:SHOWN_MAX]}"')
        plain, quoted, value, _ = found.groups()
        if value is None:
            if quoted is None:
                raise ScrapeError(f'"{shown(text)}": the label "{plain}" has no value; write {plain}="..."')
            if name:
                raise ScrapeError(f'"{shown(text)}": the metric name is given twice; write it once')
            name = unescaped(quoted)
        else:
            label = plain if plain is not None else unescaped(quoted)
            if label in labels or label == "__name__":
                raise ScrapeError(f'"{shown(text)}": the label "{label}" is given twice; write it once')
            labels[label] = unescaped(value)
        position = found.end()
    return name, labels


def normal_float(text: str) -> str:
    """``1`` and ``1e0`` as ``1.0``, ``1000000`` as ``1e+06``: Go's %g and a ``.0``; what is not a number stays."""
    try:
        value = float(text)
    except ValueError:
        return text
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return repr(value)
    digits, exponent = Decimal(repr(value)).normalize().as_tuple()[1:]
    assert isinstance(exponent, int)
    fraction = "".join(map(str, digits[1:]))
    power = exponent + len(digits) - 1
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[0]}{'.' if fraction else ''}{fraction}e{'-' if power < 0 else '+'}{abs(power):02d}"


def unescaped(text: str) -> str:
    r"""``\\``, ``\"`` and ``\n`` read; any other backslash is itself."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[0]), text)


def shown(text: bytes) -> str:
    """A piece of the body for an error message."""
    cut = text[:SHOWN_MAX].decode(errors="replace")
    return cut + "..." if len(text) > SHOWN_MAX else cut


def line_error(body: bytes, position: int, problem: str) -> ScrapeError:
    """Names the line that begins at ``position``."""
    number = body.count(b"\n", 0, position) + 1
    line = body[position : position + 4 * SHOWN_MAX].split(b"\n", 1)[0]
    return ScrapeError(f'line {number}: "{shown(line)}" {problem}')
