"""The layout cache: a body is literals with values between them, and from one scrape to the next only the
values change. When every literal is byte-equal, only the values are parsed.
"""

import re
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from flyball.model.frames import Floats, Times

#: Stands for "no time of its own" in an array of times.
NO_TIME = -(1 << 63)

# A value (and a time) that ends its line. Comment lines match too; their words are compared, not parsed.
_TEXT_SPLIT = re.compile(rb" ([-+.0-9a-zA-Z]+)(?: (-?[0-9]+))?\n")
_OPENMETRICS_SPLIT = re.compile(rb" ([-+.0-9a-zA-Z]+)(?: ([0-9.]+))?(?: # \{[^\n]*)?\n")


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """A body's shape: everything but the values and times of its samples.

    Attributes:
        openmetrics: times are in s rather than ms, and exemplars are skipped.
        literals: the text before each match, and after the last.
        comments: (index, value word, time word) of matches in comment lines, which must not change.
        pick: takes the samples out of a list of matches; None when every match is a sample.
        count: number of samples.
        timed: which samples carry a time; None when none does.
    """

    openmetrics: bool
    literals: list[bytes]
    comments: tuple[tuple[int, bytes, bytes | None], ...]
    pick: Any
    count: int
    timed: tuple[bool, ...] | None


def build_layout(body: bytes, openmetrics: bool, offsets: list[int], times_ms: Times | None) -> Layout | None:
    """The layout of a body whose samples' values start at ``offsets``; None when the fast path would not find
    exactly these samples."""
    if not offsets:
        return None
    split = _OPENMETRICS_SPLIT if openmetrics else _TEXT_SPLIT
    wanted = {offset: index for index, offset in enumerate(offsets)}
    comments: list[tuple[int, bytes, bytes | None]] = []
    picked: list[int] = []
    timed: list[bool] = []
    for index, found in enumerate(split.finditer(body)):
        if found.start(1) in wanted:
            picked.append(index)
            timed.append(found[2] is not None)
        else:
            comments.append((index, found[1], found[2]))
    if len(picked) != len(offsets):
        return None
    if [bool(time != NO_TIME) for time in times_ms] != timed if times_ms is not None else any(timed):
        return None
    if not comments:
        pick = None
    elif len(picked) == 1:
        only = picked[0]
        pick = lambda words: (words[only],)  # noqa: E731
    else:
        pick = itemgetter(*picked)
    return Layout(
        openmetrics=openmetrics,
        literals=split.split(body)[0::3],
        comments=tuple(comments),
        pick=pick,
        count=len(picked),
        timed=tuple(timed) if any(timed) else None,
    )


def parse_values(layout: Layout, body: bytes) -> tuple[Floats, Times | None] | None:
    """Values [n] and times [n] (``NO_TIME`` where absent; None when the layout has none) of a body with this
    layout, or None when it has another one and must be parsed in full."""
    parts = (_OPENMETRICS_SPLIT if layout.openmetrics else _TEXT_SPLIT).split(body)
    if parts[0::3] != layout.literals:
        return None
    words, times = parts[1::3], parts[2::3]
    for index, word, time in layout.comments:
        if words[index] != word or times[index] != time:
            return None
    if layout.pick is not None:
        words, times = layout.pick(words), layout.pick(times)
    try:
        values = np.fromiter(map(float, words), np.float64, layout.count)
    except ValueError:
        return None
    if layout.timed is None:
        return (values, None) if times.count(None) == layout.count else None
    if tuple([time is not None for time in times]) != layout.timed:
        return None
    try:
        if layout.openmetrics:
            numbers = [NO_TIME if time is None else round(float(time) * 1000) for time in times]
        else:
            numbers = [NO_TIME if time is None else int(time) for time in times]
        return values, np.array(numbers, dtype=np.int64)
    except (ValueError, OverflowError):
        return None
