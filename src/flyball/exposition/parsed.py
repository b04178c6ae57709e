"""What every format is parsed into."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from flyball.model.frames import Floats, Times
from flyball.model.histograms import Histogram

if TYPE_CHECKING:
    from flyball.exposition.layout import Layout

#: Stands for "no time of its own" in an array of times.
NO_TIME = -(1 << 63)
#: Times beyond this many ms either way are cut to it: they are refused as too far ahead or too old anyway.
TIME_MAX_MS = 1 << 62

KNOWN_TYPES = frozenset({"counter", "gauge", "histogram", "summary", "unknown", "gaugehistogram", "info", "stateset"})


class Metadata(NamedTuple):
    """What ``# TYPE``, ``# HELP`` and ``# UNIT`` say of a metric family."""

    type: str = "unknown"
    help: str = ""
    unit: str = ""


class Exemplar(NamedTuple):
    """One example of what a sample counts; ``time_ms`` is None when the target gave none."""

    labels: dict[str, str]
    value: float
    time_ms: int | None


class Samples(NamedTuple):
    """What changes from one scrape to the next.

    Attributes:
        values: [n] float64.
        times_ms: [n] int64 with ``NO_TIME`` where the sample has no time, or None when no sample has one.
        exemplars: (index of its sample, exemplar).
        histograms: (index of its sample, native histogram); the sample's value is its count.
    """

    values: Floats
    times_ms: Times | None
    exemplars: Sequence[tuple[int, Exemplar]] = ()
    histograms: Sequence[tuple[int, Histogram]] = ()


@dataclass(frozen=True, slots=True)
class Exposition:
    """A parsed body.

    Attributes:
        series: each sample's name and labels as written; ``series.parse_series`` reads them.
        types: the family type in force at each sample (``histogram``...), ``""`` before the first TYPE line.
        metadata: by family name.
        layout: for ``parse_values``; None when the body is written in a way that the fast path does not read.
        natives: the series that are always native histograms: a sample that is none of them is missing.
    """

    series: list[bytes]
    types: list[str]
    samples: Samples
    metadata: dict[str, Metadata] = field(default_factory=dict)
    layout: "Layout | None" = None
    natives: frozenset[int] = frozenset()

    @property
    def values(self) -> Floats:
        return self.samples.values

    @property
    def times_ms(self) -> Times | None:
        return self.samples.times_ms
