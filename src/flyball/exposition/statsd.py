"""The statsd line protocol: ``name:value|type|@rate|#tag:value,...``, one metric a line, counters and gauges.

Timers and histograms (``ms``, ``h``, ``d``) become a count and a sum, sets are refused. Tags are Datadog's.
"""

import math
import re
from typing import NamedTuple

from flyball.errors import ScrapeError
from flyball.model.labels import METRIC_NAME, Labels, labels_of

_NOT_A_NAME = re.compile(r"[^a-zA-Z0-9_:]")
_TIMINGS = ("ms", "h", "d")
_TAGS_MAX = 30
_LENGTH_MAX = 1_024


class Change(NamedTuple):
    """What one line says: a series is ``add``ed to, or set when ``add`` is False."""

    series: Labels
    value: float
    add: bool


def parse_line(line: str) -> list[Change]:
    """The changes of one line.

    Raises:
        ScrapeError: the line is malformed, or of a type that is not taken.
    """
    name, colon, rest = line.partition(":")
    value, *parts = rest.split("|")
    if not name or not colon or not parts or len(line) > _LENGTH_MAX:
        raise ScrapeError(f'statsd line "{line[:80]}" is not name:value|type')
    kind, rate, tags = parts[0], 1.0, {}
    for part in parts[1:]:
        if part.startswith("@"):
            rate = _number(line, part[1:])
            if not 0 < rate <= 1:
                raise ScrapeError(f'statsd line "{line[:80]}": the sample rate is not within 0 and 1')
        elif part.startswith("#"):
            tags = _tags(line, part[1:])
    number = _number(line, value)
    metric = _name(name)
    if kind == "c":
        if number < 0:
            raise ScrapeError(f'statsd line "{line[:80]}": a counter only rises; send a gauge (|g)')
        metric = metric if metric.endswith("_total") else metric + "_total"
        return [Change(_series(metric, tags), number / rate, True)]
    if kind == "g":
        return [Change(_series(metric, tags), number, value[0] in "+-")]
    if kind in _TIMINGS:
        unit = 1000.0 if kind == "ms" else 1.0
        metric = metric + "_seconds" if kind == "ms" else metric
        return [
            Change(_series(metric + "_count", tags), 1 / rate, True),
            Change(_series(metric + "_sum", tags), number / unit / rate, True),
        ]
    raise ScrapeError(f'statsd line "{line[:80]}": type "{kind[:8]}" is not taken; send c, g, ms, h or d')


def _series(metric: str, tags: dict[str, str]) -> Labels:
    return labels_of({METRIC_NAME: metric, **tags})


def _name(text: str) -> str:
    name = _NOT_A_NAME.sub("_", text)
    return "_" + name if name[0].isdigit() else name


def _tags(line: str, text: str) -> dict[str, str]:
    found = {}
    for tag in text.split(","):
        name, _, value = tag.partition(":")
        if name and value:
            found[_name(name).replace(":", "_")] = value
    if len(found) > _TAGS_MAX:
        raise ScrapeError(f'statsd line "{line[:80]}" has {len(found)} tags, more than {_TAGS_MAX}')
    return found


def _number(line: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ScrapeError(f'statsd line "{line[:80]}": "{text[:32]}" is not a number') from None
    if not math.isfinite(number):
        raise ScrapeError(f'statsd line "{line[:80]}": "{text[:32]}" is not finite')
    return number
