"""OpenMetrics 1.0, as strict as its standard: a body that breaks a rule is refused as a whole.

The rules are those of the OpenMetrics specification, section "Metric types" and "Text format"; the reason for each
refusal is one sentence in the error.
"""

import re
from math import inf, isnan
from typing import NamedTuple

import numpy as np

from flyball.errors import ScrapeError
from flyball.exposition.layout import build_layout, seconds_to_ms
from flyball.exposition.parsed import KNOWN_TYPES, NO_TIME, Exemplar, Exposition, Metadata, Samples
from flyball.exposition.series import line_error, parse_labels, unescaped

#: Code points of all label names and values of an exemplar.
EXEMPLAR_LABELS_MAX = 128

_QUOTED = rb'"(?:[^"\\\n]++|\\.)*+"'
_ONE_LABEL = rb"(?:[a-zA-Z_][a-zA-Z0-9_]*+=" + _QUOTED + rb"|" + _QUOTED + rb"(?:=" + _QUOTED + rb")?+)"
_LABELS = rb"\{((?:" + _ONE_LABEL + rb"(?:," + _ONE_LABEL + rb")*+)?+)\}"
_REAL = rb"[-+]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE][-+]?+[0-9]++)?+"
_NUMBER = rb"(" + _REAL + rb"|[-+]?+(?i:inf(?:inity)?+)|(?i:nan))"
_EXEMPLAR_TEXT = _LABELS + rb" " + _NUMBER + rb"(?: (" + _REAL + rb"))?+"
_LINE = re.compile(
    rb"([a-zA-Z_:][a-zA-Z0-9_:]*+)?+(?:" + _LABELS + rb")?+"
    rb" " + _NUMBER + rb"(?: (" + _REAL + rb"))?+(?: # (" + _EXEMPLAR_TEXT + rb"))?+\n"
)
_EXEMPLAR = re.compile(_EXEMPLAR_TEXT)
_METADATA = re.compile(rb'# (HELP|TYPE|UNIT) ([a-zA-Z_:][a-zA-Z0-9_:]*+|"(?:[^"\\\n]++|\\.)*+") ([^\n]*+)\n')

#: What may follow the family's name in the names of its samples.
_SUFFIXES = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_count", "_sum", "_created"),
    "gaugehistogram": ("_bucket", "_gcount", "_gsum"),
    "summary": ("", "_count", "_sum", "_created"),
    "info": ("_info",),
    "gauge": ("",),
    "stateset": ("",),
    "unknown": ("",),
}
_WITH_EXEMPLARS = frozenset({("counter", "_total"), ("histogram", "_bucket"), ("gaugehistogram", "_bucket")})
_NEVER_NEGATIVE = frozenset(
    {
        ("counter", "_total"),
        ("histogram", "_bucket"),
        ("histogram", "_count"),
        ("gaugehistogram", "_bucket"),
        ("gaugehistogram", "_gcount"),
        ("summary", "_count"),
        ("summary", "_sum"),
    }
)
_MAYBE_NEGATIVE = frozenset({("histogram", "_sum"), ("gaugehistogram", "_gsum")})


class _BrokenRuleError(Exception):
    """A sentence that says which rule the line breaks."""


def parse_openmetrics(body: bytes) -> Exposition:
    """Every sample of the body, in order.

    Raises:
        ScrapeError: the body breaks a rule of the standard; names the line and the rule.
    """
    series: list[bytes] = []
    types: list[str] = []
    values: list[float] = []
    times: list[int] = []
    offsets: list[int] = []
    exemplars: list[tuple[int, Exemplar]] = []
    metadata: dict[str, Metadata] = {}
    names = _Names()
    family = _Family("", "unknown", names)
    end = len(body)
    if body.endswith(b"\n# EOF"):
        body += b"\n"
    position = 0
    try:
        while not body.startswith(b"# EOF\n", position):
            if position >= end:
                raise ScrapeError("the body does not end with # EOF: it was cut short, or it is not OpenMetrics")
            if body.startswith(b"#", position):
                found = _METADATA.match(body, position)
                if found is None:
                    raise _BrokenRuleError("is not # HELP, # TYPE, # UNIT or # EOF with a name and a text")
                family = _metadata(found, family, names, metadata)
                position = found.end()
                continue
            found = _LINE.match(body, position)
            if found is None:
                raise _BrokenRuleError('is not a sample: expected name{label="value"} value, a time, an exemplar')
            plain, inside, word, time, example = found.group(1, 2, 3, 4, 5)
            name, labels = parse_labels((inside or b"").decode(), (plain or b"").decode(), found[0])
            if not name:
                raise _BrokenRuleError("has no metric name")
            if family.suffix(name) is None:
                family.close()
                family = _Family(name, "unknown", names)
            value = float(word)
            time_ms = NO_TIME if time is None else seconds_to_ms(time)
            family.add(name, labels, value, None if time is None else float(time))
            if example is not None:
                exemplar = read_exemplar(example)
                if (family.type, family.suffix(name)) not in _WITH_EXEMPLARS or exemplar is None:
                    raise _BrokenRuleError("has an exemplar, which only buckets and the totals of counters may have")
                exemplars.append((len(series), exemplar))
            series.append(body[position : found.start(3) - 1])
            types.append(family.type)
            values.append(value)
            times.append(time_ms)
            offsets.append(found.start(3))
            position = found.end()
        family.close()
    except _BrokenRuleError as exc:
        raise line_error(body, position, str(exc)) from None
    except UnicodeDecodeError:
        raise line_error(body, position, "is not UTF-8") from None
    except OverflowError:
        raise line_error(body, position, "has a time that is not finite") from None
    if position + len(b"# EOF\n") < len(body):
        raise line_error(body, position + len(b"# EOF\n"), "follows # EOF")
    times_ms = np.array(times, np.int64) if any(time != NO_TIME for time in times) else None
    return Exposition(
        series=series,
        types=types,
        samples=Samples(np.array(values, np.float64), times_ms, exemplars),
        metadata=metadata,
        layout=build_layout(body[:end], offsets, times_ms, read_exemplar),
    )


def read_exemplar(text: bytes) -> Exemplar | None:
    """``{label="value"} value time``; None when the text is something else or its labels are too long."""
    found = _EXEMPLAR.fullmatch(text)
    if found is None:
        return None
    inside, word, time = found.groups()
    try:
        name, labels = parse_labels(inside.decode(), "", text)
        if name or sum(len(label) + len(value) for label, value in labels.items()) > EXEMPLAR_LABELS_MAX:
            return None
        return Exemplar(labels, float(word), None if time is None else seconds_to_ms(time))
    except (ScrapeError, UnicodeDecodeError, OverflowError):
        return None


def _metadata(found: re.Match[bytes], family: "_Family", names: "_Names", metadata: dict[str, Metadata]) -> "_Family":
    word, name_text, rest = found[1], found[2].decode(), found[3].decode()
    name = unescaped(name_text[1:-1]) if name_text.startswith('"') else name_text
    if name != family.name or family.taken:
        family.close()
        family = _Family(name, "unknown", names)
        metadata[name] = Metadata()
    if word in family.said:
        raise _BrokenRuleError(f'repeats what was said of "{name}"')
    family.said.add(word)
    known = metadata[name]
    if word == b"TYPE":
        if rest not in KNOWN_TYPES:
            raise _BrokenRuleError(f'has the type "{rest}", which is not a metric type')
        family.type = rest
        metadata[name] = known._replace(type=rest)
    elif word == b"UNIT":
        if rest and not name.endswith("_" + rest):
            raise _BrokenRuleError(f'has the unit "{rest}", with which the name "{name}" does not end')
        metadata[name] = known._replace(unit=rest)
    else:
        metadata[name] = known._replace(help=unescaped(rest))
    if metadata[name].unit and family.type in ("info", "stateset"):
        raise _BrokenRuleError(f"gives a unit to a family of type {family.type}, which has none")
    return family


class _Names:
    """Which names are in use: a family's own and those of its samples belong to it alone.

    But a gauge and a counter may share their family's name, for Go's client library writes
    go_memstats_alloc_bytes so, and no sample is ambiguous.
    """

    def __init__(self) -> None:
        self._taken: dict[str, tuple[str, str]] = {}

    def take(self, family: "_Family") -> None:
        mine = (family.name, family.type)
        for name in sorted(family.names()):
            other = self._taken.setdefault(name, mine)
            shared = other[0] == family.name == name and {other[1], family.type} == {"gauge", "counter"}
            if other is not mine and not shared:
                raise _BrokenRuleError(f'uses the name "{name}", which an earlier family has; keep families together')


class _Place(NamedTuple):
    """What samples that belong together share: the labels of the metric."""

    labels: tuple[tuple[str, str], ...]


class _Family:
    """The samples of one family, checked as they come; ``groups`` are the metrics that are complete."""

    def __init__(self, name: str, type_: str, names: _Names) -> None:
        self.name = name
        self.type = type_
        self.taken = False
        self._names = names
        self.said: set[bytes] = set()
        self.groups: set[_Place] = set()
        self.group: _Place | None = None
        self.time_s: float | None = None
        self.buckets: list[tuple[float, float]] = []
        self.ends_in_inf = False
        self.seen: dict[str, float] = {}

    def names(self) -> set[str]:
        return {self.name, *(self.name + suffix for suffix in _SUFFIXES[self.type])}

    def suffix(self, name: str) -> str | None:
        """What follows the family's name in a sample's; None when the sample is not of this family."""
        if not name.startswith(self.name):
            return None
        suffix = name[len(self.name) :]
        return suffix if suffix in _SUFFIXES[self.type] else None

    def add(self, name: str, labels: dict[str, str], value: float, time_s: float | None) -> None:
        self._take_names()
        suffix = self.suffix(name) or ""
        own = self._own_label(suffix, labels)
        place = _Place(tuple(sorted((label, text) for label, text in labels.items() if label != own)))
        if place != self.group:
            self._end_group()
            if place in self.groups:
                raise _BrokenRuleError("comes back to a metric that other samples had ended; keep metrics together")
            self.group = place
        elif time_s != self.time_s:
            if time_s is None or self.time_s is None:
                raise _BrokenRuleError("has a time where the metric's samples before had none, or the other way")
            if time_s < self.time_s:
                raise _BrokenRuleError("goes back in time")
            self._end_point()
        self.time_s = time_s
        self._value(suffix, labels, value)

    def close(self) -> None:
        self._take_names()
        self._end_group()

    def _take_names(self) -> None:
        """Once the type is certain: at the first sample, or without one at the end."""
        if not self.taken and self.name:
            self.taken = True
            self._names.take(self)

    def _own_label(self, suffix: str, labels: dict[str, str]) -> str | None:
        """The label that tells samples of one metric apart."""
        if suffix == "_bucket" and self.type in ("histogram", "gaugehistogram"):
            own = "le"
        elif self.type == "summary" and suffix == "":
            own = "quantile"
        elif self.type == "stateset":
            own = self.name
        else:
            return None
        if own not in labels:
            raise _BrokenRuleError(f'has no label "{own}"')
        return own

    def _value(self, suffix: str, labels: dict[str, str], value: float) -> None:
        kind = (self.type, suffix)
        if kind in _NEVER_NEGATIVE and (isnan(value) or value < 0):
            raise _BrokenRuleError("has a value that is negative or NaN, which a count cannot be")
        if kind in _MAYBE_NEGATIVE and isnan(value):
            raise _BrokenRuleError("has the sum NaN")
        if self.type == "info" and value != 1:
            raise _BrokenRuleError("is of type info, whose value is always 1")
        if self.type == "stateset" and value not in (0, 1):
            raise _BrokenRuleError("is of type stateset, whose values are 0 and 1")
        if kind == ("summary", ""):
            quantile = _number(labels["quantile"])
            if not 0 <= quantile <= 1:
                raise _BrokenRuleError(f'has the quantile "{labels["quantile"]}", which is not from 0 to 1')
            if value < 0:
                raise _BrokenRuleError("has a negative quantile value")
        if suffix == "_bucket" and self.type != "unknown":
            bound = _number(labels["le"])
            if self.buckets and not bound > self.buckets[-1][0]:
                raise _BrokenRuleError("is not in the order of le")
            if self.buckets and value < self.buckets[-1][1]:
                raise _BrokenRuleError("counts less than the bucket before; buckets are cumulative")
            self.buckets.append((bound, value))
            self.ends_in_inf = labels["le"] == "+Inf"
        elif suffix:
            self.seen[suffix] = value

    def _end_group(self) -> None:
        if self.group is not None:
            self._end_point()
            self.groups.add(self.group)
            self.group = None

    def _end_point(self) -> None:
        """The samples of one metric at one time are complete."""
        buckets, seen = self.buckets, self.seen
        self.buckets, self.seen = [], {}
        if self.type not in ("histogram", "gaugehistogram"):
            return
        g = "g" if self.type == "gaugehistogram" else ""
        count, total = seen.get(f"_{g}count"), seen.get(f"_{g}sum")
        if not buckets or not self.ends_in_inf:
            raise _BrokenRuleError(f'ends a {self.type} that has no bucket le="+Inf"')
        if count is not None and count != buckets[-1][1]:
            raise _BrokenRuleError(f"ends a {self.type} whose count is not that of its +Inf bucket")
        negative = buckets[0][0] < 0
        if self.type == "histogram" and negative and total is not None:
            raise _BrokenRuleError("ends a histogram with negative buckets, which has no sum")
        if not (negative and self.type == "histogram") and (count is None) != (total is None):
            raise _BrokenRuleError(f"ends a {self.type} with only one of _{g}sum and _{g}count")
        if total is not None and total < 0 and not negative:
            raise _BrokenRuleError(f"ends a {self.type} with a negative sum but no negative bucket")


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    return value if abs(value) <= inf else -inf
